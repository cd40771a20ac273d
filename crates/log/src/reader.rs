//! Reading a log under a checkpoint that the caller has verified.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use storage::Key;
use tlog::{
    ConsistencyProof, EntryBundleId, EntryIndex, Hash, InclusionProof, ProofError, TileId, TileSet, Tree, TreeEdge,
    TreeError, TreeHead, TreeSize, bundles_for_growth, decode_bundle, leaf_hash, tiles_for_consistency, tiles_for_edge,
    tiles_for_growth, tiles_for_inclusion,
};

use crate::{Class, SourceError, TileSource, layout};

/// How many objects are asked for at once.
const REQUESTS_MAX: usize = 16;

/// How many bundles are read ahead; each has up to 16 MB.
const BUNDLES_AT_ONCE: usize = 4;

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The source failed.
    #[error("the log can't be read")]
    Source(#[from] SourceError),
    /// The checkpoint needs an object that isn't there.
    #[error("`{0}` is missing")]
    Missing(Key),
    /// An object is not what the checkpoint says.
    #[error("`{key}` doesn't belong to the tree of the checkpoint: {problem}")]
    Wrong {
        /// The object.
        key: Key,
        /// What is wrong with it.
        problem: String,
    },
    /// The tiles together are not the tree of the checkpoint.
    #[error("the tiles are not the tree of the checkpoint")]
    Tree(#[from] ProofError),
}

/// A log as of one checkpoint. What it gives was verified against the checkpoint's root.
#[derive(Clone)]
pub struct Reader {
    source: Arc<dyn TileSource>,
    head: TreeHead,
}

impl Reader {
    /// Reads from `source` under this head.
    #[must_use]
    pub const fn new(source: Arc<dyn TileSource>, head: TreeHead) -> Self {
        Self { source, head }
    }

    /// The head.
    #[must_use]
    pub const fn head(&self) -> &TreeHead {
        &self.head
    }

    /// The leaf hash at `index`, and its proof.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn inclusion(&self, index: EntryIndex) -> Result<(Hash, InclusionProof), ReadError> {
        self.compute(tiles_for_inclusion(index, self.head.size), |tree| tree.inclusion(index)).await
    }

    /// The head that the tree had at size `old`, and the proof from there.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn consistency(&self, old: TreeSize) -> Result<(TreeHead, ConsistencyProof), ReadError> {
        self.compute(tiles_for_consistency(old..self.head.size), |tree| tree.consistency(old)).await
    }

    /// The entry at `index`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn entry(&self, index: EntryIndex) -> Result<Bytes, ReadError> {
        let size = self.head.size;
        let beyond = || ReadError::Tree(ProofError::OutOfTree { index, size });
        let id = EntryBundleId::of_entry(index, size).ok_or_else(beyond)?;
        let position = usize::try_from(index.get() % 256).unwrap_or(usize::MAX);
        self.bundle(id).await?.into_iter().nth(position).ok_or_else(beyond)
    }

    /// Gives each entry of `range` (cut at the tree's end) to `visit`, in order, until it breaks.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn entries(
        &self,
        range: Range<EntryIndex>,
        visit: &mut (dyn FnMut(EntryIndex, &Bytes) -> ControlFlow<()> + Send),
    ) -> Result<(), ReadError> {
        let end = range.end.get().min(self.head.size.get());
        let first = range.start.get();
        if first >= end {
            return Ok(());
        }
        let ids = (first / 256..end.div_ceil(256))
            .filter_map(|index| EntryBundleId::of_entry(EntryIndex::new(index * 256), self.head.size));
        let read = |id| async move { Ok::<_, ReadError>((id, self.bundle(id).await?)) };
        let mut bundles = stream::iter(ids).map(read).buffered(BUNDLES_AT_ONCE);
        while let Some((id, entries)) = bundles.try_next().await? {
            for (entry, index) in entries.iter().zip(id.index() * 256..) {
                if (first..end).contains(&index) && visit(EntryIndex::new(index), entry).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The right edge of the tree, from which it grows.
    ///
    /// # Errors
    /// [`ReadError`].
    #[expect(clippy::redundant_closure, reason = "the function itself is not general over lifetimes")]
    pub async fn edge(&self) -> Result<TreeEdge, ReadError> {
        self.compute(tiles_for_edge(self.head.size), |tree| TreeEdge::load(tree)).await
    }

    /// The entries of a bundle, each checked against the tree.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn bundle(&self, id: EntryBundleId) -> Result<Vec<Bytes>, ReadError> {
        let tile = id.tile();
        let hashes = self.compute(self.tiles_around(tile), |tree| tree.tile(tile).map(<[u8]>::to_vec)).await?;
        let (key, bytes) = self.fetch_bundle(id).await?;
        check_bundle(id, &bytes, &hashes).map_err(|problem| ReadError::Wrong { key, problem })
    }

    /// A tile as the source has it, checked for its length only.
    pub(crate) async fn unchecked_tile(&self, tile: TileId) -> Result<Bytes, ReadError> {
        self.fetch_tile(tile).await
    }

    /// Reads everything that a log writes when it grows from `old` to this head, and computes
    /// the tree from it: entries to leaf hashes to tiles to the root.
    pub(crate) async fn read_back(&self, old: TreeHead) -> Result<(), ReadError> {
        let edge = Self::new(Arc::clone(&self.source), old).edge().await?;
        let growth = || old.size..self.head.size;
        let leaves = |id| async move { Ok::<_, ReadError>((id, self.leaves(id).await?)) };
        let bundles: Vec<(EntryBundleId, Vec<Hash>)> =
            stream::iter(bundles_for_growth(growth())).map(leaves).buffered(REQUESTS_MAX).try_collect().await?;
        let wanted: BTreeSet<TileId> = tiles_for_growth(growth()).chain(tiles_for_edge(self.head.size)).collect();
        let fetch = |id| async move { Ok::<_, ReadError>((id, self.fetch_tile(id).await?)) };
        let tiles: BTreeMap<_, _> = stream::iter(wanted).map(fetch).buffered(REQUESTS_MAX).try_collect().await?;
        let head = self.head;
        hashing(layout::checkpoint(), move || check_growth(edge, &bundles, &tiles, head)).await
    }

    /// The leaf hashes of a bundle's entries, as it lies in its place.
    async fn leaves(&self, id: EntryBundleId) -> Result<Vec<Hash>, ReadError> {
        let (key, bytes) = self.fetch_exactly(layout::bundle(id)).await?;
        let object = key.clone();
        let hash = move || match decode_bundle(id, &bytes) {
            Ok(entries) => Ok(entries.into_iter().map(leaf_hash).collect()),
            Err(error) => Err(ReadError::Wrong { key, problem: error.to_string() }),
        };
        hashing(object, hash).await
    }

    /// Runs a computation on the tiles it is known to need, and fetches what else it asks for.
    async fn compute<T>(
        &self,
        tiles: BTreeSet<TileId>,
        computation: impl for<'a> Fn(&Tree<&'a TileSet>) -> Result<T, TreeError<<&'a TileSet as tlog::TileReader>::Error>>,
    ) -> Result<T, ReadError> {
        let mut set = TileSet::new();
        let mut wanted: Vec<TileId> = tiles.into_iter().collect();
        loop {
            let fetch = |id| async move { Ok::<_, ReadError>((id, self.fetch_tile(id).await?)) };
            let found: Vec<_> = stream::iter(wanted).map(fetch).buffered(REQUESTS_MAX).try_collect().await?;
            found.into_iter().for_each(|(id, bytes)| set.insert(id, bytes.to_vec()));
            match computation(&Tree::new(&set, self.head)) {
                Ok(answer) => return Ok(answer),
                // Each round adds a tile that was missing, and a proof needs few.
                Err(TreeError::Read { tile, .. }) => wanted = vec![tile],
                Err(TreeError::Length { tile, found }) => {
                    return Err(ReadError::Wrong { key: layout::tile(tile), problem: format!("it has {found} bytes") });
                }
                Err(TreeError::Proof(error)) => return Err(error.into()),
            }
        }
    }

    fn tiles_around(&self, tile: TileId) -> BTreeSet<TileId> {
        let mut tiles = tiles_for_inclusion(tile.entries().start, self.head.size);
        tiles.insert(tile);
        tiles
    }

    /// A tile, or the first hashes of the full one that has replaced it.
    async fn fetch_tile(&self, id: TileId) -> Result<Bytes, ReadError> {
        let key = layout::tile(id);
        if let Some(bytes) = self.source.get(&key).await? {
            return if bytes.len() == id.bytes() {
                Ok(bytes)
            } else {
                Err(ReadError::Wrong { key, problem: format!("it has {} bytes", bytes.len()) })
            };
        }
        let Some(full) = id.full().filter(|full| *full != id) else { return Err(ReadError::Missing(key)) };
        match self.source.get(&layout::tile(full)).await? {
            Some(bytes) if bytes.len() == full.bytes() => Ok(bytes.slice(..id.bytes())),
            Some(bytes) => {
                Err(ReadError::Wrong { key: layout::tile(full), problem: format!("it has {} bytes", bytes.len()) })
            }
            None => Err(ReadError::Missing(key)),
        }
    }

    async fn fetch_exactly(&self, key: Key) -> Result<(Key, Bytes), ReadError> {
        match self.source.get(&key).await? {
            Some(bytes) => Ok((key, bytes)),
            None => Err(ReadError::Missing(key)),
        }
    }

    async fn fetch_bundle(&self, id: EntryBundleId) -> Result<(Key, Bytes), ReadError> {
        match self.fetch_exactly(layout::bundle(id)).await {
            Err(ReadError::Missing(key)) => {
                match id.tile().full().and_then(TileId::bundle).filter(|full| *full != id) {
                    Some(full) => self.fetch_exactly(layout::bundle(full)).await.map_err(|error| match error {
                        ReadError::Missing(_) => ReadError::Missing(key),
                        error => error,
                    }),
                    None => Err(ReadError::Missing(key)),
                }
            }
            outcome => outcome,
        }
    }
}

/// The old edge, grown by the leaf hashes of these bundles, has this head and these tiles.
fn check_growth(
    mut edge: TreeEdge,
    bundles: &[(EntryBundleId, Vec<Hash>)],
    tiles: &BTreeMap<TileId, Bytes>,
    expected: TreeHead,
) -> Result<(), ReadError> {
    let mut computed = TileSet::new();
    for (id, leaves) in bundles {
        // The tree had the first entries of the first bundle before.
        let before = edge.size().get().saturating_sub(id.tile().entries().start.get());
        for leaf in leaves.iter().skip(usize::try_from(before).unwrap_or(usize::MAX)) {
            edge.append(leaf, |tile, bytes| computed.insert(tile, bytes.to_vec()));
        }
    }
    edge.partial_tiles().for_each(|(tile, bytes)| computed.insert(tile, bytes.to_vec()));
    for (id, leaves) in bundles {
        let tile = tiles.get(&id.tile()).map_or(&[][..], |bytes| bytes.as_chunks::<32>().0);
        let differs = |(leaf, hash): (&Hash, &[u8; 32])| leaf.as_bytes() != hash;
        if let Some(position) = leaves.iter().zip(tile).position(differs) {
            let problem = format!("the entry at position {position} doesn't have the hash in the tile");
            return Err(ReadError::Wrong { key: layout::bundle(*id), problem });
        }
    }
    if edge.head() != expected {
        return Err(ProofError::Root { computed: edge.root(), expected: expected.root }.into());
    }
    match computed.iter().find(|(tile, bytes)| tiles.get(tile).is_some_and(|found| found != bytes)) {
        Some((tile, _)) => Err(ReadError::Wrong {
            key: layout::tile(tile),
            problem: "its hashes are not those of the entries below it".to_owned(),
        }),
        None => Ok(()),
    }
}

/// Hashing a bundle takes up to 9 ms, and the bundles of a batch share the cores: no work for an
/// async thread.
async fn hashing<T: Send + 'static>(
    key: Key,
    work: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ReadError> {
    // It is lost only with the runtime.
    let lost = |_| SourceError { key, reason: "the process ends".to_owned(), class: Class::Unavailable };
    tokio::task::spawn_blocking(work).await.map_err(lost)?
}

/// The entries of a bundle (or the first of the full one in its place) if they have these leaf
/// hashes; else what is wrong.
fn check_bundle(id: EntryBundleId, bytes: &Bytes, hashes: &[u8]) -> Result<Vec<Bytes>, String> {
    let full = || EntryBundleId::new(id.index(), tlog::TILE_WIDTH).ok().map(|full| decode_bundle(full, bytes));
    let entries = match (decode_bundle(id, bytes), full()) {
        (Ok(entries), _) | (Err(_), Some(Ok(entries))) => entries,
        (Err(error), _) => return Err(error.to_string()),
    };
    let (hashes, _) = hashes.as_chunks::<32>();
    let entries = entries.into_iter().take(usize::from(id.width()));
    let check = |(position, (entry, hash)): (usize, (&[u8], &[u8; 32]))| {
        if leaf_hash(entry).as_bytes() == hash {
            Ok(bytes.slice_ref(entry))
        } else {
            Err(format!("the entry at position {position} doesn't have the hash in the tile"))
        }
    };
    entries.zip(hashes).enumerate().map(check).collect()
}
