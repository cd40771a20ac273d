//! What is taken in is kept once, sealed, and gone after its time.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "tests"
)]

mod attacks;
mod crash;
mod intake;
mod scene;
mod wal;
