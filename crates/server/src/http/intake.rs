//! The intake of what endpoints share: `POST /v1/events`. It stores sealed batches by their digest; it
//! can read none of them, and has nothing to say to whoever sends them but "I have it".

use std::sync::Arc;

use api::{EventReceipt, path};
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::routing::post;
use axum::{Json, Router};
use stdx::Digest;
use storage::{Key, ObjectStore, Put};

use crate::http::error::{Code, HttpError};
use crate::http::server::checked_body;
use crate::metrics::metrics;

/// A file of 8 MiB in base64 and in JSON, sealed: less than 12 MiB.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// Serves an intake that stores into `objects`.
pub fn router(objects: Arc<dyn ObjectStore>) -> Router {
    Router::new().route(path::EVENTS, post(take).layer(DefaultBodyLimit::max(BATCH_BYTES_MAX))).with_state(objects)
}

/// The receipt is given when the batch is durable; the same bytes again are the same batch.
async fn take(
    State(objects): State<Arc<dyn ObjectStore>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<EventReceipt>, HttpError> {
    let body = checked_body(body)?;
    if body.is_empty() {
        return Err(HttpError::new(Code::Body, "an empty body is no batch"));
    }
    let receipt = EventReceipt { batch: Digest::of(&body), bytes: body.len() as u64 };
    let outcome = match objects.put(&key(&receipt.batch)?, body).await {
        Ok(Put::New) => "new",
        Ok(Put::Same) => "again",
        Err(error) => {
            metrics().batch("failed");
            return Err(HttpError::new(Code::Storage, error.to_string()));
        }
    };
    metrics().batch(outcome);
    Ok(Json(receipt))
}

/// `ab/abcd…`: 256 folders.
pub(crate) fn key(batch: &Digest) -> Result<Key, HttpError> {
    let text = batch.to_string();
    let folder: String = text.chars().take(2).collect();
    format!("{folder}/{text}").parse().map_err(|error| HttpError::new(Code::Storage, format!("{error}")))
}
