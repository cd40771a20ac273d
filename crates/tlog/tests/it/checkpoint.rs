//! Checkpoints, cosignatures and offline proofs.

use proptest::{prop_assert, prop_assert_eq, prop_assume, proptest};
use tlog::{
    Checkpoint, CheckpointError, Cosignature, CosignatureError, EntryIndex, InclusionProof, KeyKind, LogProof,
    LogProofError, Note, NoteError, NoteSignature, SignedCheckpoint, SignerKey, TreeHead, VerifierKey, cosign,
    empty_root, leaf_hash, verify_cosignature,
};

use crate::{Fixed, checkpoint, log_key, signed, time, witness_key};

/// tlog-cosignature.md, the first example.
const EXAMPLE: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
    — example.com/behind-the-sofa \
    Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
    — witness.example.com/w1 \
    jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";

#[test]
fn the_specifications_example_is_read() {
    let example = SignedCheckpoint::parse(EXAMPLE).unwrap();
    assert_eq!(example.to_string(), EXAMPLE);
    assert_eq!(example.checkpoint().size().get(), 20_852_163);
    assert_eq!(example.signatures().len(), 2);
    // The timestamp is big-endian: 2023-03-20T12:25:47Z, as the message in the text has it.
    let cosignature = Cosignature::from_bytes(example.signatures()[1].bytes()).unwrap();
    assert_eq!(cosignature.time.seconds(), 1_679_315_147);
    assert_eq!(cosignature.to_bytes(), example.signatures()[1].bytes());
}

#[test]
fn only_one_form_is_read() {
    let good = checkpoint(3).to_text();
    assert_eq!(Checkpoint::parse(&good).unwrap(), checkpoint(3));
    let root = checkpoint(3).root().to_string();
    for (what, text) in [
        ("nothing", String::new()),
        ("no newline", good.trim_end().to_owned()),
        ("an extension line", format!("{good}extension\n")),
        ("an empty line", format!("{good}\n")),
        ("a leading zero", good.replace("\n3\n", "\n03\n")),
        ("a sign", good.replace("\n3\n", "\n+3\n")),
        ("no size", good.replace("\n3\n", "\n\n")),
        ("2^64", good.replace("\n3\n", "\n18446744073709551616\n")),
        ("an empty origin", good.replace("log.example/one", "")),
        ("a space in the origin", good.replace("log.example/one", "log example")),
        ("a short root", good.replace(&root, "AAAA")),
        ("CRLF", good.replace('\n', "\r\n")),
        ("size 0 with a root", good.replace("\n3\n", "\n0\n")),
    ] {
        assert!(Checkpoint::parse(&text).is_err(), "{what}");
    }
    let empty = Checkpoint::new("log.example/one".parse().unwrap(), TreeHead::EMPTY).unwrap();
    assert_eq!(empty.to_text(), format!("log.example/one\n0\n{}\n", empty_root()));
    assert_eq!(Checkpoint::parse(&empty.to_text()).unwrap(), empty);
    let odd = TreeHead { root: leaf_hash(b""), ..TreeHead::EMPTY };
    assert!(matches!(Checkpoint::new(empty.origin().clone(), odd), Err(CheckpointError::EmptyRoot(_))));
    let largest = good.replace("\n3\n", "\n18446744073709551615\n");
    assert_eq!(Checkpoint::parse(&largest).unwrap().size().get(), u64::MAX);
}

#[test]
fn only_the_logs_own_key_opens_it() {
    let signed = signed(3);
    let text = signed.to_string();
    assert_eq!(SignedCheckpoint::open(&text, log_key().verifier()).unwrap(), signed);
    let other = SignerKey::generate("log.example/one".parse().unwrap(), KeyKind::Ed25519, &Fixed(9)).unwrap();
    let opened = SignedCheckpoint::open(&text, other.verifier());
    assert_eq!(opened, Err(CheckpointError::Note(NoteError::NoTrustedSignature)), "same name, other id");
    // The name of the log, but a cosigner's key: its signature is not the log's.
    let cosigner = SignerKey::generate("log.example/one".parse().unwrap(), KeyKind::Cosignature, &Fixed(9)).unwrap();
    let opened = SignedCheckpoint::open(&text, cosigner.verifier());
    assert!(matches!(opened, Err(CheckpointError::NotTheLogsKey { .. })));
    assert!(matches!(SignedCheckpoint::sign(checkpoint(3), &cosigner), Err(CheckpointError::NotTheLogsKey { .. })));
    // A note by a good key over a checkpoint of another log.
    let stranger = SignerKey::generate("log.example/two".parse().unwrap(), KeyKind::Ed25519, &Fixed(2)).unwrap();
    let mut note = Note::new(checkpoint(3).to_text()).unwrap();
    note.sign(&stranger).unwrap();
    let opened = SignedCheckpoint::open(note.to_string(), stranger.verifier());
    assert!(matches!(opened, Err(CheckpointError::NotTheLogsKey { .. })));
}

#[test]
fn a_cosignature_is_about_one_checkpoint_time_and_key() {
    let key = witness_key(1);
    let line = cosign(&checkpoint(3), &key, time(1_700_000_000)).unwrap();
    assert_eq!(verify_cosignature(&checkpoint(3), &line, key.verifier()), Ok(time(1_700_000_000)));
    assert_eq!(line.bytes()[..8], 1_700_000_000_u64.to_be_bytes());
    let wrong = |checkpoint: &Checkpoint, line: &NoteSignature, key: &VerifierKey| {
        assert!(verify_cosignature(checkpoint, line, key).is_err());
    };
    wrong(&checkpoint(4), &line, key.verifier());
    wrong(&checkpoint(3), &line, witness_key(2).verifier());
    wrong(&checkpoint(3), &line, log_key().verifier());
    assert!(matches!(cosign(&checkpoint(3), &log_key(), time(1)), Err(CosignatureError::NotACosigner(_))));
    assert_eq!(cosign(&checkpoint(3), &key, time(0)), Err(CosignatureError::Time(0)));
    // Another time, the other byte order, no time, too late a time, another length.
    let mut bytes = line.bytes().to_vec();
    bytes[7] ^= 1;
    wrong(&checkpoint(3), &line_of(&key, &bytes), key.verifier());
    bytes[7] ^= 1;
    bytes[..8].reverse();
    wrong(&checkpoint(3), &line_of(&key, &bytes), key.verifier());
    for seconds in [0, 253_402_207_201, 1 << 63, u64::MAX] {
        bytes[..8].copy_from_slice(&u64::to_be_bytes(seconds));
        assert_eq!(Cosignature::from_bytes(&bytes), Err(CosignatureError::Time(seconds)));
        wrong(&checkpoint(3), &line_of(&key, &bytes), key.verifier());
    }
    assert_eq!(Cosignature::from_bytes(&bytes[1..]), Err(CosignatureError::Length(71)));
    assert_eq!(Cosignature::from_bytes(&[bytes, vec![0]].concat()), Err(CosignatureError::Length(73)));
}

/// A line of this key with these signature bytes.
fn line_of(key: &SignerKey, bytes: &[u8]) -> NoteSignature {
    let whole = cosign(&checkpoint(1), key, time(1)).unwrap();
    let mut text = Note::new("x\n").unwrap();
    text.add(whole).unwrap();
    // Only the text form makes arbitrary lines.
    let material = [key.verifier().id().as_bytes(), bytes].concat();
    let hashes: String = material.iter().map(|byte| format!("{byte:08b}")).collect();
    let digits: String = hashes
        .as_bytes()
        .chunks(6)
        .map(|bits| {
            let value = bits.iter().chain([b'0'; 5].iter()).take(6).fold(0, |value, bit| value * 2 + (bit - b'0'));
            char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[usize::from(value)])
        })
        .collect();
    let padding = "=".repeat((4 - digits.len() % 4) % 4);
    format!("— {} {digits}{padding}\n", key.verifier().name()).parse().unwrap()
}

#[test]
fn cosignatures_count_in_notes_on_checkpoints_only() {
    let (key, keys) = (witness_key(1), [witness_key(1).verifier().clone(), log_key().verifier().clone()]);
    let line = cosign(&checkpoint(3), &key, time(7)).unwrap();
    let mut signed = signed(3);
    signed.merge([line.clone(), line.clone()]).unwrap();
    assert_eq!(signed.signatures().len(), 2, "a line that is there is skipped");
    let verified = signed.note().verified_by(&keys).unwrap();
    assert_eq!(verified.iter().map(|signature| signature.time).collect::<Vec<_>>(), [None, Some(time(7))]);
    assert_eq!(SignedCheckpoint::parse(signed.to_string()).unwrap(), signed);
    // The same key over the same bytes, were they not a checkpoint, says nothing.
    let mut note = Note::new("not a checkpoint\n").unwrap();
    note.add(line).unwrap();
    assert!(matches!(note.verified_by(&keys), Err(NoteError::WrongSignature { .. })));
}

#[test]
fn what_is_not_verified_is_not_kept() {
    let mut signed = signed(3);
    let good = cosign(&checkpoint(3), &witness_key(1), time(7)).unwrap();
    let stranger = cosign(&checkpoint(3), &witness_key(2), time(7)).unwrap();
    signed.merge([stranger, good.clone()]).unwrap();
    let keys = [witness_key(1).verifier().clone()];
    assert_eq!(signed.only_verified(&keys).unwrap().signatures(), [good]);
    let forged = cosign(&checkpoint(4), &witness_key(1), time(8)).unwrap();
    signed.merge([forged]).unwrap();
    assert!(signed.only_verified(&keys).is_err());
}

fn proof() -> LogProof {
    let leaves = crate::leaves(3);
    let path = InclusionProof::new(vec![tlog::node_hash(&leaves[0], &leaves[1])]).unwrap();
    LogProof::new(EntryIndex::new(2), path, signed(3))
}

#[test]
fn an_offline_proof_has_one_form() {
    let plain = proof();
    let extra = proof().with_extra(b"context".to_vec()).unwrap();
    let empty = proof().with_extra(Vec::new()).unwrap();
    for proof in [&plain, &extra, &empty] {
        assert_eq!(LogProof::parse(proof.to_string()).unwrap(), *proof);
    }
    assert_eq!(extra.extra(), Some(&b"context"[..]));
    let good = extra.to_string();
    for (what, text) in [
        ("nothing", String::new()),
        ("another version", good.replace("@v1", "@v2")),
        ("index first", good.replacen("extra Y29udGV4dA==\nindex 2\n", "index 2\nextra Y29udGV4dA==\n", 1)),
        ("no index", good.replace("index 2\n", "")),
        ("a leading zero", good.replace("index 2", "index 02")),
        ("2^64", good.replace("index 2", "index 18446744073709551616")),
        ("extra twice", good.replacen("extra", "extra AAAA\nextra", 1)),
        ("bad extra", good.replace("Y29udGV4dA==", "Y29udGV4dB==")),
        ("no empty line", good.replacen("\n\n", "\n", 1)),
        ("CRLF", good.replace('\n', "\r\n")),
        ("bytes after it", format!("{good}x")),
        ("64 hashes", good.replacen("index 2\n", &format!("index 2\n{}", format!("{}\n", empty_root()).repeat(63)), 1)),
    ] {
        assert!(LogProof::parse(&text).is_err(), "{what}");
    }
    assert!(matches!(proof().with_extra(vec![0; 65_536]), Err(LogProofError::Extra)));
}

proptest! {
    #[test]
    fn a_mutated_proof_is_refused_or_unsigned(position in 0_usize..4096, byte: u8) {
        let mut signed = signed(3);
        signed.merge([cosign(&checkpoint(3), &witness_key(1), time(7)).unwrap()]).unwrap();
        let leaves = crate::leaves(3);
        let path = InclusionProof::new(vec![tlog::node_hash(&leaves[0], &leaves[1])]).unwrap();
        let good = LogProof::new(EntryIndex::new(2), path, signed);
        let policy = crate::policy::one_of_one();
        prop_assert_eq!(good.verify(&leaves[2], &policy).unwrap().time, time(7));
        let mut bytes = good.to_string().into_bytes();
        let position = position % bytes.len();
        prop_assume!(bytes[position] != byte);
        bytes[position] = byte;
        let verified = LogProof::parse(&bytes).is_ok_and(|proof| proof.verify(&leaves[2], &policy).is_ok());
        prop_assert!(!verified, "byte {} at {}", byte, position);
    }

    #[test]
    fn what_is_read_is_written_back(text in "c2sp.org/tlog-proof@v1\n(extra [A-Za-z]{0,5}={0,2}\n)?index [0-9]{1,3}\n") {
        let text = format!("{text}\n{}", signed(3));
        if let Ok(proof) = LogProof::parse(&text) {
            prop_assert_eq!(proof.to_string(), text);
        }
    }
}
