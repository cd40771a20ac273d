//! What a custodian remembers: every use, before its key is touched.

use std::collections::btree_map::Entry as MapEntry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use attest::{RegionId, StatementId};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use stdx::{Digest, UnixTime};
use storage::{Key, LockBatch, Swap, Swapping, Version};
use tokio::sync::oneshot;

use crate::decide::{Admitted, Seen};
use crate::erase::Erasable;
use crate::outcome::Concluded;
use crate::status::{Current, Word};

/// An outcome is logged when a lease ends, or so much later.
pub const OUTCOME_GRACE: Duration = Duration::from_secs(600);

/// Leases without an outcome: of 1,000 a second, each a second long, four seconds' worth. When nobody says what
/// came of so many, nothing more is opened.
const LEASES_MAX: usize = 4096;

/// Another process swaps the same value; each try is a few milliseconds.
const ATTEMPTS_MAX: usize = 256;
/// Uses and outcomes that share one wait for the disk.
const BATCH_MAX: usize = 256;

/// Why nothing was noted, and so nothing is opened.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The store failed. The intent may be used up.
    #[error("{0}")]
    Store(#[source] Arc<storage::Error>),
    /// What is in the store is not what was written.
    #[error("the custodian's ledger is damaged at `{0}`")]
    Damaged(Key),
    /// The intent was used already.
    #[error("intent {0} was used already")]
    Used(StatementId),
    /// The request was used as often as it may be.
    #[error("request {request} was used {uses} times, which is as often as it may be")]
    Exhausted {
        /// The request.
        request: StatementId,
        /// How often.
        uses: u64,
    },
    /// A status that stops something else came since it was decided.
    #[error("the region's status has changed in between; ask again, with another intent")]
    Changed,
    /// Nobody says what came of what was opened.
    #[error("{LEASES_MAX} intents have no outcome yet")]
    Outcomes,
    /// Too many at once.
    #[error("others note uses all the time; try again")]
    Contended,
}

impl From<storage::Error> for LedgerError {
    fn from(error: storage::Error) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl LedgerError {
    /// What everybody is told of whom there was one store to write for.
    fn for_all(&self) -> Self {
        match self {
            Self::Store(error) => Self::Store(Arc::clone(error)),
            Self::Damaged(key) => Self::Damaged(key.clone()),
            _ => Self::Contended,
        }
    }
}

/// What is to be opened, and on record with this custodian. Only [`Ledger::note`] makes one.
#[derive(Debug)]
pub struct Noted {
    pub(crate) admitted: Admitted,
}

/// The ledger of one custodian for one region. Many who write at once share one swap.
pub struct Ledger {
    locks: Arc<dyn LockBatch>,
    region: RegionId,
    waiting: Mutex<Vec<Waiting>>,
    /// Whoever has it writes for all who wait.
    turn: tokio::sync::Mutex<()>,
}

/// What is to be put on record.
enum Entry {
    /// A use of an intent.
    Use {
        intent: StatementId,
        request: StatementId,
        limit: u64,
        objects: usize,
        lease: Lease,
        now: UnixTime,
        word: Word,
    },
    /// The end of a lease.
    End { intent: StatementId, time: UnixTime },
}

/// Who waits for it.
struct Waiting {
    entry: Entry,
    answer: oneshot::Sender<Result<(), LedgerError>>,
}

/// What all uses come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Intents that are used, ever.
    pub uses: u64,
    /// Shares that were opened, ever.
    pub opened: u64,
    /// Shares that were moved into the custodian's own table, ever; nobody was given one.
    pub moved: u64,
    /// The end of the chain of uses.
    pub head: Digest,
    /// Intents that have no outcome, ascending.
    pub open: Vec<StatementId>,
    /// Those of them whose lease was over for long: each is an alarm.
    pub missing: Vec<StatementId>,
}

/// A use that has no outcome yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lease {
    intent: StatementId,
    expires: UnixTime,
}

/// What all uses come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    uses: u64,
    opened: u64,
    #[serde(default)]
    moved: u64,
    /// SHA-256 over the one before, the intent and its objects' number: who takes a use away breaks it.
    head: Digest,
    seen: UnixTime,
    /// The newest status that was seen.
    #[serde(default)]
    status: Option<Word>,
    /// The last manifest of the vault that was seen: number and SHA-256.
    #[serde(default)]
    vault: Option<(u64, Digest)>,
    leases: Vec<Lease>,
}

impl State {
    fn learn(&mut self, word: Word) {
        self.status = self.status.filter(|it| it.number >= word.number).or(Some(word));
    }
}

/// An erasure, before it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Erasing {
    /// Rows that the table has of its objects.
    pub rows: u64,
    /// Until when some key here could still open one of them.
    pub horizon: UnixTime,
}

/// One use.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Use {
    request: StatementId,
    objects: usize,
    time: UnixTime,
}

/// How often a request was used.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Count {
    uses: u64,
}

impl Entry {
    const fn intent(&self) -> &StatementId {
        match self {
            Self::Use { intent, .. } | Self::End { intent, .. } => intent,
        }
    }

    const fn request(&self) -> Option<StatementId> {
        match self {
            Self::Use { request, .. } => Some(*request),
            Self::End { .. } => None,
        }
    }
}

/// What one swap changes.
struct Page {
    state: State,
    /// How often requests were used, from which version on, and whether that has changed.
    counts: BTreeMap<StatementId, (Count, Option<Version>, bool)>,
    /// Intents that are used up by it.
    intents: BTreeMap<StatementId, Use>,
}

impl Page {
    /// Puts `entry` on it, if it may be; `known` are intents that are used up already.
    fn take(&mut self, entry: &Entry, known: &BTreeSet<StatementId>) -> Result<(), LedgerError> {
        let state = &mut self.state;
        match entry {
            Entry::Use { intent, request, limit, objects, lease, now, word } => {
                if known.contains(intent) || self.intents.contains_key(intent) {
                    return Err(LedgerError::Used(*intent));
                }
                if state.leases.len() >= LEASES_MAX {
                    return Err(LedgerError::Outcomes);
                }
                if word.is_overruled_by(state.status.as_ref()) {
                    return Err(LedgerError::Changed);
                }
                let (count, _, changed) = self.counts.entry(*request).or_default();
                if count.uses >= *limit {
                    return Err(LedgerError::Exhausted { request: *request, uses: count.uses });
                }
                count.uses += 1;
                *changed = true;
                self.intents.insert(*intent, Use { request: *request, objects: *objects, time: *now });
                state.learn(*word);
                state.uses += 1;
                state.opened += *objects as u64;
                state.head = Digest::of(format!("{}\n{intent}\n{objects}\n", state.head).as_bytes());
                state.seen = state.seen.max(*now);
                state.leases.push(lease.clone());
            }
            Entry::End { intent, time } => {
                let leases = state.leases.len();
                state.leases.retain(|lease| lease.intent != *intent);
                // What has no lease, and was never used, is used up.
                if leases == state.leases.len() && !known.contains(intent) && !self.intents.contains_key(intent) {
                    self.intents.insert(*intent, Use { request: *intent, objects: 0, time: *time });
                }
                state.seen = state.seen.max(*time);
            }
        }
        Ok(())
    }
}

impl Default for State {
    fn default() -> Self {
        let head = Digest::of(b"");
        Self {
            uses: 0,
            opened: 0,
            moved: 0,
            head,
            seen: UnixTime::EPOCH,
            status: None,
            vault: None,
            leases: Vec::new(),
        }
    }
}

impl Ledger {
    /// The ledger in `locks`, which are this custodian's alone.
    #[must_use]
    pub fn new(locks: Arc<dyn LockBatch>, region: RegionId) -> Self {
        Self { locks, region, waiting: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    /// What was seen before: what [`Custodian::seen`](crate::Custodian) must be.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn seen(&self) -> Result<Seen, LedgerError> {
        let state = self.load::<State>(&self.key("state")?).await?.0;
        Ok(Seen { time: state.seen, status: state.status.map(|word| word.number) })
    }

    /// Remembers this status, if it is the newest so far: whoever brings an older one is refused, also after a
    /// restart. Durable when it returns.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn learn(&self, current: &Current) -> Result<(), LedgerError> {
        let word = current.word();
        if self.seen().await?.status.is_some_and(|seen| seen >= word.number) {
            return Ok(());
        }
        self.change(&self.key("state")?, |state: &mut State| {
            state.learn(word);
            Ok(())
        })
        .await
    }

    /// What all uses come to, as of `now`.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn totals(&self, now: UnixTime) -> Result<Totals, LedgerError> {
        let State { uses, opened, moved, head, leases, .. } = self.load::<State>(&self.key("state")?).await?.0;
        let mut open: Vec<Lease> = leases;
        open.sort_unstable_by_key(|lease| lease.intent);
        let over = open.iter().filter(|lease| now > lease.expires.after(OUTCOME_GRACE));
        let missing = over.map(|lease| lease.intent).collect();
        Ok(Totals { uses, opened, moved, head, open: open.iter().map(|lease| lease.intent).collect(), missing })
    }

    /// Puts a use on record: once for each intent, and as often as its request may be used. Durable when it
    /// returns. A failure uses the intent up or doesn't, and opens nothing.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn note(&self, admitted: Admitted) -> Result<Noted, LedgerError> {
        let lease = Lease { intent: admitted.intent, expires: admitted.expires };
        self.write(Entry::Use {
            intent: admitted.intent,
            request: admitted.request,
            limit: admitted.standing.map_or(1, |standing| standing.uses),
            objects: admitted.shares.len(),
            lease,
            now: admitted.now,
            word: admitted.status,
        })
        .await?;
        Ok(Noted { admitted })
    }

    /// Takes in an outcome: its lease is over, and if there was none, there will be none.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn close(&self, concluded: &Concluded) -> Result<(), LedgerError> {
        let outcome = &concluded.outcome;
        self.write(Entry::End { intent: outcome.statement().predicate.intent, time: outcome.time() }).await
    }

    /// Waits until this is on record; who comes first writes for all who have come by then.
    async fn write(&self, entry: Entry) -> Result<(), LedgerError> {
        let (answer, mut answered) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(Waiting { entry, answer });
        loop {
            let turn = self.turn.lock().await;
            if let Ok(done) = answered.try_recv() {
                return done;
            }
            let batch = {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                let count = waiting.len().min(BATCH_MAX);
                waiting.drain(..count).collect::<Vec<_>>()
            };
            if batch.is_empty() {
                // Whoever wrote for this one went away in the middle; whether it is on record nobody knows.
                return Err(LedgerError::Contended);
            }
            let entries: Vec<&Entry> = batch.iter().map(|waiting| &waiting.entry).collect();
            let mut written = match self.write_now(&entries).await {
                Ok(written) => written,
                Err(error) => entries.iter().map(|_| Err(error.for_all())).collect(),
            };
            // Who asked may be gone. Whoever has the turn next must find an answer.
            for (waiting, done) in batch.into_iter().zip(written.drain(..)) {
                let _ = waiting.answer.send(done);
            }
            drop(turn);
        }
    }

    /// Puts all of these on record in one swap, each unless it may not be.
    async fn write_now(&self, entries: &[&Entry]) -> Result<Vec<Result<(), LedgerError>>, LedgerError> {
        let state_key = self.key("state")?;
        // Intents that another batch, or the one before a crash, has on record.
        let mut known: BTreeSet<StatementId> = BTreeSet::new();
        for _ in 0..ATTEMPTS_MAX {
            let (state, version) = self.load::<State>(&state_key).await?;
            let mut page = Page { state, counts: BTreeMap::new(), intents: BTreeMap::new() };
            for request in entries.iter().filter_map(|entry| entry.request()) {
                if let MapEntry::Vacant(place) = page.counts.entry(request) {
                    let (count, version) = self.load::<Count>(&self.request_key(&request)?).await?;
                    place.insert((count, version, false));
                }
            }
            let mut done: Vec<_> = entries.iter().map(|entry| page.take(entry, &known)).collect();
            for (entry, done) in entries.iter().zip(&mut done).filter(|(_, done)| done.is_err()) {
                // What was used is told so, whatever else may be wrong by now.
                if self.locks.get(&self.intent_key(entry.intent())?).await?.is_some() {
                    *done = Err(LedgerError::Used(*entry.intent()));
                }
            }
            if done.iter().all(Result::is_err) {
                return Ok(done);
            }
            let mut swaps = vec![Swapping { key: state_key.clone(), expected: version, bytes: encode(&page.state) }];
            for (request, (count, version, _)) in page.counts.into_iter().filter(|(_, (_, _, changed))| *changed) {
                swaps.push(Swapping { key: self.request_key(&request)?, expected: version, bytes: encode(&count) });
            }
            let (others, intents) = (swaps.len(), page.intents.keys().copied().collect::<Vec<_>>());
            for (intent, once) in &page.intents {
                swaps.push(Swapping { key: self.intent_key(intent)?, expected: None, bytes: encode(once) });
            }
            let lost = self.locks.swap_all(&swaps).await?;
            if lost.is_empty() {
                return Ok(done);
            }
            known.extend(lost.iter().filter_map(|at| intents.get(at.checked_sub(others)?)));
        }
        Err(LedgerError::Contended)
    }

    /// The last manifest of the region's vault that was seen. Who shows a vault without it shows another.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn vault(&self) -> Result<Option<(u64, Digest)>, LedgerError> {
        Ok(self.load::<State>(&self.key("state")?).await?.0.vault)
    }

    /// Puts on record that so many shares, which the vault has up to this manifest, are about to be opened with a
    /// region's key and moved into the custodian's own table. Durable when it returns.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn moving(&self, key: &Digest, shares: u64, vault: (u64, Digest)) -> Result<(), LedgerError> {
        self.change(&self.key("state")?, |state: &mut State| {
            state.vault = state.vault.filter(|seen| seen.0 > vault.0).or(Some(vault));
            if shares > 0 {
                state.moved += shares;
                state.head = Digest::of(format!("{}\nmoved {key}\n{shares}\n", state.head).as_bytes());
            }
            Ok(())
        })
        .await
    }

    /// Puts an erasure on record, once: what was noted first stays. Durable when it returns.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn erasing(&self, erasable: &Erasable, erasing: Erasing) -> Result<Erasing, LedgerError> {
        let (request, count) = (erasable.request(), erasable.objects().len());
        let key = self.key(&format!("erasure/{request}"))?;
        if self.locks.compare_and_swap(&key, None, encode(&erasing)).await? == Swap::Lost {
            return Ok(self.load::<Option<Erasing>>(&key).await?.0.unwrap_or(erasing));
        }
        self.change(&self.key("state")?, |state: &mut State| {
            state.head = Digest::of(format!("{}\nerased {request}\n{count}\n", state.head).as_bytes());
            Ok(())
        })
        .await?;
        Ok(erasing)
    }

    async fn load<T: DeserializeOwned + Default>(&self, key: &Key) -> Result<(T, Option<Version>), LedgerError> {
        let Some(held) = self.locks.get(key).await? else { return Ok((T::default(), None)) };
        let value = serde_json::from_slice(&held.bytes).map_err(|_| LedgerError::Damaged(key.clone()))?;
        Ok((value, Some(held.version)))
    }

    async fn change<T: Serialize + DeserializeOwned + Default + Send>(
        &self,
        key: &Key,
        change: impl Fn(&mut T) -> Result<(), LedgerError> + Send + Sync,
    ) -> Result<(), LedgerError> {
        let _turn = self.turn.lock().await;
        for _ in 0..ATTEMPTS_MAX {
            let (mut value, version) = self.load::<T>(key).await?;
            change(&mut value)?;
            if let Swap::Won(_) = self.locks.compare_and_swap(key, version.as_ref(), encode(&value)).await? {
                return Ok(());
            }
        }
        Err(LedgerError::Contended)
    }

    fn intent_key(&self, intent: &StatementId) -> Result<Key, LedgerError> {
        self.key(&format!("intent/{intent}"))
    }

    fn request_key(&self, request: &StatementId) -> Result<Key, LedgerError> {
        self.key(&format!("request/{request}"))
    }

    fn key(&self, name: &str) -> Result<Key, LedgerError> {
        let key = format!("custody/{}/{name}", self.region);
        key.parse().map_err(|error: storage::KeyError| {
            LedgerError::from(storage::Error::Setup {
                service: format!("region `{}`", self.region),
                problem: error.to_string(),
                hint: "give the region a shorter name",
            })
        })
    }
}

fn encode<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value).expect("strings and integers are always JSON").into()
}
