//! What the crate promises, checked from outside.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "tests"
)]

mod agreement;
mod checkpoint;
mod document;
mod merkle;
mod note;
mod policy;
mod tile;
mod vectors;
mod witness_protocol;

use stdx::{Entropy, EntropyError, UnixTime};
use tlog::{Checkpoint, Frontier, Hash, KeyKind, SignedCheckpoint, SignerKey, TreeHead, leaf_hash};

/// A seed of equal bytes: keys that every run makes anew, for golden bytes.
struct Fixed(u8);

impl Entropy for Fixed {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        buffer.fill(self.0);
        Ok(())
    }
}

fn log_key() -> SignerKey {
    SignerKey::generate("log.example/one".parse().unwrap(), KeyKind::Ed25519, &Fixed(1)).unwrap()
}

fn witness_key(number: u8) -> SignerKey {
    let name = format!("witness.example/w{number}").parse().unwrap();
    SignerKey::generate(name, KeyKind::Cosignature, &Fixed(100 + number)).unwrap()
}

fn time(seconds: u64) -> UnixTime {
    UnixTime::from_seconds(seconds)
}

/// The leaf hashes of `entry 0`, `entry 1`, …
fn leaves(count: u64) -> Vec<Hash> {
    (0..count).map(|index| leaf_hash(format!("entry {index}").as_bytes())).collect()
}

fn head(leaves: &[Hash]) -> TreeHead {
    leaves.iter().copied().collect::<Frontier>().head()
}

fn checkpoint(size: u64) -> Checkpoint {
    Checkpoint::new("log.example/one".parse().unwrap(), head(&leaves(size))).unwrap()
}

fn signed(size: u64) -> SignedCheckpoint {
    SignedCheckpoint::sign(checkpoint(size), &log_key()).unwrap()
}
