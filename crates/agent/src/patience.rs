//! How long one server may keep an update waiting.

use std::cell::Cell;
use std::io::{self, Read};
use std::time::Duration;

use api::Client;
use stdx::Clock;

use crate::config::Network;

/// A server's credit in one update: `timeout_s`, and a second more for every `rate_min` bytes that
/// come from it. Whoever is merely far away never uses it up; whoever sends a byte now and then
/// does so once, however many files it is asked for.
pub(crate) struct Patience<'a> {
    clock: &'a dyn Clock,
    network: Network,
    spent: Cell<Duration>,
    bytes: Cell<u64>,
}

impl<'a> Patience<'a> {
    pub(crate) const fn new(clock: &'a dyn Clock, network: Network) -> Self {
        Self { clock, network, spent: Cell::new(Duration::ZERO), bytes: Cell::new(0) }
    }

    /// A client for a file of `expected` bytes, if any patience is left.
    pub(crate) fn client(&self, client: &Client, expected: u64) -> Option<Client> {
        let earned = self.bytes.get() / self.network.rate_min;
        let left = Duration::from_secs(self.network.timeout_s.saturating_add(earned)).checked_sub(self.spent.get())?;
        let download = Duration::from_secs(expected / self.network.rate_min);
        (!left.is_zero()).then(|| client.with_timeout(left.saturating_add(download)))
    }

    /// Counts the time that `work` takes.
    pub(crate) fn spend<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = self.clock.monotonic();
        let done = work();
        let spent = self.clock.monotonic().saturating_sub(before);
        self.spent.set(self.spent.get().saturating_add(spent));
        done
    }

    /// Counts what is read, and how long that takes.
    pub(crate) const fn watch<'p, R: Read>(&'p self, reader: R) -> Watched<'p, 'a, R> {
        Watched { patience: self, reader }
    }

    /// So many bytes came.
    pub(crate) fn earn(&self, bytes: usize) {
        self.bytes.set(self.bytes.get().saturating_add(bytes as u64));
    }
}

pub(crate) struct Watched<'p, 'a, R> {
    patience: &'p Patience<'a>,
    reader: R,
}

impl<R: Read> Read for Watched<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.patience.spend(|| self.reader.read(buffer))?;
        self.patience.earn(count);
        Ok(count)
    }
}
