//! Writes an enforcement point's stream: gapless, each entry naming the one before it.
//!
//! The state of a stream is one lock: what is written next, and an envelope that has been signed
//! but is not yet known to be logged. Writing is: put the envelope there, append it to the log,
//! take it away again. Whoever finds one there (after a crash, or of another process) appends it
//! first; a log gives an entry that it has its old place, so that this never doubles anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use api::{Appended, BaseUrl, BodyLimit, Client, ClientError, ErrorClass, path};
use attest::{
    Budget, BundleEntry, Envelope, EnvelopeError, Heartbeat, KeyRef, Position, RegionId, Statement, StatementId,
    StreamName, Subject,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stdx::{Clock, Digest, UnixTime};
use storage::{Key, LockStore, Swap, Versioned};
use tlog::{LogProof, MAX_LOG_PROOF_BYTES, Origin, SignerKey};
use verify::StreamChecker;

/// An entry's place and proof: the proof escaped into JSON (2 for 1 at most) and an index.
const APPENDED_BYTES_MAX: BodyLimit = BodyLimit(2 * MAX_LOG_PROOF_BYTES as u64 + 1024);

/// A log that can be written to over HTTP.
#[derive(Clone, Debug)]
pub struct LogWriter {
    /// Its origin.
    pub origin: Origin,
    /// Where it is.
    pub url: BaseUrl,
    /// The client; its timeout covers waiting for the witnesses.
    pub client: Client,
}

/// Why a stream could not be written.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The log refused, or is not there.
    #[error("log `{origin}`")]
    Log {
        /// The log.
        origin: Origin,
        /// Why.
        source: ClientError,
    },
    /// The log's answer is no proof of the entry.
    #[error("log `{origin}` answered with something that is no proof: {detail}")]
    Answer {
        /// The log.
        origin: Origin,
        /// What is wrong.
        detail: String,
    },
    /// The statement could not be made.
    #[error("stream `{stream}`: the statement could not be made")]
    Statement {
        /// The stream.
        stream: StreamName,
        /// Why.
        source: anyhow::Error,
    },
    /// The store of the stream's state failed.
    #[error("stream `{stream}`")]
    Store {
        /// The stream.
        stream: StreamName,
        /// Why.
        source: storage::Error,
    },
    /// The state of the stream is not what was written.
    #[error("stream `{stream}`: {detail}")]
    State {
        /// The stream.
        stream: StreamName,
        /// Why.
        detail: String,
    },
    /// A signed envelope is damaged.
    #[error("stream `{stream}`")]
    Envelope {
        /// The stream.
        stream: StreamName,
        /// Why.
        source: EnvelopeError,
    },
}

impl LogWriter {
    /// Appends `envelope` and waits until it is witnessed. Safe to repeat.
    ///
    /// # Errors
    /// [`StreamError::Log`], [`StreamError::Answer`].
    pub async fn append(&self, envelope: &Envelope) -> Result<BundleEntry, StreamError> {
        let (url, body) = (self.url.join(path::ENTRIES), envelope.to_bytes());
        let answer = tokio::task::block_in_place(|| self.client.post(&url, &body, APPENDED_BYTES_MAX));
        let answer = answer.map_err(|source| StreamError::Log { origin: self.origin.clone(), source })?;
        let appended: Appended = serde_json::from_slice(&answer).map_err(|error| self.answer(error.to_string()))?;
        self.checked(envelope, &appended)
    }

    /// Appends all of these, in this order, and waits until they are witnessed. Safe to repeat.
    ///
    /// # Errors
    /// As [`LogWriter::append`]; some of them may have been taken in.
    pub async fn append_all(&self, envelopes: &[Envelope]) -> Result<Vec<BundleEntry>, StreamError> {
        if let [envelope] = envelopes {
            return Ok(vec![self.append(envelope).await?]);
        }
        let url = self.url.join(path::ENTRY_BATCHES);
        let texts = envelopes.iter().map(|it| String::from_utf8(it.to_bytes())).collect::<Result<Vec<_>, _>>();
        let texts = texts.map_err(|error| self.answer(error.to_string()))?;
        let limit = BodyLimit(APPENDED_BYTES_MAX.0 * envelopes.len() as u64);
        let answer = tokio::task::block_in_place(|| self.client.post_json::<Vec<Appended>>(&url, &texts, limit));
        let answer = answer.map_err(|source| StreamError::Log { origin: self.origin.clone(), source })?;
        if answer.len() != envelopes.len() {
            return Err(self.answer(format!("{} proofs for {} entries", answer.len(), envelopes.len())));
        }
        envelopes.iter().zip(&answer).map(|(envelope, appended)| self.checked(envelope, appended)).collect()
    }

    /// The entry, if `appended` proves it.
    fn checked(&self, envelope: &Envelope, appended: &Appended) -> Result<BundleEntry, StreamError> {
        let proof = LogProof::parse(appended.proof.as_bytes()).map_err(|error| self.answer(error.to_string()))?;
        if *proof.checkpoint().checkpoint().origin() != self.origin {
            return Err(self.answer(format!("its origin is `{}`", proof.checkpoint().checkpoint().origin())));
        }
        let (leaf, head) = (tlog::leaf_hash(&envelope.to_bytes()), *proof.checkpoint().checkpoint().head());
        proof.path().verify(proof.index(), &leaf, &head).map_err(|error| self.answer(error.to_string()))?;
        Ok(BundleEntry { envelope: envelope.clone(), proof })
    }

    fn answer(&self, detail: String) -> StreamError {
        StreamError::Answer { origin: self.origin.clone(), detail }
    }
}

/// The writer of one stream; several processes may hold one for the same stream.
#[derive(Clone)]
pub struct StreamWriter {
    stream: StreamName,
    log: LogWriter,
    locks: Arc<dyn LockStore>,
    clock: Arc<dyn Clock>,
    keys: Vec<KeyRef>,
}

/// What the lock holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    epoch: u64,
    next: u64,
    previous: Option<StatementId>,
    /// Signed, one after the other, and not yet known to be logged.
    #[serde(deserialize_with = "one_or_many")]
    pending: Vec<String>,
    /// When the newest entry was made.
    #[serde(default)]
    last: Option<UnixTime>,
    /// What was begun in this stream and has not come to its end.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    open: Open,
}

/// What was begun in a stream and has not come to its end, by the statement that began it: kept in one value
/// with the stream's place, so that no crash leaves one without the other.
pub(crate) type Open = BTreeMap<StatementId, Begun>;

/// An access to data that was announced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Begun {
    /// Where.
    pub(crate) region: RegionId,
    /// The intent's subject: the root of its objects.
    pub(crate) objects: Digest,
    /// How much at most.
    pub(crate) budget: Budget,
    /// Until when.
    pub(crate) expires: UnixTime,
    /// The signed end of it, once there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) outcome: Option<String>,
}

/// Earlier versions wrote one, or nothing.
fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Pending {
        Many(Vec<String>),
        One(Option<String>),
    }
    Ok(match Pending::deserialize(deserializer)? {
        Pending::Many(many) => many,
        Pending::One(one) => one.into_iter().collect(),
    })
}

impl State {
    /// What is pending, read.
    fn envelopes(&self) -> Result<Vec<Envelope>, EnvelopeError> {
        self.pending.iter().map(|text| Envelope::parse(text.as_bytes())).collect()
    }

    /// With nothing pending, at the place after `count` entries, of which `last` is the newest.
    fn after(self, count: usize, last: StatementId) -> Self {
        Self { next: self.next + count as u64, previous: Some(last), pending: Vec::new(), ..self }
    }
}

/// The state of a stream whose state was lost, from its last entry: the next one opens the epoch
/// after it.
pub(crate) fn reopened(end: &Position, id: StatementId) -> anyhow::Result<(Key, Bytes)> {
    let epoch = end.epoch.checked_add(1).context("no epoch is left")?;
    let state = State { epoch, previous: Some(id), last: Some(end.time), ..State::default() };
    Ok((lock_of(&end.stream)?, serde_json::to_vec(&state)?.into()))
}

fn lock_of(stream: &StreamName) -> Result<Key, storage::KeyError> {
    format!("stream/{stream}").parse()
}

impl StreamWriter {
    /// The writer of `stream` in `log`, whose state is kept in `locks`; `keys` are all those of the
    /// policy in force: the log takes no entry with a signature of another.
    #[must_use]
    pub fn new(
        stream: StreamName,
        log: LogWriter,
        locks: Arc<dyn LockStore>,
        clock: Arc<dyn Clock>,
        keys: Vec<KeyRef>,
    ) -> Self {
        Self { stream, log, locks, clock, keys }
    }

    /// Gives `make` the next place, logs the envelope that it signs, and returns the entry with
    /// its proof. When another writer was faster, `make` is asked again with the place after.
    ///
    /// # Errors
    /// [`StreamError`]. After [`StreamError::Log`] the envelope may still get logged, by whoever
    /// writes next: it is signed, and a signed statement is not taken back.
    pub async fn write(
        &self,
        mut make: impl FnMut(Position) -> anyhow::Result<Envelope> + Send,
    ) -> Result<BundleEntry, StreamError> {
        loop {
            let (state, held) = self.load().await?;
            if !state.pending.is_empty() {
                self.finish(state, held).await?;
                continue;
            }
            let position = self.place(&state);
            let position_time = position.time;
            let envelope = self.made(make(position))?;
            let text = String::from_utf8(envelope.to_bytes()).map_err(|error| self.state(error.to_string()))?;
            let pending = State { pending: vec![text], last: Some(position_time), ..state };
            if let Some(held) = self.swap(held.as_ref(), &pending).await? {
                return self.finished(pending, Some(held)).await;
            }
        }
    }

    /// Writes as many statements at once as `make` signs, asked for number 0, 1, … until it returns nothing. It
    /// may note what they begin or end, which is durable before any of them is logged. When another writer was
    /// faster, `make` is asked again from 0 on.
    ///
    /// # Errors
    /// As [`StreamWriter::write`].
    pub(crate) async fn write_all(
        &self,
        mut make: impl FnMut(usize, &mut Open, Position) -> anyhow::Result<Option<Envelope>> + Send,
    ) -> Result<Vec<BundleEntry>, StreamError> {
        loop {
            let (before, held) = self.settled().await?;
            let (mut open, mut pending, mut at) = (before.open.clone(), Vec::new(), before.clone());
            while let Some(envelope) = self.made(make(pending.len(), &mut open, self.place(&at)))? {
                pending.push(String::from_utf8(envelope.to_bytes()).map_err(|error| self.state(error.to_string()))?);
                at = State { last: Some(self.clock.now()), ..at.after(1, envelope.id()) };
            }
            if pending.is_empty() && open == before.open {
                return Ok(Vec::new());
            }
            let state = State { pending, open, last: at.last, ..before };
            if let Some(held) = self.swap(held.as_ref(), &state).await? {
                return self.finish(state, Some(held)).await;
            }
        }
    }

    /// The log that it is in.
    pub(crate) const fn log(&self) -> &LogWriter {
        &self.log
    }

    /// What was begun and has not ended.
    ///
    /// # Errors
    /// As [`StreamWriter::write`].
    pub(crate) async fn open(&self) -> Result<Open, StreamError> {
        Ok(self.settled().await?.0.open)
    }

    /// The state with nothing pending.
    async fn settled(&self) -> Result<(State, Option<Versioned>), StreamError> {
        loop {
            let (state, held) = self.load().await?;
            if state.pending.is_empty() {
                return Ok((state, held));
            }
            self.finish(state, held).await?;
        }
    }

    /// Writes one statement for `once`, however often and by however many at once this is called:
    /// all get the same entry, the one that was first. What `make` signs may not get logged.
    ///
    /// A statement is noted under `once` before it takes its place. Whoever finds one there writes
    /// that one; only if its place has gone to another is it certain that it never gets logged, and
    /// replaced.
    ///
    /// # Errors
    /// As [`StreamWriter::write`].
    pub async fn write_once(
        &self,
        once: &Key,
        mut make: impl FnMut(Position) -> anyhow::Result<Envelope> + Send,
    ) -> Result<BundleEntry, StreamError> {
        loop {
            let noted = self.locks.get(once).await.map_err(|error| self.store(error))?;
            if let Some(noted) = &noted {
                let envelope = Envelope::parse(&noted.bytes)
                    .map_err(|source| StreamError::Envelope { stream: self.stream.clone(), source })?;
                if let Some(entry) = self.write_noted(&envelope).await? {
                    return Ok(entry);
                }
            }
            let (state, held) = self.load().await?;
            if !state.pending.is_empty() {
                self.finish(state, held).await?;
                continue;
            }
            let envelope = self.made(make(self.place(&state)))?;
            let expected = noted.as_ref().map(|noted| &noted.version);
            // Whoever loses finds what has won.
            let noted = self.locks.compare_and_swap(once, expected, envelope.to_bytes().into()).await;
            let (Swap::Won(_) | Swap::Lost) = noted.map_err(|error| self.store(error))?;
        }
    }

    /// Logs this very envelope, unless its place in the stream has gone to another.
    async fn write_noted(&self, envelope: &Envelope) -> Result<Option<BundleEntry>, StreamError> {
        let (_, place) = StreamChecker::read(&envelope.to_bytes()).map_err(|detail| self.state(detail.to_owned()))?;
        loop {
            let (state, held) = self.load().await?;
            if !state.pending.is_empty() {
                self.finish(state, held).await?;
                continue;
            }
            if place.sequence < state.next {
                // The log gives an entry that it has its old place, and takes no other for it.
                return match self.log.append(envelope).await {
                    Err(StreamError::Log { source, .. }) if source.class() == ErrorClass::Rejected => Ok(None),
                    appended => appended.map(Some),
                };
            }
            let is_next = (state.epoch, state.next, state.previous) == (place.epoch, place.sequence, place.previous);
            if !is_next || !self.is_in_force(envelope) {
                return Ok(None);
            }
            let text = String::from_utf8(envelope.to_bytes()).map_err(|error| self.state(error.to_string()))?;
            let pending = State { pending: vec![text], last: Some(place.time), ..state };
            if let Some(held) = self.swap(held.as_ref(), &pending).await? {
                return self.finished(pending, Some(held)).await.map(Some);
            }
        }
    }

    /// Writes a heartbeat if the stream has been silent for half of `interval`.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn beat(&self, recorder: &SignerKey, interval: Duration) -> Result<(), StreamError> {
        let (state, _) = self.load().await?;
        let now = self.clock.now();
        if state.last.is_some_and(|last| now.since(last) < interval / 2) {
            return Ok(());
        }
        let name = self.stream.as_str();
        let subject = vec![Subject::new(name, Digest::of(name.as_bytes()))];
        let interval_s = interval.as_secs();
        self.write(|position| {
            let statement = Statement { subject: subject.clone(), predicate: Heartbeat { position, interval_s } };
            Ok(Envelope::sign(statement.encode()?, &[recorder])?)
        })
        .await
        .map(drop)
    }

    /// The next place.
    fn place(&self, state: &State) -> Position {
        Position {
            log: self.log.origin.clone(),
            stream: self.stream.clone(),
            epoch: state.epoch,
            sequence: state.next,
            previous: state.previous,
            time: self.clock.now(),
        }
    }

    fn made<T>(&self, made: anyhow::Result<T>) -> Result<T, StreamError> {
        made.map_err(|source| StreamError::Statement { stream: self.stream.clone(), source })
    }

    /// Appends the one that is pending.
    async fn finished(&self, state: State, held: Option<Versioned>) -> Result<BundleEntry, StreamError> {
        let mut entries = self.finish(state, held).await?;
        entries.pop().ok_or_else(|| self.state("nothing was pending".to_owned()))
    }

    /// Appends what is pending and notes that it is logged.
    async fn finish(&self, state: State, held: Option<Versioned>) -> Result<Vec<BundleEntry>, StreamError> {
        let envelopes = state.envelopes();
        let envelopes = envelopes.map_err(|source| StreamError::Envelope { stream: self.stream.clone(), source })?;
        let Some(last) = envelopes.last().map(Envelope::id) else { return Ok(Vec::new()) };
        let entries = match self.log.append_all(&envelopes).await {
            Err(StreamError::Log { source, origin })
                if source.class() == ErrorClass::Rejected && !envelopes.iter().all(|it| self.is_in_force(it)) =>
            {
                // A key was replaced by the policy since, be it another organisation's, and it is not in the
                // log, which keeps what it has: it never will be. The place is free. Of several, those before it
                // may have been taken in: whoever writes next is told so, and an operator looks.
                let mut open = state.open.clone();
                open.retain(|id, _| envelopes.iter().all(|it| it.id() != *id));
                self.swap(held.as_ref(), &State { pending: Vec::new(), open, ..state }).await?;
                return Err(StreamError::Log { source, origin });
            }
            appended => appended?,
        };
        let done = state.after(envelopes.len(), last);
        // Losing this race means that somebody else appended the same envelopes: nothing is lost.
        self.swap(held.as_ref(), &done).await?;
        Ok(entries)
    }

    /// Whether the policy in force has the key of every signature.
    fn is_in_force(&self, envelope: &Envelope) -> bool {
        envelope.signatures().iter().all(|signature| self.keys.contains(&signature.key))
    }

    async fn load(&self) -> Result<(State, Option<Versioned>), StreamError> {
        let held = self.locks.get(&self.key()?).await.map_err(|error| self.store(error))?;
        let state = match &held {
            Some(held) => serde_json::from_slice(&held.bytes).map_err(|error| self.state(error.to_string()))?,
            None => State::default(),
        };
        Ok((state, held))
    }

    /// The lock's new value, or `None` when another writer was faster.
    async fn swap(&self, held: Option<&Versioned>, state: &State) -> Result<Option<Versioned>, StreamError> {
        let bytes = Bytes::from(serde_json::to_vec(state).map_err(|error| self.state(error.to_string()))?);
        let expected = held.map(|held| &held.version);
        let swapped = self.locks.compare_and_swap(&self.key()?, expected, bytes.clone()).await;
        match swapped.map_err(|error| self.store(error))? {
            Swap::Won(version) => Ok(Some(Versioned { bytes, version })),
            Swap::Lost => Ok(None),
        }
    }

    fn key(&self) -> Result<Key, StreamError> {
        lock_of(&self.stream).map_err(|error| self.state(error.to_string()))
    }

    fn store(&self, source: storage::Error) -> StreamError {
        StreamError::Store { stream: self.stream.clone(), source }
    }

    fn state(&self, detail: String) -> StreamError {
        StreamError::State { stream: self.stream.clone(), detail }
    }
}
