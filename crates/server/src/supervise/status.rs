//! The supervisor's no: revocations, stops, floors, and the short-lived status that says what holds.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use attest::{
    Bundle, Envelope, Floor, Lane, Mismatched, ProductId, ReleaseNumber, Revocation, Statement, StatementId, Status,
    Stop, StopScope, Subject,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stdx::Digest;
use storage::{Key, RecordKey, Swap, Versioned};

use super::Supervisor;
use crate::duty::OnDuty;
use crate::failure::Failure;
use crate::http;
use crate::metrics::{Probe, Reason, metrics};

/// A region's status lives for minutes: when one or two could not be published, the last still holds.
const REGIONS_PERIOD: Duration = Duration::from_secs(custody::STATUS_AGE_MAX.as_secs() / 3);
/// After a failure: what was away may be back, and custodians open nothing without a status.
const REGIONS_AGAIN: Duration = Duration::from_secs(5);

/// A statement of "no".
#[derive(Clone, Debug)]
pub enum Negative {
    /// These bytes go.
    Revoke {
        /// Their product.
        product: ProductId,
        /// The bytes.
        content: Vec<Digest>,
        /// The lowest release that may still be installed.
        floor: Option<ReleaseNumber>,
        /// Why.
        reason: String,
    },
    /// Nothing new.
    Stop {
        /// What it covers.
        scope: StopScope,
        /// Why.
        reason: String,
    },
    /// A stop ends.
    Lift {
        /// What it covered.
        scope: StopScope,
        /// Why.
        reason: String,
    },
}

/// What holds now; the log has how it came to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shown {
    /// Revoked content.
    pub revoked: Vec<Digest>,
    /// Floors.
    pub floors: Vec<Floor>,
    /// Stops.
    pub stops: Vec<StopScope>,
    /// The last mismatches, oldest first.
    #[serde(default)]
    pub mismatches: Vec<Mismatched>,
}

impl Shown {
    fn read(held: Option<&Versioned>) -> anyhow::Result<Self> {
        Ok(held.map(|held| serde_json::from_slice(&held.bytes)).transpose()?.unwrap_or_default())
    }

    /// Takes in a statement of this supervisor's log again, in the log's order.
    pub fn replay(&mut self, payload: &[u8]) {
        if let Ok(Statement { subject, predicate }) = Statement::<Revocation>::decode(payload) {
            let content = subject.iter().map(Subject::sha256).collect();
            let Revocation { product, floor, reason, .. } = predicate;
            self.apply(&Negative::Revoke { product, content, floor, reason });
        } else if let Ok(Statement { predicate, .. }) = Statement::<Stop>::decode(payload) {
            let Stop { scope, reason, lifted, .. } = predicate;
            let lift = |scope, reason| Negative::Lift { scope, reason };
            let stop = |scope, reason| Negative::Stop { scope, reason };
            self.apply(&if lifted { lift(scope, reason) } else { stop(scope, reason) });
        }
    }

    fn apply(&mut self, negative: &Negative) {
        match negative {
            Negative::Revoke { product, content, floor, .. } => {
                self.revoked.extend(content);
                if let Some(number) = floor {
                    // A floor only rises: what was forbidden once stays forbidden.
                    let before = self.floors.iter().find(|it| it.product == *product).map(|it| it.number);
                    let number = before.map_or(*number, |before| before.max(*number));
                    self.floors.retain(|it| it.product != *product);
                    self.floors.push(Floor { product: product.clone(), number });
                }
            }
            Negative::Stop { scope, .. } => self.stops.push(scope.clone()),
            Negative::Lift { scope, .. } => self.stops.retain(|it| it != scope),
        }
        self.revoked.sort();
        self.revoked.dedup();
        self.floors.sort();
        self.stops.sort();
        self.stops.dedup();
    }

    /// A later build of the same version is another matter: only the last one's outcome is shown.
    fn rebuilt(&mut self, version: &Rebuilt) {
        let Rebuilt { product, version, mismatch } = version;
        self.mismatches.retain(|it| it.product != *product || it.version != *version);
        if let Some(statement) = mismatch {
            let (product, version) = (product.clone(), version.clone());
            self.mismatches.push(Mismatched { product, version, statement: *statement });
        }
        let many = self.mismatches.len().saturating_sub(MISMATCHES_MAX);
        self.mismatches.drain(..many);
    }

    /// A status is a log entry: what does not fit could never be published again.
    fn check_fits(&self) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec(self)?.len();
        if bytes <= SHOWN_BYTES_MAX {
            return Ok(());
        }
        Err(Failure::refused(format!(
            "{} revoked digests, floors and stops do not fit a status",
            self.revoked.len() + self.floors.len() + self.stops.len()
        ))
        .hint("raise the product's floor (`--floor`) instead of revoking each file of its old releases")
        .into())
    }
}

/// The log has them all; a status, which every endpoint fetches, has the last few.
const MISMATCHES_MAX: usize = 16;

/// What came of rebuilding a version.
#[derive(Clone, Debug)]
pub(super) struct Rebuilt {
    pub(super) product: ProductId,
    pub(super) version: String,
    /// The statement, if the bytes differ.
    pub(super) mismatch: Option<StatementId>,
}

/// An entry has 65,535 bytes, of which base64 leaves 49,151; 3 KiB are for the rest of the statement
/// and its signature, whose names (log, stream, key) have at most 255 bytes each.
const SHOWN_BYTES_MAX: usize = 45 << 10;

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for scope in &self.stops {
            writeln!(f, "stopped  {scope}")?;
        }
        for content in &self.revoked {
            writeln!(f, "revoked  {content}")?;
        }
        for floor in &self.floors {
            writeln!(f, "floor    {} {}", floor.product, floor.number)?;
        }
        for it in &self.mismatches {
            writeln!(f, "mismatch {} {} ({})", it.product, it.version, it.statement)?;
        }
        if *self == Self::default() {
            writeln!(f, "nothing is revoked or stopped")?;
        }
        Ok(())
    }
}

impl Supervisor {
    /// Notes the "no", logs it, and publishes a status that has it for every lane.
    ///
    /// The note comes first and by compare-and-swap: from then on every status has it, whoever
    /// publishes it, and of two at once none is lost.
    ///
    /// # Errors
    /// When it does not fit a status (nothing is noted then), or the log or a store fails (what was
    /// noted holds, and is published by the next try).
    pub async fn say(&self, negative: &Negative) -> anyhow::Result<()> {
        self.note(|shown| shown.apply(negative)).await?;
        let stream = self.domain.stream(&format!("desk/{}", self.domain.organisation))?;
        stream
            .write(|position| {
                let payload = match negative {
                    Negative::Revoke { product, content, floor, reason } => {
                        let subject = content.iter().map(|digest| Subject::new(product.as_str(), *digest)).collect();
                        let (product, floor, reason) = (product.clone(), *floor, reason.clone());
                        Statement { subject, predicate: Revocation { position, product, floor, reason } }.encode()?
                    }
                    Negative::Stop { scope, reason } | Negative::Lift { scope, reason } => {
                        let lifted = matches!(negative, Negative::Lift { .. });
                        let name = scope.to_string();
                        let subject = vec![Subject::new(name.clone(), Digest::of(name.as_bytes()))];
                        let (scope, reason) = (scope.clone(), reason.clone());
                        Statement { subject, predicate: Stop { position, scope, lifted, reason } }.encode()?
                    }
                };
                Ok(Envelope::sign(payload, &[&self.status])?)
            })
            .await?;
        self.publish_all().await
    }

    /// Every status says from now on what came of rebuilding this version.
    ///
    /// # Errors
    /// When it does not fit a status or the store fails.
    pub(super) async fn say_rebuilt(&self, rebuilt: &Rebuilt) -> anyhow::Result<()> {
        let before = self.shown().await?;
        self.note(|shown| shown.rebuilt(rebuilt)).await?;
        if self.shown().await? != before
            && let Err(error) = self.publish_all().await
        {
            // It is noted, so the next one has it.
            tracing::warn!("the status could not be published: {error:#}");
        }
        Ok(())
    }

    async fn note(&self, change: impl Fn(&mut Shown)) -> anyhow::Result<()> {
        loop {
            let held = self.domain.locks().get(&shown_key()?).await?;
            let mut shown = Shown::read(held.as_ref())?;
            change(&mut shown);
            shown.check_fits()?;
            let bytes = Bytes::from(serde_json::to_vec(&shown)?);
            let expected = held.as_ref().map(|held| &held.version);
            match self.domain.locks().compare_and_swap(&shown_key()?, expected, bytes).await? {
                Swap::Won(_) => return Ok(()),
                Swap::Lost => {}
            }
        }
    }

    /// What holds now.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn shown(&self) -> anyhow::Result<Shown> {
        Shown::read(self.domain.locks().get(&shown_key()?).await?.as_ref())
    }

    /// Publishes a fresh status for every lane whose status this organisation gives.
    ///
    /// # Errors
    /// When the log or the store fails.
    pub async fn publish_all(&self) -> anyhow::Result<()> {
        let lanes = self.domain.policy.policy().lanes.iter();
        for lane in lanes.filter(|lane| lane.status == self.domain.organisation).map(|lane| lane.lane) {
            self.publish(lane).await?;
        }
        Ok(())
    }

    async fn publish(&self, lane: Lane) -> anyhow::Result<()> {
        let stream = self.domain.stream(&format!("status/{lane}"))?;
        let runtime = tokio::runtime::Handle::current();
        let entry = stream
            .write(|position| {
                // Read when the place is given, not before: a status never goes behind its predecessor.
                let shown = tokio::task::block_in_place(|| runtime.block_on(self.shown()))?;
                let of_lane = |product: &ProductId| {
                    self.domain.policy.policy().product(product).is_some_and(|it| it.lane == lane)
                };
                let mut mismatches = shown.mismatches;
                mismatches.retain(|it| of_lane(&it.product));
                mismatches.sort();
                let predicate = Status {
                    expires: position.time.after(Duration::from_secs(self.config.status_s)),
                    position,
                    lane,
                    policy: self.domain.policy.id(),
                    revoked: shown.revoked,
                    floors: shown.floors,
                    stops: shown.stops,
                    mismatches,
                };
                let subject = vec![Subject::new(lane.as_str(), Digest::of(lane.as_str().as_bytes()))];
                Ok(Envelope::sign(Statement { subject, predicate }.encode()?, &[&self.status])?)
            })
            .await?;
        let bundle = Bundle::new(vec![entry])?;
        self.domain.catalog().put(&key(lane.as_str())?, Bytes::from(bundle.to_bytes())).await?;
        Ok(())
    }

    /// The lane's newest status.
    ///
    /// # Errors
    /// When there is none yet, or the catalog fails.
    pub async fn status_bundle(&self, lane: Lane) -> anyhow::Result<Bundle> {
        let found = self.find_status(lane).await?;
        found.with_context(|| format!("no status of lane `{lane}` has been published yet"))
    }

    /// The lane's newest status, if there is one.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn find_status(&self, lane: Lane) -> anyhow::Result<Option<Bundle>> {
        let bytes = self.domain.catalog().record(&key(lane.as_str())?).await?;
        Ok(bytes.map(|bytes| Bundle::parse(&bytes)).transpose()?)
    }

    /// A version of the policy as it lies in this organisation's folder, if it is there.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn policy_file(&self, version: u64) -> std::io::Result<Option<Vec<u8>>> {
        let name = channel::layout::policy(version);
        let name = name.rsplit('/').next().unwrap_or(&name);
        match std::fs::read(self.config.policy.folder.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps the status fresh and the streams from falling silent, while this process is on duty, until
    /// told to stop.
    ///
    /// # Errors
    /// When this process can't go on; a log that does not answer is tried again.
    pub async fn keep_fresh(self: Arc<Self>, mut duty: OnDuty, mut stop: http::Stop) -> anyhow::Result<()> {
        let period = Duration::from_secs((self.config.status_s / 2).clamp(1, self.config.heartbeat_s));
        let has_regions = self.status_regions().next().is_some();
        let look = if has_regions { period.min(REGIONS_PERIOD) } else { period };
        let mut lanes_at = None;
        loop {
            let mut rest = look;
            if duty.borrow_and_update().is_here() {
                let now = self.domain.clock.monotonic();
                if lanes_at.is_none_or(|last| now.saturating_sub(last) >= period) {
                    lanes_at = Some(now);
                    if let Err(error) = self.publish_all().await {
                        tracing::error!("the status could not be published: {error:#}");
                    }
                }
                if let Err(error) = self.publish_regions().await {
                    tracing::error!("a region's status could not be published: {error:#}");
                    rest = look.min(REGIONS_AGAIN);
                }
                self.beat().await;
            }
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                Ok(()) = duty.changed() => lanes_at = None,
                _ = stop.changed() => return Ok(()),
            }
        }
    }

    /// A heartbeat in each stream that has nothing else to say.
    async fn beat(&self) {
        let canary = self.domain.policy.policy().lane(Lane::Fast).map(|_| "canary");
        let residency = self.domain.policy.policy().residency.as_ref();
        let access = residency.filter(|it| it.gateway == self.domain.organisation).map(|_| "access");
        for name in ["rebuild", "desk"].into_iter().chain(canary).chain(access) {
            self.domain.beat(name, &self.recorder, Duration::from_secs(self.config.heartbeat_s)).await;
        }
    }
}

/// Every lane's status must be there and hold.
pub struct StatusProbe(pub Arc<Supervisor>);

#[async_trait]
impl Probe for StatusProbe {
    async fn look(&self) -> Vec<Reason> {
        let domain = &self.0.domain;
        let lanes = domain.policy.policy().lanes.iter().filter(|lane| lane.status == domain.organisation);
        let mut reasons = self.0.look_at_regions().await;
        if let Err(error) = self.0.count().await {
            reasons.push(Reason::new("rebuilds", format!("{error:#}")));
        }
        for lane in lanes.map(|lane| lane.lane) {
            let part = || format!("status/{lane}");
            let status = self
                .0
                .status_bundle(lane)
                .await
                .ok()
                .and_then(|bundle| Statement::<Status>::decode(bundle.entries().first()?.envelope.payload()).ok());
            let Some(Statement { predicate: status, .. }) = status else {
                reasons.push(Reason::new(part(), "none is published yet"));
                continue;
            };
            let now = domain.clock.now();
            // One of the two is zero.
            let left = status.expires.since(now).as_secs_f64() - now.since(status.expires).as_secs_f64();
            metrics().status(lane.as_str(), now.since(status.position.time).as_secs_f64(), left);
            if left <= 0.0 {
                reasons.push(Reason::new(part(), format!("it expired at {}", status.expires)));
            }
        }
        reasons
    }
}

/// The lock that holds what is shown.
pub const SHOWN: &str = "status/shown";

fn shown_key() -> anyhow::Result<Key> {
    Ok(SHOWN.parse()?)
}

fn key(name: &str) -> anyhow::Result<RecordKey> {
    Ok(RecordKey { table: "status".parse()?, key: name.parse()? })
}
