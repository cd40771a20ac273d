//! What is said to a witness and what it answers.

use tlog::witness_protocol::{AddCheckpoint, Cosignatures, LatestSize, MessageError, origin_hash};
use tlog::{CheckpointError, ConsistencyProof, Growth, ProofError, TreeHead, TreeSize, cosign, empty_root};

use crate::{checkpoint, head, leaves, signed, time, witness_key};

fn request() -> AddCheckpoint {
    let leaves = leaves(3);
    let proof = ConsistencyProof::new(vec![leaves[2]]).unwrap();
    AddCheckpoint::new(TreeSize::new(2), proof, signed(3)).unwrap()
}

#[test]
fn a_request_has_one_form() {
    let good = request().to_string();
    assert_eq!(AddCheckpoint::parse(&good).unwrap(), request());
    let old = head(&leaves(2));
    request().proof().verify(Growth { old: &old, new: request().checkpoint().checkpoint().head() }).unwrap();
    let hash = leaves(3)[2].to_string();
    for (what, text) in [
        ("nothing", String::new()),
        ("no old line", good.replacen("old 2\n", "", 1)),
        ("a leading zero", good.replacen("old 2", "old 02", 1)),
        ("two spaces", good.replacen("old 2", "old  2", 1)),
        ("a negative size", good.replacen("old 2", "old -2", 1)),
        ("2^64", good.replacen("old 2", "old 18446744073709551616", 1)),
        ("no empty line", good.replacen("\n\n", "\n", 1)),
        ("a short hash", good.replace(&hash, "AAAA")),
        ("CRLF", good.replace('\n', "\r\n")),
        ("an unsigned checkpoint", format!("old 0\n\n{}", checkpoint(3).to_text())),
        ("64 hashes", good.replace(&hash, &[hash.as_str(); 64].join("\n"))),
    ] {
        assert!(AddCheckpoint::parse(&text).is_err(), "{what}");
    }
    let longest = good.replace(&hash, &[hash.as_str(); 63].join("\n"));
    assert_eq!(AddCheckpoint::parse(&longest).unwrap().to_string(), longest);
    let above = AddCheckpoint::parse(good.replacen("old 2", "old 4", 1));
    assert!(matches!(above, Err(MessageError::OldAboveSize { .. })));
}

#[test]
fn what_is_answered_422_is_told_from_400() {
    // A proof with `old 0` parses, and does not verify.
    let text = request().to_string().replacen("old 2", "old 0", 1);
    let request = AddCheckpoint::parse(text).unwrap();
    let growth = Growth { old: &TreeHead::EMPTY, new: request.checkpoint().checkpoint().head() };
    assert_eq!(request.proof().verify(growth), Err(ProofError::Length(1)));
    ConsistencyProof::empty().verify(growth).unwrap();
    // Size 0 with another root has an error of its own.
    let text = format!("old 0\n\n{}", signed(3)).replacen("\n3\n", "\n0\n", 1);
    let refused = AddCheckpoint::parse(text);
    assert!(matches!(refused, Err(MessageError::Checkpoint(CheckpointError::EmptyRoot(_)))));
    let empty = format!("old 0\n\n{}", signed(0));
    assert_eq!(*AddCheckpoint::parse(empty).unwrap().checkpoint().checkpoint().root(), empty_root());
    // The same size with another root is no growth.
    let other = TreeHead { size: TreeSize::new(3), root: empty_root() };
    let growth = Growth { old: &other, new: request.checkpoint().checkpoint().head() };
    assert!(ConsistencyProof::empty().verify(growth).is_err());
}

#[test]
fn answers_have_one_form() {
    let line = cosign(&checkpoint(3), &witness_key(1), time(5)).unwrap();
    let answer = Cosignatures::one(line.clone());
    assert_eq!(Cosignatures::parse(answer.to_string()).unwrap().into_lines(), [line]);
    assert_eq!(Cosignatures::parse(""), Err(MessageError::NoSignature));
    assert!(Cosignatures::parse(answer.to_string().trim_end()).is_err());
    assert!(Cosignatures::parse(format!("{answer}\n")).is_err());
    assert!(Cosignatures::parse(format!("{answer}{answer}")).is_err());
    assert_eq!(LatestSize::parse("7\n").unwrap(), LatestSize(TreeSize::new(7)));
    assert_eq!(LatestSize(TreeSize::ZERO).to_string(), "0\n");
    for text in ["", "\n", "7", "07\n", "7\n\n", " 7\n", "7\r\n", "18446744073709551616\n"] {
        assert!(LatestSize::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn a_logs_monitoring_path_is_the_hash_of_its_origin() {
    let hash = origin_hash(&"abc".parse().unwrap());
    assert_eq!(hash.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}
