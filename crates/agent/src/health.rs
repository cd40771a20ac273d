//! Whether what is installed works: its files are what they were, and the owner's command succeeds.

use std::io;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use attest::Outcome;
use stdx::Clock;

use crate::config::{Health, Product};
use crate::endpoint::Endpoint;
use crate::failure::Failure;
use crate::journal::Event;
use crate::report::Report;
use crate::slots::{Installed, Slots, Unfit};

/// How often a running health command is looked at.
const POLL: Duration = Duration::from_millis(20);

/// What is wrong with a product.
struct Unwell {
    reason: String,
    is_loop: bool,
}

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
        let altered = slots.check_files(active).err();
        let current = slots.current();
        let unwell = product.health.as_ref().and_then(|health| run(health, &current, self.ports.clock).err());
        let (reason, is_loop) = match (altered, unwell) {
            (None, None) => return Ok(()),
            (Some(failure), _) => (failure.message, true),
            (None, Some(reason)) => (reason, self.count_failures(product, &mut slots, 1)?),
        };
        self.act(product, &mut slots, Unwell { reason, is_loop }, report)
    }

    /// Takes down that the engine ended so often with the rules of `product`; after a crash loop, puts
    /// the previous rules back, unless those may not run.
    ///
    /// # Errors
    /// [`Failure`] of the agent's own state only; everything else is in the report.
    pub fn engine_ended(&mut self, product: &Product, times: u64) -> Result<Report, Failure> {
        let mut report = Report::default();
        let mut slots = self.slots(product)?;
        let is_loop = self.count_failures(product, &mut slots, times)?;
        let reason = format!("the scanner ended {times} time(s) with these rules");
        if let Some(active) = slots.record.active.clone().filter(|_| is_loop) {
            let Installed { release, files, .. } = active;
            slots.record.unfit = Some(Unfit { release, files, outcome: Outcome::RolledBack });
            slots.save(self.ports.disk)?;
        }
        self.act(product, &mut slots, Unwell { reason, is_loop }, &mut report)?;
        Ok(report)
    }

    /// Counts failures of the release in use; whether they are a crash loop.
    fn count_failures(&self, product: &Product, slots: &mut Slots, times: u64) -> Result<bool, Failure> {
        let now = self.ports.clock.now();
        let (limit, window) = product.crash_loop();
        slots.record.unhealthy.retain(|time| now.since(*time) <= window);
        for _ in 0..times {
            // More than are a loop say nothing more.
            if slots.record.unhealthy.len() < limit {
                slots.record.unhealthy.push(now);
            }
        }
        slots.save(self.ports.disk)?;
        Ok(slots.record.unhealthy.len() >= limit)
    }

    fn act(&self, product: &Product, slots: &mut Slots, unwell: Unwell, report: &mut Report) -> Result<(), Failure> {
        let Unwell { reason, is_loop } = unwell;
        self.record(Event::Unhealthy, product.id.as_str(), &reason)?;
        let message = format!("{}: {reason}", product.id);
        report.failures.push(Failure::rejected("unhealthy", message, "see the product's own log"));
        if is_loop && let Err(failure) = self.revert(product, slots, &reason, report) {
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
