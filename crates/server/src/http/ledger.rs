//! Private parts of access statements, at whoever holds copies of them (`docs/formats/ledger.md`): the
//! supervisor, and custodians. Nobody is asked who they are: openings are taken against logged statements,
//! given out sealed to the key of a logged review, and deleted against a logged, approved redaction.

use std::sync::Arc;

use api::path;
use attest::{AccessIntent, BUNDLE_BYTES_MAX, Bundle, OPENING_BYTES_MAX};
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::header;
use ledger::{
    BringObjects, BringOpenings, DISCLOSED_MAX, Disclose, Disclosed, Private, PrivateError, Redact, Redacting,
    Reviewing,
};
use policy::Role;
use serde::de::DeserializeOwned;
use stdx::{Clock as _, Digest, SystemClock, SystemEntropy};
use verify::{Evidence, TrustedPolicy};

use crate::http::error::{Code, HttpError};
use crate::http::server::checked_body;
use crate::http::stream::{IMMUTABLE, NO_CACHE, OCTETS};

/// A bundle, escaped, and the openings of all its entries: three each, of a few hundred bytes mostly.
const BODY_BYTES_MAX: usize = 2 * BUNDLE_BYTES_MAX + 16 * OPENING_BYTES_MAX;
/// A request has two openings, an approval one; a bundle has 64 entries.
const OPENINGS_MAX: usize = 192;

/// Somebody who has copies.
pub(crate) struct Holder {
    private: Private,
    policy: Arc<TrustedPolicy>,
}

impl Holder {
    pub(crate) fn new(private: Private, policy: Arc<TrustedPolicy>) -> Arc<Self> {
        Arc::new(Self { private, policy })
    }
}

/// Serves a holder.
pub(crate) fn router(holder: Arc<Holder>) -> Router {
    Router::new()
        .route(path::OPENINGS, post(bring))
        .route(path::DISCLOSURES, post(disclose))
        .route(path::REDACTIONS, post(redact))
        .route(path::OBJECT_LISTS, post(bring_objects))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .route("/addenda/{first}/{second}/{root}", get(objects))
        .with_state(holder)
}

type Body = Result<Bytes, BytesRejection>;

async fn bring(State(holder): State<Arc<Holder>>, body: Body) -> Result<Json<()>, HttpError> {
    let brought: BringOpenings = parse(&checked_body(body)?)?;
    if brought.openings.len() > OPENINGS_MAX {
        let message = format!("{} openings; at most {OPENINGS_MAX}", brought.openings.len());
        return Err(HttpError::new(Code::Request, message));
    }
    let bundle = bundle(&brought.evidence)?;
    let evidence = Evidence::open(&holder.policy, &bundle).map_err(|error| refused(&error))?;
    holder.private.bring(&evidence, &brought.openings).await.map_err(|error| failed(&error))?;
    Ok(Json(()))
}

async fn disclose(State(holder): State<Arc<Holder>>, body: Body) -> Result<Response, HttpError> {
    let ask: Disclose = parse(&checked_body(body)?)?;
    if ask.commitments.len() > DISCLOSED_MAX {
        let message = format!("{} commitments; at most {DISCLOSED_MAX}", ask.commitments.len());
        return Err(HttpError::new(Code::Request, message));
    }
    let reviewing = {
        let bundle = bundle(&ask.review)?;
        let evidence = Evidence::open(&holder.policy, &bundle).map_err(|error| refused(&error))?;
        Reviewing::of(&evidence, &ask.key, SystemClock::new().now()).map_err(|error| refused(&error))?
    };
    let mut disclosed = Vec::new();
    for commitment in &ask.commitments {
        let Some(opening) = holder.private.opening(commitment).await.map_err(|error| failed(&error))? else { continue };
        // One seals in a tenth of a millisecond: a page of them is no work for another thread.
        let sealed = reviewing.disclose(&opening, &SystemEntropy);
        disclosed.push(sealed.map_err(|error| HttpError::new(Code::Storage, error.to_string()))?);
    }
    tracing::info!(review = %reviewing.review(), disclosed = disclosed.len(), "private parts were given out");
    Ok(([(header::CACHE_CONTROL, NO_CACHE)], Json(Disclosed { disclosed })).into_response())
}

async fn redact(State(holder): State<Arc<Holder>>, body: Body) -> Result<Json<()>, HttpError> {
    let ask: Redact = parse(&checked_body(body)?)?;
    let redacting = {
        let bundle = bundle(&ask.evidence)?;
        let evidence = Evidence::open(&holder.policy, &bundle).map_err(|error| refused(&error))?;
        Redacting::of(&evidence).map_err(|error| refused(&error))?
    };
    holder.private.redact(&redacting).await.map_err(|error| failed(&error))?;
    tracing::info!(redaction = %redacting.redaction(), "private parts were deleted");
    Ok(Json(()))
}

async fn bring_objects(State(holder): State<Arc<Holder>>, body: Body) -> Result<Json<()>, HttpError> {
    let brought: BringObjects = parse(&checked_body(body)?)?;
    let intent = {
        let bundle = bundle(&brought.evidence)?;
        let evidence = Evidence::open(&holder.policy, &bundle).map_err(|error| refused(&error))?;
        evidence.one::<AccessIntent>(Role::Gateway).map_err(|error| refused(&error))?
    };
    holder.private.bring_objects(&intent, &brought.headers).await.map_err(|error| failed(&error))?;
    Ok(Json(()))
}

/// C2SP tlog-addenda's place for what is no secret.
async fn objects(
    State(holder): State<Arc<Holder>>,
    Path((first, second, root)): Path<(String, String, String)>,
) -> Result<Response, HttpError> {
    let name = || HttpError::not_found(&root);
    let digest: Digest = root.parse().map_err(|_| name())?;
    if !root.starts_with(&format!("{first}{second}")) || first.len() != 2 || second.len() != 2 {
        return Err(name());
    }
    let headers = holder.private.objects(&digest).await.map_err(|error| failed(&error))?.ok_or_else(name)?;
    let bytes: Vec<u8> = headers.iter().flat_map(|header| *header.as_bytes()).collect();
    Ok(([(header::CONTENT_TYPE, OCTETS), (header::CACHE_CONTROL, IMMUTABLE)], bytes).into_response())
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, HttpError> {
    serde_json::from_slice(body).map_err(|error| HttpError::new(Code::Request, error.to_string()))
}

fn bundle(text: &str) -> Result<Bundle, HttpError> {
    Bundle::parse(text.as_bytes()).map_err(|error| HttpError::new(Code::Request, error.to_string()))
}

fn refused(error: &dyn std::error::Error) -> HttpError {
    HttpError::new(Code::Access, error.to_string())
}

fn failed(error: &PrivateError) -> HttpError {
    let code = match error {
        PrivateError::Evidence(_)
        | PrivateError::Foreign { .. }
        | PrivateError::Closed { .. }
        | PrivateError::Redacted(_)
        | PrivateError::Objects => Code::Access,
        PrivateError::Damaged(_) => Code::Damaged,
        PrivateError::Store(_) | PrivateError::Key(_) => Code::Storage,
    };
    HttpError::new(code, error.to_string())
}
