//! What the supervisor says of regions: what is stopped there, and which hosts may have workers.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use attest::{AccessStop, Bundle, BundleEntry, Envelope, RegionId, RegionStatus, Statement, Subject, WorkerEnrolment};
use bytes::Bytes;
use custody::StatusNumber;
use stdx::{Digest, UnixTime};
use storage::{Key, RecordKey, Swap};
use tlog::VerifierKey;

use super::Supervisor;
use crate::failure::Failure;
use crate::metrics::{Reason, metrics};

/// A status is a log entry; each stop has at most 150 bytes.
const STOPS_MAX: usize = 256;

/// A host, as a ceremony has found it.
#[derive(Clone, Debug)]
pub(crate) struct EnrolledHost {
    /// What it is called.
    pub(crate) host: attest::HostId,
    /// Its key, as it showed it.
    pub(crate) key: VerifierKey,
    /// SHA-256 of the program that it runs.
    pub(crate) code: Digest,
    /// Where it is.
    pub(crate) region: RegionId,
    /// Until when.
    pub(crate) until: UnixTime,
}

/// Whether something is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RegionWord {
    /// It is from now on.
    Stop(AccessStop),
    /// It is no more.
    Resume(AccessStop),
}

impl Supervisor {
    /// Notes it, and publishes a status that has it. From the note on every status has it.
    ///
    /// # Errors
    /// When the policy lets somebody else give this region's status, or the log or a store fails; what was
    /// noted holds, and is published by the next try.
    pub(crate) async fn say_region(&self, region: &RegionId, word: &RegionWord) -> anyhow::Result<BundleEntry> {
        self.status_regions().find(|it| **it == *region).ok_or_else(|| {
            Failure::refused(format!("`{}` gives no status of a region `{region}`", self.domain.organisation))
                .hint("compare `[residency]` in the policy")
        })?;
        let key = stopped_key(region)?;
        loop {
            let held = self.domain.locks().get(&key).await?;
            let mut stopped = read(held.as_ref())?;
            match word {
                RegionWord::Stop(stop) => stopped.insert(stop.clone()),
                RegionWord::Resume(stop) => stopped.remove(stop),
            };
            if stopped.len() > STOPS_MAX {
                return Err(Failure::refused(format!("{STOPS_MAX} stops are in force already"))
                    .hint("stop the class, or the region")
                    .into());
            }
            let bytes = Bytes::from(serde_json::to_vec(&stopped)?);
            let expected = held.as_ref().map(|held| &held.version);
            if let Swap::Won(_) = self.domain.locks().compare_and_swap(&key, expected, bytes).await? {
                return self.publish_region(region).await;
            }
        }
    }

    /// What is stopped in a region.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn stopped(&self, region: &RegionId) -> anyhow::Result<BTreeSet<AccessStop>> {
        read(self.domain.locks().get(&stopped_key(region)?).await?.as_ref())
    }

    /// Publishes a fresh status of every region whose status this organisation gives.
    ///
    /// # Errors
    /// When the log or the store fails.
    pub(super) async fn publish_regions(&self) -> anyhow::Result<()> {
        for region in self.status_regions() {
            self.publish_region(region).await?;
        }
        Ok(())
    }

    async fn publish_region(&self, region: &RegionId) -> anyhow::Result<BundleEntry> {
        let stream = self.domain.stream(&format!("region/{region}"))?;
        let runtime = tokio::runtime::Handle::current();
        let make = |position: attest::Position| {
            // Read when the place is given, not before: a status never goes behind its predecessor.
            let stopped = tokio::task::block_in_place(|| runtime.block_on(self.stopped(region)))?;
            let predicate = RegionStatus {
                expires: position.time.after(Duration::from_secs(self.config.status_s).min(custody::STATUS_AGE_MAX)),
                position,
                policy: self.domain.policy.id(),
                region: region.clone(),
                stopped: stopped.into_iter().collect(),
            };
            let subject = vec![Subject::new(region.as_str(), Digest::of(region.as_str().as_bytes()))];
            Ok(Envelope::sign(Statement { subject, predicate }.encode()?, &[&self.status])?)
        };
        let entry = stream.write(make).await?;
        self.show(region, &entry).await?;
        Ok(entry)
    }

    /// Shows it to whoever asks, unless there is a newer one: of two processes the one that wrote first may come
    /// last.
    async fn show(&self, region: &RegionId, entry: &BundleEntry) -> anyhow::Result<()> {
        let number = number_of(entry)?;
        let (key, bytes) = (status_key(region)?, Bytes::from(Bundle::new(vec![entry.clone()])?.to_bytes()));
        loop {
            let held = self.domain.locks().get(&key).await?;
            let shown = held.as_ref().map(|held| Bundle::parse(&held.bytes)).transpose()?;
            if let Some(shown) = shown.as_ref().and_then(|it| it.entries().first())
                && number_of(shown)? >= number
            {
                return Ok(());
            }
            let expected = held.as_ref().map(|held| &held.version);
            if let Swap::Won(_) = self.domain.locks().compare_and_swap(&key, expected, bytes.clone()).await? {
                return Ok(());
            }
        }
    }

    /// The region's newest status, if there is one.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn region_status(&self, region: &RegionId) -> anyhow::Result<Option<Bundle>> {
        let held = self.domain.locks().get(&status_key(region)?).await?;
        Ok(held.map(|held| Bundle::parse(&held.bytes)).transpose()?)
    }

    /// Signs and logs that a host may have workers.
    ///
    /// # Errors
    /// When this is not the gateway's organisation, the policy has no such region, or the log fails.
    pub(crate) async fn enrol_worker(&self, host: &EnrolledHost) -> anyhow::Result<BundleEntry> {
        let residency = self.domain.policy.policy().residency.as_ref();
        let residency = residency.filter(|it| it.gateway == self.domain.organisation).ok_or_else(|| {
            Failure::refused(format!("`{}` is no gateway by the policy in force", self.domain.organisation))
                .hint("compare `[residency]` in the policy")
        })?;
        if residency.region(&host.region).is_none() {
            return Err(Failure::refused(format!("the policy has no region `{}`", host.region)).into());
        }
        let stream = self.domain.stream(&format!("access/{}", self.domain.organisation))?;
        let entry = stream
            .write(|position| {
                let EnrolledHost { host, key, code, region, until } = host.clone();
                let predicate = WorkerEnrolment { position, host, key, region, until };
                let subject = vec![Subject::new("clerestory-query", code)];
                Ok(Envelope::sign(Statement { subject, predicate }.encode()?, &[&self.recorder])?)
            })
            .await?;
        let (id, bundle) = (entry.envelope.id(), Bundle::new(vec![entry.clone()])?);
        self.domain.catalog().put(&record(WORKERS, &id.to_string())?, bundle.to_bytes().into()).await?;
        Ok(entry)
    }

    pub(super) fn status_regions(&self) -> impl Iterator<Item = &RegionId> {
        let residency = self.domain.policy.policy().residency.iter();
        let ours = residency.filter(|it| it.status == self.domain.organisation);
        ours.flat_map(|it| &it.regions).map(|region| &region.id)
    }

    /// Every region's status must be there and hold.
    pub(super) async fn look_at_regions(&self) -> Vec<Reason> {
        let mut reasons = Vec::new();
        for region in self.status_regions() {
            let bundle = self.region_status(region).await;
            let status = bundle
                .ok()
                .flatten()
                .and_then(|it| Statement::<RegionStatus>::decode(it.entries().first()?.envelope.payload()).ok());
            let part = format!("region/{region}");
            let Some(Statement { predicate: status, .. }) = status else {
                reasons.push(Reason::new(part, "no status is published yet"));
                continue;
            };
            let now = self.domain.clock.now();
            let left = status.expires.since(now).as_secs_f64() - now.since(status.expires).as_secs_f64();
            metrics().status(&part, now.since(status.position.time).as_secs_f64(), left);
            if left <= 0.0 {
                reasons.push(Reason::new(part, format!("its status expired at {}", status.expires)));
            }
        }
        reasons
    }
}

/// The catalog's table of enrolments: each a bundle, by the statement's identity.
pub(crate) const WORKERS: &str = "worker-enrolment";

fn read(held: Option<&storage::Versioned>) -> anyhow::Result<BTreeSet<AccessStop>> {
    Ok(held.map(|held| serde_json::from_slice(&held.bytes)).transpose()?.unwrap_or_default())
}

fn number_of(entry: &BundleEntry) -> anyhow::Result<StatusNumber> {
    Ok(StatusNumber::of(&Statement::decode(entry.envelope.payload())?.predicate))
}

fn status_key(region: &RegionId) -> anyhow::Result<Key> {
    format!("region/{region}/status").parse().with_context(|| format!("region `{region}`"))
}

fn stopped_key(region: &RegionId) -> anyhow::Result<Key> {
    format!("region/{region}/stopped").parse().with_context(|| format!("region `{region}`"))
}

pub(crate) fn record(table: &str, key: &str) -> anyhow::Result<RecordKey> {
    Ok(RecordKey { table: table.parse()?, key: key.parse()? })
}
