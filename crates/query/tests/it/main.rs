//! A worker, asked by gateways that are honest and by others that are not.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "tests"
)]

mod attacks;
mod crew;
mod disk;
mod documents;
mod erasing;
mod hops;
mod queries;
mod refused;
mod rewriting;
mod rogue;
mod scene;
mod several;
