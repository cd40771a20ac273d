//! How much work a diagnosis may do.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stdx::Clock;

/// The bounds of one diagnosis; what lies beyond is reported as [`Stop`] and stays a difference.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Archives inside archives. A `.deb` takes three (ar, xz, tar), one in a tarball five; a quine is endless.
    pub depth: usize,
    /// Members, sections and lines looked at, of both sides together.
    pub members: u64,
    /// Bytes of one output, and bytes unpacked from one pair of outputs (both sides together).
    pub bytes: u64,
    /// Findings kept; the rest is counted.
    pub findings: usize,
    /// Time for the whole diagnosis.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            depth: 8,
            // A large package has 100,000 members; ten of them.
            members: 1_000_000,
            // 512 MiB holds any package of the four products a hundred times over. At most three times this is
            // held: two outputs and what was unpacked from them.
            bytes: 512 << 20,
            // About 300 bytes each.
            findings: 1_000,
            // Unpacking 512 MiB of xz takes about 10 s.
            time: Duration::from_secs(120),
        }
    }
}

/// A limit that cut a diagnosis short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stop {
    /// [`Limits::depth`].
    Depth,
    /// [`Limits::members`].
    Members,
    /// [`Limits::bytes`].
    Bytes,
    /// [`Limits::findings`].
    Findings,
    /// [`Limits::time`].
    Time,
}

impl Stop {
    /// The limit in words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Depth => "nested too deeply",
            Self::Members => "too many members",
            Self::Bytes => "too many bytes",
            Self::Findings => "too many findings",
            Self::Time => "out of time",
        }
    }
}

/// What is left of [`Limits`].
pub(super) struct Budget<'a> {
    limits: &'a Limits,
    clock: &'a dyn Clock,
    start: Duration,
    members: Cell<u64>,
    bytes: Cell<u64>,
    stops: BTreeSet<Stop>,
}

impl<'a> Budget<'a> {
    pub(super) fn new(limits: &'a Limits, clock: &'a dyn Clock) -> Self {
        let (members, bytes) = (Cell::new(limits.members), Cell::new(limits.bytes));
        Self { limits, clock, start: clock.monotonic(), members, bytes, stops: BTreeSet::new() }
    }

    pub(super) const fn limits(&self) -> &'a Limits {
        self.limits
    }

    /// Unpacked bytes are dropped after each output, so that each gets the whole allowance.
    pub(super) fn next_output(&self) {
        self.bytes.set(self.limits.bytes);
    }

    pub(super) fn in_time(&self) -> Result<(), Stop> {
        if self.clock.monotonic().saturating_sub(self.start) > self.limits.time { Err(Stop::Time) } else { Ok(()) }
    }

    /// Takes one member's worth.
    pub(super) fn member(&self) -> Result<(), Stop> {
        self.members.set(self.members.get().checked_sub(1).ok_or(Stop::Members)?);
        self.in_time()
    }

    /// Takes `count` members' worth at once, where each costs next to nothing.
    pub(super) fn take_members(&self, count: usize) -> Result<(), Stop> {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.members.set(self.members.get().checked_sub(count).ok_or(Stop::Members)?);
        self.in_time()
    }

    /// Takes `count` unpacked bytes.
    pub(super) fn take_bytes(&self, count: usize) -> Result<(), Stop> {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.bytes.set(self.bytes.get().checked_sub(count).ok_or(Stop::Bytes)?);
        self.in_time()
    }

    pub(super) fn note(&mut self, stop: Stop) {
        self.stops.insert(stop);
    }

    pub(super) fn stops(&self) -> Vec<Stop> {
        self.stops.iter().copied().collect()
    }
}
