//! Roots and proofs computed from tiles, and tiles computed from entries.

mod edge;
mod span;

pub use edge::TreeEdge;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::ops::Range;

use self::span::{Node, Span, consistency_spans, inclusion_spans};
use crate::hash::node_hash;
use crate::{
    ConsistencyProof, EntryIndex, Growth, Hash, InclusionProof, ProofError, Subtree, TileId, TreeHead, TreeSize,
    empty_root,
};

/// Where tiles are read from. What it gives is not trusted: a [`Tree`] checks it.
pub trait TileReader {
    /// A tile's content.
    type Bytes: AsRef<[u8]>;
    /// Why a tile could not be read.
    type Error: Error + 'static;

    /// The hashes of `tile`, 32 bytes each. In place of a partial tile the full one will do.
    ///
    /// # Errors
    /// When there is no such tile, or it can't be read.
    fn tile(&self, tile: TileId) -> Result<Self::Bytes, Self::Error>;
}

/// Why tiles gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum TreeError<E: Error + 'static> {
    /// A tile could not be read.
    #[error("{tile} can't be read")]
    Read {
        /// The tile.
        tile: TileId,
        /// Why.
        source: E,
    },
    /// A tile has a wrong number of bytes.
    #[error("{tile} has {found} bytes, expected {}", tile.bytes())]
    Length {
        /// The tile.
        tile: TileId,
        /// Its length.
        found: usize,
    },
    /// The tiles are not those of this tree, or the tree has no such entry or size.
    #[error("the tiles do not belong to the tree")]
    Proof(#[from] ProofError),
}

/// A tree that stands in tiles.
///
/// Whatever it answers has been verified against the head, so a damaged or forged tile gives an
/// error, never a wrong answer.
#[derive(Clone, Debug)]
pub struct Tree<R> {
    reader: R,
    head: TreeHead,
}

impl<R: TileReader> Tree<R> {
    /// The tree with this head, whose tiles `reader` reads. Nothing is read yet.
    #[must_use]
    pub const fn new(reader: R, head: TreeHead) -> Self {
        Self { reader, head }
    }

    /// The head.
    #[must_use]
    pub const fn head(&self) -> &TreeHead {
        &self.head
    }

    /// Computes the root from the tiles of [`tiles_for_root`] and compares it.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn check_root(&self) -> Result<(), TreeError<R::Error>> {
        let computed = self.nodes().span(Span { start: 0, end: self.head.size.get() })?;
        let expected = self.head.root;
        if computed == expected { Ok(()) } else { Err(ProofError::Root { computed, expected }.into()) }
    }

    /// The leaf hash at `index`, and its proof, from the tiles of [`tiles_for_inclusion`].
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn inclusion(&self, index: EntryIndex) -> Result<(Hash, InclusionProof), TreeError<R::Error>> {
        let size = self.head.size;
        if index.get() >= size.get() {
            return Err(ProofError::OutOfTree { index, size }.into());
        }
        let mut nodes = self.nodes();
        let leaf = nodes.node(Node { level: 0, index: index.get() })?;
        let hashes = inclusion_spans(index.get(), size.get()).into_iter().map(|span| nodes.span(span));
        let proof = InclusionProof::new(hashes.collect::<Result<_, _>>()?)?;
        proof.verify(index, &leaf, &self.head)?;
        Ok((leaf, proof))
    }

    /// The head that the tree had at size `old`, and the proof from there, from the tiles of
    /// [`tiles_for_consistency`].
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn consistency(&self, old: TreeSize) -> Result<(TreeHead, ConsistencyProof), TreeError<R::Error>> {
        let new = self.head.size;
        if old > new {
            return Err(ProofError::Shrinks { old, new }.into());
        }
        let mut nodes = self.nodes();
        let span = Span { start: 0, end: old.get() };
        let old = TreeHead { size: old, root: nodes.span(span)? };
        let hashes = consistency_spans(span, new.get()).into_iter().map(|span| nodes.span(span));
        let proof = ConsistencyProof::new(hashes.collect::<Result<_, _>>()?)?;
        proof.verify(Growth { old: &old, new: &self.head })?;
        Ok((old, proof))
    }

    /// The content of the tile of this level and index, checked against the head.
    ///
    /// # Errors
    /// [`TreeError`]; a tile that the tree doesn't have is out of it.
    pub fn tile(&self, tile: TileId) -> Result<R::Bytes, TreeError<R::Error>> {
        let Range { start, end } = tile.entries();
        if end.get() > self.head.size.get() {
            return Err(ProofError::OutOfTree { index: end, size: self.head.size }.into());
        }
        let bytes = read(&self.reader, tile)?;
        let root = subtree_root(hashes_of(bytes.as_ref(), tile));
        let span = Span { start: start.get(), end: end.get() };
        let mut nodes = self.nodes();
        let hashes = consistency_spans(span, self.head.size.get()).into_iter().map(|span| nodes.span(span));
        let proof = ConsistencyProof::new(hashes.collect::<Result<_, _>>()?)?;
        proof.verify_subtree(&Subtree::new(span.start..span.end, root)?, &self.head)?;
        Ok(bytes)
    }

    const fn nodes(&self) -> Nodes<'_, R> {
        Nodes { reader: &self.reader, size: self.head.size, last: None }
    }
}

/// The tiles that [`Tree::check_root`] reads.
#[must_use]
pub fn tiles_for_root(size: TreeSize) -> BTreeSet<TileId> {
    tiles_of([Span { start: 0, end: size.get() }], size)
}

/// The tiles that [`Tree::inclusion`] reads; none if the entry lies beyond the tree.
#[must_use]
pub fn tiles_for_inclusion(index: EntryIndex, size: TreeSize) -> BTreeSet<TileId> {
    if index.get() >= size.get() {
        return BTreeSet::new();
    }
    let leaf = Span { start: index.get(), end: index.get() + 1 };
    tiles_of(inclusion_spans(index.get(), size.get()).into_iter().chain([leaf]), size)
}

/// The tiles that [`Tree::consistency`] reads to prove growth from `start` to `end`.
#[must_use]
pub fn tiles_for_consistency(sizes: Range<TreeSize>) -> BTreeSet<TileId> {
    if sizes.start > sizes.end {
        return BTreeSet::new();
    }
    let old = Span { start: 0, end: sizes.start.get() };
    tiles_of(consistency_spans(old, sizes.end.get()).into_iter().chain([old]), sizes.end)
}

/// The tiles that [`TreeEdge::load`] reads: the partial tile of each level that has one.
#[must_use]
pub fn tiles_for_edge(size: TreeSize) -> BTreeSet<TileId> {
    (0..crate::tile::LEVELS)
        .filter_map(|level| TileId::in_tree(level, (size.get() >> (8 * u32::from(level))) / 256, size))
        .collect()
}

fn tiles_of(spans: impl IntoIterator<Item = Span>, size: TreeSize) -> BTreeSet<TileId> {
    spans.into_iter().flat_map(Span::nodes).filter_map(|node| node.tile(size)).collect()
}

/// Tiles in memory, to be filled with what `tiles_for_…` names.
#[derive(Clone, Debug, Default)]
pub struct TileSet(BTreeMap<TileId, Vec<u8>>);

/// A tile that is not in the set.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0} is missing")]
pub struct MissingTile(TileId);

impl TileSet {
    /// No tiles.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Adds or replaces a tile.
    pub fn insert(&mut self, tile: TileId, bytes: Vec<u8>) {
        self.0.insert(tile, bytes);
    }

    /// All tiles, by level, index and width.
    pub fn iter(&self) -> impl Iterator<Item = (TileId, &[u8])> {
        self.0.iter().map(|(tile, bytes)| (*tile, bytes.as_slice()))
    }
}

impl<'a> TileReader for &'a TileSet {
    type Bytes = &'a [u8];
    type Error = MissingTile;

    fn tile(&self, tile: TileId) -> Result<&'a [u8], MissingTile> {
        let full = || tile.full().and_then(|full| self.0.get(&full));
        self.0.get(&tile).or_else(full).map(Vec::as_slice).ok_or(MissingTile(tile))
    }
}

/// Computes nodes from tiles. A proof asks for several nodes of one tile in a row, so the last
/// tile is kept.
struct Nodes<'a, R: TileReader> {
    reader: &'a R,
    size: TreeSize,
    last: Option<(TileId, R::Bytes)>,
}

impl<R: TileReader> Nodes<'_, R> {
    /// The root of the entries in `span`.
    fn span(&mut self, span: Span) -> Result<Hash, TreeError<R::Error>> {
        let mut root = None;
        for node in span.nodes().rev() {
            let left = self.node(node)?;
            root = Some(root.map_or(left, |right| node_hash(&left, &right)));
        }
        Ok(root.unwrap_or(empty_root()))
    }

    fn node(&mut self, node: Node) -> Result<Hash, TreeError<R::Error>> {
        let out_of_tree = || ProofError::OutOfTree { index: EntryIndex::new(node.index), size: self.size };
        let tile = node.tile(self.size).ok_or_else(out_of_tree)?;
        let bytes = match self.last.take() {
            Some((last, bytes)) if last == tile => bytes,
            _ => read(self.reader, tile)?,
        };
        let range = node.range_in_tile();
        let hashes = hashes_of(bytes.as_ref(), tile).get(range);
        // A tile of a tree of this size has all nodes that `node.tile` found in it.
        let root = subtree_root(hashes.ok_or_else(out_of_tree)?);
        self.last = Some((tile, bytes));
        Ok(root)
    }
}

/// Reads a tile of the right length, or the full one in its place.
fn read<R: TileReader>(reader: &R, tile: TileId) -> Result<R::Bytes, TreeError<R::Error>> {
    let bytes = reader.tile(tile).map_err(|source| TreeError::Read { tile, source })?;
    let found = bytes.as_ref().len();
    if found == tile.bytes() || found == 256 * 32 { Ok(bytes) } else { Err(TreeError::Length { tile, found }) }
}

/// The hashes of a tile, as many as its width says.
fn hashes_of(bytes: &[u8], tile: TileId) -> &[[u8; 32]] {
    let (hashes, _) = bytes.as_chunks::<32>();
    hashes.get(..usize::from(tile.width())).unwrap_or(hashes)
}

/// The root of up to 256 hashes.
fn subtree_root(hashes: &[[u8; 32]]) -> Hash {
    match hashes {
        [] => empty_root(),
        [one] => Hash::from_bytes(*one),
        _ => {
            let (left, right) = hashes.split_at(hashes.len().next_power_of_two() / 2);
            node_hash(&subtree_root(left), &subtree_root(right))
        }
    }
}
