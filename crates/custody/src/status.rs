//! The newest word on what is stopped in a region.

use std::fmt;
use std::time::Duration;

use attest::{Bundle, RegionStatus};
use policy::{Residency, Role};
use serde::{Deserialize, Serialize};
use stdx::Digest;
use verify::{Evidence, Recorded};

use crate::decide::{Custodian, by, in_log, residency};
use crate::refusal::Refusal;

/// A status is good for so long after its signer's own time, whatever it says itself: its witnesses' time says
/// nothing, since an old entry can be proven under a new checkpoint.
pub const STATUS_AGE_MAX: Duration = Duration::from_secs(300);

/// Which of a region's statuses: what was given later is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusNumber {
    epoch: u64,
    sequence: u64,
}

impl StatusNumber {
    /// Where a status stands in its stream.
    #[must_use]
    pub const fn of(status: &RegionStatus) -> Self {
        Self { epoch: status.position.epoch, sequence: status.position.sequence }
    }
}

impl fmt::Display for StatusNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of epoch {}", self.sequence, self.epoch)
    }
}

/// A status that somebody went by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Word {
    pub(crate) number: StatusNumber,
    /// SHA-256 of what it stops: another that stops the same decides the same.
    stops: Digest,
}

/// A region's status as the log has it, given by whom the policy says. Only [`current`] makes one.
#[derive(Clone, Debug)]
pub struct Current {
    pub(crate) status: Recorded<RegionStatus>,
}

/// The status that `bundle` has and nothing else. Whether it is the newest, and stops anything, is not looked at.
///
/// # Errors
/// [`Refusal`].
pub fn current(custodian: &Custodian<'_>, bundle: &Bundle) -> Result<Current, Refusal> {
    let residency = residency(custodian)?;
    let evidence = Evidence::open(custodian.policy, bundle)?;
    let status = evidence.one(Role::Status)?;
    if bundle.entries().len() != 1 {
        return Err(verify::Refusal::Shape("holds entries that nobody asked for".to_owned()).into());
    }
    Current::of(status, custodian, residency)
}

impl Current {
    pub(crate) fn of(
        status: Recorded<RegionStatus>,
        custodian: &Custodian<'_>,
        residency: &Residency,
    ) -> Result<Self, Refusal> {
        in_log(&status, residency)?;
        by(&status, &residency.status, Role::Status)?;
        let (id, says) = (status.id(), &status.statement().predicate);
        if says.region != *custodian.region {
            return Err(Refusal::unfit("status", id, "is another region's"));
        }
        if says.position.stream.as_str() != format!("region/{}", says.region) {
            return Err(Refusal::unfit("status", id, "stands in another stream than its region's"));
        }
        Ok(Self { status })
    }

    /// Which it is.
    #[must_use]
    pub const fn number(&self) -> StatusNumber {
        StatusNumber::of(&self.status.statement().predicate)
    }

    pub(crate) fn word(&self) -> Word {
        let stops = serde_json::to_vec(&self.status.statement().predicate.stopped);
        let stops = Digest::of(&stops.expect("strings are always JSON"));
        Word { number: self.number(), stops }
    }
}

impl Word {
    /// Whether `self` may not be gone by any more, since `newest` stops something else.
    pub(crate) fn is_overruled_by(&self, newest: Option<&Self>) -> bool {
        newest.is_some_and(|newest| newest.number > self.number && newest.stops != self.stops)
    }
}
