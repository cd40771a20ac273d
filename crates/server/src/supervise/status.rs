//! The supervisor's no: revocations, stops, floors, and the short-lived status that says what holds.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use attest::{
    Bundle, Envelope, Floor, Lane, ProductId, ReleaseNumber, Revocation, Statement, Status, Stop, StopScope, Subject,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stdx::Digest;
use storage::{Key, RecordKey, Swap, Versioned};

use super::Supervisor;
use crate::failure::Failure;

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
}

impl Shown {
    fn read(held: Option<&Versioned>) -> anyhow::Result<Self> {
        Ok(held.map(|held| serde_json::from_slice(&held.bytes)).transpose()?.unwrap_or_default())
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
        self.note(negative).await?;
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

    async fn note(&self, negative: &Negative) -> anyhow::Result<()> {
        loop {
            let held = self.domain.locks().get(&shown_key()?).await?;
            let mut shown = Shown::read(held.as_ref())?;
            shown.apply(negative);
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
                let predicate = Status {
                    expires: position.time.after(Duration::from_secs(self.config.status_s)),
                    position,
                    lane,
                    policy: self.domain.policy.id(),
                    revoked: shown.revoked,
                    floors: shown.floors,
                    stops: shown.stops,
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
        let bytes = self.domain.catalog().record(&key(lane.as_str())?).await?;
        let bytes = bytes.with_context(|| format!("no status of lane `{lane}` has been published yet"))?;
        Ok(Bundle::parse(&bytes)?)
    }

    /// Keeps the status fresh and the streams from falling silent, until told to stop.
    ///
    /// # Errors
    /// When this process can't go on; a log that does not answer is tried again.
    pub async fn keep_fresh(self: Arc<Self>, mut stop: tokio::sync::watch::Receiver<bool>) -> anyhow::Result<()> {
        let period = Duration::from_secs((self.config.status_s / 2).clamp(1, self.config.heartbeat_s));
        loop {
            if let Err(error) = self.publish_all().await {
                tracing::error!("the status could not be published: {error:#}");
            }
            self.beat().await;
            tokio::select! {
                () = tokio::time::sleep(period) => {}
                _ = stop.changed() => return Ok(()),
            }
        }
    }

    /// A heartbeat in each stream that has nothing else to say.
    async fn beat(&self) {
        for name in ["rebuild", "desk"] {
            self.domain.beat(name, &self.recorder, Duration::from_secs(self.config.heartbeat_s)).await;
        }
    }
}

fn shown_key() -> anyhow::Result<Key> {
    Ok("status/shown".parse()?)
}

fn key(name: &str) -> anyhow::Result<RecordKey> {
    Ok(RecordKey { table: "status".parse()?, key: name.parse()? })
}
