//! What the demo says as it goes, and at the end.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use stdx::{Clock, SystemClock};

/// Tells on standard error what is going on.
#[derive(Clone)]
pub struct Narrator {
    clock: Arc<SystemClock>,
}

impl Default for Narrator {
    fn default() -> Self {
        Self::new()
    }
}

impl Narrator {
    /// A narrator whose time starts now.
    #[must_use]
    pub fn new() -> Self {
        Self { clock: Arc::new(SystemClock::new()) }
    }

    pub(super) fn clock(&self) -> Arc<SystemClock> {
        Arc::clone(&self.clock)
    }

    /// A chapter begins.
    pub(super) fn chapter(&self, title: &str) {
        eprintln!("\n{title}");
    }

    /// Something was done.
    pub(super) fn say(&self, what: &str) {
        eprintln!("  [{:>6.1} s] {what}", self.clock.monotonic().as_secs_f64());
    }

    /// Something was refused, as it must be.
    pub(super) fn refused(&self, report: &mut Report, what: &str, reason: &str, command: impl Into<String>) {
        self.say(&format!("refused: {what}"));
        self.say(&format!("         {reason}"));
        report.refused(what, reason, command);
    }
}

/// One thing that was shown.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was tried.
    pub what: String,
    /// What came of it: the proof, or the reason for the refusal.
    pub outcome: String,
    /// How to see it by hand.
    pub command: String,
}

/// Everything that was shown. A demo that ends without error has shown all of it.
#[derive(Serialize)]
pub struct Report {
    /// What was proven.
    pub proven: Vec<Row>,
    /// What was refused.
    pub refused: Vec<Row>,
    /// Where everything lies.
    pub folder: PathBuf,
    /// How long it took.
    pub seconds: f64,
    #[serde(skip)]
    clock: Arc<SystemClock>,
}

impl Report {
    pub(super) fn new(folder: &Path, clock: Arc<SystemClock>) -> Self {
        Self { proven: Vec::new(), refused: Vec::new(), folder: folder.to_owned(), seconds: 0.0, clock }
    }

    pub(super) fn proven(&mut self, what: &str, outcome: impl Into<String>, command: impl Into<String>) {
        let row = self.row(what, outcome.into(), command.into());
        self.proven.push(row);
    }

    pub(super) fn refused(&mut self, what: &str, outcome: impl Into<String>, command: impl Into<String>) {
        let row = self.row(what, outcome.into(), command.into());
        self.refused.push(row);
    }

    /// Paths are shown relative to the demo's folder, where the commands are to be run.
    fn row(&self, what: &str, outcome: String, command: String) -> Row {
        let folder = format!("{}/", self.folder.display());
        let short = |text: String| text.replace(&folder, "").replace("/./", "/");
        Row { what: what.to_owned(), outcome: short(outcome), command: short(command) }
    }

    pub(super) fn finish(&mut self) {
        let elapsed: Duration = self.clock.monotonic();
        self.seconds = (elapsed.as_secs_f64() * 10.0).round() / 10.0;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "PROVEN")?;
        for row in &self.proven {
            writeln!(f, "  ✓ {}\n      {}", row.what, row.outcome)?;
        }
        writeln!(f, "\nREFUSED, each by the evidence alone")?;
        for row in &self.refused {
            writeln!(f, "  ✗ {}\n      {}", row.what, row.outcome)?;
        }
        writeln!(f, "\nCHECK IT BY HAND\n  cd {}", self.folder.display())?;
        let mut shown = BTreeSet::new();
        for row in self.proven.iter().chain(&self.refused) {
            if shown.insert(&row.command) {
                writeln!(f, "  # {}\n  {}", row.what, row.command)?;
            }
        }
        writeln!(f, "\n{} proven, {} refused, {:.1} s", self.proven.len(), self.refused.len(), self.seconds)
    }
}
