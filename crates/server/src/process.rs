//! The life of a process: it starts, says that it is ready, and ends in a bounded time.
//!
//! On SIGTERM or SIGINT no more connections are taken; requests have `grace_s` to end, and those
//! that wait for witnesses are told to come back; then the tasks have as long again: the log
//! finishes its step, a build that runs is ended and goes back to the queue. A second signal, or
//! the end of that time, ends the process at once, which is never worse than a power cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::{Config, HttpSection, Listen};
use crate::http::{self, Stop};
use crate::metrics::Probes;
use crate::serve::{Service, Stops, service};

/// The listener for numbers serves one scraper, or two.
const NUMBERS: HttpSection = HttpSection { requests_max: 8, waiting_max: 0, timeout_s: 10, grace_s: 1 };

/// A connection that is in use is closed after its statement: a commit, to a slow disk.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// Runs the role of `config` until SIGTERM or SIGINT.
///
/// # Errors
/// Why it did not start, or stopped by itself.
pub fn run(config: &Config) -> anyhow::Result<()> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.enable_all().build().context("can't start the runtime")?;
    let outcome = runtime.block_on(work(config));
    // What still runs then was given its time; stores survive an end at any moment.
    runtime.shutdown_background();
    outcome
}

async fn work(config: &Config) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let (stop_requests, requests) = watch::channel(false);
    let (stop_tasks, tasks) = watch::channel(false);
    let stops = Stops { requests, tasks };
    let Service { router, tasks: mut working, probes, listener, states } = service(config, &stops).await?;
    let listener = listener.map_or_else(|| http::listener::bind(config.listen()), Ok)?;
    let probes = Arc::new(probes);
    if let Some(address) = config.metrics() {
        working.spawn(numbers(address, Arc::clone(&probes), stops.tasks.clone())?);
    }
    let router = router.merge(http::health::router(config.role(), probes));
    let mut server = tokio::spawn(http::serve(router, listener, config.http(), stops.requests.clone()));
    tell(&[NotifyState::Ready]);
    let watchdog = tokio::spawn(keep_alive());

    let outcome = tokio::select! {
        () = signals.next() => Ok(()),
        outcome = &mut server => return outcome.context("the HTTP server panicked")?,
        Some(ended) = working.join_next() => ended.context("a task panicked").and_then(|ended| ended),
    };
    tracing::info!("stopping");
    tell(&[NotifyState::Stopping]);
    stop_requests.send_replace(true);
    let drained = async {
        let served = server.await.context("the HTTP server panicked").and_then(|served| served);
        stop_tasks.send_replace(true);
        let ended = tokio::time::timeout(Duration::from_secs(config.http().grace_s), ended(&mut working)).await;
        for state in states {
            // A database that is closed is one file again.
            if tokio::time::timeout(CLOSE_MAX, state.close()).await.is_err() {
                tracing::warn!(store = state.name(), "could not be closed in time; the next start finds all of it");
            }
        }
        outcome.and(served).and(ended.unwrap_or_else(|_| {
            tracing::warn!("tasks were still working when the time to stop was over");
            Ok(())
        }))
    };
    let outcome = tokio::select! {
        outcome = drained => outcome,
        () = signals.next() => {
            tracing::warn!("told again to stop: what is open is dropped");
            Ok(())
        }
    };
    watchdog.abort();
    outcome
}

async fn ended(working: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut outcome = Ok(());
    while let Some(ended) = working.join_next().await {
        outcome = outcome.and(ended.context("a task panicked").and_then(|ended| ended));
    }
    outcome
}

/// Serves the numbers on an address of their own.
fn numbers(
    address: SocketAddr,
    probes: Arc<Probes>,
    stop: Stop,
) -> anyhow::Result<impl Future<Output = anyhow::Result<()>> + use<>> {
    let listener = http::listener::bind(Listen::Address(address))?;
    Ok(http::serve(http::health::numbers(probes), listener, NUMBERS, stop))
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("can't listen for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("can't listen for SIGINT")?;
        Ok(Self { terminate, interrupt })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Tells the service manager, if one asked to be told (`NOTIFY_SOCKET`, `Type=notify`).
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

/// Tells the service manager that this runtime still takes turns, if it wants to know
/// (`WatchdogSec=`).
async fn keep_alive() {
    let mut period_us = 0;
    if !sd_notify::watchdog_enabled(false, &mut period_us) {
        return;
    }
    // Half of it, as systemd advises.
    let mut ticks = tokio::time::interval(Duration::from_micros((period_us / 2).max(1000)));
    loop {
        ticks.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}
