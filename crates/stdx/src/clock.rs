//! Wall time in whole seconds, and the clocks that give it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use std::{fmt, str};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Seconds since the Epoch (POSIX.1-2024), at most 9999-12-30T22:00:00Z.
///
/// It is written as RFC 3339 in UTC with second precision (`2026-11-22T03:25:34Z`), the one form
/// that our statements and TUF metadata use; any other form is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixTime(u64);

/// The last second that `jiff` writes: the end of year 9999 less the largest zone offset.
const UNIX_SECONDS_MAX: u64 = 253_402_207_200;

impl UnixTime {
    /// The Epoch.
    pub const EPOCH: Self = Self(0);

    /// The time `seconds` after the Epoch; what is later becomes the last such second.
    #[must_use]
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(if seconds > UNIX_SECONDS_MAX { UNIX_SECONDS_MAX } else { seconds })
    }

    /// Seconds since the Epoch.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0
    }

    /// This time plus `duration` (whole seconds), at most the last.
    #[must_use]
    pub const fn after(self, duration: Duration) -> Self {
        Self::from_seconds(self.0.saturating_add(duration.as_secs()))
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = i64::try_from(self.0).map_err(|_| fmt::Error)?;
        let timestamp = jiff::Timestamp::from_second(seconds).map_err(|_| fmt::Error)?;
        write!(f, "{timestamp}")
    }
}

/// A text that is not RFC 3339 in UTC with second precision.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a time like 2026-11-22T03:25:34Z")]
pub struct TimeError(String);

impl str::FromStr for UnixTime {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        let refuse = || TimeError(text.to_owned());
        let timestamp: jiff::Timestamp = text.parse().map_err(|_| refuse())?;
        let time = u64::try_from(timestamp.as_second()).map(Self).map_err(|_| refuse())?;
        // One time has one form: no fractions, offsets, lower case or leap seconds.
        if time.to_string() == text { Ok(time) } else { Err(refuse()) }
    }
}

impl Serialize for UnixTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UnixTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Where time comes from. Evidence time is something else: see `verify`.
pub trait Clock: Send + Sync {
    /// The wall clock, which may be wrong or set back.
    fn now(&self) -> UnixTime;

    /// Time since some fixed moment of this process; never goes back.
    fn monotonic(&self) -> Duration;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// The machine's clock, whose monotonic time starts now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    fn now(&self) -> UnixTime {
        // A clock before 1970 is broken; the Epoch makes every freshness check fail closed.
        UnixTime::from_seconds(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs()))
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that moves only when told to; monotonic time starts at zero and moves with it.
#[derive(Debug)]
pub struct ManualClock {
    start: u64,
    now: AtomicU64,
}

impl ManualClock {
    /// A clock that stands at `now`.
    #[must_use]
    pub const fn new(now: UnixTime) -> Self {
        Self { start: now.0, now: AtomicU64::new(now.0) }
    }

    /// Moves the wall clock, forwards or back.
    pub fn set(&self, now: UnixTime) {
        self.now.store(now.0, Ordering::SeqCst);
    }

    /// Moves the clock forwards by whole seconds.
    pub fn advance(&self, duration: Duration) {
        self.now.fetch_add(duration.as_secs(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixTime {
        UnixTime::from_seconds(self.now.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.now.load(Ordering::SeqCst).saturating_sub(self.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_time_has_one_form() {
        let time: UnixTime = "2026-11-22T03:25:34Z".parse().unwrap();
        assert_eq!(time.to_string(), "2026-11-22T03:25:34Z");
        for other in
            ["2026-11-22T03:25:34.0Z", "2026-11-22T04:25:34+01:00", "2026-11-22t03:25:34z", "1969-12-31T23:59:59Z", ""]
        {
            assert!(other.parse::<UnixTime>().is_err(), "{other}");
        }
    }

    #[test]
    fn the_last_second_can_be_written() {
        let last = UnixTime::from_seconds(u64::MAX);
        assert_eq!(last.to_string(), "9999-12-30T22:00:00Z");
        assert_eq!(last.after(Duration::from_secs(1)), last);
    }
}
