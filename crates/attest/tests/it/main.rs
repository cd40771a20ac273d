//! Envelopes, statements and bundles: golden bytes, other encodings, hostile bytes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "tests"
)]

mod data;
mod envelope;
mod samples;
mod statements;
