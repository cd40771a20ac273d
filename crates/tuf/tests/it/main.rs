//! The client against a repository of our own making, attacked in every way that the specification names.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "tests"
)]

mod attacks;
mod canonical;
mod delegations;
mod golden;
mod publication;
mod rotation;
mod targets;
mod workflow;
mod world;
