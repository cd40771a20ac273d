//! Rules go ring by ring: who may go first, whose word counts, and what follows from it.

use std::io::{BufRead as _, BufReader};
use std::process::{ChildStderr, Command};

use attest::{
    BuildResult, Bundle, Envelope, EnvironmentKind, Health, Lane, Outcome, Release, Ring, Source, Statement,
    StatementId, Status, StopScope, Subject,
};
use policy::CanaryPolicy;
use server::config::Config;
use server::domain::Domain;
use stdx::{Clock as _, Digest, SystemClock, SystemEntropy, durable};
use tlog::{KeyKind, SignerKey};

use crate::process::Server;
use crate::raw;
use crate::system::{Scope, System};

pub(crate) const PRODUCT: &str = "signatures";
const CANARY: CanaryPolicy = CanaryPolicy { healthy: 2, bake_s: 1, unhealthy: 1, fires: 100 };

/// A vendor, a supervisor and witnesses with a fast lane; two hosts are enrolled.
pub(crate) struct Lanes {
    pub(crate) system: System,
    vendor: BufReader<ChildStderr>,
    hosts: Vec<Host>,
}

struct Host {
    key: SignerKey,
    enrolment: StatementId,
    sent: u64,
}

impl Lanes {
    pub(crate) fn running() -> Self {
        Self::running_under(|_| {})
    }

    /// The same, under a policy that is otherwise.
    pub(crate) fn running_under(more: impl FnOnce(&mut policy::Policy)) -> Self {
        let change = |_: &System, policy: &mut policy::Policy| {
            System::with_fast_lane(policy, CANARY);
            more(policy);
        };
        let mut system = System::made_in(tempfile::tempdir().unwrap(), Scope::Releases, [&[], &[]], change);
        system.witnesses.iter_mut().for_each(Server::start);
        system.supervisor.start();
        system.run(&["status", "publish", "--config", "supervisor/clerestory.toml"]).ok();
        let mut vendor = Command::new(env!("CARGO_BIN_EXE_clerestory"));
        vendor.env_clear().args(["serve", "--config", system.vendor.config()]);
        system.vendor.start_as(vendor);
        let vendor = BufReader::new(system.vendor.stderr());
        system.run(&["release", "freshen", "--config", "vendor/clerestory.toml"]).ok();
        let mut lanes = Self { system, vendor, hosts: Vec::new() };
        lanes.hosts = ["one", "two"].map(|name| lanes.enrol(name)).into();
        lanes
    }

    fn enrol(&self, name: &str) -> Host {
        let run = |arguments: &[&str]| self.system.run(arguments).ok();
        let (key, agreement) = (format!("{name}.key"), format!("{name}.agreement"));
        run(&["key", "generate", "--name", &format!("{name}.example/canary"), &key]);
        run(&["rules", "agree", "--key", &key, "--out", &agreement, name]);
        let enrol = ["--json", "rules", "enrol", "--config", "supervisor/clerestory.toml", &agreement];
        let enrolment = run(&enrol).json()["statement"].as_str().unwrap().parse().unwrap();
        Host { key: server::key_file::load(&self.system.file(&key)).unwrap(), enrolment, sent: 0 }
    }

    /// Reads what the vendor says until it has said this.
    pub(crate) fn wait_for(&mut self, what: &str) {
        let mut line = String::new();
        while !line.contains(what) {
            line.clear();
            assert_ne!(self.vendor.read_line(&mut line).unwrap(), 0, "the vendor has ended before `{what}`");
        }
    }

    pub(crate) fn publish(&self, version: &str) -> crate::process::Done {
        self.system.run(&["--json", "release", "publish", "--config", "vendor/clerestory.toml", PRODUCT, version])
    }

    pub(crate) fn release(&self, version: &str) -> (Statement<Release>, StatementId) {
        let path = self.system.file(&format!("vendor/builds/{PRODUCT}/{version}/release.bundle"));
        let bundle = Bundle::parse(&std::fs::read(path).unwrap()).unwrap();
        let entries = bundle.entries().iter().map(|entry| &entry.envelope);
        let mut found = entries.filter_map(|it| Some((Statement::<Release>::decode(it.payload()).ok()?, it.id())));
        found.next().unwrap()
    }

    /// What a host would report of a version.
    fn report(&self, host: &Host, version: &str) -> (Vec<Subject>, Health) {
        let (release, id) = self.release(version);
        let health = Health {
            enrolment: host.enrolment,
            sequence: host.sent,
            time: SystemClock::new().now(),
            product: PRODUCT.parse().unwrap(),
            release: id,
            ring: Ring::Canary,
            outcome: Outcome::Active,
            crashes: 0,
            detections: 1,
        };
        (release.subject, health)
    }

    fn send(&self, subject: Vec<Subject>, health: Health, key: &SignerKey) -> raw::Response {
        let envelope = Envelope::sign(Statement { subject, predicate: health }.encode().unwrap(), &[key]).unwrap();
        raw::post(self.system.supervisor.address(), "/v1/health", &envelope.to_bytes())
    }

    /// Both hosts say that all is well.
    pub(crate) fn all_is_well(&mut self, version: &str) {
        for at in 0..self.hosts.len() {
            let response = self.report_of(at, version);
            assert_eq!(response.status, 200, "{}", response.text());
        }
    }

    /// One of the hosts says that all is well.
    pub(crate) fn report_of(&mut self, host: usize, version: &str) -> raw::Response {
        self.hosts[host].sent += 1;
        let (subject, health) = self.report(&self.hosts[host], version);
        self.send(subject, health, &self.hosts[host].key)
    }

    pub(crate) fn ring(&self, version: &str) -> Ring {
        let folder = self.system.file("vendor/channel");
        let id = PRODUCT.parse().unwrap();
        let product = channel::layout::Product { lane: Lane::Fast, id: &id };
        let list = channel::Channel::open(&folder).unwrap().releases(product).unwrap();
        list.releases().iter().find(|it| it.version == version).unwrap().ring
    }

    /// A lane's status as the vendor's channel has it.
    fn carried(&self, lane: Lane) -> Status {
        let response = raw::get(self.system.vendor.address(), &format!("/channel/status/{lane}.bundle"));
        let bundle = Bundle::parse(&response.body).unwrap();
        Statement::<Status>::decode(bundle.entries()[0].envelope.payload()).unwrap().predicate
    }

    /// A result of rules that both builders signed. (The builders are the test; that builds agree is
    /// shown elsewhere.)
    pub(crate) fn built(&self, version: &str, lane: Option<Lane>) {
        let content = format!("rule r{version} {{ condition: false }}\n");
        let folder = format!("vendor/builds/{PRODUCT}/{version}");
        durable::create_folder(&self.system.file(&format!("{folder}/outputs"))).unwrap();
        durable::write(&self.system.file(&format!("{folder}/outputs/rules.yar")), content.as_bytes()).unwrap();
        let config = Config::load(&self.system.file("vendor/clerestory.toml")).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let recorder = self.system.key("vendor", "recorder");
        let builders = ["vendor", "supervisor"].map(|name| self.system.key(name, "builder"));
        let bundle = runtime.block_on(async {
            let stream = Domain::open(&config).await.unwrap().stream("assembly/vendor").unwrap();
            let source = stream.write(|position| {
                let (product, version) = (PRODUCT.parse()?, version.to_owned());
                let predicate = Source { position, product, version, files: 1, bytes: 1, revision: None };
                let subject = vec![Subject::new("source", Digest::of(content.as_bytes()))];
                Ok(Envelope::sign(Statement { subject, predicate }.encode()?, &[&recorder])?)
            });
            let source = source.await.unwrap().envelope.id();
            let entry = stream.write(|position| {
                let predicate = BuildResult {
                    position,
                    product: PRODUCT.parse()?,
                    version: version.to_owned(),
                    source,
                    recipe: Digest::of(b"rules.toml"),
                    inputs: Digest::of(b"inputs"),
                    environment: Digest::of(b"engine"),
                    environment_kind: EnvironmentKind::Pinned,
                    sbom: Digest::of(b"index"),
                    lane,
                };
                let subject = vec![Subject::new("rules.yar", Digest::of(content.as_bytes()))];
                let keys: Vec<_> = builders.iter().collect();
                Ok(Envelope::sign(Statement { subject, predicate }.encode()?, &keys)?)
            });
            Bundle::new(vec![entry.await.unwrap()]).unwrap()
        });
        durable::write(&self.system.file(&format!("{folder}/result.bundle")), &bundle.to_bytes()).unwrap();
    }
}

#[test]
fn rules_go_ring_by_ring_and_by_themselves() {
    let mut lanes = Lanes::running();
    lanes.built("1", Some(Lane::Fast));
    // Nobody approves, and whatever ring is asked for, canaries come first.
    assert_eq!(lanes.publish("1").ok().json()["ring"], "canary");
    let promote = ["release", "promote", "--config", "vendor/clerestory.toml", PRODUCT, "1", "--ring", "early"];
    let done = lanes.system.run(&promote);
    assert_eq!(done.code, 1);
    assert!(done.stderr.contains("needs a bake in ring `canary`"), "{done:?}");

    lanes.all_is_well("1");
    lanes.wait_for("promoted");
    assert_eq!(lanes.ring("1"), Ring::Early);
    // What canaries said in one ring says nothing of the next.
    lanes.all_is_well("1");
    lanes.wait_for("promoted");
    assert_eq!(lanes.ring("1"), Ring::All);

    // Everything of it is in the logs, and they are in order.
    let audit = lanes.system.run(&["--json", "audit", "--config", "vendor/clerestory.toml"]).json();
    let violations = audit["logs"].as_array().unwrap().iter().flat_map(|log| log["streams"].as_array().unwrap());
    // Nobody approved, and nobody wrote the tests' own streams.
    let others: Vec<_> = violations.filter(|it| !it["detail"].as_str().unwrap().contains("no entry at all")).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn a_report_counts_only_from_an_enrolled_host_and_once() {
    let lanes = Lanes::running();
    lanes.built("1", Some(Lane::Fast));
    lanes.publish("1").ok();
    let (subject, health) = lanes.report(&lanes.hosts[0], "1");
    let key = &lanes.hosts[0].key;
    let refused = |health: Health, key: &SignerKey| {
        let error = lanes.send(subject.clone(), health, key).error();
        assert!(error.starts_with("422 report: the report does not count"), "{error}");
        error
    };
    // By another key; under the other host's enrolment; under one that nobody logged.
    let stranger = SignerKey::generate("x".parse().unwrap(), KeyKind::Ed25519, &SystemEntropy).unwrap();
    refused(health.clone(), &stranger);
    refused(Health { enrolment: lanes.hosts[1].enrolment, ..health.clone() }, key);
    assert!(refused(Health { enrolment: health.release, ..health.clone() }, key).contains("no enrolment"));
    assert!(refused(Health { ring: Ring::All, ..health.clone() }, key).contains("is not in ring `all`"));
    let other = vec![Subject::new("rules.yar", Digest::of(b"other rules"))];
    let next = Health { sequence: 1, ..health.clone() };
    assert_eq!(lanes.send(other, next, key).status, 422);

    let good = Health { sequence: 7, ..health.clone() };
    assert_eq!(lanes.send(subject.clone(), good.clone(), key).status, 200);
    assert!(refused(good.clone(), key).contains("goes back"));
    refused(Health { sequence: 6, ..good.clone() }, key);
    assert_eq!(raw::post(lanes.system.supervisor.address(), "/v1/health", b"{}").status, 422);
    assert_eq!(raw::post(lanes.system.supervisor.address(), "/v1/health", &[b' '; 70_000]).status, 413);

    // One host may not be two, and one that was dismissed is none.
    let again = lanes.system.run(&["rules", "agree", "--key", "one.key", "--out", "again", "three"]);
    again.ok();
    let supervisor = ["--config", "supervisor/clerestory.toml"];
    let enrol = lanes.system.run(&[&["rules", "enrol"], &supervisor[..], &["again"]].concat());
    assert_eq!(enrol.code, 1);
    assert!(enrol.stderr.contains("another host is enrolled with this key"), "{enrol:?}");
    lanes.system.run(&[&["rules", "dismiss"], &supervisor[..], &["one", "--reason", "retired"]].concat()).ok();
    assert!(refused(Health { sequence: 8, ..good }, key).contains("no enrolment"));
    let hosts = lanes.system.run(&[&["--json", "rules", "hosts"], &supervisor[..]].concat()).ok().json();
    assert_eq!(hosts.as_object().unwrap().keys().collect::<Vec<_>>(), ["two"]);
}

#[test]
fn a_canary_that_fares_badly_stops_the_product() {
    let mut lanes = Lanes::running();
    lanes.built("1", Some(Lane::Fast));
    lanes.publish("1").ok();
    let (subject, health) = lanes.report(&lanes.hosts[0], "1");
    let crashed = Health { outcome: Outcome::RolledBack, crashes: 3, ..health };
    assert_eq!(lanes.send(subject, crashed, &lanes.hosts[0].key).status, 200);
    // The answer comes when the stop is logged and every status has it.
    let shown = lanes.system.run(&["--json", "status", "show", "--config", "supervisor/clerestory.toml"]).ok();
    assert!(shown.stdout.contains("{\"product\":\"signatures\"}"), "{shown:?}");
    // Rules that people released came through the other lane, and the same is said of them there.
    for lane in [Lane::Fast, Lane::Slow] {
        while lanes.carried(lane).stops.is_empty() {
            lanes.wait_for("the status is carried");
        }
        assert_eq!(lanes.carried(lane).stops, [StopScope::Product(PRODUCT.parse().unwrap())]);
    }
    lanes.built("2", Some(Lane::Fast));
    let done = lanes.publish("2");
    assert_eq!(done.code, 1);
    assert!(done.stderr.contains("a stop is in force: product `signatures`"), "{done:?}");

    // Who lifts it has looked: the next release begins anew, this one goes no further.
    let lift = ["status", "lift", "--config", "supervisor/clerestory.toml", "--product", PRODUCT, "--reason", "found"];
    lanes.system.run(&lift).ok();
    lanes.publish("2").ok();
    lanes.all_is_well("2");
    lanes.wait_for("promoted");
    assert_eq!((lanes.ring("1"), lanes.ring("2")), (Ring::Canary, Ring::Early));
}

#[test]
fn too_many_detections_stop_the_product() {
    let lanes = Lanes::running();
    lanes.built("1", Some(Lane::Fast));
    lanes.publish("1").ok();
    let (subject, health) = lanes.report(&lanes.hosts[0], "1");
    let many = Health { detections: CANARY.fires, ..health };
    assert_eq!(lanes.send(subject, many, &lanes.hosts[0].key).status, 200);
    let shown = lanes.system.run(&["status", "show", "--config", "supervisor/clerestory.toml"]).ok();
    assert!(shown.stdout.contains("stopped  product `signatures`"), "{shown:?}");
}

#[test]
fn what_is_not_fit_for_the_fast_lane_needs_people() {
    let lanes = Lanes::running();
    // Without both builders' word for it, the keys for rules do nothing.
    lanes.built("1", None);
    let done = lanes.publish("1");
    assert_eq!(done.code, 1);
    assert!(done.stderr.contains("needs 1 `approver` signature(s)"), "{done:?}");
    let result = format!("vendor/builds/{PRODUCT}/1/result.bundle");
    for name in ["vendor", "supervisor"] {
        let (config, key) = (format!("{name}/clerestory.toml"), format!("{name}/keys/approver.key"));
        let out = format!("vendor/builds/{PRODUCT}/1/approvals/{name}.bundle");
        let approve = ["release", "approve", "--config", &config, "--key", &key, "--result", &result, "--out", &out];
        lanes.system.run(&approve).ok();
    }
    let released = lanes.publish("1").ok().json();
    assert_eq!((&released["ring"], &released["number"]), (&"all".into(), &1.into()));
    let (release, _) = lanes.release("1");
    assert_eq!(release.predicate.lane, Lane::Slow);
}

#[test]
fn the_supervisor_signs_each_lane_with_its_own_key_only() {
    let lanes = Lanes::running();
    lanes.built("1", Some(Lane::Fast));
    lanes.publish("1").ok();
    let (release, _) = lanes.release("1");
    let next = |lane, key: &str| {
        let mut draft = release.clone();
        draft.predicate.lane = lane;
        let envelope = Envelope::sign(draft.encode().unwrap(), &[&lanes.system.key("vendor", key)]).unwrap();
        let evidence = std::fs::read(lanes.system.file(&format!("vendor/builds/{PRODUCT}/1/result.bundle"))).unwrap();
        let request = api::ReleaseRequest {
            lane,
            envelope: String::from_utf8(envelope.to_bytes()).unwrap(),
            evidence: String::from_utf8(evidence).unwrap(),
        };
        raw::post(lanes.system.supervisor.address(), "/v1/releases", &serde_json::to_vec(&request).unwrap())
    };
    assert_eq!(next(Lane::Fast, "rules").status, 200);
    for (lane, key) in [(Lane::Slow, "rules"), (Lane::Fast, "release")] {
        let response = next(lane, key);
        assert!(response.error().contains("has no signature by a"), "{}", response.error());
    }
    // With the right key and no approvals.
    assert!(next(Lane::Slow, "release").error().contains("needs 1 `approver` signature(s)"));
}

/// The body of a file as it is on the wire, for a client that speaks gzip and may know the file.
fn on_the_wire(lanes: &Lanes, file: &str, known: Option<&str>) -> raw::Response {
    let known = known.map_or(String::new(), |tag| format!("If-None-Match: {tag}\r\n"));
    let head = format!("HTTP/1.1\r\nHost: test\r\nConnection: close\r\nAccept-Encoding: gzip\r\n{known}\r\n");
    raw::send(lanes.system.vendor.address(), format!("GET /channel/{file} {head}").as_bytes())
}

#[test]
fn what_each_release_costs_every_endpoint_fits_six_kilobytes() {
    let lanes = Lanes::running();
    let status = "status/fast.bundle";
    for version in 1..=9_u64 {
        lanes.built(&version.to_string(), Some(Lane::Fast));
        // As many patches as a release of long-lived rules has.
        let folder = lanes.system.file(&format!("vendor/builds/{PRODUCT}/{version}"));
        durable::create_folder(&folder.join("patches")).unwrap();
        let deltas: Vec<_> = (0..7)
            .map(|at| {
                let bytes = Digest::of(format!("patch {version} {at}").as_bytes()).to_string();
                let patch = Digest::of(bytes.as_bytes());
                durable::write(&folder.join("patches").join(patch.to_string()), bytes.as_bytes()).unwrap();
                let from = Digest::of(format!("from {version} {at}").as_bytes());
                attest::Delta { from, patch, size: bytes.len() as u64 }
            })
            .collect();
        durable::write(&folder.join("deltas.json"), &serde_json::to_vec(&deltas).unwrap()).unwrap();
        lanes.publish(&version.to_string()).ok();
    }
    let channel = channel::Channel::open(&lanes.system.file("vendor/channel")).unwrap();
    let (repository, id) = (channel.repository(), PRODUCT.parse().unwrap());
    let rules = repository.delegated(&channel::layout::role(Lane::Fast)).unwrap();
    let product = channel::layout::Product { lane: Lane::Fast, id: &id };
    let target =
        |path: tuf::TargetPath| tuf::Repository::location(&path, &rules.content().targets[path.as_str()]).to_string();
    let files = [
        "metadata/timestamp.json".to_owned(),
        format!("metadata/{}.snapshot.json", repository.snapshot().version()),
        format!("metadata/{}.rules.json", rules.version()),
        target(product.releases()),
        target(product.bundle(attest::ReleaseNumber::new(9))),
    ];
    let fetch = |file: &String| {
        let response = on_the_wire(&lanes, file, None);
        assert_eq!((response.status, response.header("content-encoding")), (200, Some("gzip")), "{file}");
        (response.body.len(), response.head.len() + 4)
    };
    let bodies: Vec<_> = files.iter().map(|file| (file, fetch(file))).collect();
    // A status is renewed by the hour or when it changes, not with each release: an endpoint has it.
    let first = on_the_wire(&lanes, status, None);
    let again = on_the_wire(&lanes, status, first.header("etag"));
    assert_eq!((again.status, again.body.len()), (304, 0));
    let sum: usize = bodies.iter().map(|(_, (body, _))| body).sum();
    let heads: usize = bodies.iter().map(|(_, (_, head))| head).sum::<usize>() + again.head.len() + 4;
    println!("{sum} bytes, heads {heads}, a new status {}: {bodies:#?}", first.body.len());
    assert!(sum <= 6 * 1024, "{sum} bytes: {bodies:#?}");
}
