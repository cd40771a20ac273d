//! A bar on a terminal; elsewhere a plain line from time to time.

use std::cell::Cell;
use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use stdx::{Clock as _, SystemClock};

use crate::cli::Arguments;
use crate::walk::{Met, Walk};

/// How often a plain line says that work goes on.
const LINE_PERIOD: Duration = Duration::from_secs(10);

/// How far the scan is, on standard error.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    clock: SystemClock,
    files: Cell<u64>,
    bytes: Cell<u64>,
    said: Cell<Duration>,
}

impl Progress {
    pub(crate) fn new(arguments: &Arguments) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| counting_bar(arguments));
        let clock = SystemClock::new();
        let said = Cell::new(clock.monotonic());
        Self { bar, clock, files: Cell::new(0), bytes: Cell::new(0), said }
    }

    /// A file of so many bytes is done.
    pub(crate) fn add(&self, bytes: u64) {
        self.files.set(self.files.get() + 1);
        self.bytes.set(self.bytes.get() + bytes);
        if let Some(bar) = &self.bar {
            bar.inc(1);
        } else if self.clock.monotonic().saturating_sub(self.said.get()) >= LINE_PERIOD {
            self.said.set(self.clock.monotonic());
            eprintln!("{} files, {} bytes so far", self.files.get(), self.bytes.get());
        }
    }

    /// Prints without tearing the bar.
    pub(crate) fn beside<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A bar whose length a second walk finds out meanwhile.
fn counting_bar(arguments: &Arguments) -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{pos} of {len} files {wide_bar} {elapsed}, {eta} left") {
        bar.set_style(style);
    }
    let paths: Vec<_> = arguments.paths.iter().filter(|path| path.as_os_str() != "-").cloned().collect();
    let (counted, file_systems) = (bar.clone(), arguments.into());
    // Without it the bar only has no length.
    let _ = std::thread::Builder::new().spawn(move || {
        for met in Walk::new(&paths, file_systems, 0) {
            if matches!(met, Met::File(_)) {
                counted.inc_length(1);
            }
        }
    });
    bar
}
