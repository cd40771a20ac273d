//! Endpoints: the agent's own library on a folder, with what must hold after each of its steps.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use agent::{Config, Disk, Endpoint, Gate, Genesis, Installed, Move, Ports, RealDisk};
use attest::StatementId;
use serde_json::Value;
use stdx::{Digest, UnixTime};
use tlog::{Hash, Origin, TreeHead, TreeSize};
use verify::Seen;

use crate::coroutine::die;
use crate::network::Node;
use crate::world::{MIRRORS, PRODUCT, World};

/// The machine's disk, without waiting for it: a simulated crash loses no page. After so many
/// steps the machine is dead.
struct FastDisk {
    left: Cell<Option<u64>>,
}

impl FastDisk {
    fn step(&self) {
        match self.left.get() {
            Some(0) => die(),
            Some(left) => self.left.set(Some(left - 1)),
            None => {}
        }
    }
}

impl Disk for FastDisk {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        self.step();
        fs::create_dir_all(folder)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.step();
        let new = path.with_extension("writing");
        File::create(&new)?.write_all(bytes)?;
        stdx::durable::rename(&new, path)
    }

    fn sweep(&self, folder: &Path) -> io::Result<()> {
        self.step();
        RealDisk.sweep(folder)
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.step();
        OpenOptions::new().append(true).create(true).open(path)?.write_all(bytes)
    }

    fn start(&self, path: &Path) -> io::Result<File> {
        self.step();
        RealDisk.start(path)
    }

    fn seal(&self, file: &File, mode: u32) -> io::Result<()> {
        self.step();
        RealDisk.seal(file, mode)
    }

    fn rename(&self, names: Move<'_>) -> io::Result<()> {
        self.step();
        RealDisk.rename(names)
    }

    fn link(&self, link: &Path, target: &str) -> io::Result<()> {
        self.step();
        RealDisk.link(link, target)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step();
        RealDisk.remove(path)
    }

    fn remove_tree(&self, folder: &Path) -> io::Result<()> {
        self.step();
        RealDisk.remove_tree(folder)
    }
}

/// A machine somewhere, and what it had in mind when it was last looked at.
pub(crate) struct Customer {
    number: u8,
    config: Config,
    last: Mutex<Remembered>,
}

/// What may only grow.
#[derive(Clone, Default)]
struct Remembered {
    evidence: UnixTime,
    sizes: BTreeMap<Origin, TreeSize>,
    policy: u64,
    /// The newest status, and under which policy it was taken.
    status: Option<(u64, u64, Value)>,
    highest: u64,
    active: Option<StatementId>,
}

impl Customer {
    /// Sets a machine up with the policy's hash.
    pub(crate) fn set_up(world: &World, number: u8) -> Self {
        let folder = world.path(Node::Endpoint(number));
        // One mirror: several are asked at once, by threads, and those are out of scope here.
        let channel = [Node::Mirror(number % MIRRORS).url()];
        let logs = if number == 0 {
            // The other one has no mirror of any log: a quorum stands in for the proofs.
            let log = |node: Node| format!("[[log]]\norigin = \"{}\"\nurl = \"{}\"\n", world.origin(node), node.url());
            [Node::Vendor, Node::Supervisor].map(log).concat()
        } else {
            String::new()
        };
        let ring = if number == 0 { "canary" } else { "all" };
        let text = format!(
            "state = \"{0}/state\"\ninstall = \"{0}/install\"\nchannel = {channel:?}\nring = \"{ring}\"\n\
             [network]\ntimeout_s = 20\n{logs}[[product]]\nid = \"{PRODUCT}\"\n",
            folder.display()
        );
        let config = Config::parse(&text).unwrap();
        let customer = Self { number, config, last: Mutex::default() };
        let (id, envelope) = (world.genesis().id(), world.genesis().to_bytes());
        let client = World::client(Node::Endpoint(number));
        let disk = FastDisk { left: Cell::new(None) };
        let gate = Gate::default();
        let ports = Ports {
            clock: world.clock(Node::Endpoint(number)),
            disk: &disk,
            progress: &(),
            client: &client,
            rules: &gate,
        };
        Endpoint::init(&customer.config, ports, Genesis { id: &id, envelope: &envelope }).unwrap();
        customer
    }

    /// Updates, on a stack of its own; the machine dies after so many steps of its disk.
    pub(crate) fn update(self: Arc<Self>, world: &World, dies_after: Option<u64>) -> Result<String, String> {
        let node = Node::Endpoint(self.number);
        let (client, disk) = (World::client(node), FastDisk { left: Cell::new(dies_after) });
        let gate = Gate::default();
        let ports = Ports { clock: world.clock(node), disk: &disk, progress: &(), client: &client, rules: &gate };
        let mut endpoint = Endpoint::open(&self.config, ports).map_err(|failure| failure.to_string())?;
        let report = endpoint.update().map_err(|failure| failure.to_string())?;
        let said: Vec<_> = report.changes.iter().map(ToString::to_string).collect();
        match report.failures.first() {
            None => Ok(said.join(", ")),
            Some(failure) => Err(format!("{}: {failure}", failure.code)),
        }
    }

    /// Forgets everything that it has seen: what no endpoint does, for trying the oracles.
    pub(crate) fn forget(&self) {
        let path = self.config.state.join("memory.json");
        let mut memory = self.read(&path);
        memory["evidence"] = Value::from("1970-01-01T00:00:00Z");
        memory["logs"] = Value::Array(Vec::new());
        memory["status"] = serde_json::json!({});
        stdx::durable::write(&path, memory.to_string().as_bytes()).unwrap();
    }

    fn read(&self, path: &PathBuf) -> Value {
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    /// The number that is in use.
    pub(crate) fn highest(&self) -> u64 {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).highest
    }

    /// Looks at the machine's folder, whatever state it was left in.
    pub(crate) fn look(&self, world: &World) {
        let state = &self.config.state;
        let memory = self.read(&state.join("memory.json"));
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.remembered(&memory);
        let broken = |oracle, detail: String| world.ledger.violate(oracle, format!("e{}: {detail}", self.number));
        if now.evidence < last.evidence {
            broken("memory", format!("its evidence time went from {} back to {}", last.evidence, now.evidence));
        }
        if now.evidence > world.ledger.latest() {
            let latest = world.ledger.latest();
            broken(
                "time by evidence",
                format!("it believes {}, but no honest witness said more than {latest}", now.evidence),
            );
        }
        if now.policy < last.policy {
            broken("memory", format!("its policy went from {} back to {}", last.policy, now.policy));
        }
        for (origin, size) in &last.sizes {
            if now.sizes.get(origin).is_none_or(|now| now < size) {
                broken("memory", format!("it forgot that `{origin}` had {size} entries"));
            }
        }
        if let (Some((epoch, sequence, by)), Some(before)) = (&now.status, &last.status)
            && (by == &before.2 && (*epoch, *sequence) < (before.0, before.1))
        {
            broken("memory", format!("its status went back to {epoch}.{sequence}"));
        }
        if last.status.is_some() && now.status.is_none() {
            broken("memory", "it forgot its status".to_owned());
        }
        if now.highest < last.highest {
            broken("memory", format!("its highest release went from {} back to {}", last.highest, now.highest));
        }
        self.check_trees(world, &memory);
        self.check_installed(world, &memory, &last, &now);
        *last = now;
    }

    fn check_trees(&self, world: &World, memory: &Value) {
        for log in memory["logs"].as_array().unwrap() {
            let seen: Seen = serde_json::from_value(log["seen"].clone()).unwrap();
            let head = TreeHead { size: seen.size, root: seen.root };
            world.ledger.accepted(&Node::Endpoint(self.number), &seen.origin, &head);
            for unproven in log["unproven"].as_array().unwrap() {
                let size: TreeSize = serde_json::from_value(unproven["size"].clone()).unwrap();
                let root: Hash = serde_json::from_value(unproven["root"].clone()).unwrap();
                world.ledger.accepted(&Node::Endpoint(self.number), &seen.origin, &TreeHead { size, root });
            }
        }
    }

    /// What is in use is what both built, approved and released; a new one is not forbidden by what
    /// this machine knew; and the files are those of the release.
    fn check_installed(&self, world: &World, memory: &Value, last: &Remembered, now: &Remembered) {
        let broken = |detail: String| world.ledger.violate("installed", format!("e{}: {detail}", self.number));
        let Some(active) = self.active() else { return };
        let number = active.number.get();
        let release = match world.ledger.deserves(&active.release) {
            Ok(release) => release,
            Err(reason) => return broken(format!("release {number} is in use, but {reason}")),
        };
        if last.active != now.active {
            world.ledger.count("changes of what is installed");
        }
        if last.active != now.active && now.highest > last.highest {
            let status = &memory["status"]["slow"]["status"];
            let revoked: Vec<Digest> = serde_json::from_value(status["revoked"].clone()).unwrap_or_default();
            if release.subject.iter().any(|subject| revoked.contains(&subject.sha256())) {
                broken(format!("release {number} was installed although it is revoked"));
            }
            let floor = status["floors"][0]["number"].as_u64().unwrap_or(0);
            if number < floor {
                broken(format!("release {number} was installed below the floor {floor}"));
            }
            if status["stops"].as_array().is_some_and(|stops| !stops.is_empty()) {
                broken(format!("release {number} was installed in spite of a stop"));
            }
            if number <= last.highest {
                broken(format!("release {number} was installed after {}", last.highest));
            }
        }
        let current = self.config.install.join(PRODUCT).join("current");
        for file in &active.files {
            let bytes = fs::read(current.join(&file.name));
            let found = bytes.as_deref().map(Digest::of).ok();
            if !self.is_pending() && found != Some(file.sha256) {
                broken(format!("`{}` of release {number} has other content than the record says", file.name));
            }
        }
    }

    fn record(&self) -> Option<Value> {
        let path = self.config.state.join("products").join(format!("{PRODUCT}.json"));
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    fn active(&self) -> Option<Installed> {
        serde_json::from_value(self.record()?["active"].clone()).ok()
    }

    /// Whether a change was written down and not yet made: it is, when the agent next starts.
    fn is_pending(&self) -> bool {
        self.record().is_some_and(|record| !record["pending"].is_null())
    }

    fn remembered(&self, memory: &Value) -> Remembered {
        let logs = memory["logs"].as_array().unwrap().iter();
        let seen = logs.map(|log| serde_json::from_value::<Seen>(log["seen"].clone()).unwrap());
        let status = &memory["status"]["slow"];
        let mark = &status["mark"];
        let status = mark["sequence"]
            .as_u64()
            .map(|sequence| (mark["epoch"].as_u64().unwrap(), sequence, status["authority"].clone()));
        let policies = (1..).take_while(|version| {
            let name = if *version == 1 { "policy/1.envelope".to_owned() } else { format!("policy/{version}.bundle") };
            self.config.state.join(name).exists()
        });
        Remembered {
            evidence: serde_json::from_value(memory["evidence"].clone()).unwrap(),
            sizes: seen.map(|seen| (seen.origin, seen.size)).collect(),
            policy: policies.last().unwrap_or(0),
            status,
            highest: self.record().and_then(|record| record["highest"].as_u64()).unwrap_or(0),
            active: self.active().map(|active| active.release),
        }
    }
}
