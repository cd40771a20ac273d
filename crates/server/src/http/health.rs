//! `GET /healthz`, `GET /readyz`, and for the operator `GET /metrics`.

use std::sync::Arc;

use api::{Health, path};
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{StatusCode, header};
use serde::Serialize;

use crate::config::Role;
use crate::http::stream::NO_CACHE;
use crate::metrics::{CONTENT_TYPE, Probes, Reason, metrics};

/// Whether the role can do its work now.
#[derive(Debug, Serialize)]
struct Readiness {
    ready: bool,
    reasons: Vec<Reason>,
}

/// Says that the process serves, and as what; and whether it is ready, or why not.
pub fn router(role: Role, probes: Arc<Probes>) -> Router {
    let health = Health { role: role.to_string(), version: env!("CARGO_PKG_VERSION").to_owned() };
    Router::new()
        .route(path::HEALTH, get(move || async move { Json(health) }))
        .route(path::READY, get(ready))
        .with_state(probes)
}

/// The numbers, for a listener that only the operator reaches.
pub fn numbers(probes: Arc<Probes>) -> Router {
    Router::new().route("/metrics", get(text)).with_state(probes)
}

async fn ready(State(probes): State<Arc<Probes>>) -> Response {
    let reasons = probes.look().await;
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = Json(Readiness { ready: reasons.is_empty(), reasons });
    (status, [(header::CACHE_CONTROL, NO_CACHE)], body).into_response()
}

async fn text(State(probes): State<Arc<Probes>>) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics().text(&probes).await).into_response()
}
