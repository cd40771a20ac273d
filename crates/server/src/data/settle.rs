//! What was announced gets an outcome, and custodians get to see it: also after a crash, and when the log, a
//! custodian or the machine was away.

use std::sync::Arc;
use std::time::Duration;

use api::OutcomeNote;
use async_trait::async_trait;
use attest::{Bundle, BundleEntry, Ended, Envelope, RegionId, StatementId};
use custody::OUTCOME_GRACE;

use super::access::Came;
use super::{DataError, Gateway};
use crate::duty::OnDuty;
use crate::http;
use crate::line::bundle_text;
use crate::metrics::{Probe, Reason, metrics};
use crate::stream::Begun;

/// How often what was left open is looked at.
const LOOK: Duration = Duration::from_secs(5);

impl Gateway {
    /// Closes what was left open, while this process is on duty, until told to stop.
    ///
    /// # Errors
    /// Never: what fails is tried again.
    pub async fn settle(self: Arc<Self>, mut duty: OnDuty, mut stop: http::Stop) -> anyhow::Result<()> {
        loop {
            if duty.borrow_and_update().is_here()
                && let Err(error) = self.settle_all().await
            {
                tracing::error!("accesses without an outcome could not be closed: {error}");
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                Ok(()) = duty.changed() => {}
                _ = stop.changed() => return Ok(()),
            }
        }
    }

    async fn settle_all(&self) -> Result<(), DataError> {
        // One that ends while the list is read is on the list, and active no more.
        let before = self.active().clone();
        for (intent, begun) in self.stream.open().await? {
            if before.contains(&intent) || self.active().contains(&intent) {
                continue;
            }
            let entry = self.end_of(intent, &begun).await?;
            self.bring(intent, &begun.region, entry).await;
        }
        Ok(())
    }

    /// The outcome that was signed, or one that says that nobody knows better.
    async fn end_of(&self, intent: StatementId, begun: &Begun) -> Result<BundleEntry, DataError> {
        if let Some(outcome) = &begun.outcome {
            let outcome = Envelope::parse(outcome.as_bytes()).map_err(|error| DataError::broken(&error))?;
            return self.stream.logged(&outcome).await;
        }
        metrics().access("lost");
        tracing::warn!(data.intent = %intent, "this process ended in the middle of an access; it counts as read");
        // As much may have been given out as was allowed.
        let (rows, bytes) = (begun.budget.rows, begun.budget.bytes);
        self.outcome(intent, begun.objects, Came { ended: Ended::Failed, rows, bytes, result: None }).await
    }

    /// Brings a logged outcome to every custodian; when all have it, the access is over.
    pub(super) async fn bring(&self, intent: StatementId, region: &RegionId, entry: BundleEntry) {
        let brought = async {
            let bundle = Bundle::new(vec![entry]).map_err(|error| DataError::broken(&error))?;
            let outcome = bundle_text(&bundle).map_err(|error| DataError::broken(&error))?;
            let asked = self.custodians(region)?.into_iter().map(|custodian| {
                let note = OutcomeNote { outcome: outcome.clone() };
                async move { self.peers.outcome(&custodian, note).await }
            });
            // Each of them, whatever the others say.
            futures::future::join_all(asked).await.into_iter().collect::<Result<(), DataError>>()
        };
        match brought.await {
            Ok(()) => self.stream.forget(intent),
            Err(error) => tracing::warn!(data.intent = %intent, "not every custodian has the outcome yet: {error}"),
        }
    }
}

/// Every access must come to its end.
pub struct AccessProbe(pub Arc<Gateway>);

#[async_trait]
impl Probe for AccessProbe {
    async fn look(&self) -> Vec<Reason> {
        let now = self.0.domain.clock.now();
        let open = match self.0.stream.open().await {
            Ok(open) => open,
            Err(error) => return vec![Reason::new("access", error.to_string())],
        };
        let late = open.into_iter().filter(|(_, begun)| now > begun.expires.after(OUTCOME_GRACE));
        late.map(|(intent, _)| Reason::new("access", format!("access {intent} has no outcome that all know of")))
            .collect()
    }
}
