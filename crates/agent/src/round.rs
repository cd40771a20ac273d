//! The long-lived agent's round: what happened, what is new, and going over to it.

use crate::config::Config;
use crate::endpoint::{Endpoint, Ports};
use crate::failure::Failure;
use crate::guard::{Guard, Told};
use crate::report::Report;

/// One round of `run`. The rules that are there protect before anybody is asked for others; what is
/// new, or revoked, is in force at its end.
///
/// # Errors
/// [`Failure`] of the agent's own state only; everything else is in the report. What happened was not
/// taken down then.
pub fn round(config: &Config, ports: Ports<'_>, guard: Option<&mut Guard>, told: Told) -> Result<Report, Failure> {
    let mut report = Report::default();
    let mut guard = guard;
    adopt(config, ports, guard.as_deref_mut(), &mut report)?;
    let mut endpoint = Endpoint::open(config, ports)?;
    endpoint.count(told)?;
    if let Some(product) = config.scanned().filter(|_| told.crashes > 0) {
        report.merge(endpoint.engine_ended(product, told.crashes)?);
    }
    report.merge(endpoint.update()?);
    report.merge(endpoint.check()?);
    adopt(config, ports, guard, &mut report)?;
    report.merge(endpoint.report_health()?);
    Ok(report)
}

fn adopt(config: &Config, ports: Ports<'_>, guard: Option<&mut Guard>, report: &mut Report) -> Result<(), Failure> {
    let Some(Err(failure)) = guard.map(|guard| guard.adopt(config, ports)) else { return Ok(()) };
    Endpoint::read(config, ports)?.note("scan", failure, report)
}
