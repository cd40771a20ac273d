#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use testkit::{VENDOR_LOG, World};

use super::{Between, ConsistencyProof, Memory, NoProver, Origin, Prover, UNPROVEN_MAX};

/// A mirror that has everything.
struct Honest<'a>(&'a World);

impl Prover for Honest<'_> {
    fn prove(&self, log: &Origin, growth: Between) -> Option<ConsistencyProof> {
        let log = self.0.log(log.as_str());
        assert_eq!(log.head(), growth.new);
        Some(log.consistency(growth.old))
    }
}

/// What is remembered after so many looks without a mirror, and then one with.
fn after(looks: usize) -> (bool, Memory) {
    let (mut world, mut memory) = (World::new(), Memory::default());
    memory.see(&world.checkpoint(VENDOR_LOG), &NoProver).unwrap();
    for look in 0..looks {
        world.vendor_log.append(look.to_string().into_bytes());
        memory.see(&world.checkpoint(VENDOR_LOG), &NoProver).unwrap();
    }
    assert!(memory.logs[0].seen.gap);
    let closed = memory.logs[0].settle(&Honest(&world)).unwrap();
    (closed, memory)
}

#[test]
fn a_gap_closes_when_every_tree_is_proven() {
    let (closed, memory) = after(3);
    assert!(closed && !memory.logs[0].seen.gap);
}

#[test]
fn a_gap_with_trees_that_were_dropped_never_closes() {
    let (closed, memory) = after(UNPROVEN_MAX + 1);
    let log = &memory.logs[0];
    assert_eq!((closed, log.seen.gap, log.unproven.len(), log.dropped), (false, true, 0, 1));
}
