//! A witness: cosigns a log's checkpoint only if the log has grown from the last one it cosigned
//! (C2SP tlog-witness v1.0.0).
//!
//! # In scope
//! `add-checkpoint` and the monitor's retrieval as functions, the state of each log in a
//! [`storage::LockStore`], and evidence against a log that signed two roots for one size.
//!
//! # Out of scope
//! HTTP (the server maps each [`Error`] to its status), `sign-subtree`, and any opinion on what
//! the log's entries say.
//!
//! # Invariants
//! - Comparing with the last cosigned checkpoint and keeping the new one is one durable
//!   compare-and-swap, and no cosignature leaves before it is done.
//! - No state is kept in memory: what a failed write left is read again, never assumed.
//! - The time in cosignatures of one log never goes back, whatever the clock does.
//! - Nothing is stored under this witness's name that its key didn't sign.

mod engine;
mod error;
mod state;

pub use engine::{Witness, WitnessParts};
pub use error::{ConfigError, Error};
pub use state::Evidence;
