//! A log with real stores, real keys and real witnesses, each of which can be made to fail; and
//! `check`, which verifies all of it after each step.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use log::{
    Class, Error, Faulty, FsckParts, Limits, Log, LogParts, Sequencer, Step, Ticket, Witness as Port, WitnessError,
    fsck,
};
use stdx::{Clock, ManualClock, SystemEntropy, UnixTime};
use storage::{Error as StoreError, Key, Listing, LockStore, ObjectStore, Put, Swap, Version, Versioned};
use tlog::witness_protocol::AddCheckpoint;
use tlog::{
    EntryBundleId, EntryIndex, Frontier, Growth, KeyKind, LogPolicy, NoteSignature, Origin, SignedCheckpoint,
    SignerKey, TreeHead, VerifierKey, cosign, decode_bundle, leaf_hash,
};

pub const NOW: UnixTime = UnixTime::from_seconds(1_800_000_000);
pub const ORIGIN: &str = "log.example/1";

pub fn key(name: &str, kind: KeyKind) -> SignerKey {
    SignerKey::generate(name.parse().unwrap(), kind, &SystemEntropy).unwrap()
}

/// Objects in memory. `stdx` and `storage` test the files; here the log's order of calls counts.
#[derive(Clone, Default)]
pub struct Memory(pub Arc<Mutex<BTreeMap<String, Bytes>>>);

/// Locks in memory.
#[derive(Clone, Default)]
pub struct Locks(pub Arc<Mutex<BTreeMap<String, (u64, Bytes)>>>);

#[async_trait]
impl ObjectStore for Memory {
    async fn put(&self, key: &Key, bytes: Bytes) -> Result<Put, StoreError> {
        let mut objects = self.0.lock().unwrap();
        match objects.get(key.as_str()) {
            None => {
                objects.insert(key.to_string(), bytes);
                Ok(Put::New)
            }
            Some(found) if *found == bytes => Ok(Put::Same),
            Some(_) => Err(StoreError::Conflict { key: key.clone() }),
        }
    }

    async fn put_all(&self, objects: Vec<(Key, Bytes)>) -> Result<(), StoreError> {
        for (key, bytes) in objects {
            self.put(&key, bytes).await?;
        }
        Ok(())
    }

    async fn replace(&self, key: &Key, bytes: Bytes) -> Result<(), StoreError> {
        self.0.lock().unwrap().insert(key.to_string(), bytes);
        Ok(())
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        Ok(self.0.lock().unwrap().get(key.as_str()).cloned())
    }

    async fn list(&self, listing: &Listing) -> Result<Vec<Key>, StoreError> {
        let after = listing.after.as_ref().map_or("", Key::as_str);
        let prefix = listing.folder.prefix();
        let objects = self.0.lock().unwrap();
        let found = objects.keys().filter(|key| key.starts_with(&prefix) && key.as_str() > after);
        Ok(found.take(listing.limit).map(|key| key.parse().unwrap()).collect())
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.0.lock().unwrap().remove(key.as_str());
        Ok(())
    }
}

#[async_trait]
impl LockStore for Locks {
    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        let found = self.0.lock().unwrap().get(key.as_str()).cloned();
        Ok(found.map(|(version, bytes)| Versioned { bytes, version: Version::new(version.to_string()) }))
    }

    async fn compare_and_swap(&self, key: &Key, expected: Option<&Version>, bytes: Bytes) -> Result<Swap, StoreError> {
        let mut locks = self.0.lock().unwrap();
        let found = locks.get(key.as_str()).map(|(version, _)| version.to_string());
        if found.as_deref() != expected.map(Version::as_str) {
            return Ok(Swap::Lost);
        }
        let version = locks.values().map(|(version, _)| *version).max().unwrap_or(0) + 1;
        locks.insert(key.to_string(), (version, bytes));
        Ok(Swap::Won(Version::new(version.to_string())))
    }
}

/// What becomes of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails, and nothing happened.
    NotApplied,
    /// It fails, but it happened.
    Applied,
}

/// Counts calls, and fails one of them; then all, as if the process had lost its store.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<Plan>>);

#[derive(Default)]
struct Plan {
    calls: Vec<String>,
    fail: Option<(usize, Fault)>,
    /// From the failed call on, everything fails: the crash.
    crash: bool,
}

impl Faults {
    pub fn clear(&self) {
        *self.0.lock().unwrap() = Plan::default();
    }

    /// Fails the call of this number, counted from now.
    pub fn fail(&self, number: usize, fault: Fault, crash: bool) {
        *self.0.lock().unwrap() = Plan { calls: Vec::new(), fail: Some((number, fault)), crash };
    }

    pub fn calls(&self) -> Vec<String> {
        self.0.lock().unwrap().calls.clone()
    }

    fn next(&self, call: String) -> Option<Fault> {
        let mut plan = self.0.lock().unwrap();
        let number = plan.calls.len();
        plan.calls.push(call);
        let (at, fault) = plan.fail?;
        match number.cmp(&at) {
            std::cmp::Ordering::Equal => Some(fault),
            std::cmp::Ordering::Greater if plan.crash => Some(Fault::NotApplied),
            _ => None,
        }
    }

    async fn run<T>(&self, call: String, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let broken = || StoreError::Database { action: "do anything", source: "a test broke it".into() };
        match self.next(call) {
            None => work.await,
            Some(Fault::NotApplied) => Err(broken()),
            Some(Fault::Applied) => {
                work.await?;
                Err(broken())
            }
        }
    }
}

/// Any store, with faults.
#[derive(Clone)]
pub struct Failing<S> {
    pub inner: S,
    pub faults: Faults,
}

#[async_trait]
impl<S: ObjectStore> ObjectStore for Failing<S> {
    async fn put(&self, key: &Key, bytes: Bytes) -> Result<Put, StoreError> {
        self.faults.run(format!("put {key}"), self.inner.put(key, bytes)).await
    }

    async fn put_all(&self, objects: Vec<(Key, Bytes)>) -> Result<(), StoreError> {
        // One fault for each object: a batch may be half written.
        for (key, bytes) in objects {
            self.faults.run(format!("put_all {key}"), self.inner.put_all(vec![(key, bytes)])).await?;
        }
        Ok(())
    }

    async fn replace(&self, key: &Key, bytes: Bytes) -> Result<(), StoreError> {
        self.faults.run(format!("replace {key}"), self.inner.replace(key, bytes)).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        self.faults.run(format!("get {key}"), self.inner.get(key)).await
    }

    async fn list(&self, listing: &Listing) -> Result<Vec<Key>, StoreError> {
        self.faults.run(format!("list {:?}", listing.folder.prefix()), self.inner.list(listing)).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.faults.run(format!("delete {key}"), self.inner.delete(key)).await
    }
}

#[async_trait]
impl<S: LockStore> LockStore for Failing<S> {
    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        self.faults.run(format!("lock {key}"), self.inner.get(key)).await
    }

    async fn compare_and_swap(&self, key: &Key, expected: Option<&Version>, bytes: Bytes) -> Result<Swap, StoreError> {
        self.faults.run(format!("swap {key}"), self.inner.compare_and_swap(key, expected, bytes)).await
    }
}

/// A witness by C2SP tlog-witness, with a real key, which can be silent. The crate `witness` has
/// the product's; engines don't depend on each other, not in tests either.
pub struct Near {
    signer: SignerKey,
    log: VerifierKey,
    clock: Arc<ManualClock>,
    /// What it cosigned last.
    pub latest: Mutex<Option<SignedCheckpoint>>,
    silent: AtomicBool,
    /// The time that it writes instead of its clock's.
    pub lie: Mutex<Option<UnixTime>>,
    /// How often it lets the others go first before it cosigns.
    pub slow: AtomicUsize,
    /// How many cosignatures it was asked for.
    pub requests: AtomicUsize,
    /// Answers to be given instead of cosigning, first come first served.
    pub scripted: Mutex<VecDeque<WitnessError>>,
}

impl Near {
    pub fn new(name: &str, log: &VerifierKey, clock: &Arc<ManualClock>) -> Arc<Self> {
        Arc::new(Self {
            signer: key(name, KeyKind::Cosignature),
            log: log.clone(),
            clock: Arc::clone(clock),
            latest: Mutex::default(),
            silent: AtomicBool::new(false),
            lie: Mutex::default(),
            slow: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            scripted: Mutex::default(),
        })
    }

    pub fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::SeqCst);
    }

    fn reachable(&self) -> Result<(), WitnessError> {
        let silent = self.silent.load(Ordering::SeqCst);
        if silent { Err(WitnessError::Silent("switched off".to_owned())) } else { Ok(()) }
    }
}

#[async_trait]
impl Port for Near {
    fn key(&self) -> &VerifierKey {
        self.signer.verifier()
    }

    async fn add_checkpoint(&self, request: &AddCheckpoint) -> Result<Vec<NoteSignature>, WitnessError> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        self.reachable()?;
        for _ in 0..self.slow.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        if let Some(answer) = self.scripted.lock().unwrap().pop_front() {
            return Err(answer);
        }
        // Over the wire and back.
        let request = AddCheckpoint::parse(request.to_string()).unwrap();
        let signed = request.checkpoint().only_verified(std::slice::from_ref(&self.log));
        let mut signed = signed.map_err(|error| WitnessError::Refused(error.to_string()))?;
        let mut latest = self.latest.lock().unwrap();
        let old = latest.as_ref().map_or(TreeHead::EMPTY, |latest| *latest.checkpoint().head());
        if request.old() != old.size {
            return Err(WitnessError::Stale { latest: old.size });
        }
        let growth = Growth { old: &old, new: signed.checkpoint().head() };
        request.proof().verify(growth).map_err(|_| WitnessError::Inconsistent)?;
        let time = self.lie.lock().unwrap().unwrap_or_else(|| self.clock.now());
        let line = cosign(signed.checkpoint(), &self.signer, time).unwrap();
        signed.merge([line.clone()]).unwrap();
        *latest = Some(signed);
        Ok(vec![line])
    }

    async fn checkpoint(&self, origin: &Origin) -> Result<Option<SignedCheckpoint>, WitnessError> {
        self.reachable()?;
        let latest = self.latest.lock().unwrap().clone();
        Ok(latest.filter(|latest| latest.checkpoint().origin() == origin))
    }
}

/// A wall clock that is off by some seconds; its monotonic time is right.
pub struct Skewed {
    pub clock: Arc<ManualClock>,
    pub seconds: AtomicI64,
}

impl Clock for Skewed {
    fn now(&self) -> UnixTime {
        let seconds = self.clock.now().seconds();
        UnixTime::from_seconds(seconds.checked_add_signed(self.seconds.load(Ordering::SeqCst)).unwrap())
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }
}

/// Everything that a log has: objects and locks.
pub type Backup = (BTreeMap<String, Bytes>, BTreeMap<String, (u64, Bytes)>);

/// A log on this machine with its four witnesses (3 of 4, one may be faulty).
pub struct Bench {
    pub memory: Memory,
    pub locks: Locks,
    pub faults: Faults,
    pub clock: Arc<ManualClock>,
    pub witnesses: Vec<Arc<Near>>,
    pub signer: Arc<SignerKey>,
    pub policy: LogPolicy,
    pub limits: Limits,
}

pub fn policy_text(log: &VerifierKey, witnesses: &[&VerifierKey], threshold: usize) -> String {
    let mut text = format!("log {log}\n");
    for (number, witness) in witnesses.iter().enumerate() {
        text += &format!("witness w{number} {witness}\n");
    }
    let names: Vec<String> = (0..witnesses.len()).map(|number| format!("w{number}")).collect();
    text + &format!("group g {threshold} {}\nquorum g\n", names.join(" "))
}

impl Bench {
    /// A log that was made and not yet opened.
    pub async fn new() -> Self {
        let clock = Arc::new(ManualClock::new(NOW));
        let signer = Arc::new(key(ORIGIN, KeyKind::Ed25519));
        let log = signer.verifier();
        let near = |number| Near::new(&format!("witness.example/{number}"), log, &clock);
        let witnesses: Vec<_> = (0..4).map(near).collect();
        let keys: Vec<_> = witnesses.iter().map(|witness| witness.signer.verifier()).collect();
        let policy = LogPolicy::parse(policy_text(log, &keys, 3)).unwrap();
        let limits = Limits { refresh: Duration::from_secs(600), ..Limits::default() };
        let faults = Faults::default();
        let (memory, locks) = (Memory::default(), Locks::default());
        let bench = Self { memory, locks, faults, clock, witnesses, signer, policy, limits };
        Log::create(&bench.parts()).await.unwrap();
        bench
    }

    /// The same, opened, with its empty tree published.
    pub async fn opened() -> (Self, Log, Sequencer) {
        let bench = Self::new().await;
        let (log, mut sequencer) = bench.open().await.unwrap();
        assert_eq!(sequencer.step().await.unwrap(), Step::Published(size(0)));
        bench.check(0).await;
        (bench, log, sequencer)
    }

    pub fn parts(&self) -> LogParts {
        let witnesses = self.witnesses.iter().map(|witness| Arc::clone(witness) as Arc<dyn Port>).collect();
        LogParts {
            objects: Arc::new(Failing { inner: self.memory.clone(), faults: self.faults.clone() }),
            locks: Arc::new(Failing { inner: self.locks.clone(), faults: self.faults.clone() }),
            witnesses,
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            signer: Arc::clone(&self.signer),
            policy: self.policy.clone(),
            faulty: Faulty(1),
            limits: self.limits,
        }
    }

    pub async fn open(&self) -> Result<(Log, Sequencer), Error> {
        Log::open(self.parts()).await
    }

    /// How many cosignatures were asked for, of all witnesses.
    pub fn requests(&self) -> usize {
        self.witnesses.iter().map(|witness| witness.requests.load(Ordering::SeqCst)).sum()
    }

    pub fn object(&self, key: &str) -> Option<Bytes> {
        self.memory.0.lock().unwrap().get(key).cloned()
    }

    pub fn keys(&self) -> Vec<String> {
        self.memory.0.lock().unwrap().keys().cloned().collect()
    }

    pub fn flip(&self, key: &str, bit: usize) {
        let mut objects = self.memory.0.lock().unwrap();
        let mut bytes = objects[key].to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        objects.insert(key.to_owned(), bytes.into());
    }

    pub fn fsck_parts(&self) -> FsckParts {
        FsckParts {
            objects: Arc::new(self.memory.clone()),
            locks: Arc::new(self.locks.clone()),
            key: self.signer.verifier().clone(),
            policy: self.policy.clone(),
        }
    }

    /// The oracle: everything stored is sound, what is published has its quorum and is no larger
    /// than what is signed, and the tree is that of the entries, computed by other code than the
    /// log's own. Gives the published entries.
    pub async fn check(&self, published: u64) -> Vec<Bytes> {
        let report = fsck(&self.fsck_parts()).await.unwrap();
        assert_eq!(report.damages, []);
        let bytes = self.object("checkpoint").expect("something was published");
        let checkpoint = SignedCheckpoint::open(&bytes, self.signer.verifier()).unwrap();
        let cosigned = self.policy.verify_checkpoint(&checkpoint).unwrap();
        assert!(cosigned.by.len() >= 3);
        assert_eq!(checkpoint.checkpoint().size().get(), published);
        assert!(report.size.get() >= published, "published beyond what is signed");
        let entries = self.entries(published);
        let frontier: Frontier = entries.iter().map(|entry| leaf_hash(entry)).collect();
        assert_eq!(frontier.head(), *checkpoint.checkpoint().head());
        entries
    }

    fn entries(&self, published: u64) -> Vec<Bytes> {
        let mut entries = Vec::new();
        for first in (0..published).step_by(256) {
            let id = EntryBundleId::of_entry(EntryIndex::new(first), size(published)).unwrap();
            let full = id.tile().full().unwrap().bundle().unwrap();
            let (id, bytes) = match self.object(&id.path()) {
                Some(bytes) => (id, bytes),
                None => (full, self.object(&full.path()).unwrap()),
            };
            let wanted = (published - first).min(256) as usize;
            entries.extend(decode_bundle(id, &bytes).unwrap()[..wanted].iter().map(|entry| bytes.slice_ref(entry)));
        }
        entries
    }

    /// A copy of the whole store.
    pub fn backup(&self) -> Backup {
        (self.memory.0.lock().unwrap().clone(), self.locks.0.lock().unwrap().clone())
    }

    pub fn restore(&self, backup: &Backup) {
        *self.memory.0.lock().unwrap() = backup.0.clone();
        *self.locks.0.lock().unwrap() = backup.1.clone();
    }
}

pub fn size(size: u64) -> tlog::TreeSize {
    tlog::TreeSize::new(size)
}

pub fn entry(number: u64) -> Bytes {
    Bytes::from(format!("entry {number}"))
}

/// Takes in entries of these numbers.
pub async fn submit(log: &Log, numbers: std::ops::Range<u64>) -> Vec<Ticket> {
    let mut tickets = Vec::new();
    for number in numbers {
        tickets.push(log.submit(entry(number)).await.unwrap());
    }
    tickets
}

/// Submits entries of these numbers, publishes them in one step, and verifies every receipt.
pub async fn append(bench: &Bench, log: &Log, sequencer: &mut Sequencer, numbers: std::ops::Range<u64>) {
    let tickets = submit(log, numbers.clone()).await;
    let published = sequencer.step().await.unwrap();
    assert_eq!(published, Step::Published(log.published().unwrap().checkpoint().size()));
    for (ticket, number) in tickets.into_iter().zip(numbers) {
        let proof = ticket.published().await.unwrap().proof();
        proof.verify(&leaf_hash(&entry(number)), &bench.policy).unwrap();
    }
}

pub fn is_fatal(error: &Error) -> bool {
    error.class() == Class::Fatal
}
