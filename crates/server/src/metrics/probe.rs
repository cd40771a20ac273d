//! Looking at the parts of a role: is it ready, and what are its numbers now?

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use stdx::Clock;
use storage::LockStore;
use tlog::LogPolicy;

use super::metrics;
use crate::duty::{Duty, OnDuty};

/// Why a part is not ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The part.
    pub part: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Reason {
    /// `part` is not ready because of `problem`.
    #[must_use]
    pub fn new(part: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { part: part.into(), problem: problem.into() }
    }
}

/// One part of a role.
#[async_trait]
pub trait Probe: Send + Sync {
    /// Looks at the part, sets its numbers, and says why it is not ready.
    async fn look(&self) -> Vec<Reason>;
}

/// All parts of a role.
#[derive(Clone, Default)]
pub struct Probes {
    all: Vec<Arc<dyn Probe>>,
    data: PathBuf,
}

impl Probes {
    /// No parts yet; the role's data lies in `data`.
    #[must_use]
    pub const fn new(data: PathBuf) -> Self {
        Self { all: Vec::new(), data }
    }

    /// One more.
    pub fn add(&mut self, probe: impl Probe + 'static) {
        self.all.push(Arc::new(probe));
    }

    /// Why the role is not ready; empty if it is.
    pub async fn look(&self) -> Vec<Reason> {
        let mut reasons = Vec::new();
        for probe in &self.all {
            reasons.extend(probe.look().await);
        }
        reasons
    }

    pub(super) fn data(&self) -> &Path {
        &self.data
    }
}

/// The store of locks and records must answer.
pub struct StoreProbe(pub Arc<dyn LockStore>);

/// A store on this machine answers in milliseconds, one elsewhere in tenths of a second.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

#[async_trait]
impl Probe for StoreProbe {
    async fn look(&self) -> Vec<Reason> {
        let asked = async {
            let key = "probe".parse().map_err(|error: storage::KeyError| error.to_string())?;
            self.0.get(&key).await.map(drop).map_err(|error| error.to_string())
        };
        match tokio::time::timeout(STORE_TIMEOUT, asked).await {
            Ok(Ok(())) => Vec::new(),
            Ok(Err(problem)) => vec![Reason::new("store", problem)],
            Err(_) => vec![Reason::new("store", "gives no answer")],
        }
    }
}

/// The log must have a quorum, and have had it lately.
pub struct LogProbe {
    /// Whether it is open here.
    pub duty: OnDuty,
    /// What a quorum is.
    pub policy: LogPolicy,
    /// Tells the age of the published checkpoint.
    pub clock: Arc<dyn Clock>,
    /// An idle log's checkpoint is cosigned again after this.
    pub refresh: Duration,
}

/// Beyond `refresh`, a round of witnesses may be lost, and be slow.
const ROUNDS: u32 = 2;
const SLACK: Duration = Duration::from_secs(60);

#[async_trait]
impl Probe for LogProbe {
    async fn look(&self) -> Vec<Reason> {
        let duty = self.duty.borrow().clone();
        let serving = match duty {
            Duty::Here(serving) => serving,
            // Its own process tells how it is.
            Duty::There(_) => return Vec::new(),
            Duty::Nobody => return vec![Reason::new("log", "no process sequences it just now")],
        };
        let (metrics, waiting) = (metrics(), serving.log().waiting());
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        metrics.log_pool.set(gauge(waiting.entries as u64));
        metrics.log_pool_max.set(gauge(waiting.entries_max as u64));
        let mut reasons = Vec::new();
        let not_ready = |problem: String| Reason::new("log", problem);
        if let Some(stopped) = waiting.stopped {
            reasons.push(not_ready(format!("it has stopped: {stopped}")));
        }
        if waiting.entries >= waiting.entries_max {
            reasons.push(not_ready("its pool is full".to_owned()));
        }
        let published = serving.log().published();
        let published = published.as_deref().map(|it| (it.checkpoint().size(), self.policy.verify_checkpoint(it)));
        match published {
            None => reasons.push(not_ready("no checkpoint is published yet".to_owned())),
            Some((_, Err(error))) => reasons.push(not_ready(format!("the published checkpoint: {error}"))),
            Some((size, Ok(cosigned))) => {
                let age = self.clock.now().since(cosigned.time);
                metrics.log_published.set(gauge(size.get()));
                metrics.log_age.set(age.as_secs_f64());
                if age > self.refresh * ROUNDS + SLACK {
                    reasons.push(not_ready(format!("the last quorum of witnesses was {} s ago", age.as_secs())));
                }
            }
        }
        reasons
    }
}
