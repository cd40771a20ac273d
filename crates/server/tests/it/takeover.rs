//! The vendor's domain is taken over while everything runs: its processes give way to hostile ones
//! that hold all of its keys and stores. What was installed stays, nothing unproven comes, and what
//! the supervisor says still reaches the endpoint at its next look.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use attest::{
    Approval, Artifact, BuildResult, Bundle, BundleEntry, Envelope, EnvironmentKind, Lane, Mismatched, Position,
    Predicate, ProductId, Release, ReleaseNumber, Ring, Statement, StatementId, Subject,
};
use channel::{Channel, Keys, Lifetimes, Signing, layout};
use policy::{Policy, PolicyDocument, StreamPolicy};
use server::supervise::Shown;
use stdx::{Clock as _, Digest, SystemClock, SystemEntropy, UnixTime, durable};
use storage::{LockStore as _, SqliteStore};
use tlog::{Checkpoint, KeyKind, LogProof, SignedCheckpoint, SignerKey, cosign};
use tuf::{Ed25519Signer, Metadata, Signer, TargetFile, TargetPath};
use verify::{Evidence, Moment, Request};

use crate::process::Done;
use crate::system::System;

const PRODUCT: &str = "libexample";
const GOOD: &[u8] = b"what both organisations built";
const EVIL: &[u8] = b"what only the vendor built";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Vendor, supervisor, witnesses, and an endpoint that has the first release.
struct Scene {
    system: System,
    ends: BTreeMap<String, (u64, StatementId)>,
    tuf: [Ed25519Signer; 3],
    /// What the hostile process serves.
    hostile: PathBuf,
}

fn policy(system: &System, policy: &mut Policy) {
    let made = system.run(&["--json", "release", "create-channel", "--config", "vendor/clerestory.toml"]).ok();
    policy.channel_root = Some(made.json().as_str().unwrap().parse().unwrap());
    policy.mirrors = vec![format!("{}/channel", system.supervisor.url()).parse().unwrap()];
    let stream = |log: &str, stream: &str, organisation: &str| StreamPolicy {
        log: format!("{log}.example/log").parse().unwrap(),
        stream: stream.parse().unwrap(),
        organisation: organisation.parse().unwrap(),
        interval_s: DAY.as_secs(),
    };
    policy.streams.extend([
        stream("vendor", "policy", "vendor"),
        stream("vendor", "assembly/vendor", "vendor"),
        stream("vendor", "release/vendor", "vendor"),
        stream("vendor", "approval/vendor", "vendor"),
        stream("vendor", "approval/supervisor", "supervisor"),
        stream("supervisor", "rebuild/supervisor", "supervisor"),
        stream("supervisor", "desk/supervisor", "supervisor"),
        stream("supervisor", "status/slow", "supervisor"),
    ]);
}

impl Scene {
    fn new() -> Self {
        let mut system = System::made_with(policy);
        let url = system.supervisor.url();
        system.set("vendor", "# supervisor = ", &format!("supervisor = \"{url}\"\n#"));
        system.witnesses.iter_mut().for_each(crate::process::Server::start);
        system.supervisor.start();
        let tuf = ["targets", "snapshot", "timestamp"]
            .map(|role| server::key_file::load_tuf(&system.file(&format!("vendor/keys/tuf-{role}.key"))).unwrap());
        let hostile = system.file("hostile");
        let mut scene = Self { system, ends: BTreeMap::new(), tuf, hostile };
        scene.system.run(&["status", "publish", "--config", "supervisor/clerestory.toml"]).ok();
        scene.publish_first();
        scene.system.run(&["release", "freshen", "--config", "vendor/clerestory.toml"]).ok();
        scene.system.vendor.start();
        scene.set_endpoint();
        scene
    }

    fn publish_first(&mut self) {
        let both = ["vendor", "supervisor"];
        let (envelopes, _) = self.chain(1, GOOD, &both, &both, &both);
        let bundle = self.log(&envelopes);
        let policy = self.system.policy();
        let at = Moment::new(&SystemClock::new(), UnixTime::EPOCH, DAY);
        let status = Bundle::parse(&crate::raw::get(self.system.supervisor.address(), "/v1/status/slow").body).unwrap();
        let status = policy.current_status(&Evidence::open(&policy, &status).unwrap(), Lane::Slow, None, &at).unwrap();
        let product = PRODUCT.parse().unwrap();
        let request = Request { product: &product, ring: Ring::All, status: &status, at: &at, installed: None };
        let approved = policy.approve(&Evidence::open(&policy, &bundle).unwrap(), &request).unwrap();
        let file = self.system.file("built");
        durable::write(&file, GOOD).unwrap();
        let artifacts = BTreeMap::from([(Digest::of(GOOD), file)]);
        let mut channel = Channel::open(&self.system.file("vendor/channel")).unwrap();
        let publication = channel::Publication { approved: &approved, bundle: &bundle, artifacts: &artifacts };
        let [targets, snapshot, timestamp] = self.tuf.each_ref().map(|key| [key as &dyn Signer]);
        let keys =
            Keys { targets: &targets, products: &targets, rules: &targets, snapshot: &snapshot, timestamp: &timestamp };
        let now = SystemClock::new().now();
        channel.publish(&publication, &Signing { keys, lifetimes: Lifetimes::default(), now }).unwrap();
    }

    fn position(&self, stream: &str) -> Position {
        let end = self.ends.get(stream);
        Position {
            log: "vendor.example/log".parse().unwrap(),
            stream: stream.parse().unwrap(),
            epoch: 0,
            sequence: end.map_or(0, |(next, _)| *next),
            previous: end.map(|(_, id)| *id),
            time: SystemClock::new().now(),
        }
    }

    fn sign<P: Predicate>(&mut self, statement: &Statement<P>, role: &str, parties: &[&str]) -> Envelope {
        let keys: Vec<_> = parties.iter().map(|party| self.system.key(party, role)).collect();
        self.sign_with(statement, &keys.iter().collect::<Vec<_>>())
    }

    fn sign_with<P: Predicate>(&mut self, statement: &Statement<P>, keys: &[&SignerKey]) -> Envelope {
        let envelope = Envelope::sign(statement.encode().unwrap(), keys).unwrap();
        let position = statement.predicate.position().unwrap();
        self.ends.insert(position.stream.to_string(), (position.sequence + 1, envelope.id()));
        envelope
    }

    /// Release, result and approvals, and the release's statement, signed by whom it says.
    fn chain(
        &mut self,
        number: u64,
        content: &[u8],
        builders: &[&str],
        releasers: &[&str],
        approvers: &[&str],
    ) -> (Vec<Envelope>, Statement<Release>) {
        let product: ProductId = PRODUCT.parse().unwrap();
        let subject = vec![Subject::new("product", Digest::of(content))];
        let version = format!("{number}.0");
        let digest = Digest::of(b"some");
        let result = BuildResult {
            position: self.position("assembly/vendor"),
            product: product.clone(),
            version: version.clone(),
            source: self.system.genesis,
            recipe: digest,
            inputs: digest,
            environment: digest,
            environment_kind: EnvironmentKind::Pinned,
            sbom: digest,
            lane: None,
        };
        let result = self.sign(&Statement { subject: subject.clone(), predicate: result }, "builder", builders);
        let mut envelopes = vec![result];
        for party in approvers {
            let approval = Approval {
                position: self.position(&format!("approval/{party}")),
                product: product.clone(),
                version: version.clone(),
                result: envelopes[0].id(),
                comment: String::new(),
            };
            envelopes.push(self.sign(
                &Statement { subject: subject.clone(), predicate: approval },
                "approver",
                &[party],
            ));
        }
        let release = Release {
            position: self.position("release/vendor"),
            product,
            version,
            number: ReleaseNumber::new(number),
            previous: None,
            lane: Lane::Slow,
            ring: Ring::All,
            result: envelopes[0].id(),
            policy: self.system.genesis,
            artifacts: vec![Artifact { size: content.len() as u64, deltas: Vec::new() }],
            not_before: UnixTime::EPOCH,
            expires: SystemClock::new().now().after(30 * DAY),
            minimum_engine: None,
        };
        let statement = Statement { subject, predicate: release };
        envelopes.insert(0, self.sign(&statement, "release", releasers));
        (envelopes, statement)
    }

    /// Logged in the vendor's log by its owner, under the witnesses: whoever holds the key can.
    fn log(&self, envelopes: &[Envelope]) -> Bundle {
        let proofs = self.system.append_as_owner(&envelopes.iter().collect::<Vec<_>>());
        let entry = |(envelope, proof): (&Envelope, LogProof)| BundleEntry { envelope: envelope.clone(), proof };
        Bundle::new(envelopes.iter().zip(proofs).map(entry).collect()).unwrap()
    }

    fn agent(&self, arguments: &[&str]) -> Done {
        let program = Path::new(env!("CARGO_BIN_EXE_clerestory")).with_file_name("clerestory-agent");
        let mut command = Command::new(&program);
        command.env_clear().stdin(Stdio::null()).current_dir(self.system.path());
        command.args(["--config", "agent.toml", "--json"]).args(arguments);
        command.output().unwrap_or_else(|error| panic!("{}: {error}", program.display())).into()
    }

    fn set_endpoint(&self) {
        let at = self.system.path().display();
        let mut config = format!(
            "state = \"{at}/state\"\ninstall = \"{at}/install\"\nchannel = [\"{}/channel\"]\nring = \"all\"\n\
             [network]\ntimeout_s = 8\n[[product]]\nid = \"{PRODUCT}\"\n",
            self.system.vendor.url()
        );
        for (log, server) in [("vendor", &self.system.vendor), ("supervisor", &self.system.supervisor)] {
            config.push_str(&format!("[[log]]\norigin = \"{log}.example/log\"\nurl = \"{}\"\n", server.url()));
        }
        durable::write(&self.system.file("agent.toml"), config.as_bytes()).unwrap();
        let hash = self.system.genesis.to_string();
        self.agent(&["init", "--policy-hash", &hash, "--policy", "vendor/policy/1.envelope"]).ok();
        self.agent(&["update"]).ok();
        assert_eq!(self.installed().unwrap(), GOOD);
    }

    fn installed(&self) -> Option<Vec<u8>> {
        std::fs::read(self.system.file("install").join(PRODUCT).join("current/product")).ok()
    }

    /// The vendor's process is ended; on its socket answers another, with a copy of all it had.
    fn take_over(&mut self) {
        self.system.vendor.kill();
        copy(&self.system.file("vendor/channel"), &self.hostile.join("channel"));
        self.behave("well");
        let mut command = Command::new("python3");
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/hostile.py")).arg(&self.hostile);
        self.system.vendor.start_as(command);
    }

    fn behave(&self, manner: &str) {
        durable::write(&self.hostile.join("manner"), manner.as_bytes()).unwrap();
    }

    /// The channel offers this bundle and artifact as the newest release, with perfect metadata.
    fn offer(&self, number: u64, bundle: &Bundle, artifact: &[u8]) {
        let folder = self.hostile.join("channel");
        let channel = Channel::open(&folder).unwrap();
        let mut repository = channel.repository().clone();
        let role = layout::role(Lane::Slow);
        let list = format!(
            "{{\"type\":\"https://clerestory.example/releases/v1\",\"product\":\"{PRODUCT}\",\"lane\":\"slow\",\
             \"releases\":[{{\"number\":{number},\"version\":\"9\",\"ring\":\"all\"}}]}}"
        );
        let target = |name: &str| -> TargetPath { format!("products/{PRODUCT}/{name}").parse().unwrap() };
        let files = BTreeMap::from([
            (target("releases"), list.into_bytes()),
            (target(&format!("{number}/bundle")), bundle.to_bytes()),
            (target(&format!("{number}/0-product")), artifact.to_vec()),
        ]);
        let mut products = repository.delegated(&role).unwrap().content().clone();
        for (path, bytes) in &files {
            products = products.with_target(path, TargetFile::of(bytes));
        }
        products.version = products.version.next().unwrap();
        let [targets, snapshot, timestamp] = self.tuf.each_ref().map(|key| [key as &dyn Signer]);
        let delegated = BTreeMap::from([(role, Metadata::sign(&products, &targets).unwrap())]);
        let change = tuf::Change { delegated, artifacts: files, ..tuf::Change::default() };
        let now = SystemClock::new().now();
        let online = tuf::OnlineKeys {
            snapshot: &snapshot,
            snapshot_expires: now.after(30 * DAY),
            timestamp: &timestamp,
            timestamp_expires: now.after(DAY),
        };
        for file in repository.publish(&change, online, &tuf::Ed25519Sha256, now).unwrap() {
            let path = folder.join(file.location.to_string());
            durable::create_folder(path.parent().unwrap()).unwrap();
            durable::write(&path, &file.bytes).unwrap();
        }
    }

    /// An update that is refused with `code`; what is installed stays.
    fn refused(&self, what: &str, code: &str) {
        let done = self.agent(&["update"]);
        assert!(done.code == 1 || done.code == 75, "{what}: {done:?}");
        assert!(done.stderr.contains(&format!("error: {code}: ")), "{what}: {done:#?}");
        assert!(done.stderr.contains("hint: "), "{what}: {done:#?}");
        assert_eq!(self.installed().unwrap(), GOOD, "{what}");
    }
}

fn copy(from: &Path, to: &Path) {
    durable::create_folder(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The same entries under a checkpoint of another history, by the log's key and one lying witness.
fn forked(scene: &Scene, envelopes: &[Envelope]) -> Bundle {
    let (log, witness) = (scene.system.key("vendor", "log"), scene.system.key("w1", "witness"));
    let mut fork = testkit::MemoryLog::new("vendor.example/log");
    for envelope in envelopes {
        fork.append(envelope.to_bytes());
    }
    let checkpoint = Checkpoint::new("vendor.example/log".parse().unwrap(), fork.head()).unwrap();
    let line = cosign(&checkpoint, &witness, SystemClock::new().now()).unwrap();
    let mut signed = SignedCheckpoint::sign(checkpoint, &log).unwrap();
    signed.merge([line]).unwrap();
    Bundle::new(envelopes.iter().map(|envelope| fork.prove(envelope, &signed)).collect()).unwrap()
}

#[test]
fn a_vendor_that_is_taken_over_installs_nothing_and_silences_nobody() {
    let mut scene = Scene::new();
    let status = std::fs::read(scene.system.file("vendor/channel/status/slow.bundle")).unwrap();
    let genuine = Bundle::parse(&std::fs::read(bundle_file(&scene)).unwrap()).unwrap();
    scene.take_over();
    forged_releases(&mut scene, &genuine);
    forged_policy(&mut scene);
    odd_servers(&scene);
    // The channel shows the old status, which is still fresh, for as long as it can.
    durable::write(&scene.hostile.join("channel/status/slow.bundle"), &status).unwrap();
    the_supervisor_is_heard(&scene);
}

fn bundle_file(scene: &Scene) -> PathBuf {
    let folder = scene.system.file(&format!("vendor/channel/targets/products/{PRODUCT}/1"));
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.into_iter().find(|path| path.to_str().unwrap().ends_with(".bundle")).unwrap()
}

/// All of these are signed with every key that the vendor has, logged and witnessed, and come with
/// perfect metadata.
fn forged_releases(scene: &mut Scene, genuine: &Bundle) {
    let (vendor, both) = (["vendor"], ["vendor", "supervisor"]);
    let (alone, _) = scene.chain(2, EVIL, &vendor, &vendor, &vendor);
    let logged = scene.log(&alone);
    scene.offer(2, &logged, EVIL);
    scene.refused("everything by the vendor alone", "signatures-missing");
    scene.offer(3, &forked(scene, &alone), EVIL);
    scene.refused("a forked log with one lying witness", "checkpoint");

    // A release of its own on the genuine result and approvals.
    let (mut mixed, mut statement) = scene.chain(4, GOOD, &vendor, &vendor, &[]);
    mixed.clear();
    statement.predicate.result = genuine.entries()[1].envelope.id();
    statement.predicate.version = "1.0".to_owned();
    statement.predicate.position = scene.position("release/vendor");
    mixed.push(scene.sign(&statement, "release", &vendor));
    let entries = [scene.log(&mixed).entries(), &genuine.entries()[1..]].concat();
    scene.offer(4, &Bundle::new(entries).unwrap(), GOOD);
    scene.refused("genuine pieces with a forged release", "signatures-missing");

    // Keys of the vendor's making under the supervisor's names.
    let named = |role: &str| {
        let name = format!("supervisor.example/{role}").parse().unwrap();
        SignerKey::generate(name, KeyKind::Ed25519, &SystemEntropy).unwrap()
    };
    let (_, mut statement) = scene.chain(5, EVIL, &vendor, &vendor, &vendor);
    statement.predicate.position = scene.position("release/vendor");
    let keys = [scene.system.key("vendor", "release"), named("release")];
    let pretended = scene.sign_with(&statement, &keys.iter().collect::<Vec<_>>());
    let approval = scene.system.key("vendor", "approver");
    let approvals = [approval, named("approver")];
    let position = scene.position("approval/supervisor");
    let genuine_approval: Statement<Approval> = Statement::decode(genuine.entries()[2].envelope.payload()).unwrap();
    let mut other = genuine_approval.clone();
    other.predicate.position = position;
    let other = scene.sign_with(&other, &approvals.iter().collect::<Vec<_>>());
    let logged = scene.log(&[pretended.clone(), other.clone()]);
    let entries = [&logged.entries()[..1], &genuine.entries()[1..2], &logged.entries()[1..]].concat();
    scene.offer(5, &Bundle::new(entries).unwrap(), EVIL);
    scene.refused("keys that only bear the supervisor's name", "signatures-missing");

    // What another release's evidence proves, for other bytes.
    scene.offer(6, genuine, EVIL);
    let done = scene.agent(&["update"]);
    assert_eq!(scene.installed().unwrap(), GOOD, "{done:?}");
    assert!(!done.stdout.contains("\"number\":6"), "{done:?}");
    // The vendor has no second builder, whatever it writes into its log.
    let (unbuilt, _) = scene.chain(7, EVIL, &vendor, &vendor, &both[..1]);
    let logged = scene.log(&unbuilt);
    scene.offer(7, &logged, EVIL);
    scene.refused("a result without a second builder", "signatures-missing");
}

/// The next policy, by the vendor alone: without a supervisor and its mirror.
fn forged_policy(scene: &mut Scene) {
    let trusted = scene.system.policy();
    let mut policy = trusted.policy().clone();
    policy.version = 2;
    policy.mirrors.clear();
    let document = PolicyDocument { position: scene.position("policy"), previous: Some(trusted.id()), policy };
    let subject = vec![Subject::new("policy", Digest::of(b"policy"))];
    let envelope = scene.sign(&Statement { subject, predicate: document }, "policy", &["vendor"]);
    let bundle = scene.log(&[envelope]);
    let path = scene.hostile.join("channel/policy/2.bundle");
    durable::create_folder(path.parent().unwrap()).unwrap();
    durable::write(&path, &bundle.to_bytes()).unwrap();
    let done = scene.agent(&["update"]);
    assert!(scene.agent(&["status"]).stdout.contains("\"policy_version\":1"), "{done:?}");
    let journal = std::fs::read_to_string(scene.system.file("state/journal.jsonl")).unwrap();
    assert!(
        journal.contains("2.bundle: the policy's succession") || journal.contains("signatures-missing"),
        "{journal}"
    );
    assert_eq!(scene.installed().unwrap(), GOOD);
}

fn odd_servers(scene: &Scene) {
    for manner in ["endless", "slow", "absent"] {
        scene.behave(manner);
        let done = scene.agent(&["update"]);
        assert_ne!(done.code, 0, "{manner}: {done:?}");
        assert_eq!(scene.installed().unwrap(), GOOD, "{manner}");
        // The status came by the supervisor's own mirror meanwhile.
        assert_eq!(scene.agent(&["status"]).code, 0, "{manner}");
    }
    scene.behave("well");
}

/// Each word of the supervisor's, and one look of the endpoint at what the mirrors show.
fn the_supervisor_is_heard(scene: &Scene) {
    let config = ["--config", "supervisor/clerestory.toml", "--reason", "the vendor was taken over"];
    let say = |words: &[&str]| scene.system.run(&[words, &config].concat()).ok();
    let shown = || {
        scene.agent(&["update"]);
        let done = scene.agent(&["status"]);
        serde_json::from_str::<serde_json::Value>(&done.stdout).unwrap()
    };
    note_mismatch(scene);
    say(&["status", "stop", "--product", PRODUCT]);
    let said = shown();
    assert_eq!(said["lanes"][0]["stops"][0]["product"], PRODUCT, "{said:#}");
    assert_eq!(said["lanes"][0]["mismatches"][0]["version"], "6.6.6", "{said:#}");
    assert_eq!(said["products"][0]["version"], "1.0", "what is installed keeps running: {said:#}");
    for manner in ["absent", "endless", "well"] {
        scene.behave(manner);
        assert_eq!(shown()["lanes"][0]["stops"][0]["product"], PRODUCT);
    }
    say(&["status", "revoke", PRODUCT, &Digest::of(GOOD).to_string()]);
    let said = shown();
    assert!(said["products"][0]["disabled"].as_str().unwrap().contains("revoked"), "{said:#}");
    assert!(scene.installed().is_none(), "and there is nothing older that may run");
}

/// As the supervisor's rebuilder does when bytes differ; the demo shows it with a real build.
fn note_mismatch(scene: &Scene) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = SqliteStore::open(&scene.system.file("supervisor/state.sqlite")).await.unwrap();
        let mismatch = Mismatched {
            product: PRODUCT.parse().unwrap(),
            version: "6.6.6".to_owned(),
            statement: scene.system.genesis,
        };
        let shown = Shown { mismatches: vec![mismatch], ..Shown::default() };
        let bytes = serde_json::to_vec(&shown).unwrap().into();
        let swap = store.compare_and_swap(&"status/shown".parse().unwrap(), None, bytes).await.unwrap();
        assert!(matches!(swap, storage::Swap::Won(_)));
        store.close().await;
    });
}
