//! One batch after the other: stage, compare, sign and swap, apply, read back, cosign, publish.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use storage::{Folder, Key, Listing, ObjectStore, Swap};
use tlog::{EntryIndex, SignedCheckpoint, TreeHead, TreeSize, tiles_for_growth};
use tokio::time::sleep;

use crate::engine::{Shared, sign};
use crate::growth::{Edge, Grown, grow, replaced};
use crate::locked::Locked;
use crate::nodes::Nodes;
use crate::open::{corrupt, edge, published, same_history};
use crate::pool::{Batch, Progress, Published};
use crate::witnesses::Witnesses;
use crate::{Class, Error, layout, staged};

/// The first wait after a failure; each further one is twice as long, up to the log's limit.
const FIRST_WAIT: Duration = Duration::from_millis(20);

/// Between two rounds for fresh cosignatures lies at least this, whatever came of the first: at
/// most 360 rounds an hour while the witnesses are away, and fresh ones 10 s after they are back.
const REFRESH_PAUSE: Duration = Duration::from_secs(10);

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing was to be done.
    Idle,
    /// The checkpoint of this size is published.
    Published(TreeSize),
}

/// One step, as whoever counts them is told.
#[derive(Debug)]
pub struct Stepped<'a> {
    /// What it did, or why it could not.
    pub outcome: Result<Step, &'a Error>,
    /// How long it took.
    pub took: Duration,
    /// The size of the newest signed tree behind it.
    pub signed: TreeSize,
}

/// Is told what a log does. It is called between two steps, so it must not wait.
pub trait Observer: Send + Sync {
    /// A step is over.
    fn stepped(&self, stepped: &Stepped<'_>);
}

/// Makes a log grow. There is one for each open log.
pub struct Sequencer {
    shared: Arc<Shared>,
    observer: Option<Arc<dyn Observer>>,
    witnesses: Witnesses,
    edge: Edge,
    locked: Locked,
    /// Signed, and not yet wholly applied and published.
    pending: Option<Pending>,
    /// Taken from the pool, and not yet signed.
    batch: Option<Batch>,
    /// When the next round for fresh cosignatures is due, in this process's monotonic time. What
    /// cosignatures or a wall clock say doesn't move it, so neither can make the log spin.
    refresh_at: Duration,
    stopped: Option<Arc<Error>>,
}

/// A signed checkpoint on its way to everybody.
pub(crate) struct Pending {
    old: TreeSize,
    objects: Vec<(Key, Bytes)>,
    done: Done,
    batch: Option<(Batch, Nodes)>,
}

/// What a pending checkpoint has behind it. Each step may be repeated.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Done {
    Signed,
    Applied,
    ReadBack,
}

impl Pending {
    /// The locked checkpoint, which was applied when the log was opened.
    pub(crate) fn recovered(locked: &Locked) -> Self {
        Self { old: locked.old, objects: Vec::new(), done: Done::Applied, batch: None }
    }

    /// The locked checkpoint once more, for fresh cosignatures.
    fn refresh(locked: &Locked) -> Self {
        Self { old: locked.head().size, objects: Vec::new(), done: Done::ReadBack, batch: None }
    }
}

impl Sequencer {
    pub(crate) const fn new(
        shared: Arc<Shared>,
        witnesses: Witnesses,
        edge: Edge,
        locked: Locked,
        pending: Option<Pending>,
    ) -> Self {
        // How long ago the last round was, only the wall clock could tell: so there is one now.
        let refresh_at = Duration::ZERO;
        Self { shared, observer: None, witnesses, edge, locked, pending, batch: None, refresh_at, stopped: None }
    }

    /// The same, telling `observer` of each step that [`run`](Self::run) takes.
    #[must_use]
    pub fn observed_by(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Works until `stop` is ready, or the log must stop.
    ///
    /// # Errors
    /// The error of class `Fatal` for which it stopped.
    pub async fn run(mut self, stop: impl Future<Output = ()> + Send) -> Result<(), Error> {
        let mut stop = pin!(stop);
        let shared = Arc::clone(&self.shared);
        let limits = shared.parts.limits;
        let mut wait = FIRST_WAIT;
        loop {
            let start = shared.parts.clock.monotonic();
            let outcome = self.step().await;
            if let Some(observer) = &self.observer {
                let took = shared.parts.clock.monotonic().saturating_sub(start);
                let signed = self.locked.head().size;
                observer.stepped(&Stepped { outcome: outcome.as_ref().copied(), took, signed });
            }
            let nap = match outcome {
                Ok(Step::Published(_)) => {
                    wait = FIRST_WAIT;
                    // The next batch may be waiting already. A timer would cost a millisecond.
                    None
                }
                Ok(Step::Idle) => {
                    wait = FIRST_WAIT;
                    Some(self.until_refresh().max(FIRST_WAIT))
                }
                Err(error) if error.class() == Class::Unavailable => {
                    tracing::warn!(%error, "the log can't go on yet");
                    wait = (wait * 2).min(limits.retry_after);
                    Some(wait)
                }
                Err(error) => return Err(error),
            };
            let Some(nap) = nap else {
                tokio::select! {
                    biased;
                    () = &mut stop => return Ok(()),
                    () = std::future::ready(()) => continue,
                }
            };
            let idle = self.pending.is_none() && self.batch.is_none();
            tokio::select! {
                biased;
                () = &mut stop => return Ok(()),
                () = sleep(nap) => {}
                () = shared.pool.filled.notified(), if idle => {}
            }
        }
    }

    /// Publishes what is signed, or else the next batch; asks for fresh cosignatures if there is
    /// nothing to do and it is time.
    ///
    /// # Errors
    /// Of class `Unavailable`: the same is tried again in the next step (fresh cosignatures: after
    /// a pause). Of class `Fatal`: the log has stopped, and every later step says so.
    pub async fn step(&mut self) -> Result<Step, Error> {
        if let Some(reason) = &self.stopped {
            return Err(Error::Stopped(Arc::clone(reason)));
        }
        match self.advance().await {
            Err(error) if error.class() != Class::Unavailable => {
                let error = self.unless_lost(error).await;
                tracing::error!(log.origin = %self.shared.origin, %error, "the log stops");
                let reason = Arc::new(error);
                self.stop(&reason);
                Err(Error::Stopped(reason))
            }
            outcome => outcome,
        }
    }

    /// Once another process has taken the lock over, what this one finds in store or at the witnesses
    /// is no sign of damage: the log has gone on without it.
    async fn unless_lost(&self, error: Error) -> Error {
        let key = layout::lock(&self.shared.origin);
        match self.shared.parts.locks.get(&key).await {
            // A swap of its own that may have happened changes the version too.
            Ok(Some(found))
                if self.locked.version.as_ref() != Some(&found.version) && !matches!(error, Error::Unknown { .. }) =>
            {
                Error::LockLost
            }
            _ => error,
        }
    }

    fn stop(&mut self, reason: &Arc<Error>) {
        self.stopped = Some(Arc::clone(reason));
        self.shared.pool.stop(reason);
        let pending = self.pending.take().and_then(|pending| pending.batch).map(|(batch, _)| batch);
        for batch in self.batch.take().into_iter().chain(pending) {
            batch.progress.send_replace(Progress::Stopped(Arc::clone(reason)));
        }
    }

    async fn advance(&mut self) -> Result<Step, Error> {
        if self.pending.is_none() {
            match self.batch.take().or_else(|| self.shared.pool.take()) {
                Some(batch) => self.sign(batch).await?,
                None if self.until_refresh().is_zero() => return self.refresh().await,
                None => return Ok(Step::Idle),
            }
        }
        self.publish().await
    }

    fn until_refresh(&self) -> Duration {
        self.refresh_at.saturating_sub(self.shared.parts.clock.monotonic())
    }

    fn refresh_after(&mut self, pause: Duration) {
        self.refresh_at = self.shared.parts.clock.monotonic().saturating_add(pause.max(REFRESH_PAUSE));
    }

    /// Asks for fresh cosignatures. If it fails, what is published stays as it is, and no batch
    /// waits for the next round.
    async fn refresh(&mut self) -> Result<Step, Error> {
        self.refresh_after(REFRESH_PAUSE);
        self.pending = Some(Pending::refresh(&self.locked));
        let outcome = self.publish().await;
        self.pending = None;
        outcome
    }

    /// Stages the batch, makes sure that nothing speaks against signing, signs, and swaps.
    async fn sign(&mut self, batch: Batch) -> Result<(), Error> {
        let (batch, grown, bytes) = compute(self.edge.clone(), batch, self.locked.head()).await?;
        let checkpoint = sign(&self.shared.parts, &self.shared.origin, grown.head);
        let next = Locked { old: self.locked.head().size, checkpoint, version: None };

        let stage = async { Ok(self.shared.parts.objects.put(&next.staged_key(), bytes).await?) };
        let (staged, compared, own) = tokio::join!(stage, self.compare(), self.check_own());
        // What forbids signing for ever comes before what forbids it now.
        let outcomes = [own, compared, staged.map(|_| ())];
        let error = outcomes.into_iter().filter_map(Result::err).min_by_key(|e| e.class() == Class::Unavailable);
        if let Some(error) = error {
            self.batch = Some(batch);
            return Err(error);
        }
        self.swap(next, batch, grown).await
    }

    /// From here on, whatever fails, the batch is signed or it is not: the lock says which.
    async fn swap(&mut self, next: Locked, batch: Batch, grown: Grown) -> Result<(), Error> {
        // A tree only grows, by what was put in.
        assert_eq!(grown.head.size.get(), next.old.get() + batch.entries.len() as u64, "entries were lost");
        assert_eq!(next.old, self.edge.tree.size(), "the batch doesn't start at the edge");
        let key = layout::lock(&self.shared.origin);
        let swap = self.shared.parts.locks.compare_and_swap(&key, self.locked.version.as_ref(), next.to_bytes()).await;
        let outcome = match swap {
            Ok(Swap::Won(version)) => Ok(version),
            Ok(Swap::Lost) => Err(Error::LockLost),
            Err(source) => Err(Error::Unknown { doing: "signing a checkpoint", source }),
        };
        let first = EntryIndex::new(next.old.get());
        let version = match outcome {
            Ok(version) => version,
            Err(error) => {
                self.batch = Some(batch);
                return Err(error);
            }
        };
        self.locked = Locked { version: Some(version), ..next };
        self.edge = grown.edge;
        batch.progress.send_replace(Progress::Sequenced(first));
        let batch = Some((batch, grown.nodes));
        self.pending = Some(Pending { old: self.locked.old, objects: grown.objects, done: Done::Signed, batch });
        Ok(())
    }

    async fn compare(&self) -> Result<(), Error> {
        self.witnesses.compare(&self.shared.reader(self.locked.head())).await
    }

    /// What is stored must still be what this process thinks that it wrote.
    async fn check_own(&self) -> Result<(), Error> {
        let (objects, key) = (&*self.shared.parts.objects, self.shared.parts.signer.verifier());
        same_history(objects, &self.locked, key).await?;
        let found = published(objects, &self.locked, key).await?;
        if found.is_none() && self.shared.published.borrow().is_some() {
            return Err(corrupt(layout::checkpoint(), "is gone".to_owned()));
        }
        let found = edge(&self.shared.reader(self.locked.head())).await?;
        assert_eq!(found.tree, self.edge.tree, "two edges with one root");
        Ok(())
    }

    /// Applies, reads back, cosigns and publishes the locked checkpoint.
    async fn publish(&mut self) -> Result<Step, Error> {
        let Some(pending) = &mut self.pending else { return Ok(Step::Idle) };
        let parts = &self.shared.parts;
        if pending.done < Done::Applied {
            apply(&*parts.objects, &self.locked, pending.objects.clone()).await?;
            pending.done = Done::Applied;
        }
        let reader = self.shared.reader(self.locked.head());
        let read_back = async {
            if pending.done < Done::ReadBack { Ok::<_, Error>(reader.read_back(pending.old).await?) } else { Ok(()) }
        };
        let (read_back, lines) = tokio::join!(read_back, self.witnesses.cosign(&self.locked.checkpoint, &reader));
        read_back?;
        pending.done = Done::ReadBack;
        let mut cosigned = self.locked.checkpoint.clone();
        cosigned.merge(lines?).map_err(|error| corrupt(layout::checkpoint(), error.to_string()))?;
        // No fail-open: what goes out satisfies the policy, by the same function that others use.
        if let Err(error) = parts.policy.verify_checkpoint(&cosigned) {
            return Err(corrupt(layout::checkpoint(), format!("would have no quorum: {error}")));
        }
        match parts.objects.replace(&layout::checkpoint(), cosigned.to_string().into()).await {
            // Only whoever has the lock publishes, so another has it now.
            Err(storage::Error::Conflict { .. }) => return Err(Error::LockLost),
            outcome => outcome?,
        }
        self.refresh_after(parts.limits.refresh);
        let size = self.locked.head().size;
        self.resolve(cosigned);
        self.collect().await;
        tracing::debug!(log.origin = %self.shared.origin, log.size = size.get(), "checkpoint published");
        Ok(Step::Published(size))
    }

    /// Tells everybody who waits.
    fn resolve(&mut self, checkpoint: SignedCheckpoint) {
        self.shared.published.send_replace(Some(Arc::new(checkpoint.clone())));
        let Some((batch, nodes)) = self.pending.as_mut().and_then(|pending| pending.batch.take()) else { return };
        let first = EntryIndex::new(self.locked.old.get());
        self.shared.pool.published(&batch, first);
        let published = Published { first, checkpoint, nodes };
        batch.progress.send_replace(Progress::Published(Arc::new(published)));
    }

    /// Deletes what the published checkpoint made superfluous. A failure costs space only: the
    /// staged object goes last, and while it is there, opening the log comes here again.
    async fn collect(&mut self) {
        let Some(pending) = self.pending.take() else { return };
        let objects = &*self.shared.parts.objects;
        let size = self.locked.head().size;
        if pending.old == size && !size.is_zero() {
            return;
        }
        let collected = async {
            for full in replaced(tiles_for_growth(pending.old..size)) {
                delete_folder(objects, layout::partials(&full)).await?;
            }
            objects.delete(&self.locked.staged_key()).await
        };
        if let Err(error) = collected.await {
            tracing::warn!(%error, "partial tiles could not be collected");
        }
    }
}

impl Drop for Sequencer {
    /// Without a sequencer nothing comes out of the pool any more.
    fn drop(&mut self) {
        if self.stopped.is_none() {
            self.stop(&Arc::new(Error::Closed));
        }
    }
}

/// Puts a signed batch into the tree, and its checkpoint into the history. It may be repeated.
pub(crate) async fn apply(
    objects: &dyn ObjectStore,
    locked: &Locked,
    mut batch: Vec<(Key, Bytes)>,
) -> Result<(), Error> {
    batch.push((layout::history(locked.head().size), locked.checkpoint.to_string().into()));
    match objects.put_all(batch).await {
        Err(storage::Error::Conflict { key }) => {
            Err(corrupt(key, "has other content than this log is about to write there".to_owned()))
        }
        outcome => Ok(outcome?),
    }
}

async fn delete_folder(objects: &dyn ObjectStore, folder: Folder) -> Result<(), storage::Error> {
    // A tile has at most 255 partial forms, so one page holds them.
    for key in objects.list(&Listing::of(folder)).await? {
        objects.delete(&key).await?;
    }
    Ok(())
}

/// Hashing and encoding take about 2 ns a byte and 3 us an entry: so much is done in under half a
/// millisecond, and handing it to another thread and back would take longer.
const IN_PLACE_ENTRIES_MAX: usize = 64;
const IN_PLACE_BYTES_MAX: usize = 128 << 10;

/// Hashes and encodes a batch, a large one on a blocking thread.
async fn compute(edge: Edge, batch: Batch, old: TreeHead) -> Result<(Batch, Grown, Bytes), Error> {
    let is_small = batch.entries.len() <= IN_PLACE_ENTRIES_MAX
        && batch.entries.iter().map(Bytes::len).sum::<usize>() <= IN_PLACE_BYTES_MAX;
    let work = move || {
        debug_assert_eq!(edge.tree.head(), old, "the edge is that of the locked checkpoint");
        let grown = grow(edge, batch.entries.iter().zip(&batch.leaves));
        let names: BTreeSet<&Key> = grown.objects.iter().map(|(key, _)| key).collect();
        debug_assert_eq!(names.len(), grown.objects.len(), "each object is written once");
        let staged = staged::encode(&grown.objects);
        (batch, grown, staged)
    };
    if is_small {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Closed)
}
