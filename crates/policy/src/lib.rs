//! Who must build, approve, release and witness: a policy, checked for sense, and its decisions.
//!
//! # In scope
//! The policy document, the rules that make one acceptable ([`Policy::check`]), pure decisions over
//! sets of signers ([`Policy::decide`]), where a country's data belongs ([`Residency::region_of`]), and
//! what a policy would change ([`Policy::changes_from`]).
//!
//! # Out of scope
//! Checking signatures and proofs (`verify`), and how a policy comes to be trusted (`verify` too).
//! Whether a custodian's key is a point on its curve (`seal`): here it is a text of the right form.
//!
//! # Invariants
//! - Thresholds count organisations: two keys of one organisation never stand in for another's.
//! - No key has two roles: equal public keys anywhere in a policy, logs and witnesses included,
//!   make it unacceptable.
//! - Data has a region because the policy names its country, or it has none: there is no other way in.
//! - A quorum survives what it declares: k of n with f faulty needs `2k - n > f` and `n - k >= f`.

mod check;
mod decide;
mod document;
mod lookup;
mod quorum;
mod residency;

pub use check::PolicyError;
pub use decide::{Missing, Signer};
pub use document::{
    Ages, CanaryPolicy, LanePolicy, LogPolicyEntry, MirrorUrl, MirrorUrlError, Organisation, Policy, PolicyDocument,
    ProductPolicy, Role, RoleKey, StreamPolicy, Threshold, Witnessing,
};
pub use lookup::{LookupError, LookupPolicy, Relay};
pub use quorum::{Quorum, QuorumError};
pub use residency::{
    Assignment, Change, ClassPolicy, NoKey, Region, RegionCustodian, Residency, ResidencyError, SealingKey,
    SealingKeyError, TimedKey, Whereabouts,
};
