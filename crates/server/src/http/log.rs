//! A log: C2SP tlog-tiles for readers, `POST /v1/entries` for appenders.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use api::{Appended, StreamEnd, path};
use attest::{KeyRef, Position, Statement, StatementId, StreamName};
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{HeaderMap, header};
use log::{Class, Error, Log, ObjectSource, Reader, Ticket};
use policy::PolicyDocument;
use storage::{Key, ObjectStore};
use tlog::{EntryBundleId, EntryIndex, MAX_ENTRY_BYTES, Origin, SignedCheckpoint, TileId, VerifierKey};
use tokio::sync::{Mutex, OnceCell};
use tower_http::compression::CompressionLayer;
use verify::{Judged, LogRules, Offence, Signer, StreamChecker, TrustedPolicy, ViolationKind};

use crate::duty::{Duty, OnDuty, goes_on_elsewhere};
use crate::http::error::{Code, HttpError};
use crate::http::range;
use crate::http::server::{Stop, checked_body, stopped};
use crate::http::stream::{IMMUTABLE, NO_CACHE, OCTETS};

/// When to come back for an entry that waits for witnesses: about two of their rounds.
const WITNESSES_RETRY: Duration = Duration::from_secs(5);

/// What a batch that is under way gets when the process is told to stop: a healthy quorum answers
/// in a tenth of it, and it is well within any time that requests have to end.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// A key's name in an entry is as long as its signer likes; a message shows its beginning.
const KEY_SHOWN_MAX: usize = 100;

/// So many entries come in one request at most,
pub(crate) const BATCH_ENTRIES_MAX: usize = 64;
/// and so many bytes: 64 of the largest are 8 MB, escaped; common ones have 2 KB.
const BATCH_BYTES_MAX: usize = 8 << 20;

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
    /// The process is about to end: who waits for witnesses is told to come back.
    pub stop: Stop,
}

/// A log that is open here, with what it has taken in.
pub struct Serving {
    service: LogService,
    rules: LogRules,
    taken: OnceCell<Mutex<Taken>>,
}

/// Where the streams end, with all that the log has or will have.
#[derive(Default)]
struct Taken {
    ends: BTreeMap<StreamName, (Position, StatementId)>,
}

/// What every process of a domain serves of its log, whichever sequences it.
#[derive(Clone)]
pub struct Front {
    /// Whether it is open here.
    pub duty: OnDuty,
    /// Its published objects.
    pub objects: Arc<dyn ObjectStore>,
    /// Its key.
    pub key: VerifierKey,
}

/// Serves the log; its prefix is the server's root.
pub fn router(front: Front) -> Router {
    // Entries are JSON and shrink to a quarter; hashes don't shrink at all.
    let bundles = Router::new().route("/tile/entries/{*path}", get(bundle)).layer(CompressionLayer::new().gzip(true));
    Router::new()
        .route("/checkpoint", get(checkpoint))
        .route("/tile/{*path}", get(tile))
        .merge(bundles)
        .route(path::ENTRIES, post(append).layer(DefaultBodyLimit::max(MAX_ENTRY_BYTES)))
        .route(path::ENTRY_BATCHES, post(append_batch).layer(DefaultBodyLimit::max(BATCH_BYTES_MAX)))
        .route(&format!("{}/{{*stream}}", path::STREAMS), post(end))
        .with_state(front)
}

async fn checkpoint(State(front): State<Front>) -> Result<Response, HttpError> {
    let published = match front.here() {
        Some(serving) => serving.service.log.published().map(|published| published.to_string()),
        None => front.published().await?,
    };
    let published = published.ok_or_else(|| {
        HttpError::new(Code::NotFound, format!("`{}` has published no checkpoint yet", front.key.name()))
    })?;
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, NO_CACHE)];
    Ok((headers, published).into_response())
}

async fn tile(State(front): State<Front>, Path(path): Path<String>, headers: HeaderMap) -> Result<Response, HttpError> {
    let id: TileId = format!("tile/{path}").parse().map_err(|_| HttpError::not_found(&path))?;
    // Who has the tile of a smaller tree needs the rest of it only.
    front.object(&id.path(), &headers).await
}

async fn bundle(State(front): State<Front>, Path(path): Path<String>) -> Result<Response, HttpError> {
    let id: EntryBundleId = format!("tile/entries/{path}").parse().map_err(|_| HttpError::not_found(&path))?;
    front.object(&id.path(), &HeaderMap::new()).await
}

async fn append(State(front): State<Front>, body: Result<Bytes, BytesRejection>) -> Result<Json<Appended>, HttpError> {
    let entry = checked_body(body)?;
    let serving = front.serving()?;
    let ticket = serving.take_in(entry).await?;
    serving.appended(ticket).await.map(Json)
}

/// Several entries, taken in one after the other and witnessed at once. Of a batch that is refused, those before
/// the one that the message names may have been taken in; the same again gives them their old places.
async fn append_batch(
    State(front): State<Front>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Vec<Appended>>, HttpError> {
    let body = checked_body(body)?;
    let entries: Vec<String> =
        serde_json::from_slice(&body).map_err(|error| HttpError::new(Code::Request, error.to_string()))?;
    if entries.is_empty() || entries.len() > BATCH_ENTRIES_MAX {
        let message = format!("{} entries; there must be 1 to {BATCH_ENTRIES_MAX}", entries.len());
        return Err(HttpError::new(Code::Request, message));
    }
    let serving = front.serving()?;
    let mut tickets = Vec::with_capacity(entries.len());
    for entry in entries {
        if entry.len() > MAX_ENTRY_BYTES {
            return Err(HttpError::new(Code::TooLong, format!("an entry of {} bytes", entry.len())));
        }
        tickets.push(serving.take_in(entry.into()).await?);
    }
    let mut appended = Vec::with_capacity(tickets.len());
    for ticket in tickets {
        appended.push(serving.appended(ticket).await?);
    }
    Ok(Json(appended))
}

/// The body says nothing; it is read so that the connection can go on.
async fn end(
    State(front): State<Front>,
    Path(stream): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<StreamEnd>, HttpError> {
    checked_body(body)?;
    let stream: StreamName = stream.parse().map_err(|_| HttpError::not_found(&stream))?;
    let serving = front.serving()?;
    let taken = serving.taken().await?.lock().await;
    let last = taken.end(&stream).map(|(position, id)| (position.clone(), id));
    Ok(Json(StreamEnd { stream, last }))
}

impl Front {
    fn serving(&self) -> Result<Arc<Serving>, HttpError> {
        self.here().ok_or_else(|| {
            HttpError::new(Code::NoSequencer, format!("this process does not sequence `{}`", self.key.name()))
        })
    }

    fn here(&self) -> Option<Arc<Serving>> {
        match &*self.duty.borrow() {
            Duty::Here(serving) => Some(Arc::clone(serving)),
            Duty::There(_) | Duty::Nobody => None,
        }
    }

    async fn object(&self, path: &str, asked: &HeaderMap) -> Result<Response, HttpError> {
        let key: Key = path.parse().map_err(|_| HttpError::not_found(path))?;
        match self.objects.get(&key).await {
            Ok(Some(bytes)) => {
                let piece = range::piece(path, &bytes, asked)?;
                Ok(([(header::CONTENT_TYPE, OCTETS), (header::CACHE_CONTROL, IMMUTABLE)], piece).into_response())
            }
            Ok(None) => Err(HttpError::new(Code::NotFound, format!("`{path}` is not in this log, or no longer"))),
            Err(error) => Err(HttpError::new(Code::Storage, format!("`{path}`: {error}"))),
        }
    }

    /// The checkpoint that another process has published.
    async fn published(&self) -> Result<Option<String>, HttpError> {
        let key: Key = "checkpoint".parse().map_err(|_| HttpError::not_found("checkpoint"))?;
        let storage = |error: &dyn std::fmt::Display| HttpError::new(Code::Storage, format!("`{key}`: {error}"));
        let Some(bytes) = self.objects.get(&key).await.map_err(|error| storage(&error))? else { return Ok(None) };
        let published = SignedCheckpoint::open(&bytes, &self.key).map_err(|error| storage(&error))?;
        Ok(Some(published.to_string()))
    }
}

impl Serving {
    /// Serves an open log. Its entries are read once, in the background; the first appends wait for it.
    #[must_use]
    pub fn new(service: LogService) -> Arc<Self> {
        let rules = LogRules::new(&service.policy, service.log.origin().clone());
        let serving = Arc::new(Self { service, rules, taken: OnceCell::new() });
        let reading = Arc::clone(&serving);
        // A failure is told to whoever appends, and tried again then.
        tokio::spawn(async move { drop(reading.taken().await) });
        serving
    }

    /// The log.
    #[must_use]
    pub const fn log(&self) -> &Log {
        &self.service.log
    }

    /// Gives the entry to the log if it is the next of its stream, or one that the log has.
    async fn take_in(&self, entry: Bytes) -> Result<Ticket, HttpError> {
        // One check of a signature takes 0.05 ms: no work for another thread.
        let admitted = LogService::admit(&self.rules, &entry);
        // Held while the log takes the entry: between the two nobody else may get the same place.
        // That is a table look-up, and for an entry that the log has a read of its tiles.
        let mut taken = self.taken().await?.lock().await;
        if let Some(ticket) = self.service.log.find(&entry).await.map_err(|error| refuse(&error))? {
            // A retry keeps its place, also when a newer policy would not admit it any more.
            return Ok(ticket);
        }
        let (position, id) = admitted?;
        StreamChecker::follow(taken.end(&position.stream), &position).map_err(|(_, detail)| {
            HttpError::new(Code::EntryPosition, format!("stream `{}`: {detail}", position.stream))
        })?;
        let ticket = self.service.log.submit(entry).await.map_err(|error| refuse(&error))?;
        // No await between the two: a request that is given up can't leave one without the other.
        taken.ends.insert(position.stream.clone(), (position, id));
        Ok(ticket)
    }

    /// Waits until a quorum has cosigned, within bounds.
    async fn appended(&self, ticket: Ticket) -> Result<Appended, HttpError> {
        let receipt = tokio::select! {
            biased;
            receipt = ticket.published() => receipt.map_err(|error| refuse(&error))?,
            () = self.service.waited() => {
                let message = "the entry was taken in, but too few witnesses have cosigned yet";
                return Err(HttpError::new(Code::NotWitnessed, message).retry_after(WITNESSES_RETRY));
            }
        };
        Ok(Appended { index: receipt.index(), proof: receipt.proof().to_string() })
    }

    async fn taken(&self) -> Result<&Mutex<Taken>, HttpError> {
        self.taken.get_or_try_init(|| async { Ok(Mutex::new(self.service.read_back().await?)) }).await
    }
}

impl Taken {
    fn end(&self, stream: &StreamName) -> Option<(&Position, StatementId)> {
        self.ends.get(stream).map(|(position, id)| (position, *id))
    }

    /// An entry that the log has, in order or not: what is wrong with it is for auditors.
    fn add(&mut self, origin: &Origin, entry: &Bytes) {
        let Ok((envelope, position)) = StreamChecker::read(entry) else { return };
        let follows = StreamChecker::follow(self.end(&position.stream), &position);
        let doubled = matches!(follows, Err((ViolationKind::Doubled, _)));
        if position.log == *origin && !doubled {
            self.ends.insert(position.stream.clone(), (position, envelope.id()));
        }
    }
}

impl LogService {
    /// An append has waited long enough, or the process is about to end.
    async fn waited(&self) {
        let stopped = async {
            stopped(self.stop.clone()).await;
            tokio::time::sleep(LAST_WAIT).await;
        };
        tokio::select! {
            () = tokio::time::sleep(self.append_wait) => {}
            () = stopped => {}
        }
    }

    /// Refuses what an auditor would report on sight, and signatures that the policy knows nothing
    /// of: anybody could add those to a public envelope, and make another entry of it.
    fn admit(rules: &LogRules, entry: &Bytes) -> Result<(Position, StatementId), HttpError> {
        let judged = rules.judge(entry).map_err(offended)?;
        judged.by_writer().map_err(offended)?;
        check_signatures(&judged)?;
        let id = judged.envelope.id();
        Ok((judged.position, id))
    }

    /// Reads the log's own entries, also those that it has signed and not yet published.
    async fn read_back(&self) -> Result<Taken, HttpError> {
        let failed = |error: &dyn std::fmt::Display| {
            HttpError::new(Code::Storage, format!("the entries of `{}` can't be read: {error}", self.log.origin()))
        };
        let head = self.log.signed_head();
        let (mut taken, origin) = (Taken::default(), self.log.origin());
        let reader = Reader::new(Arc::new(ObjectSource(Arc::clone(&self.objects))), head);
        let visit = &mut |_, entry: &Bytes| {
            taken.add(origin, entry);
            ControlFlow::Continue(())
        };
        let all = EntryIndex::new(0)..EntryIndex::new(head.size.get());
        reader.entries(all, visit).await.map_err(|error| failed(&error))?;
        Ok(taken)
    }
}

/// Every signature is by a key of the policy, or of the policy that the entry is, and verifies.
fn check_signatures(judged: &Judged) -> Result<(), HttpError> {
    let refuse = |detail: String| Err(HttpError::new(Code::EntrySigner, detail));
    let mut next = None;
    for (signature, signer) in judged.signers() {
        if matches!(signer, Signer::Writer | Signer::Other) {
            continue;
        }
        // A succession is signed as both versions demand, so by keys that only the next one names too.
        let statement = || Statement::<PolicyDocument>::decode(judged.envelope.payload()).ok();
        let next = next.get_or_insert_with(|| statement().map(|it| it.predicate.policy));
        let keys = next.iter().flat_map(|policy| &policy.organisations).flat_map(|organisation| &organisation.keys);
        let mut named = keys.filter(|key| KeyRef::of(&key.key) == signature.key).peekable();
        let name: String = signature.key.as_str().chars().take(KEY_SHOWN_MAX).collect();
        if signer == Signer::Unnamed && named.peek().is_none() {
            return refuse(format!("the policy names no key `{name}`"));
        }
        if !named.any(|key| judged.envelope.signed_by(&key.key).unwrap_or(false)) {
            return refuse(format!("the signature by `{name}` does not verify"));
        }
    }
    Ok(())
}

/// What an auditor would report, to whoever sent it.
fn offended(offence: Offence) -> HttpError {
    let code = match offence.kind {
        ViolationKind::WrongLog => Code::EntryLog,
        ViolationKind::UnknownStream => Code::EntryStream,
        ViolationKind::WrongSigner => Code::EntrySigner,
        // Whether it is in order shows only behind the stream's end.
        _ => Code::EntryForm,
    };
    let stream = offence.stream.map_or_else(String::new, |stream| format!("stream `{stream}`: "));
    HttpError::new(code, format!("{stream}{}", offence.detail))
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
        _ if goes_on_elsewhere(error) => HttpError::new(Code::NoSequencer, message),
        _ if error.class() == Class::Fatal => HttpError::new(Code::LogStopped, message),
        _ => HttpError::new(Code::Storage, message),
    }
}
