//! The intake's front: whoever sends gets an answer when the object is durable, or none.

use std::sync::Arc;
use std::time::Duration;

use attest::RegionId;
use bytes::Bytes;
use seal::BatchId;
use stdx::Digest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::admission::{Admission, Refused};

/// Room is counted in these.
const ROOM_BYTES: usize = 1024;

/// How much waits, and how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of objects that wait for the disk; who comes then is told to come back.
    pub waiting_bytes: usize,
    /// Bytes that are kept at most, in the write-ahead log and in segments; what is more stays with who sends
    /// it. What is being written comes on top.
    pub bytes_max: u64,
    /// Bytes that are written and synced at once.
    pub group_bytes: usize,
    /// Bytes of a segment, about.
    pub segment_bytes: u64,
    /// After such a time what there is becomes a segment.
    pub segment_age: Duration,
    /// Names that are remembered to know an object that comes again; what is older is found when it is
    /// committed.
    pub names: usize,
}

impl Default for Limits {
    /// 64 MiB are a second of a disk's; eight of them in a group keep an answer within a tenth of one. A week
    /// of batches, 600,000 a day of 48 bytes each, takes 200 MB.
    fn default() -> Self {
        Self {
            waiting_bytes: 64 << 20,
            bytes_max: u64::MAX,
            group_bytes: 8 << 20,
            segment_bytes: 64 << 20,
            segment_age: Duration::from_secs(60),
            names: 4 << 20,
        }
    }
}

/// Whether an object was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It was not.
    New,
    /// It was sent before.
    Again,
}

/// "I have it, and so has the disk."
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Where it is kept.
    pub region: RegionId,
    /// Whether it was there before.
    pub news: News,
    /// SHA-256 of the object.
    pub object: Digest,
    /// Its bytes.
    pub bytes: u64,
}

/// Why there is no receipt.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// It is never taken as it is.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Too much waits: it was not taken, and may come again.
    #[error("more waits than is taken in")]
    Busy,
    /// As much is kept as may be: it was not taken, and may come again.
    #[error("as much is kept as may be")]
    Full,
    /// The disk failed, or the process stops. Whether it was taken is not known; it may come again.
    #[error("the intake has stopped")]
    Stopped,
}

/// Takes in sealed objects. Clones take into the same.
#[derive(Clone)]
pub struct Intake {
    admission: Arc<Admission>,
    room: Arc<Semaphore>,
    queue: mpsc::UnboundedSender<Waiting>,
}

/// An object that waits for the disk.
pub(crate) struct Waiting {
    pub(crate) object: Bytes,
    pub(crate) id: BatchId,
    pub(crate) digest: Digest,
    pub(crate) answer: oneshot::Sender<Result<News, IntakeError>>,
    /// Given back when it waits no more.
    _room: OwnedSemaphorePermit,
}

impl Intake {
    pub(crate) fn new(admission: Admission, limits: &Limits) -> (Self, mpsc::UnboundedReceiver<Waiting>) {
        let (queue, waiting) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new((limits.waiting_bytes / ROOM_BYTES).min(Semaphore::MAX_PERMITS)));
        (Self { admission: Arc::new(admission), room, queue }, waiting)
    }

    /// Takes an object in. The same bytes again get the same answer, and are kept once.
    ///
    /// # Errors
    /// [`IntakeError`].
    pub async fn take(&self, object: Bytes) -> Result<Taken, IntakeError> {
        let (id, region) = self.admission.admit(&object)?;
        let permits = u32::try_from(object.len().div_ceil(ROOM_BYTES)).map_err(|_| IntakeError::Busy)?;
        let room = Arc::clone(&self.room).try_acquire_many_owned(permits).map_err(|_| IntakeError::Busy)?;
        let (digest, bytes) = (Digest::of(&object), object.len() as u64);
        let (answer, answered) = oneshot::channel();
        // From here on it is the writer's: whoever does not wait for the answer leaves nothing behind.
        let waiting = Waiting { object, id, digest, answer, _room: room };
        self.queue.send(waiting).map_err(|_| IntakeError::Stopped)?;
        let news = answered.await.map_err(|_| IntakeError::Stopped)??;
        Ok(Taken { region, news, object: digest, bytes })
    }
}
