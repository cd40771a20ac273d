//! Evidence × policy × time → [`Verified`], [`Recorded`], [`Approved`].
//!
//! # In scope
//! Checking signatures by role and organisation, inclusion under a quorum of witnesses, evidence
//! time, freshness, revocation, and everything that a release needs before it is signed or
//! installed; which hosts' reports count. How trust in a policy begins and how it is handed on. Whether streams are complete, and a status says
//! what was logged.
//!
//! # Out of scope
//! Fetching anything, remembering anything that could change an answer, and reading the clock: callers bring bytes,
//! what they have seen, and a [`Moment`].
//!
//! # Invariants
//! - This crate is the only maker of `Verified`, `Recorded` and `Approved`; their fields are
//!   private, and nothing builds them without the checks that their names promise.
//! - There is no option that skips a check.
//! - The local clock can make evidence too old, never fresh: time is at least the evidence's own.

mod approve;
mod canary;
mod desk;
mod evidence;
mod history;
mod known;
mod moment;
mod refusal;
mod rules;
mod stream;
mod trust;

pub use approve::{Approved, CurrentStatus, Draft, Request, StatusMark};
pub use canary::{EnrolledHost, HealthReport, agreed};
pub use evidence::{Evidence, Recorded, Verified};
pub use history::{Advance, Seen};
pub use moment::Moment;
pub use refusal::Refusal;
pub use rules::{Judged, LogRules, Offence, Signer};
pub use stream::{StreamChecker, Violation, ViolationKind};
pub use trust::TrustedPolicy;
