//! Objects that their owner has erased go from the vault, against the logged request.

use std::collections::BTreeSet;
use std::sync::Arc;

use ::vault::Manifests;
use api::{VaultErased, VaultErasure};
use attest::{Bundle, ErasureRequest};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use policy::Role;
use verify::Evidence;

use super::Vault;
use crate::http::error::{Code, HttpError};
use crate::http::server::checked_body;

pub(super) async fn erase(
    State(vault): State<Vault>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<VaultErased>, HttpError> {
    let body = checked_body(body)?;
    let request = |error: &dyn std::fmt::Display| HttpError::new(Code::Request, error.to_string());
    let asked: VaultErasure = serde_json::from_slice(&body).map_err(|error| request(&error))?;
    let bundle = Bundle::parse(asked.evidence.as_bytes()).map_err(|error| request(&error))?;
    let policy = Arc::clone(&vault.policy);
    let checked = tokio::task::spawn_blocking(move || logged(&policy, &bundle)).await;
    let failed = |error: &dyn std::fmt::Display| HttpError::new(Code::Storage, error.to_string());
    let asked = checked.map_err(|error| failed(&error))??;
    let names: BTreeSet<_> = asked.objects.iter().copied().collect();
    // Another reader and writer of the manifests, like the intake of another machine.
    let manifests = Manifests::open(Arc::clone(&vault.objects), asked.region).await;
    let erased = manifests.map_err(|error| failed(&error))?.erase(&names).await.map_err(|error| failed(&error))?;
    tracing::info!(objects = erased.objects, "objects were erased from the vault");
    Ok(Json(VaultErased { erased: erased.objects, made_of_them: erased.made_of_them }))
}

/// The request, if the gateway's recorder has signed it in the region's log.
fn logged(policy: &verify::TrustedPolicy, bundle: &Bundle) -> Result<ErasureRequest, HttpError> {
    let refused = |why: &dyn std::fmt::Display| HttpError::new(Code::Grant, why.to_string());
    let residency = policy.policy().residency.as_ref().ok_or_else(|| refused(&"the policy has no regions"))?;
    let evidence = Evidence::open(policy, bundle).map_err(|error| refused(&error))?;
    let request = evidence.one::<ErasureRequest>(Role::Recorder).map_err(|error| refused(&error))?;
    let ours = request.signers().iter().any(|signer| signer.organisation == residency.gateway);
    if !ours || *request.checkpoint().origin() != residency.log {
        return Err(refused(&"no recorder of the gateway's has signed it in the log of the regions"));
    }
    Ok(request.statement().predicate.clone())
}
