//! The roles of Clerestory as processes: the program `clerestory`.
//!
//! # In scope
//! The command line, configuration, HTTP, peers over HTTP, and the wiring of engines and stores
//! to the roles vendor, supervisor and witness.
//!
//! # Out of scope
//! What evidence means (`verify`), what engines do (`log`, `witness`, `assembly`, `channel`), and
//! endpoints (`agent`).
//!
//! # Invariants
//! - HTTP statuses and exit codes come from an error's class, in one place each.
//! - Every body, queue and connection has a limit and a time to end.
//! - Nothing is created implicitly: `init` and `log create` make stores, `serve` opens them.
//! - Data goes to standard output, everything else to standard error.

mod accesses;
pub mod audit;
pub mod cli;
mod cloud;
pub mod command;
mod compaction;
pub mod config;
mod custodian;
pub mod data;
pub mod demo;
pub mod domain;
pub mod duty;
pub mod failure;
pub mod follow;
mod fresh;
pub mod http;
pub mod kept;
pub mod key_file;
pub mod lease;
pub mod line;
pub mod metrics;
pub mod peer;
pub mod policy_folder;
pub mod process;
pub mod prove;
pub mod publish;
mod rules;
pub mod serve;
pub mod stores;
pub mod stream;
pub mod supervise;
