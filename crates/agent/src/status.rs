//! How this machine stands.

use std::fmt;
use std::time::Duration;

use attest::{Lane, Mismatched, ProductId, ReleaseNumber, Ring, StatementId, StopScope};
use serde::Serialize;
use stdx::UnixTime;

use crate::endpoint::Endpoint;
use crate::failure::Failure;

/// How this machine stands.
#[derive(Clone, Debug, Serialize)]
pub struct StatusReport {
    /// The policy's name.
    pub policy: String,
    /// Its version.
    pub policy_version: u64,
    /// Its statement.
    pub policy_id: StatementId,
    /// The latest evidence time seen.
    pub evidence_time: UnixTime,
    /// The lanes that products need.
    pub lanes: Vec<LaneState>,
    /// The owner's products.
    pub products: Vec<ProductState>,
    /// The logs seen.
    pub logs: Vec<LogState>,
}

/// How fresh a lane's status is.
#[derive(Clone, Debug, Serialize)]
pub struct LaneState {
    /// The lane.
    pub lane: Lane,
    /// Whether new releases are refused for want of a fresh status.
    pub stale: bool,
    /// Its evidence time.
    pub time: Option<UnixTime>,
    /// Until when it holds.
    pub expires: Option<UnixTime>,
    /// Stops in force.
    pub stops: Vec<StopScope>,
    /// Builds that the supervisor could not repeat.
    pub mismatches: Vec<Mismatched>,
}

/// What is installed of a product.
#[derive(Clone, Debug, Serialize)]
pub struct ProductState {
    /// The product.
    pub product: ProductId,
    /// Its ring here.
    pub ring: Ring,
    /// The release in use.
    pub number: Option<ReleaseNumber>,
    /// Its version.
    pub version: Option<String>,
    /// The way back.
    pub previous: Option<ReleaseNumber>,
    /// Why it is switched off.
    pub disabled: Option<String>,
    /// Health checks that failed within the window.
    pub unhealthy: usize,
}

/// What was seen of a log.
#[derive(Clone, Debug, Serialize)]
pub struct LogState {
    /// The log.
    pub origin: String,
    /// The largest tree.
    pub size: u64,
    /// Whether only a quorum vouches for some step.
    pub gap: bool,
    /// How many trees are still to be proven.
    pub unproven: u64,
}

impl Endpoint<'_> {
    /// How this machine stands.
    ///
    /// # Errors
    /// [`Failure`] of the agent's own state.
    pub fn status(&self) -> Result<StatusReport, Failure> {
        let policy = self.policy.policy();
        let mut lanes: Vec<Lane> = self.config.products.iter().flat_map(|it| self.lanes_of(it)).copied().collect();
        lanes.sort();
        lanes.dedup();
        let product = |product: &crate::config::Product| {
            let record = self.slots(product)?.record;
            Ok(ProductState {
                product: product.id.clone(),
                ring: self.config.ring_of(product),
                number: record.active.as_ref().map(|it| it.number),
                version: record.active.as_ref().map(|it| it.version.clone()),
                previous: record.previous.as_ref().map(|it| it.number),
                disabled: record.disabled,
                unhealthy: record.unhealthy.len(),
            })
        };
        let log = |log: &crate::memory::LogMemory| LogState {
            origin: log.seen.origin.to_string(),
            size: log.seen.size.get(),
            gap: log.seen.gap,
            unproven: log.unproven.len() as u64 + log.dropped,
        };
        Ok(StatusReport {
            policy: policy.name.clone(),
            policy_version: policy.version,
            policy_id: self.policy.id(),
            evidence_time: self.memory.evidence,
            lanes: lanes.into_iter().map(|lane| self.lane_state(lane)).collect(),
            products: self.config.products.iter().map(product).collect::<Result<_, Failure>>()?,
            logs: self.memory.logs.iter().map(log).collect(),
        })
    }

    fn lane_state(&self, lane: Lane) -> LaneState {
        let Some(known) = self.memory.status.get(&lane) else {
            return LaneState {
                lane,
                stale: true,
                time: None,
                expires: None,
                stops: Vec::new(),
                mismatches: Vec::new(),
            };
        };
        let owner = self.config.ages.online_s.map_or(Duration::MAX, Duration::from_secs);
        let age_max = self.policy.policy().ages.online().min(owner);
        let now = self.online().now();
        LaneState {
            lane,
            stale: now.since(known.time) > age_max
                || now > known.status.expires
                || known.status.policy != self.policy.id(),
            time: Some(known.time),
            expires: Some(known.status.expires),
            stops: known.status.stops.clone(),
            mismatches: known.status.mismatches.clone(),
        }
    }
}

impl StatusReport {
    /// 0 if all is well, 1 if evidence is stale or a product is switched off.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let off = self.products.iter().any(|product| product.disabled.is_some());
        u8::from(off || self.lanes.iter().any(|lane| lane.stale))
    }
}

impl fmt::Display for StatusReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "policy    {}, version {}, {}", self.policy, self.policy_version, self.policy_id)?;
        writeln!(f, "evidence  {}", self.evidence_time)?;
        for lane in &self.lanes {
            match (lane.stale, lane.time) {
                (false, Some(time)) => {
                    writeln!(f, "lane      {}: status of {time}, {} stop(s)", lane.lane, lane.stops.len())?
                }
                (_, Some(time)) => writeln!(
                    f,
                    "lane      {}: STALE since its status of {time}; what is installed stays, nothing new is taken",
                    lane.lane
                )?,
                (_, None) => writeln!(f, "lane      {}: no status was ever seen; nothing is taken", lane.lane)?,
            }
            for scope in &lane.stops {
                writeln!(f, "STOPPED   {scope}: nothing new is taken")?;
            }
            for Mismatched { product, version, statement } in &lane.mismatches {
                writeln!(f, "MISMATCH  {product} {version}: a rebuild did not give the same bytes ({statement})")?;
            }
        }
        for product in &self.products {
            write!(f, "product   {} (ring {}): ", product.product, product.ring)?;
            match (&product.disabled, product.number, &product.version) {
                (Some(reason), ..) => write!(f, "DISABLED: {reason}")?,
                (None, Some(number), Some(version)) => write!(f, "{version} ({number})")?,
                _ => f.write_str("not installed")?,
            }
            if let Some(previous) = product.previous {
                write!(f, ", before it {previous}")?;
            }
            writeln!(f)?;
        }
        for log in &self.logs {
            let gap =
                if log.gap { format!(", {} tree(s) only by the quorum's word", log.unproven) } else { String::new() };
            writeln!(f, "log       {}: {} entries{gap}", log.origin, log.size)?;
        }
        Ok(())
    }
}
