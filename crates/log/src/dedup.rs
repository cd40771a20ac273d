//! Which entries the log has already.
//!
//! The durable index is the log itself: the tiles of level 0 are the full leaf hashes, in order.
//! This table only says where to look in them; what it says is compared with the whole hash in
//! the tile, so equal beginnings never make two entries one. It is filled from the tiles when
//! the log is opened, and there is no second copy on disk that could be wrong.

use std::collections::HashMap;

use tlog::{EntryIndex, Hash};

/// Positions by the first eight bytes of the leaf hash.
#[derive(Debug, Default)]
pub(crate) struct Dedup {
    first: HashMap<u64, u64>,
    /// Further positions of equal beginnings: by chance none among 10^9 entries, and a few for
    /// somebody who works for it.
    more: HashMap<u64, Vec<u64>>,
}

impl Dedup {
    pub(crate) fn insert(&mut self, leaf: &Hash, index: EntryIndex) {
        let beginning = beginning(leaf);
        if *self.first.entry(beginning).or_insert(index.get()) != index.get() {
            self.more.entry(beginning).or_default().push(index.get());
        }
    }

    /// Where an entry of this leaf hash may stand.
    pub(crate) fn candidates(&self, leaf: &Hash) -> Vec<EntryIndex> {
        let beginning = beginning(leaf);
        let first = self.first.get(&beginning).into_iter();
        first.chain(self.more.get(&beginning).into_iter().flatten()).map(|index| EntryIndex::new(*index)).collect()
    }
}

fn beginning(leaf: &Hash) -> u64 {
    let (first, _) = leaf.as_bytes().split_first_chunk::<8>().expect("a hash has 32 bytes");
    u64::from_be_bytes(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_beginnings_are_told_apart_by_the_caller() {
        let mut bytes = [7; 32];
        let one = Hash::from_bytes(bytes);
        bytes[31] = 8;
        let other = Hash::from_bytes(bytes);
        let mut dedup = Dedup::default();
        dedup.insert(&one, EntryIndex::new(3));
        dedup.insert(&one, EntryIndex::new(3));
        dedup.insert(&other, EntryIndex::new(9));
        assert_eq!(dedup.candidates(&other), [EntryIndex::new(3), EntryIndex::new(9)]);
        assert!(dedup.candidates(&Hash::from_bytes([1; 32])).is_empty());
    }
}
