//! Inclusion and consistency proofs (RFC 6962, sections 2.1.1 and 2.1.2), and those of subtrees
//! (draft-ietf-plants-merkle-tree-certs-03, section 4). Verifying allocates nothing.

use crate::{EntryIndex, Hash, TreeSize, empty_root, node_hash};

/// The witness protocol's limit. A proof in a tree of n entries has at most 1 + log2(n) hashes,
/// so trees of up to 2^62 entries can be proven.
pub const MAX_PROOF_HASHES: usize = 63;

/// Why a proof was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProofError {
    /// More hashes than [`MAX_PROOF_HASHES`].
    #[error("the proof has {0} hashes, the limit is {MAX_PROOF_HASHES}")]
    TooLong(usize),
    /// The entry lies beyond the tree.
    #[error("entry {index} lies beyond the tree of size {size}")]
    OutOfTree {
        /// The entry.
        index: EntryIndex,
        /// The tree.
        size: TreeSize,
    },
    /// The tree would shrink.
    #[error("a tree can't grow from size {old} to size {new}")]
    Shrinks {
        /// The size before.
        old: TreeSize,
        /// The size after.
        new: TreeSize,
    },
    /// The range is not the range of a subtree.
    #[error("entries {start} to {end} (excluded) are not a subtree")]
    NotASubtree {
        /// The first entry.
        start: u64,
        /// One after the last.
        end: u64,
    },
    /// Too few or too many hashes for these sizes.
    #[error("the proof has a wrong number of hashes: {0}")]
    Length(usize),
    /// The proof computes another old root: it is not about that tree.
    #[error("the proof gives {computed} for the old tree, expected {expected}")]
    OldRoot {
        /// What the proof gives.
        computed: Hash,
        /// The root that was to be proven.
        expected: Hash,
    },
    /// The proof computes another root.
    #[error("the proof gives {computed} for the tree, expected {expected}")]
    Root {
        /// What the proof gives.
        computed: Hash,
        /// The root that was to be proven.
        expected: Hash,
    },
}

/// The size of a tree and its root; one is meaningless without the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TreeHead {
    /// How many entries.
    pub size: TreeSize,
    /// Their root.
    pub root: Hash,
}

impl TreeHead {
    /// The tree without entries.
    pub const EMPTY: Self = Self { size: TreeSize::ZERO, root: empty_root() };
}

/// A tree before and after it grew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth<'a> {
    /// The smaller (or equal) tree.
    pub old: &'a TreeHead,
    /// The larger tree.
    pub new: &'a TreeHead,
}

/// The hashes beside the path from a leaf up to the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InclusionProof(Vec<Hash>);

impl InclusionProof {
    /// These hashes, from the leaf's sibling upwards.
    ///
    /// # Errors
    /// [`ProofError::TooLong`].
    pub fn new(hashes: Vec<Hash>) -> Result<Self, ProofError> {
        check_length(hashes).map(Self)
    }

    /// The hashes, from the leaf's sibling upwards.
    #[must_use]
    pub fn hashes(&self) -> &[Hash] {
        &self.0
    }

    /// Checks that the entry with this leaf hash stands at `index` in the tree.
    ///
    /// # Errors
    /// [`ProofError`] saying what differs.
    pub fn verify(&self, index: EntryIndex, leaf: &Hash, tree: &TreeHead) -> Result<(), ProofError> {
        if index.get() >= tree.size.get() {
            return Err(ProofError::OutOfTree { index, size: tree.size });
        }
        let computed = self.root(index.get(), tree.size.get(), leaf)?;
        if computed == tree.root { Ok(()) } else { Err(ProofError::Root { computed, expected: tree.root }) }
    }

    /// Checks that the entry at `index` of the whole tree stands in `subtree` (draft section 4.3).
    ///
    /// # Errors
    /// [`ProofError`] saying what differs.
    pub fn verify_in_subtree(&self, index: EntryIndex, leaf: &Hash, subtree: &Subtree) -> Result<(), ProofError> {
        if index.get() < subtree.start || index.get() >= subtree.end {
            return Err(ProofError::OutOfTree { index, size: TreeSize::new(subtree.end) });
        }
        let computed = self.root(index.get() - subtree.start, subtree.end - subtree.start, leaf)?;
        if computed == subtree.root { Ok(()) } else { Err(ProofError::Root { computed, expected: subtree.root }) }
    }

    /// RFC 9162, section 2.1.3.2; the caller has checked `index < size`.
    fn root(&self, index: u64, size: u64, leaf: &Hash) -> Result<Hash, ProofError> {
        let wrong_length = || ProofError::Length(self.0.len());
        let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
        for sibling in &self.0 {
            if last == 0 {
                return Err(wrong_length());
            }
            if node & 1 == 1 || node == last {
                hash = node_hash(sibling, &hash);
                while node & 1 == 0 && node != 0 {
                    node >>= 1;
                    last >>= 1;
                }
            } else {
                hash = node_hash(&hash, sibling);
            }
            node >>= 1;
            last >>= 1;
        }
        if last == 0 { Ok(hash) } else { Err(wrong_length()) }
    }
}

/// The hashes that lead from an old root, or a subtree's, to a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsistencyProof(Vec<Hash>);

impl ConsistencyProof {
    /// These hashes, in the order of RFC 6962.
    ///
    /// # Errors
    /// [`ProofError::TooLong`].
    pub fn new(hashes: Vec<Hash>) -> Result<Self, ProofError> {
        check_length(hashes).map(Self)
    }

    /// The proof without hashes: from size 0, and between equal trees.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Vec::new())
    }

    /// The hashes, in the order of RFC 6962.
    #[must_use]
    pub fn hashes(&self) -> &[Hash] {
        &self.0
    }

    /// Checks that the new tree begins with all entries of the old one. From size 0 only the
    /// empty proof is accepted, and only for the empty tree's root; so for equal sizes.
    ///
    /// # Errors
    /// [`ProofError`] saying what differs.
    pub fn verify(&self, growth: Growth<'_>) -> Result<(), ProofError> {
        let Growth { old, new } = growth;
        if old.size > new.size {
            return Err(ProofError::Shrinks { old: old.size, new: new.size });
        }
        if new.size.is_zero() && new.root != empty_root() {
            return Err(ProofError::Root { computed: empty_root(), expected: new.root });
        }
        self.verify_subtree(&Subtree { start: 0, end: old.size.get(), root: old.root }, new)
    }

    /// Checks that `subtree` is part of the tree (draft section 4.4). The empty subtree is part
    /// of every tree that reaches its start.
    ///
    /// # Errors
    /// [`ProofError`] saying what differs.
    pub fn verify_subtree(&self, subtree: &Subtree, tree: &TreeHead) -> Result<(), ProofError> {
        let wrong_length = || ProofError::Length(self.0.len());
        if subtree.end > tree.size.get() {
            return Err(ProofError::Shrinks { old: TreeSize::new(subtree.end), new: tree.size });
        }
        if subtree.start == subtree.end {
            return match self.0.is_empty() {
                false => Err(wrong_length()),
                true if subtree.root == empty_root() => Ok(()),
                true => Err(ProofError::OldRoot { computed: empty_root(), expected: subtree.root }),
            };
        }
        let mut path = Path { first: subtree.start, node: subtree.end - 1, last: tree.size.get() - 1 };
        path.skip_to_subtree();
        let mut hashes = self.0.iter();
        let seed = if path.first == path.node { &subtree.root } else { hashes.next().ok_or_else(wrong_length)? };
        let (mut old, mut new) = (*seed, *seed);
        for sibling in hashes {
            if path.last == 0 {
                return Err(wrong_length());
            }
            if path.node & 1 == 1 || path.node == path.last {
                if path.first < path.node {
                    old = node_hash(sibling, &old);
                }
                new = node_hash(sibling, &new);
                while path.node & 1 == 0 && path.node != 0 {
                    path.up();
                }
            } else {
                new = node_hash(&new, sibling);
            }
            path.up();
        }
        if path.last != 0 {
            return Err(wrong_length());
        }
        if old != subtree.root {
            return Err(ProofError::OldRoot { computed: old, expected: subtree.root });
        }
        if new == tree.root { Ok(()) } else { Err(ProofError::Root { computed: new, expected: tree.root }) }
    }
}

/// Where a verifier stands: the nodes of the subtree's first and last entry and of the tree's
/// last entry, all on one level.
struct Path {
    first: u64,
    node: u64,
    last: u64,
}

impl Path {
    const fn up(&mut self) {
        self.first >>= 1;
        self.node >>= 1;
        self.last >>= 1;
    }

    /// Goes up to where the proof begins: the largest node that ends the subtree.
    const fn skip_to_subtree(&mut self) {
        if self.node == self.last {
            while self.first != self.node {
                self.up();
            }
        } else {
            while self.first != self.node && self.node & 1 == 1 {
                self.up();
            }
        }
    }
}

/// The entries from `start` to `end` (excluded) of a larger tree, and their root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subtree {
    start: u64,
    end: u64,
    root: Hash,
}

impl Subtree {
    /// This subtree (draft section 4.1): `start` is a multiple of the smallest power of two that
    /// is not below the number of entries.
    ///
    /// # Errors
    /// [`ProofError::NotASubtree`].
    pub const fn new(entries: std::ops::Range<u64>, root: Hash) -> Result<Self, ProofError> {
        let (start, end) = (entries.start, entries.end);
        let refused = Err(ProofError::NotASubtree { start, end });
        let Some(length) = end.checked_sub(start) else { return refused };
        let fits = match length.checked_next_power_of_two() {
            Some(ceiling) => start % ceiling == 0,
            // Longer than 2^63: only from the beginning.
            None => start == 0,
        };
        if fits { Ok(Self { start, end, root }) } else { refused }
    }
}

fn check_length(hashes: Vec<Hash>) -> Result<Vec<Hash>, ProofError> {
    if hashes.len() > MAX_PROOF_HASHES { Err(ProofError::TooLong(hashes.len())) } else { Ok(hashes) }
}
