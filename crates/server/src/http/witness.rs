//! C2SP tlog-witness v1.0.0: `POST /add-checkpoint` and `GET /{origin hash}/checkpoint`.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderValue, StatusCode, header};
use stdx::Digest;
use tlog::witness_protocol::{LatestSize, MAX_REQUEST_BYTES, SIZE_CONTENT_TYPE};
use witness::{Error, Witness};

use crate::http::error::{Code, HttpError};
use crate::http::server::checked_body;
use crate::http::stream::NO_CACHE;

const TEXT: &str = "text/plain; charset=utf-8";

/// Serves `witness`; submission and monitoring prefix are the server's root.
pub fn router(witness: Arc<Witness>) -> Router {
    Router::new()
        .route("/add-checkpoint", post(add_checkpoint).layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES)))
        .route("/{origin_hash}/checkpoint", get(checkpoint))
        .with_state(witness)
}

async fn add_checkpoint(
    State(witness): State<Arc<Witness>>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<Response, HttpError> {
    let body = checked_body(body)?;
    match witness.add_checkpoint(&body).await {
        Ok(lines) => Ok(text(TEXT, lines.to_string())),
        // The size is the one answer that clients act on, so its type is the specification's.
        Err(Error::Stale { latest }) => {
            let mut response = text(SIZE_CONTENT_TYPE, LatestSize(latest).to_string());
            *response.status_mut() = StatusCode::CONFLICT;
            Ok(response)
        }
        Err(error) => Err(refuse(&error)),
    }
}

async fn checkpoint(State(witness): State<Arc<Witness>>, Path(hash): Path<String>) -> Result<Response, HttpError> {
    let hash: Digest = hash.parse().map_err(|_| HttpError::not_found(&hash))?;
    let checkpoint = witness.checkpoint(&hash).await.map_err(|error| refuse(&error))?;
    let mut response = text(TEXT, checkpoint.to_string());
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(NO_CACHE));
    Ok(response)
}

fn text(content_type: &'static str, body: String) -> Response {
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}

/// The engine knows the specification's status; the body is ours.
fn refuse(error: &Error) -> HttpError {
    let code = match error {
        Error::NothingCosigned(_) => Code::NotFound,
        Error::Contended(_) => Code::Busy,
        Error::Damaged { .. } | Error::Cosign(_) => Code::Damaged,
        Error::Store(_) => Code::Storage,
        _ => Code::Witness,
    };
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    HttpError::new(code, message).with_status(error.status())
}
