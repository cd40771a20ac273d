//! Hostile programs, each ended in bounds: as root and as an ordinary user, with and without
//! control groups.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "tests"
)]

mod bounds;
mod ending;
mod isolation;
mod itself;
mod misuse;
mod output;
mod place;
