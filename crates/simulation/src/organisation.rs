//! The processes of the vendor and the supervisor: real logs, writers and desks, on simulated
//! machines.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use api::{Appended, path};
use log::{Faulty, Limits, Log, LogParts, Sequencer};
use server::duty::Duty;
use server::http::log::{Front, LogService, Serving, router};
use server::publish;
use server::supervise::Supervisor;
use storage::{LockStore, ObjectStore};
use tlog::leaf_hash;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::coroutine::{on_a_stack, wait_for};
use crate::host::Stores;
use crate::http::ask;
use crate::network::{Node, Parcel, Reply, Service};
use crate::witnesses::remotes;
use crate::world::World;

/// A service manager starts what has ended again after this.
const RESTART: Duration = Duration::from_secs(30);

/// Rounds for fresh cosignatures are what a simulated day costs most; evidence holds for a day.
const REFRESH: Duration = Duration::from_secs(6 * 60 * 60);

/// How long a log without a quorum waits before it asks again; a cut may last for hours.
const RETRY_AFTER: Duration = Duration::from_secs(600);

/// A process that is kept running; dropped, it dies where it stands.
pub(crate) struct Process(JoinHandle<()>);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Process {
    /// Starts the process of an organisation, and starts it again whenever it ends.
    pub(crate) fn start(world: &Arc<World>, node: Node) -> Self {
        let world = Arc::clone(world);
        Self(tokio::spawn(async move {
            loop {
                let ended = live(Arc::clone(&world), node).await;
                world.ledger.count("processes that ended by themselves");
                tracing_of(&world, node, &ended);
                sleep(RESTART).await;
            }
        }))
    }

    /// Starts only a second sequencer of the organisation's log, which ends when it loses a race.
    pub(crate) fn rival(world: &Arc<World>, node: Node) -> Self {
        let world = Arc::clone(world);
        Self(tokio::spawn(async move {
            let stores = Stores::open(&world.hosts[&node]);
            let _hold = stores.hold();
            if let Ok((_log, sequencer)) = open_log(&world, node, &stores).await {
                let _ = sequencer.run(std::future::pending()).await;
                world.ledger.count("rival sequencers that stopped");
            }
        }))
    }
}

fn tracing_of(world: &World, node: Node, ended: &anyhow::Result<()>) {
    if let Err(error) = ended {
        world.say(format!("{node} ended: {error:#}"));
    }
}

async fn open_log(world: &Arc<World>, node: Node, stores: &Stores) -> anyhow::Result<(Log, Sequencer)> {
    let policy = server::serve::policy(&world.config(node)?)?;
    let parts = LogParts {
        objects: Arc::new(stores.clone()) as Arc<dyn ObjectStore>,
        locks: Arc::new(stores.clone()) as Arc<dyn LockStore>,
        witnesses: remotes(world, node),
        clock: Arc::new(world.clock(node).clone()),
        signer: Arc::new(world.log_key(node)),
        policy: policy.witnessing().clone(),
        faulty: Faulty(policy.policy().witnessing.faulty),
        limits: Limits { refresh: REFRESH, retry_after: RETRY_AFTER, ..Limits::default() },
    };
    Ok(Log::open(parts).await?)
}

/// Makes the organisation's log.
pub(crate) async fn create_log(world: &Arc<World>, node: Node) {
    let stores = Stores::open(&world.hosts[&node]);
    let policy = server::serve::policy(&world.config(node).unwrap()).unwrap();
    let parts = LogParts {
        objects: Arc::new(stores.clone()) as Arc<dyn ObjectStore>,
        locks: Arc::new(stores) as Arc<dyn LockStore>,
        witnesses: remotes(world, node),
        clock: Arc::new(world.clock(node).clone()),
        signer: Arc::new(world.log_key(node)),
        policy: policy.witnessing().clone(),
        faulty: Faulty(1),
        limits: Limits::default(),
    };
    Log::create(&parts).await.unwrap();
}

/// Takes the machine off the network when the process ends.
struct Registered(Arc<World>, Node);

impl Drop for Registered {
    fn drop(&mut self) {
        self.0.network.serve(self.1, None);
    }
}

/// One life of an organisation's process, as `clerestory serve` wires it.
async fn live(world: Arc<World>, node: Node) -> anyhow::Result<()> {
    let stores = Stores::open(&world.hosts[&node]);
    let _hold = stores.hold();
    let config = world.config(node)?;
    let policy = Arc::new(server::serve::policy(&config)?);
    let (log, sequencer) = open_log(&world, node, &stores).await?;
    let objects = Arc::new(stores.clone()) as Arc<dyn ObjectStore>;
    let (_stop, stopped) = watch::channel(false);
    let append_wait = Duration::from_secs(20);
    let service = LogService { log, objects: Arc::clone(&objects), policy, append_wait, stop: stopped.clone() };
    let (_duty, on_duty) = watch::channel(Duty::Here(Serving::new(service)));
    let key = world.log_key(node).verifier().clone();
    let mut routes = router(Front { duty: on_duty.clone(), objects, key });
    let domain = world.domain(node, &stores)?;
    let network = Arc::clone(&world.network);
    let work: Box<dyn FnOnce() -> anyhow::Result<()> + Send> = if node == Node::Vendor {
        Box::new(move || wait_for(publish::keep_fresh(Arc::new(config), domain, on_duty, stopped)))
    } else {
        let supervisor = Supervisor::of(&config, domain)?;
        routes = routes.merge(server::http::supervisor::router(Arc::clone(&supervisor)));
        Box::new(move || wait_for(supervisor.keep_fresh(on_duty, stopped)))
    };
    let (_life, living) = watch::channel(());
    let (site, origin) = (Arc::clone(&world), world.origin(node));
    let handle = Arc::new(move |parcel: Parcel| {
        let (site, routes, origin) = (Arc::clone(&site), routes.clone(), origin.clone());
        Box::pin(async move { answer(&site, routes, &origin, parcel).await }) as _
    });
    world.network.serve(node, Some(Service { handle, life: living }));
    let _registered = Registered(Arc::clone(&world), node);
    tokio::select! {
        biased;
        ended = sequencer.run(std::future::pending()) => ended.context("the log has stopped"),
        ended = on_a_stack(network, work) => ended.context("the desk died").and_then(|ended| ended),
    }
}

async fn answer(world: &World, routes: axum::Router, origin: &tlog::Origin, parcel: Parcel) -> Reply {
    if let Some(path) = parcel.path.strip_prefix("/channel/") {
        return world.mirrors.original(path);
    }
    let leaf = (parcel.post && parcel.path == path::ENTRIES).then(|| leaf_hash(&parcel.body));
    let reply = ask(routes, parcel).await;
    if let (200, Some(leaf)) = (reply.status, leaf)
        && let Ok(appended) = serde_json::from_slice::<Appended>(&reply.body)
    {
        world.ledger.acknowledge(origin, appended.index, &leaf);
    }
    reply
}
