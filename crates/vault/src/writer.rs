//! Behind the intake: groups onto the disk, then segments and manifests into the store.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use attest::{DataClass, RegionId};
use bytes::Bytes;
use seal::{BatchId, Header};
use stdx::{Clock, Digest};
use storage::ObjectStore;
use tokio::sync::{mpsc, oneshot, watch};

use crate::admission::{Admission, Refused};
use crate::intake::{Intake, IntakeError, Limits, News, Waiting};
use crate::manifest::{ManifestError, Manifests};
use crate::segment::Building;
use crate::wal::{Closed, Wal, WalError};

/// Closed files that wait to become segments: when the store is behind, so is the intake.
const CLOSED_MAX: usize = 2;

/// How often retention is looked at, besides after each segment.
const RETENTION_EVERY: Duration = Duration::from_secs(3600);

/// What an intake is made of.
pub struct Parts {
    /// The folder of the write-ahead log, which is there, on this machine.
    pub wal: PathBuf,
    /// Where segments and manifests lie.
    pub objects: Arc<dyn ObjectStore>,
    /// What is taken.
    pub admission: Admission,
    /// How long each class is kept, in seconds.
    pub retention_s: BTreeMap<DataClass, u64>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Bounds.
    pub limits: Limits,
}

/// Why an intake stops. What it has acknowledged is on disk; opening it again goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    /// The write-ahead log.
    #[error("the intake's write-ahead log failed")]
    Wal(#[from] WalError),
    /// The manifests.
    #[error("the vault failed")]
    Manifest(#[from] ManifestError),
    /// An object in the write-ahead log that was never admitted.
    #[error("an object in the write-ahead log is none: {0}")]
    Object(#[from] seal::OpenError),
    /// The runtime is gone.
    #[error("a task was lost")]
    Lost(#[from] tokio::task::JoinError),
}

/// Opens an intake. What an earlier process acknowledged and did not put into the store is put there first,
/// by the same code that does so every minute.
///
/// # Errors
/// [`WriterError`].
pub async fn open(parts: Parts) -> Result<(Intake, Writer), WriterError> {
    let Parts { wal, objects, admission, retention_s, clock, limits } = parts;
    let (wal, left) = tokio::task::spawn_blocking(move || Wal::open(&wal)).await??;
    let held = Arc::new(Held::default());
    let objects_max = admission.objects_max().clone();
    let regions = BTreeMap::new();
    let mut roller = Roller { objects, clock, retention_s, objects_max, regions, held: Arc::clone(&held) };
    for region in admission.regions() {
        roller.region(region).await?;
    }
    for closed in left {
        roller.roll(closed).await?;
    }
    let mut known = Known { names: HashMap::new(), order: VecDeque::new(), limit: limits.names };
    for (id, object) in roller.regions.values().flat_map(|it| it.chain().objects()) {
        known.add(id, object);
    }
    roller.count();
    let (intake, waiting) = Intake::new(admission, &limits);
    Ok((intake, Writer { wal, waiting, known, roller, held, limits }))
}

/// Bytes that are kept.
#[derive(Default)]
struct Held {
    /// In files of the write-ahead log, until they are removed.
    wal: AtomicU64,
    /// In segments.
    segments: AtomicU64,
}

impl Held {
    fn bytes(&self) -> u64 {
        self.wal.load(Ordering::Relaxed).saturating_add(self.segments.load(Ordering::Relaxed))
    }
}

/// Writes what the intake takes. It must run for anything to be acknowledged.
pub struct Writer {
    wal: Wal,
    waiting: mpsc::UnboundedReceiver<Waiting>,
    known: Known,
    roller: Roller,
    held: Arc<Held>,
    limits: Limits,
}

impl Writer {
    /// Runs until `stop`, or until something fails that can't be gone on from.
    ///
    /// # Errors
    /// [`WriterError`]; whoever still waits gets no receipt.
    pub async fn run(self, mut stop: watch::Receiver<bool>) -> Result<(), WriterError> {
        let Self { mut wal, mut waiting, mut known, roller, held, limits } = self;
        let (closed, to_roll) = mpsc::channel(CLOSED_MAX);
        let mut rolling = tokio::spawn(roller.run(to_roll));
        let mut age = tokio::time::interval(limits.segment_age);
        age.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        age.reset();
        let outcome = loop {
            let first = tokio::select! {
                first = waiting.recv() => first,
                _ = age.tick() => {
                    if wal.bytes() == 0 {
                        continue;
                    }
                    match turn(wal, &closed).await {
                        Ok(same) => wal = same,
                        Err(error) => break Err(error),
                    }
                    continue;
                }
                ended = &mut rolling => return ended?,
                () = stopped(&mut stop) => break Ok(()),
            };
            // Without an intake nothing comes any more.
            let Some(first) = first else { break Ok(()) };
            let room = limits.bytes_max.saturating_sub(held.bytes());
            let Group { objects, answers } = gather(first, &mut waiting, &mut known, &limits, room);
            match written(wal, objects).await {
                Ok((same, bytes)) => {
                    wal = same;
                    held.wal.fetch_add(bytes, Ordering::Relaxed);
                }
                // Whoever waits is told nothing: whether the disk has it nobody knows.
                Err(error) => break Err(error),
            }
            for (answer, news) in answers {
                // Who does not wait any more comes again.
                let _ = answer.send(Ok(news));
            }
            if wal.bytes() >= limits.segment_bytes {
                age.reset();
                match turn(wal, &closed).await {
                    Ok(same) => wal = same,
                    Err(error) => break Err(error),
                }
            }
        };
        drop(closed);
        let rolled = rolling.await?;
        outcome.and(rolled)
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Without a sender nobody could stop this any more, so that counts as stopping.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// What is written together, without what is there already, and everybody who is answered after it.
#[derive(Default)]
struct Group {
    objects: Vec<Bytes>,
    answers: Vec<(oneshot::Sender<Result<News, IntakeError>>, News)>,
}

/// Of what is new no more than there is `room` for.
fn gather(
    first: Waiting,
    waiting: &mut mpsc::UnboundedReceiver<Waiting>,
    known: &mut Known,
    limits: &Limits,
    room: u64,
) -> Group {
    let (mut group, mut bytes, mut next) = (Group::default(), 0, Some(first));
    while let Some(it) = next {
        match known.names.get(&it.id) {
            None if room.saturating_sub(bytes) < it.object.len() as u64 => {
                let _ = it.answer.send(Err(IntakeError::Full));
            }
            None => {
                known.add(it.id, it.digest);
                bytes += it.object.len() as u64;
                group.objects.push(it.object);
                group.answers.push((it.answer, News::New));
            }
            // What it waits for is on disk already, or in this very group.
            Some(same) if *same == it.digest => group.answers.push((it.answer, News::Again)),
            Some(_) => {
                let _ = it.answer.send(Err(Refused::Name(it.id).into()));
            }
        }
        next = if bytes < limits.group_bytes as u64 { waiting.try_recv().ok() } else { None };
    }
    group
}

/// Writes and syncs, and gives the bytes.
async fn written(mut wal: Wal, objects: Vec<Bytes>) -> Result<(Wal, u64), WriterError> {
    if objects.is_empty() {
        return Ok((wal, 0));
    }
    let written = tokio::task::spawn_blocking(move || {
        let before = wal.bytes();
        wal.append(&objects)?;
        let bytes = wal.bytes() - before;
        Ok((wal, bytes))
    });
    written.await?
}

async fn turn(mut wal: Wal, closed: &mpsc::Sender<Closed>) -> Result<Wal, WriterError> {
    let turned = tokio::task::spawn_blocking(move || {
        let file = wal.turn()?;
        Ok::<_, WriterError>((wal, file))
    });
    let (wal, file) = turned.await??;
    // If nobody rolls any more, that task's own error is the one to report; the file stays.
    let _ = closed.send(file).await;
    Ok(wal)
}

/// Names of objects that are there; the oldest are forgotten.
struct Known {
    names: HashMap<BatchId, Digest>,
    order: VecDeque<BatchId>,
    limit: usize,
}

impl Known {
    fn add(&mut self, id: BatchId, object: Digest) {
        if self.names.insert(id, object).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > self.limit {
            self.order.pop_front().map(|oldest| self.names.remove(&oldest));
        }
    }
}

/// Makes segments of closed files.
struct Roller {
    objects: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
    retention_s: BTreeMap<DataClass, u64>,
    objects_max: BTreeMap<DataClass, usize>,
    regions: BTreeMap<RegionId, Manifests>,
    held: Arc<Held>,
}

impl Roller {
    fn count(&self) {
        let bytes = self.regions.values().map(|manifests| manifests.chain().bytes()).sum();
        self.held.segments.store(bytes, Ordering::Relaxed);
    }

    async fn run(mut self, mut closed: mpsc::Receiver<Closed>) -> Result<(), WriterError> {
        let mut hourly = tokio::time::interval(RETENTION_EVERY);
        loop {
            tokio::select! {
                file = closed.recv() => match file {
                    Some(file) => self.roll(file).await?,
                    None => return Ok(()),
                },
                _ = hourly.tick() => self.retain().await?,
            }
        }
    }

    async fn retain(&mut self) -> Result<(), WriterError> {
        let now = self.clock.now();
        for (region, manifests) in &mut self.regions {
            let count = manifests.retain(now, &self.retention_s).await?;
            if count > 0 {
                tracing::info!(data.region = %region, data.segments = count, "segments are gone: their time was over");
            }
            // What an erasure has not come to, and what was sent again after it.
            let count = manifests.leave_out().await?;
            if count > 0 {
                tracing::info!(data.region = %region, data.objects = count, "objects are gone: they were erased");
            }
        }
        self.count();
        Ok(())
    }

    async fn region(&mut self, region: &RegionId) -> Result<&mut Manifests, WriterError> {
        if !self.regions.contains_key(region) {
            let mut manifests = Manifests::open(Arc::clone(&self.objects), region.clone()).await?;
            // What was written anew and did not come to its end is written anew again.
            manifests.withdraw().await?;
            self.regions.insert(region.clone(), manifests);
        }
        Ok(self.regions.get_mut(region).expect("it was put there"))
    }

    /// Repeating this changes nothing: segments are called by their content, and named once.
    async fn roll(&mut self, file: Closed) -> Result<(), WriterError> {
        let (read, bytes_closed) = (file.clone(), file.bytes());
        let until = self.clock.now();
        let objects_max = self.objects_max.clone();
        let sort = move || Ok::<_, WriterError>(sorted(&read.objects()?, &objects_max)?);
        for ((region, class), built) in tokio::task::spawn_blocking(sort).await?? {
            for building in built {
                let (segment, bytes) = building.finish(class.clone(), until);
                self.region(&region).await?.add(segment, bytes).await?;
            }
        }
        tokio::task::spawn_blocking(move || file.remove()).await??;
        self.held.wal.fetch_sub(bytes_closed, Ordering::Relaxed);
        self.count();
        Ok(())
    }
}

type Sorted = BTreeMap<(RegionId, DataClass), Vec<Building>>;

/// Objects by region and class, each name once, in segments of no more objects than one grant opens: what is to be
/// written anew is whole segments.
fn sorted(objects: &[Bytes], objects_max: &BTreeMap<DataClass, usize>) -> Result<Sorted, seal::OpenError> {
    let (mut sorted, mut seen): (Sorted, _) = (BTreeMap::new(), BTreeSet::new());
    for object in objects {
        let (header, start) = Header::parse(object)?;
        if !seen.insert(header.bound.id) {
            continue;
        }
        let max = objects_max.get(&header.bound.class).copied().unwrap_or(usize::MAX);
        let built = sorted.entry((header.bound.region.clone(), header.bound.class.clone())).or_default();
        if built.last().is_none_or(|building| building.len() >= max) {
            built.push(Building::new());
        }
        if let Some(building) = built.last_mut() {
            building.add(&header, start, object);
        }
    }
    Ok(sorted)
}
