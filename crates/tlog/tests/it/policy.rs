//! Policies: what parses, and what is a quorum.

use std::collections::BTreeSet;

use proptest::{prop_assert, prop_assert_eq, proptest};
use tlog::{FlatQuorum, KeyKind, LogPolicy, NoteError, PolicyError, SignedCheckpoint, SignerKey, VerifierKey, cosign};

use crate::{Fixed, checkpoint, log_key, signed, time, witness_key};

fn vkey(number: u8) -> VerifierKey {
    witness_key(number).verifier().clone()
}

/// A log, witnesses X1 to X4, and these further lines.
fn text(lines: &str) -> String {
    let witnesses: String = (1..=4).map(|number| format!("witness X{number} {}\n", vkey(number))).collect();
    format!("log {}\n{witnesses}{lines}", log_key().verifier())
}

fn policy(lines: &str) -> LogPolicy {
    LogPolicy::parse(text(lines)).unwrap()
}

pub(crate) fn one_of_one() -> LogPolicy {
    policy("quorum X1\n")
}

fn cosigned(times: &[(u8, u64)]) -> SignedCheckpoint {
    let mut signed = signed(3);
    let lines =
        times.iter().map(|(number, seconds)| cosign(&checkpoint(3), &witness_key(*number), time(*seconds)).unwrap());
    signed.merge(lines).unwrap();
    signed
}

#[test]
fn the_specifications_example_is_understood() {
    let keys: Vec<_> = (1..=6).map(vkey).collect();
    let text = format!(
        "log {}\n\nwitness X1 {}\nwitness X2 {}\nwitness X3 {}\ngroup X-witnesses 2 X1 X2 X3\n\n\
        witness Y1 {}\nwitness Y2 {}\nwitness Y3 {}\ngroup Y-witnesses any Y1 Y2 Y3\n\n\
        group X-and-Y all X-witnesses Y-witnesses\nquorum X-and-Y\n",
        log_key().verifier(),
        keys[0],
        keys[1],
        keys[2],
        keys[3],
        keys[4],
        keys[5]
    );
    let policy = LogPolicy::parse(text).unwrap();
    let enough = |names: &[&str]| policy.is_satisfied(&names.iter().copied().collect());
    assert!(enough(&["X1", "X3", "Y2"]));
    assert!(!enough(&["X1", "X2", "X3"]));
    assert!(!enough(&["X1", "Y1", "Y2", "Y3"]));
    assert!(!enough(&["X-witnesses", "Y-witnesses", "X-and-Y"]), "groups don't cosign");
    assert_eq!(policy.flat_quorum(), None);
    assert_eq!(LogPolicy::parse(policy.to_string()).unwrap(), policy);
}

#[test]
fn quorums_of_each_kind() {
    assert_eq!(policy("group G 3 X1 X2 X3 X4\nquorum G\n").flat_quorum(), Some(FlatQuorum { needed: 3, of: 4 }));
    assert_eq!(policy("group G all X1 X2\nquorum G\n").flat_quorum(), Some(FlatQuorum { needed: 2, of: 2 }));
    assert_eq!(policy("group G any X1 X2\nquorum G\n").flat_quorum(), Some(FlatQuorum { needed: 1, of: 2 }));
    assert_eq!(policy("quorum X2\n").flat_quorum(), Some(FlatQuorum { needed: 1, of: 1 }));
    let spaced = policy(" \tgroup\tG  all X1\t \n  # quorum none\n\nquorum G\n");
    assert_eq!(spaced.flat_quorum(), Some(FlatQuorum { needed: 1, of: 1 }));
    let with_url = LogPolicy::parse(format!("witness w {} https://w.example/\nquorum w\n", vkey(1))).unwrap();
    assert_eq!(with_url.witnesses()[0].url.as_deref(), Some("https://w.example/"));
    assert!(with_url.to_string().contains(" https://w.example/\n"));
}

#[test]
fn no_quorum_never_means_yes() {
    let none = policy("quorum none\n");
    assert!(!none.is_satisfied(&BTreeSet::from(["X1", "X2", "X3", "X4"])));
    assert_eq!(none.flat_quorum(), None);
    let all = cosigned(&[(1, 5), (2, 5), (3, 5), (4, 5)]);
    assert!(matches!(none.verify_checkpoint(&all), Err(PolicyError::NoQuorum)));
    assert!(matches!(LogPolicy::parse(text("")), Err(PolicyError::NoQuorum)));
    assert!(matches!(LogPolicy::parse(""), Err(PolicyError::NotText)));
}

#[test]
fn mistakes_are_refused_with_their_line() {
    let witness = |name: &str, number| format!("witness {name} {}\n", vkey(number));
    let public = *vkey(1).public_key();
    let renamed = VerifierKey::new("other.example/w".parse().unwrap(), KeyKind::Cosignature, &public).unwrap();
    let as_log = VerifierKey::new("other.example/w".parse().unwrap(), KeyKind::Ed25519, &public).unwrap();
    let second_key = SignerKey::generate(vkey(1).name().clone(), KeyKind::Cosignature, &Fixed(77)).unwrap();
    for (what, lines) in [
        ("an unknown word", "frobnicate\n".to_owned()),
        ("a log without a key", "log\n".to_owned()),
        ("too many words", format!("log {} u v\n", log_key().verifier())),
        ("a witness's key as a log's", format!("log {}\n", vkey(5))),
        ("a log's key as a witness's", format!("witness W {}\n", log_key().verifier())),
        ("the same key", witness("X5", 1)),
        ("the same key under another name", format!("witness X5 {renamed}\n")),
        ("a witness's key as a log's, rewrapped", format!("log {as_log}\n")),
        ("a second key of one witness", format!("witness X5 {}\n", second_key.verifier())),
        ("the same log", format!("log {}\n", log_key().verifier())),
        ("the same name", witness("X1", 5)),
        ("a witness named none", witness("none", 5)),
        ("a group named none", "group none all X1\n".to_owned()),
        ("a group named like a witness", "group X1 all X2\n".to_owned()),
        ("no members", "group G all\n".to_owned()),
        ("an unknown member", "group G all X9\n".to_owned()),
        ("itself as a member", "group G all G\n".to_owned()),
        ("none as a member", "group G any none X1\n".to_owned()),
        ("a member twice", "group G 1 X1 X1\n".to_owned()),
        ("a member of two groups", "group G all X1\ngroup H all X1\n".to_owned()),
        ("threshold 0", "group G 0 X1\n".to_owned()),
        ("threshold above n", "group G 3 X1 X2\n".to_owned()),
        ("a leading zero", "group G 01 X1\n".to_owned()),
        ("a sign", "group G +1 X1\n".to_owned()),
        ("a huge threshold", "group G 99999999999999999999 X1\n".to_owned()),
        ("an unknown quorum", "quorum X9\n".to_owned()),
        ("two quorums", "quorum X1\nquorum X1\n".to_owned()),
        ("a quorum of two", "quorum X1 X2\n".to_owned()),
        ("CRLF", "group G all X1\r\n".to_owned()),
        ("DEL", "# \u{7f}\n".to_owned()),
    ] {
        assert!(LogPolicy::parse(text(&format!("{lines}quorum X1\n"))).is_err(), "{what}");
    }
    assert!(LogPolicy::parse(text("quorum X1")).is_err(), "no newline at the end");
    let line = LogPolicy::parse(text("\ngroup G all X9\nquorum X1\n")).unwrap_err().to_string();
    insta::assert_snapshot!(line, @"policy line 7: `X9` is not defined above");
    assert!(matches!(LogPolicy::parse(vec![b'#'; 200_000]), Err(PolicyError::TooLarge)));
    let many: String = (5..=69).map(|number| witness(&format!("X{number}"), number)).collect();
    assert!(matches!(LogPolicy::parse(text(&format!("{many}quorum X1\n"))), Err(PolicyError::TooLarge)));
}

#[test]
fn the_evidence_time_is_the_kth_largest() {
    let three = policy("group G 3 X1 X2 X3 X4\nquorum G\n");
    let verify =
        |times: &[(u8, u64)]| three.verify_checkpoint(&cosigned(times)).map(|cosigned| cosigned.time.seconds());
    assert_eq!(verify(&[(1, 10), (2, 40), (3, 20), (4, 30)]).unwrap(), 20);
    assert_eq!(verify(&[(1, 10), (2, 40), (3, 20)]).unwrap(), 10);
    assert!(matches!(verify(&[(1, 10), (2, 40)]), Err(PolicyError::Quorum(names)) if names == ["X1", "X2"]));
    // A witness that cosigned often is still one witness, with its latest word.
    assert!(verify(&[(1, 10), (1, 11), (1, 12), (2, 40)]).is_err());
    assert_eq!(verify(&[(1, 10), (1, 50), (2, 40), (3, 20)]).unwrap(), 20);
    // Groups: the latest time at which those that cosigned then or later are enough.
    let both = policy("group A any X1 X2\ngroup B any X3 X4\ngroup G all A B\nquorum G\n");
    let cosigned = both.verify_checkpoint(&cosigned(&[(1, 90), (2, 80), (3, 20), (4, 30)])).unwrap();
    assert_eq!(cosigned.time, time(30));
    let names: Vec<_> = cosigned.by.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["witness.example/w1", "witness.example/w2", "witness.example/w3", "witness.example/w4"]);
}

#[test]
fn log_and_witnesses_must_both_have_signed() {
    let policy = one_of_one();
    policy.verify_checkpoint(&cosigned(&[(1, 5)])).unwrap();
    assert!(matches!(policy.verify_checkpoint(&cosigned(&[(2, 5)])), Err(PolicyError::Quorum(_))));
    let only_witness = cosigned(&[(1, 5)]).only_verified(&[vkey(1)]).unwrap();
    assert!(matches!(policy.verify_checkpoint(&only_witness), Err(PolicyError::UnknownLog(_))));
    // Another log's checkpoint, cosigned by the right witness.
    let other = SignerKey::generate("log.example/two".parse().unwrap(), KeyKind::Ed25519, &Fixed(2)).unwrap();
    let foreign = tlog::Checkpoint::new("log.example/two".parse().unwrap(), *checkpoint(3).head()).unwrap();
    let mut signed = SignedCheckpoint::sign(foreign.clone(), &other).unwrap();
    signed.merge([cosign(&foreign, &witness_key(1), time(5)).unwrap()]).unwrap();
    assert!(matches!(policy.verify_checkpoint(&signed), Err(PolicyError::UnknownLog(_))));
    // One wrong line of a known witness refuses all, even if the others are a quorum.
    let mut signed = cosigned(&[(1, 5)]);
    signed.merge([cosign(&checkpoint(4), &witness_key(2), time(5)).unwrap()]).unwrap();
    let refused = policy.verify_checkpoint(&signed);
    assert!(matches!(refused, Err(PolicyError::Signatures(NoteError::WrongSignature { .. }))));
    // A log and a witness of one name are told apart by their ids.
    let twin = SignerKey::generate("log.example/one".parse().unwrap(), KeyKind::Cosignature, &Fixed(50)).unwrap();
    let text = format!("log {}\nwitness twin {}\nquorum twin\n", log_key().verifier(), twin.verifier());
    let policy = LogPolicy::parse(text).unwrap();
    assert!(policy.verify_checkpoint(&crate::signed(3)).is_err());
    let mut signed = crate::signed(3);
    signed.merge([cosign(&checkpoint(3), &twin, time(5)).unwrap()]).unwrap();
    policy.verify_checkpoint(&signed).unwrap();
}

proptest! {
    #[test]
    fn more_witnesses_never_make_less(seed in 0_usize..16, more in 0_usize..16, k in 1_usize..5) {
        let policy = policy(&format!("group G {k} X1 X2 X3 X4\nquorum G\n"));
        let names = |set: usize| -> BTreeSet<&str> {
            ["X1", "X2", "X3", "X4"].into_iter().enumerate().filter(|(bit, _)| set >> bit & 1 == 1).map(|(_, name)| name).collect()
        };
        prop_assert_eq!(policy.is_satisfied(&names(seed)), names(seed).len() >= k);
        prop_assert!(!policy.is_satisfied(&names(seed)) || policy.is_satisfied(&names(seed | more)));
    }
}
