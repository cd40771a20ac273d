//! Copies of a log, none of which is trusted: what is taken has its place under a checkpoint that
//! the policy's quorum cosigned.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use api::{BaseUrl, Client};
use async_trait::async_trait;
use bytes::Bytes;
use log::{Reader, SourceError, TileSource, WITNESS_TIMEOUT, Witness};
use policy::Quorum;
use storage::{Key, ObjectStore};
use tlog::{
    EntryBundleId, EntryIndex, Frontier, Origin, SignedCheckpoint, TreeHead, TreeSize, VerifierKey, leaf_hash,
    tiles_for_growth, verify_cosignature,
};
use verify::TrustedPolicy;

use crate::failure::Failure;
use crate::peer::{HttpTiles, witnesses_of};

/// While a log is copied it may grow, which collects partial tiles; each round copies only what is new.
const ROUNDS_MAX: usize = 10;

/// A bundle of 17 MB over a slow line.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// One log, and all places that have copies of it.
pub(super) struct Copies {
    key: VerifierKey,
    policy: Arc<TrustedPolicy>,
    sources: Vec<Arc<dyn TileSource>>,
}

/// A mirror that answers, and the log that it says it has.
pub(super) struct Mirror {
    pub(super) origin: Origin,
    pub(super) source: Arc<dyn TileSource>,
}

impl Mirror {
    /// Asks the mirror at `url` which log it has. One that is named is wanted, so it must answer.
    pub(super) async fn ask(url: &BaseUrl, policy: &TrustedPolicy) -> anyhow::Result<Self> {
        let source = over_http(url);
        let found = source.get(&checkpoint_key()?).await.with_context(|| {
            Failure::unavailable(format!("the mirror `{url}` gives no checkpoint")).hint("leave it out, or try again")
        })?;
        let found = found.and_then(|bytes| SignedCheckpoint::parse(bytes).ok());
        let origin = found.map(|found| found.checkpoint().origin().clone());
        origin.filter(|origin| policy.policy().logs.iter().any(|log| log.origin == *origin)).map_or_else(
            || {
                Err(Failure::refused(format!("`{url}` is no mirror of a log of the policy"))
                    .hint("name the prefix below which `checkpoint` and `tile/` lie")
                    .into())
            },
            |origin| Ok(Self { origin, source }),
        )
    }
}

pub(super) fn over_http(url: &BaseUrl) -> Arc<dyn TileSource> {
    Arc::new(HttpTiles { url: url.clone(), client: Client::new(REQUEST_TIMEOUT) })
}

fn checkpoint_key() -> anyhow::Result<Key> {
    Ok("checkpoint".parse()?)
}

fn too_fast() -> anyhow::Error {
    Failure::unavailable("the log grows faster than it can be copied").hint("try again later").into()
}

/// A tile comes from the first copy that has it.
#[async_trait]
impl TileSource for Copies {
    async fn get(&self, path: &Key) -> Result<Option<Bytes>, SourceError> {
        let mut failed = None;
        for source in &self.sources {
            match source.get(path).await {
                Ok(Some(bytes)) => return Ok(Some(bytes)),
                Ok(None) => {}
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(None), Err)
    }
}

impl Copies {
    /// Of the log `origin` of `policy`.
    ///
    /// # Errors
    /// When the policy has no such log.
    pub(super) fn of(
        origin: &Origin,
        policy: &Arc<TrustedPolicy>,
        sources: Vec<Arc<dyn TileSource>>,
    ) -> anyhow::Result<Self> {
        let log = policy.witnessing().logs().iter().find(|log| origin.is(log.key.name()));
        let key = log.with_context(|| format!("the policy names no log `{origin}`"))?.key.clone();
        Ok(Self { key, policy: Arc::clone(policy), sources })
    }

    /// The largest tree that a copy shows under a quorum; with the signatures of the log and of
    /// its witnesses, and no others.
    pub(super) async fn newest(&self) -> anyhow::Result<SignedCheckpoint> {
        let mut newest: Option<SignedCheckpoint> = None;
        let mut failed = anyhow::anyhow!("there is no copy of the log");
        for source in &self.sources {
            match self.published(&**source).await {
                Ok(found) if newest.as_ref().is_none_or(|it| it.checkpoint().size() < found.checkpoint().size()) => {
                    newest = Some(found);
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(log.origin = %self.key.name(), "a copy of the log counts as none: {error:#}");
                    failed = error;
                }
            }
        }
        newest.ok_or(failed)
    }

    async fn published(&self, source: &dyn TileSource) -> anyhow::Result<SignedCheckpoint> {
        let bytes = source.get(&checkpoint_key()?).await?.context("the log has no checkpoint")?;
        let checkpoint = SignedCheckpoint::open(&bytes, &self.key)?;
        self.policy.witnessing().verify_checkpoint(&checkpoint)?;
        let witnesses = self.policy.witnessing().witnesses().iter().map(|witness| witness.key.clone());
        let keys: Vec<VerifierKey> = witnesses.chain([self.key.clone()]).collect();
        Ok(checkpoint.only_verified(&keys)?)
    }

    /// The largest tree, if so many witnesses know no larger one that an honest one of every quorum
    /// is among them: a mirror that is behind, or that somebody holds back, shows too little.
    pub(super) async fn surely_newest(&self) -> anyhow::Result<SignedCheckpoint> {
        let witnesses = witnesses_of(self.policy.witnessing())?;
        let faulty = self.policy.policy().witnessing.faulty;
        let needed = Quorum::of(self.policy.witnessing(), faulty)?.intersecting() + faulty;
        let mut larger = None;
        for _ in 0..ROUNDS_MAX {
            let newest = self.newest().await?;
            let known = futures::future::join_all(witnesses.iter().map(|witness| self.known_to(&**witness))).await;
            let known: Vec<TreeSize> = known.into_iter().flatten().collect();
            if known.len() < needed {
                let told = format!("{} witnesses answered, {needed} are needed", known.len());
                return Err(Failure::unavailable(told).hint("try again when they are back").into());
            }
            larger = known.into_iter().max().filter(|size| *size > newest.checkpoint().size());
            if larger.is_none() {
                return Ok(newest);
            }
        }
        let size = larger.unwrap_or(TreeSize::ZERO);
        Err(Failure::unavailable(format!("a witness knows {size} entries, which no copy of the log has"))
            .hint("try again, or name a newer mirror")
            .into())
    }

    /// What the witness has cosigned of this log; `None` if it doesn't say.
    async fn known_to(&self, witness: &dyn Witness) -> Option<TreeSize> {
        let origin: Origin = self.key.name().clone().into();
        let answer = tokio::time::timeout(WITNESS_TIMEOUT, witness.checkpoint(&origin)).await.ok()?.ok()?;
        let Some(found) = answer else { return Some(TreeSize::ZERO) };
        let by_both = found.verify_log(&self.key).is_ok()
            && found.signatures().iter().any(|it| verify_cosignature(found.checkpoint(), it, witness.key()).is_ok());
        by_both.then(|| found.checkpoint().size())
    }

    /// Everything under the newest checkpoint, which is read first and written last.
    pub(super) async fn copy_newest_to(&self, target: &dyn ObjectStore) -> anyhow::Result<TreeHead> {
        for _ in 0..ROUNDS_MAX {
            let published = self.newest().await?;
            if self.copy_to(target, &published).await? {
                return Ok(*published.checkpoint().head());
            }
        }
        Err(too_fast())
    }

    /// Everything under this checkpoint, or an error.
    pub(super) async fn copy_all_to(
        &self,
        target: &dyn ObjectStore,
        published: &SignedCheckpoint,
    ) -> anyhow::Result<()> {
        if self.copy_to(target, published).await? { Ok(()) } else { Err(too_fast()) }
    }

    /// Whether everything was there.
    async fn copy_to(&self, target: &dyn ObjectStore, published: &SignedCheckpoint) -> anyhow::Result<bool> {
        let whole = self.copy_tree(published.checkpoint().size(), target).await?;
        if whole {
            target.replace(&checkpoint_key()?, published.to_string().into()).await?;
        }
        Ok(whole)
    }

    async fn copy_tree(&self, size: TreeSize, target: &dyn ObjectStore) -> anyhow::Result<bool> {
        let tiles = tiles_for_growth(TreeSize::ZERO..size).map(|tile| tile.path());
        let firsts = (0..size.get().div_ceil(256)).map(|bundle| EntryIndex::new(bundle * 256));
        let bundles = firsts.filter_map(|first| EntryBundleId::of_entry(first, size)).map(|bundle| bundle.path());
        for path in tiles.chain(bundles) {
            let key: Key = path.parse()?;
            if target.get(&key).await?.is_some() {
                continue;
            }
            let Some(bytes) = self.get(&key).await? else { return Ok(false) };
            target.put(&key, bytes).await?;
        }
        Ok(true)
    }

    /// Gives each entry below `head` to `each`, in order, and makes sure that they are its tree.
    pub(super) async fn visit(
        self: &Arc<Self>,
        head: TreeHead,
        each: &mut (dyn FnMut(&[u8]) + Send),
    ) -> anyhow::Result<()> {
        let reader = self.reader(head);
        let all = EntryIndex::new(0)..EntryIndex::new(head.size.get());
        let mut frontier = Frontier::new();
        let mut one = |_, entry: &Bytes| {
            frontier.append(&leaf_hash(entry));
            each(entry);
            ControlFlow::Continue(())
        };
        reader.entries(all, &mut one).await?;
        if frontier.head() == head {
            return Ok(());
        }
        Err(Failure::refused(format!("the copy of the log `{}` has another root than its checkpoint", self.key.name()))
            .hint("use another backup, or a mirror")
            .into())
    }

    /// The log as of `head`.
    pub(super) fn reader(self: &Arc<Self>, head: TreeHead) -> Reader {
        Reader::new(Arc::clone(self) as Arc<dyn TileSource>, head)
    }
}
