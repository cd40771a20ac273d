//! Sets and buckets: the format's bytes, the same from everybody, and every lie in them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "tests"
)]

mod buckets;
mod judging;
mod sets;

use stdx::Digest;

/// The hashes of the numbers from `start` on.
fn hashes(start: u32, count: u32) -> Vec<Digest> {
    (start..start + count).map(|number| Digest::of(&number.to_be_bytes())).collect()
}
