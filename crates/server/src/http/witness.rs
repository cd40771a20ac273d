//! C2SP tlog-witness v1.0.0: `POST /add-checkpoint` and `GET /{origin hash}/checkpoint`.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderValue, StatusCode, header};
use stdx::Digest;
use tlog::witness_protocol::{AddCheckpoint, LatestSize, MAX_REQUEST_BYTES, SIZE_CONTENT_TYPE};
use witness::{Error, Witness};

use crate::http::error::{Code, HttpError};
use crate::http::server::checked_body;
use crate::http::stream::NO_CACHE;
use crate::metrics::metrics;

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
    let answer = witness.add_checkpoint(&body).await;
    count(&witness, &body, &answer);
    match answer {
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

/// By log, if it is one that is witnessed here: others could invent names without end.
fn count<T>(witness: &Witness, body: &[u8], answer: &Result<T, Error>) {
    let request = AddCheckpoint::parse(body).ok();
    let origin = request.as_ref().map(|request| request.checkpoint().checkpoint().origin());
    let known = origin.filter(|origin| witness.origins().any(|known| known == *origin));
    let outcome = match answer {
        Ok(_) => "cosigned",
        Err(Error::Stale { .. }) => "stale",
        Err(Error::Fork { .. }) => "fork",
        Err(Error::Store(_) | Error::Contended(_) | Error::Damaged { .. } | Error::Cosign(_)) => "failed",
        Err(_) => "refused",
    };
    metrics().cosignature(known.map_or("other", |origin| origin.as_str()), outcome);
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
