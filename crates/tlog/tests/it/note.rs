//! Signed notes and keys.

use std::collections::BTreeSet;

use proptest::{prop_assert, prop_assert_eq, prop_assume, proptest};
use tlog::{
    KeyError, KeyKind, KeyName, MAX_NOTE_BYTES, MAX_SIGNATURES, Note, NoteError, NoteSignature, SignerKey, VerifierKey,
};

use crate::{Fixed, log_key, witness_key};

const VKEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";

/// signed-note.md, "Example".
const NOTE: &str = "This is an example message.\n\n\
    — example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

/// signed-note.md, the introduction: a text with an empty line in it.
const POEM: &str = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n\
    — quasimodo.example/salvatore \
    NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n";

fn key() -> VerifierKey {
    VKEY.parse().unwrap()
}

fn signature_line() -> &'static str {
    NOTE.split_once("\n\n").unwrap().1
}

#[test]
fn the_specifications_examples_are_good() {
    assert_eq!(key().to_string(), VKEY);
    assert_eq!(key().kind(), KeyKind::Ed25519);
    let note = Note::parse(NOTE).unwrap();
    assert_eq!(note.to_string(), NOTE);
    let keys = [key()];
    let verified = note.verified_by(&keys).unwrap();
    assert_eq!((verified.len(), verified[0].key, verified[0].time), (1, &keys[0], None));
    let poem = Note::parse(POEM).unwrap();
    assert!(poem.text().ends_with(":\n\ned è subito sera.\n"), "split at the last empty line");
    assert_eq!(poem.to_string(), POEM);
}

#[test]
fn only_one_form_is_read() {
    for (what, text) in [
        ("nothing", String::new()),
        ("no final newline", NOTE.trim_end().to_owned()),
        ("no empty line", NOTE.replace("\n\n", "\n")),
        ("no signature", "text\n\n".to_owned()),
        ("CRLF", NOTE.replace('\n', "\r\n")),
        ("a tab", NOTE.replace("an example", "an\texample")),
        ("a hyphen for the dash", NOTE.replace('—', "-")),
        ("two spaces", NOTE.replace("foo ", "foo  ")),
        ("a space at the end", NOTE.replace("aQM=\n", "aQM= \n")),
        ("no padding", NOTE.replace("aQM=", "aQM")),
        ("trailing bits", NOTE.replace("aQM=", "aQN=")),
        ("the URL alphabet", POEM.replace('+', "-")),
        ("an id without a signature", "text\n\n— example.com/foo Uw2QOg==\n".to_owned()),
        ("a plus in the name", NOTE.replace("com/foo", "com+foo")),
        ("a Unicode space in the name", NOTE.replace("com/foo", "com\u{2003}foo")),
        ("no name", NOTE.replace("example.com/foo ", " ")),
        ("text after the signatures", format!("{NOTE}more\n")),
        ("the same line twice", format!("{NOTE}{}", signature_line())),
    ] {
        assert!(Note::parse(&text).is_err(), "{what}");
    }
    assert!(Note::parse(b"text\n\n\xff\n").is_err(), "not UTF-8");
    assert!(matches!(Note::parse(vec![b'a'; MAX_NOTE_BYTES + 1]), Err(NoteError::TooLarge(_))));
    assert!(Note::new("no newline").is_err());
}

#[test]
fn unknown_keys_are_ignored_even_if_they_share_a_name_or_an_id() {
    let keys = [key()];
    let line: NoteSignature = signature_line().parse().unwrap();
    let other_name = signature_line().replace("com/foo", "com/bar");
    let other_id = format!("— example.com/foo {}\n", base64(&[&[0, 0, 0, 1][..], line.bytes()].concat()));
    let ml_dsa = format!("— example.com/foo {}\n", base64(&[7; 2424]));
    let note = Note::parse(format!("{NOTE}{other_name}{other_id}{ml_dsa}")).unwrap();
    assert_eq!(note.verified_by(&keys).unwrap().len(), 1);
    let alone = note.with_signatures(note.signatures()[1..].to_vec()).unwrap();
    assert_eq!(alone.verified_by(&keys), Err(NoteError::NoTrustedSignature));
    assert_eq!(note.verified_by(&[]), Err(NoteError::NoTrustedSignature));
}

#[test]
fn a_known_key_that_fails_refuses_the_whole_note() {
    let (one, two) =
        (log_key(), SignerKey::generate("log.example/two".parse().unwrap(), KeyKind::Ed25519, &Fixed(2)).unwrap());
    let mut note = Note::new("text\n").unwrap();
    note.sign(&one).unwrap();
    let mut other = Note::new("other text\n").unwrap();
    other.sign(&two).unwrap();
    note.add(other.signatures()[0].clone()).unwrap();
    let keys = [one.verifier().clone(), two.verifier().clone()];
    assert!(matches!(note.verified_by(&keys), Err(NoteError::WrongSignature { .. })));
    assert_eq!(note.verified_by(&keys[..1]).unwrap().len(), 1, "unknown, it is ignored");
    // So does a second line of the same key after a good one, and a signature of a wrong length.
    let good = note.signatures()[0].clone();
    for bytes in [vec![0; 64], vec![0; 63], vec![0; 65]] {
        let line = format!("— {} {}\n", good.name(), base64(&[good.id().as_bytes(), &bytes[..]].concat()));
        let both = note.with_signatures([good.clone(), line.parse().unwrap()]).unwrap();
        assert!(matches!(both.verified_by(&keys[..1]), Err(NoteError::WrongSignature { .. })));
    }
}

#[test]
fn many_signatures_up_to_a_limit() {
    let lines = |count: u32| -> String {
        (0..count).map(|id| format!("— example.com/k {}\n", base64(&[&id.to_be_bytes()[..], &[0]].concat()))).collect()
    };
    let note = Note::parse(format!("{NOTE}{}", lines(20))).unwrap();
    assert_eq!(note.signatures().len(), 21);
    assert_eq!(note.verified_by(&[key()]).unwrap().len(), 1);
    let full = format!("{NOTE}{}", lines(99));
    let mut note = Note::parse(&full).unwrap();
    assert_eq!(note.signatures().len(), MAX_SIGNATURES);
    assert_eq!(Note::parse(format!("{NOTE}{}", lines(100))), Err(NoteError::TooManySignatures(101)));
    let extra = "— example.com/other AAAAAAA=\n".parse().unwrap();
    assert_eq!(note.add(extra), Err(NoteError::TooManySignatures(101)));
    // 16 post-quantum signatures fit.
    let large: String = (0..16).map(|n: u8| format!("— example.com/pq {}\n", base64(&[n; 5000]))).collect();
    assert_eq!(Note::parse(format!("text\n\n{large}")).unwrap().signatures().len(), 16);
}

#[test]
fn keys_have_one_form_and_are_what_they_say() {
    let witness = witness_key(1);
    let text = witness.verifier().to_string();
    assert_eq!(text.parse::<VerifierKey>().unwrap(), *witness.verifier());
    let json = serde_json::to_string(witness.verifier()).unwrap();
    assert_eq!(serde_json::from_str::<VerifierKey>(&json).unwrap(), *witness.verifier());
    for (what, text) in [
        ("upper-case id", VKEY.replace("530d903a", "530D903A")),
        ("short id", VKEY.replace("530d903a", "530d903")),
        ("no padding error", format!("{VKEY}=")),
        ("too long", VKEY.replace("3U2k", "3U2kAAAA")),
        ("empty name", VKEY.replace("example.com/foo", "")),
        ("a part missing", "example.com/foo+530d903a".to_owned()),
    ] {
        assert!(text.parse::<VerifierKey>().is_err(), "{what}");
    }
    assert!(matches!(VKEY.replace("530d903a", "530d903b").parse::<VerifierKey>(), Err(KeyError::Id { .. })));
    let other_name = VKEY.replace("com/foo", "com/bar").parse::<VerifierKey>();
    assert!(matches!(other_name, Err(KeyError::Id { .. })), "the id commits to the name");
    let ml_dsa = format!("example.com/foo+00000000+{}", base64(&[6; 1313]));
    assert!(matches!(ml_dsa.parse::<VerifierKey>(), Err(KeyError::Kind { kind: 6, .. })));
    let same_key_other_kind = VerifierKey::new(key().name().clone(), KeyKind::Cosignature, key().public_key()).unwrap();
    assert_ne!(same_key_other_kind.id(), key().id());
    assert_eq!(BTreeSet::from([key(), key(), same_key_other_kind]).len(), 2);
}

#[test]
fn weak_and_non_canonical_public_keys_are_refused() {
    let name = || "example.com/foo".parse::<KeyName>().unwrap();
    let mut points: Vec<[u8; 32]> = [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        // Not canonical: y is not reduced (p + 1), or the sign of zero is set.
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    ]
    .iter()
    .map(|digits| *digits.parse::<stdx::Digest>().unwrap().as_bytes())
    .collect();
    // All y from p to 2^255 - 1, of both signs.
    for low in 0xed..=0xff {
        for high in [0x7f, 0xff] {
            let mut point = [0xff; 32];
            (point[0], point[31]) = (low, high);
            points.push(point);
        }
    }
    for point in points {
        let key = VerifierKey::new(name(), KeyKind::Ed25519, &point);
        assert!(matches!(key, Err(KeyError::Weak(_))), "{}", stdx::Digest::from_bytes(point));
    }
}

#[test]
fn a_malleable_signature_is_refused() {
    let key = log_key();
    let signature = key.sign(b"message");
    key.verifier().verify(b"message", &signature).unwrap();
    assert!(key.verifier().verify(b"massage", &signature).is_err());
    // S + L, the group's order, verifies where S is not reduced.
    let order = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut bytes = *signature.as_bytes();
    let mut carry = 0;
    for (byte, add) in bytes[32..].iter_mut().zip(order) {
        carry += u16::from(*byte) + add;
        *byte = carry as u8;
        carry >>= 8;
    }
    assert!(key.verifier().verify(b"message", &tlog::Signature::from_bytes(bytes)).is_err());
}

#[test]
fn a_signer_key_keeps_its_secret() {
    let key = log_key();
    let secret = key.to_secret_text();
    let again: SignerKey = secret.parse().unwrap();
    assert_eq!(again.verifier(), key.verifier());
    assert_eq!(again.sign(b"x"), key.sign(b"x"));
    assert_eq!(*again.to_secret_text(), *secret);
    let material = secret.rsplit('+').next().unwrap();
    assert!(!format!("{key:?}").contains(material));
    for wrong in
        ["", "PRIVATE+KEY+", &secret[12..], &secret.replace("log.example", "log.exampl3"), &format!("{}\n", *secret)]
    {
        let error = wrong.parse::<SignerKey>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains(material));
    }
    // A cosigner's key signs no plain notes.
    let mut note = Note::new("text\n").unwrap();
    assert!(matches!(note.sign(&witness_key(1)), Err(NoteError::WrongKind { .. })));
    note.sign(&key).unwrap();
    assert!(matches!(note.sign(&key), Err(NoteError::Duplicate { .. })));
}

proptest! {
    #[test]
    fn what_is_read_is_written_back(text in "\\PC{0,20}\n(\\PC{0,9}\n){0,3}\n(— [a-z+ ]{1,3} [A-Za-z0-9+/]{0,12}={0,2}\n){0,3}") {
        if let Ok(note) = Note::parse(&text) {
            prop_assert_eq!(note.to_string(), text);
        }
    }

    #[test]
    fn a_mutated_note_is_refused_or_reads_the_same(position in 0_usize..150, byte: u8) {
        let mut bytes = NOTE.as_bytes().to_vec();
        let position = position % bytes.len();
        prop_assume!(bytes[position] != byte);
        bytes[position] = byte;
        let keys = [key()];
        let accepted = Note::parse(&bytes).is_ok_and(|note| note.verified_by(&keys).is_ok());
        prop_assert!(!accepted);
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group =
            chunk.iter().chain([0; 2].iter()).take(3).fold(0_usize, |group, byte| group << 8 | usize::from(*byte));
        for position in 0..4 {
            let digit = char::from(ALPHABET[group >> (18 - 6 * position) & 63]);
            text.push(if position <= chunk.len() { digit } else { '=' });
        }
    }
    text
}
