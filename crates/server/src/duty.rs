//! Which process of a domain works for it just now, and the turns that they take.

use std::future::Future;
use std::sync::Arc;

use anyhow::Context as _;
use api::BaseUrl;
use log::{Class, Error, Log, LogParts, Sequencer};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::http::log::Serving;
use crate::http::{Stop, stopped};
use crate::lease::{BEAT, Lease, Standing};
use crate::metrics::Steps;

/// Who does what only one should do: sequence the log, publish, write heartbeats.
#[derive(Clone, Default)]
pub enum Duty {
    /// This process, with the log open.
    Here(Arc<Serving>),
    /// Another, which is reached there.
    There(BaseUrl),
    /// Nobody, as far as is known.
    #[default]
    Nobody,
}

impl Duty {
    /// Whether it is this process.
    #[must_use]
    pub const fn is_here(&self) -> bool {
        matches!(self, Self::Here(_))
    }
}

/// Tells of each change.
pub type OnDuty = watch::Receiver<Duty>;

/// What a process needs to take its turn.
pub struct Turns {
    /// Says whose turn it is.
    pub lease: Lease,
    /// The log's.
    pub parts: LogParts,
    /// Serves the log once it is open.
    pub serving: Box<dyn Fn(Log) -> Arc<Serving> + Send + Sync>,
    /// Where the present state is told.
    pub duty: watch::Sender<Duty>,
}

/// How a turn ended.
enum End {
    /// The process is to stop.
    Stopped,
    /// Another has taken over, or a store failed; there will be another turn.
    Over(anyhow::Error),
}

impl Turns {
    /// Waits for its turn, sequences the log until it is over, and waits again.
    ///
    /// # Errors
    /// When the log can't be trusted; no other process could go on either.
    pub async fn take(mut self, stop: Stop) -> anyhow::Result<()> {
        let mut stopping = std::pin::pin!(stopped(stop.clone()));
        loop {
            match self.lease.beat().await {
                Ok(Standing::Held) => match self.turn(&stop).await {
                    Ok(End::Stopped) => {
                        self.release().await;
                        return Ok(());
                    }
                    Ok(End::Over(why)) => tracing::warn!("this process sequences no more: {why:#}"),
                    Err(error) => {
                        self.release().await;
                        return Err(error);
                    }
                },
                Ok(Standing::Others(address)) => self.tell(Duty::There(address)),
                Ok(Standing::Free) => self.tell(Duty::Nobody),
                Err(error) => tracing::warn!("the lease can't be read: {error:#}"),
            }
            tokio::select! {
                () = sleep(BEAT) => {}
                () = &mut stopping => return Ok(()),
            }
        }
    }

    async fn turn(&mut self, stop: &Stop) -> anyhow::Result<End> {
        tracing::info!("this process sequences now");
        let working = Box::pin(work(self.parts.clone(), &self.serving, &self.duty, stopped(stop.clone())));
        let outcome = beating(&mut self.lease, working).await;
        self.tell(Duty::Nobody);
        let error = match outcome {
            Ok(Ok(())) => return Ok(End::Stopped),
            Ok(Err(error)) => error,
            Err(lost) => return Ok(End::Over(lost)),
        };
        if passes(&error) {
            return Ok(End::Over(error.into()));
        }
        Err(crate::serve::not_created(error)).context("the log has stopped")
    }

    async fn release(&mut self) {
        if let Err(error) = self.lease.release().await {
            tracing::warn!("the lease can't be given up, so the others wait for its end: {error:#}");
        }
    }

    fn tell(&self, duty: Duty) {
        self.duty.send_if_modified(|old| {
            let changed = match (&*old, &duty) {
                (Duty::There(old), Duty::There(new)) => old != new,
                (Duty::Nobody, Duty::Nobody) => false,
                _ => true,
            };
            if changed {
                *old = duty;
            }
            changed
        });
    }
}

/// Opens the log and sequences it.
async fn work(
    parts: LogParts,
    serving: &(dyn Fn(Log) -> Arc<Serving> + Send + Sync),
    duty: &watch::Sender<Duty>,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    let (log, sequencer): (Log, Sequencer) = Log::open(parts).await?;
    duty.send_replace(Duty::Here(serving(log)));
    sequencer.observed_by(Arc::new(Steps)).run(stop).await
}

/// Keeps the lease while `working`; the outer error says that it was lost, and then the work was
/// dropped where it stood. A store that can't be reached for a while costs no turn: whether another
/// has taken over, only the store can tell.
async fn beating<T>(lease: &mut Lease, mut working: impl Future<Output = T> + Unpin) -> anyhow::Result<T> {
    loop {
        tokio::select! {
            done = &mut working => return Ok(done),
            () = sleep(BEAT) => match lease.beat().await {
                Ok(Standing::Held) => {}
                Ok(Standing::Others(address)) => anyhow::bail!("the process at {address} has taken over"),
                Ok(Standing::Free) => anyhow::bail!("another process is taking over"),
                Err(error) => tracing::warn!("the lease can't be renewed: {error:#}"),
            },
        }
    }
}

/// Whether opening the log again may help: another process has the lock, or whether a swap has
/// happened is not known, or a store is away.
fn passes(error: &Error) -> bool {
    match error {
        Error::Stopped(reason) => passes(reason),
        Error::LockLost | Error::Unknown { .. } => true,
        _ => error.class() == Class::Unavailable,
    }
}

/// Whether an append that met `error` finds another sequencer soon.
#[must_use]
pub fn goes_on_elsewhere(error: &Error) -> bool {
    match error {
        Error::Stopped(reason) => goes_on_elsewhere(reason),
        Error::LockLost | Error::Unknown { .. } | Error::Closed => true,
        _ => false,
    }
}
