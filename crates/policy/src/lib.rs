//! Who must build, approve, release and witness: a policy, checked for sense, and its decisions.
//!
//! # In scope
//! The policy document, the rules that make one acceptable ([`Policy::check`]), and pure
//! decisions over sets of signers ([`Policy::decide`]).
//!
//! # Out of scope
//! Checking signatures and proofs (`verify`), and how a policy comes to be trusted (`verify` too).
//!
//! # Invariants
//! - Thresholds count organisations: two keys of one organisation never stand in for another's.
//! - No key has two roles: equal public keys anywhere in a policy, logs and witnesses included,
//!   make it unacceptable.
//! - A quorum survives what it declares: k of n with f faulty needs `2k - n > f` and `n - k >= f`.

mod check;
mod decide;
mod document;
mod lookup;
mod quorum;

pub use check::PolicyError;
pub use decide::{Missing, Signer};
pub use document::{
    Ages, CanaryPolicy, LanePolicy, LogPolicyEntry, MirrorUrl, MirrorUrlError, Organisation, Policy, PolicyDocument,
    ProductPolicy, Role, RoleKey, StreamPolicy, Threshold, Witnessing,
};
pub use lookup::{LookupError, LookupPolicy, Relay};
pub use quorum::{Quorum, QuorumError};
