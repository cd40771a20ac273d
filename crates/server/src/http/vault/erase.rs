//! Objects that their owner has erased go from the vault, against the logged request and a custodian's logged word.

use std::sync::Arc;

use ::vault::{Manifests, Renounced};
use api::{VaultErased, VaultErasure};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;

use super::Vault;
use crate::http::error::{Code, HttpError};
use crate::http::server::checked_body;

pub(super) async fn erase(
    State(vault): State<Vault>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<VaultErased>, HttpError> {
    let body = checked_body(body)?;
    let asked: VaultErasure =
        serde_json::from_slice(&body).map_err(|error| HttpError::new(Code::Request, error.to_string()))?;
    let policy = Arc::clone(&vault.policy);
    let checked = tokio::task::spawn_blocking(move || Renounced::check(&policy, asked.evidence.as_bytes())).await;
    let failed = |error: &dyn std::fmt::Display| HttpError::new(Code::Storage, error.to_string());
    let renounced = checked.map_err(|error| failed(&error))?;
    let renounced = renounced.map_err(|error| HttpError::new(Code::Grant, error.to_string()))?;
    if !vault.admission.keeps(renounced.region()) {
        return Err(HttpError::new(Code::Request, format!("region `{}` is not kept here", renounced.region())));
    }
    // Another reader and writer of the manifests, like the intake of another machine.
    let manifests = Manifests::open(Arc::clone(&vault.objects), renounced.region().clone()).await;
    let erased = manifests.map_err(|error| failed(&error))?.erase(&renounced).await.map_err(|error| failed(&error))?;
    tracing::info!(objects = erased.objects, "objects were erased from the vault");
    Ok(Json(VaultErased { erased: erased.objects, made_of_them: erased.made_of_them }))
}
