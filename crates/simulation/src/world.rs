//! Who there is: keys, the first policy, folders, machines.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use api::Client;
use attest::{Envelope, Lane, Position, ProductId, Ring, Statement, StatementId, Subject};
use policy::{
    Ages, LanePolicy, LogPolicyEntry, Organisation, Policy, PolicyDocument, ProductPolicy, Role, RoleKey, StreamPolicy,
    Threshold, Witnessing,
};
use server::config::Config;
use server::domain::{Domain, Machine};
use server::key_file::{self, NewKey};
use server::publish;
use stdx::{Clock as _, Digest, durable};
use storage::{Catalog, LockStore};
use tempfile::TempDir;
use tlog::{KeyKind, Origin, SignerKey, VerifierKey};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use crate::host::{Host, Stores};
use crate::ledger::Ledger;
use crate::mirror::Mirrors;
use crate::network::{Link, Network, Node};
use crate::seed::SeededEntropy;
use crate::time::MachineClock;

/// The product.
pub(crate) const PRODUCT: &str = "libexample";
/// How many witnesses there are; three are a quorum, and one may be faulty: the first.
pub(crate) const WITNESSES: u8 = 4;
/// How many endpoints.
pub(crate) const ENDPOINTS: u8 = 2;
/// How many mirrors besides the vendor's own server.
pub(crate) const MIRRORS: u8 = 2;
/// Whoever writes to a log waits for its witnesses.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

const DAY_S: u64 = 24 * 60 * 60;

/// The roles of keys that an organisation has, and the file of each.
const ROLES: [Role; 6] = [Role::Builder, Role::Release, Role::Approver, Role::Status, Role::Policy, Role::Recorder];

/// What people at the vendor and the supervisor have in mind.
#[derive(Default)]
pub(crate) struct People {
    /// The version that is being made.
    pub(crate) version: u64,
    /// Whether it is published.
    pub(crate) is_done: bool,
    /// For whom it is.
    pub(crate) ring: Option<Ring>,
    /// Whose approval of it is at hand.
    pub(crate) approved: Vec<Node>,
    /// The content of what was published, and its number.
    pub(crate) published: Vec<(u64, Digest)>,
    /// The policy that is being put into force: its envelope, and the new key with its place.
    pub(crate) succession: Option<Succession>,
}

impl People {
    /// Whether a version has been begun and not yet been published.
    pub(crate) const fn is_making(&self) -> bool {
        !self.is_done && self.ring.is_some()
    }

    pub(crate) fn next_version(&mut self) {
        self.version += 1;
        self.is_done = false;
        self.ring = None;
        self.approved.clear();
    }
}

/// A policy on its way.
#[derive(Clone)]
pub(crate) struct Succession {
    pub(crate) version: u64,
    pub(crate) envelope: Envelope,
    /// The organisation and role whose key is replaced.
    pub(crate) who: Node,
    pub(crate) role: Role,
    pub(crate) key: String,
}

/// Everything there is.
pub(crate) struct World {
    pub(crate) network: Arc<Network>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) mirrors: Mirrors,
    pub(crate) hosts: BTreeMap<Node, Arc<Host>>,
    pub(crate) clocks: BTreeMap<Node, MachineClock>,
    pub(crate) witness_keys: Vec<String>,
    genesis: OnceLock<Envelope>,
    pub(crate) entropy: SeededEntropy,
    people: Mutex<People>,
    trace: Mutex<Vec<String>>,
    folder: TempDir,
}

/// In memory where the system has such a folder: a simulated crash loses no page of a file, so that
/// nothing is gained by a disk.
fn scratch() -> TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let builder = tempfile::Builder::new().prefix("simulation-").to_owned();
    builder.tempdir_in(memory).or_else(|_| builder.tempdir()).unwrap()
}

impl World {
    pub(crate) fn new(seed: u64, crashes: &UnboundedSender<Node>) -> Arc<Self> {
        let (ledger, network, begin) = (Ledger::new(), Network::new(seed), Instant::now());
        let witnesses = (0..WITNESSES).map(Node::Witness);
        let stored = [Node::Vendor, Node::Supervisor].into_iter().chain(witnesses);
        let hosts = stored.map(|node| (node, Host::new(node, crashes.clone(), Arc::clone(&ledger)))).collect();
        let endpoints = (0..ENDPOINTS).map(Node::Endpoint);
        let all = [Node::Vendor, Node::Supervisor, Node::Auditor].into_iter().chain(endpoints);
        let clocks = all.chain((0..WITNESSES).map(Node::Witness)).map(|node| (node, MachineClock::new(begin)));
        let entropy = SeededEntropy::new(seed);
        let witness_key = |number| {
            let name = format!("w{number}.example/witness").parse().unwrap();
            SignerKey::generate(name, KeyKind::Cosignature, &entropy).unwrap().to_secret_text().to_string()
        };
        let witness_keys: Vec<_> = (0..WITNESSES).map(witness_key).collect();
        let (folder, clocks) = (scratch(), clocks.collect());
        let world = Self {
            mirrors: Mirrors::new(folder.path().join("vendor/channel"), seed),
            network,
            ledger,
            hosts,
            clocks,
            witness_keys,
            genesis: OnceLock::new(),
            entropy,
            people: Mutex::default(),
            trace: Mutex::default(),
            folder,
        };
        world.make_organisations();
        Arc::new(world)
    }

    pub(crate) fn genesis(&self) -> &Envelope {
        self.genesis.get().expect("made with the world")
    }

    /// Writes down what happened, with the time; where the files lie is chance that has no seed.
    pub(crate) fn say(&self, words: String) {
        let ms = self.clock(Node::Auditor).monotonic().as_millis();
        let words = words.replace(&self.folder.path().display().to_string(), "");
        self.trace.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{ms:>10} {words}"));
    }

    pub(crate) fn trace(&self) -> Vec<String> {
        self.trace.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn path(&self, node: Node) -> PathBuf {
        self.folder.path().join(node.to_string())
    }

    pub(crate) fn people(&self) -> MutexGuard<'_, People> {
        self.people.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn clock(&self, node: Node) -> &MachineClock {
        &self.clocks[&node]
    }

    pub(crate) fn config(&self, node: Node) -> anyhow::Result<Config> {
        Ok(Config::load(&self.path(node).join("clerestory.toml"))?)
    }

    pub(crate) fn client(node: Node) -> Client {
        Client::over(Arc::new(Link(node)), REQUEST_TIMEOUT)
    }

    /// An organisation's tools, as one process has them open.
    pub(crate) fn domain(&self, node: Node, stores: &Stores) -> anyhow::Result<Domain> {
        let machine = Machine {
            clock: Arc::new(self.clock(node).clone()),
            client: Self::client(node),
            locks: Arc::new(stores.clone()) as Arc<dyn LockStore>,
            catalog: Arc::new(stores.clone()) as Arc<dyn Catalog>,
            kept: None,
        };
        Domain::on(&self.config(node)?, machine)
    }

    pub(crate) fn key(&self, node: Node, role: Role) -> anyhow::Result<SignerKey> {
        key_file::load(&self.path(node).join(format!("keys/{role}.key")))
    }

    pub(crate) fn log_key(&self, node: Node) -> SignerKey {
        key_file::load(&self.path(node).join("keys/log.key")).unwrap()
    }

    pub(crate) fn origin(&self, node: Node) -> Origin {
        self.log_key(node).verifier().name().clone().into()
    }

    pub(crate) fn witness_key(&self, number: u8) -> SignerKey {
        self.witness_keys[usize::from(number)].parse().unwrap()
    }

    /// Keys, folders and configurations of both organisations, the channel, and the first policy.
    fn make_organisations(&self) {
        for node in [Node::Vendor, Node::Supervisor] {
            self.make_keys(node);
            self.write_config(node, None);
        }
        let vendor = self.config(Node::Vendor).unwrap();
        let root = publish::create(&vendor, self.clock(Node::Vendor), None).unwrap();
        let policy = self.first_policy(root);
        let position = Position {
            log: self.origin(Node::Vendor),
            stream: "policy".parse().unwrap(),
            epoch: 0,
            sequence: 0,
            previous: None,
            time: self.clock(Node::Vendor).now(),
        };
        let subject = vec![Subject::new("policy", Digest::of(b"policy"))];
        let document = PolicyDocument { position, previous: None, policy };
        let payload = Statement { subject, predicate: document }.encode().unwrap();
        let keys = [Node::Vendor, Node::Supervisor].map(|node| self.key(node, Role::Policy).unwrap());
        let genesis = Envelope::sign(payload, &keys.each_ref()).unwrap();
        for node in [Node::Vendor, Node::Supervisor] {
            durable::write(&self.path(node).join("policy/1.envelope"), &genesis.to_bytes()).unwrap();
            self.write_config(node, Some(genesis.id()));
        }
        self.genesis.set(genesis).expect("made once");
    }

    fn make_keys(&self, node: Node) {
        let folder = self.path(node);
        for name in ["keys", "policy"] {
            durable::create_folder(&folder.join(name)).unwrap();
        }
        for name in std::iter::once("log".to_owned()).chain(ROLES.map(|role| role.to_string())) {
            self.draw_key(node, &name);
        }
        for role in ROLES {
            self.ledger.add_key(&node.to_string(), role, self.key(node, role).unwrap().verifier());
        }
        if node == Node::Vendor {
            for name in ["root", "targets", "snapshot", "timestamp"] {
                let path = folder.join(format!("keys/tuf-{name}.key"));
                key_file::generate_tuf(&path, &self.entropy).unwrap();
            }
        }
    }

    fn draw_key(&self, node: Node, name: &str) {
        let path = self.path(node).join(format!("keys/{name}.key"));
        let name = format!("{node}.example/{name}").parse().unwrap();
        key_file::generate(&NewKey { name, kind: KeyKind::Ed25519, path }, &self.entropy).unwrap();
    }

    fn write_config(&self, node: Node, genesis: Option<StatementId>) {
        let genesis = genesis.map_or_else(String::new, |id| format!("genesis = \"{id}\"\n"));
        let own = match node {
            Node::Vendor => {
                "[channel]\nroot = \"keys/tuf-root.key\"\ntargets = \"keys/tuf-targets.key\"\n\
                 snapshot = \"keys/tuf-snapshot.key\"\ntimestamp = \"keys/tuf-timestamp.key\"\n"
            }
            _ => "",
        };
        let (more, key) = match node {
            Node::Vendor => (format!("supervisor = \"{}\"\n", Node::Supervisor.url()), ""),
            _ => (format!("status_s = {DAY_S}\n"), "status = \"keys/status.key\"\n"),
        };
        let text = format!(
            "role = \"{node}\"\norganisation = \"{node}\"\nlisten = \"127.0.0.1:1\"\ndata = \".\"\n\
             heartbeat_s = 21600\n{more}[policy]\nfolder = \"policy\"\n{genesis}\
             [log]\nkey = \"keys/log.key\"\nrefresh_s = 21600\nappend_wait_s = 20\n\
             [keys]\nbuilder = \"keys/builder.key\"\nrelease = \"keys/release.key\"\n\
             recorder = \"keys/recorder.key\"\n{key}{own}"
        );
        durable::write(&self.path(node).join("clerestory.toml"), text.as_bytes()).unwrap();
    }

    fn first_policy(&self, channel_root: Digest) -> Policy {
        let both = [Node::Vendor, Node::Supervisor];
        let each = || both.map(|node| Threshold { organisation: node.to_string().parse().unwrap(), count: 1 }).to_vec();
        let mut text: String =
            both.map(|node| format!("log {} {}\n", self.log_key(node).verifier(), node.url())).concat();
        for number in 0..WITNESSES {
            let (key, url) = (self.witness_key(number), Node::Witness(number).url());
            text += &format!("witness w{number} {} {url}\n", key.verifier());
        }
        text += "group witnesses 3 w0 w1 w2 w3\nquorum witnesses\n";
        let (vendor_log, supervisor_log) = (self.origin(Node::Vendor), self.origin(Node::Supervisor));
        let stream = |log: &Origin, stream: &str, organisation: Node| StreamPolicy {
            log: log.clone(),
            stream: stream.parse().unwrap(),
            organisation: organisation.to_string().parse().unwrap(),
            interval_s: 7 * DAY_S,
        };
        let slow = LanePolicy {
            lane: Lane::Slow,
            builders: each(),
            release: each(),
            approvals: each(),
            log: vendor_log.clone(),
            status: "supervisor".parse().unwrap(),
            status_log: supervisor_log.clone(),
            canary: None,
        };
        Policy {
            name: "simulated".to_owned(),
            version: 1,
            channel_root: Some(channel_root),
            mirrors: Vec::new(),
            lookup: None,
            residency: None,
            ages: Ages::default(),
            witnessing: Witnessing { faulty: 1, policy: text },
            organisations: both.map(|node| self.organisation(node)).to_vec(),
            logs: both
                .map(|node| LogPolicyEntry {
                    origin: self.origin(node),
                    organisation: node.to_string().parse().unwrap(),
                })
                .to_vec(),
            lanes: vec![slow],
            products: vec![ProductPolicy { id: product(), lane: Lane::Slow }],
            streams: vec![
                stream(&vendor_log, "policy", Node::Vendor),
                stream(&vendor_log, "assembly/vendor", Node::Vendor),
                stream(&vendor_log, "release/vendor", Node::Vendor),
                stream(&vendor_log, "approval/vendor", Node::Vendor),
                stream(&vendor_log, "approval/supervisor", Node::Supervisor),
                stream(&supervisor_log, "rebuild/supervisor", Node::Supervisor),
                stream(&supervisor_log, "desk/supervisor", Node::Supervisor),
                stream(&supervisor_log, "status/slow", Node::Supervisor),
            ],
            change: each(),
        }
    }

    fn organisation(&self, node: Node) -> Organisation {
        let key = |role| RoleKey { role, key: self.key(node, role).unwrap().verifier().clone() };
        Organisation { id: node.to_string().parse().unwrap(), keys: ROLES.map(key).to_vec() }
    }

    pub(crate) fn log_keys(&self) -> Vec<VerifierKey> {
        [Node::Vendor, Node::Supervisor].map(|node| self.log_key(node).verifier().clone()).to_vec()
    }
}

pub(crate) fn product() -> ProductId {
    PRODUCT.parse().unwrap()
}
