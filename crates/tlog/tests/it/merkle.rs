//! Trees, tiles and proofs against each other and against the definition of RFC 6962.

use proptest::prelude::ProptestConfig;
use proptest::{prop_assert, prop_assert_eq, proptest};
use tlog::{
    ConsistencyProof, EntryIndex, Frontier, Growth, Hash, InclusionProof, ProofError, Subtree, TileSet, Tree, TreeEdge,
    TreeError, TreeHead, TreeSize, empty_root, leaf_hash, node_hash, tiles_for_consistency, tiles_for_edge,
    tiles_for_growth, tiles_for_inclusion, tiles_for_root,
};

use crate::{head, leaves};

/// RFC 6962, section 2.1, word for word.
fn mth(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty_root(),
        [one] => *one,
        _ => {
            let k = leaves.len().next_power_of_two() / 2;
            node_hash(&mth(&leaves[..k]), &mth(&leaves[k..]))
        }
    }
}

/// draft-ietf-plants-merkle-tree-certs-03, section 4.4.1, word for word.
fn subtree_proof(wanted: std::ops::Range<usize>, leaves: &[Hash], is_known: bool) -> Vec<Hash> {
    let (start, end) = (wanted.start, wanted.end);
    if start == 0 && end == leaves.len() {
        return if is_known { Vec::new() } else { vec![mth(leaves)] };
    }
    let k = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(k);
    let (mut proof, other) = if end <= k {
        (subtree_proof(wanted, left, is_known), mth(right))
    } else if k <= start {
        (subtree_proof(start - k..end - k, right, is_known), mth(left))
    } else {
        (subtree_proof(0..end - k, right, false), mth(left))
    };
    proof.push(other);
    proof
}

/// All tiles of a tree, as a log writes them, with the edge at its end.
fn tiles(leaves: &[Hash]) -> (TileSet, TreeEdge) {
    let (mut set, mut edge) = (TileSet::new(), TreeEdge::new());
    for leaf in leaves {
        edge.append(leaf, |tile, bytes| set.insert(tile, bytes.to_vec()));
    }
    for (tile, bytes) in edge.partial_tiles() {
        set.insert(tile, bytes.to_vec());
    }
    (set, edge)
}

/// Only the tiles that a plan names.
fn only(set: &TileSet, plan: &std::collections::BTreeSet<tlog::TileId>) -> TileSet {
    let mut some = TileSet::new();
    for (tile, bytes) in set.iter().filter(|(tile, _)| plan.contains(tile)) {
        some.insert(tile, bytes.to_vec());
    }
    assert_eq!(some.iter().count(), plan.len(), "the plan names tiles that the tree has not");
    some
}

#[test]
fn hashes_are_those_of_the_specification() {
    assert_eq!(empty_root().to_string(), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    assert_eq!(*empty_root().as_bytes(), *stdx::Digest::of(b"").as_bytes());
    assert_eq!(*leaf_hash(b"x").as_bytes(), *stdx::Digest::of(b"\0x").as_bytes());
    let (left, right) = (leaf_hash(b"l"), leaf_hash(b"r"));
    let parts = [&[1][..], left.as_bytes(), right.as_bytes()].concat();
    assert_eq!(*node_hash(&left, &right).as_bytes(), *stdx::Digest::of(&parts).as_bytes());
}

#[test]
fn every_index_and_every_growth_of_small_trees() {
    let leaves = leaves(70);
    let heads: Vec<TreeHead> = (0..=70).map(|size| head(&leaves[..size])).collect();
    for size in 0..=70_usize {
        let new = heads[size];
        assert_eq!(new.root, mth(&leaves[..size]));
        let (set, edge) = tiles(&leaves[..size]);
        assert_eq!(edge.head(), new);
        let tree = Tree::new(&set, new);
        tree.check_root().unwrap();
        for (index, expected) in leaves.iter().enumerate().take(size) {
            let (leaf, proof) = tree.inclusion(EntryIndex::new(index as u64)).unwrap();
            assert_eq!(leaf, *expected);
            for other in 0..=size {
                let accepted = proof.verify(EntryIndex::new(other as u64), &leaf, &new).is_ok();
                assert_eq!(accepted, other == index, "index {other} for {index} of {size}");
            }
        }
        for (old_size, expected) in heads.iter().enumerate().take(size + 1) {
            let (old, proof) = tree.consistency(TreeSize::new(old_size as u64)).unwrap();
            assert_eq!(old, *expected);
            for (other_size, other) in heads.iter().enumerate() {
                let accepted = proof.verify(Growth { old: other, new: &new }).is_ok();
                // The empty proof holds from size 0 and from the tree itself.
                let holds =
                    other_size == old_size || (proof.hashes().is_empty() && (other_size == 0 || other_size == size));
                assert_eq!(accepted, holds, "{other_size} for {old_size} of {size}");
            }
        }
    }
}

#[test]
fn every_subtree_of_small_trees() {
    let leaves = leaves(40);
    let tree = head(&leaves);
    let mut count = 0;
    for start in 0..40 {
        for end in start + 1..=40 {
            let root = mth(&leaves[start..end]);
            let valid = start % (end - start).next_power_of_two() == 0;
            let subtree = Subtree::new(start as u64..end as u64, root);
            assert_eq!(subtree.is_ok(), valid, "{start}..{end}");
            let Ok(subtree) = subtree else { continue };
            let inner = tiles(&leaves[start..end]);
            for index in start..end {
                let (leaf, proof) =
                    Tree::new(&inner.0, inner.1.head()).inclusion(EntryIndex::new((index - start) as u64)).unwrap();
                proof.verify_in_subtree(EntryIndex::new(index as u64), &leaf, &subtree).unwrap();
                assert!(proof.verify_in_subtree(EntryIndex::new(end as u64), &leaf, &subtree).is_err());
            }
            let proof = ConsistencyProof::new(subtree_proof(start..end, &leaves, true)).unwrap();
            proof.verify_subtree(&subtree, &tree).unwrap();
            for wrong in mutations(proof.hashes(), start + end, 6 * start) {
                assert!(ConsistencyProof::new(wrong).unwrap().verify_subtree(&subtree, &tree).is_err());
            }
            let shifted = Subtree::new(start as u64..end as u64, leaf_hash(b"other")).unwrap();
            assert!(proof.verify_subtree(&shifted, &tree).is_err());
            count += 1;
        }
    }
    assert!(count > 100);
}

#[test]
fn plans_name_exactly_what_is_read() {
    for count in [1, 255, 256, 257, 1000, 65_536, 70_000] {
        let leaves = leaves(count);
        let (set, edge) = tiles(&leaves);
        let new = edge.head();
        let some = only(&set, &tiles_for_root(new.size));
        Tree::new(&some, new).check_root().unwrap();
        let some = only(&set, &tiles_for_edge(new.size));
        assert_eq!(TreeEdge::load(&Tree::new(&some, new)).unwrap(), edge_without_empty_rows(&edge, &set, new));
        for index in [0, count / 2, count - 1] {
            let index = EntryIndex::new(index);
            let some = only(&set, &tiles_for_inclusion(index, new.size));
            Tree::new(&some, new).inclusion(index).unwrap();
        }
        for old in [0, 1, count / 3, count - 1, count] {
            let old = TreeSize::new(old);
            let some = only(&set, &tiles_for_consistency(old..new.size));
            Tree::new(&some, new).consistency(old).unwrap();
        }
        let all: Vec<_> = set.iter().map(|(tile, _)| tile).collect();
        assert_eq!(tiles_for_growth(TreeSize::ZERO..new.size).collect::<Vec<_>>(), all);
        for (tile, bytes) in set.iter() {
            assert_eq!(Tree::new(&set, new).tile(tile).unwrap(), bytes);
        }
    }
}

/// An edge that grew has rows that are empty now; one that was read has not. What they say is
/// the same, so the comparison goes through a second reading.
fn edge_without_empty_rows(edge: &TreeEdge, set: &TileSet, head: TreeHead) -> TreeEdge {
    let read = TreeEdge::load(&Tree::new(set, head)).unwrap();
    assert!(read.partial_tiles().eq(edge.partial_tiles()));
    assert_eq!(read.head(), edge.head());
    read
}

#[test]
fn an_edge_that_was_read_grows_like_the_one_that_was_kept() {
    let leaves = leaves(1300);
    for split in [0, 1, 255, 256, 257, 511, 512, 1024] {
        let (set, edge) = tiles(&leaves[..split]);
        let mut read = TreeEdge::load(&Tree::new(&set, edge.head())).unwrap();
        let mut kept = edge;
        for leaf in &leaves[split..] {
            let (mut by_read, mut by_kept) = (Vec::new(), Vec::new());
            read.append(leaf, |tile, bytes| by_read.push((tile, bytes.to_vec())));
            kept.append(leaf, |tile, bytes| by_kept.push((tile, bytes.to_vec())));
            assert_eq!(by_read, by_kept);
        }
        assert_eq!(read.head(), head(&leaves));
        assert_eq!(kept.head(), read.head());
    }
}

#[test]
fn one_flipped_bit_in_a_tile_is_an_error() {
    let leaves = leaves(600);
    let (set, edge) = tiles(&leaves);
    let head = edge.head();
    for (tile, bytes) in set.iter() {
        for position in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut damaged = set.clone();
            let mut content = bytes.to_vec();
            content[position] ^= 0x10;
            damaged.insert(tile, content);
            let tree = Tree::new(&damaged, head);
            assert!(matches!(tree.tile(tile), Err(TreeError::Proof(_))), "{tile} at {position}");
            if tiles_for_edge(head.size).contains(&tile) {
                assert!(TreeEdge::load(&tree).is_err());
            }
            let index = EntryIndex::new((tile.entries().start.get() + position as u64 / 32).min(599));
            if tile.level() == 0 {
                assert!(tree.inclusion(index).is_err());
            }
        }
        let mut short = set.clone();
        short.insert(tile, bytes[..bytes.len() - 1].to_vec());
        assert!(matches!(Tree::new(&short, head).tile(tile), Err(TreeError::Length { .. })));
    }
}

#[test]
fn a_full_tile_serves_for_a_partial_one() {
    let leaves = leaves(512);
    let (full, _) = tiles(&leaves);
    let old = head(&leaves[..300]);
    let tree = Tree::new(&full, old);
    // Level 1 has no full tile here, so a proof needs its partial one.
    let mut set = full.clone();
    let (partial, _) = tiles(&leaves[..300]);
    for (tile, bytes) in partial.iter().filter(|(tile, _)| tile.level() == 1) {
        set.insert(tile, bytes.to_vec());
    }
    assert!(tree.inclusion(EntryIndex::new(299)).is_err());
    Tree::new(&set, old).inclusion(EntryIndex::new(299)).unwrap();
}

#[test]
fn the_empty_tree_has_one_root_and_needs_no_proof() {
    let leaves = leaves(3);
    let new = head(&leaves);
    let none = ConsistencyProof::empty();
    none.verify(Growth { old: &TreeHead::EMPTY, new: &new }).unwrap();
    none.verify(Growth { old: &TreeHead::EMPTY, new: &TreeHead::EMPTY }).unwrap();
    let some = ConsistencyProof::new(vec![leaves[0]]).unwrap();
    assert_eq!(some.verify(Growth { old: &TreeHead::EMPTY, new: &new }), Err(ProofError::Length(1)));
    let odd = TreeHead { size: TreeSize::ZERO, root: leaves[0] };
    assert!(none.verify(Growth { old: &odd, new: &new }).is_err());
    assert!(none.verify(Growth { old: &odd, new: &odd }).is_err());
    assert!(none.verify(Growth { old: &TreeHead::EMPTY, new: &odd }).is_err());
    assert_eq!(Frontier::new().head(), TreeHead::EMPTY);
    assert_eq!(TreeEdge::new().head(), TreeHead::EMPTY);
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    let root = leaf_hash(b"");
    let huge = TreeHead { size: TreeSize::new(u64::MAX), root };
    let proof = InclusionProof::new(vec![root; 63]).unwrap();
    for index in [0, 1, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
        assert!(proof.verify(EntryIndex::new(index), &root, &huge).is_err());
        let size = TreeSize::new(u64::MAX);
        assert!(tiles_for_inclusion(EntryIndex::new(index), size).len() < 70);
        assert!(tiles_for_consistency(TreeSize::new(index)..size).len() < 140);
    }
    let growth = ConsistencyProof::new(vec![root; 63]).unwrap();
    for size in [0, 1, 1 << 63, u64::MAX - 1, u64::MAX] {
        let old = TreeHead { size: TreeSize::new(size), root };
        assert!(growth.verify(Growth { old: &old, new: &huge }).is_err());
        assert!(growth.verify_subtree(&Subtree::new(0..size, root).unwrap(), &huge).is_err());
    }
    assert_eq!(InclusionProof::new(vec![root; 64]), Err(ProofError::TooLong(64)));
    assert_eq!(ConsistencyProof::new(vec![root; 64]), Err(ProofError::TooLong(64)));
    assert!(Subtree::new((1 << 63) + 1..u64::MAX, root).is_err());
    #[expect(clippy::reversed_empty_ranges, reason = "that is the point")]
    let reversed = Subtree::new(2..1, root);
    assert!(reversed.is_err());
    let set = TileSet::new();
    assert!(TreeEdge::load(&Tree::new(&set, huge)).is_err());
    assert!(Tree::new(&set, huge).check_root().is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn random_trees_prove_themselves_and_mutations_prove_nothing(
        size in 1_u64..3000, index in 0_u64..3000, old in 0_u64..3000, at in 0_usize..64, bit in 0_usize..256,
    ) {
        let (index, old) = (index % size, old % (size + 1));
        let leaves = leaves(size);
        let (set, edge) = tiles(&leaves);
        let new = edge.head();
        prop_assert_eq!(new.root, mth(&leaves));
        let tree = Tree::new(&set, new);
        let (leaf, proof) = tree.inclusion(EntryIndex::new(index)).unwrap();
        for wrong in mutations(proof.hashes(), at, bit) {
            let wrong = InclusionProof::new(wrong).unwrap();
            prop_assert!(wrong.verify(EntryIndex::new(index), &leaf, &new).is_err());
        }
        let (before, proof) = tree.consistency(TreeSize::new(old)).unwrap();
        prop_assert_eq!(before, head(&leaves[..old as usize]));
        for wrong in mutations(proof.hashes(), at, bit) {
            let wrong = ConsistencyProof::new(wrong).unwrap();
            let growth = Growth { old: &before, new: &new };
            prop_assert!(wrong.verify(growth).is_err());
        }
    }

    #[test]
    fn growth_names_the_tiles_that_changed(old in 0_u64..2000, more in 0_u64..2000) {
        let leaves = leaves(old + more);
        let before = tiles(&leaves[..old as usize]).0;
        let after = tiles(&leaves).0;
        let had: Vec<_> = before.iter().map(|(tile, _)| tile).collect();
        let changed: Vec<_> = after.iter().map(|(tile, _)| tile).filter(|tile| !had.contains(tile)).collect();
        prop_assert_eq!(tiles_for_growth(TreeSize::new(old)..TreeSize::new(old + more)).collect::<Vec<_>>(), changed);
    }
}

/// Every way in which a proof can be slightly wrong.
fn mutations(proof: &[Hash], at: usize, bit: usize) -> Vec<Vec<Hash>> {
    let extra = leaf_hash(b"extra");
    let mut all = vec![[proof, &[extra]].concat(), [&[extra], proof].concat()];
    if !proof.is_empty() {
        let at = at % proof.len();
        let mut flipped = proof.to_vec();
        let mut bytes = *flipped[at].as_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        flipped[at] = Hash::from_bytes(bytes);
        all.push(flipped);
        let mut missing = proof.to_vec();
        missing.remove(at);
        all.push(missing);
        let mut swapped = proof.to_vec();
        swapped.rotate_left(1);
        if swapped != proof {
            all.push(swapped);
        }
    }
    all
}
