//! Releases of a world with real keys, approved or refused.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "tests"
)]

mod approve;
mod desk;
mod fast;
mod mutation;
mod stream;
mod trust;
