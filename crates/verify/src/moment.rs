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
    means: Means,
}

/// How evidence came here.
#[derive(Clone, Copy, Debug)]
enum Means {
    Network,
    Carried,
}

impl Moment {
    /// Now, for evidence from the network, given the latest evidence time that was ever seen: a
    /// status must be at most `age_max` old and not expired.
    #[must_use]
    pub fn new(clock: &dyn Clock, evidence_seen: UnixTime, age_max: Duration) -> Self {
        Self { now: clock.now().max(evidence_seen), age_max, means: Means::Network }
    }

    /// Now, for evidence that was carried here: a status must be at most `age_max` old, and its
    /// expiry does not count, for it is meant for those who can get the next one. Everything else
    /// is as in [`Moment::new`]; a release's own times count in both.
    #[must_use]
    pub fn offline(clock: &dyn Clock, evidence_seen: UnixTime, age_max: Duration) -> Self {
        Self { now: clock.now().max(evidence_seen), age_max, means: Means::Carried }
    }

    /// The time.
    #[must_use]
    pub const fn now(&self) -> UnixTime {
        self.now
    }

    /// Refuses a status whose evidence is older than the maximum age, or that has expired, where
    /// that counts.
    pub(crate) fn check_status(&self, evidence: UnixTime, expires: UnixTime) -> Result<(), Refusal> {
        const WHAT: &str = "the status";
        if matches!(self.means, Means::Network) && expires < self.now {
            return Err(Refusal::Expired { what: WHAT, until: expires, now: self.now });
        }
        let age = self.now.since(evidence);
        if age > self.age_max { Err(Refusal::Stale { what: WHAT, age, age_max: self.age_max }) } else { Ok(()) }
    }

    /// Refuses what is not for this time.
    pub(crate) fn check_between(&self, what: &'static str, from: UnixTime, until: UnixTime) -> Result<(), Refusal> {
        if from <= self.now && self.now <= until {
            return Ok(());
        }
        Err(Refusal::OutOfTime { what, from, until, now: self.now })
    }
}
