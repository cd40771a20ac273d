//! A channel with real keys, published and read back as an endpoint would.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "tests"
)]

mod export;
mod foreign;
mod news;
mod publish;
mod rules;
mod vendor;
