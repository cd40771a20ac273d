//! Sealing and opening, and what must not open.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "tests"
)]

mod attacks;
mod destination;
mod golden;
mod hop;
mod scene;
mod table;
mod whole;
