//! Stores, engines and HTTP of a role, wired together.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use api::BaseUrl;
use attest::Lane;
use axum::{Router, middleware};
use log::{Faulty, Limits, Log, LogParts};
use stdx::{SystemClock, SystemEntropy};
use storage::{LockStore, ObjectStore};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use verify::TrustedPolicy;
use witness::{Witness, WitnessParts};

use crate::command::check_config::{load_policy, no_genesis};
use crate::compaction::keep_compacting;
use crate::config::{Config, GatewayConfig, LogSection, SharedSection, SupervisorConfig, VendorConfig, WitnessConfig};
use crate::custodian::{CustodyProbe, Desk};
use crate::data::{AccessProbe, Gateway};
use crate::domain::Domain;
use crate::duty::{Duty, OnDuty, Turns};
use crate::failure::Failure;
use crate::http::forward::{Forward, forward};
use crate::http::gateway::Gateway as LookupGateway;
use crate::http::ledger::Holder;
use crate::http::news::News;
use crate::http::vault::{Vault, VaultParts};
use crate::http::{self, Stop};
use crate::lease::Lease;
use crate::metrics::{LogProbe, Probes, Steps, StoreProbe};
use crate::stores::{self, Access, State};
use crate::supervise::{ErasureProbe, StatusProbe, Supervisor};
use crate::{cloud, follow, key_file, peer, policy_folder, publish};

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
    /// Where it listens, if it had to know that already.
    pub listener: Option<TcpListener>,
    /// To be closed when nothing works any more.
    pub states: Vec<State>,
}

/// The routers and tasks of the role; a further part of a role is one more `merge` here.
pub(crate) async fn service(config: &Config, stop: &Stops) -> anyhow::Result<Service> {
    match config {
        Config::Witness(section) => witness(section, config).await,
        Config::Relay(section) => Ok(Service { router: http::relay::router(section)?, ..Service::default() }),
        Config::Gateway(section) => gateway(section, stop).await,
        Config::Custodian(_) => custodian(config, stop).await,
        Config::Vendor(section) => vendor(section, config, stop).await,
        Config::Supervisor(section) => supervisor(section, config, stop).await,
    }
}

async fn gateway(section: &GatewayConfig, stop: &Stops) -> anyhow::Result<Service> {
    let section = section.clone();
    let gateway = tokio::task::spawn_blocking(move || LookupGateway::open(&section)).await??;
    let (bits, bytes) = (gateway.known().bits().get(), gateway.known().answer_bytes());
    tracing::info!(lookup.prefix_bits = bits, lookup.answer_bytes = bytes, "the buckets are filled");
    let (gateway, mut tasks) = (Arc::new(gateway), JoinSet::new());
    tasks.spawn(Arc::clone(&gateway).follow(stop.tasks.clone()));
    Ok(Service { router: http::gateway::router(gateway), tasks, ..Service::default() })
}

async fn vendor(vendor: &VendorConfig, config: &Config, stop: &Stops) -> anyhow::Result<Service> {
    let Sequenced { mut service, duty, .. } = log(&vendor.log, config, stop).await?;
    let state = State::open(config).await?;
    let domain = Domain::over(config, &state).await?;
    service.states.push(state);
    let channel = Arc::new(domain.channel()?);
    let copied = Arc::clone(&channel);
    // A machine that is new has all of it before it serves any.
    tokio::task::spawn_blocking(move || copied.pull()).await?.context("the channel can't be copied")?;
    keep_vault(&mut service, vendor, config, stop).await?;
    let timeout = Duration::from_secs(config.http().timeout_s);
    let (news, following) = News::follow(Arc::clone(&channel), timeout, stop).await?;
    service.tasks.spawn(following);
    let config = Arc::new(config.clone());
    if let Some(section) = vendor.compaction.clone() {
        let tasks = stop.tasks.clone();
        service.tasks.spawn(keep_compacting(Arc::clone(&config), section, duty.clone(), tasks));
    }
    if has_fast_lane(&domain) && vendor.keys.rules.is_some() && vendor.supervisor.is_some() {
        let (own, tasks) = (Arc::clone(&config), stop.tasks.clone());
        service.tasks.spawn(follow::follow(own, domain.clone(), duty.clone(), tasks));
    }
    if let Some(cloud) = &vendor.cloud {
        let (own, cloud, tasks) = (Arc::clone(&config), cloud.clone(), stop.tasks.clone());
        service.tasks.spawn(cloud::run(own, domain.clone(), cloud, duty.clone(), tasks));
    }
    service.tasks.spawn(publish::keep_fresh(config, domain, duty, stop.tasks.clone()));
    service.router = service.router.merge(http::tree::router(channel)).merge(http::news::router(news));
    Ok(service)
}

async fn supervisor(supervisor: &SupervisorConfig, config: &Config, stop: &Stops) -> anyhow::Result<Service> {
    let Sequenced { mut service, duty, forwarding } = log(&supervisor.log, config, stop).await?;
    let state = State::open(config).await?;
    let access = supervisor.access.clone();
    let supervisor = Supervisor::of(config, Domain::over(config, &state).await?)?;
    service.states.push(state);
    let mut desk = http::supervisor::router(Arc::clone(&supervisor));
    if let Some(access) = &access {
        let gateway = Gateway::of(config, access, supervisor.domain().clone()).await;
        let gateway = gateway.context("the gateway of data can't be opened")?;
        service.probes.add(AccessProbe(Arc::clone(&gateway)));
        service.tasks.spawn(Arc::clone(&gateway).settle(duty.clone(), stop.tasks.clone()));
        service.probes.add(ErasureProbe(Arc::clone(&supervisor)));
        service.tasks.spawn(Arc::clone(&supervisor).keep_erasing(duty.clone(), stop.tasks.clone()));
        let private = gateway.private().clone();
        let holder = Holder::new(private, Arc::clone(&supervisor.domain().policy));
        desk = desk.merge(http::data::router(gateway)).merge(http::ledger::router(holder));
    }
    service.probes.add(StatusProbe(Arc::clone(&supervisor)));
    service.tasks.spawn(Arc::clone(&supervisor).work(stop.tasks.clone()));
    if has_fast_lane(supervisor.domain()) {
        service.tasks.spawn(Arc::clone(&supervisor).bake(duty.clone(), stop.tasks.clone()));
    }
    service.tasks.spawn(Arc::clone(&supervisor).keep_fresh(duty.clone(), stop.tasks.clone()));
    service.router = service.router.merge(match forwarding {
        None => desk,
        Some(forwarding) => desk.layer(middleware::from_fn_with_state(forwarding, forward)),
    });
    Ok(service)
}

/// The vault and its intake, if there is one, and the policy says what belongs there.
async fn keep_vault(service: &mut Service, vendor: &VendorConfig, config: &Config, stop: &Stops) -> anyhow::Result<()> {
    let Some(folder) = &vendor.intake else { return Ok(()) };
    let versions = policies(config)?;
    let Some(parts) = VaultParts::of(vendor, &versions)? else {
        tracing::warn!("the policy does not say where data lies: nothing is taken in");
        return Ok(());
    };
    let objects = stores::intake_objects(config, folder, Access::Write).await;
    let objects = objects.with_context(|| format!("the intake `{}` can't be opened", folder.display()))?;
    let (vault, keeping) = Vault::open(objects, parts).await;
    service.probes.add(vault.probe());
    service.router = std::mem::take(&mut service.router).merge(http::vault::router(vault));
    let stop = stop.tasks.clone();
    service.tasks.spawn(async move {
        keeping.run(stop).await;
        Ok(())
    });
    Ok(())
}

fn has_fast_lane(domain: &Domain) -> bool {
    domain.policy.policy().lane(Lane::Fast).is_some()
}

async fn custodian(config: &Config, stop: &Stops) -> anyhow::Result<Service> {
    let state = State::open(config).await?;
    let desk = Desk::over(config, &state, Access::Write).await?;
    let mut probes = Probes::new(config.data().path().to_owned());
    probes.add(StoreProbe(state.locks()));
    probes.add(CustodyProbe(Arc::clone(&desk)));
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(&desk).keep_reporting(stop.tasks.clone()));
    tasks.spawn(Arc::clone(&desk).keep_retiring(stop.tasks.clone()));
    let holder = Holder::new(desk.private().clone(), Arc::new(policy(config)?));
    let router = http::custody::router(desk).merge(http::ledger::router(holder));
    Ok(Service { router, tasks, probes, listener: None, states: vec![state] })
}

async fn witness(section: &WitnessConfig, config: &Config) -> anyhow::Result<Service> {
    let state = State::open(config).await?;
    let locks = state.locks();
    let mut probes = Probes::new(config.data().path().to_owned());
    probes.add(StoreProbe(Arc::clone(&locks)));
    let witness = Witness::new(witness_parts(section, locks)?)
        .with_context(|| format!("`{}` or `logs`", section.key.display()))?;
    let router = http::witness::router(Arc::new(witness));
    Ok(Service { router, tasks: JoinSet::new(), probes, listener: None, states: vec![state] })
}

/// What the witness of a configuration is made of.
///
/// # Errors
/// When its key can't be read.
pub(crate) fn witness_parts(section: &WitnessConfig, locks: Arc<dyn LockStore>) -> anyhow::Result<WitnessParts> {
    let (clock, logs) = (Arc::new(SystemClock::new()), section.logs.clone());
    Ok(WitnessParts { locks, clock, signer: key_file::load(&section.key)?, logs })
}

/// A log, and who sequences it.
struct Sequenced {
    service: Service,
    duty: OnDuty,
    /// For a domain of several processes.
    forwarding: Option<Forward>,
}

/// The log, which this process sequences alone, or in turns with others.
async fn log(section: &LogSection, config: &Config, stop: &Stops) -> anyhow::Result<Sequenced> {
    let policy = Arc::new(policy(config)?);
    let state = State::open(config).await?;
    let stores = LogStores { objects: stores::log_objects(config, Access::Write).await?, locks: state.locks() };
    let parts = log_parts_of(section, config, &policy, stores)?;
    let objects = Arc::clone(&parts.objects);
    let mut probes = Probes::new(config.data().path().to_owned());
    probes.add(StoreProbe(Arc::clone(&parts.locks)));
    let (duty, on_duty) = watch::channel(Duty::Nobody);
    let front =
        http::log::Front { duty: on_duty.clone(), objects: Arc::clone(&objects), key: parts.signer.verifier().clone() };
    let mut router = http::log::router(front);
    probes.add(LogProbe {
        duty: on_duty.clone(),
        policy: policy.witnessing().clone(),
        clock: Arc::new(SystemClock::new()),
        refresh: Duration::from_secs(section.refresh_s),
    });
    let stopping = stop.requests.clone();
    let append_wait = Duration::from_secs(section.append_wait_s);
    let serving = move |log| {
        let (objects, policy) = (Arc::clone(&objects), Arc::clone(&policy));
        http::log::Serving::new(http::log::LogService { log, objects, policy, append_wait, stop: stopping.clone() })
    };
    let mut tasks = JoinSet::new();
    let (mut forwarding, mut listener) = (None, None);
    if let Some(shared) = config.shared() {
        let bound = http::listener::bind(config.listen())?;
        let address = reached_at(shared, &bound)?;
        listener = Some(bound);
        let lease = Lease::new(Arc::clone(&parts.locks), Arc::clone(&parts.clock), &SystemEntropy, address)?;
        let forwards = Forward::new(on_duty.clone(), lease.hold())?;
        router = router.layer(middleware::from_fn_with_state(forwards.clone(), forward));
        forwarding = Some(forwards);
        tasks.spawn(Turns { lease, parts, serving: Box::new(serving), duty }.take(stop.tasks.clone()));
    } else {
        let (log, sequencer) = Log::open(parts).await.map_err(not_created)?;
        tracing::info!(log.origin = %log.origin(), "the log is open");
        duty.send_replace(Duty::Here(serving(log)));
        let sequencer = sequencer.observed_by(Arc::new(Steps));
        let stopped = http::stopped(stop.tasks.clone());
        tasks.spawn(async move {
            let outcome = sequencer.run(stopped).await.context("the log has stopped");
            // Until here everybody saw that this process is on duty.
            drop(duty);
            outcome
        });
    }
    let service = Service { router, tasks, probes, listener, states: vec![state] };
    Ok(Sequenced { service, duty: on_duty, forwarding })
}

/// Where the domain's other processes reach this one.
fn reached_at(shared: &SharedSection, listener: &TcpListener) -> anyhow::Result<BaseUrl> {
    if let Some(address) = &shared.address {
        return Ok(address.clone());
    }
    let address = listener.local_addr().context("the listening socket has no address")?;
    if address.ip().is_unspecified() {
        return Err(Failure::usage(format!("other machines can't reach this process at {address}"))
            .hint("write `address = \"http://HOST:PORT\"` into `[shared]`")
            .into());
    }
    Ok(format!("http://{address}").parse()?)
}

/// The policy that the configuration names, trusted.
///
/// # Errors
/// When the role has none, or it is not trusted.
pub fn policy(config: &Config) -> anyhow::Result<TrustedPolicy> {
    let section = config.policy().ok_or_else(|| Failure::usage(format!("a {} has no policy", config.role())))?;
    load_policy(section)
}

/// Every version of that policy, the last of which is in force.
///
/// # Errors
/// As [`policy`].
pub(crate) fn policies(config: &Config) -> anyhow::Result<Vec<TrustedPolicy>> {
    let section = config.policy().ok_or_else(|| Failure::usage(format!("a {} has no policy", config.role())))?;
    let genesis = section.genesis.ok_or_else(no_genesis)?;
    Ok(policy_folder::versions(&section.folder, &genesis)?)
}

/// What the log of `config` is made of, with its stores open for writing.
///
/// # Errors
/// When a key or store is missing, or the policy knows no such log of this organisation.
pub async fn log_parts(section: &LogSection, config: &Config, policy: &TrustedPolicy) -> anyhow::Result<LogParts> {
    let objects = stores::log_objects(config, Access::Write).await?;
    log_parts_of(section, config, policy, LogStores { objects, locks: State::open(config).await?.locks() })
}

/// The stores of a log.
pub(crate) struct LogStores {
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) locks: Arc<dyn LockStore>,
}

/// The same with these stores.
pub(crate) fn log_parts_of(
    section: &LogSection,
    config: &Config,
    policy: &TrustedPolicy,
    stores: LogStores,
) -> anyhow::Result<LogParts> {
    let signer = key_file::load(&section.key)?;
    check_owner(config, policy, signer.verifier())?;
    Ok(LogParts {
        objects: stores.objects,
        locks: stores.locks,
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
    let keeper = config.keeper().ok_or_else(|| Failure::usage("a witness keeps no log"))?;
    let organisation = keeper.organisation;
    let owned = |log: &policy::LogPolicyEntry| log.origin.is(key.name()) && log.organisation == *organisation;
    if policy.policy().logs.iter().any(owned) {
        return Ok(());
    }
    Err(Failure::refused(format!("the policy names no log `{}` of `{organisation}`", key.name()))
        .hint("compare `[log] key` and `organisation` in the configuration with the policy")
        .into())
}

pub(crate) fn not_created(error: log::Error) -> anyhow::Error {
    let missing = matches!(error, log::Error::Existence { .. });
    let error = anyhow::Error::new(error);
    if missing {
        let failure = Failure::refused("the log can't be opened");
        return error.context(failure.hint("`clerestory log create --config FILE` makes the log, once"));
    }
    error.context("the log can't be opened")
}
