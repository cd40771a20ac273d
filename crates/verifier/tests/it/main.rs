//! The verifier on files that a world with real keys has made, and on everything like them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "tests"
)]

mod command;
mod files;
mod mutation;
mod proof;
