//! Which entries the log has already.
//!
//! The durable index is the log itself: the tiles of level 0 are the full leaf hashes, in order.
//! This table only says where to look in them; what it says is compared with the whole hash in
//! the tile, so equal beginnings never make two entries one. It is filled from the tiles when
//! the log is opened, and there is no second copy on disk that could be wrong.
//!
//! An entry takes nine bytes, and an eighth more at most for room to grow: that is all that the
//! memory of a log grows by.

use tlog::{EntryIndex, Hash};

/// A list for each value of a hash's first two bytes: with 100 million entries 1,500 slots each,
/// which are read in about a microsecond.
const LISTS: usize = 1 << 16;

/// Positions by the first six bytes of the leaf hash: two choose the list, four are in the slot.
#[derive(Debug)]
pub(crate) struct Dedup {
    lists: Vec<Vec<Slot>>,
}

/// A position below 2^40: a log with more entries than that would fill this table's memory with
/// 10 TB.
#[derive(Clone, Copy, Debug)]
struct Slot {
    tag: [u8; 4],
    index: [u8; 5],
}

impl Default for Dedup {
    fn default() -> Self {
        Self { lists: vec![Vec::new(); LISTS] }
    }
}

impl Dedup {
    pub(crate) fn insert(&mut self, leaf: &Hash, index: EntryIndex) {
        let (list, tag) = place(leaf);
        let [high_7, high_6, high_5, index @ ..] = index.get().to_be_bytes();
        assert_eq!([high_7, high_6, high_5], [0; 3], "a log has fewer than 2^40 entries");
        let list = self.lists.get_mut(list).expect("there is a list for any two bytes");
        if list.len() == list.capacity() {
            // All lists grow alike, so doubling them would double the memory of all at once.
            list.reserve_exact((list.len() / 8).max(4));
        }
        list.push(Slot { tag, index });
    }

    /// Where an entry of this leaf hash may stand: mostly nowhere, and by chance (one in 2^48 for
    /// each entry) somewhere else.
    pub(crate) fn candidates(&self, leaf: &Hash) -> Vec<EntryIndex> {
        let (list, tag) = place(leaf);
        let slots = self.lists.get(list).into_iter().flatten().filter(|slot| slot.tag == tag);
        slots.map(|slot| EntryIndex::new(slot.index())).collect()
    }
}

impl Slot {
    fn index(self) -> u64 {
        let [a, b, c, d, e] = self.index;
        u64::from_be_bytes([0, 0, 0, a, b, c, d, e])
    }
}

/// The list of a leaf hash, and its slot's tag.
fn place(leaf: &Hash) -> (usize, [u8; 4]) {
    let [a, b, c, d, e, f, ..] = *leaf.as_bytes();
    (usize::from(u16::from_be_bytes([a, b])), [c, d, e, f])
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
        dedup.insert(&other, EntryIndex::new((1 << 40) - 1));
        assert_eq!(dedup.candidates(&other), [EntryIndex::new(3), EntryIndex::new((1 << 40) - 1)]);
        assert!(dedup.candidates(&Hash::from_bytes([1; 32])).is_empty());
        bytes[5] = 8;
        assert!(dedup.candidates(&Hash::from_bytes(bytes)).is_empty());
    }

    #[test]
    fn memory_is_nine_bytes_an_entry_and_an_eighth() {
        let mut dedup = Dedup::default();
        let count = 1_000_000_u64;
        for index in 0..count {
            dedup.insert(&tlog::leaf_hash(&index.to_be_bytes()), EntryIndex::new(index));
        }
        let slots: usize = dedup.lists.iter().map(Vec::capacity).sum();
        assert_eq!(size_of::<Slot>(), 9);
        // A list has 15 of them here, and grows by four.
        assert!(slots as u64 <= count * 5 / 4, "{slots}");
        for index in [0, 1, 77_777, count - 1] {
            let leaf = tlog::leaf_hash(&index.to_be_bytes());
            assert_eq!(dedup.candidates(&leaf), [EntryIndex::new(index)]);
        }
    }
}
