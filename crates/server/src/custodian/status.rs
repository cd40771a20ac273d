//! A region's newest status: this custodian asks for it itself before it opens anything, since whoever wants
//! something opened has a reason to keep a stop back.

use std::sync::Arc;
use std::time::Duration;

use api::{BaseUrl, BodyLimit, Client, path};
use attest::{BUNDLE_BYTES_MAX, Bundle, RegionId};
use custody::{Current, Custodian, Seen, current};
use stdx::Clock;

use super::{Desk, DeskError, form};
use crate::fresh::Fresh;

/// One entry with its proof, from a catalog.
const TIME_MAX: Duration = Duration::from_secs(5);

/// Where a region's status comes from.
pub(super) struct StatusSource {
    url: String,
    client: Client,
    last: Fresh<Result<Arc<Current>, Arc<DeskError>>>,
}

impl StatusSource {
    /// Of this region, at the server of the log that has it.
    pub(super) fn new(log: &BaseUrl, region: &RegionId, client: &Client, clock: Arc<dyn Clock>) -> Self {
        let url = log.join(&format!("{}/{region}", path::REGIONS));
        Self { url, client: client.with_timeout(TIME_MAX), last: Fresh::new(clock) }
    }

    async fn ask(&self) -> Result<Bundle, DeskError> {
        let (url, client) = (self.url.clone(), self.client.clone());
        let asked = tokio::task::spawn_blocking(move || {
            let bytes = client.get(&url, BodyLimit(BUNDLE_BYTES_MAX as u64)).map_err(|error| error.to_string())?;
            Bundle::parse(&bytes).map_err(|error| format!("{url}: {error}"))
        });
        asked.await?.map_err(DeskError::Status)
    }
}

impl Desk {
    /// The newest status of `region`, as its giver's log says just now. It is remembered.
    pub(super) async fn ask_status(self: &Arc<Self>, region: &RegionId) -> Result<Arc<Current>, DeskError> {
        let (_, source) = self.region(region)?;
        let ask = || async { self.learn(region, source.ask().await?).await };
        source.last.get(|| async { ask().await.map(Arc::new).map_err(Arc::new) }).await.map_err(DeskError::Same)
    }

    /// Remembers a status that somebody brings: who has given a stop need not wait until it is asked for.
    ///
    /// # Errors
    /// [`DeskError`].
    pub(crate) async fn take_status(self: &Arc<Self>, region: &RegionId, status: &str) -> Result<(), DeskError> {
        let bundle = Bundle::parse(status.as_bytes()).map_err(|error| form("`status`", &error))?;
        self.learn(region, bundle).await.map(drop)
    }

    async fn learn(self: &Arc<Self>, region: &RegionId, bundle: Bundle) -> Result<Current, DeskError> {
        let (ledger, _) = self.region(region)?;
        let (desk, of) = (Arc::clone(self), region.clone());
        let checked = tokio::task::spawn_blocking(move || {
            let domain = &desk.domain;
            let (organisation, policy, clock) = (&domain.organisation, &*domain.policy, &*domain.clock);
            let seen = Seen::default();
            current(&Custodian { organisation, region: &of, policy, clock, seen }, &bundle)
        });
        let checked = checked.await??;
        ledger.learn(&checked).await?;
        Ok(checked)
    }
}
