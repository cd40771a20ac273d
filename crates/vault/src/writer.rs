//! Behind the intake: groups onto the disk, then segments and manifests into the store.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use attest::{DataClass, RegionId};
use bytes::Bytes;
use seal::{BatchId, Header};
use stdx::{Clock, Digest};
use storage::ObjectStore;
use tokio::sync::{mpsc, watch};

use crate::admission::{Admission, Refused};
use crate::intake::{Intake, IntakeError, Limits, Waiting};
use crate::manifest::{Kept, ManifestError, Manifests, Segment};
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
    let mut roller = Roller { objects, clock, retention_s, regions: BTreeMap::new() };
    for region in admission.regions() {
        roller.region(region).await?;
    }
    for closed in left {
        roller.roll(closed).await?;
    }
    let mut known = Known { names: HashMap::new(), order: VecDeque::new(), limit: limits.names };
    for (id, object) in roller.regions.values().flat_map(Manifests::segments).flat_map(|it| &it.objects).map(pair) {
        known.add(id, object);
    }
    let (intake, waiting) = Intake::new(admission, &limits);
    Ok((intake, Writer { wal, waiting, known, roller, limits }))
}

fn pair(kept: &Kept) -> (BatchId, Digest) {
    (kept.id, kept.object)
}

/// Writes what the intake takes. It must run for anything to be acknowledged.
pub struct Writer {
    wal: Wal,
    waiting: mpsc::UnboundedReceiver<Waiting>,
    known: Known,
    roller: Roller,
    limits: Limits,
}

impl Writer {
    /// Runs until `stop`, or until something fails that can't be gone on from.
    ///
    /// # Errors
    /// [`WriterError`]; whoever still waits gets no receipt.
    pub async fn run(self, mut stop: watch::Receiver<bool>) -> Result<(), WriterError> {
        let Self { mut wal, mut waiting, mut known, roller, limits } = self;
        let (closed, to_roll) = mpsc::channel(CLOSED_MAX);
        let mut rolling = tokio::spawn(roller.run(to_roll));
        let mut age = tokio::time::interval(limits.segment_age);
        age.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        age.reset();
        let outcome = loop {
            let first = tokio::select! {
                first = waiting.recv() => first,
                _ = age.tick() => {
                    if wal.bytes() > 0 && let Err(error) = turn(&mut wal, &closed).await {
                        break Err(error);
                    }
                    continue;
                }
                ended = &mut rolling => return ended?,
                () = stopped(&mut stop) => break Ok(()),
            };
            // Without an intake nothing comes any more.
            let Some(first) = first else { break Ok(()) };
            let (group, answers) = gather(first, &mut waiting, &mut known, limits.group_bytes);
            let written = tokio::task::spawn_blocking(move || {
                let outcome = if group.is_empty() { Ok(()) } else { wal.append(&group) };
                (wal, outcome)
            });
            let (same, outcome) = written.await?;
            wal = same;
            if let Err(error) = outcome {
                // Whoever waits is told nothing: whether the disk has it nobody knows.
                break Err(error.into());
            }
            for answer in answers {
                // Who does not wait any more comes again.
                let _ = answer.send(Ok(()));
            }
            if wal.bytes() >= limits.segment_bytes {
                age.reset();
                if let Err(error) = turn(&mut wal, &closed).await {
                    break Err(error);
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
fn gather(
    first: Waiting,
    waiting: &mut mpsc::UnboundedReceiver<Waiting>,
    known: &mut Known,
    group_bytes: usize,
) -> (Vec<Bytes>, Vec<tokio::sync::oneshot::Sender<Result<(), IntakeError>>>) {
    let (mut group, mut answers, mut bytes, mut next) = (Vec::new(), Vec::new(), 0, Some(first));
    while let Some(it) = next {
        match known.names.get(&it.id) {
            None => {
                known.add(it.id, it.digest);
                bytes += it.object.len();
                group.push(it.object);
                answers.push(it.answer);
            }
            // What it waits for is on disk already, or in this very group.
            Some(same) if *same == it.digest => answers.push(it.answer),
            Some(_) => {
                let _ = it.answer.send(Err(Refused::Name(it.id).into()));
            }
        }
        next = if bytes < group_bytes { waiting.try_recv().ok() } else { None };
    }
    (group, answers)
}

async fn turn(wal: &mut Wal, closed: &mpsc::Sender<Closed>) -> Result<(), WriterError> {
    let file = wal.turn()?;
    // If nobody rolls any more, that task's own error is the one to report; the file stays.
    let _ = closed.send(file).await;
    Ok(())
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
    regions: BTreeMap<RegionId, Manifests>,
}

impl Roller {
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
        }
        Ok(())
    }

    async fn region(&mut self, region: &RegionId) -> Result<&mut Manifests, WriterError> {
        if !self.regions.contains_key(region) {
            let manifests = Manifests::open(Arc::clone(&self.objects), region.clone()).await?;
            self.regions.insert(region.clone(), manifests);
        }
        Ok(self.regions.get_mut(region).expect("it was put there"))
    }

    /// Repeating this changes nothing: segments are called by their content, and named once.
    async fn roll(&mut self, file: Closed) -> Result<(), WriterError> {
        let read = file.clone();
        let until = self.clock.now();
        let segments = tokio::task::spawn_blocking(move || Ok::<_, WriterError>(sorted(&read.objects()?)?)).await??;
        for ((region, class), (building, objects)) in segments {
            let bytes = building.finish();
            let segment = Segment { segment: Digest::of(&bytes), class, bytes: bytes.len() as u64, until, objects };
            self.region(&region).await?.add(segment, bytes).await?;
        }
        tokio::task::spawn_blocking(move || file.remove()).await??;
        Ok(())
    }
}

type Sorted = BTreeMap<(RegionId, DataClass), (Building, Vec<Kept>)>;

/// Objects by region and class, each name once.
fn sorted(objects: &[Bytes]) -> Result<Sorted, seal::OpenError> {
    let (mut sorted, mut seen): (Sorted, _) = (BTreeMap::new(), BTreeSet::new());
    for object in objects {
        let (header, start) = Header::parse(object)?;
        let bound = header.bound;
        if !seen.insert(bound.id) {
            continue;
        }
        let (building, kept) =
            sorted.entry((bound.region, bound.class)).or_insert_with(|| (Building::new(), Vec::new()));
        kept.push(Kept {
            id: bound.id,
            country: bound.country,
            at: building.add(object),
            bytes: object.len() as u64,
            object: Digest::of(object),
            header: Digest::of(object.get(4..start).unwrap_or_default()),
        });
    }
    Ok(sorted)
}
