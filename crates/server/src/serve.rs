//! Stores, engines and HTTP of a role, wired together.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use log::{Faulty, Limits, Log, LogParts};
use stdx::SystemClock;
use storage::{FileObjects, LockStore, ObjectStore, SqliteStore};
use tokio::task::JoinSet;
use verify::TrustedPolicy;
use witness::{Witness, WitnessParts};

use crate::command::check_config::load_policy;
use crate::config::{Config, LogSection, WitnessConfig};
use crate::domain::Domain;
use crate::failure::Failure;
use crate::http::{self, Stop};
use crate::metrics::{LogProbe, Probes, Steps, StoreProbe};
use crate::supervise::{StatusProbe, Supervisor};
use crate::{key_file, peer, publish};

/// Tells the parts of a process when to stop. Requests come first: they need the tasks.
#[derive(Clone, Debug)]
pub struct Stops {
    /// No further requests; those that wait for something outside are told to come back.
    pub requests: Stop,
    /// The tasks.
    pub tasks: Stop,
}

/// What a role serves, and what runs beside it.
#[derive(Default)]
pub struct Service {
    /// Everything that is served but health.
    pub router: Router,
    /// Each runs until it is told to stop; an error of one stops the process.
    pub tasks: JoinSet<anyhow::Result<()>>,
    /// Look at its parts.
    pub probes: Probes,
}

/// The routers and tasks of the role; a further part of a role is one more `merge` here.
pub(crate) async fn service(config: &Config, stop: &Stops) -> anyhow::Result<Service> {
    match config {
        Config::Witness(section) => witness(section, config).await,
        Config::Vendor(vendor) => {
            let mut service = log(&vendor.log, config, stop).await?;
            let domain = Domain::open(config).await?;
            service.tasks.spawn(publish::keep_fresh(Arc::new(config.clone()), domain, stop.tasks.clone()));
            service.router = service.router.merge(http::tree::router(config.data().channel()));
            Ok(service)
        }
        Config::Supervisor(supervisor) => {
            let mut service = log(&supervisor.log, config, stop).await?;
            let supervisor = Supervisor::open(config).await?;
            supervisor.resume().await?;
            service.probes.add(StatusProbe(Arc::clone(&supervisor)));
            service.tasks.spawn(Arc::clone(&supervisor).work(stop.tasks.clone()));
            service.tasks.spawn(Arc::clone(&supervisor).keep_fresh(stop.tasks.clone()));
            service.router = service.router.merge(http::supervisor::router(supervisor));
            Ok(service)
        }
    }
}

async fn witness(section: &WitnessConfig, config: &Config) -> anyhow::Result<Service> {
    let locks: Arc<dyn LockStore> = Arc::new(SqliteStore::open(&config.data().state()).await?);
    let mut probes = Probes::new(config.data().path().to_owned());
    probes.add(StoreProbe(Arc::clone(&locks)));
    let parts = WitnessParts {
        locks,
        clock: Arc::new(SystemClock::new()),
        signer: key_file::load(&section.key)?,
        logs: section.logs.clone(),
    };
    let witness = Witness::new(parts).with_context(|| format!("`{}` or `logs`", section.key.display()))?;
    Ok(Service { router: http::witness::router(Arc::new(witness)), tasks: JoinSet::new(), probes })
}

async fn log(section: &LogSection, config: &Config, stop: &Stops) -> anyhow::Result<Service> {
    let policy = Arc::new(policy(config)?);
    let parts = log_parts(section, config, &policy).await?;
    let objects = Arc::clone(&parts.objects);
    let mut probes = Probes::new(config.data().path().to_owned());
    probes.add(StoreProbe(Arc::clone(&parts.locks)));
    let (log, sequencer) = Log::open(parts).await.map_err(not_created)?;
    tracing::info!(log.origin = %log.origin(), "the log is open");
    probes.add(LogProbe {
        log: log.clone(),
        policy: policy.witnessing().clone(),
        clock: Arc::new(SystemClock::new()),
        refresh: Duration::from_secs(section.refresh_s),
    });
    let stopped = http::stopped(stop.tasks.clone());
    let mut tasks = JoinSet::new();
    let sequencer = sequencer.observed_by(Arc::new(Steps));
    tasks.spawn(async move { sequencer.run(stopped).await.context("the log has stopped") });
    let append_wait = Duration::from_secs(section.append_wait_s);
    let router =
        http::log::router(http::log::LogService { log, objects, policy, append_wait, stop: stop.requests.clone() });
    Ok(Service { router, tasks, probes })
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
