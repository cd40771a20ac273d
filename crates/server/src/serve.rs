//! Stores, engines and HTTP of a role, wired together.

use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use stdx::SystemClock;
use storage::SqliteStore;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use witness::{Witness, WitnessParts};

use crate::command::block_on;
use crate::config::{Config, WitnessConfig};
use crate::http;
use crate::key_file;

/// What a role serves, and what runs beside it.
#[derive(Default)]
pub struct Role {
    /// Everything that is served but health.
    pub router: Router,
    /// Runs until it is told to stop; an error stops the process.
    pub tasks: JoinSet<anyhow::Result<()>>,
}

/// Runs the role of `config` until SIGTERM or SIGINT.
///
/// # Errors
/// Why it did not start, or stopped by itself.
pub fn run(config: &Config) -> anyhow::Result<()> {
    block_on(async {
        let (sender, stop) = watch::channel(false);
        let role = match config {
            Config::Witness(witness) => self::witness(witness, config).await?,
            Config::Vendor(_) | Config::Supervisor(_) => anyhow::bail!("not yet"),
        };
        let listener = http::listener::bind(config.listen())?;
        let router = role.router.merge(http::health::router(config.role()));
        tokio::spawn(until_signal(sender));
        http::serve(router, listener, config.http(), stop).await
    })
}

async fn witness(section: &WitnessConfig, config: &Config) -> anyhow::Result<Role> {
    let locks = SqliteStore::open(&config.data().state()).await?;
    let parts = WitnessParts {
        locks: Arc::new(locks),
        clock: Arc::new(SystemClock::new()),
        signer: key_file::load(&section.key)?,
        logs: section.logs.clone(),
    };
    let witness = Witness::new(parts)?;
    Ok(Role { router: http::witness::router(Arc::new(witness)), tasks: JoinSet::new() })
}

/// Tells everybody to stop at the first SIGTERM or SIGINT.
async fn until_signal(stop: watch::Sender<bool>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("can't listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("can't listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    stop.send_replace(true);
    Ok(())
}
