//! Entries on their way into the log.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tlog::{EntryIndex, Hash, SignedCheckpoint};
use tokio::sync::{Notify, watch};

use crate::dedup::Dedup;
use crate::nodes::Nodes;
use crate::{Error, Limits};

/// So many entries become published ones before others get at the pool again, 0.1 ms later.
const PUBLISHED_AT_ONCE: usize = 256;

/// How far a batch has come.
#[derive(Clone, Debug)]
pub(crate) enum Progress {
    /// In the pool, or being sequenced.
    Waiting,
    /// Under a signed checkpoint that is on disk; this is the index of the first entry.
    Sequenced(EntryIndex),
    /// Under a published one.
    Published(Arc<Published>),
    /// The log stopped before.
    Stopped(Arc<Error>),
}

/// What the receipts of a batch share.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) first: EntryIndex,
    pub(crate) checkpoint: SignedCheckpoint,
    pub(crate) nodes: Nodes,
}

/// Entries that go into the tree together.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) entries: Vec<Bytes>,
    pub(crate) leaves: Vec<Hash>,
    bytes: usize,
    pub(crate) progress: watch::Sender<Progress>,
}

/// One entry of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) progress: watch::Receiver<Progress>,
    pub(crate) position: u64,
}

/// What became of an entry that was offered.
pub(crate) enum Offered {
    /// It waits here, or has been waiting here already.
    Waiting(Place),
    /// It may be one of these published entries.
    Perhaps(Vec<EntryIndex>),
}

/// What is on its way into a log.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Entries that were taken in and are not yet published.
    pub entries: usize,
    /// How many the log takes in at most.
    pub entries_max: usize,
    /// Why nothing goes in any more.
    pub stopped: Option<Arc<Error>>,
}

/// A bounded queue of batches, the last of which is being filled.
pub(crate) struct Pool {
    state: Mutex<State>,
    limits: Limits,
    pub(crate) filled: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Batch>,
    /// Every entry not yet published, also those that are being sequenced.
    places: HashMap<Hash, Place>,
    bytes: usize,
    published: Dedup,
    stopped: Option<Arc<Error>>,
}

impl Pool {
    pub(crate) fn new(limits: Limits, published: Dedup) -> Self {
        let state = State { published, ..State::default() };
        Self { state: Mutex::new(state), limits, filled: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent between any two statements that could panic: there are none.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an entry in, unless it waits already or may be published. `others` are published
    /// entries that the caller found to be different ones.
    pub(crate) fn offer(&self, entry: &Bytes, leaf: &Hash, others: &[EntryIndex]) -> Result<Offered, Error> {
        let mut state = self.lock();
        if let Some(reason) = &state.stopped {
            return Err(Error::Stopped(Arc::clone(reason)));
        }
        if let Some(place) = state.places.get(leaf) {
            return Ok(Offered::Waiting(place.clone()));
        }
        let perhaps: Vec<_> = state.published.candidates(leaf).into_iter().filter(|i| !others.contains(i)).collect();
        if !perhaps.is_empty() {
            return Ok(Offered::Perhaps(perhaps));
        }
        let Limits { pool_entries, pool_bytes, batch_entries, batch_bytes, retry_after, .. } = self.limits;
        if state.places.len() >= pool_entries || state.bytes + entry.len() > pool_bytes {
            return Err(Error::Full { retry_after });
        }
        let fits = |batch: &Batch| batch.entries.len() < batch_entries && batch.bytes + entry.len() <= batch_bytes;
        if !state.waiting.back().is_some_and(fits) {
            let progress = watch::Sender::new(Progress::Waiting);
            state.waiting.push_back(Batch { entries: Vec::new(), leaves: Vec::new(), bytes: 0, progress });
        }
        state.bytes += entry.len();
        let batch = state.waiting.back_mut().expect("a batch was just made sure of");
        let place = Place { progress: batch.progress.subscribe(), position: batch.entries.len() as u64 };
        batch.entries.push(entry.clone());
        batch.leaves.push(*leaf);
        batch.bytes += entry.len();
        state.places.insert(*leaf, place.clone());
        drop(state);
        self.filled.notify_one();
        Ok(Offered::Waiting(place))
    }

    pub(crate) fn waiting(&self) -> Waiting {
        let state = self.lock();
        let (entries, entries_max) = (state.places.len(), self.limits.pool_entries);
        Waiting { entries, entries_max, stopped: state.stopped.clone() }
    }

    /// The oldest batch, full or not.
    pub(crate) fn take(&self) -> Option<Batch> {
        self.lock().waiting.pop_front()
    }

    /// The oldest batch, if nothing more fits into it.
    pub(crate) fn take_full(&self) -> Option<Batch> {
        let mut state = self.lock();
        if state.waiting.len() > 1 { state.waiting.pop_front() } else { None }
    }

    /// Where an entry that was offered before waits, or which published entries it may be.
    pub(crate) fn find(&self, leaf: &Hash) -> Result<Offered, Error> {
        let state = self.lock();
        if let Some(reason) = &state.stopped {
            return Err(Error::Stopped(Arc::clone(reason)));
        }
        Ok(match state.places.get(leaf) {
            Some(place) => Offered::Waiting(place.clone()),
            None => Offered::Perhaps(state.published.candidates(leaf)),
        })
    }

    /// The batch is published from `first` on: its entries are found by index from now on.
    pub(crate) fn published(&self, batch: &Batch, first: EntryIndex) {
        let mut index = first.get();
        for leaves in batch.leaves.chunks(PUBLISHED_AT_ONCE) {
            let mut state = self.lock();
            for leaf in leaves {
                state.published.insert(leaf, EntryIndex::new(index));
                state.places.remove(leaf);
                index += 1;
            }
        }
        self.lock().bytes -= batch.bytes;
    }

    /// Nothing more comes out of this pool, and nothing more goes in.
    pub(crate) fn stop(&self, reason: &Arc<Error>) {
        let mut state = self.lock();
        state.stopped = Some(Arc::clone(reason));
        for batch in state.waiting.drain(..) {
            batch.progress.send_replace(Progress::Stopped(Arc::clone(reason)));
        }
    }
}
