//! Stores, engines and HTTP of a role, wired together.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use log::{Faulty, Limits, Log, LogParts};
use stdx::SystemClock;
use storage::{FileObjects, ObjectStore, SqliteStore};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use verify::TrustedPolicy;
use witness::{Witness, WitnessParts};

use crate::command::block_on;
use crate::command::check_config::load_policy;
use crate::config::{Config, LogSection, WitnessConfig};
use crate::domain::Domain;
use crate::failure::Failure;
use crate::http::{self, Stop};
use crate::supervise::Supervisor;
use crate::{key_file, peer, publish};

/// What a role serves, and what runs beside it.
#[derive(Default)]
pub struct Service {
    /// Everything that is served but health.
    pub router: Router,
    /// Each runs until it is told to stop; an error of one stops the process.
    pub tasks: JoinSet<anyhow::Result<()>>,
}

/// Runs the role of `config` until SIGTERM or SIGINT.
///
/// # Errors
/// Why it did not start, or stopped by itself.
pub fn run(config: &Config) -> anyhow::Result<()> {
    block_on(async {
        // The server stops first: requests that it still works on need the tasks.
        let (stop_server, server_stop) = watch::channel(false);
        let (stop_tasks, tasks_stop) = watch::channel(false);
        let mut service = service(config, &tasks_stop).await?;
        let listener = http::listener::bind(config.listen())?;
        let router = service.router.merge(http::health::router(config.role()));
        let signals = until_signal()?;
        let mut server = tokio::spawn(http::serve(router, listener, config.http(), server_stop));
        let outcome = tokio::select! {
            () = signals => Ok(()),
            outcome = &mut server => return outcome.context("the HTTP server panicked")?,
            Some(ended) = service.tasks.join_next() => ended.context("a task panicked").and_then(|ended| ended),
        };
        tracing::info!("stopping");
        stop_server.send_replace(true);
        let served = server.await.context("the HTTP server panicked").and_then(|served| served);
        stop_tasks.send_replace(true);
        let mut outcome = outcome.and(served);
        while let Some(ended) = service.tasks.join_next().await {
            outcome = outcome.and(ended.context("a task panicked").and_then(|ended| ended));
        }
        outcome
    })
}

/// The routers and tasks of the role; a further part of a role is one more `merge` here.
async fn service(config: &Config, stop: &Stop) -> anyhow::Result<Service> {
    match config {
        Config::Witness(section) => witness(section, config).await,
        Config::Vendor(vendor) => {
            let mut service = log(&vendor.log, config, stop).await?;
            let domain = Domain::open(config).await?;
            service.tasks.spawn(publish::keep_fresh(Arc::new(config.clone()), domain, stop.clone()));
            service.router = service.router.merge(http::tree::router(config.data().channel()));
            Ok(service)
        }
        Config::Supervisor(supervisor) => {
            let mut service = log(&supervisor.log, config, stop).await?;
            let supervisor = Supervisor::open(config).await?;
            supervisor.resume().await?;
            service.tasks.spawn(Arc::clone(&supervisor).work(stop.clone()));
            service.tasks.spawn(Arc::clone(&supervisor).keep_fresh(stop.clone()));
            service.router = service.router.merge(http::supervisor::router(supervisor));
            Ok(service)
        }
    }
}

async fn witness(section: &WitnessConfig, config: &Config) -> anyhow::Result<Service> {
    let locks = SqliteStore::open(&config.data().state()).await?;
    let parts = WitnessParts {
        locks: Arc::new(locks),
        clock: Arc::new(SystemClock::new()),
        signer: key_file::load(&section.key)?,
        logs: section.logs.clone(),
    };
    let witness = Witness::new(parts).with_context(|| format!("`{}` or `logs`", section.key.display()))?;
    Ok(Service { router: http::witness::router(Arc::new(witness)), tasks: JoinSet::new() })
}

async fn log(section: &LogSection, config: &Config, stop: &Stop) -> anyhow::Result<Service> {
    let policy = Arc::new(policy(config)?);
    let parts = log_parts(section, config, &policy).await?;
    let objects = Arc::clone(&parts.objects);
    let (log, sequencer) = Log::open(parts).await.map_err(not_created)?;
    tracing::info!(log.origin = %log.origin(), "the log is open");
    let stop = stop.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { sequencer.run(http::stopped(stop)).await.context("the log has stopped") });
    let append_wait = Duration::from_secs(section.append_wait_s);
    let router = http::log::router(http::log::LogService { log, objects, policy, append_wait });
    Ok(Service { router, tasks })
}

/// The policy that the configuration names, trusted.
///
/// # Errors
/// When the role has none, or it is not trusted.
pub fn policy(config: &Config) -> anyhow::Result<TrustedPolicy> {
    let section = config.policy().ok_or_else(|| Failure::usage(format!("a {} has no policy", config.role())))?;
    load_policy(section)
}

/// What the log of `config` is made of, with its stores open for writing.
///
/// # Errors
/// When a key or store is missing, or the policy knows no such log of this organisation.
pub async fn log_parts(section: &LogSection, config: &Config, policy: &TrustedPolicy) -> anyhow::Result<LogParts> {
    let signer = key_file::load(&section.key)?;
    check_owner(config, policy, signer.verifier())?;
    let data = config.data();
    let objects: Arc<dyn ObjectStore> = Arc::new(FileObjects::open(&data.log()).await?);
    Ok(LogParts {
        objects,
        locks: Arc::new(SqliteStore::open(&data.state()).await?),
        witnesses: peer::witnesses_of(policy.witnessing())?,
        clock: Arc::new(SystemClock::new()),
        signer: Arc::new(signer),
        policy: policy.witnessing().clone(),
        faulty: Faulty(policy.policy().witnessing.faulty),
        limits: Limits {
            pool_entries: section.pool_entries,
            batch_entries: section.batch_entries,
            refresh: Duration::from_secs(section.refresh_s),
            ..Limits::default()
        },
    })
}

fn check_owner(config: &Config, policy: &TrustedPolicy, key: &tlog::VerifierKey) -> anyhow::Result<()> {
    let organisation = match config {
        Config::Vendor(it) => &it.organisation,
        Config::Supervisor(it) => &it.organisation,
        Config::Witness(_) => return Err(Failure::usage("a witness keeps no log").into()),
    };
    let owned = |log: &policy::LogPolicyEntry| log.origin.is(key.name()) && log.organisation == *organisation;
    if policy.policy().logs.iter().any(owned) {
        return Ok(());
    }
    Err(Failure::refused(format!("the policy names no log `{}` of `{organisation}`", key.name()))
        .hint("compare `[log] key` and `organisation` in the configuration with the policy")
        .into())
}

fn not_created(error: log::Error) -> anyhow::Error {
    let missing = matches!(error, log::Error::Existence { .. });
    let error = anyhow::Error::new(error);
    if missing {
        let failure = Failure::refused("the log can't be opened");
        return error.context(failure.hint("`clerestory log create --config FILE` makes the log, once"));
    }
    error.context("the log can't be opened")
}

/// Is ready at the first SIGTERM or SIGINT.
fn until_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("can't listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("can't listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
