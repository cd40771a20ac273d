//! Every node above a batch's entries, so that each proof is looked up, not computed.

use std::collections::BTreeMap;

use tlog::{EntryIndex, Hash, InclusionProof, TileId, TreeSize, node_hash};

/// The perfect subtrees inside some tiles, by tile level and index.
#[derive(Debug, Default)]
pub(crate) struct Nodes(BTreeMap<(u8, u64), Vec<Vec<Hash>>>);

impl Nodes {
    /// Adds a tile; a wider one replaces a narrower one.
    pub(crate) fn insert(&mut self, tile: TileId, bytes: &[u8]) {
        let (hashes, _) = bytes.as_chunks::<32>();
        let mut row: Vec<Hash> = hashes.iter().copied().map(Hash::from_bytes).collect();
        let mut rows = Vec::with_capacity(9);
        while !row.is_empty() {
            let (pairs, _) = row.as_chunks::<2>();
            let above = pairs.iter().map(|[left, right]| node_hash(left, right)).collect();
            rows.push(std::mem::replace(&mut row, above));
        }
        self.0.insert((tile.level(), tile.index()), rows);
    }

    /// The proof of `index` in the tree of `size`; none if a tile that it needs was not added.
    ///
    /// RFC 6962, section 2.1.1: the sibling at each split, from the leaf upwards.
    pub(crate) fn inclusion(&self, index: EntryIndex, size: TreeSize) -> Option<InclusionProof> {
        let (mut start, mut end) = (0, size.get());
        let mut siblings = Vec::new();
        while end.checked_sub(start)? > 1 {
            let split = start + (1 << (end - start - 1).ilog2());
            if index.get() < split {
                siblings.push(self.span(split, end)?);
                end = split;
            } else {
                siblings.push(self.span(start, split)?);
                start = split;
            }
        }
        siblings.reverse();
        InclusionProof::new(siblings).ok()
    }

    /// The root of the entries from `start` to `end`: the perfect subtrees in it, joined from
    /// the right.
    fn span(&self, start: u64, end: u64) -> Option<Hash> {
        let (mut root, mut end) = (None, end);
        while end > start {
            let level = u8::try_from((end - start).trailing_zeros()).ok()?;
            let left = self.node(level, (end >> level) - 1)?;
            root = Some(root.map_or(left, |right| node_hash(&left, &right)));
            end -= 1 << level;
        }
        root
    }

    fn node(&self, level: u8, index: u64) -> Option<Hash> {
        let height = level % 8;
        let rows = self.0.get(&(level / 8, index >> (8 - height)))?;
        let position = usize::try_from(index & ((256 >> height) - 1)).ok()?;
        rows.get(usize::from(height))?.get(position).copied()
    }
}

#[cfg(test)]
mod tests {
    use tlog::{TreeEdge, leaf_hash};

    use super::*;

    #[test]
    fn every_proof_of_a_batch_verifies() {
        for (old, new) in [(0, 1), (0, 300), (250, 262), (511, 513), (1000, 1100), (65_500, 65_600), (66_000, 66_001)] {
            let (mut edge, mut nodes) = (TreeEdge::new(), Nodes::default());
            for index in 0..new {
                let leaf = leaf_hash(&index.to_string().into_bytes());
                let first = index == old;
                if first {
                    nodes = Nodes::default();
                }
                edge.append(&leaf, |tile, bytes| nodes.insert(tile, bytes));
            }
            edge.partial_tiles().for_each(|(tile, bytes)| nodes.insert(tile, bytes));
            for index in old..new {
                let proof = nodes.inclusion(EntryIndex::new(index), edge.size()).unwrap();
                proof
                    .verify(EntryIndex::new(index), &leaf_hash(&index.to_string().into_bytes()), &edge.head())
                    .unwrap();
            }
        }
    }
}
