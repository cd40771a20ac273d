//! Why a custodian opens nothing.

use std::time::Duration;

use attest::{AccessStop, CountryCode, OrganisationId, RegionId, StatementId};
use policy::Missing;
use seal::BatchId;
use stdx::UnixTime;

use crate::status::StatusNumber;

/// Why nothing is opened. Each names what is not as it must be.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Something is not signed, not recorded, without a quorum, or can't be read.
    #[error(transparent)]
    Evidence(#[from] verify::Refusal),
    /// This machine's clock is behind what it has seen.
    #[error("the clock says {clock}, and {seen} was seen already")]
    Clock {
        /// What it says.
        clock: UnixTime,
        /// What was seen.
        seen: UnixTime,
    },
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
    /// Something whose time is over, or has not come.
    #[error("{what} is for the time from {from} to {until}; it is {now}")]
    OutOfTime {
        /// What.
        what: &'static str,
        /// From when.
        from: UnixTime,
        /// Until when.
        until: UnixTime,
        /// What time it is.
        now: UnixTime,
    },
    /// A status that was taken back by a later one.
    #[error("the region's status {found} was followed by {seen}, which this custodian has seen")]
    Superseded {
        /// The newest that there is now.
        found: StatusNumber,
        /// What was seen already.
        seen: StatusNumber,
    },
    /// A stop is in force.
    #[error("stopped: {0}")]
    Stopped(AccessStop),
    /// Statements that do not belong together, or to this.
    #[error("{what} {id} {why}")]
    Unfit {
        /// What it is.
        what: &'static str,
        /// Which.
        id: StatementId,
        /// What is wrong.
        why: String,
    },
    /// Too few people have agreed.
    #[error("the approvals of request {request}: {missing}")]
    NotApproved {
        /// The request.
        request: StatementId,
        /// Whose are missing.
        missing: Missing,
    },
    /// The worker is not one of an enrolled host's, or not in this region.
    #[error("the worker: {0}")]
    Worker(String),
    /// Other objects than the intent names, or some that may not be read like this.
    #[error("the objects: {0}")]
    Objects(String),
    /// An object of another region or country, or one that this custodian has no share of.
    #[error("object {0}: {1}")]
    Object(BatchId, String),
    /// More than the request, or the class, allows.
    #[error("the intent's budget is more than the {0} allows")]
    Budget(&'static str),
    /// The policy has no such region, or this is no custodian of it.
    #[error("`{0}` is no custodian of region `{1}` by the policy in force")]
    NotCustodian(OrganisationId, RegionId),
    /// Data of a country that the request did not name.
    #[error("the request names no data of `{0}`")]
    Country(CountryCode),
}

impl Refusal {
    pub(crate) fn unfit(what: &'static str, id: StatementId, why: impl Into<String>) -> Self {
        Self::Unfit { what, id, why: why.into() }
    }
}
