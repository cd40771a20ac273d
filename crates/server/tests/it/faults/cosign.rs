//! A cosignature by a witness whose disk fails while a log grows.

use testkit::Strace;
use tlog::witness_protocol::{AddCheckpoint, Cosignatures, origin_hash};
use tlog::{
    Checkpoint, ConsistencyProof, Frontier, Hash, SignedCheckpoint, SignerKey, TreeHead, TreeSize, leaf_hash,
    verify_cosignature,
};

use super::trial::{Trial, fsck, request_traced};
use crate::raw::{self, Response};
use crate::system::System;

const ORIGIN: &str = "vendor.example/log";

fn checkpoint(key: &SignerKey, head: TreeHead) -> SignedCheckpoint {
    SignedCheckpoint::sign(Checkpoint::new(ORIGIN.parse().unwrap(), head).unwrap(), key).unwrap()
}

/// The tree of these leaves.
fn head(leaves: &[&[u8]]) -> TreeHead {
    let mut tree = Frontier::new();
    leaves.iter().for_each(|leaf| tree.append(&leaf_hash(leaf)));
    tree.head()
}

/// What a log of one entry says when it has a second.
fn growth(key: &SignerKey, second: &[u8]) -> (SignedCheckpoint, Vec<u8>) {
    let grown = checkpoint(key, head(&[b"first", second]));
    (grown.clone(), body(1, vec![leaf_hash(second)], grown))
}

fn body(old: u64, hashes: Vec<Hash>, checkpoint: SignedCheckpoint) -> Vec<u8> {
    let proof = ConsistencyProof::new(hashes).unwrap();
    AddCheckpoint::new(TreeSize::new(old), proof, checkpoint).unwrap().to_string().into_bytes()
}

fn add(system: &System, body: &[u8]) -> Response {
    raw::post(system.witnesses[0].address(), "/add-checkpoint", body)
}

fn request(body: &[u8]) -> Vec<u8> {
    let head = "POST /add-checkpoint HTTP/1.1\r\nHost: test\r\nConnection: close\r\n";
    [format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

#[test]
fn a_witness_survives_each_failed_call_and_never_forks() {
    let mut system = System::made();
    let key = system.key("vendor", "log");
    let witness = system.vkey("w1", "witness").parse().unwrap();
    system.witnesses[0].start();
    assert_eq!(add(&system, &body(0, Vec::new(), checkpoint(&key, head(&[b"first"])))).status, 200);
    system.witnesses[0].stop();
    let mut trial = Trial::at_rest(system);

    let (grown, growing) = growth(&key, b"second");
    let (_, forking) = growth(&key, b"other");
    let cosign =
        |system: &mut System, strace: &Strace| request_traced(&mut system.witnesses[0], strace, request(&growing));
    let calls = trial.calls("w1", |system, strace| {
        let outcome = cosign(system, strace);
        assert_eq!(outcome.answer.as_ref().map(|it| it.0), Some(200), "{outcome:?}");
    });
    assert!(calls.iter().filter(|call| call.changes).count() > 5, "{calls:#?}");
    trial.each("cosign", &calls, 29, |system, strace, what| {
        let outcome = cosign(system, strace);
        assert!(!outcome.end.stderr.contains("panicked"), "{what}: {outcome:?}");
        let cosigned = match &outcome.answer {
            Some((200, body)) => {
                let lines = Cosignatures::parse(body).unwrap();
                verify_cosignature(grown.checkpoint(), &lines.lines()[0], &witness).unwrap();
                true
            }
            Some((500 | 503, _)) | None => false,
            Some((status, _)) => panic!("{status} {what}: {outcome:?}"),
        };
        system.witnesses[0].start();
        let monitor = format!("/{}/checkpoint", origin_hash(&ORIGIN.parse().unwrap()));
        let kept = SignedCheckpoint::parse(&raw::get(system.witnesses[0].address(), &monitor).body).unwrap();
        let size = kept.checkpoint().size().get();
        assert!(size == 2 || size == 1 && !cosigned, "{what}: {size}");
        if size == 1 {
            assert_eq!(add(system, &growing).status, 200, "{what}");
        }
        // Whether the log heard of it or not: of size 2 there is one tree.
        assert_eq!(add(system, &forking).text(), "2\n", "{what}");
        assert_eq!(system.witnesses[0].stop().code, 0, "{what}");
        let checked = fsck(system, "w1");
        assert_eq!(checked.code, 0, "{what}: {checked:?}");
    });
}
