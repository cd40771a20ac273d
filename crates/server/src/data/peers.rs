//! Workers and custodians: where they are, and what is asked of them.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use api::{
    BaseUrl, BodyLimit, Client, ClientError, GrantAnswer, GrantRequest, OutcomeNote, Plan, PlanRequest, RunRequest,
    Worker, path,
};
use attest::{
    BUNDLE_BYTES_MAX, Bundle, BundleEntry, Envelope, OrganisationId, RegionId, Statement, WorkerEnrolment, WorkerKey,
};
use policy::{Region, Residency};
use stdx::{Clock, Digest};

use super::DataError;
use super::call::one;
use crate::config::AccessSection;
use crate::failure::Failure;
use crate::fresh::Fresh;

/// An envelope and a bundle, escaped.
const WORKER_BYTES_MAX: BodyLimit = BodyLimit(4 << 20);
/// 4,096 objects with headers of 4 KB, a third more in base64.
const PLAN_BYTES_MAX: BodyLimit = BodyLimit(32 << 20);
/// A share of each of 4,096 objects to an X-Wing key, in base64.
const GRANT_BYTES_MAX: BodyLimit = BodyLimit(16 << 20);
/// Nothing but "yes".
const NOTE_BYTES_MAX: BodyLimit = BodyLimit(4096);
/// A custodian checks a hundred signatures, and waits for its disk.
const GRANT_TIME_MAX: Duration = Duration::from_secs(30);

/// One of several workers that says nothing for so long is left out.
const WORKER_TIME_MAX: Duration = Duration::from_secs(5);

/// What all who wait for it are told.
type Shared<T> = Fresh<Result<Arc<T>, Arc<DataError>>>;

/// Where everybody is.
pub(super) struct Peers {
    workers: BTreeMap<RegionId, Vec<(BaseUrl, Shared<Presented>)>>,
    statuses: BTreeMap<RegionId, Shared<BundleEntry>>,
    custodians: BTreeMap<OrganisationId, BaseUrl>,
    client: Client,
}

/// A worker, as it presents itself: custodians check all of it.
pub(super) struct Presented {
    pub(super) url: BaseUrl,
    pub(super) key: Envelope,
    /// Its key, as text.
    pub(super) public: String,
    pub(super) code: Digest,
    pub(super) enrolment: BundleEntry,
}

impl Peers {
    pub(super) fn new(
        section: &AccessSection,
        residency: &Residency,
        client: Client,
        clock: &Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        for region in &residency.regions {
            let known = |organisation| section.custodians.contains_key(organisation);
            if let Some(missing) = region.custodians.iter().find(|it| !known(&it.organisation)) {
                let message =
                    format!("nothing says where custodian `{}` of region `{}` is", missing.organisation, region.id);
                return Err(Failure::usage(message).hint("add it to `[access.custodians]`").into());
            }
        }
        let worker = |url: &BaseUrl| (url.clone(), Fresh::new(Arc::clone(clock)));
        let workers = section.workers.iter();
        let workers = workers.map(|(region, addresses)| (region.clone(), addresses.0.iter().map(worker).collect()));
        let status = |region: &Region| (region.id.clone(), Fresh::new(Arc::clone(clock)));
        Ok(Self {
            workers: workers.collect(),
            statuses: residency.regions.iter().map(status).collect(),
            custodians: section.custodians.clone(),
            client,
        })
    }

    /// Those of the region's workers that answer, in the order in which they are configured; at least one.
    pub(super) async fn workers(&self, region: &RegionId) -> Result<Vec<Arc<Presented>>, DataError> {
        let nothing = || DataError::Broken(format!("nothing says where the workers of region `{region}` are"));
        let urls = self.workers.get(region).ok_or_else(nothing)?;
        let client = if urls.len() > 1 { self.client.with_timeout(WORKER_TIME_MAX) } else { self.client.clone() };
        let asked = urls.iter().map(|(url, last)| {
            let ask = || async { Self::worker(client.clone(), region, url).await.map(Arc::new).map_err(Arc::new) };
            last.get(ask)
        });
        let (mut living, mut failed): (Vec<Arc<Presented>>, _) = (Vec::new(), None);
        for (answer, (url, _)) in futures::future::join_all(asked).await.into_iter().zip(urls) {
            match answer {
                // Two addresses of one worker are one.
                Ok(worker) if living.iter().any(|other| other.public == worker.public) => {}
                Ok(worker) => living.push(worker),
                Err(error) => {
                    tracing::warn!(data.region = %region, worker.url = %url, "a worker does not answer: {error}");
                    failed = failed.or(Some(error));
                }
            }
        }
        match failed {
            Some(error) if living.is_empty() => Err(DataError::Same(error)),
            _ => Ok(living),
        }
    }

    async fn worker(client: Client, region: &RegionId, url: &BaseUrl) -> Result<Presented, DataError> {
        let who = format!("the worker of region `{region}`");
        let (base, url) = (url.clone(), url.join(path::WORKER));
        let worker: Worker = ask(who.clone(), move || client.get_json(&url, WORKER_BYTES_MAX)).await?;
        let odd = |error: &dyn std::fmt::Display| DataError::Broken(format!("{who}: {error}"));
        let key = Envelope::parse(worker.key.as_bytes()).map_err(|error| odd(&error))?;
        let says = Statement::<WorkerKey>::decode(key.payload()).map_err(|error| odd(&error))?.predicate;
        let bundle = Bundle::parse(worker.enrolment.as_bytes()).map_err(|error| odd(&error))?;
        let enrolment = one(bundle.entries().iter()).ok_or_else(|| odd(&"it has no enrolment"))?.clone();
        Statement::<WorkerEnrolment>::decode(enrolment.envelope.payload()).map_err(|error| odd(&error))?;
        Ok(Presented { url: base, key, public: says.key, code: worker.code, enrolment })
    }

    pub(super) async fn plan(
        &self,
        worker: &Presented,
        region: &RegionId,
        request: PlanRequest,
    ) -> Result<Plan, DataError> {
        let (client, url) = (self.client.clone(), worker.url.join(path::PLAN));
        let who = format!("the worker of region `{region}`");
        ask(who, move || client.post_json(&url, &request, PLAN_BYTES_MAX)).await
    }

    /// Has a worker run; what comes is the result stream, as it comes.
    pub(super) fn run(
        &self,
        worker: &Presented,
        who: String,
        request: &RunRequest,
        patience: Duration,
    ) -> Result<Box<dyn Read>, DataError> {
        let source = self.client.with_timeout(patience).post_open(&worker.url.join(path::RUN), request);
        source.map_err(|source| DataError::Peer { who, source })
    }

    pub(super) async fn grant(
        &self,
        custodian: &OrganisationId,
        request: Arc<GrantRequest>,
    ) -> Result<GrantAnswer, DataError> {
        let (client, url) =
            (self.client.with_timeout(GRANT_TIME_MAX), self.custodian_url(custodian)?.join(path::GRANTS));
        ask(format!("custodian `{custodian}`"), move || client.post_json(&url, &*request, GRANT_BYTES_MAX)).await
    }

    pub(super) async fn outcome(&self, custodian: &OrganisationId, note: OutcomeNote) -> Result<(), DataError> {
        let (client, url) = (self.client.clone(), self.custodian_url(custodian)?.join(path::OUTCOMES));
        let sent = move || client.post_json::<serde_json::Value>(&url, &note, NOTE_BYTES_MAX);
        ask(format!("custodian `{custodian}`"), sent).await.map(drop)
    }

    /// The newest status of the region, as the log's own server has it.
    pub(super) async fn status(&self, log: &BaseUrl, region: &RegionId) -> Result<Arc<BundleEntry>, DataError> {
        let nothing = || DataError::Broken(format!("the policy says nothing of region `{region}`"));
        let last = self.statuses.get(region).ok_or_else(nothing)?;
        let ask = || async { self.status_now(log, region).await.map(Arc::new).map_err(Arc::new) };
        last.get(ask).await.map_err(DataError::Same)
    }

    async fn status_now(&self, log: &BaseUrl, region: &RegionId) -> Result<BundleEntry, DataError> {
        let who = format!("the status of region `{region}`");
        let (client, url) = (self.client.clone(), log.join(&format!("{}/{region}", path::REGIONS)));
        let bytes = ask(who.clone(), move || client.get(&url, BodyLimit(BUNDLE_BYTES_MAX as u64))).await?;
        let bundle = Bundle::parse(&bytes).map_err(|error| DataError::Broken(format!("{who}: {error}")))?;
        one(bundle.entries().iter()).cloned().ok_or_else(|| DataError::Broken(format!("{who}: is of another form")))
    }

    fn custodian_url(&self, custodian: &OrganisationId) -> Result<&BaseUrl, DataError> {
        let url = self.custodians.get(custodian);
        url.ok_or_else(|| DataError::Broken(format!("nothing says where custodian `{custodian}` is")))
    }
}

/// Asks on a thread that may wait.
async fn ask<T: Send + 'static>(
    who: String,
    question: impl FnOnce() -> Result<T, ClientError> + Send + 'static,
) -> Result<T, DataError> {
    let answer = tokio::task::spawn_blocking(question).await.map_err(|error| DataError::broken(&error))?;
    answer.map_err(|source| DataError::Peer { who, source })
}
