//! Vendor, supervisor and four witnesses (3 of 4), made by the commands that users make them with.

use std::path::{Path, PathBuf};
use std::time::Duration;

use attest::{Envelope, Lane, StatementId};
use policy::{
    Ages, CanaryPolicy, LanePolicy, LogPolicyEntry, Organisation, Policy, ProductPolicy, Role, RoleKey, StreamPolicy,
    Threshold, Witnessing,
};
use server::config::Config;
use stdx::{Clock as _, Digest, SystemClock, durable};
use tempfile::TempDir;
use tlog::{LogProof, SignerKey};
use verify::TrustedPolicy;

use crate::process::{Done, Server, run};
use crate::raw::{self, Response};
use crate::statement::{Place, heartbeat};

pub(crate) struct System {
    folder: TempDir,
    pub(crate) vendor: Server,
    pub(crate) supervisor: Server,
    pub(crate) witnesses: Vec<Server>,
    pub(crate) genesis: StatementId,
    /// SHA-256 of the channel's root, for a system that releases.
    channel_root: Option<Digest>,
}

/// What a system is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Logs with a stream each.
    Logs,
    /// Also releases: a channel, and the streams of a line, a desk and a status.
    Releases,
}

const ORGANISATIONS: [&str; 2] = ["vendor", "supervisor"];

impl System {
    /// Everything is running.
    pub(crate) fn running() -> Self {
        let mut system = Self::made();
        system.witnesses.iter_mut().for_each(Server::start);
        system.vendor.start();
        system.supervisor.start();
        system
    }

    /// Everything is there, nothing runs.
    pub(crate) fn made() -> Self {
        Self::made_for(Scope::Logs)
    }

    pub(crate) fn made_for(scope: Scope) -> Self {
        Self::made_in(tempfile::tempdir().unwrap(), scope, [&[], &[]], |_, _| {})
    }

    /// Everything is there, under a policy that is otherwise.
    pub(crate) fn made_with(change: impl FnOnce(&Self, &mut Policy)) -> Self {
        Self::made_in(tempfile::tempdir().unwrap(), Scope::Logs, [&[], &[]], change)
    }

    /// The same in a folder that holds something already, and both organisations made with further
    /// arguments.
    pub(crate) fn made_in(
        folder: TempDir,
        scope: Scope,
        further: [&[&str]; 2],
        change: impl FnOnce(&Self, &mut Policy),
    ) -> Self {
        let at = |name: &str| Server::bound(folder.path().join(name).join("clerestory.toml"));
        let mut system = Self {
            vendor: at("vendor"),
            supervisor: at("supervisor"),
            witnesses: (1..=4).map(|n| at(&format!("w{n}"))).collect(),
            genesis: StatementId::of(b"none yet"),
            channel_root: None,
            folder,
        };
        for (name, further) in ORGANISATIONS.into_iter().zip(further) {
            system.run(&[&["init", name, "--dir", name, "--organisation", name], further].concat()).ok();
        }
        let logs = ORGANISATIONS.map(|name| system.vkey(name, "log"));
        for n in 1..=4 {
            let name = format!("w{n}");
            let arguments = ["init", "witness", "--dir", &name, "--organisation", &name, "--log", &logs[0]];
            system.run(&[&arguments[..], &["--log", &logs[1]]].concat()).ok();
        }
        if scope == Scope::Releases {
            let made = system.run(&["--json", "release", "create-channel", "--config", "vendor/clerestory.toml"]).ok();
            system.channel_root = Some(made.json().as_str().unwrap().parse().unwrap());
            let supervisor = format!("supervisor = \"{}\"\n# supervisor = ", system.supervisor.url());
            system.set("vendor", "# supervisor = ", &supervisor);
        }
        system.genesis = system.sign_policy(change);
        system.configure();
        for name in ORGANISATIONS {
            let config = format!("{name}/clerestory.toml");
            system.run(&["log", "create", "--config", &config]).ok();
        }
        system
    }

    /// A further front end of an organisation's, with a copy of its keys and policy on a machine of its own.
    pub(crate) fn front(&self, organisation: &str, name: &str) -> Server {
        for folder in ["keys", "policy"] {
            std::fs::create_dir_all(self.file(&format!("{name}/{folder}"))).unwrap();
            for entry in std::fs::read_dir(self.file(&format!("{organisation}/{folder}"))).unwrap() {
                let from = entry.unwrap().path();
                std::fs::copy(&from, self.file(&format!("{name}/{folder}")).join(from.file_name().unwrap())).unwrap();
            }
        }
        let config = self.file(&format!("{name}/clerestory.toml"));
        std::fs::copy(self.file(&format!("{organisation}/clerestory.toml")), &config).unwrap();
        Server::bound(config)
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        run(self.path(), arguments)
    }

    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.path().join(path)
    }

    pub(crate) fn vkey(&self, organisation: &str, role: &str) -> String {
        let path = self.file(&format!("{organisation}/keys/{role}.pub"));
        std::fs::read_to_string(path).unwrap().trim_end().to_owned()
    }

    pub(crate) fn key(&self, organisation: &str, role: &str) -> SignerKey {
        server::key_file::load(&self.file(&format!("{organisation}/keys/{role}.key"))).unwrap()
    }

    /// Draft, sign by both organisations, assemble: the id is the genesis.
    fn sign_policy(&self, change: impl FnOnce(&Self, &mut Policy)) -> StatementId {
        let mut policy = self.policy_document();
        change(self, &mut policy);
        let toml = toml::to_string_pretty(&policy).unwrap();
        durable::write(&self.file("policy.toml"), toml.as_bytes()).unwrap();
        self.run(&["policy", "check", "policy.toml"]).ok();
        // The one stream that this policy opens in the vendor's log.
        let draft = ["policy", "draft", "policy.toml", "--log", "vendor.example/log", "--stream", "test/vendor"];
        self.run(&[&draft[..], &["--out", "payload"]].concat()).ok();
        for name in ORGANISATIONS {
            let (key, out) = (format!("{name}/keys/policy.key"), format!("{name}.signed"));
            self.run(&["policy", "sign", "--key", &key, "payload", "--out", &out]).ok();
        }
        let out = "vendor/policy/1.envelope";
        let files = ["vendor.signed", "supervisor.signed"];
        let done = self.run(&["--json", "policy", "assemble", files[0], files[1], "--out", out]).ok();
        std::fs::copy(self.file(out), self.file("supervisor/policy/1.envelope")).unwrap();
        done.json()["id"].as_str().unwrap().parse().unwrap()
    }

    fn configure(&self) {
        let all = ORGANISATIONS.into_iter().map(str::to_owned).chain((1..=4).map(|n| format!("w{n}")));
        for name in all {
            let path = self.file(&format!("{name}/clerestory.toml"));
            let text = std::fs::read_to_string(&path).unwrap();
            let change = |line: &str| match line {
                line if line.starts_with("listen = ") => "listen = \"stdin\"\n".to_owned(),
                line if line.starts_with("# genesis = ") => format!("genesis = \"{}\"\n", self.genesis),
                line if line.starts_with("append_wait_s = ") => "append_wait_s = 2\n".to_owned(),
                line => format!("{line}\n"),
            };
            durable::write(&path, text.lines().map(change).collect::<String>().as_bytes()).unwrap();
        }
    }

    /// Changes a line of a configuration.
    pub(crate) fn set(&self, name: &str, line: &str, value: &str) {
        let path = self.file(&format!("{name}/clerestory.toml"));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(line), "{text}");
        durable::write(&path, text.replace(line, value).as_bytes()).unwrap();
    }

    /// A policy of two organisations, whose logs each have one stream.
    pub(crate) fn policy_document(&self) -> Policy {
        let mut text = String::new();
        for (name, server) in ORGANISATIONS.iter().zip([&self.vendor, &self.supervisor]) {
            text.push_str(&format!("log {} {}\n", self.vkey(name, "log"), server.url()));
        }
        for (n, witness) in (1..).zip(&self.witnesses) {
            text.push_str(&format!("witness w{n} {} {}\n", self.vkey(&format!("w{n}"), "witness"), witness.url()));
        }
        text.push_str("group witnesses 3 w1 w2 w3 w4\nquorum witnesses\n");
        let both = || -> Vec<Threshold> {
            let threshold = |name: &str| Threshold { organisation: name.parse().unwrap(), count: 1 };
            ORGANISATIONS.into_iter().map(threshold).collect()
        };
        Policy {
            name: "sample".to_owned(),
            version: 1,
            channel_root: self.channel_root,
            mirrors: Vec::new(),
            lookup: None,
            residency: None,
            ages: Ages::default(),
            witnessing: Witnessing { faulty: 1, policy: text },
            organisations: ORGANISATIONS.map(|name| self.organisation(name)).to_vec(),
            logs: ORGANISATIONS
                .map(|name| LogPolicyEntry {
                    origin: format!("{name}.example/log").parse().unwrap(),
                    organisation: name.parse().unwrap(),
                })
                .to_vec(),
            lanes: vec![LanePolicy {
                lane: Lane::Slow,
                builders: both(),
                release: both(),
                approvals: both(),
                log: "vendor.example/log".parse().unwrap(),
                status: "supervisor".parse().unwrap(),
                status_log: "supervisor.example/log".parse().unwrap(),
                canary: None,
            }],
            products: vec![ProductPolicy { id: "libexample".parse().unwrap(), lane: Lane::Slow }],
            streams: self.streams(),
            change: both(),
        }
    }

    /// The fast lane, with a product of its own, in a policy that releases.
    pub(crate) fn with_fast_lane(policy: &mut Policy, canary: CanaryPolicy) {
        let fast =
            LanePolicy { lane: Lane::Fast, approvals: Vec::new(), canary: Some(canary), ..policy.lanes[0].clone() };
        policy.lanes.push(fast);
        policy.products.push(ProductPolicy { id: "signatures".parse().unwrap(), lane: Lane::Fast });
        let like = policy.streams.iter().find(|it| it.organisation.as_str() == "supervisor").unwrap();
        let like = StreamPolicy { log: "supervisor.example/log".parse().unwrap(), ..like.clone() };
        for name in ["status/fast", "canary/supervisor"] {
            policy.streams.push(StreamPolicy { stream: name.parse().unwrap(), ..like.clone() });
        }
    }

    fn streams(&self) -> Vec<StreamPolicy> {
        // Whose log, which stream, and whose that is.
        const TESTS: [[&str; 3]; 2] =
            [["vendor", "test/vendor", "vendor"], ["supervisor", "test/supervisor", "supervisor"]];
        const RELEASES: [[&str; 3]; 7] = [
            ["vendor", "assembly/vendor", "vendor"],
            ["vendor", "release/vendor", "vendor"],
            ["vendor", "approval/vendor", "vendor"],
            ["vendor", "approval/supervisor", "supervisor"],
            ["supervisor", "rebuild/supervisor", "supervisor"],
            ["supervisor", "desk/supervisor", "supervisor"],
            ["supervisor", "status/slow", "supervisor"],
        ];
        let more: &[[&str; 3]] = if self.channel_root.is_some() { &RELEASES } else { &[] };
        let stream = |[log, stream, organisation]: &[&str; 3]| StreamPolicy {
            log: format!("{log}.example/log").parse().unwrap(),
            stream: stream.parse().unwrap(),
            organisation: organisation.parse().unwrap(),
            interval_s: 24 * 3600,
        };
        TESTS.iter().chain(more).map(stream).collect()
    }

    fn organisation(&self, name: &str) -> Organisation {
        let roles = [
            ("builder", Role::Builder),
            ("release", Role::Release),
            ("rules", Role::Rules),
            ("approver", Role::Approver),
            ("policy", Role::Policy),
            ("recorder", Role::Recorder),
            ("status", Role::Status),
        ];
        let keys = roles
            .into_iter()
            .filter(|(file, _)| self.file(&format!("{name}/keys/{file}.pub")).exists())
            .map(|(file, role)| RoleKey { role, key: self.vkey(name, file).parse().unwrap() });
        Organisation { id: name.parse().unwrap(), keys: keys.collect() }
    }

    pub(crate) fn policy(&self) -> TrustedPolicy {
        server::policy_folder::load(&self.file("vendor/policy"), &self.genesis).unwrap()
    }

    /// The server whose log `place` is in.
    pub(crate) fn server_of(&self, place: &Place) -> &Server {
        if place.log.starts_with("vendor") { &self.vendor } else { &self.supervisor }
    }

    /// Appends a heartbeat that is right for its place.
    pub(crate) fn beat(&self, place: &Place) -> Envelope {
        let organisation = place.log.split('.').next().unwrap();
        let envelope = heartbeat(place, &self.key(organisation, "recorder"));
        let response = self.append(place, &envelope);
        assert_eq!(response.status, 200, "{}", response.text());
        envelope
    }

    /// The same once somebody sequences: who takes over from a killed one waits for its lease.
    pub(crate) fn beat_when_sequenced(&self, place: &Place) {
        let organisation = place.log.split('.').next().unwrap();
        let envelope = heartbeat(place, &self.key(organisation, "recorder"));
        let (clock, patience) = (SystemClock::new(), Duration::from_secs(60));
        let begin = clock.monotonic();
        loop {
            let response = self.append(place, &envelope);
            if response.status == 200 {
                return;
            }
            assert!(response.status == 503 && clock.monotonic() - begin < patience, "{}", response.text());
        }
    }

    pub(crate) fn append(&self, place: &Place, envelope: &Envelope) -> Response {
        raw::post(self.server_of(place).address(), "/v1/entries", &envelope.to_bytes())
    }

    /// Appends to the vendor's log what its server would refuse: in place of the server, with the
    /// log's own key and store, as a dishonest operator would. Nothing stops the witnesses.
    pub(crate) fn smuggle(&mut self, envelopes: &[&Envelope]) {
        assert_eq!(self.vendor.stop().code, 0);
        self.append_as_owner(envelopes);
        self.vendor.start();
    }

    /// Appends to the vendor's log with its own key and store, while no server runs it.
    pub(crate) fn append_as_owner(&self, envelopes: &[&Envelope]) -> Vec<LogProof> {
        let config = Config::load(&self.file("vendor/clerestory.toml")).unwrap();
        let Config::Vendor(vendor) = &config else { panic!("no vendor") };
        let policy = self.policy();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let parts = server::serve::log_parts(&vendor.log, &config, &policy).await.unwrap();
            let (log, sequencer) = log::Log::open(parts).await.unwrap();
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let running = tokio::spawn(sequencer.run(async move { drop(stopped.await) }));
            // All at once, in this order.
            let appended = envelopes.iter().map(|envelope| log.append(envelope.to_bytes().into()));
            let receipts = futures::future::try_join_all(appended).await.unwrap();
            drop(stop);
            running.await.unwrap().unwrap();
            receipts.iter().map(log::Receipt::proof).collect()
        })
    }
}
