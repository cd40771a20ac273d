//! The ledger on real statements, in a log with real keys.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "tests"
)]

mod complete;
mod index;
mod private;
mod scene;
