//! A log that shows two trees, with as many faulty witnesses as a policy survives, and clocks that
//! are wrong: no two endpoints accept both, and none is bricked. With one more, the same test finds
//! a fork, so it can.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use agent::{Config, Endpoint, Gate, Genesis, Ports, RealDisk, Report};
use attest::{Bundle, Envelope, Lane, Statement, Status, StopScope, Subject};
use policy::{PolicyDocument, Role};
use stdx::{Clock as _, Digest, ManualClock, UnixTime};
use testkit::{Breadth, MemoryLog, PRODUCT, Released, SUPERVISOR_LOG, VENDOR_LOG, WitnessRule, World, figure};
use tlog::NoteSignature;

use crate::cohort::{Cohort, Fault};

/// Endpoints' clocks, until they are right again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Never,
    In1970,
    In2099,
}

/// What forks, where, and how long each side gets.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// Which log: the vendor's carries releases, the supervisor's the status.
    log: &'static str,
    /// How many of the honest entries both sides have.
    common: usize,
    /// Entries that say nothing, after those of each side.
    padding: [usize; 2],
}

const fn shape(log: &'static str, common: usize, padding: [usize; 2]) -> Shape {
    Shape { log, common, padding }
}

/// From nothing, after the first entry and later; of one size and of different ones.
const SHAPES: [Shape; 8] = [
    shape(SUPERVISOR_LOG, 0, [0, 0]),
    shape(SUPERVISOR_LOG, 0, [0, 1]),
    shape(SUPERVISOR_LOG, 1, [0, 0]),
    shape(SUPERVISOR_LOG, 2, [3, 0]),
    shape(VENDOR_LOG, 0, [0, 0]),
    shape(VENDOR_LOG, 1, [0, 2]),
    shape(VENDOR_LOG, 6, [0, 0]),
    shape(VENDOR_LOG, 6, [5, 0]),
];

const IN_2099: UnixTime = UnixTime::from_seconds(4_080_000_000);

const FAULTS: [Fault; 4] = [
    Fault::Lies(IN_2099),
    Fault::Lies(UnixTime::from_seconds(1)),
    Fault::Restored,
    // The world's own time.
    Fault::Lies(UnixTime::from_seconds(1_767_225_600)),
];

fn survives(rule: &WitnessRule) -> bool {
    let WitnessRule { count, needed, faulty } = *rule;
    2 * needed > count + faulty && needed + faulty <= count
}

fn rules(count_max: usize) -> Vec<WitnessRule> {
    let of = |count| (0..=count).flat_map(move |needed| (0..=count).map(move |faulty| (count, needed, faulty)));
    let rule = |(count, needed, faulty)| WitnessRule { count, needed, faulty };
    (1..=count_max).flat_map(of).map(rule).collect()
}

#[test]
fn a_policy_is_accepted_only_if_its_quorum_survives_what_it_declares() {
    let (mut accepted, all) = (0, rules(9));
    for count in 1..=9 {
        let world = World::with_witnesses(&WitnessRule { count, needed: count, faulty: 0 }, |_| {});
        for rule in all.iter().filter(|rule| rule.count == count) {
            let mut policy = world.policy().policy().clone();
            policy.witnessing = rule.witnessing(&policy.witnessing.policy);
            assert_eq!(policy.check().is_ok(), survives(rule), "{rule:?}: {:?}", policy.check().err());
            accepted += usize::from(survives(rule));
        }
    }
    figure("policies with 1 to 9 witnesses accepted, of all", format!("{accepted} of {}", all.len()));
}

/// A machine that knows the policy and nothing else.
struct Machine {
    _folder: tempfile::TempDir,
    config: Config,
    clock: ManualClock,
    client: api::Client,
    gate: Gate,
}

impl Machine {
    fn new(world: &World) -> Self {
        // Thousands of machines: where there is memory to keep them in, no disk is worn out.
        let memory = std::path::Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let at = folder.path().display();
        let config = format!(
            "state = \"{at}/state\"\ninstall = \"{at}/install\"\nchannel = [\"http://127.0.0.1:1\"]\nring = \"all\"\n\
             [[product]]\nid = \"{PRODUCT}\"\n"
        );
        let config = Config::parse(&config).unwrap();
        let client = api::Client::new(std::time::Duration::from_secs(1));
        let machine =
            Self { _folder: folder, config, clock: ManualClock::new(world.clock.now()), client, gate: Gate::default() };
        let (id, envelope) = (world.genesis().id(), world.genesis().to_bytes());
        Endpoint::init(&machine.config, machine.ports(), Genesis { id: &id, envelope: &envelope }).unwrap();
        machine
    }

    fn ports(&self) -> Ports<'_> {
        Ports { clock: &self.clock, disk: &RealDisk, progress: &(), client: &self.client, rules: &self.gate }
    }

    fn import(&self, export: &[u8]) -> Report {
        Endpoint::open(&self.config, self.ports()).unwrap().import(export).unwrap()
    }

    fn status(&self) -> agent::StatusReport {
        Endpoint::read(&self.config, self.ports()).unwrap().status().unwrap()
    }

    fn installed(&self) -> Option<Vec<u8>> {
        std::fs::read(self.config.install.join(PRODUCT).join("current/product")).ok()
    }
}

/// `docs/formats/channel.md`, "Export".
fn export(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let list: Vec<_> = members
        .iter()
        .map(|(path, bytes)| {
            format!("{{\"path\":\"{path}\",\"size\":{},\"sha256\":\"{}\"}}", bytes.len(), Digest::of(bytes))
        })
        .collect();
    let head = format!("clerestory-export/v1\n{{\"members\":[{}]}}\n", list.join(","));
    members.iter().fold(head.into_bytes(), |mut file, (_, bytes)| {
        file.extend(bytes);
        file
    })
}

/// One side of a fork, as an endpoint gets it.
struct Side {
    log: MemoryLog,
    entries: Vec<Envelope>,
    content: &'static [u8],
}

/// A log that forks, its world, and its witnesses.
struct Fork {
    world: World,
    shape: Shape,
    cohort: Cohort,
    sides: [Side; 2],
    lines: [Vec<NoteSignature>; 2],
}

fn bundle(log: &MemoryLog, lines: &[NoteSignature], entries: &[Envelope]) -> Bundle {
    let mut checkpoint = log.checkpoint(&[], UnixTime::EPOCH);
    checkpoint.merge(lines.to_vec()).unwrap();
    Bundle::new(entries.iter().map(|entry| log.prove(entry, &checkpoint)).collect()).unwrap()
}

impl Fork {
    /// `first` of the honest witnesses see the one side first, the others the other.
    fn new(rule: &WitnessRule, faulty: usize, fault: Fault, shape: Shape, first: usize) -> Self {
        let mut world = World::with_witnesses(rule, |_| {});
        world.build(PRODUCT, "0.1", &[("product", b"old")], &testkit::ReleaseOptions::default());
        world.status();
        world.status();
        let cohort = Cohort::new(&world, faulty, fault);
        let honest = world.log(shape.log).fork(shape.common.min(world.log(shape.log).entries().len()));
        if shape.common > 0 {
            cohort.cosign(&honest);
        }
        let contents: [&[u8]; 2] = [b"for everybody", b"for one victim"];
        let sides = [0, 1].map(|side| {
            let (entries, content) = Self::speak(&mut world, shape, contents[side]);
            let mut log = honest.fork(honest.entries().len());
            for entry in &entries {
                log.append(entry.to_bytes());
            }
            for at in 0..shape.padding[side] {
                log.append(vec![at as u8; 40]);
            }
            Side { log, entries, content }
        });
        let lines = cohort.split(first, &sides[0].log, &sides[1].log);
        Self { world, shape, cohort, sides, lines }
    }

    /// A release of this content, or a status that stops (and one that does not).
    fn speak(world: &mut World, shape: Shape, content: &'static [u8]) -> (Vec<Envelope>, &'static [u8]) {
        if shape.log == VENDOR_LOG {
            let Released { build, approvals, release, .. } = world.release(PRODUCT, "1.0", &[("product", content)]);
            return ([vec![release, build.result], approvals].concat(), content);
        }
        world.stops = if content.ends_with(b"victim") { Vec::new() } else { vec![StopScope::Lane(Lane::Slow)] };
        let status = world.status();
        world.stops.clear();
        (vec![status.entries()[0].envelope.clone()], content)
    }

    /// What this side shows: a fresh status, and a release if that is what forks.
    fn shown(&mut self, side: usize) -> Vec<u8> {
        let Side { log, entries, content } = &self.sides[side];
        let forked = bundle(log, &self.lines[side], entries).to_bytes();
        if self.shape.log == SUPERVISOR_LOG {
            return export(&[("status/slow.bundle", forked)]);
        }
        let number = if side == 0 { 1 } else { 2 };
        let (prefix, content) = (format!("products/{PRODUCT}/{number}"), content.to_vec());
        let status = self.honest_status();
        export(&[
            ("status/slow.bundle", status),
            (&format!("{prefix}/bundle"), forked),
            (&format!("{prefix}/0-product"), content),
        ])
    }

    /// The other log is honest; its faulty witnesses are the same.
    fn honest_status(&mut self) -> Vec<u8> {
        let status = self.world.status();
        let lines = self.cohort.cosign(&self.world.supervisor_log);
        let entries: Vec<_> = status.entries().iter().map(|entry| entry.envelope.clone()).collect();
        bundle(&self.world.supervisor_log, &lines, &entries).to_bytes()
    }

    fn has(&self, machine: &Machine, side: usize) -> bool {
        if self.shape.log == VENDOR_LOG {
            return machine.installed().as_deref() == Some(self.sides[side].content);
        }
        let lane = &machine.status().lanes[0];
        lane.time.is_some() && lane.stops.is_empty() == (side == 1)
    }

    /// Both sides go to both endpoints, in both orders, under wrong clocks and then right ones.
    fn offer(&mut self, machines: &[Machine; 2], wrong: Wrong) -> [bool; 2] {
        let mut accepted = [false; 2];
        let shown = [self.shown(0), self.shown(1)];
        let now = self.world.clock.now();
        for (machine, order) in machines.iter().zip([[0, 1], [1, 0]]) {
            let clocks = match wrong {
                Wrong::Never => vec![now],
                Wrong::In1970 => vec![UnixTime::EPOCH, now],
                Wrong::In2099 => vec![IN_2099, now],
            };
            for time in clocks {
                machine.clock.set(time);
                for side in order {
                    machine.import(&shown[side]);
                    accepted[0] |= self.has(machine, 0);
                    accepted[1] |= self.has(machine, 1);
                }
            }
        }
        accepted
    }

    /// Nobody lies any more. A log that split its own witnesses may be dead; then both organisations
    /// name another by the next policy, recorded in the log that is left.
    fn recover(&mut self, machines: &[Machine; 2]) {
        let left = if self.shape.log == VENDOR_LOG { SUPERVISOR_LOG } else { VENDOR_LOG };
        let position = self.world.position(left, "policy");
        let mut policy = self.world.policy().policy().clone();
        policy.version = 2;
        policy.lanes.iter_mut().for_each(|lane| lane.status_log = left.parse().unwrap());
        let canaries = policy.streams.iter_mut().filter(|it| it.stream.as_str() == "canary/supervisor");
        canaries.for_each(|stream| stream.log = left.parse().unwrap());
        let document = PolicyDocument { position, previous: Some(self.world.policy().id()), policy };
        let subject = vec![Subject::new("policy", Digest::of(b"policy"))];
        let statement = Statement { subject, predicate: document };
        let next = self.world.sign_as(&statement, Role::Policy, &["vendor", "supervisor"]);
        let status = Status {
            position: self.world.position(left, "status/slow"),
            lane: Lane::Slow,
            policy: next.id(),
            expires: self.world.clock.now().after(crate::scene::DAY),
            revoked: Vec::new(),
            floors: Vec::new(),
            stops: Vec::new(),
            mismatches: Vec::new(),
        };
        let subject = vec![Subject::new("slow", Digest::of(b"slow"))];
        let status = Statement { subject, predicate: status };
        let status = self.world.sign_as(&status, Role::Status, &["supervisor"]);
        let log = self.world.log(left);
        self.cohort.repent(log);
        let lines = self.cohort.cosign(log);
        let bundle = |envelope: &Envelope| bundle(log, &lines, std::slice::from_ref(envelope)).to_bytes();
        let file = export(&[("policy/2.bundle", bundle(&next)), ("status/slow.bundle", bundle(&status))]);
        for machine in machines {
            machine.clock.set(self.world.clock.now());
            let report = machine.import(&file);
            assert!(report.failures.is_empty(), "bricked: {report:?}");
            let status = machine.status();
            assert_eq!((status.policy_version, status.exit_code()), (2, 0), "{status}");
        }
    }

    /// The side that a quorum still stands behind goes on; whoever saw it, or nothing, follows.
    fn go_on(&mut self, side: usize, machines: &[Machine; 2]) {
        let log = self.sides[side].log.fork(self.sides[side].log.entries().len());
        self.cohort.repent(&log);
        let is_release = self.shape.log == VENDOR_LOG;
        if is_release {
            self.world.vendor_log = log
        } else {
            self.world.supervisor_log = log
        }
        let members = if is_release {
            let Released { build, approvals, release, number, .. } =
                self.world.release(PRODUCT, "2.0", &[("product", b"next")]);
            let status = self.honest_status();
            let lines = self.cohort.cosign(&self.world.vendor_log);
            let entries = [vec![release, build.result], approvals].concat();
            let prefix = format!("products/{PRODUCT}/{}", number.get());
            vec![
                ("status/slow.bundle".to_owned(), status),
                (format!("{prefix}/bundle"), bundle(&self.world.vendor_log, &lines, &entries).to_bytes()),
                (format!("{prefix}/0-product"), b"next".to_vec()),
            ]
        } else {
            vec![("status/slow.bundle".to_owned(), self.honest_status())]
        };
        let members: Vec<_> = members.iter().map(|(path, bytes)| (path.as_str(), bytes.clone())).collect();
        for machine in machines {
            machine.clock.set(self.world.clock.now());
            let report = machine.import(&export(&members));
            assert!(report.failures.is_empty(), "bricked: {report:?}");
            assert!(!is_release || machine.installed().unwrap() == b"next");
            assert_eq!(machine.status().exit_code(), 0, "{}", machine.status());
        }
    }
}

/// One case; gives which sides were accepted by anybody, and whether the mark was ever ahead.
fn run(rule: &WitnessRule, faulty: usize, fault: Fault, shape: Shape, first: usize, wrong: Wrong) -> ([bool; 2], bool) {
    let mut fork = Fork::new(rule, faulty, fault, shape, first);
    let machines = [Machine::new(&fork.world), Machine::new(&fork.world)];
    let accepted = fork.offer(&machines, wrong);
    let ahead = machines.iter().any(|machine| machine.status().evidence_time > fork.world.clock.now());
    if faulty <= rule.faulty {
        assert!(accepted != [true, true], "two accepted forks");
        assert!(!ahead, "the mark moved by a lie");
        let side = fork.lines.iter().position(|lines| lines.len() >= rule.needed);
        match side {
            Some(side) => fork.go_on(side, &machines),
            None => fork.recover(&machines),
        }
    }
    (accepted, ahead)
}

/// A fork under a policy: which faulty witnesses, and how many honest ones see the one side first.
type Case = (WitnessRule, usize, Shape, usize, Fault);

/// Every policy that is accepted, every way to split its honest witnesses. Which of them see a side
/// first is no matter, as a quorum counts any of them alike, and their keys are drawn anew for each
/// case; where none is faulty, one kind of fault is as good as another.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for rule in rules(9).into_iter().filter(survives) {
        let faults = if rule.faulty == 0 { &FAULTS[..1] } else { &FAULTS };
        for (number, shape) in SHAPES.into_iter().enumerate() {
            for first in 0..=rule.count - rule.faulty {
                cases.extend(faults.iter().map(|fault| (rule, number, shape, first, *fault)));
            }
        }
    }
    cases
}

#[test]
fn no_two_endpoints_accept_forks_and_none_is_bricked() {
    // 71 is prime, so a sample has some of everything.
    let chosen = Breadth::of_this_run().of(cases(), 71);
    let wrong = [Wrong::Never, Wrong::In1970, Wrong::In2099];
    let (one, none) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let ahead = Mutex::new(chosen.iter().zip(wrong.iter().cycle()));
    let next = || ahead.lock().unwrap().next();
    let worker = || {
        while let Some(((rule, number, shape, first, fault), wrong)) = next() {
            let what = format!("{rule:?}, shape {number}, {first} first, {fault:?}, {wrong:?}");
            let case = || run(rule, rule.faulty, *fault, *shape, *first, *wrong);
            let (accepted, _) = std::panic::catch_unwind(case).unwrap_or_else(|_| panic!("{what}"));
            let counted = if accepted == [false, false] { &none } else { &one };
            counted.fetch_add(1, Ordering::SeqCst);
        }
    };
    let workers = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(worker))));
    let (one, none) = (one.into_inner(), none.into_inner());
    assert!(one > 0 && none > 0 && one + none == chosen.len(), "{one} {none}");
    figure("forks tried, over every policy of 1 to 9 witnesses and every split", chosen.len());
    figure("forks of which endpoints accepted one side, none, both", format!("{one}, {none}, 0"));
}

/// The test's teeth: with one liar more than declared, some fork is accepted, and some mark moves.
#[test]
fn with_one_liar_too_many_a_fork_is_found() {
    let mut rules: Vec<_> = rules(9).into_iter().filter(survives).collect();
    if Breadth::of_this_run() == Breadth::Sample {
        rules.retain(|rule| rule.count <= 4);
    }
    let mut forked = 0;
    for rule in &rules {
        // The tightest rules are those where one more is too many.
        if 2 * rule.needed > rule.count + rule.faulty + 1 || rule.faulty + 1 > rule.count {
            continue;
        }
        let faulty = rule.faulty + 1;
        let found = (0..=rule.count - faulty).any(|first| {
            let fault = Fault::Lies(UnixTime::from_seconds(1_767_225_600));
            run(rule, faulty, fault, SHAPES[6], first, Wrong::Never).0 == [true, true]
        });
        assert!(found, "{rule:?}");
        forked += 1;
    }
    assert!(forked > 0);
    // As many liars as a quorum needs have the time in their hands.
    let all = WitnessRule { count: 4, needed: 3, faulty: 1 };
    assert!(run(&all, 3, Fault::Lies(IN_2099), SHAPES[6], 1, Wrong::Never).1, "a mark from 2099");
    figure("rules under which one liar more than declared gives a fork", forked);
}
