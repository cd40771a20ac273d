//! A log: C2SP tlog-tiles for readers, `POST /v1/entries` for appenders.

use std::sync::Arc;
use std::time::Duration;

use api::{Appended, path};
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::header;
use log::{Class, Error, Log};
use stdx::UnixTime;
use storage::{Key, ObjectStore};
use tlog::{EntryBundleId, EntryIndex, MAX_ENTRY_BYTES, TileId};
use tower_http::compression::CompressionLayer;
use verify::{StreamChecker, TrustedPolicy, ViolationKind};

use crate::http::error::{Code, HttpError};
use crate::http::server::checked_body;
use crate::http::stream::{IMMUTABLE, NO_CACHE, OCTETS};

/// When to come back for an entry that waits for witnesses: about two of their rounds.
const WITNESSES_RETRY: Duration = Duration::from_secs(5);

/// A log and who may append to it.
#[derive(Clone)]
pub struct LogService {
    /// The log.
    pub log: Log,
    /// Its published objects.
    pub objects: Arc<dyn ObjectStore>,
    /// Which streams are open in it, and for whom.
    pub policy: Arc<TrustedPolicy>,
    /// How long an append waits for the witnesses before it is told to come back.
    pub append_wait: Duration,
}

/// Serves the log; its prefix is the server's root.
pub fn router(service: LogService) -> Router {
    // Entries are JSON and shrink to a quarter; hashes don't shrink at all.
    let bundles = Router::new().route("/tile/entries/{*path}", get(bundle)).layer(CompressionLayer::new().gzip(true));
    Router::new()
        .route("/checkpoint", get(checkpoint))
        .route("/tile/{*path}", get(tile))
        .merge(bundles)
        .route(path::ENTRIES, post(append).layer(DefaultBodyLimit::max(MAX_ENTRY_BYTES)))
        .with_state(Arc::new(service))
}

async fn checkpoint(State(service): State<Arc<LogService>>) -> Result<Response, HttpError> {
    let published = service.log.published().ok_or_else(|| {
        HttpError::new(Code::NotFound, format!("`{}` has published no checkpoint yet", service.log.origin()))
    })?;
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, NO_CACHE)];
    Ok((headers, published.to_string()).into_response())
}

async fn tile(State(service): State<Arc<LogService>>, Path(path): Path<String>) -> Result<Response, HttpError> {
    let id: TileId = format!("tile/{path}").parse().map_err(|_| HttpError::not_found(&path))?;
    service.object(&id.path()).await
}

async fn bundle(State(service): State<Arc<LogService>>, Path(path): Path<String>) -> Result<Response, HttpError> {
    let id: EntryBundleId = format!("tile/entries/{path}").parse().map_err(|_| HttpError::not_found(&path))?;
    service.object(&id.path()).await
}

async fn append(
    State(service): State<Arc<LogService>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Appended>, HttpError> {
    let entry = checked_body(body)?;
    service.admit(&entry)?;
    let receipt = match tokio::time::timeout(service.append_wait, service.log.append(entry)).await {
        Ok(receipt) => receipt.map_err(|error| refuse(&error))?,
        Err(_) => {
            let message = "the entry was taken in, but too few witnesses have cosigned yet";
            return Err(HttpError::new(Code::NotWitnessed, message).retry_after(WITNESSES_RETRY));
        }
    };
    Ok(Json(Appended { index: receipt.index(), proof: receipt.proof().to_string() }))
}

impl LogService {
    /// Refuses what an auditor would report on sight. Gaps and doubles show only in context, and
    /// are for auditors: a log is not the judge of what is missing in it.
    fn admit(&self, entry: &Bytes) -> Result<(), HttpError> {
        let mut checker = StreamChecker::new(&self.policy, self.log.origin().clone());
        checker.entry(EntryIndex::new(0), entry);
        let refusal = checker.finish(UnixTime::EPOCH).into_iter().find_map(|violation| {
            let code = match violation.kind {
                ViolationKind::Unreadable => Code::EntryForm,
                ViolationKind::WrongLog => Code::EntryLog,
                ViolationKind::UnknownStream => Code::EntryStream,
                ViolationKind::WrongSigner => Code::EntrySigner,
                ViolationKind::Missing | ViolationKind::Doubled | ViolationKind::Unchained | ViolationKind::Silent => {
                    return None;
                }
            };
            let stream = violation.stream.map_or_else(String::new, |stream| format!("stream `{stream}`: "));
            Some(HttpError::new(code, format!("{stream}{}", violation.detail)))
        });
        refusal.map_or(Ok(()), Err)
    }

    async fn object(&self, path: &str) -> Result<Response, HttpError> {
        let key: Key = path.parse().map_err(|_| HttpError::not_found(path))?;
        match self.objects.get(&key).await {
            Ok(Some(bytes)) => {
                Ok(([(header::CONTENT_TYPE, OCTETS), (header::CACHE_CONTROL, IMMUTABLE)], bytes).into_response())
            }
            Ok(None) => Err(HttpError::new(Code::NotFound, format!("`{path}` is not in this log, or no longer"))),
            Err(error) => Err(HttpError::new(Code::Storage, format!("`{path}`: {error}"))),
        }
    }
}

/// The log's errors, by what they mean to an appender.
fn refuse(error: &Error) -> HttpError {
    let message = error.to_string();
    match error {
        Error::EntrySize(0) => HttpError::new(Code::EntryForm, message),
        Error::EntrySize(_) => HttpError::new(Code::TooLong, message),
        Error::Full { retry_after } => HttpError::new(Code::PoolFull, message).retry_after(*retry_after),
        Error::NotYetPublished => HttpError::new(Code::NotWitnessed, message).retry_after(WITNESSES_RETRY),
        Error::Closed => HttpError::new(Code::Busy, message),
        _ if error.class() == Class::Fatal => HttpError::new(Code::LogStopped, message),
        _ => HttpError::new(Code::Storage, message),
    }
}
