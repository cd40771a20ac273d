#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

// The workspace's alias, by which all other crates know this one.
extern crate clerestory_log as log;

mod audit;
mod backup;
mod config;
mod faults;
mod fsck;
mod growth;
mod kit;
mod overlap;
mod pressure;
mod quorum;
mod readback;
mod takeover;
mod time;
