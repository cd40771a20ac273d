//! What the vendor asks of the supervisor, and what everybody asks for: the status, and the policies.

use std::sync::Arc;

use api::{RulesState, path};
use attest::{ENVELOPE_BYTES_MAX, Envelope, Lane};
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use channel::layout;
use http::{HeaderMap, header};
use serde::de::DeserializeOwned;
use stdx::Digest;
use tokio::sync::Semaphore;
use tokio::task::JoinError;

use crate::http::error::{Code, HttpError};
use crate::http::server::checked_body;
use crate::http::stream::{self, FileHeaders, NO_CACHE};
use crate::http::tree::CHANNEL;
use crate::supervise::{PutError, ReportError, SecondError, Supervisor};

/// A record of 10,000 inputs, and recipe and lock of a megabyte each, escaped into JSON.
const REBUILD_BYTES_MAX: usize = 16 << 20;
/// An envelope and a bundle, escaped.
const DRAFT_BYTES_MAX: usize = 4 << 20;
/// A manifest of 20,000 files with paths of 400 bytes, escaped, and a bundle.
const RULES_BYTES_MAX: usize = 12 << 20;
/// All files of a tree of rules, and their digests.
const FILES_BYTES_MAX: usize = 68 << 20;
/// The largest artifact that is taken; it is held in memory while it is stored.
const OBJECT_BYTES_MAX: usize = 256 << 20;
/// Two such objects are half a gigabyte.
static OBJECTS: Semaphore = Semaphore::const_new(2);

/// Serves what vendors ask of `supervisor`.
pub fn router(supervisor: Arc<Supervisor>) -> Router {
    Router::new()
        .route(path::REBUILDS, post(request).layer(DefaultBodyLimit::max(REBUILD_BYTES_MAX)))
        .route(&format!("{}/{{ticket}}", path::REBUILDS), get(state))
        .route(&format!("{}/{{ticket}}/objects/{{object}}", path::REBUILDS), put(object))
        .route(path::RESULTS, post(result).layer(DefaultBodyLimit::max(DRAFT_BYTES_MAX)))
        .route(path::RELEASES, post(release).layer(DefaultBodyLimit::max(DRAFT_BYTES_MAX)))
        .route(path::RULES, post(rules).layer(DefaultBodyLimit::max(RULES_BYTES_MAX)))
        .route(&format!("{}/{{ticket}}/files", path::RULES), post(files))
        .route(
            &format!("{}/{{ticket}}/result", path::RULES),
            post(rules_result).layer(DefaultBodyLimit::max(DRAFT_BYTES_MAX)),
        )
        .route(path::REPORTS, post(report).layer(DefaultBodyLimit::max(ENVELOPE_BYTES_MAX)))
        .route(path::BAKES, get(bakes))
        .route(&format!("{}/{{lane}}", path::STATUS), get(status))
        .route(&format!("{}/{{region}}", path::REGIONS), get(region_status))
        .route(&format!("{CHANNEL}/status/{{file}}"), get(mirrored_status))
        .route(&format!("{CHANNEL}/policy/{{file}}"), get(mirrored_policy))
        .with_state(supervisor)
}

type Body = Result<Bytes, BytesRejection>;

async fn request(State(supervisor): State<Arc<Supervisor>>, body: Body) -> Result<Response, HttpError> {
    let state = supervisor.request(parse(body)?).await.map_err(|error| refused(&error))?;
    Ok(Json(state).into_response())
}

async fn state(State(supervisor): State<Arc<Supervisor>>, Path(ticket): Path<String>) -> Result<Response, HttpError> {
    let ticket = digest(&ticket)?;
    let state = supervisor.rebuild_state(&ticket).await.map_err(|error| storage(&error))?;
    match state {
        Some(state) => Ok(Json(state).into_response()),
        None => Err(HttpError::new(Code::NotFound, format!("there is no rebuild `{ticket}`"))),
    }
}

async fn object(
    State(supervisor): State<Arc<Supervisor>>,
    Path((ticket, object)): Path<(String, String)>,
    request: Request,
) -> Result<Response, HttpError> {
    let (ticket, object) = (digest(&ticket)?, digest(&object)?);
    // Nothing is read before somebody here wants it, and only so many bodies are held at once.
    supervisor.wants(&ticket, object).await.map_err(|error| put_refused(&error))?;
    let Ok(_permit) = OBJECTS.try_acquire() else {
        return Err(HttpError::new(Code::Busy, "other objects are being taken"));
    };
    let body = axum::body::to_bytes(request.into_body(), OBJECT_BYTES_MAX).await;
    let body = body.map_err(|error| HttpError::new(Code::TooLong, format!("object {object}: {error}")))?;
    supervisor.put(object, body).await.map_err(|error| put_refused(&error))?;
    Ok(Json(()).into_response())
}

fn put_refused(error: &PutError) -> HttpError {
    let code = match error {
        PutError::Unwanted { .. } => Code::NotFound,
        PutError::Other { .. } => Code::Body,
        PutError::Store { .. } => Code::Storage,
    };
    HttpError::new(code, error.to_string())
}

async fn result(State(supervisor): State<Arc<Supervisor>>, body: Body) -> Result<Response, HttpError> {
    let signed = supervisor.sign_result(&parse(body)?).await.map_err(|error| second(&error))?;
    Ok(json(signed.to_bytes()))
}

async fn release(State(supervisor): State<Arc<Supervisor>>, body: Body) -> Result<Response, HttpError> {
    let signed = supervisor.sign_release(&parse(body)?).await.map_err(|error| second(&error))?;
    Ok(json(signed.to_bytes()))
}

async fn rules(State(supervisor): State<Arc<Supervisor>>, body: Body) -> Result<Response, HttpError> {
    let request = parse(body)?;
    done(tokio::spawn(async move { supervisor.take_rules(request).await }).await)
}

async fn files(
    State(supervisor): State<Arc<Supervisor>>,
    Path(ticket): Path<String>,
    request: Request,
) -> Result<Response, HttpError> {
    let ticket = digest(&ticket)?;
    // As for objects: nothing is read before somebody here wants it.
    if !supervisor.wants_files(&ticket).await.map_err(|error| storage(&error))? {
        return Err(HttpError::new(Code::NotFound, format!("no rules `{ticket}` want files")));
    }
    let Ok(_permit) = OBJECTS.try_acquire() else {
        return Err(HttpError::new(Code::Busy, "other objects are being taken"));
    };
    let body = axum::body::to_bytes(request.into_body(), FILES_BYTES_MAX).await;
    let body = body.map_err(|error| HttpError::new(Code::TooLong, format!("rules `{ticket}`: {error}")))?;
    done(tokio::spawn(async move { supervisor.take_files(&ticket, &body).await }).await)
}

/// An assembly goes on when its request has timed out; whoever asks again finds what came of it.
fn done(state: Result<anyhow::Result<RulesState>, JoinError>) -> Result<Response, HttpError> {
    let state = state.map_err(|error| HttpError::new(Code::Storage, error.to_string()))?;
    Ok(Json(state.map_err(|error| refused(&error))?).into_response())
}

async fn rules_result(State(supervisor): State<Arc<Supervisor>>, body: Body) -> Result<Response, HttpError> {
    let signed = supervisor.sign_rules(&parse(body)?).await.map_err(|error| second(&error))?;
    Ok(json(signed.to_bytes()))
}

async fn report(State(supervisor): State<Arc<Supervisor>>, body: Body) -> Result<Response, HttpError> {
    let body = checked_body(body)?;
    let envelope = Envelope::parse(&body).map_err(|error| HttpError::new(Code::Report, error.to_string()))?;
    match supervisor.take_report(&envelope).await {
        Ok(()) => Ok(Json(()).into_response()),
        Err(ReportError::Evidence(refusal)) => {
            Err(HttpError::new(Code::Report, format!("the report does not count: {refusal}")))
        }
        Err(error @ ReportError::Refused(_)) => Err(HttpError::new(Code::Report, error.to_string())),
        Err(error @ ReportError::Unavailable(_)) => Err(HttpError::new(Code::Storage, error.to_string())),
    }
}

async fn bakes(State(supervisor): State<Arc<Supervisor>>) -> Result<Response, HttpError> {
    Ok(Json(supervisor.bakes().await.map_err(|error| storage(&error))?).into_response())
}

async fn status(State(supervisor): State<Arc<Supervisor>>, Path(lane): Path<String>) -> Result<Response, HttpError> {
    let lane = match lane.as_str() {
        "slow" => Lane::Slow,
        "fast" => Lane::Fast,
        _ => return Err(HttpError::not_found(&lane)),
    };
    let bundle = supervisor.status_bundle(lane).await.map_err(|error| storage(&error))?;
    Ok(json(bundle.to_bytes()))
}

async fn region_status(
    State(supervisor): State<Arc<Supervisor>>,
    Path(region): Path<String>,
) -> Result<Response, HttpError> {
    let id = region.parse().map_err(|_| HttpError::not_found(&region))?;
    let bundle = supervisor.region_status(&id).await.map_err(|error| storage(&error))?;
    Ok(json(bundle.ok_or_else(|| HttpError::not_found(&region))?.to_bytes()))
}

/// The same status, where a channel has it: what a policy names as a mirror.
async fn mirrored_status(
    State(supervisor): State<Arc<Supervisor>>,
    Path(file): Path<String>,
    asked: HeaderMap,
) -> Result<Response, HttpError> {
    let lane = [Lane::Slow, Lane::Fast].into_iter().find(|lane| layout::status(*lane) == format!("status/{file}"));
    let lane = lane.ok_or_else(|| HttpError::not_found(&file))?;
    let bundle = supervisor.find_status(lane).await.map_err(|error| storage(&error))?;
    let bundle = bundle.ok_or_else(|| HttpError::not_found(&file))?;
    Ok(stream::tagged(bundle.to_bytes(), EVIDENCE, &asked))
}

async fn mirrored_policy(
    State(supervisor): State<Arc<Supervisor>>,
    Path(file): Path<String>,
    asked: HeaderMap,
) -> Result<Response, HttpError> {
    let version = file.split('.').next().and_then(|number| number.parse().ok());
    let version = version.filter(|version| layout::policy(*version) == format!("policy/{file}"));
    let version = version.ok_or_else(|| HttpError::not_found(&file))?;
    let found = tokio::task::spawn_blocking(move || supervisor.policy_file(version)).await;
    let found = found.map_err(|error| HttpError::new(Code::Storage, error.to_string()))?;
    let found = found.map_err(|error| HttpError::new(Code::Storage, error.to_string()))?;
    let bytes = found.ok_or_else(|| HttpError::not_found(&file))?;
    Ok(stream::tagged(bytes, EVIDENCE, &asked))
}

/// Statements, with all that proves them.
const EVIDENCE: FileHeaders = FileHeaders { content_type: "application/json", cache_control: NO_CACHE };

fn json(bytes: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, NO_CACHE)], bytes).into_response()
}

fn parse<T: DeserializeOwned>(body: Body) -> Result<T, HttpError> {
    let body = checked_body(body)?;
    serde_json::from_slice(&body).map_err(|error| HttpError::new(Code::Request, error.to_string()))
}

fn digest(text: &str) -> Result<Digest, HttpError> {
    text.parse().map_err(|_| HttpError::not_found(text))
}

fn refused(error: &anyhow::Error) -> HttpError {
    HttpError::new(Code::Request, format!("{error:#}"))
}

fn storage(error: &anyhow::Error) -> HttpError {
    HttpError::new(Code::Storage, format!("{error:#}"))
}

fn second(error: &SecondError) -> HttpError {
    match error {
        SecondError::Refused(_) => HttpError::new(Code::NotSigned, error.to_string()),
        SecondError::Evidence(refusal) => HttpError::new(Code::NotSigned, format!("not signed: {refusal}")),
        SecondError::Unavailable(_) => HttpError::new(Code::Storage, error.to_string()),
    }
}
