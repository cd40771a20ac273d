//! Why evidence is not enough.

use std::time::Duration;

use attest::{EnvironmentKind, ProductId, ReleaseNumber, Ring, StatementId, StopScope};
use policy::{Missing, Role};
use stdx::{Digest, UnixTime};
use tlog::{Origin, TreeSize};

/// Why something was refused. The message names the object; [`Refusal::code`] is stable.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// An envelope or statement that can't be read, or a signature that does not verify.
    #[error("{0}")]
    Statement(String),
    /// Nobody who may has signed.
    #[error("statement {id} has no signature by a `{role}` key of the policy")]
    NotSigned {
        /// The statement.
        id: StatementId,
        /// The role that should have signed.
        role: Role,
    },
    /// Signatures are missing.
    #[error("{what}: {missing}")]
    Missing {
        /// What lacks them.
        what: &'static str,
        /// Whose.
        missing: Missing,
    },
    /// A checkpoint that its log did not sign, or without a quorum.
    #[error("checkpoint of `{origin}` at size {size}: {error}")]
    Checkpoint {
        /// The log.
        origin: Origin,
        /// The size.
        size: TreeSize,
        /// What is wrong.
        error: String,
    },
    /// An entry that is not in the tree that the checkpoint names.
    #[error("statement {0} is not included under its checkpoint")]
    NotIncluded(StatementId),
    /// A statement in a log that it was not made for.
    #[error("statement {id} belongs into log `{expected}`, found in `{found}`")]
    WrongLog {
        /// The statement.
        id: StatementId,
        /// Where it should be.
        expected: String,
        /// Where it is.
        found: Origin,
    },
    /// The bundle lacks a statement, or has one too many.
    #[error("the bundle {0}")]
    Shape(String),
    /// Statements that do not belong together.
    #[error("{0}")]
    Unproven(String),
    /// Built in a copy of some host.
    #[error("the build's environment is {0:?}; only a pinned one releases")]
    Environment(EnvironmentKind),
    /// Evidence that is too old.
    #[error("{what} is {age:?} old, at most {age_max:?} is accepted")]
    Stale {
        /// What.
        what: &'static str,
        /// How old it is.
        age: Duration,
        /// How old it may be.
        age_max: Duration,
    },
    /// Past its end.
    #[error("{what} was for the time until {until}; it is {now}")]
    Expired {
        /// What.
        what: &'static str,
        /// Until when.
        until: UnixTime,
        /// What time it is taken to be.
        now: UnixTime,
    },
    /// Outside the time for which it was made.
    #[error("{what} is for the time from {from} to {until}; it is {now}")]
    OutOfTime {
        /// What.
        what: &'static str,
        /// From when.
        from: UnixTime,
        /// Until when.
        until: UnixTime,
        /// What time it is taken to be.
        now: UnixTime,
    },
    /// Older than what was seen before.
    #[error("{what} goes back: {found}, after {seen}")]
    Rollback {
        /// What.
        what: &'static str,
        /// What was seen before.
        seen: String,
        /// What is offered now.
        found: String,
    },
    /// A stream's epochs are counted one by one; whoever skips some wants to outrun the others.
    #[error("{what} jumps ahead: {found}, after {seen}")]
    EpochJump {
        /// What.
        what: &'static str,
        /// What was seen before.
        seen: String,
        /// What is offered now.
        found: String,
    },
    /// The supervisor says no.
    #[error("content {0} is revoked")]
    Revoked(Digest),
    /// Below the floor of the status.
    #[error("release {number} of `{product}` is below the floor {floor}")]
    BelowFloor {
        /// The product.
        product: ProductId,
        /// The release.
        number: ReleaseNumber,
        /// The lowest allowed.
        floor: ReleaseNumber,
    },
    /// A stop is in force.
    #[error("a stop is in force: {}", list(.0))]
    Stopped(Vec<StopScope>),
    /// Another product.
    #[error("this is `{found}`, not `{expected}`")]
    OtherProduct {
        /// What was asked for.
        expected: ProductId,
        /// What is offered.
        found: ProductId,
    },
    /// Not for this ring yet.
    #[error("the release is for ring `{offered}` so far, this is `{ring}`")]
    OtherRing {
        /// How far the release has come.
        offered: Ring,
        /// Where it was to be installed.
        ring: Ring,
    },
    /// A policy that does not follow.
    #[error("policy: {0}")]
    Policy(String),
    /// A status that was issued under another policy than the one in force here.
    #[error("policy: the status was issued under policy {named}, in force here is {in_force}")]
    StatusPolicy {
        /// The policy that it names.
        named: StatementId,
        /// The policy that is asked.
        in_force: StatementId,
    },
    /// Two trees of one log that can't both be true.
    #[error("split view: log `{origin}` showed different trees: {detail}")]
    SplitView {
        /// The log.
        origin: Origin,
        /// What differs.
        detail: String,
    },
}

fn list(scopes: &[StopScope]) -> String {
    scopes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl Refusal {
    /// The stable code, listed in `docs/errors.md`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Statement(_) => "statement",
            Self::NotSigned { .. } => "not-signed",
            Self::Missing { .. } => "signatures-missing",
            Self::Checkpoint { .. } => "checkpoint",
            Self::NotIncluded(_) => "not-included",
            Self::WrongLog { .. } => "wrong-log",
            Self::Shape(_) => "bundle-shape",
            Self::Unproven(_) => "unproven",
            Self::Environment(_) => "environment",
            Self::Stale { .. } => "stale",
            Self::Expired { .. } | Self::OutOfTime { .. } => "out-of-time",
            Self::Rollback { .. } => "rollback",
            Self::EpochJump { .. } => "epoch-jump",
            Self::Revoked(_) => "revoked",
            Self::BelowFloor { .. } => "below-floor",
            Self::Stopped(_) => "stopped",
            Self::OtherProduct { .. } => "other-product",
            Self::OtherRing { .. } => "other-ring",
            Self::Policy(_) | Self::StatusPolicy { .. } => "policy",
            Self::SplitView { .. } => "split-view",
        }
    }

    /// What a person could do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Statement(_) | Self::Shape(_) => {
                "fetch the bundle again from another mirror; if it stays so, report it"
            }
            Self::NotSigned { .. } | Self::Missing { .. } => "ask the organisation named above why it has not signed",
            Self::Checkpoint { .. } | Self::NotIncluded(_) => {
                "ask for a bundle with a cosigned checkpoint; without a quorum of witnesses nothing is accepted"
            }
            Self::WrongLog { .. } | Self::Unproven(_) | Self::OtherProduct { .. } => {
                "this bundle is not evidence for what was asked; get the right one"
            }
            Self::Environment(_) => "pin the environment (`clerestory assembly pin`) and build again",
            Self::Stale { .. } | Self::Expired { .. } | Self::OutOfTime { .. } => {
                "check this machine's clock and its connection to the channel"
            }
            Self::Rollback { .. } => "something older than what this machine has seen was offered; look at the channel",
            Self::EpochJump { .. } => {
                "ask the supervisor whether its status key was stolen; a new policy replaces the key"
            }
            Self::Revoked(_) | Self::BelowFloor { .. } | Self::Stopped(_) => {
                "the supervisor's log says why (`clerestory log entries`)"
            }
            Self::OtherRing { .. } => "wait for the promotion, or choose an earlier ring in the configuration",
            Self::Policy(_) => "compare the policy's hash with the one you got from another channel",
            Self::StatusPolicy { .. } => {
                "fetch the policy that the status names, or a newer status; a mirror may be withholding either"
            }
            Self::SplitView { .. } => {
                "keep both checkpoints and publish them: they prove misbehaviour (`clerestory audit`)"
            }
        }
    }
}
