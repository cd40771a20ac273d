//! The program as users run it: real processes, real sockets, real keys.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "tests"
)]

mod accusation;
mod admission;
mod append;
mod auditing;
mod backups;
mod canary;
mod command_line;
mod damaged;
mod data;
mod documents;
mod faults;
mod foreign;
mod fsck;
mod limits;
mod lookups;
mod mirror;
mod news;
mod operation;
mod peers;
mod policies;
mod previous;
mod process;
mod proxy;
mod raw;
mod releases;
mod rules;
mod secrets;
mod serving;
mod shared;
mod statement;
mod system;
mod takeover;
mod units;
mod vault;
mod witnessing;
