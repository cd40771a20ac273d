//! Which nodes a root or a proof consists of.

use std::ops::Range;

use crate::{TileId, TreeSize};

/// The entries from `start` to `end` (excluded) of a tree, where `start` is a multiple of the
/// smallest power of two that is not below their number: the shape of every node of a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Span {
    /// The perfect subtrees that make up this span, left to right: the one bits of its length.
    pub(super) fn nodes(self) -> impl DoubleEndedIterator<Item = Node> {
        let length = self.end - self.start;
        (0..64_u8).rev().filter(move |level| length >> level & 1 == 1).map(move |level| {
            // What lies left of it is the length without this and lower bits.
            let before = length >> level & !1;
            Node { level, index: (self.start >> level) + before }
        })
    }

    /// Where RFC 6962 splits: the largest power of two below the length.
    const fn split(self) -> (Self, Self) {
        let length = self.end - self.start;
        let middle = self.start + (1 << (length - 1).ilog2());
        (Self { start: self.start, end: middle }, Self { start: middle, end: self.end })
    }
}

/// The root of the entries `index`·2^`level` to (`index`+1)·2^`level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) level: u8,
    pub(super) index: u64,
}

impl Node {
    /// The tile of a tree of `size` that this node is computed from.
    pub(super) fn tile(self, size: TreeSize) -> Option<TileId> {
        TileId::in_tree(self.level / 8, self.index >> (8 - self.level % 8), size)
    }

    /// The tile's hashes below this node.
    pub(super) fn range_in_tile(self) -> Range<usize> {
        let height = self.level % 8;
        // At most 256 >> height nodes of this height are in a tile.
        let first = usize::try_from(self.index & ((256 >> height) - 1)).unwrap_or(0) << height;
        first..first + (1 << height)
    }
}

/// RFC 6962, section 2.1.1: the siblings on the way from entry `index` to the root, leaf first.
/// The caller has checked `index < size`.
pub(super) fn inclusion_spans(index: u64, size: u64) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut tree = Span { start: 0, end: size };
    while tree.end - tree.start > 1 {
        let (left, right) = tree.split();
        let (inside, sibling) = if index < left.end { (left, right) } else { (right, left) };
        spans.push(sibling);
        tree = inside;
    }
    spans.reverse();
    spans
}

/// RFC 6962, section 2.1.2, for any subtree (draft-ietf-plants-merkle-tree-certs-03, section
/// 4.4): from `subtree` to the tree of `size`. The caller has checked `subtree.end <= size`.
pub(super) fn consistency_spans(subtree: Span, size: u64) -> Vec<Span> {
    let mut spans = Vec::new();
    if subtree.start == subtree.end {
        return spans;
    }
    let mut wanted = subtree;
    let mut tree = Span { start: 0, end: size };
    while wanted != tree {
        let (left, right) = tree.split();
        if wanted.end <= left.end {
            spans.push(right);
            tree = left;
        } else if wanted.start >= right.start {
            spans.push(left);
            tree = right;
        } else {
            // A subtree across the split begins where the tree does; its left half is known.
            spans.push(left);
            tree = right;
            wanted = Span { start: right.start, end: wanted.end };
        }
    }
    // A node that is not the whole subtree is unknown to the verifier.
    if wanted != subtree {
        spans.push(tree);
    }
    spans.reverse();
    spans
}
