//! The right edge of a growing tree: what a log keeps in memory to write tiles.

use super::{TileReader, Tree, TreeError, hashes_of, read, subtree_root, tiles_for_edge};
use crate::tile::TILE_WIDTH;
use crate::{Hash, ProofError, TileId, TreeHead, TreeSize, empty_root, node_hash};

/// The partial tile of each level. Appending costs one hash on average and gives each tile that
/// it fills; at most 8 × 255 hashes are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeEdge {
    size: u64,
    rows: Vec<Vec<[u8; 32]>>,
}

impl TreeEdge {
    /// The edge of the empty tree.
    #[must_use]
    pub const fn new() -> Self {
        Self { size: 0, rows: Vec::new() }
    }

    /// Reads the edge of the tree with this head from the tiles of
    /// [`tiles_for_edge`](crate::tiles_for_edge), and checks its root.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn load<R: TileReader>(tree: &Tree<R>) -> Result<Self, TreeError<R::Error>> {
        let TreeHead { size, root: expected } = *tree.head();
        // Trees above 2^62 entries can't be proven to have grown; so `append` never overflows.
        if size.get() > 1 << 62 {
            return Err(ProofError::TooLong(64).into());
        }
        let mut edge = Self { size: size.get(), rows: Vec::new() };
        for tile in tiles_for_edge(size) {
            let bytes = read(&tree.reader, tile)?;
            edge.row(usize::from(tile.level())).extend_from_slice(hashes_of(bytes.as_ref(), tile));
        }
        let computed = edge.root();
        if computed == expected { Ok(edge) } else { Err(ProofError::Root { computed, expected }.into()) }
    }

    /// Appends an entry by its leaf hash, and hands each tile that becomes full to `full`.
    pub fn append(&mut self, leaf: &Hash, mut full: impl FnMut(TileId, &[u8])) {
        let mut hash = *leaf.as_bytes();
        let mut row_end = self.size + 1;
        self.size = row_end;
        for level in 0..crate::tile::LEVELS {
            let row = self.row(usize::from(level));
            row.push(hash);
            if row.len() < usize::from(TILE_WIDTH) {
                return;
            }
            let index = row_end / 256 - 1;
            let tile = TileId::new(level, index, TILE_WIDTH).expect("the tree has at most 2^62 entries");
            full(tile, row.as_flattened());
            hash = *subtree_root(row).as_bytes();
            row.clear();
            row_end /= 256;
        }
    }

    /// The partial tiles, lowest level first.
    pub fn partial_tiles(&self) -> impl Iterator<Item = (TileId, &[u8])> {
        self.rows.iter().zip(0_u8..).filter_map(|(row, level)| {
            let index = (self.size >> (8 * u32::from(level))) / 256;
            let tile = TileId::in_tree(level, index, TreeSize::new(self.size))?;
            Some((tile, row.as_flattened()))
        })
    }

    /// How many entries.
    #[must_use]
    pub const fn size(&self) -> TreeSize {
        TreeSize::new(self.size)
    }

    /// Their root.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut root: Option<Hash> = None;
        for row in &self.rows {
            // From the right: each one bit of the width is a perfect subtree.
            let mut rest = row.as_slice();
            while !rest.is_empty() {
                let (before, perfect) = rest.split_at(rest.len() - (1 << rest.len().trailing_zeros()));
                let left = subtree_root(perfect);
                root = Some(root.map_or(left, |right| node_hash(&left, &right)));
                rest = before;
            }
        }
        root.unwrap_or(empty_root())
    }

    /// Size and root.
    #[must_use]
    pub fn head(&self) -> TreeHead {
        TreeHead { size: self.size(), root: self.root() }
    }

    fn row(&mut self, level: usize) -> &mut Vec<[u8; 32]> {
        if self.rows.len() <= level {
            self.rows.resize_with(level + 1, || Vec::with_capacity(usize::from(TILE_WIDTH)));
        }
        self.rows.get_mut(level).expect("the row was just made")
    }
}
