//! Sharing out rebuilds among the processes of a supervisor.
//!
//! A rebuild is a job of the catalog, which one process holds for [`LEASE`] and renews while it
//! builds. One that dies, or can't say any more that it lives, loses the job, and another begins it
//! anew. The lease saves work and nothing rests on it: however many have built the same, one
//! statement is logged (`StreamWriter::write_once`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use api::RebuildState;
use bytes::Bytes;
use sandbox::Cancel;
use stdx::Digest;
use storage::{Error, JobKey, Lease, Name, Term};
use tokio::time::sleep;

use super::Supervisor;
use super::rebuild::Job;
use crate::domain::Domain;
use crate::http::Stop;
use crate::metrics::metrics;

const QUEUE: &str = "rebuild";

/// Whoever holds a job and has said nothing for so long has lost it. By the clocks of the domain's
/// machines, so these must not be further apart than what is left between two renewals; where they
/// are, a rebuild is done twice.
const LEASE: Duration = Duration::from_secs(10);
/// Four renewals may go missing.
const RENEW: Duration = Duration::from_secs(2);
/// How often a process looks for what others have queued, or left.
const LOOK: Duration = Duration::from_secs(1);

/// One process's right to go on with a rebuild.
#[derive(Clone)]
pub(super) struct Turn {
    lease: Lease,
    /// Ends the build.
    pub(super) cancel: Cancel,
    over: Arc<AtomicBool>,
}

impl Turn {
    fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.cancel.cancel();
    }

    /// Whether this process is to stop, or another has the job.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
}

impl Supervisor {
    /// Adds a rebuild to the queue. Of a ticket that is asked for again the job before may not have
    /// left the queue yet, so each has an id of its own.
    pub(super) async fn enqueue(&self, ticket: &Digest) -> anyhow::Result<()> {
        let id = format!("{ticket}.{}", self.domain.clock.now().seconds());
        let key = JobKey { queue: QUEUE.parse()?, id: id.parse()? };
        self.domain.catalog().enqueue(&key, Bytes::new()).await?;
        self.work.notify_one();
        Ok(())
    }

    /// Tells the numbers how much there is to do.
    pub(super) async fn count(&self) -> anyhow::Result<()> {
        let unfinished = self.domain.catalog().unfinished(&QUEUE.parse()?).await?;
        metrics().queue.set(i64::try_from(unfinished).unwrap_or(i64::MAX));
        Ok(())
    }

    /// Works on rebuilds until told to stop. Any number of processes may.
    ///
    /// # Errors
    /// Never: what fails is told and tried again.
    pub async fn work(self: Arc<Self>, mut stop: Stop) -> anyhow::Result<()> {
        let queue: Name = QUEUE.parse()?;
        while !*stop.borrow() {
            let worked = async {
                let Some(job) = self.domain.catalog().claim(&queue, &term(&self.domain, LEASE)?).await? else {
                    return Ok::<bool, anyhow::Error>(false);
                };
                self.take(&job.lease, &stop).await?;
                Ok(true)
            };
            match worked.await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => tracing::warn!("no rebuild can be worked on just now: {error:#}"),
            }
            tokio::select! {
                () = self.work.notified() => {}
                () = sleep(LOOK) => {}
                _ = stop.changed() => {}
            }
        }
        Ok(())
    }

    async fn take(&self, lease: &Lease, stop: &Stop) -> anyhow::Result<()> {
        let ticket = lease.job.id.as_str().split('.').next().unwrap_or_default();
        let ticket: Digest = ticket.parse().context("a job of the queue")?;
        // Running, of a job that nobody held before: it is another job's of the same ticket.
        let is_due = |state: &RebuildState| match state {
            RebuildState::Queued => true,
            RebuildState::Running { .. } => lease.claim > 1,
            _ => false,
        };
        let Some(mut job) = self.job(&ticket).await?.filter(|job| is_due(&job.state)) else {
            return Ok(self.domain.catalog().finish(lease).await?);
        };
        if lease.claim > 1 {
            tracing::info!(rebuild.ticket = %ticket, "going on with what another process has left");
        }
        job.state = RebuildState::Running { step: "resolving, fetching and building".to_owned() };
        job.record = None;
        self.save(&ticket, &job).await?;
        let turn = Turn { lease: lease.clone(), cancel: Cancel::default(), over: Arc::default() };
        let keeping = tokio::spawn(keep(self.domain.clone(), turn.clone(), stop.clone()));
        let outcome = self.rebuild(&mut job, &ticket, &turn).await;
        keeping.abort();
        match outcome {
            // Of a build nothing is kept until it is over, so it is done again.
            Err(error) if turn.is_over() => self.give_back(&ticket, job, lease, &error).await,
            outcome => self.end(&ticket, job, lease, outcome).await,
        }
    }

    /// Whether the job is still this process's: who was asleep finds here that it is not.
    pub(super) async fn holds(&self, turn: &Turn) -> anyhow::Result<()> {
        let renewed = self.domain.catalog().renew(&turn.lease, &term(&self.domain, LEASE)?).await;
        if let Err(Error::LeaseLost { .. }) = &renewed {
            turn.end();
        }
        renewed.context("the rebuild can't be gone on with")
    }

    async fn end(
        &self,
        ticket: &Digest,
        mut job: Job,
        lease: &Lease,
        outcome: anyhow::Result<RebuildState>,
    ) -> anyhow::Result<()> {
        job.state = outcome.unwrap_or_else(|error| {
            tracing::warn!(rebuild.ticket = %ticket, "rebuild failed: {error:#}");
            RebuildState::Failed { reason: format!("{error:#}") }
        });
        // What another has found since is not overwritten.
        self.domain.catalog().renew(lease, &term(&self.domain, LEASE)?).await?;
        metrics().build(match job.state {
            RebuildState::Matched { .. } => "matched",
            RebuildState::Mismatched { .. } => "mismatched",
            _ => "failed",
        });
        self.save(ticket, &job).await?;
        Ok(self.domain.catalog().finish(lease).await?)
    }

    async fn give_back(&self, ticket: &Digest, job: Job, lease: &Lease, why: &anyhow::Error) -> anyhow::Result<()> {
        metrics().build("interrupted");
        match self.domain.catalog().renew(lease, &term(&self.domain, LEASE)?).await {
            Ok(()) => {
                tracing::info!(rebuild.ticket = %ticket, "rebuild put back into the queue: {why:#}");
                self.save(ticket, &Job { state: RebuildState::Queued, record: None, ..job }).await?;
                Ok(self.domain.catalog().renew(lease, &term(&self.domain, Duration::ZERO)?).await?)
            }
            Err(Error::LeaseLost { .. }) => {
                tracing::warn!(rebuild.ticket = %ticket, "another process has taken the rebuild over: {why:#}");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn term(domain: &Domain, lasts: Duration) -> anyhow::Result<Term> {
    let now = domain.clock.now();
    Ok(Term { holder: "rebuilder".parse()?, now, until: now.after(lasts) })
}

/// Renews the lease until it is lost or the process is to stop. A store that can't be reached says
/// nothing about who has it.
async fn keep(domain: Domain, turn: Turn, stop: Stop) {
    let mut stopping = std::pin::pin!(crate::http::stopped(stop));
    loop {
        tokio::select! {
            () = sleep(RENEW) => {}
            () = &mut stopping => return turn.end(),
        }
        let renewed = match term(&domain, LEASE) {
            Ok(term) => domain.catalog().renew(&turn.lease, &term).await,
            Err(_) => return turn.end(),
        };
        match renewed {
            Ok(()) => {}
            Err(Error::LeaseLost { .. }) => return turn.end(),
            Err(error) => tracing::warn!("a rebuild's lease can't be renewed: {:#}", anyhow::Error::new(error)),
        }
    }
}
