//! `GET /healthz`.

use api::{Health, path};
use axum::routing::get;
use axum::{Json, Router};

use crate::config::Role;

/// Says that the process serves, and as what.
pub fn router(role: Role) -> Router {
    let health = Health { role: role.to_string(), version: env!("CARGO_PKG_VERSION").to_owned() };
    Router::new().route(path::HEALTH, get(move || async move { Json(health) }))
}
