//! The port for records that can be rebuilt, and for sharing out work.

use async_trait::async_trait;
use bytes::Bytes;
use stdx::UnixTime;

use crate::{Error, Key, Listing, Name};

/// Which record of which table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecordKey {
    /// The table.
    pub table: Name,
    /// The record's key, unique in its table.
    pub key: Key,
}

/// A record as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its key.
    pub key: Key,
    /// Its content.
    pub bytes: Bytes,
}

/// Which job of which queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JobKey {
    /// The queue.
    pub queue: Name,
    /// The job's id, unique among the unfinished jobs of its queue.
    pub id: Key,
}

/// What [`Catalog::enqueue`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enqueued {
    /// The job is new.
    New,
    /// An unfinished job of this id is there already and was left alone.
    Existed,
}

/// Who wants a job, and for how long, by the caller's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// The one who holds it.
    pub holder: Name,
    /// The time now: leases that end by now are free.
    pub now: UnixTime,
    /// When the lease ends.
    pub until: UnixTime,
}

/// The right to work on a job. It names one claim, so that a holder who was too slow can't
/// finish what another has taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The job.
    pub job: JobKey,
    /// The store's number for this run of the job.
    pub run: i64,
    /// The store's number for this claim of the run.
    pub claim: i64,
}

/// A job that was claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The right to work on it.
    pub lease: Lease,
    /// What to do.
    pub bytes: Bytes,
}

/// Records by table and key, and queues of jobs with leases.
///
/// Nothing here is evidence: a catalog that is lost is rebuilt from logs and objects.
/// - *Durability*: a write that returned is on disk.
/// - *Order*: linearizable for each record and each queue; jobs are claimed oldest first.
/// - *Concurrency*: any number of calls at once; a job has one holder at a time.
/// - *Retry*: `put`, `remove`, `enqueue` may be repeated. After an error of `claim`, the claim
///   may stand until its term ends; after one of `finish`, a repeated one may report
///   [`Error::LeaseLost`] although the job is done.
#[async_trait]
pub trait Catalog: Send + Sync {
    /// Writes or overwrites a record.
    async fn put(&self, key: &RecordKey, bytes: Bytes) -> Result<(), Error>;

    /// A record's content, if there is one.
    async fn record(&self, key: &RecordKey) -> Result<Option<Bytes>, Error>;

    /// Removes a record; a missing one is no error.
    async fn remove(&self, key: &RecordKey) -> Result<(), Error>;

    /// Records of a table in byte order of their keys.
    async fn list(&self, table: &Name, listing: &Listing) -> Result<Vec<Record>, Error>;

    /// Adds a job at the end of its queue.
    async fn enqueue(&self, job: &JobKey, bytes: Bytes) -> Result<Enqueued, Error>;

    /// Takes the oldest job that nobody holds.
    async fn claim(&self, queue: &Name, term: &Term) -> Result<Option<Job>, Error>;

    /// Extends a lease to `term.until`.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] when another holder has taken the job since.
    async fn renew(&self, lease: &Lease, term: &Term) -> Result<(), Error>;

    /// Ends a job: it leaves the queue.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] when another holder has taken the job since, or finished it.
    async fn finish(&self, lease: &Lease) -> Result<(), Error>;

    /// How many jobs of a queue are not finished, held or not.
    async fn unfinished(&self, queue: &Name) -> Result<u64, Error>;
}
