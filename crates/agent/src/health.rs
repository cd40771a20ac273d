//! Whether what is installed works: its files are what they were, and the owner's command succeeds.

use std::io;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use stdx::Clock;

use crate::config::{Health, Product};
use crate::endpoint::Endpoint;
use crate::failure::Failure;
use crate::journal::Event;
use crate::report::Report;

/// How often a running health command is looked at.
const POLL: Duration = Duration::from_millis(20);

impl Endpoint<'_> {
    /// Checks every product; after a crash loop, or with altered files, puts the previous release
    /// back, unless that may not run either.
    ///
    /// # Errors
    /// [`Failure`] of the agent's own state only; everything else is in the report.
    pub fn check(&mut self) -> Result<Report, Failure> {
        let mut report = Report::default();
        self.enforce(&mut report)?;
        for product in &self.config.products {
            self.check_product(product, &mut report)?;
        }
        Ok(report)
    }

    fn check_product(&self, product: &Product, report: &mut Report) -> Result<(), Failure> {
        let mut slots = self.slots(product)?;
        let Some(active) = &slots.record.active else { return Ok(()) };
        let now = self.ports.clock.now();
        let altered = slots.check_files(active).err();
        let current = slots.current();
        let unwell = product.health.as_ref().and_then(|health| run(health, &current, self.ports.clock).err());
        let limit = product.health.as_ref().map_or(1, |health| health.failures);
        let (reason, is_loop) = match (altered, unwell) {
            (None, None) => return Ok(()),
            (Some(failure), _) => (failure.message, true),
            (None, Some(reason)) => {
                let window = Duration::from_secs(product.health.as_ref().map_or(0, |health| health.window_s));
                slots.record.unhealthy.retain(|time| now.since(*time) <= window);
                slots.record.unhealthy.push(now);
                slots.save(self.ports.disk)?;
                (reason, slots.record.unhealthy.len() >= limit)
            }
        };
        self.record(Event::Unhealthy, product.id.as_str(), &reason)?;
        let message = format!("{}: {reason}", product.id);
        report.failures.push(Failure::rejected("unhealthy", message, "see the product's own log"));
        if is_loop && let Err(failure) = self.revert(product, &mut slots, &reason, report) {
            self.note(product.id.as_str(), failure, report)?;
        }
        Ok(())
    }
}

/// Runs a health command; the reason why it failed.
fn run(health: &Health, folder: &Path, clock: &dyn Clock) -> Result<(), String> {
    let (program, arguments) = health.command.split_first().ok_or("no command")?;
    // A relative program belongs to the product.
    let mut command = Command::new(folder.join(program));
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("`{program}`: {error}"))?;
    let ended = wait(&mut child, clock, Duration::from_secs(health.timeout_s));
    match ended.map_err(|error| format!("`{program}`: {error}"))? {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(format!("`{program}`: {status}")),
        None => Err(format!("`{program}`: no answer within {} s", health.timeout_s)),
    }
}

/// Waits for the child's end; after `timeout` it is killed.
fn wait(child: &mut Child, clock: &dyn Clock, timeout: Duration) -> io::Result<Option<ExitStatus>> {
    let start = clock.monotonic();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if clock.monotonic().saturating_sub(start) >= timeout {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}
