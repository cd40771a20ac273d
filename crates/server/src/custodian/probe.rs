//! Whether a custodian can do its work, and whether somebody must look.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use custody::ShareKeys as _;
use seal::PublicKey;
use stdx::UnixTime;

use super::Desk;
use crate::metrics::{Probe, Reason, metrics};

/// The next key must be in the policy so long before the time of the last one is over.
const KEYS_AHEAD: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// Outcomes must be there, and keys for now and the next days.
pub(crate) struct CustodyProbe(pub(crate) Arc<Desk>);

#[async_trait]
impl Probe for CustodyProbe {
    async fn look(&self) -> Vec<Reason> {
        let desk = &self.0;
        let mut reasons = Vec::new();
        match desk.state().await {
            Err(error) => reasons.push(Reason::new("ledger", error.to_string())),
            Ok(state) => {
                for it in state.regions {
                    let region = it.region.as_str();
                    metrics().custody(region, [it.uses, it.opened, it.open.len() as u64, it.missing.len() as u64]);
                    if let Some(first) = it.missing.first() {
                        let problem = format!("{} intents have no outcome, among them {first}", it.missing.len());
                        reasons.push(Reason::new(format!("outcomes/{region}"), problem));
                    }
                }
            }
        }
        reasons.extend(desk.token_used_otherwise().await.map(|problem| Reason::new("token", problem)));
        let now = desk.domain.clock.now();
        for (part, at) in [("keys", now), ("next-keys", now.after(KEYS_AHEAD))] {
            let problems = desk.keys_missing(at);
            reasons.extend(problems.into_iter().map(|problem| Reason::new(part, problem)));
        }
        reasons
    }
}

impl Desk {
    /// What a token has counted must not be more than what the ledger has.
    async fn token_used_otherwise(&self) -> Option<String> {
        let keys = Arc::clone(&self.keys);
        // The token is asked first: what is noted meanwhile only makes the ledger's numbers larger.
        let uses = tokio::task::spawn_blocking(move || keys.token_uses()).await.ok()?;
        let uses = match uses {
            None => return None,
            Some(Err(error)) => return Some(format!("{error:#}")),
            Some(Ok(uses)) => uses,
        };
        let mut noted = 0_u64;
        for (ledger, _) in self.regions.values() {
            let totals = ledger.totals(self.domain.clock.now()).await.ok()?;
            noted = noted.saturating_add(totals.opened).saturating_add(totals.moved);
        }
        (uses > noted).then(|| format!("it has counted {uses} uses of its keys, and the ledger {noted}"))
    }

    /// What is sealed at this time and could not be opened.
    fn keys_missing(&self, at: UnixTime) -> Vec<String> {
        let residency = self.domain.policy.policy().residency.iter();
        let regions = residency.flat_map(|it| &it.regions).filter(|region| self.regions.contains_key(&region.id));
        let mut problems = Vec::new();
        for region in regions {
            let ours = region.custodians.iter().filter(|it| it.organisation == self.domain.organisation);
            let mut keys = ours.flat_map(|it| &it.keys).filter(|it| it.from <= at && at < it.until);
            let problem = match keys.next() {
                None => "the policy names no key of this custodian's",
                Some(timed) => match timed.key.as_str().parse::<PublicKey>() {
                    Ok(key) if self.keys.holds(&key.id()) => continue,
                    Ok(_) => "the key that the policy names is not here",
                    Err(_) => "what the policy names is no key",
                },
            };
            problems.push(format!("region `{}`, at {at}: {problem}", region.id));
        }
        problems
    }
}
