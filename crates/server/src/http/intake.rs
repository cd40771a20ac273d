//! The intake of what endpoints share: `POST /v1/events`. It stores sealed batches by their digest; it
//! can read none of them, and has nothing to say to whoever sends them but "I have it" and "later".

use std::sync::Arc;
use std::time::Duration;

use api::{EventReceipt, path};
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::routing::post;
use axum::{Json, Router};
use stdx::{Clock as _, Digest, SystemClock};
use storage::{Key, ObjectStore, Put};
use tokio::sync::Mutex;

use crate::http::error::{Code, HttpError};
use crate::http::server::checked_body;
use crate::metrics::metrics;

/// A file of 8 MiB in base64 and in JSON, sealed: less than 12 MiB.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// While it is full, what lies there is counted anew this often: somebody takes batches away.
const COUNT_AGAIN: Duration = Duration::from_secs(60);

/// Endpoints keep what they have, for weeks if they must.
const RETRY_AFTER: Duration = Duration::from_secs(600);

/// Where sealed batches go, up to a bound on their bytes.
pub struct Intake {
    objects: Arc<dyn ObjectStore>,
    bytes_max: u64,
    clock: SystemClock,
    held: Mutex<Held>,
}

struct Held {
    /// At least as many as lie there by this process's knowledge.
    bytes: u64,
    /// Those that are being written.
    under_way: u64,
    counted: Duration,
}

impl Intake {
    /// Counts what lies in `objects`, and takes no more than `bytes_max` with it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn open(objects: Arc<dyn ObjectStore>, bytes_max: u64) -> Result<Arc<Self>, storage::Error> {
        let clock = SystemClock::new();
        let held = Held { bytes: objects.bytes().await?, under_way: 0, counted: clock.monotonic() };
        Ok(Arc::new(Self { objects, bytes_max, clock, held: Mutex::new(held) }))
    }

    /// Stores a batch that is there or for which there is room.
    async fn put(&self, receipt: &EventReceipt, body: Bytes) -> Result<Put, HttpError> {
        let (key, failed) = (key(&receipt.batch)?, |error: storage::Error| {
            metrics().batch("failed");
            HttpError::new(Code::Storage, error.to_string())
        });
        if !self.reserve(receipt.bytes).await.map_err(failed)? {
            // Whoever never got its receipt gets it now.
            if self.objects.get(&key).await.map_err(failed)?.is_some_and(|found| found == body) {
                return Ok(Put::Same);
            }
            metrics().batch("full");
            let message = format!("the intake has {} bytes, and takes no more", self.bytes_max);
            return Err(HttpError::new(Code::IntakeFull, message).retry_after(RETRY_AFTER));
        }
        let put = self.objects.put(&key, body).await;
        let mut held = self.held.lock().await;
        held.under_way = held.under_way.saturating_sub(receipt.bytes);
        if !matches!(put, Ok(Put::New)) {
            held.bytes = held.bytes.saturating_sub(receipt.bytes);
        }
        put.map_err(failed)
    }

    /// Whether there is room for so many bytes more, which from now on are counted.
    async fn reserve(&self, bytes: u64) -> Result<bool, storage::Error> {
        let mut held = self.held.lock().await;
        let has_room = |held: &Held| held.bytes.saturating_add(bytes) <= self.bytes_max;
        let now = self.clock.monotonic();
        if !has_room(&held) && now.saturating_sub(held.counted) >= COUNT_AGAIN {
            // What is being written may be counted twice, and not never.
            held.bytes = self.objects.bytes().await?.saturating_add(held.under_way);
            held.counted = now;
        }
        let room = has_room(&held);
        if room {
            held.bytes = held.bytes.saturating_add(bytes);
            held.under_way = held.under_way.saturating_add(bytes);
        }
        Ok(room)
    }
}

/// Serves an intake.
pub fn router(intake: Arc<Intake>) -> Router {
    Router::new().route(path::EVENTS, post(take).layer(DefaultBodyLimit::max(BATCH_BYTES_MAX))).with_state(intake)
}

/// The receipt is given when the batch is durable; the same bytes again are the same batch.
async fn take(
    State(intake): State<Arc<Intake>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<EventReceipt>, HttpError> {
    let body = checked_body(body)?;
    if body.is_empty() {
        return Err(HttpError::new(Code::Body, "an empty body is no batch"));
    }
    let receipt = EventReceipt { batch: Digest::of(&body), bytes: body.len() as u64 };
    metrics().batch(match intake.put(&receipt, body).await? {
        Put::New => "new",
        Put::Same => "again",
    });
    Ok(Json(receipt))
}

/// `ab/abcd…`: 256 folders.
pub(crate) fn key(batch: &Digest) -> Result<Key, HttpError> {
    let text = batch.to_string();
    let folder: String = text.chars().take(2).collect();
    format!("{folder}/{text}").parse().map_err(|error| HttpError::new(Code::Storage, format!("{error}")))
}
