//! The scanner as its callers see it: real children, real rules.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "tests"
)]

mod assemble;
mod command;
mod ending;
mod engines;
mod place;
mod unpack;
mod worker;
