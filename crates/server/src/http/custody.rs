//! A custodian: `POST /v1/custody/{grants,outcomes,statuses,erasures}`, `GET /v1/custody`.

use std::sync::Arc;

use api::{ErasureAnswer, ErasureNote, GrantAnswer, GrantRequest, GrantedShare, OutcomeNote, StatusNote, path};
use attest::BUNDLE_BYTES_MAX;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use custody::{Grant, GrantError, Granted, LedgerError};
use http::header;
use ledger::PrivateError;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::custodian::{Desk, DeskError};
use crate::http::error::{Code, HttpError};
use crate::http::server::checked_body;
use crate::http::stream::NO_CACHE;
use crate::metrics::metrics;

/// 4,096 headers of two or three custodians, 2 to 4 KB each and a third more in base64; a bundle, escaped.
const GRANT_BYTES_MAX: usize = 24 << 20;
/// A bundle, escaped.
const OUTCOME_BYTES_MAX: usize = 2 * BUNDLE_BYTES_MAX;
/// A bundle, escaped, and 1,024 secrets.
const ERASURE_BYTES_MAX: usize = OUTCOME_BYTES_MAX + custody::ERASED_MAX * 80;
/// What all requests together may hold in memory: 21 of the largest, or a thousand common ones.
static KIBIBYTES: Semaphore = Semaphore::const_new(512 << 10);

/// Serves a custodian.
pub(crate) fn router(desk: Arc<Desk>) -> Router {
    Router::new()
        .route(path::GRANTS, post(grant))
        .route(path::OUTCOMES, post(outcome).layer(DefaultBodyLimit::max(OUTCOME_BYTES_MAX)))
        .route(path::STATUSES, post(status).layer(DefaultBodyLimit::max(OUTCOME_BYTES_MAX)))
        .route(path::ERASURES, post(erase).layer(DefaultBodyLimit::max(ERASURE_BYTES_MAX)))
        .route(path::CUSTODY, get(state))
        .with_state(desk)
}

async fn grant(State(desk): State<Arc<Desk>>, request: Request) -> Result<Response, HttpError> {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|it| it.to_str().ok()?.parse::<usize>().ok()).unwrap_or(GRANT_BYTES_MAX);
    let kibibytes = u32::try_from(length.min(GRANT_BYTES_MAX).div_ceil(1 << 10)).unwrap_or(u32::MAX);
    let Ok(permit) = KIBIBYTES.try_acquire_many(kibibytes.max(1)) else {
        return Err(HttpError::new(Code::Busy, "other requests are being worked on"));
    };
    let body = axum::body::to_bytes(request.into_body(), length.min(GRANT_BYTES_MAX)).await;
    let body = body.map_err(|error| HttpError::new(Code::TooLong, error.to_string()))?;
    let asked = parse::<GrantRequest>(&body)?;
    // To its end, also if the gateway goes away: others are put on record with it.
    let done = tokio::spawn(async move {
        let _permit = permit;
        desk.grant(asked).await
    });
    let granted = done.await.unwrap_or_else(|error| Err(DeskError::Thread(error)));
    metrics().grant(if granted.is_ok() { "granted" } else { "refused" });
    let Grant { granted, closed } = granted.map_err(|error| refused(&error))?;
    let (granted, closed) = (granted.iter().map(share).collect(), closed.iter().map(ToString::to_string).collect());
    Ok(([(header::CACHE_CONTROL, NO_CACHE)], Json(GrantAnswer { granted, closed })).into_response())
}

fn share(granted: &Granted) -> GrantedShare {
    GrantedShare {
        object: granted.object.to_string(),
        encapsulated: STANDARD.encode(&granted.wrapped.encapsulated),
        sealed: STANDARD.encode(&granted.wrapped.sealed),
    }
}

async fn outcome(State(desk): State<Arc<Desk>>, body: Result<Bytes, BytesRejection>) -> Result<Json<()>, HttpError> {
    let note: OutcomeNote = parse(&checked_body(body)?)?;
    let closed = tokio::spawn(async move { desk.close(&note.outcome).await }).await;
    closed.unwrap_or_else(|error| Err(DeskError::Thread(error))).map_err(|error| refused(&error))?;
    Ok(Json(()))
}

async fn status(State(desk): State<Arc<Desk>>, body: Result<Bytes, BytesRejection>) -> Result<Json<()>, HttpError> {
    let note: StatusNote = parse(&checked_body(body)?)?;
    desk.take_status(&note.region, &note.status).await.map_err(|error| refused(&error))?;
    Ok(Json(()))
}

async fn erase(
    State(desk): State<Arc<Desk>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<ErasureAnswer>, HttpError> {
    let note: ErasureNote = parse(&checked_body(body)?)?;
    let receipt = desk.erase(&note).await.map_err(|error| refused(&error))?;
    Ok(Json(ErasureAnswer { receipt: String::from_utf8_lossy(&receipt.to_bytes()).into_owned() }))
}

async fn state(State(desk): State<Arc<Desk>>) -> Result<Response, HttpError> {
    let state = desk.state().await.map_err(|error| refused(&error.into()))?;
    Ok(([(header::CACHE_CONTROL, NO_CACHE)], Json(state)).into_response())
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, HttpError> {
    serde_json::from_slice(body).map_err(|error| HttpError::new(Code::Request, error.to_string()))
}

fn refused(error: &DeskError) -> HttpError {
    HttpError::new(code(error), error.to_string())
}

fn code(error: &DeskError) -> Code {
    match error {
        DeskError::Form(_) => Code::Request,
        DeskError::Grant(GrantError::Keys(_) | GrantError::Entropy(_)) => Code::Storage,
        DeskError::Refused(_) | DeskError::Grant(_) => Code::Grant,
        DeskError::Private(PrivateError::Foreign { .. } | PrivateError::Closed { .. } | PrivateError::Redacted(_)) => {
            Code::Grant
        }
        DeskError::Private(PrivateError::Damaged(_)) => Code::Damaged,
        DeskError::Private(_) => Code::Storage,
        DeskError::Ledger(LedgerError::Used(_) | LedgerError::Exhausted { .. }) => Code::Grant,
        DeskError::Ledger(LedgerError::Outcomes | LedgerError::Contended | LedgerError::Changed) => Code::Busy,
        DeskError::Status(_) => Code::Peer,
        DeskError::Ledger(LedgerError::Damaged(_)) => Code::Damaged,
        DeskError::Ledger(LedgerError::Store(_)) | DeskError::Thread(_) | DeskError::Erasure(_) => Code::Storage,
        DeskError::Same(error) => code(error),
    }
}
