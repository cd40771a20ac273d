//! Under fire: two machines of one vendor on SeaweedFS and PostgreSQL, and three workers, each of which is killed while
//! endpoints send and somebody reads. What was acknowledged is there once, nothing else is, and what is read is right, or
//! fails.

mod load;
mod reading;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use attest::AccessIntent;
use policy::Policy;
use seal::BatchId;
use stdx::durable;
use testkit::{Breadth, Postgres, Seaweed, figure, seed};

use self::load::{Load, SENDERS};
use self::reading::{QUERY, Reader};
use super::gateway::{Desk, QUERY_FILE};
use super::relay::Relay;
use super::scene::{CUSTODIANS, Scene, Shared, folder};
use super::through::{start, with_three_workers};
use crate::process::Server;
use crate::raw;
use crate::shared::balancer::Balancer;
use crate::statement::Place;

/// What is gone for a while.
#[derive(Clone, Copy, Debug)]
enum Gone {
    Machine(usize),
    Machines,
    Postgres,
    /// While a machine starts.
    PostgresAtStart,
    Seaweed,
    Worker(usize),
    Workers,
}

const EACH: [Gone; 10] = [
    Gone::Machine(0),
    Gone::Machine(1),
    Gone::Machines,
    Gone::Postgres,
    Gone::PostgresAtStart,
    Gone::Seaweed,
    Gone::Worker(0),
    Gone::Worker(1),
    Gone::Worker(2),
    Gone::Workers,
];

/// Nothing is away for longer: an intake waits 5 s before it opens again.
const AWAY_MAX: Duration = Duration::from_secs(4);
/// One machine acknowledges something within this time.
const ALONE: Duration = Duration::from_secs(60);
/// As long as nothing is broken, something is acknowledged within this time.
const STALLED: Duration = Duration::from_secs(90);
/// As long as nothing is broken, all of it is read within this time: one reading has a minute, the one before it may
/// have begun while something was away, and machines and gateway have to come back.
const UNREAD: Duration = Duration::from_secs(180);
/// How often it is looked whether a machine has ended by itself.
const LOOK: Duration = Duration::from_secs(1);

/// Moments, from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut drawn = self.0;
        drawn = (drawn ^ (drawn >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        drawn = (drawn ^ (drawn >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((drawn ^ (drawn >> 31)) % end as u64).unwrap()
    }

    fn shuffled(&mut self) -> [Gone; EACH.len()] {
        let mut all = EACH;
        (1..all.len()).for_each(|at| all.swap(at, self.below(at + 1)));
        all
    }
}

/// The vendor's machines, what they stand on, and who reads.
struct Ground {
    machines: Vec<Server>,
    /// Behind relays: with a process its address goes, too.
    workers: Vec<(Server, Relay)>,
    balancer: Balancer,
    postgres: Arc<Postgres>,
    seaweed: Arc<Seaweed>,
    /// What all processes have said.
    said: Arc<Mutex<Vec<String>>>,
}

impl Ground {
    fn of(desk: &mut Desk<()>, mut workers: Vec<(Server, Relay)>, shared: &Shared) -> Self {
        let said = Arc::<Mutex<Vec<String>>>::default();
        let machines = std::mem::take(&mut desk.scene.machines);
        let scene = &mut desk.scene;
        let servers = scene.custodians.iter_mut().chain(&mut scene.system.witnesses);
        servers
            .chain([&mut scene.system.supervisor])
            .chain(workers.iter_mut().map(|(worker, _)| worker))
            .for_each(|it| it.listen(&said));
        let mut ground = Self {
            machines,
            workers,
            balancer: scene.balancer.clone().unwrap(),
            postgres: Arc::clone(&shared.postgres),
            seaweed: Arc::clone(&shared.seaweed),
            said,
        };
        ground.machines.iter_mut().for_each(|it| it.listen(&ground.said));
        ground
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.machines.iter().map(Server::address).collect()
    }

    /// Everybody is taken to these machines.
    fn ask(&self, load: &Load, machines: &[SocketAddr]) {
        self.balancer.ask(machines);
        load.ask(machines);
    }

    fn start(&mut self, machine: usize) {
        self.machines[machine].start();
        self.machines[machine].listen(&self.said);
    }

    fn kill(&mut self, machine: usize) {
        self.machines[machine].kill();
        self.machines[machine].hang_up();
    }

    fn kill_worker(&mut self, worker: usize) {
        let (worker, relay) = &mut self.workers[worker];
        relay.close();
        worker.kill();
    }

    /// A worker that was killed comes back as another: it has another key.
    fn start_worker(&mut self, worker: usize) {
        let (worker, relay) = &mut self.workers[worker];
        start(worker);
        worker.listen(&self.said);
        relay.redirect(worker.address());
    }

    /// As its unit does (`Restart=on-failure`): a machine that begins while what it stands on is away says "not now".
    fn keep(&mut self) {
        for machine in 0..self.machines.len() {
            let it = &mut self.machines[machine];
            if it.runs() && it.has_ended() {
                assert_eq!(it.wait().code, 75, "nothing else ends a machine");
                self.start(machine);
            }
        }
    }

    /// Whether it comes to that in time.
    fn comes(&mut self, load: &Load, time: Duration, holds: impl Fn(&Load) -> bool) -> bool {
        (0..time.as_secs()).any(|_| {
            self.keep();
            load.wait_until(LOOK, &holds)
        })
    }

    /// Whether there are so many further receipts in time.
    fn acknowledges(&mut self, count: usize, time: Duration, load: &Load) -> bool {
        let wanted = load.acknowledged() + count;
        self.comes(load, time, |load| load.acknowledged() >= wanted)
    }

    /// Waits for so many further receipts: everything is there that it takes.
    fn goes_on(&mut self, count: usize, load: &Load) {
        assert!(self.acknowledges(count, STALLED, load), "nothing is acknowledged any more");
    }

    /// Waits for one more reading that is right.
    fn is_read(&mut self, load: &Load) {
        let before = load.readings();
        assert!(self.comes(load, UNREAD, |load| load.readings() > before), "nothing can be read any more");
    }

    /// Takes it away until so many batches were acknowledged without it, if they can be.
    fn strike(&mut self, gone: Gone, load: &Load, dice: &mut Dice) {
        let (all, without) = (self.addresses(), 1 + dice.below(40));
        let wait = || load.wait_for(without, AWAY_MAX);
        match gone {
            Gone::Machine(machine) => {
                self.ask(load, &[all[1 - machine]]);
                self.kill(machine);
                assert!(self.acknowledges(without, ALONE, load), "one machine is enough");
                self.start(machine);
            }
            Gone::Machines => {
                (0..all.len()).for_each(|machine| self.kill(machine));
                load.wait_for(1, Duration::from_millis(dice.below(1000) as u64));
                (0..all.len()).for_each(|machine| self.start(machine));
            }
            Gone::Postgres => {
                self.postgres.kill();
                wait();
                self.postgres.resume();
            }
            Gone::PostgresAtStart => {
                self.ask(load, &[all[0]]);
                self.kill(1);
                self.postgres.kill();
                self.start(1);
                // In a second or two it has looked for the database.
                load.wait_for(100, AWAY_MAX);
                self.postgres.resume();
                self.ask(load, &[all[1]]);
                assert!(self.acknowledges(without, ALONE, load), "it has come up since");
            }
            Gone::Seaweed => {
                self.seaweed.kill();
                wait();
                self.seaweed.resume();
            }
            Gone::Worker(worker) => {
                self.kill_worker(worker);
                // Two are enough.
                self.is_read(load);
                self.start_worker(worker);
            }
            Gone::Workers => {
                (0..self.workers.len()).for_each(|worker| self.kill_worker(worker));
                wait();
                (0..self.workers.len()).for_each(|worker| self.start_worker(worker));
            }
        }
        self.ask(load, &all);
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = self.said.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            eprintln!("{}", said.join("\n"));
        }
    }
}

/// Everything may be opened at once.
fn wide(policy: &mut Policy) {
    for class in &mut policy.residency.as_mut().unwrap().classes {
        (class.objects_max, class.rows_max, class.bytes_max) = (4096, 100_000, 16 << 20);
    }
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_whatever_is_killed_and_readings_are_right_or_fail() {
    let seed = seed();
    let shared = Shared::of_its_own("fire");
    let mut relays = Vec::new();
    let (mut desk, workers) = with_three_workers(Scene::made_on(&shared, wide), |workers| {
        relays.extend(workers.iter().map(|worker| Relay::to(worker.address())));
        relays.iter().map(|relay| relay.url.clone()).collect()
    });
    let workers = workers.into_iter().zip(relays).collect();
    durable::write(&desk.scene.system.file(QUERY_FILE), QUERY.as_bytes()).unwrap();
    let mut ground = Ground::of(&mut desk, workers, &shared);
    let rounds = if Breadth::of_this_run() == Breadth::Full { 12 } else { 1 };
    let load = Load::new(&desk.scene.system, &ground.addresses());
    let mut reader = Reader::new(&desk.scene.system, &load);
    let strikes = std::thread::scope(|scope| {
        let load = &load;
        // However this ends, nobody goes on.
        let _over = Over(load);
        (0..SENDERS).for_each(|first| drop(scope.spawn(move || load.send(first))));
        scope.spawn(|| reader.go_on());
        ground.goes_on(100, load);
        let (mut dice, mut strikes) = (Dice(seed), 0);
        for _ in 0..rounds {
            for gone in dice.shuffled() {
                println!("{gone:?} after {} batches", load.batches().len());
                ground.strike(gone, load, &mut dice);
                ground.goes_on(1 + dice.below(60), load);
                strikes += 1;
            }
            ground.is_read(load);
        }
        ground.goes_on(100, load);
        strikes
    });
    let (right, failed) = (load.readings(), std::mem::take(&mut reader.failed));
    let found = rolled(&mut ground, &mut reader);
    let there = kept_once(&reader, &load);
    assert_eq!(found, reader.there(), "the last reading has all of what the vault has");
    drop(reader);
    let failed: Vec<String> = failed.iter().map(|(what, count)| format!("{count} × {what}")).collect();
    figure("under fire", format!("{strikes} times something was killed, {there} batches acknowledged, none lost"));
    figure("readings meanwhile", format!("{right} right; failed: {}", failed.join(", ")));
    figure("workers of one reading", by_workers(&desk));
    whole(&mut desk, &mut ground);
}

/// How many intents named how many workers; all of them shared some.
fn by_workers(desk: &Desk<()>) -> String {
    let mut named = BTreeMap::<usize, usize>::new();
    for (_, intent) in desk.logged::<AccessIntent>() {
        *named.entry(intent.predicate.workers.keys().len()).or_default() += 1;
    }
    assert!(named.contains_key(&3), "{named:?}");
    named.iter().map(|(workers, count)| format!("{workers}: {count}")).collect::<Vec<_>>().join(", ")
}

/// Ends the load when the test does.
struct Over<'a>(&'a Load);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// What a machine was given lies in segments when the next process has opened; then everything is read once more.
fn rolled(ground: &mut Ground, reader: &mut Reader<'_>) -> BTreeSet<BatchId> {
    for machine in 0..ground.machines.len() {
        ground.keep();
        let stopped = ground.machines[machine].stop();
        assert_eq!(stopped.code, 0, "{stopped:?}");
        ground.start(machine);
        assert_eq!(raw::get(ground.machines[machine].address(), "/healthz").status, 200);
    }
    // What went to machines that are gone fails once, and says so.
    let found = (0..5).find_map(|_| reader.read().map_err(|said| println!("at the end: {said}")).ok());
    found.expect("everything is there, so it can be read")
}

/// What was acknowledged is named by one segment, once; what is named was sent. Gives how many were acknowledged.
fn kept_once(reader: &Reader<'_>, load: &Load) -> usize {
    let kept: Vec<BatchId> =
        reader.chain.segments().flat_map(|segment| segment.objects.iter().map(|kept| kept.id)).collect();
    let once: BTreeSet<BatchId> = kept.iter().copied().collect();
    assert_eq!(once.len(), kept.len(), "none is there twice");
    let batches = load.batches();
    let acknowledged: Vec<_> = batches.values().filter(|batch| batch.acknowledged).collect();
    let lost: Vec<_> = acknowledged.iter().filter(|batch| !once.contains(&batch.id)).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), acknowledged.len());
    let sent: BTreeSet<BatchId> = batches.values().map(|batch| batch.id).collect();
    assert!(once.is_subset(&sent), "{:?} were never sent", once.difference(&sent));
    acknowledged.len()
}

/// Every access has its outcome, all logs are one tree, and every store is what was written.
fn whole(desk: &mut Desk<()>, ground: &mut Ground) {
    desk.settled();
    let scene = &mut desk.scene;
    for who in CUSTODIANS {
        let config = format!("{}/clerestory.toml", folder(who));
        scene.system.run(&["data", "report", "--config", &config]).ok();
    }
    for place in [Place::vendor(), Place::supervisor()] {
        scene.system.beat_when_sequenced(&place);
    }
    scene.system.run(&["audit", "--config", "supervisor/clerestory.toml", "--state", "audit.json"]).ok();
    let accesses = ["--json", "data", "accesses", "--config", "vendor/clerestory.toml", "--limit", "1000"];
    let accesses = scene.system.run(&accesses).ok().json();
    let findings = accesses["findings"].as_array().unwrap();
    assert!(findings.iter().all(|finding| finding["kind"] == "silent"), "{findings:#?}");
    let done = accesses["accesses"].as_array().unwrap().iter().filter(|access| access["state"] == "done");
    // One row a batch, one object a batch: what the log says was read is what was given out.
    assert!(done.clone().count() > 0 && done.clone().all(|it| it["objects"] == it["rows"]), "{accesses:#}");
    assert_eq!(accesses["total"], desk.logged::<AccessIntent>().len());
    let scene = &mut desk.scene;
    for machine in &mut ground.machines {
        assert_eq!(machine.stop().code, 0);
    }
    assert_eq!(scene.system.supervisor.stop().code, 0);
    for of in ["vendor1", "vendor2", "supervisor"] {
        scene.system.run(&["fsck", "--config", &format!("{of}/clerestory.toml")]).ok();
    }
    let said = ground.said.lock().unwrap();
    let panics: Vec<_> = said.iter().filter(|line| line.contains("panicked")).collect();
    assert!(panics.is_empty(), "{panics:#?}");
}
