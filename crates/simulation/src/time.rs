//! The clocks of the simulated machines: one time for all, and by how much each is wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use stdx::{Clock, UnixTime};
use tokio::time::Instant;

/// 2026-01-01T00:00:00Z.
const START: UnixTime = UnixTime::from_seconds(1_767_225_600);

/// The paused time of the runtime, as a wall clock that may be wrong.
#[derive(Clone, Debug)]
pub(crate) struct MachineClock {
    begin: Instant,
    off_s: Arc<AtomicI64>,
}

impl MachineClock {
    /// A right clock; `begin` is when the simulation began.
    pub(crate) fn new(begin: Instant) -> Self {
        Self { begin, off_s: Arc::default() }
    }

    /// Sets the wall clock `seconds` off the true time.
    pub(crate) fn set_off(&self, seconds: i64) {
        self.off_s.store(seconds, Ordering::SeqCst);
    }
}

impl Clock for MachineClock {
    fn now(&self) -> UnixTime {
        let truth = START.after(self.monotonic()).seconds();
        UnixTime::from_seconds(truth.saturating_add_signed(self.off_s.load(Ordering::SeqCst)))
    }

    fn monotonic(&self) -> Duration {
        self.begin.elapsed()
    }
}
