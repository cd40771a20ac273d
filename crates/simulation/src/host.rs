//! What a machine's disk holds behind the storage ports, and how it fails.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use storage::{
    Catalog, Enqueued, Error, Job, JobKey, Key, Lease, Listing, LockStore, Name, ObjectStore, Put, Record, RecordKey,
    Swap, Term, Version, Versioned,
};
use tokio::sync::mpsc::UnboundedSender;

use crate::ledger::Ledger;
use crate::network::Node;

/// Everything that a machine has stored.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    pub(crate) objects: BTreeMap<String, Bytes>,
    locks: BTreeMap<String, (u64, Bytes)>,
    records: BTreeMap<(String, String), Bytes>,
    swaps: u64,
}

/// What becomes of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails, and nothing happened.
    NotApplied,
    /// It fails, but it happened.
    Applied,
    /// It takes so many milliseconds.
    Slow(u64),
    /// The process dies before it.
    CrashBefore,
    /// The process dies after it.
    CrashAfter,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotApplied => f.write_str("not-applied"),
            Self::Applied => f.write_str("applied"),
            Self::Slow(ms) => write!(f, "slow-{ms}"),
            Self::CrashBefore => f.write_str("crash-before"),
            Self::CrashAfter => f.write_str("crash-after"),
        }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "not-applied" => Ok(Self::NotApplied),
            "applied" => Ok(Self::Applied),
            "crash-before" => Ok(Self::CrashBefore),
            "crash-after" => Ok(Self::CrashAfter),
            _ => {
                let ms = text.strip_prefix("slow-").and_then(|ms| ms.parse().ok());
                ms.map(Self::Slow).ok_or_else(|| format!("`{text}` is no fault"))
            }
        }
    }
}

impl Fault {
    const fn name(self) -> &'static str {
        match self {
            Self::NotApplied => "writes failed, not applied",
            Self::Applied => "writes failed, but applied",
            Self::Slow(_) => "writes delayed",
            Self::CrashBefore => "crashes before a write",
            Self::CrashAfter => "crashes after a write",
        }
    }
}

/// A machine.
pub(crate) struct Host {
    node: Node,
    disk: Mutex<Disk>,
    /// After how many more writes which fault comes.
    faults: Mutex<VecDeque<(u64, Fault)>>,
    crashes: UnboundedSender<Node>,
    ledger: Arc<Ledger>,
}

impl Host {
    pub(crate) fn new(node: Node, crashes: UnboundedSender<Node>, ledger: Arc<Ledger>) -> Arc<Self> {
        Arc::new(Self { node, disk: Mutex::default(), faults: Mutex::default(), crashes, ledger })
    }

    pub(crate) fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn fail(&self, after: u64, fault: Fault) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).push_back((after, fault));
    }

    pub(crate) fn mend(&self) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn next_fault(&self) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, fault) = faults.front_mut()?;
        if *left > 0 {
            *left -= 1;
            return None;
        }
        let fault = *fault;
        faults.pop_front();
        self.ledger.count(fault.name());
        Some(fault)
    }
}

/// The stores as one process has them open.
#[derive(Clone)]
pub(crate) struct Stores {
    host: Arc<Host>,
    /// What a dead process still had in mind must not happen.
    alive: Arc<AtomicBool>,
}

impl Stores {
    pub(crate) fn open(host: &Arc<Host>) -> Self {
        Self { host: Arc::clone(host), alive: Arc::new(AtomicBool::new(true)) }
    }

    /// Ends the process's hold on them when it is dropped.
    pub(crate) fn hold(&self) -> Hold {
        Hold(Arc::clone(&self.alive))
    }

    fn check(&self) -> Result<(), Error> {
        if self.alive.load(Ordering::SeqCst) { Ok(()) } else { Err(broken()) }
    }

    fn read<T>(&self, act: impl FnOnce(&Disk) -> T) -> Result<T, Error> {
        self.check()?;
        Ok(act(&self.host.disk()))
    }

    async fn write<T>(&self, act: impl FnOnce(&mut Disk) -> Result<T, Error> + Send) -> Result<T, Error> {
        self.check()?;
        let act = |disk: &mut Disk| {
            let done = act(disk);
            self.host.ledger.look(&disk.objects);
            done
        };
        match self.host.next_fault() {
            None => act(&mut self.host.disk()),
            Some(Fault::NotApplied) => Err(broken()),
            Some(Fault::Applied) => {
                act(&mut self.host.disk())?;
                Err(broken())
            }
            Some(Fault::Slow(ms)) => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                self.check()?;
                act(&mut self.host.disk())
            }
            Some(Fault::CrashBefore) => self.crash().await,
            Some(Fault::CrashAfter) => {
                act(&mut self.host.disk())?;
                self.crash().await
            }
        }
    }

    async fn crash<T>(&self) -> T {
        // Whoever runs the machines is there for as long as they are.
        let _ = self.host.crashes.send(self.host.node);
        std::future::pending().await
    }
}

/// See [`Stores::hold`].
pub(crate) struct Hold(Arc<AtomicBool>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

fn broken() -> Error {
    Error::Database { action: "do this", source: "the simulation broke it".into() }
}

fn put(disk: &mut Disk, key: &Key, bytes: Bytes) -> Result<Put, Error> {
    match disk.objects.get(key.as_str()) {
        None => {
            disk.objects.insert(key.to_string(), bytes);
            Ok(Put::New)
        }
        Some(found) if *found == bytes => Ok(Put::Same),
        Some(_) => Err(Error::Conflict { key: key.clone() }),
    }
}

fn page<'a>(keys: impl Iterator<Item = &'a String>, listing: &Listing) -> Vec<Key> {
    let after = listing.after.as_ref().map_or("", Key::as_str);
    let prefix = listing.folder.prefix();
    let found = keys.filter(|key| key.starts_with(&prefix) && key.as_str() > after);
    found.take(listing.limit).map(|key| key.parse().unwrap()).collect()
}

#[async_trait]
impl ObjectStore for Stores {
    async fn put(&self, key: &Key, bytes: Bytes) -> Result<Put, Error> {
        self.write(|disk| put(disk, key, bytes)).await
    }

    async fn put_all(&self, objects: Vec<(Key, Bytes)>) -> Result<(), Error> {
        // Each may fail by itself: a batch may be half written.
        for (key, bytes) in objects {
            self.write(|disk| put(disk, &key, bytes)).await?;
        }
        Ok(())
    }

    async fn replace(&self, key: &Key, bytes: Bytes) -> Result<(), Error> {
        self.write(|disk| {
            disk.objects.insert(key.to_string(), bytes);
            Ok(())
        })
        .await
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        self.read(|disk| disk.objects.get(key.as_str()).cloned())
    }

    async fn list(&self, listing: &Listing) -> Result<Vec<Key>, Error> {
        self.read(|disk| page(disk.objects.keys(), listing))
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        self.write(|disk| {
            disk.objects.remove(key.as_str());
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl LockStore for Stores {
    async fn get(&self, key: &Key) -> Result<Option<Versioned>, Error> {
        let found = self.read(|disk| disk.locks.get(key.as_str()).cloned())?;
        Ok(found.map(|(version, bytes)| Versioned { bytes, version: Version::new(version.to_string()) }))
    }

    async fn compare_and_swap(&self, key: &Key, expected: Option<&Version>, bytes: Bytes) -> Result<Swap, Error> {
        self.write(|disk| {
            let found = disk.locks.get(key.as_str()).map(|(version, _)| version.to_string());
            if found.as_deref() != expected.map(Version::as_str) {
                return Ok(Swap::Lost);
            }
            disk.swaps += 1;
            disk.locks.insert(key.to_string(), (disk.swaps, bytes));
            Ok(Swap::Won(Version::new(disk.swaps.to_string())))
        })
        .await
    }
}

/// Records only: builds, and with them jobs, are out of a simulation's reach.
#[async_trait]
impl Catalog for Stores {
    async fn put(&self, key: &RecordKey, bytes: Bytes) -> Result<(), Error> {
        self.write(|disk| {
            disk.records.insert((key.table.to_string(), key.key.to_string()), bytes);
            Ok(())
        })
        .await
    }

    async fn record(&self, key: &RecordKey) -> Result<Option<Bytes>, Error> {
        self.read(|disk| disk.records.get(&(key.table.to_string(), key.key.to_string())).cloned())
    }

    async fn remove(&self, key: &RecordKey) -> Result<(), Error> {
        self.write(|disk| {
            disk.records.remove(&(key.table.to_string(), key.key.to_string()));
            Ok(())
        })
        .await
    }

    async fn list(&self, table: &Name, listing: &Listing) -> Result<Vec<Record>, Error> {
        self.read(|disk| {
            let of_table = disk.records.iter().filter(|((of, _), _)| of == table.as_str());
            let keys: Vec<_> = of_table.map(|((_, key), _)| key.clone()).collect();
            let record = |key: Key| Record { bytes: disk.records[&(table.to_string(), key.to_string())].clone(), key };
            page(keys.iter(), listing).into_iter().map(record).collect()
        })
    }

    async fn enqueue(&self, _: &JobKey, _: Bytes) -> Result<Enqueued, Error> {
        Err(Error::ReadOnly)
    }

    async fn claim(&self, _: &Name, _: &Term) -> Result<Option<Job>, Error> {
        Ok(None)
    }

    async fn renew(&self, lease: &Lease, _: &Term) -> Result<(), Error> {
        Err(Error::LeaseLost { id: lease.job.id.clone() })
    }

    async fn finish(&self, lease: &Lease) -> Result<(), Error> {
        Err(Error::LeaseLost { id: lease.job.id.clone() })
    }

    async fn unfinished(&self, _: &Name) -> Result<u64, Error> {
        Ok(0)
    }
}
