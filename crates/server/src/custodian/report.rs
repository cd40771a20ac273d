//! A custodian's reports: what it has opened, and what nobody has said the end of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use attest::{BundleEntry, CustodyReport, Envelope, RegionId, Statement, StatementId, Subject};

use super::Desk;
use crate::http;

/// How soon a missing outcome is reported.
const LOOK: Duration = Duration::from_secs(60);

/// An entry has 65,535 bytes, an intent's name 67: what is missing beyond these comes when these are there.
const MISSING_MAX: usize = 512;

impl Desk {
    /// Logs a report for each region.
    ///
    /// # Errors
    /// When the log or the store fails.
    pub(crate) async fn report(&self) -> anyhow::Result<Vec<BundleEntry>> {
        let stream = self.domain.stream(&format!("custody/{}", self.domain.organisation))?;
        let runtime = tokio::runtime::Handle::current();
        let mut entries = Vec::new();
        for (region, (ledger, _)) in &self.regions {
            let make = |position: attest::Position| {
                // Read when the place is given: a report never goes behind the one before it.
                let totals = tokio::task::block_in_place(|| runtime.block_on(ledger.totals(position.time)))?;
                let mut missing = totals.missing;
                missing.truncate(MISSING_MAX);
                let (uses, opened, moved) = (totals.uses, totals.opened, totals.moved);
                let predicate = CustodyReport { position, region: region.clone(), uses, opened, moved, missing };
                let statement = Statement { subject: vec![Subject::new("uses", totals.head)], predicate };
                Ok(Envelope::sign(statement.encode()?, &[&self.signer])?)
            };
            entries.push(stream.write(make).await?);
        }
        Ok(entries)
    }

    /// Reports at intervals, and when an outcome is missing that was not before, until told to stop.
    ///
    /// # Errors
    /// Never; a log that does not answer is tried again.
    pub(crate) async fn keep_reporting(self: Arc<Self>, mut stop: http::Stop) -> anyhow::Result<()> {
        let interval = Duration::from_secs(self.config.report_s);
        let mut told: Option<(Duration, BTreeMap<RegionId, Vec<StatementId>>)> = None;
        loop {
            let now = self.domain.clock.monotonic();
            match self.missing().await {
                Ok(missing) => {
                    let is_due = told
                        .as_ref()
                        .is_none_or(|(last, told)| now.saturating_sub(*last) >= interval || *told != missing);
                    if is_due {
                        match self.report().await {
                            Ok(_) => told = Some((now, missing)),
                            Err(error) => tracing::error!("no report could be written: {error:#}"),
                        }
                    }
                }
                Err(error) => tracing::error!("the ledger can't be read: {error}"),
            }
            tokio::select! {
                () = tokio::time::sleep(interval.min(LOOK)) => {}
                _ = stop.changed() => return Ok(()),
            }
        }
    }

    async fn missing(&self) -> Result<BTreeMap<RegionId, Vec<StatementId>>, custody::LedgerError> {
        let state = self.state().await?;
        Ok(state.regions.into_iter().map(|it| (it.region, it.missing)).collect())
    }
}
