//! Checking a log's whole store: every object is read, and the tree computed from the entries.
//!
//! The dedup table needs no check of its own: it is made of the tiles of level 0 at each start.

mod keys;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use storage::{Key, LockStore, ObjectStore};
use tlog::{Hash, LogPolicy, Origin, SignedCheckpoint, TreeHead, TreeSize, VerifierKey};

use crate::growth::Objects;
use crate::locked::Locked;
use crate::source::ObjectSource;
use crate::staged::unfinished;
use crate::{ConfigError, Error, Reader, TileSource, layout};

/// What is checked, and against what.
pub struct FsckParts {
    /// The log's objects; opening them for reading is enough.
    pub objects: Arc<dyn ObjectStore>,
    /// Where the log's lock is.
    pub locks: Arc<dyn LockStore>,
    /// The log's key.
    pub key: VerifierKey,
    /// Which cosignatures the published checkpoint must carry.
    pub policy: LogPolicy,
}

/// One damaged, missing or superfluous object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The object (or the lock).
    pub key: Key,
    /// What is wrong with it.
    pub problem: String,
}

/// What was found.
#[derive(Debug)]
pub struct FsckReport {
    /// The size of the tree that was checked.
    pub size: TreeSize,
    /// How many objects there are.
    pub objects: u64,
    /// What is wrong; empty means that every bit is as it was written.
    pub damages: Vec<Damage>,
}

/// Why nothing could be checked.
#[derive(Debug, thiserror::Error)]
pub enum FsckError {
    /// The key is not a log's.
    #[error("the key is unusable")]
    Config(#[from] ConfigError),
    /// There is no log of this key in the store.
    #[error("there is no log `{0}` in this store")]
    NoLog(Origin),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] storage::Error),
}

/// Checks everything. The log may be open meanwhile, but what it is just writing may then be
/// reported.
///
/// # Errors
/// [`FsckError`] when nothing could be checked. Damage is no error here, but in the report.
pub async fn fsck(parts: &FsckParts) -> Result<FsckReport, FsckError> {
    let not_a_log = || ConfigError::NotALog(parts.key.name().clone());
    let origin: Origin = parts.key.name().as_str().parse().map_err(|_| not_a_log())?;
    let mut check = Check { parts, damages: Vec::new(), expected: BTreeMap::new(), unfinished: None };
    let locked = check.lock(&origin).await?;
    let published = check.published().await?;
    let is_published = |locked: &Locked| published.as_ref().is_some_and(|it| *it.checkpoint().head() == locked.head());
    if let Some(locked) = locked.as_ref().filter(|locked| !is_published(locked)) {
        check.unfinished = check.batch(locked).await;
    }
    let listed = check.keys(locked.as_ref()).await?;
    // A damaged lock is reported; the rest is then checked under the newest good checkpoint.
    let newest = check
        .expected
        .last_key_value()
        .and_then(|(size, heads)| heads.first().map(|(_, root)| TreeHead { size: *size, root: *root }));
    let head = locked.as_ref().map(Locked::head).or(newest).ok_or_else(|| FsckError::NoLog(origin.clone()))?;
    check.beyond(&listed, head.size);
    check.partials_are_there(&listed, published.as_ref(), head.size);
    check.tree(head, &origin).await?;
    // What is published must be in the tree without help; the lock's copy of it counts by itself.
    let copy = locked.as_ref().filter(|locked| is_published(locked) && !locked.batch.is_empty());
    if let Some(locked) = copy.filter(|_| check.damages.is_empty()) {
        check.batch(locked).await;
    }
    let Check { mut damages, .. } = check;
    damages.sort_by(|one, other| one.key.cmp(&other.key));
    damages.dedup();
    Ok(FsckReport { size: head.size, objects: listed.all.len() as u64, damages })
}

struct Check<'a> {
    parts: &'a FsckParts,
    damages: Vec<Damage>,
    /// Which roots signed checkpoints have, and where those stand.
    expected: BTreeMap<TreeSize, Vec<(Key, Hash)>>,
    /// What the locked batch is about to write, if it is not published: it counts as written.
    unfinished: Option<BTreeMap<Key, Bytes>>,
}

/// The keys of the store, by kind.
#[derive(Default)]
struct Listed {
    all: BTreeSet<Key>,
    history: Vec<TreeSize>,
}

impl Check<'_> {
    fn damage(&mut self, key: Key, problem: impl Into<String>) {
        self.damages.push(Damage { key, problem: problem.into() });
    }

    fn expect(&mut self, key: Key, head: TreeHead) {
        self.expected.entry(head.size).or_default().push((key, head.root));
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, storage::Error> {
        let stored = self.parts.objects.get(key).await?;
        Ok(stored.or_else(|| self.unfinished.as_ref()?.get(key).cloned()))
    }

    fn reader(&self, head: TreeHead) -> Reader {
        Reader::new(Arc::new(ObjectSource(Arc::clone(&self.parts.objects))), head)
    }

    async fn lock(&mut self, origin: &Origin) -> Result<Option<Locked>, FsckError> {
        let key = layout::lock(origin);
        let Some(stored) = self.parts.locks.get(&key).await? else {
            self.damage(key, "is missing");
            return Ok(None);
        };
        match Locked::parse(&stored, &self.parts.key) {
            Ok(locked) if locked.old.size > locked.head().size => {
                self.damage(key, "has a tree that shrinks");
                Ok(None)
            }
            Ok(locked) => {
                self.expect(key, locked.head());
                Ok(Some(locked))
            }
            Err(problem) => {
                self.damage(key, problem);
                Ok(None)
            }
        }
    }

    async fn published(&mut self) -> Result<Option<SignedCheckpoint>, FsckError> {
        let key = layout::checkpoint();
        let Some(bytes) = self.parts.objects.get(&key).await? else {
            // A log that was never opened has not published anything.
            return Ok(None);
        };
        let published = match SignedCheckpoint::open(&bytes, &self.parts.key) {
            Ok(published) => published,
            Err(error) => {
                self.damage(key, error.to_string());
                return Ok(None);
            }
        };
        if let Err(error) = self.parts.policy.verify_checkpoint(&published) {
            self.damage(key.clone(), format!("has no quorum: {error}"));
        }
        // Every line in it is one that the log verified before it published.
        let keys: Vec<VerifierKey> = self.known_keys();
        if published.only_verified(&keys).is_ok_and(|verified| verified != published) {
            self.damage(key.clone(), "has signatures of unknown keys");
        }
        self.expect(key, *published.checkpoint().head());
        Ok(Some(published))
    }

    /// What the locked batch puts into the tree, computed from its entries.
    async fn batch(&mut self, locked: &Locked) -> Option<BTreeMap<Key, Bytes>> {
        let source: Arc<dyn TileSource> = Arc::new(ObjectSource(Arc::clone(&self.parts.objects)));
        let (key, problem) = match unfinished(&source, locked).await {
            Ok(Objects { tiles, bundles }) => {
                let bundles = bundles.into_iter().map(|(id, bytes)| (layout::bundle(id), bytes));
                return Some(tiles.into_iter().chain(bundles).collect());
            }
            Err(Error::Corrupt { key, problem }) => (key, problem),
            Err(error) => (layout::lock(locked.origin()), format!("has a batch that can't be read: {error}")),
        };
        self.damage(key, problem);
        None
    }

    fn known_keys(&self) -> Vec<VerifierKey> {
        let witnesses = self.parts.policy.witnesses().iter().map(|witness| witness.key.clone());
        witnesses.chain([self.parts.key.clone()]).collect()
    }
}
