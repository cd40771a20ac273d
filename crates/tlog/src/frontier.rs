//! The least state that a tree can grow from.

use crate::{Hash, TreeHead, TreeSize, empty_root, node_hash};

/// The roots of the perfect subtrees that a tree consists of, largest first (a compact range).
/// Appending costs one hash on average, the root at most 63.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    nodes: Vec<Hash>,
}

impl Frontier {
    /// The empty tree.
    #[must_use]
    pub const fn new() -> Self {
        Self { size: 0, nodes: Vec::new() }
    }

    /// Appends an entry by its leaf hash.
    pub fn append(&mut self, leaf: &Hash) {
        let mut node = *leaf;
        // Each trailing one bit of the size is a perfect subtree that this entry completes.
        for _ in 0..self.size.trailing_ones() {
            let left = self.nodes.pop().expect("one node for each one bit of the size");
            node = node_hash(&left, &node);
        }
        self.nodes.push(node);
        self.size += 1;
    }

    /// How many entries.
    #[must_use]
    pub const fn size(&self) -> TreeSize {
        TreeSize::new(self.size)
    }

    /// Their root.
    #[must_use]
    pub fn root(&self) -> Hash {
        let right_to_left = self.nodes.iter().rev().copied();
        right_to_left.reduce(|right, left| node_hash(&left, &right)).unwrap_or(empty_root())
    }

    /// Size and root.
    #[must_use]
    pub fn head(&self) -> TreeHead {
        TreeHead { size: self.size(), root: self.root() }
    }
}

impl Extend<Hash> for Frontier {
    fn extend<I: IntoIterator<Item = Hash>>(&mut self, leaves: I) {
        leaves.into_iter().for_each(|leaf| self.append(&leaf));
    }
}

impl FromIterator<Hash> for Frontier {
    fn from_iter<I: IntoIterator<Item = Hash>>(leaves: I) -> Self {
        let mut frontier = Self::new();
        frontier.extend(leaves);
        frontier
    }
}
