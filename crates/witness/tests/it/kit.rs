//! A witness with a real store and real keys, a log that it witnesses, and a store that fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use stdx::{ManualClock, SystemEntropy, UnixTime};
use storage::{Error as StoreError, Key, LockStore, SqliteStore, Swap, Version, Versioned};
use tempfile::TempDir;
use tlog::witness_protocol::{AddCheckpoint, origin_hash};
use tlog::{
    Checkpoint, ConsistencyProof, KeyKind, Origin, SignedCheckpoint, SignerKey, TileSet, Tree, TreeEdge, TreeHead,
    TreeSize, leaf_hash, verify_cosignature,
};
use witness::{Error, Witness, WitnessParts};

pub const NOW: UnixTime = UnixTime::from_seconds(1_800_000_000);

pub fn key(name: &str, kind: KeyKind) -> SignerKey {
    SignerKey::generate(name.parse().unwrap(), kind, &SystemEntropy).unwrap()
}

/// A log in memory; a second one under the same key is its fork.
pub struct Log {
    pub signer: SignerKey,
    pub entries: Vec<String>,
}

impl Log {
    pub fn new(entries: usize) -> Self {
        Self { signer: key("log.example/1", KeyKind::Ed25519), entries: names("entry", entries) }
    }

    pub fn fork(&self, entries: usize) -> Self {
        Self { signer: self.signer.to_secret_text().parse().unwrap(), entries: names("forked", entries) }
    }

    pub fn origin(&self) -> Origin {
        self.signer.verifier().name().as_str().parse().unwrap()
    }

    fn tiles(&self, size: usize) -> (TileSet, TreeHead) {
        let (mut edge, mut tiles) = (TreeEdge::new(), TileSet::new());
        for entry in &self.entries[..size] {
            edge.append(&leaf_hash(entry.as_bytes()), |tile, bytes| tiles.insert(tile, bytes.to_vec()));
        }
        edge.partial_tiles().for_each(|(tile, bytes)| tiles.insert(tile, bytes.to_vec()));
        (tiles, edge.head())
    }

    pub fn checkpoint(&self, size: usize) -> SignedCheckpoint {
        let checkpoint = Checkpoint::new(self.origin(), self.tiles(size).1).unwrap();
        SignedCheckpoint::sign(checkpoint, &self.signer).unwrap()
    }

    pub fn proof(&self, old: usize, new: usize) -> ConsistencyProof {
        let (tiles, head) = self.tiles(new);
        Tree::new(&tiles, head).consistency(TreeSize::new(old as u64)).unwrap().1
    }

    pub fn request(&self, old: usize, new: usize) -> AddCheckpoint {
        AddCheckpoint::new(TreeSize::new(old as u64), self.proof(old, new), self.checkpoint(new)).unwrap()
    }
}

fn names(word: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{word} {number}")).collect()
}

pub struct Bench {
    _folder: TempDir,
    pub store: Arc<Faulty>,
    pub clock: Arc<ManualClock>,
    pub witness: Arc<Witness>,
    pub log: Log,
    signer: String,
}

impl Bench {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sqlite = SqliteStore::create(&folder.path().join("db")).await.unwrap();
        let store = Arc::new(Faulty { inner: sqlite, mode: AtomicU8::new(0) });
        let (clock, log) = (Arc::new(ManualClock::new(NOW)), Log::new(700));
        let signer = key("witness.example/w1", KeyKind::Cosignature).to_secret_text().to_string();
        let witness = Arc::new(witness(&store, &clock, &log, &signer));
        Self { _folder: folder, store, clock, witness, log, signer }
    }

    /// The same witness, started again on the same store.
    pub fn restart(&mut self) {
        self.witness = Arc::new(witness(&self.store, &self.clock, &self.log, &self.signer));
    }

    pub async fn add(&self, request: &AddCheckpoint) -> Result<UnixTime, Error> {
        let answer = self.witness.add_checkpoint(request.to_string().as_bytes()).await?;
        let [line] = answer.lines() else { panic!("one key gives one line") };
        Ok(verify_cosignature(request.checkpoint().checkpoint(), line, self.witness.key()).unwrap())
    }

    pub async fn size(&self) -> Option<u64> {
        let checkpoint = self.witness.checkpoint(&origin_hash(&self.log.origin())).await.ok()?;
        checkpoint.verify_log(self.log.signer.verifier()).unwrap();
        assert_eq!(checkpoint.signatures().len(), 2);
        verify_cosignature(checkpoint.checkpoint(), &checkpoint.signatures()[1], self.witness.key()).unwrap();
        Some(checkpoint.checkpoint().size().get())
    }
}

fn witness(store: &Arc<Faulty>, clock: &Arc<ManualClock>, log: &Log, signer: &str) -> Witness {
    Witness::new(WitnessParts {
        locks: Arc::clone(store) as Arc<dyn LockStore>,
        clock: Arc::clone(clock) as Arc<dyn stdx::Clock>,
        signer: signer.parse().unwrap(),
        logs: vec![log.signer.verifier().clone()],
    })
    .unwrap()
}

/// How the next swap goes wrong.
#[derive(Clone, Copy)]
pub enum Fault {
    None = 0,
    NotApplied = 1,
    Applied = 2,
    LostToAnother = 3,
}

/// A real store whose next swap fails as told.
pub struct Faulty {
    inner: SqliteStore,
    mode: AtomicU8,
}

impl Faulty {
    pub fn next(&self, fault: Fault) {
        self.mode.store(fault as u8, Ordering::SeqCst);
    }
}

fn broken() -> StoreError {
    StoreError::Database { action: "do anything", source: "a test broke it".into() }
}

#[async_trait]
impl LockStore for Faulty {
    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        LockStore::get(&self.inner, key).await
    }

    async fn compare_and_swap(&self, key: &Key, expected: Option<&Version>, bytes: Bytes) -> Result<Swap, StoreError> {
        match self.mode.swap(0, Ordering::SeqCst) {
            1 => Err(broken()),
            2 => {
                let _ = self.inner.compare_and_swap(key, expected, bytes).await?;
                Err(broken())
            }
            3 => {
                // Another request of the same content was a little faster.
                let _ = self.inner.compare_and_swap(key, expected, bytes.clone()).await?;
                self.inner.compare_and_swap(key, expected, bytes).await
            }
            _ => self.inner.compare_and_swap(key, expected, bytes).await,
        }
    }
}
