//! Whatever is done to a bundle on its way, it is refused, or says exactly the same.

use attest::Bundle;
use proptest::prelude::{Just, Strategy, prop_oneof};
use proptest::{collection, proptest, sample};
use testkit::{PRODUCT, World};

use crate::approve::approve;

#[derive(Clone, Debug)]
enum Mutation {
    Flip { at: sample::Index, bit: u8 },
    Truncate { at: sample::Index },
    Append { bytes: Vec<u8> },
    Insert { at: sample::Index, bytes: Vec<u8> },
    Delete { at: sample::Index },
}

impl Mutation {
    fn of(&self, bytes: &[u8]) -> Vec<u8> {
        let (length, mut bytes) = (bytes.len(), bytes.to_vec());
        match self {
            Self::Flip { at, bit } => bytes[at.index(length)] ^= 1 << bit,
            Self::Truncate { at } => bytes.truncate(at.index(length)),
            Self::Append { bytes: more } => bytes.extend_from_slice(more),
            Self::Insert { at, bytes: more } => {
                let at = at.index(length);
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Delete { at } => drop(bytes.remove(at.index(length))),
        }
        bytes
    }
}

fn mutations() -> impl Strategy<Value = Mutation> {
    let some_bytes = || prop_oneof![collection::vec(0_u8.., 1..8), Just(b" ".to_vec()), Just(b"\n".to_vec())];
    prop_oneof![
        4 => (proptest::arbitrary::any::<sample::Index>(), 0_u8..8).prop_map(|(at, bit)| Mutation::Flip { at, bit }),
        1 => proptest::arbitrary::any::<sample::Index>().prop_map(|at| Mutation::Truncate { at }),
        1 => some_bytes().prop_map(|bytes| Mutation::Append { bytes }),
        1 => (proptest::arbitrary::any::<sample::Index>(), some_bytes())
            .prop_map(|(at, bytes)| Mutation::Insert { at, bytes }),
        1 => proptest::arbitrary::any::<sample::Index>().prop_map(|at| Mutation::Delete { at }),
    ]
}

#[test]
fn no_mutation_of_a_bundle_is_accepted() {
    let mut world = World::new();
    let released = world.release(PRODUCT, "1.0", &[("libexample.so", b"code")]);
    let status = world.status();
    let bytes = released.bundle.to_bytes();
    let honest = approve(&world, &Bundle::parse(&bytes).unwrap(), &status).unwrap();
    proptest!(proptest::test_runner::Config::with_cases(512), |(mutation in mutations())| {
        let mutated = mutation.of(&bytes);
        if mutated != bytes
            && let Ok(bundle) = Bundle::parse(&mutated)
            && let Ok(approved) = approve(&world, &bundle, &status)
        {
            // A signature line of a key that nobody knows says nothing; only such bytes may differ.
            assert_eq!(approved.statement(), honest.statement(), "{mutation:?}");
            assert_eq!(approved.evidence_time(), honest.evidence_time(), "{mutation:?}");
        }
    });
}

#[test]
fn other_encodings_are_refused() {
    let mut world = World::new();
    let released = world.release(PRODUCT, "1.0", &[("libexample.so", b"code")]);
    let text = String::from_utf8(released.bundle.to_bytes()).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let others = [
        serde_json::to_string_pretty(&value).unwrap(),
        format!("{text}\n"),
        format!(" {text}"),
        text.replacen("\"entries\"", "\"entrie\\u0073\"", 1),
        text.replacen("\"checkpoint\":0", "\"checkpoint\":0,\"extra\":1", 1),
        text.replacen("\"checkpoint\":0", "\"checkpoint\":0.0", 1),
        text.replacen("\"checkpoint\":0", "\"checkpoint\":00", 1),
        text.replacen("\"checkpoint\":0", "\"checkpoint\":0,\"checkpoint\":0", 1),
        text.replacen("==\"", "\"", 1),
        text.replacen('/', "_", 1),
        text.replacen("\"checkpoints\":[", "\"checkpoints\":[null,", 1),
    ];
    for other in others {
        assert_ne!(other, text);
        assert!(Bundle::parse(other.as_bytes()).is_err(), "{other}");
    }
}
