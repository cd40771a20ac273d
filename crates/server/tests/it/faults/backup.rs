//! Old copies of stores are put back: of a log nothing is signed any more, and of a witness, which
//! then counts as faulty, the others make up for it.

use std::path::Path;

use attest::Envelope;
use stdx::durable;
use tlog::witness_protocol::{AddCheckpoint, Cosignatures};
use tlog::{Checkpoint, ConsistencyProof, Frontier, LogProof, SignedCheckpoint, TreeHead, TreeSize, leaf_hash};

use super::append::index;
use super::trial::copy_tree;
use crate::process::Server;
use crate::raw;
use crate::statement::{Place, heartbeat};
use crate::system::System;

/// Puts back what `parts` of `role` were in the copy `from`.
fn restore(system: &System, role: &str, from: &str, parts: &[&str]) {
    // Of the newer database nothing may be read into the older one; what it had of its own comes back.
    for beside in ["state.sqlite-wal", "state.sqlite-shm"].map(Path::new) {
        if parts.contains(&"state.sqlite") {
            durable::remove(&system.file(role).join(beside)).unwrap();
            let old = system.file(from).join(beside);
            if old.exists() {
                std::fs::copy(old, system.file(role).join(beside)).unwrap();
            }
        }
    }
    for part in parts {
        let (old, now) = (system.file(from).join(part), system.file(role).join(part));
        if old.is_dir() {
            std::fs::remove_dir_all(&now).unwrap();
            copy_tree(&old, &now);
        } else {
            std::fs::copy(old, now).unwrap();
        }
    }
}

#[test]
fn an_old_backup_of_a_log_signs_nothing() {
    let mut system = System::running();
    let first = system.beat(&Place::vendor());
    assert_eq!(system.vendor.stop().code, 0);
    copy_tree(&system.file("vendor"), &system.file("old"));
    system.vendor.start();
    // The last batch alone could be written again from the lock, which is no harm.
    let second = system.beat(&Place::vendor().after(&first));
    let third = system.beat(&Place::vendor().after(&first).after(&second));
    assert_eq!(system.vendor.stop().code, 0);
    copy_tree(&system.file("vendor"), &system.file("new"));

    let cases: [(&[&str], &str); 3] = [
        (&["state.sqlite"], "is newer than the lock, which has size 1"),
        (&["log"], "the log can't be opened"),
        (&["log", "state.sqlite"], "knows a checkpoint of size 3 that"),
    ];
    for (parts, reason) in cases {
        restore(&system, "vendor", "old", parts);
        system.vendor.start();
        let done = system.vendor.wait();
        // Its socket is the test's, so that nothing of it is served by anybody.
        assert!(done.code == 1 && done.stderr.contains(reason), "{parts:?}: {done:?}");
        let checkpoint = std::fs::read_to_string(system.file("vendor/log/objects/checkpoint")).unwrap();
        let size = if parts.contains(&"log") { "1" } else { "3" };
        assert_eq!(checkpoint.lines().nth(1), Some(size), "{parts:?}: nothing new was published");
        restore(&system, "vendor", "new", &["log", "state.sqlite"]);
    }
    // The newest copy goes on.
    system.vendor.start();
    system.beat(&Place::vendor().after(&first).after(&second).after(&third));
}

/// A fork of the log at size 2, as whoever stole its key would ask for it.
fn fork(system: &System, first: &[u8]) -> (SignedCheckpoint, Vec<u8>) {
    let mut tree = Frontier::new();
    [first, b"another second"].into_iter().for_each(|leaf| tree.append(&leaf_hash(leaf)));
    let head: TreeHead = tree.head();
    let checkpoint = Checkpoint::new("vendor.example/log".parse().unwrap(), head).unwrap();
    let signed = SignedCheckpoint::sign(checkpoint, &system.key("vendor", "log")).unwrap();
    let proof = ConsistencyProof::new(vec![leaf_hash(b"another second")]).unwrap();
    let request = AddCheckpoint::new(TreeSize::new(1), proof, signed.clone()).unwrap();
    (signed, request.to_string().into_bytes())
}

/// All run; the first witness has forgotten the second of two entries.
fn forgetful_witness() -> (System, Envelope, Envelope) {
    let mut system = System::running();
    let first = system.beat(&Place::vendor());
    // The log asks three of four at a time; each must know the first entry.
    for witness in &mut system.witnesses {
        assert_eq!(witness.stop().code, 0);
    }
    copy_tree(&system.file("w1"), &system.file("old"));
    system.witnesses.iter_mut().for_each(Server::start);
    let second = system.beat(&Place::vendor().after(&first));
    assert_eq!(system.witnesses[0].stop().code, 0);
    restore(&system, "w1", "old", &["state.sqlite"]);
    system.witnesses[0].start();
    (system, first, second)
}

#[test]
fn a_restored_witness_alone_makes_no_fork() {
    let (mut system, first, second) = forgetful_witness();

    let (mut forked, request) = fork(&system, &first.to_bytes());
    let mut cosigned = 0;
    for witness in &system.witnesses {
        let answer = raw::post(witness.address(), "/add-checkpoint", &request);
        if answer.status == 200 {
            cosigned += 1;
            forked.merge(Cosignatures::parse(&answer.body).unwrap().lines().to_vec()).unwrap();
        }
    }
    assert!(cosigned <= 1, "only the restored one may have forgotten");
    let policy = system.policy();
    assert!(policy.witnessing().verify_checkpoint(&forked).is_err(), "{cosigned} cosigned");

    // If the restored one now knows the fork, and is among the three of four that the log asks, the log
    // sees that its key is used elsewhere, and stops; else it goes on with the honest ones.
    let third = Place { sequence: 2, ..Place::vendor().after(&second) };
    let third = heartbeat(&third, &system.key("vendor", "recorder"));
    let answer = system.append(&Place::vendor(), &third);
    if cosigned == 1 && answer.status != 200 {
        assert!(matches!(answer.status, 500 | 503), "{}", answer.text());
        let done = system.vendor.wait();
        assert!(done.code == 1 && done.stderr.contains("that is not of this tree"), "{done:?}");
    } else {
        assert_eq!((answer.status, index(&answer.body)), (200, 2), "{}", answer.text());
        let appended: api::Appended = serde_json::from_slice(&answer.body).unwrap();
        let proof = LogProof::parse(&appended.proof).unwrap();
        let cosigned_by = proof.verify(&leaf_hash(&third.to_bytes()), system.policy().witnessing()).unwrap().by;
        let restored = |name: &tlog::KeyName| name.as_str().starts_with("w1.");
        assert!(cosigned == 0 || !cosigned_by.iter().any(restored), "{cosigned_by:?}");
    }
}

#[test]
fn a_restored_witness_catches_up() {
    let (mut system, _, second) = forgetful_witness();
    // Only three are left, so the restored one is needed.
    system.witnesses[3].kill();
    let third = Place { sequence: 2, ..Place::vendor().after(&second) };
    let third = heartbeat(&third, &system.key("vendor", "recorder"));
    let answer = system.append(&Place::vendor(), &third);
    assert_eq!((answer.status, index(&answer.body)), (200, 2), "{}", answer.text());
    let appended: api::Appended = serde_json::from_slice(&answer.body).unwrap();
    let proof = LogProof::parse(&appended.proof).unwrap();
    let cosigned = proof.verify(&leaf_hash(&third.to_bytes()), system.policy().witnessing()).unwrap();
    assert_eq!(cosigned.by.len(), 3, "{:?}", cosigned.by);
}
