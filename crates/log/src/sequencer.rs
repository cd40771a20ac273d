//! One batch after the other: stage, compare, sign and swap, apply and read back while the
//! witnesses cosign, publish. Only staging may overlap: what is staged is not signed, so a full
//! batch is put on disk while all the rest is done for the one before it.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _, MaybeDone, maybe_done};
use storage::{Folder, Listing, ObjectStore, Swap};
use tlog::{EntryIndex, SignedCheckpoint, TILE_WIDTH, TreeHead, TreeSize, tiles_for_growth};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::engine::{Shared, sign, source};
use crate::growth::{Edge, Grown, Objects, grow, replaced};
use crate::locked::Locked;
use crate::nodes::Nodes;
use crate::open::{corrupt, edge, published, same_history};
use crate::pool::{Batch, Progress, Published};
use crate::source::InBatch;
use crate::staged::{apply, encode, encoded_bytes};
use crate::witnesses::Witnesses;
use crate::{Class, Error, Reader, layout};

/// The first wait after a failure; each further one is twice as long, up to the log's limit.
const FIRST_WAIT: Duration = Duration::from_millis(20);

/// Between two rounds for fresh cosignatures lies at least this, whatever came of the first: at
/// most 360 rounds an hour while the witnesses are away, and fresh ones 10 s after they are back.
const REFRESH_PAUSE: Duration = Duration::from_secs(10);

/// So many history objects go with one batch: those of a tile, and four times as many of what a
/// version that kept them all has left.
const HISTORY_AT_ONCE: usize = 1280;

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
    prepared: Option<Prepared>,
    /// The full batch after that, on its way to disk.
    ahead: Option<Ahead>,
    /// Sizes that the history has an object of, ascending.
    history: Vec<TreeSize>,
    /// The size behind which nothing superfluous is left. A crash may have left something of the
    /// last batch.
    collected: TreeSize,
    /// When the next round for fresh cosignatures is due, in this process's monotonic time. What
    /// cosignatures or a wall clock say doesn't move it, so neither can make the log spin.
    refresh_at: Duration,
    stopped: Option<Arc<Error>>,
}

/// A signed checkpoint on its way to everybody.
pub(crate) struct Pending {
    old: TreeHead,
    objects: Objects,
    done: Done,
    batch: Option<(Batch, Nodes)>,
}

/// The next batch, as it will stand in the log if it is signed.
struct Prepared {
    batch: Batch,
    old: TreeSize,
    grown: Grown,
    staged: Staged,
}

type Staging = BoxFuture<'static, Result<Prepared, Error>>;

/// A batch that is staged while the one before it is signed and published. It goes on only while
/// the sequencer does something, and ends with it.
struct Ahead {
    progress: watch::Sender<Progress>,
    staging: Pin<Box<MaybeDone<Staging>>>,
}

impl Ahead {
    /// Does `work`, and lets the batch ahead go on meanwhile.
    async fn beside<T>(ahead: &mut Option<Self>, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            if let Some(ahead) = ahead {
                let _ = ahead.staging.as_mut().poll(context);
            }
            work.as_mut().poll(context)
        })
        .await
    }

    async fn staged(mut self) -> Result<Prepared, Error> {
        self.staging.as_mut().await;
        self.staging.as_mut().take_output().expect("it is done, and taken once")
    }
}

/// Where a batch's entries are, before it is signed.
enum Staged {
    /// In the lock's next value.
    WithLock(Bytes),
    /// Only in memory: they must be put on disk as bundles.
    Not,
    /// There.
    AsBundles,
}

/// The log as it was found when it was opened.
pub(crate) struct Opened {
    pub(crate) edge: Edge,
    pub(crate) locked: Locked,
    pub(crate) pending: Option<Pending>,
    pub(crate) history: Vec<TreeSize>,
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
        Self { old: locked.old, objects: Objects::default(), done: Done::Applied, batch: None }
    }

    /// The locked checkpoint once more, for fresh cosignatures.
    fn refresh(locked: &Locked) -> Self {
        Self { old: locked.head(), objects: Objects::default(), done: Done::ReadBack, batch: None }
    }
}

impl Sequencer {
    pub(crate) fn new(shared: Arc<Shared>, witnesses: Witnesses, opened: Opened) -> Self {
        let Opened { edge, locked, pending, history } = opened;
        // How long ago the last round was, only the wall clock could tell: so there is one now.
        let refresh_at = Duration::ZERO;
        let collected = locked.old.size;
        Self {
            shared,
            observer: None,
            witnesses,
            edge,
            locked,
            pending,
            prepared: None,
            ahead: None,
            history,
            collected,
            refresh_at,
            stopped: None,
        }
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
            let idle = self.pending.is_none() && self.prepared.is_none();
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
                let error = unless_lost(&self.shared, &self.locked, error).await;
                tracing::error!(log.origin = %self.shared.origin, %error, "the log stops");
                let reason = Arc::new(error);
                self.stop(&reason);
                Err(Error::Stopped(reason))
            }
            outcome => outcome,
        }
    }

    fn stop(&mut self, reason: &Arc<Error>) {
        self.stopped = Some(Arc::clone(reason));
        self.shared.pool.stop(reason);
        let pending = self.pending.take().and_then(|pending| pending.batch).map(|(batch, _)| batch);
        let prepared = self.prepared.take().map(|prepared| prepared.batch);
        let batches = prepared.into_iter().chain(pending).map(|batch| batch.progress);
        for progress in batches.chain(self.ahead.take().map(|ahead| ahead.progress)) {
            progress.send_replace(Progress::Stopped(Arc::clone(reason)));
        }
    }

    async fn advance(&mut self) -> Result<Step, Error> {
        if self.pending.is_none() && self.prepared.is_none() {
            let taken = match self.ahead.take() {
                Some(ahead) => Some(ahead.staged().await?),
                None => match self.shared.pool.take() {
                    Some(batch) => Some(compute(&self.shared, self.edge.clone(), batch).await?),
                    None => None,
                },
            };
            match taken {
                Some(prepared) => self.prepared = Some(prepared),
                None if self.until_refresh().is_zero() => return self.refresh().await,
                None => return Ok(Step::Idle),
            }
        }
        let mut ahead = self.ahead.take().or_else(|| self.look_ahead());
        let outcome = Ahead::beside(&mut ahead, self.sign_and_publish()).await;
        self.ahead = ahead;
        outcome
    }

    async fn sign_and_publish(&mut self) -> Result<Step, Error> {
        if self.pending.is_none() {
            self.sign().await?;
        }
        self.publish().await
    }

    /// Begins to stage the batch after the next one, if it is full: one that isn't may still grow.
    fn look_ahead(&self) -> Option<Ahead> {
        let batch = self.shared.pool.take_full()?;
        let edge = self.prepared.as_ref().map_or(&self.edge, |prepared| &prepared.grown.edge).clone();
        let (shared, progress) = (Arc::clone(&self.shared), batch.progress.clone());
        let staging = async move {
            let mut prepared = compute(&shared, edge, batch).await?;
            if let Err(error) = stage(&*shared.parts.objects, &mut prepared).await {
                tracing::warn!(%error, "the next batch could not be staged ahead; it is staged when it is due");
            }
            Ok(prepared)
        };
        Some(Ahead { progress, staging: Box::pin(maybe_done(staging.boxed())) })
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
    async fn sign(&mut self) -> Result<(), Error> {
        let Some(mut prepared) = self.prepared.take() else { return Ok(()) };
        let objects = &*self.shared.parts.objects;
        let signed = self.shared.reader(self.locked.head());
        let (staged, compared, own) = tokio::join!(
            stage(objects, &mut prepared),
            self.witnesses.compare(&signed),
            check_own(&self.shared, &self.locked, &self.edge)
        );
        // What forbids signing for ever comes before what forbids it now.
        let outcomes = [own, compared, staged];
        let error = outcomes.into_iter().filter_map(Result::err).min_by_key(|e| e.class() == Class::Unavailable);
        if let Some(error) = error {
            self.prepared = Some(prepared);
            return Err(error);
        }
        self.swap(prepared).await
    }

    /// From here on, whatever fails, the batch is signed or it is not: the lock says which.
    async fn swap(&mut self, prepared: Prepared) -> Result<(), Error> {
        let (old, head) = (self.locked.head(), prepared.grown.head);
        // A tree only grows, by what was put in.
        assert_eq!(head.size.get(), old.size.get() + prepared.batch.entries.len() as u64, "entries were lost");
        assert_eq!((old.size, old.size), (self.edge.tree.size(), prepared.old), "the batch doesn't start at the edge");
        assert!(!matches!(prepared.staged, Staged::Not), "nothing is signed before it is staged");
        let batch = match &prepared.staged {
            Staged::WithLock(entries) => entries.clone(),
            Staged::Not | Staged::AsBundles => Bytes::new(),
        };
        let checkpoint = sign(&self.shared.parts, &self.shared.origin, head);
        let next = Locked { old, batch, checkpoint, version: None };
        let key = layout::lock(&self.shared.origin);
        let swap = self.shared.parts.locks.compare_and_swap(&key, self.locked.version.as_ref(), next.to_bytes()).await;
        let outcome = match swap {
            Ok(Swap::Won(version)) => Ok(version),
            Ok(Swap::Lost) => Err(Error::LockLost),
            // Without room nothing was swapped, and it goes on as soon as there is some. If the store
            // is wrong about that, the next swap from the same version is lost.
            Err(source) if source.is_full() => Err(source.into()),
            Err(source) => Err(Error::Unknown { doing: "signing a checkpoint", source }),
        };
        let version = match outcome {
            Ok(version) => version,
            Err(error) => {
                self.prepared = Some(prepared);
                return Err(error);
            }
        };
        let Prepared { batch, grown, .. } = prepared;
        self.locked = Locked { version: Some(version), ..next };
        self.edge = grown.edge;
        self.history.push(head.size);
        batch.progress.send_replace(Progress::Sequenced(EntryIndex::new(old.size.get())));
        let batch = Some((batch, grown.nodes));
        self.pending = Some(Pending { old, objects: grown.objects, done: Done::Signed, batch });
        Ok(())
    }

    /// Applies and reads back while the witnesses cosign, and publishes the locked checkpoint.
    async fn publish(&mut self) -> Result<Step, Error> {
        let Some(pending) = &self.pending else { return Ok(Step::Idle) };
        // The witnesses' proofs come from the batch itself, which may not be in its place yet.
        let batch = InBatch::new(&pending.objects.tiles, source(&self.shared.parts));
        let proofs = Reader::new(Arc::new(batch), self.locked.head());
        let write = write(&self.shared, &self.locked, pending);
        let cosign = self.witnesses.cosign(&self.locked.checkpoint, &proofs);
        let ((done, written), lines) = tokio::join!(write, cosign);
        if let Some(pending) = &mut self.pending {
            pending.done = done;
        }
        written?;
        let parts = &self.shared.parts;
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
        let first = EntryIndex::new(self.locked.old.size.get());
        self.shared.pool.published(&batch, first);
        let published = Published { first, checkpoint, nodes };
        batch.progress.send_replace(Progress::Published(Arc::new(published)));
    }

    /// Deletes what the published checkpoint made superfluous. A failure costs space only, and the
    /// next time comes back to it.
    async fn collect(&mut self) {
        self.pending = None;
        let objects = &*self.shared.parts.objects;
        let (old, size) = (self.collected, self.locked.head().size);
        if old == size {
            return;
        }
        // What lies before the tile at the edge, and is not this checkpoint's.
        let edge = TreeSize::new(size.get() / u64::from(TILE_WIDTH) * u64::from(TILE_WIDTH));
        let superseded = self.history.iter().take(HISTORY_AT_ONCE).take_while(|found| **found < edge).count();
        let superseded: Vec<_> = self.history.drain(..superseded).map(layout::history).collect();
        let collected = async {
            // Partial forms of a tile are there only if a tree before this one ended in it.
            let grown = tiles_for_growth(old..size);
            let before = self.locked.old.size.get();
            let partial_before = grown.filter(|tile| tile.entries().start.get() < before);
            for full in replaced(partial_before) {
                delete_folder(objects, layout::partials(&full)).await?;
            }
            for history in superseded {
                objects.delete(&history).await?;
            }
            Ok::<_, storage::Error>(())
        };
        match collected.await {
            Ok(()) => self.collected = size,
            Err(error) => tracing::warn!(%error, "partial tiles could not be collected"),
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

/// Once another process has taken the lock over, what this one finds in store or at the witnesses
/// is no sign of damage: the log has gone on without it.
async fn unless_lost(shared: &Shared, locked: &Locked, error: Error) -> Error {
    match shared.parts.locks.get(&layout::lock(&shared.origin)).await {
        // A swap of its own that may have happened changes the version too.
        Ok(Some(found))
            if locked.version.as_ref() != Some(&found.version) && !matches!(error, Error::Unknown { .. }) =>
        {
            Error::LockLost
        }
        _ => error,
    }
}

/// What is stored must still be what this process thinks that it wrote.
async fn check_own(shared: &Shared, locked: &Locked, expected: &Edge) -> Result<(), Error> {
    let (objects, key) = (&*shared.parts.objects, shared.parts.signer.verifier());
    same_history(objects, locked, key).await?;
    let found = published(objects, locked, key).await?;
    if found.is_none() && shared.published.borrow().is_some() {
        return Err(corrupt(layout::checkpoint(), "is gone".to_owned()));
    }
    let found = edge(&shared.reader(locked.head())).await?;
    assert_eq!(found.tree, expected.tree, "two edges with one root");
    Ok(())
}

/// Hashes and encodes a batch behind this edge, a large one on a blocking thread.
async fn compute(shared: &Shared, edge: Edge, batch: Batch) -> Result<Prepared, Error> {
    let bytes = encoded_bytes(&batch.entries);
    let goes_with_lock = bytes <= shared.parts.limits.locked_bytes;
    let is_small = batch.entries.len() <= IN_PLACE_ENTRIES_MAX && bytes <= IN_PLACE_BYTES_MAX;
    let work = move || {
        let old = edge.tree.size();
        let grown = grow(edge, batch.entries.iter().zip(&batch.leaves));
        let staged = if goes_with_lock { Staged::WithLock(encode(&batch.entries)) } else { Staged::Not };
        Prepared { batch, old, grown, staged }
    };
    if is_small {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Closed)
}

/// Puts the entries of a large batch on disk, as the bundles that they will be, unless they are there.
async fn stage(objects: &dyn ObjectStore, prepared: &mut Prepared) -> Result<(), Error> {
    if !matches!(prepared.staged, Staged::Not) {
        return Ok(());
    }
    let folder = layout::staged(prepared.old, &prepared.grown.head);
    let bundles = prepared.grown.objects.bundles.iter();
    objects.put_all(bundles.map(|(id, bytes)| (layout::staged_bundle(&folder, *id), bytes.clone())).collect()).await?;
    prepared.staged = Staged::AsBundles;
    Ok(())
}

/// Puts the pending batch in place and reads it back; how far that came.
async fn write(shared: &Shared, locked: &Locked, pending: &Pending) -> (Done, Result<(), Error>) {
    let mut done = pending.done;
    let outcome = async {
        if done < Done::Applied {
            apply(&*shared.parts.objects, locked, pending.objects.clone()).await?;
            shared.signed.send_replace(locked.head());
            done = Done::Applied;
        }
        if done < Done::ReadBack {
            shared.reader(locked.head()).read_back(pending.old).await?;
            done = Done::ReadBack;
        }
        Ok(())
    };
    let outcome = outcome.await;
    (done, outcome)
}
