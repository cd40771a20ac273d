//! The worker's HTTP: whoever reaches it learns names and sizes of sealed objects, and nothing without a grant.

use std::sync::Arc;

use api::{ErrorBody, ErrorClass, RunRequest, TOO_MUCH, TOO_MUCH_HINT, path};
use attest::StatementId;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::{StreamExt as _, stream};
use serde::de::DeserializeOwned;
use stdx::Digest;

use crate::catalog::CatalogError;
use crate::engine::{EngineError, Stop};
use crate::wire::QUESTION_BYTES_MAX;
use crate::worker::{Frames, Worker, WorkerError};

/// A query of 16 KiB, its values, and a list of countries.
const PLAN_BYTES_MAX: usize = 256 << 10;

/// 4,096 objects: headers of 20 KiB at most (2.4 KiB with two custodians), and two shares of 1.6 KiB each, all in
/// base64.
const RUN_BYTES_MAX: usize = 128 << 20;

/// An intent, a place, an X-Wing ciphertext and a share.
const HOP_BYTES_MAX: usize = 8 << 10;

/// The worker's routes.
pub fn router(worker: Arc<Worker>) -> Router {
    let plan = post(plan).layer(DefaultBodyLimit::max(PLAN_BYTES_MAX));
    let run = post(run).layer(DefaultBodyLimit::max(RUN_BYTES_MAX));
    let hop = post(hop).layer(DefaultBodyLimit::max(HOP_BYTES_MAX));
    let question = post(question).layer(DefaultBodyLimit::max(QUESTION_BYTES_MAX));
    Router::new()
        .route(path::WORKER, get(certificate))
        .route(path::PLAN, plan)
        .route(path::RUN, run)
        .route(path::HOPS, hop)
        .route(path::QUESTIONS, question)
        .route(path::HEALTH, get(health))
        .fallback(async || refuse(StatusCode::NOT_FOUND, "not-found", "nothing is served here".to_owned(), None))
        .with_state(worker)
}

async fn health() -> Json<api::Health> {
    Json(api::Health { role: "worker".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() })
}

async fn certificate(State(worker): State<Arc<Worker>>) -> Result<Json<api::Worker>, WorkerError> {
    worker.certificate().await.map(Json)
}

async fn plan(State(worker): State<Arc<Worker>>, body: Bytes) -> Result<Json<api::Plan>, WorkerError> {
    worker.plan(read(&body)?).await.map(Json)
}

async fn run(State(worker): State<Arc<Worker>>, body: Bytes) -> Result<Response, WorkerError> {
    let request = read::<RunRequest>(&body)?;
    drop(body);
    Ok(streamed(worker.run(request).await?))
}

async fn hop(State(worker): State<Arc<Worker>>, body: Bytes) -> Result<Response, WorkerError> {
    let odd = || WorkerError::Request("it begins no session".to_owned());
    let (intent, rest) = body.split_first_chunk().ok_or_else(odd)?;
    let (place, message) = rest.split_first().ok_or_else(odd)?;
    let intent = StatementId::from_digest(Digest::from_bytes(*intent));
    Ok(worker.hop(&intent, usize::from(*place), message)?.into_response())
}

async fn question(State(worker): State<Arc<Worker>>, body: Bytes) -> Result<Response, WorkerError> {
    let odd = || WorkerError::Request("it is no question".to_owned());
    let (intent, rest) = body.split_first_chunk().ok_or_else(odd)?;
    let (session, question) = rest.split_first_chunk().ok_or_else(odd)?;
    let intent = StatementId::from_digest(Digest::from_bytes(*intent));
    Ok(streamed(worker.question(&intent, &Digest::from_bytes(*session), question)?))
}

fn streamed(frames: Frames) -> Response {
    let frames = stream::unfold(frames, async |mut frames| frames.recv().await.map(|frame| (frame, frames)));
    Body::from_stream(frames.map(Ok::<_, std::convert::Infallible>)).into_response()
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, WorkerError> {
    serde_json::from_slice(body).map_err(|error| WorkerError::Request(error.to_string()))
}

impl WorkerError {
    /// The stable code, what the caller can do, and a hint; `docs/errors.md` lists them.
    const fn public(&self) -> (&'static str, ErrorClass, &'static str) {
        use ErrorClass::{Fatal, Rejected, Unavailable};
        match self {
            Self::Request(_) => ("request", Rejected, "docs/errors.md names the form of each request"),
            Self::Refused(_) => ("read-refused", Rejected, "make another intent; nothing was opened"),
            Self::TooMany { .. } | Self::Query(EngineError::Stopped(Stop::Memory)) => {
                (TOO_MUCH, Rejected, TOO_MUCH_HINT)
            }
            Self::Query(_) => ("query", Rejected, "docs/formats/worker.md says what a query may do"),
            Self::Schema { .. } => ("query", Rejected, "request the query anew, with the schema that it has now"),
            Self::Objects(_) => ("objects", Rejected, "plan again: the objects may have been written anew meanwhile"),
            Self::NotHeld => ("not-held", Rejected, "the query has ended; ask for it again"),
            Self::Busy => ("busy", Unavailable, "try again later"),
            Self::Erasure(_) | Self::NotErased(_) => ("not-erased", Rejected, "the vault must show what was erased"),
            Self::Manifests(CatalogError::TooLarge(_)) => {
                ("segment", Rejected, "give the workers more memory (`memory_mb`): a quarter of it is read at once")
            }
            Self::Manifests(_) | Self::Vault(_) => ("vault", Unavailable, "try again when the vault answers"),
            Self::Policy(_) | Self::Enrolment(_) | Self::Entropy(_) | Self::Seal(_) | Self::Threads(_) | Self::Died => {
                ("worker", Fatal, "the operator must look at this worker")
            }
        }
    }
}

impl IntoResponse for WorkerError {
    fn into_response(self) -> Response {
        let (code, class, hint) = self.public();
        if class == ErrorClass::Fatal {
            tracing::error!(error = %self, "the worker can't work");
        }
        let status = StatusCode::from_u16(class.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        refuse(status, code, self.to_string(), Some(hint.to_owned()))
    }
}

fn refuse(status: StatusCode, code: &str, message: String, hint: Option<String>) -> Response {
    (status, Json(ErrorBody { code: code.to_owned(), message, hint })).into_response()
}
