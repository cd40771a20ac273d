//! An endpoint against a channel on a loopback server, with real keys, and against everything that
//! can be wrong with either.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "tests"
)]

mod attacks;
mod basics;
mod canary;
mod capture;
mod cohort;
mod command;
mod crash;
mod flips;
mod forks;
mod full;
mod guard;
mod import;
mod liars;
mod lookups;
mod mirrors;
mod news;
mod policies;
mod region;
mod rules;
mod scene;
mod server;
mod sharing;
mod strace;
mod time;
