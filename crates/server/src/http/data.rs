//! The gateway to customers' data: requests, approvals, and reading.

use std::sync::Arc;

use api::{DataApproval, DataQuery, DataRequest, ErrorClass, TOO_MUCH, path};
use attest::{ENVELOPE_BYTES_MAX, StatementId};
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::stream;
use http::header;
use serde::de::DeserializeOwned;

use crate::data::{DataError, Gateway, Reading};
use crate::http::error::{Code, HttpError};
use crate::http::server::checked_body;
use crate::http::stream::{NO_CACHE, OCTETS};
use crate::stream::StreamError;

/// An envelope, a query and openings, escaped.
const REQUEST_BYTES_MAX: usize = 1 << 20;

type Asked = Result<Bytes, BytesRejection>;

/// Serves what readers and approvers ask of `gateway`.
pub(crate) fn router(gateway: Arc<Gateway>) -> Router {
    let one = format!("{}/{{id}}", path::DATA_REQUESTS);
    Router::new()
        .route(path::DATA_REQUESTS, get(states).post(request))
        .route(&one, get(state).post(private).layer(DefaultBodyLimit::max(ENVELOPE_BYTES_MAX)))
        .route(path::DATA_APPROVALS, post(approval))
        .route(path::DATA_QUERIES, post(query))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .with_state(gateway)
}

async fn request(State(gateway): State<Arc<Gateway>>, body: Asked) -> Result<Response, HttpError> {
    let asked: DataRequest = parse(body)?;
    json(gateway.take_request(&asked).await)
}

async fn approval(State(gateway): State<Arc<Gateway>>, body: Asked) -> Result<Response, HttpError> {
    let given: DataApproval = parse(body)?;
    json(gateway.take_approval(&given).await)
}

async fn states(State(gateway): State<Arc<Gateway>>) -> Result<Response, HttpError> {
    json(gateway.states().await)
}

async fn state(State(gateway): State<Arc<Gateway>>, Path(id): Path<String>) -> Result<Response, HttpError> {
    json(gateway.state(request_id(&id)?).await)
}

async fn private(
    State(gateway): State<Arc<Gateway>>,
    Path(id): Path<String>,
    body: Asked,
) -> Result<Response, HttpError> {
    let call = checked_body(body)?;
    let call = std::str::from_utf8(&call).map_err(|error| HttpError::new(Code::Request, error.to_string()))?;
    json(gateway.private_state(request_id(&id)?, call).await)
}

async fn query(State(gateway): State<Arc<Gateway>>, body: Asked) -> Result<Response, HttpError> {
    let asked: DataQuery = parse(body)?;
    let Reading { frames } = gateway.query(asked).await.map_err(refused)?;
    let frames = stream::unfold(frames, |mut frames| async move {
        frames.recv().await.map(|frame| (Ok::<_, std::convert::Infallible>(frame), frames))
    });
    Ok(([(header::CONTENT_TYPE, OCTETS), (header::CACHE_CONTROL, NO_CACHE)], Body::from_stream(frames)).into_response())
}

fn request_id(text: &str) -> Result<StatementId, HttpError> {
    text.parse().map_err(|_| HttpError::not_found(text))
}

fn parse<T: DeserializeOwned>(body: Asked) -> Result<T, HttpError> {
    serde_json::from_slice(&checked_body(body)?).map_err(|error| HttpError::new(Code::Request, error.to_string()))
}

fn json<T: serde::Serialize>(answer: Result<T, DataError>) -> Result<Response, HttpError> {
    let answer = answer.map_err(refused)?;
    Ok(([(header::CACHE_CONTROL, NO_CACHE)], Json(answer)).into_response())
}

fn refused(error: DataError) -> HttpError {
    HttpError::new(code(&error), format!("{:#}", anyhow::Error::new(error)))
}

fn code(error: &DataError) -> Code {
    match error {
        DataError::Form(_) => Code::Request,
        DataError::Evidence(_) | DataError::Refused(_) => Code::Access,
        DataError::TooMuch(_) => Code::TooMuch,
        DataError::NoRequest(_) => Code::NotFound,
        DataError::Call(_) => Code::Call,
        // Somebody else has written to the stream in between: whoever signs takes the next place.
        DataError::Stream(StreamError::Log { source, .. }) if source.status() == Some(422) => Code::EntryPosition,
        DataError::Peer { source, .. } if source.code() == Some(TOO_MUCH) => Code::TooMuch,
        DataError::Stream(StreamError::Log { source, .. }) | DataError::Peer { source, .. }
            if source.class() == ErrorClass::Rejected =>
        {
            Code::Access
        }
        DataError::Stream(_) | DataError::Log(_) | DataError::Store(_) | DataError::Broken(_) => Code::Storage,
        DataError::Peer { .. } => Code::Peer,
        DataError::Same(error) => code(error),
    }
}
