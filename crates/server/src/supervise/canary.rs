//! The canary ring: who goes first, how they fare, and what follows from it.
//!
//! What is kept are locks, changed by compare-and-swap only: an enrolment with the number of its
//! last report, and each release that is in a ring with what its hosts said of it. A bake is logged
//! once for a release and ring; whoever finds one has it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use api::Baked;
use attest::{
    Agreement, Bake, Bundle, BundleEntry, Enrolment, EnrolmentEnd, Envelope, Health, HostId, Lane, Outcome, ProductId,
    Promotion, Release, ReleaseNumber, Ring, Statement, StatementId, StopScope, Subject,
};
use bytes::Bytes;
use policy::CanaryPolicy;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use stdx::UnixTime;
use storage::{Key, Swap};
use tlog::VerifierKey;
use verify::Refusal;

use super::Supervisor;
use super::status::Negative;
use crate::duty::OnDuty;
use crate::failure::Failure;
use crate::http::Stop;
use crate::line::bundle_text;

/// A thousand reports of a release are 150 KB in one lock.
const HOSTS_MAX: usize = 1_000;
/// Releases in a ring before `all`, of all products; the oldest are promoted no more.
const WATCHED_MAX: usize = 64;
/// How often bakes that are only a matter of time are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Why a report does not count.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// It is not of an enrolled host, or not the next one.
    #[error("the report does not count")]
    Evidence(#[from] Refusal),
    /// It is not what the supervisor knows of the release or enrolment.
    #[error("the report does not count: {0}")]
    Refused(String),
    /// The supervisor can't say at the moment.
    #[error("the report can't be taken now: {0}")]
    Unavailable(String),
}

/// A host as it is enrolled.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// The enrolment.
    pub enrolment: StatementId,
    /// Its key.
    pub key: VerifierKey,
    /// Until when.
    pub until: UnixTime,
}

/// An enrolment, and how far its host has counted.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Enrolled {
    envelope: String,
    last: Option<u64>,
    ended: bool,
}

/// A release of rules that has not come to everyone.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Watched {
    product: ProductId,
    version: String,
    number: ReleaseNumber,
    subject: Vec<Subject>,
    ring: Ring,
    since: UnixTime,
    /// The last report of each enrolment in this ring.
    reports: BTreeMap<StatementId, Told>,
    /// The bake in each ring so far, as a bundle.
    bakes: BTreeMap<Ring, String>,
    /// It goes no further.
    over: bool,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    good: bool,
    detections: u64,
}

impl Watched {
    /// With the reports under these enrolments only. One that has ended counts no more: neither a host
    /// that was dismissed, nor one twice that was enrolled again.
    fn of(mut self, enrolled: &BTreeSet<StatementId>) -> Self {
        self.reports.retain(|enrolment, _| enrolled.contains(enrolment));
        self
    }

    fn hosts(&self, good: Kind) -> u64 {
        self.reports.values().filter(|told| told.good == matches!(good, Kind::Good)).count() as u64
    }

    fn detections(&self) -> u64 {
        self.reports.values().fold(0, |sum, told| sum.saturating_add(told.detections))
    }

    /// Why its product must be stopped.
    fn offence(&self, canary: &CanaryPolicy) -> Option<String> {
        let (bad, detections) = (self.hosts(Kind::Bad), self.detections());
        let Self { product, version, number, ring, .. } = self;
        let release = format!("`{product}` {version} ({number})");
        if bad >= canary.unhealthy {
            return Some(format!("{release} fares badly on {bad} host(s) of ring `{ring}`"));
        }
        (detections >= canary.fires).then(|| format!("{release} fired {detections} times on hosts of ring `{ring}`"))
    }

    fn is_baked(&self, canary: &CanaryPolicy, now: UnixTime) -> bool {
        self.ring < Ring::All
            && !self.bakes.contains_key(&self.ring)
            && self.offence(canary).is_none()
            && self.hosts(Kind::Good) >= canary.healthy
            && now.since(self.since) >= canary.bake()
    }
}

/// What a report says, in short.
#[derive(Clone, Copy)]
enum Kind {
    Good,
    Bad,
}

impl Supervisor {
    /// Enrols the host whose owner has agreed, in the log and here.
    ///
    /// # Errors
    /// When the agreement is none, its key or name is in use, or the log or a store fails.
    pub async fn enrol(&self, agreement: &Envelope) -> anyhow::Result<BundleEntry> {
        let agreed = verify::agreed(agreement, self.domain.clock.now())?.predicate;
        self.canary()?;
        let Agreement { host, key, until, .. } = agreed;
        let hosts = self.hosts().await?;
        if hosts.iter().any(|(name, it)| *name != host && it.key.public_key() == key.public_key()) {
            return Err(Failure::refused("another host is enrolled with this key")
                .hint("each host draws a key of its own, so that its reports count once")
                .into());
        }
        if hosts.len() >= HOSTS_MAX && !hosts.contains_key(&host) {
            return Err(Failure::refused(format!("{HOSTS_MAX} hosts are enrolled")).hint("dismiss some").into());
        }
        self.domain.keep(&self.domain.depot(None)?, agreement.to_bytes().into()).await?;
        let stream = self.domain.stream(&format!("canary/{}", self.domain.organisation))?;
        let entry = stream
            .write(|position| {
                let (host, key, agreement) = (host.clone(), key.clone(), agreement.id());
                let predicate = Enrolment { position, host, key, agreement, until };
                let statement = Statement { subject: vec![Agreement::subject()], predicate };
                Ok(Envelope::sign(statement.encode()?, &[&self.recorder])?)
            })
            .await?;
        let enrolment = entry.envelope.id();
        let text = String::from_utf8(entry.envelope.to_bytes())?;
        let fresh = || Enrolled { envelope: text.clone(), last: None, ended: false };
        self.change(&enrolment_key(enrolment)?, |it: Option<Enrolled>| Some(it.unwrap_or_else(fresh))).await?;
        let now = Host { enrolment, key: key.clone(), until };
        let mut before = None;
        self.change(&hosts_key()?, |hosts: Option<BTreeMap<HostId, Host>>| {
            let mut hosts = hosts.unwrap_or_default();
            before = hosts.insert(host.clone(), now.clone());
            Some(hosts)
        })
        .await?;
        if let Some(before) = before {
            self.end_enrolment(before.enrolment).await?;
        }
        Ok(entry)
    }

    /// Ends a host's enrolment.
    ///
    /// # Errors
    /// When it is not enrolled, or the log or a store fails.
    pub async fn dismiss(&self, host: &HostId, reason: &str) -> anyhow::Result<BundleEntry> {
        let known = self.hosts().await?.remove(host);
        let known = known.ok_or_else(|| Failure::refused(format!("no host `{host}` is enrolled")))?;
        let enrolment = known.enrolment;
        // Here first: from now on its reports don't count.
        self.end_enrolment(enrolment).await?;
        let stream = self.domain.stream(&format!("canary/{}", self.domain.organisation))?;
        let entry = stream
            .write(|position| {
                let predicate = EnrolmentEnd { position, host: host.clone(), enrolment, reason: reason.to_owned() };
                let subject = vec![Subject::new("enrolment", *enrolment.digest())];
                Ok(Envelope::sign(Statement { subject, predicate }.encode()?, &[&self.recorder])?)
            })
            .await?;
        self.change(&hosts_key()?, |hosts: Option<BTreeMap<HostId, Host>>| {
            let mut hosts = hosts.unwrap_or_default();
            hosts.remove(host);
            Some(hosts)
        })
        .await?;
        Ok(entry)
    }

    /// The hosts that are enrolled.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn hosts(&self) -> anyhow::Result<BTreeMap<HostId, Host>> {
        Ok(self.read(&hosts_key()?).await?.unwrap_or_default())
    }

    /// Takes in a host's report, and does what follows from it: a stop, or a bake.
    ///
    /// # Errors
    /// [`ReportError`].
    pub async fn take_report(&self, envelope: &Envelope) -> Result<(), ReportError> {
        let report = Statement::<Health>::decode(envelope.payload()).map_err(|error| refused(&error))?;
        let told = report.predicate;
        let canary = self.canary().map_err(unavailable)?;
        let mut counted = Ok(());
        let now = self.domain.clock.now();
        let of_enrolment = enrolment_key(told.enrolment).map_err(unavailable)?;
        let changed = self.change(&of_enrolment, |enrolled: Option<Enrolled>| {
            let Some(mut enrolled) = enrolled.filter(|it| !it.ended) else {
                counted = Err(ReportError::Refused(format!("there is no enrolment {}", told.enrolment)));
                return None;
            };
            counted = self.check_report(&enrolled, envelope, now);
            enrolled.last = Some(told.sequence);
            counted.is_ok().then_some(enrolled)
        });
        changed.await.map_err(unavailable)?;
        counted?;
        let mut known = Ok(());
        let of_release = release_key(told.release).map_err(unavailable)?;
        let changed = self.change(&of_release, |watched: Option<Watched>| {
            // Of a release that has come to everyone, or is stopped, nothing more is asked.
            let mut watched = watched.filter(|it| !it.over)?;
            let is_it = watched.product == told.product && watched.subject == report.subject;
            if !is_it || told.ring > watched.ring {
                known = Err(ReportError::Refused(format!("release {} is not in ring `{}`", told.release, told.ring)));
                return None;
            }
            let good = told.outcome == Outcome::Active && told.crashes == 0;
            watched.reports.insert(told.enrolment, Told { good, detections: told.detections });
            Some(watched)
        });
        let watched = changed.await.map_err(unavailable)?;
        known?;
        let enrolled = self.enrolments().await.map_err(unavailable)?;
        match watched.map(|watched| watched.of(&enrolled)) {
            Some(watched) => self.judge(told.release, &watched, &canary).await.map_err(unavailable),
            None => Ok(()),
        }
    }

    fn check_report(&self, enrolled: &Enrolled, envelope: &Envelope, now: UnixTime) -> Result<(), ReportError> {
        let enrolment = Envelope::parse(enrolled.envelope.as_bytes()).map_err(unavailable)?;
        self.domain.policy.enrolled(&enrolment)?.report(envelope, enrolled.last, now)?;
        Ok(())
    }

    /// Stops a product whose release fares badly; logs the bake of one that has fared well for long
    /// enough.
    async fn judge(&self, release: StatementId, watched: &Watched, canary: &CanaryPolicy) -> anyhow::Result<()> {
        if let Some(reason) = watched.offence(canary) {
            let scope = StopScope::Product(watched.product.clone());
            if !self.shown().await?.stops.contains(&scope) {
                tracing::error!(product = %watched.product, "stopped: {reason}");
                self.say(&Negative::Stop { scope, reason }).await?;
            }
            // Who lifts the stop has looked; this release goes no further.
            return self.close(&[release]).await;
        }
        if !watched.is_baked(canary, self.domain.clock.now()) {
            return Ok(());
        }
        let stream = self.domain.stream(&format!("canary/{}", self.domain.organisation))?;
        let once: Key = format!("baked/{release}/{}", watched.ring).parse()?;
        let make = |position| {
            let Watched { product, ring, since, .. } = watched.clone();
            let (healthy, detections) = (watched.hosts(Kind::Good), watched.detections());
            let predicate = Bake { position, product, release, ring, since, healthy, detections };
            let statement = Statement { subject: watched.subject.clone(), predicate };
            Ok(Envelope::sign(statement.encode()?, &[&self.recorder])?)
        };
        let entry = stream.write_once(&once, make).await?;
        let bake = bundle_text(&Bundle::new(vec![entry])?)?;
        tracing::info!(product = %watched.product, version = watched.version, ring = %watched.ring, "baked");
        self.change(&release_key(release)?, |now: Option<Watched>| {
            let mut now = now.filter(|now| now.ring == watched.ring && !now.over)?;
            now.bakes.insert(now.ring, bake.clone());
            Some(now)
        })
        .await?;
        Ok(())
    }

    /// A release of rules was signed: its canaries are listened to from now on.
    pub(super) async fn watch(&self, release: &Statement<Release>, id: StatementId) -> anyhow::Result<()> {
        let says = &release.predicate;
        let since = self.domain.clock.now();
        self.change(&release_key(id)?, |known: Option<Watched>| {
            Some(known.unwrap_or_else(|| Watched {
                product: says.product.clone(),
                version: says.version.clone(),
                number: says.number,
                subject: release.subject.clone(),
                ring: says.ring,
                since,
                reports: BTreeMap::new(),
                bakes: BTreeMap::new(),
                over: false,
            }))
        })
        .await?;
        let mut old = Vec::new();
        self.change(&watched_key()?, |watched: Option<Vec<StatementId>>| {
            let mut watched = watched.unwrap_or_default();
            if !watched.contains(&id) {
                watched.push(id);
            }
            let many = watched.len().saturating_sub(WATCHED_MAX);
            old = watched.drain(..many).collect();
            Some(watched)
        })
        .await?;
        self.close(&old).await
    }

    /// A promotion was signed: the next ring is listened to, and releases before this one go no further.
    pub(super) async fn widen(&self, promotion: &Promotion) -> anyhow::Result<()> {
        let now = self.domain.clock.now();
        let widen = |watched: Option<Watched>| {
            let mut watched = watched.filter(|it| it.ring < promotion.ring && !it.over)?;
            (watched.ring, watched.since) = (promotion.ring, now);
            watched.reports.clear();
            Some(watched)
        };
        let Some(widened) = self.change(&release_key(promotion.release)?, widen).await? else { return Ok(()) };
        let is_behind = |other: &Watched| {
            other.product == widened.product && other.number < widened.number && other.ring <= widened.ring
        };
        let watched = self.watched().await?;
        let over: Vec<_> = watched.iter().filter(|(_, other)| is_behind(other)).map(|(id, _)| *id).collect();
        self.close(&over).await
    }

    /// The bakes of releases that are listened to, the newest of each product and ring. Whether a
    /// promotion has followed is known to whoever drafts it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn bakes(&self) -> anyhow::Result<Vec<Baked>> {
        let mut newest: BTreeMap<(ProductId, Ring), Baked> = BTreeMap::new();
        // In the order of signing, so that the newest stays.
        for (_, watched) in self.watched().await? {
            let Watched { product, version, bakes, .. } = watched;
            for (ring, bundle) in bakes {
                let baked = Baked { product: product.clone(), version: version.clone(), ring, bundle };
                newest.insert((product.clone(), ring), baked);
            }
        }
        Ok(newest.into_values().collect())
    }

    /// Looks at what is only a matter of time, while this process is on duty, until told to stop.
    ///
    /// # Errors
    /// When the policy has no fast lane; what fails later is told and tried again.
    pub async fn bake(self: Arc<Self>, duty: OnDuty, mut stop: Stop) -> anyhow::Result<()> {
        let canary = self.canary()?;
        loop {
            if duty.borrow().is_here()
                && let Err(error) = self.look(&canary).await
            {
                tracing::warn!("the canary ring can't be looked at: {error:#}");
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _ = stop.changed() => return Ok(()),
            }
        }
    }

    async fn look(&self, canary: &CanaryPolicy) -> anyhow::Result<()> {
        let (now, enrolled) = (self.domain.clock.now(), self.enrolments().await?);
        for (id, watched) in self.watched().await? {
            let watched = watched.of(&enrolled);
            if watched.is_baked(canary, now) || watched.offence(canary).is_some() {
                self.judge(id, &watched, canary).await?;
            }
        }
        Ok(())
    }

    /// Those in force: one for each host.
    async fn enrolments(&self) -> anyhow::Result<BTreeSet<StatementId>> {
        Ok(self.hosts().await?.values().map(|host| host.enrolment).collect())
    }

    fn canary(&self) -> anyhow::Result<CanaryPolicy> {
        let canary = self.domain.lane(Lane::Fast)?.canary;
        canary.context("the fast lane has no canary ring")
    }

    async fn watched(&self) -> anyhow::Result<Vec<(StatementId, Watched)>> {
        let mut watched = Vec::new();
        for id in self.read::<Vec<StatementId>>(&watched_key()?).await?.unwrap_or_default() {
            let release = self.read::<Watched>(&release_key(id)?).await?;
            watched.extend(release.filter(|it| !it.over).map(|it| (id, it)));
        }
        Ok(watched)
    }

    /// Nothing more is asked of these releases.
    async fn close(&self, releases: &[StatementId]) -> anyhow::Result<()> {
        if releases.is_empty() {
            return Ok(());
        }
        for release in releases {
            let over =
                |known: Watched| Watched { over: true, reports: BTreeMap::new(), bakes: BTreeMap::new(), ..known };
            self.change(&release_key(*release)?, |known: Option<Watched>| known.map(over)).await?;
        }
        self.change(&watched_key()?, |watched: Option<Vec<StatementId>>| {
            let mut watched = watched?;
            watched.retain(|id| !releases.contains(id));
            Some(watched)
        })
        .await?;
        Ok(())
    }

    async fn end_enrolment(&self, enrolment: StatementId) -> anyhow::Result<()> {
        self.change(&enrolment_key(enrolment)?, |known: Option<Enrolled>| Some(Enrolled { ended: true, ..known? }))
            .await?;
        Ok(())
    }

    async fn read<T: DeserializeOwned>(&self, key: &Key) -> anyhow::Result<Option<T>> {
        let held = self.domain.locks().get(key).await?;
        Ok(held.map(|held| serde_json::from_slice(&held.bytes)).transpose()?)
    }

    /// Changes what a lock holds, again with what it holds then if somebody else was faster; `None`
    /// leaves it, and is given back.
    async fn change<T: Serialize + DeserializeOwned>(
        &self,
        key: &Key,
        mut change: impl FnMut(Option<T>) -> Option<T> + Send,
    ) -> anyhow::Result<Option<T>> {
        loop {
            let held = self.domain.locks().get(key).await?;
            let old = held.as_ref().map(|held| serde_json::from_slice(&held.bytes)).transpose()?;
            let Some(new) = change(old) else { return Ok(None) };
            let bytes = Bytes::from(serde_json::to_vec(&new)?);
            let expected = held.as_ref().map(|held| &held.version);
            if let Swap::Won(_) = self.domain.locks().compare_and_swap(key, expected, bytes).await? {
                return Ok(Some(new));
            }
        }
    }
}

fn refused(error: &dyn std::fmt::Display) -> ReportError {
    ReportError::Refused(error.to_string())
}

fn unavailable(error: impl std::fmt::Display) -> ReportError {
    ReportError::Unavailable(format!("{error:#}"))
}

fn enrolment_key(id: StatementId) -> anyhow::Result<Key> {
    Ok(format!("canary/enrolment/{id}").parse()?)
}

fn release_key(id: StatementId) -> anyhow::Result<Key> {
    Ok(format!("canary/release/{id}").parse()?)
}

fn hosts_key() -> anyhow::Result<Key> {
    Ok("canary/hosts".parse()?)
}

fn watched_key() -> anyhow::Result<Key> {
    Ok("canary/watched".parse()?)
}

/// The enrolments that a supervisor's own stream `canary/…` comes to, for a state that was lost.
///
/// The number of a host's last report is not in the log. That is safe: a report counts for a release
/// that is listened to, and no release from before is, for what its hosts said is lost with the state.
#[derive(Default)]
pub(crate) struct LoggedHosts {
    enrolments: BTreeMap<StatementId, Enrolled>,
    hosts: BTreeMap<HostId, Host>,
}

impl LoggedHosts {
    /// Takes in a statement of that stream again, in the log's order.
    pub(crate) fn replay(&mut self, envelope: &Envelope) {
        if let Ok(Statement { predicate, .. }) = Statement::<Enrolment>::decode(envelope.payload()) {
            let Enrolment { host, key, until, .. } = predicate;
            let Ok(text) = String::from_utf8(envelope.to_bytes()) else { return };
            let enrolment = envelope.id();
            self.enrolments.insert(enrolment, Enrolled { envelope: text, last: None, ended: false });
            if let Some(before) = self.hosts.insert(host, Host { enrolment, key, until }) {
                self.end(before.enrolment);
            }
        } else if let Ok(Statement { predicate, .. }) = Statement::<EnrolmentEnd>::decode(envelope.payload()) {
            self.end(predicate.enrolment);
            self.hosts.retain(|_, host| host.enrolment != predicate.enrolment);
        }
    }

    fn end(&mut self, enrolment: StatementId) {
        if let Some(enrolled) = self.enrolments.get_mut(&enrolment) {
            enrolled.ended = true;
        }
    }

    /// How many are enrolled.
    pub(crate) fn count(&self) -> usize {
        self.hosts.len()
    }

    /// The locks that hold it; none if nobody was ever enrolled.
    pub(crate) fn locks(&self) -> anyhow::Result<Vec<(Key, Bytes)>> {
        if self.enrolments.is_empty() {
            return Ok(Vec::new());
        }
        let enrolments = self.enrolments.iter();
        let enrolments = enrolments.map(|(id, it)| Ok((enrolment_key(*id)?, serde_json::to_vec(it)?.into())));
        enrolments.chain([Ok((hosts_key()?, serde_json::to_vec(&self.hosts)?.into()))]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_under_an_enrolment_that_has_ended_count_no_more() {
        let id = |name: &str| StatementId::of(name.as_bytes());
        let good = Told { good: true, detections: 2 };
        let watched = Watched {
            product: "rules".parse().expect("a name"),
            version: "1".to_owned(),
            number: ReleaseNumber::FIRST,
            subject: Vec::new(),
            ring: Ring::Canary,
            since: UnixTime::EPOCH,
            reports: BTreeMap::from([(id("first"), good), (id("the same host again"), good), (id("gone"), good)]),
            bakes: BTreeMap::new(),
            over: false,
        };
        assert_eq!((watched.hosts(Kind::Good), watched.detections()), (3, 6));
        let counted = watched.of(&BTreeSet::from([id("the same host again")]));
        assert_eq!((counted.hosts(Kind::Good), counted.detections()), (1, 2));
    }
}
