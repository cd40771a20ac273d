//! Transparency logs: C2SP's texts, tiles and proofs.

use std::fmt::Display;
use std::str::FromStr;

use tlog::witness_protocol::{AddCheckpoint, Cosignatures, LatestSize};
use tlog::{
    Checkpoint, ConsistencyProof, Cosignature, EntryBundleId, EntryIndex, Growth, Hash, InclusionProof, KeyId, KeyName,
    LogPolicy, LogProof, Note, NoteSignature, Origin, SignedCheckpoint, SignerKey, TileId, TreeHead, TreeSize,
    VerifierKey, decode_bundle, encode_bundle,
};

use crate::Target;

pub(crate) const TARGETS: &[Target] = &[
    ("note", note),
    ("checkpoint", checkpoint),
    ("cosignatures", cosignatures),
    ("add-checkpoint", |bytes| same_text(bytes, AddCheckpoint::parse(bytes))),
    ("log-proof", |bytes| same_text(bytes, LogProof::parse(bytes))),
    ("log-policy", log_policy),
    ("tile-path", tile_path),
    ("entry-bundle", entry_bundle),
    ("key", key),
    ("merkle-proof", merkle_proof),
];

/// What was read is written back byte for byte.
fn same_text<T: Display, E>(bytes: &[u8], parsed: Result<T, E>) {
    if let Ok(parsed) = parsed {
        assert_eq!(parsed.to_string().as_bytes(), bytes);
    }
}

fn same_str<T: FromStr + Display>(text: &str) {
    same_text(text.as_bytes(), text.parse::<T>());
}

fn note(bytes: &[u8]) {
    let Ok(ours) = Note::parse(bytes) else { return };
    assert_eq!(ours.to_string().as_bytes(), bytes);
    // An implementation of others takes what we take, and sees the same in it.
    let theirs = signed_note::Note::from_bytes(bytes).expect("signed_note refuses what we accept");
    assert_eq!(theirs.text(), ours.text().as_bytes());
    assert_eq!(theirs.to_bytes(), bytes);
}

fn checkpoint(bytes: &[u8]) {
    same_text(bytes, SignedCheckpoint::parse(bytes));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(ours) = Checkpoint::parse(text) else { return };
    assert_eq!(ours.to_text(), text);
    let theirs = tlog_tiles::Checkpoint::from_bytes(bytes).expect("tlog_tiles refuses what we accept");
    assert_eq!((theirs.origin(), theirs.size()), (ours.origin().as_str(), ours.size().get()));
    assert_eq!(&theirs.hash().0, ours.root().as_bytes());
}

fn cosignatures(bytes: &[u8]) {
    same_text(bytes, Cosignatures::parse(bytes));
    same_text(bytes, LatestSize::parse(bytes));
    if let Ok(cosignature) = Cosignature::from_bytes(bytes) {
        assert_eq!(cosignature.to_bytes(), bytes);
    }
}

/// White space and comments are free, so it is the second round that changes nothing.
fn log_policy(bytes: &[u8]) {
    let Ok(policy) = LogPolicy::parse(bytes) else { return };
    let text = policy.to_string();
    let again = LogPolicy::parse(&text).expect("a policy that we wrote");
    assert_eq!(again.to_string(), text);
    let all = policy.witnesses().iter().map(|witness| witness.name.as_str()).collect();
    if policy.flat_quorum().is_some() {
        assert!(policy.is_satisfied(&all), "a quorum that all witnesses together are not");
    }
}

fn tile_path(bytes: &[u8]) {
    let Ok(path) = std::str::from_utf8(bytes) else { return };
    same_str::<TileId>(path);
    same_str::<EntryBundleId>(path);
    let Ok(tile) = path.parse::<TileId>() else { return };
    let rest = path.strip_prefix("tile/").expect("a tile's path begins so");
    let theirs = tlog_tiles::Tile::from_path(&format!("tile/8/{rest}")).expect("tlog_tiles refuses what we accept");
    assert_eq!((theirs.level(), theirs.level_index()), (tile.level(), tile.index()));
    assert_eq!(theirs.width(), u32::from(tile.width()));
}

/// The first byte is the width.
fn entry_bundle(bytes: &[u8]) {
    let Some((width, bundle)) = bytes.split_first() else { return };
    let Ok(id) = EntryBundleId::new(0, u16::from(*width) + 1) else { return };
    if let Ok(entries) = decode_bundle(id, bundle) {
        assert_eq!(entries.len(), usize::from(id.width()));
        assert_eq!(encode_bundle(&entries).expect("entries that were in a bundle"), bundle);
    }
}

fn key(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    same_str::<VerifierKey>(text);
    same_str::<NoteSignature>(text);
    same_str::<KeyName>(text);
    same_str::<Origin>(text);
    same_str::<KeyId>(text);
    same_str::<Hash>(text);
    same_str::<TreeSize>(text);
    same_str::<EntryIndex>(text);
    if let Ok(key) = text.parse::<SignerKey>() {
        assert_eq!(key.to_secret_text().as_str(), text);
    }
}

/// Three numbers and hashes: both implementations judge a proof alike.
fn merkle_proof(bytes: &[u8]) {
    let Some((numbers, rest)) = bytes.split_at_checked(3) else { return };
    let [a, b, length] = [numbers[0], numbers[1], numbers[2]].map(u64::from);
    let hashes: Vec<Hash> = rest.as_chunks::<32>().0.iter().map(|hash| Hash::from_bytes(*hash)).collect();
    let Some((roots, path)) = hashes.split_at_checked(2) else { return };
    let path: Vec<Hash> =
        path.iter().copied().cycle().take(if path.is_empty() { 0 } else { length as usize % 70 }).collect();
    let theirs: Vec<_> = path.iter().map(|hash| tlog_tiles::Hash(*hash.as_bytes())).collect();
    let root = |at: usize| tlog_tiles::Hash(*roots[at].as_bytes());

    if let (Ok(proof), true) = (InclusionProof::new(path.clone()), a < b) {
        let tree = TreeHead { size: TreeSize::new(b), root: roots[0] };
        let ours = proof.verify(EntryIndex::new(a), &roots[1], &tree).is_ok();
        assert_eq!(ours, tlog_tiles::check_record(&theirs, b, root(0), a, root(1)).is_ok());
    }
    if let (Ok(proof), true) = (ConsistencyProof::new(path), 0 < a && a <= b) {
        let [old, new] = [(a, 0), (b, 1)].map(|(size, at)| TreeHead { size: TreeSize::new(size), root: roots[at] });
        let ours = proof.verify(Growth { old: &old, new: &new }).is_ok();
        assert_eq!(ours, tlog_tiles::check_tree(&theirs, b, root(1), a, root(0)).is_ok());
    }
}
