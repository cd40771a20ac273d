//! One simulation: the plan is carried out, everything is checked after each step, and at the end,
//! when all faults are over, the whole must come to life again.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use log::{FsckParts, fsck};
use stdx::{Clock as _, Digest};
use storage::{LockStore, ObjectStore};
use tlog::EntryIndex;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinSet;
use tokio::time::sleep;
use verify::{StreamChecker, TrustedPolicy, ViolationKind};

use crate::Broken;
use crate::audit::{Audited, fork};
use crate::commands;
use crate::coroutine::on_a_stack;
use crate::endpoint::Customer;
use crate::host::Stores;
use crate::ledger::Violation;
use crate::machines::{Machines, nodes};
use crate::network::{Node, Weather};
use crate::organisation::{Process, create_log};
use crate::plan::{Operation, Reach, Step};
use crate::witnesses::Lie;
use crate::world::{ENDPOINTS, World};

/// When all faults are over, everything must work again within this.
const RECOVERY: Duration = Duration::from_secs(3 * 60 * 60);

/// How often what failed is tried again then.
const RETRY: Duration = Duration::from_secs(300);

/// How a simulation ended.
#[derive(Debug)]
pub struct Outcome {
    /// The first promise that was broken, if one was.
    pub violation: Option<Violation>,
    /// What happened, in order: the same for the same seed and plan.
    pub trace: Vec<String>,
    /// How often what happened.
    pub counts: BTreeMap<&'static str, u64>,
    /// How much time passed in it.
    pub simulated: Duration,
}

impl Outcome {
    /// Stands for the whole trace.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(self.trace.join("\n").as_bytes())
    }
}

/// Carries out a plan.
#[must_use]
pub fn run(seed: u64, plan: &[Step], broken: Broken) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let outcome = catch_unwind(AssertUnwindSafe(|| runtime.block_on(Simulation::run(seed, plan, broken))));
    outcome.unwrap_or_else(|payload| {
        let words = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
        let detail = words.unwrap_or("no words").to_owned();
        let violation = Some(Violation { oracle: "no panics", detail });
        Outcome { violation, trace: Vec::new(), counts: BTreeMap::new(), simulated: Duration::ZERO }
    })
}

struct Simulation {
    world: Arc<World>,
    machines: Arc<Machines>,
    customers: Vec<Arc<Customer>>,
    /// One update of a machine at a time, one command of the vendor's at a time.
    turns: BTreeMap<Node, Arc<tokio::sync::Mutex<()>>>,
    audited: BTreeMap<Node, Arc<Audited>>,
    tasks: JoinSet<()>,
    broken: Broken,
}

impl Simulation {
    async fn run(seed: u64, plan: &[Step], broken: Broken) -> Outcome {
        let (crashes, mut crashed) = unbounded_channel();
        let world = World::new(seed, &crashes);
        let machines = Machines::new(&world, broken);
        let mut simulation = Self::begin(&world, &machines, broken).await;
        let dying = Arc::clone(&machines);
        simulation.tasks.spawn(async move {
            while let Some(node) = crashed.recv().await {
                dying.restart(node).await;
            }
        });
        for step in plan {
            sleep(Duration::from_millis(step.after_ms)).await;
            simulation.step(step);
            tokio::task::yield_now().await;
            if world.ledger.first_violation().is_some() {
                break;
            }
        }
        if world.ledger.first_violation().is_none() {
            simulation.end().await;
        }
        let simulated = world.clock(Node::Auditor).monotonic();
        let mut counts = world.ledger.counts();
        counts.extend(world.network.counts());
        simulation.tasks.shutdown().await;
        drop(simulation);
        for node in nodes() {
            machines.kill(node);
        }
        Outcome { violation: world.ledger.first_violation(), trace: world.trace(), counts, simulated }
    }

    /// Everything runs, the first policy is logged, a status is published, endpoints are set up.
    async fn begin(world: &Arc<World>, machines: &Arc<Machines>, broken: Broken) -> Self {
        for node in nodes() {
            if !matches!(node, Node::Witness(_)) {
                create_log(world, node).await;
            }
            machines.start(node);
        }
        let genesis = Arc::clone(world);
        let logged = on_a_stack(Arc::clone(&world.network), move || commands::log_genesis(&genesis)).await;
        logged.expect("nobody dies yet").expect("the first policy is logged");
        for _ in 0..100 {
            let fresh = Arc::clone(world);
            let done = on_a_stack(Arc::clone(&world.network), move || commands::freshen(&fresh)).await;
            if done.is_some_and(|done| done.is_ok()) {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        let customers = (0..ENDPOINTS).map(|number| Arc::new(Customer::set_up(world, number))).collect();
        let endpoints = (0..ENDPOINTS).map(Node::Endpoint);
        let turns = endpoints.chain([Node::Vendor]).map(|node| (node, Arc::default())).collect();
        let audited = [Node::Vendor, Node::Supervisor].map(|node| (node, Arc::default())).into();
        world.say("the world has begun".to_owned());
        let (world, machines) = (Arc::clone(world), Arc::clone(machines));
        Self { world, machines, customers, turns, audited, tasks: JoinSet::new(), broken }
    }

    fn policy(&self) -> TrustedPolicy {
        server::serve::policy(&self.world.config(Node::Vendor).unwrap()).unwrap()
    }

    /// Begins a step; what takes time goes on while further ones begin.
    fn step(&mut self, step: &Step) {
        let words = step.to_string();
        let words = words.split_once(' ').map_or("", |(_, words)| words).to_owned();
        self.world.say(format!("> {words}"));
        self.world.ledger.count("operations");
        let dies = step.dies_ms.map(Duration::from_millis);
        if dies.is_some() {
            self.world.ledger.count("processes killed in the middle");
        }
        if self.set(&step.operation) {
            return;
        }
        let (world, machines) = (Arc::clone(&self.world), Arc::clone(&self.machines));
        match step.operation.clone() {
            Operation::Update(endpoint, steps) => self.update(endpoint, steps, dies),
            Operation::Audit => self.audit(),
            Operation::Restart(node) => self.spawn(async move { machines.restart(node).await }),
            Operation::Away(node, seconds) => {
                self.spawn(async move { machines.leave(node, Duration::from_secs(seconds)).await });
            }
            Operation::Restore(node, seconds) => self.spawn(async move {
                if machines.restore(node).await {
                    world.ledger.count("stores restored from an old copy");
                    sleep(Duration::from_secs(seconds)).await;
                    machines.put_back(node).await;
                }
            }),
            Operation::Rival(node, seconds) => self.spawn(async move {
                world.ledger.count("rival sequencers");
                let _rival = Process::rival(&world, node);
                sleep(Duration::from_secs(seconds)).await;
            }),
            Operation::Liar(forgets) => {
                let lie = if forgets { Lie::Forgets } else { Lie::None };
                self.spawn(async move { machines.lie(lie).await });
            }
            Operation::Size(size) => self.spawn(async move { machines.lie(Lie::Size(size)).await }),
            Operation::Fork(node) => {
                let policy = self.policy();
                self.spawn(async move {
                    let tried = tokio::time::timeout(Duration::from_secs(600), fork(&world, &policy, node)).await;
                    world.say(format!("  fork: {}", tried.ok().flatten().unwrap_or_default()));
                });
            }
            command => self.command(command, dies),
        }
    }

    /// What happens at once.
    fn set(&self, operation: &Operation) -> bool {
        let network = &self.world.network;
        match operation {
            Operation::Fail(node, after, fault) => self.world.hosts[node].fail(*after, *fault),
            Operation::Cut(one, other) => network.cut(*one, *other),
            Operation::Heal => network.heal(),
            Operation::Weather(lost, delay_ms, doubled) => {
                network.set_weather(Weather { lost: *lost, delay_ms: *delay_ms, doubled: *doubled });
            }
            Operation::Clock(node, seconds) => {
                self.world.ledger.count("clocks set");
                self.world.clock(*node).set_off(*seconds);
            }
            Operation::Mirror(mirror, manner) => {
                self.world.ledger.count("mirrors changed");
                self.world.mirrors.set(*mirror, *manner);
            }
            Operation::Backup(node) => self.machines.back_up(*node),
            Operation::Forget(endpoint) => {
                let customer = &self.customers[usize::from(*endpoint)];
                customer.forget();
                customer.look(&self.world);
            }
            _ => return false,
        }
        true
    }

    fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(work);
    }

    /// A command of the vendor's or the supervisor's people, on a stack of its own.
    fn command(&mut self, command: Operation, dies: Option<Duration>) {
        let (world, machines) = (Arc::clone(&self.world), Arc::clone(&self.machines));
        let turn = Arc::clone(&self.turns[&Node::Vendor]);
        self.spawn(async move {
            let _turn = turn.lock().await;
            let words = perform(&world, command.clone(), dies).await;
            if matches!((&words, &command), (Ok(_), Operation::Succeed(..))) {
                for node in [Node::Vendor, Node::Supervisor] {
                    machines.restart(node).await;
                }
            }
        });
    }

    fn update(&mut self, endpoint: u8, steps: Option<u64>, dies: Option<Duration>) {
        let (world, customer) = (Arc::clone(&self.world), Arc::clone(&self.customers[usize::from(endpoint)]));
        let turn = Arc::clone(&self.turns[&Node::Endpoint(endpoint)]);
        let forgets = self.broken == Broken::ForgetfulEndpoint;
        self.spawn(async move {
            let _turn = turn.lock().await;
            let _ = update(&world, &customer, steps, dies).await;
            if forgets {
                customer.forget();
                customer.look(&world);
            }
        });
    }

    fn audit(&mut self) {
        let policy = Arc::new(self.policy());
        for (node, audited) in self.audited.clone() {
            let (world, policy) = (Arc::clone(&self.world), Arc::clone(&policy));
            self.spawn(async move {
                world.ledger.count("audits");
                for finding in audited.look(&world, &policy, node).await {
                    world.say(format!("  audit of {node}: {finding}"));
                }
            });
        }
    }

    /// All faults are over: what was begun comes to its end, and new things get everywhere.
    async fn end(&mut self) {
        self.tasks.shutdown().await;
        self.world.say("> the faults are over".to_owned());
        if self.broken == Broken::LosingStore {
            let mut disk = self.world.hosts[&Node::Vendor].disk();
            disk.objects.retain(|key, _| !key.starts_with("tile/entries/"));
        }
        self.machines.heal().await;
        let begun = self.world.clock(Node::Auditor).monotonic();
        if let Err(last) = self.recover(begun).await {
            self.world.ledger.violate("nothing stops for good", last);
            return;
        }
        let policy = self.policy();
        for (node, audited) in self.audited.clone() {
            for finding in audited.look(&self.world, &policy, node).await {
                self.world.ledger.violate("audit", format!("{node}: {finding}"));
            }
        }
        for node in [Node::Vendor, Node::Supervisor] {
            self.machines.kill(node);
            sleep(Duration::from_millis(100)).await;
            self.check_log(&policy, node).await;
        }
        self.world.say("> the end".to_owned());
    }

    /// A policy that is on its way, a lift of every stop, two releases, and every endpoint.
    async fn recover(&self, begun: Duration) -> Result<(), String> {
        let late = || self.world.clock(Node::Auditor).monotonic() - begun > RECOVERY;
        let succession = Operation::Succeed(Node::Vendor, policy::Role::Recorder);
        let release = Operation::Release(Reach::All);
        for command in [succession, Operation::Lift, release.clone(), release, Operation::Freshen] {
            let is_policy = matches!(command, Operation::Succeed(..));
            loop {
                match perform(&self.world, command.clone(), None).await {
                    Ok(_) => break,
                    Err(words) if late() => return Err(words),
                    Err(_) => sleep(RETRY).await,
                }
            }
            if is_policy {
                for node in [Node::Vendor, Node::Supervisor] {
                    self.machines.restart(node).await;
                }
            }
        }
        let newest = self.world.people().published.last().map_or(0, |(number, _)| *number);
        for customer in &self.customers {
            loop {
                let words = update(&self.world, customer, None, None).await;
                if customer.highest() == newest && words.is_ok() {
                    break;
                }
                if late() {
                    return Err(format!("{words:?}; it has {}, the newest is {newest}", customer.highest()));
                }
                sleep(RETRY).await;
            }
        }
        Ok(())
    }

    /// The log holds what it published, its streams are whole, and nothing in it is damaged.
    async fn check_log(&self, policy: &TrustedPolicy, node: Node) {
        let (world, origin) = (&self.world, self.world.origin(node));
        let entries = world.ledger.compare(&origin, &world.hosts[&node].disk().objects);
        let mut checker = StreamChecker::new(policy, origin);
        for (index, entry) in (0..).zip(&entries) {
            checker.entry(EntryIndex::new(index), entry);
        }
        for violation in checker.finish(world.clock(Node::Auditor).now()) {
            // Keys that a policy has replaced since are not in the newest one; and what was noted by
            // somebody whose process died is in every status, and logged only when he says it again.
            let expected = [ViolationKind::Silent, ViolationKind::WrongSigner, ViolationKind::StatusUnfounded];
            if !expected.contains(&violation.kind) {
                world.ledger.violate("gapless streams", format!("{node}: {violation}"));
            }
        }
        let stores = Stores::open(&world.hosts[&node]);
        let parts = FsckParts {
            objects: Arc::new(stores.clone()) as Arc<dyn ObjectStore>,
            locks: Arc::new(stores) as Arc<dyn LockStore>,
            key: world.log_key(node).verifier().clone(),
            policy: policy.witnessing().clone(),
        };
        match fsck(&parts).await {
            Ok(report) => {
                for damage in report.damages {
                    world.ledger.violate("fsck", format!("{node}: {damage:?}"));
                }
            }
            Err(error) => world.ledger.violate("fsck", format!("{node}: {error}")),
        }
    }
}

/// Lets people do something; their process may die in the middle.
async fn perform(world: &Arc<World>, command: Operation, dies: Option<Duration>) -> Result<String, String> {
    let name = format!("{command:?}");
    let site = Arc::clone(world);
    let work = move || match command {
        Operation::Release(Reach::Canary) => commands::release(&site, attest::Ring::Canary),
        Operation::Release(Reach::All) => commands::release(&site, attest::Ring::All),
        Operation::Promote => commands::promote(&site),
        Operation::Freshen => commands::freshen(&site),
        Operation::Append(node) => commands::append(&site, node),
        Operation::Revoke(back) => commands::revoke(&site, back),
        Operation::Stop => commands::stop(&site),
        Operation::Lift => commands::lift(&site),
        Operation::Succeed(node, role) => commands::succeed(&site, node, role),
        other => Err(anyhow::anyhow!("{other:?} is no command")),
    };
    let done = within(dies, on_a_stack(Arc::clone(&world.network), work)).await;
    let done = done.map_or_else(|| Err("it died".to_owned()), |done| done.map_err(|error| format!("{error:#}")));
    world.say(format!("  {name}: {}", done.clone().unwrap_or_else(|error| error)));
    done
}

async fn update(
    world: &Arc<World>,
    customer: &Arc<Customer>,
    steps: Option<u64>,
    dies: Option<Duration>,
) -> Result<String, String> {
    world.ledger.count("endpoint updates");
    let (site, machine) = (Arc::clone(world), Arc::clone(customer));
    let done = within(dies, on_a_stack(Arc::clone(&world.network), move || machine.update(&site, steps))).await;
    let done = done.unwrap_or_else(|| Err("it died".to_owned()));
    customer.look(world);
    world.say(format!("  update: {}", done.clone().unwrap_or_else(|error| error)));
    done
}

async fn within<T>(limit: Option<Duration>, work: impl Future<Output = Option<T>>) -> Option<T> {
    match limit {
        Some(limit) => tokio::time::timeout(limit, work).await.ok().flatten(),
        None => work.await,
    }
}
