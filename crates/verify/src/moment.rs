//! What time it is taken to be.

use std::time::Duration;

use stdx::{Clock, UnixTime};

use crate::Refusal;

/// The time of a decision: the later of the local clock and the latest evidence seen.
///
/// The high-water mark of evidence moves by cosignatures only. A clock that is set back can
/// therefore not make old evidence fresh, and one that is ahead makes evidence stale (which
/// refuses what is new and breaks nothing), but never moves the mark.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    now: UnixTime,
    age_max: Duration,
}

impl Moment {
    /// Now, given the latest evidence time that was ever seen, with evidence at most `age_max` old.
    #[must_use]
    pub fn new(clock: &dyn Clock, evidence_seen: UnixTime, age_max: Duration) -> Self {
        Self { now: clock.now().max(evidence_seen), age_max }
    }

    /// The time.
    #[must_use]
    pub const fn now(&self) -> UnixTime {
        self.now
    }

    /// Refuses evidence older than the maximum age.
    pub(crate) fn check_age(&self, what: &'static str, evidence: UnixTime) -> Result<(), Refusal> {
        let age = self.now.since(evidence);
        if age > self.age_max { Err(Refusal::Stale { what, age, age_max: self.age_max }) } else { Ok(()) }
    }

    /// Refuses what is not for this time.
    pub(crate) fn check_between(&self, what: &'static str, from: UnixTime, until: UnixTime) -> Result<(), Refusal> {
        if from <= self.now && self.now <= until {
            return Ok(());
        }
        Err(Refusal::OutOfTime { what, from, until, now: self.now })
    }
}
