//! `clerestory-verify`: checks offline that a file is what two organisations built and released.
//!
//! # In scope
//! Reading the file, its bundle and the policy, asking `verify`, and saying what was proven.
//!
//! # Out of scope
//! The network, anything remembered between two runs (so rollback is for the agent to see), and
//! every decision: those are made in `verify`.
//!
//! # Invariants
//! - A [`Proof`] exists only for a file whose digest an `Approved<Release>` names.
//! - Trust begins at the genesis policy's hash, which the caller brings; there is no default.
//! - No more of any input is kept in memory than its format's limit allows.

mod arguments;
mod failure;
mod policy_files;
mod proof;

pub use arguments::Arguments;
pub use failure::Failure;
pub use proof::{Party, Proof, prove};
