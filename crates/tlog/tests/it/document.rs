//! The golden bytes of `docs/formats/tlog.md` are what the code writes, reads and verifies.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use tlog::witness_protocol::{AddCheckpoint, Cosignatures};
use tlog::{
    EntryBundleId, EntryIndex, LogPolicy, LogProof, SignedCheckpoint, SignerKey, Tree, TreeEdge, TreeSize, VerifierKey,
    cosign, decode_bundle, encode_bundle, leaf_hash,
};

use crate::{checkpoint, leaves, log_key, signed, time, witness_key};

/// The blocks of the document that begin with ```` ```golden NAME ````.
fn blocks() -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/formats/tlog.md");
    let document = fs::read_to_string(path).unwrap();
    let mut blocks = BTreeMap::new();
    for block in document.split("\n```golden ").skip(1) {
        let (name, rest) = block.split_once('\n').unwrap();
        let content = rest.split_once("```").unwrap().0;
        assert!(blocks.insert(name.to_owned(), content.to_owned()).is_none(), "{name} twice");
    }
    blocks
}

fn cosigned() -> SignedCheckpoint {
    let mut signed = signed(3);
    let line = |number, seconds| cosign(&checkpoint(3), &witness_key(number), time(seconds)).unwrap();
    signed.merge([line(1, 1_700_000_000), line(2, 1_700_000_007)]).unwrap();
    signed
}

/// What the code writes for each block.
fn written() -> BTreeMap<String, String> {
    let leaves = leaves(3);
    let (mut set, mut edge) = (tlog::TileSet::new(), TreeEdge::new());
    leaves.iter().for_each(|leaf| edge.append(leaf, |_, _| {}));
    edge.partial_tiles().for_each(|(tile, bytes)| set.insert(tile, bytes.to_vec()));
    let tree = Tree::new(&set, edge.head());
    let (_, path) = tree.inclusion(EntryIndex::new(2)).unwrap();
    let proof = LogProof::new(EntryIndex::new(2), path, cosigned()).with_extra(b"context".to_vec()).unwrap();
    let (_, growth) = tree.consistency(TreeSize::new(2)).unwrap();
    let request = AddCheckpoint::new(TreeSize::new(2), growth, signed(3)).unwrap();
    let answer = Cosignatures::one(cosigned().signatures()[1].clone());
    let policy = format!(
        "log {} https://log.example/one/\nwitness w1 {}\nwitness w2 {}\nwitness w3 {}\nwitness w4 {}\n\
        group witnesses 2 w1 w2 w3 w4\nquorum witnesses\n",
        log_key().verifier(),
        witness_key(1).verifier(),
        witness_key(2).verifier(),
        witness_key(3).verifier(),
        witness_key(4).verifier()
    );
    let bundle = encode_bundle(&["entry 0", "entry 1", "entry 2"]).unwrap();
    let hex: String = bundle.iter().map(|byte| format!("{byte:02x}")).collect();
    let keys = format!("{}\n{}\n", log_key().verifier(), witness_key(1).verifier());
    [
        ("vkeys", keys),
        ("signer key", format!("{}\n", *log_key().to_secret_text())),
        ("checkpoint", cosigned().to_string()),
        ("proof", proof.to_string()),
        ("policy", policy),
        ("add-checkpoint", request.to_string()),
        ("cosignatures", answer.to_string()),
        ("bundle", format!("{hex}\n")),
    ]
    .into_iter()
    .map(|(name, text)| (name.to_owned(), text))
    .collect()
}

#[test]
fn the_document_has_the_bytes_that_the_code_writes() {
    assert_eq!(blocks(), written());
}

#[test]
fn the_code_reads_and_verifies_the_documents_bytes() {
    let blocks = blocks();
    let keys: Vec<VerifierKey> = blocks["vkeys"].lines().map(|line| line.parse().unwrap()).collect();
    let signer: SignerKey = blocks["signer key"].trim_end().parse().unwrap();
    assert_eq!(*signer.verifier(), keys[0]);
    let checkpoint = SignedCheckpoint::open(&blocks["checkpoint"], &keys[0]).unwrap();
    assert_eq!(checkpoint.note().verified_by(&keys).unwrap().len(), 2);
    let policy = LogPolicy::parse(&blocks["policy"]).unwrap();
    assert_eq!(policy.verify_checkpoint(&checkpoint).unwrap().time, time(1_700_000_000));
    let proof = LogProof::parse(&blocks["proof"]).unwrap();
    proof.verify(&leaf_hash(b"entry 2"), &policy).unwrap();
    assert!(proof.verify(&leaf_hash(b"entry 1"), &policy).is_err());
    let request = AddCheckpoint::parse(&blocks["add-checkpoint"]).unwrap();
    let mut signed = request.checkpoint().clone();
    signed.merge(Cosignatures::parse(&blocks["cosignatures"]).unwrap().into_lines()).unwrap();
    assert_eq!(signed.note().verified_by(&keys).unwrap().len(), 2);
    let digits = blocks["bundle"].trim_end();
    let bundle: Vec<u8> =
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect();
    let entries = decode_bundle(EntryBundleId::new(0, 3).unwrap(), &bundle).unwrap();
    assert_eq!(entries, [b"entry 0", b"entry 1", b"entry 2"]);
}
