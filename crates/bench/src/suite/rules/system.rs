//! A vendor, a supervisor and four witnesses as processes, with a fast lane, made by the commands that users
//! make them with; and an endpoint in ring `canary`.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use attest::Lane;
use policy::{
    Ages, CanaryPolicy, LanePolicy, LogPolicyEntry, Organisation, Policy, ProductPolicy, Role, RoleKey, StreamPolicy,
    Threshold, Witnessing,
};
use serde_json::Value;
use stdx::durable;

use crate::programs::{Programs, succeed};
use crate::suite::log::Server;
use crate::suite::traffic::Relay;

pub(super) const PRODUCT: &str = "signatures";
const WITNESSES: usize = 4;
const ORGANISATIONS: [&str; 2] = ["vendor", "supervisor"];
/// Who bakes is nobody here: how long it takes is a setting.
const CANARY: CanaryPolicy = CanaryPolicy { healthy: 1, bake_s: 3600, unhealthy: 1, fires: 100 };
const DAY_S: u64 = 24 * 60 * 60;

pub(super) struct System {
    folder: PathBuf,
    programs: Programs,
    /// In this order: vendor, supervisor, witnesses.
    servers: Vec<Server>,
    /// Before the vendor: what an endpoint fetches goes through it.
    relay: Relay,
}

/// How a command ended, and when it said what.
pub(super) struct Pushed {
    pub(super) report: Value,
    pub(super) code: i32,
    /// Its steps, each with the moment at which it began; the last moment is the end.
    pub(super) steps: Vec<(String, f64)>,
}

impl System {
    pub(super) fn new(folder: &Path, programs: Programs) -> anyhow::Result<Self> {
        let names = ORGANISATIONS.map(str::to_owned).into_iter().chain((0..WITNESSES).map(|n| format!("w{n}")));
        let servers = names.map(|name| Server::bound(folder.join(name))).collect::<anyhow::Result<Vec<_>>>()?;
        let relay = Relay::before(&servers.first().context("a vendor")?.address()?.to_string())?;
        let mut system = Self { folder: folder.to_owned(), programs, servers, relay };
        for name in ORGANISATIONS {
            system.run(&["init", name, "--dir", name, "--organisation", name])?;
        }
        let [vendor, supervisor] = [system.vkey("vendor", "log")?, system.vkey("supervisor", "log")?];
        for n in 0..WITNESSES {
            let name = format!("w{n}");
            let logs = ["--log", &vendor, "--log", &supervisor];
            system.run(&[&["init", "witness", "--dir", &name, "--organisation", &name][..], &logs[..]].concat())?;
        }
        let root = system.run(&["--json", "release", "create-channel", "--config", "vendor/clerestory.toml"])?;
        let root: String = serde_json::from_str(&root)?;
        let url = format!("http://{}", system.address(1)?);
        system.change("vendor", |line| {
            line.starts_with("# supervisor = ").then(|| format!("supervisor = \"{url}\"\n"))
        })?;
        let genesis = system.sign_policy(&root)?;
        for name in ORGANISATIONS.map(str::to_owned).into_iter().chain((0..WITNESSES).map(|n| format!("w{n}"))) {
            system.change(&name, |line| match line {
                line if line.starts_with("listen = ") => Some("listen = \"stdin\"\n".to_owned()),
                line if line.starts_with("# genesis = ") => Some(format!("genesis = \"{genesis}\"\n")),
                _ => None,
            })?;
        }
        for name in ORGANISATIONS {
            system.run(&["log", "create", "--config", &format!("{name}/clerestory.toml")])?;
        }
        let program = system.programs.path("clerestory")?;
        // The vendor last: it asks the supervisor for a status.
        for server in system.servers.iter_mut().skip(1) {
            server.start(&program)?;
        }
        system.run(&["status", "publish", "--config", "supervisor/clerestory.toml"])?;
        system.servers.first_mut().context("a vendor")?.start(&program)?;
        system.run(&["release", "freshen", "--config", "vendor/clerestory.toml"])?;
        system.make_endpoint(&genesis)?;
        Ok(system)
    }

    pub(super) fn file(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    pub(super) const fn relay(&self) -> &Relay {
        &self.relay
    }

    pub(super) fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.clerestory()?;
        Ok(String::from_utf8(succeed(command.args(arguments))?.stdout)?)
    }

    /// `rules push`; `now` is asked when it says what it does.
    pub(super) fn push(
        &self,
        repository: &Path,
        commit: &str,
        version: &str,
        now: impl Fn() -> f64,
    ) -> anyhow::Result<Pushed> {
        let mut command = self.clerestory()?;
        command.args(["--json", "rules", "push", "--config", "vendor/clerestory.toml", "--repository"]);
        command.arg(repository).args([commit, version]).env("RUST_LOG", "info");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (mut steps, mut said) = (Vec::new(), String::new());
        for line in BufReader::new(child.stderr.take().context("its words")?).lines() {
            let line = line?;
            if let Some(step) = STEPS.get(steps.len()).filter(|step| line.contains(**step)) {
                steps.push(((*step).to_owned(), now()));
            }
            said = line;
        }
        let mut stdout = String::new();
        child.stdout.take().context("its answer")?.read_to_string(&mut stdout)?;
        let code = child.wait()?.code().unwrap_or(-1);
        steps.push(("end".to_owned(), now()));
        let report = serde_json::from_str(&stdout).with_context(|| format!("push of {version}: {said}"))?;
        Ok(Pushed { report, code, steps })
    }

    /// What people do with rules that are not fit for the fast lane: each organisation's approves, and they go out.
    pub(super) fn approve(&self, version: &str) -> anyhow::Result<()> {
        let folder = format!("vendor/builds/{PRODUCT}/{version}");
        let result = format!("{folder}/result.bundle");
        for name in ORGANISATIONS {
            let (config, key) = (format!("{name}/clerestory.toml"), format!("{name}/keys/approver.key"));
            let out = format!("{folder}/approvals/{name}.bundle");
            self.run(&["release", "approve", "--config", &config, "--key", &key, "--result", &result, "--out", &out])?;
        }
        self.run(&["release", "publish", "--config", "vendor/clerestory.toml", PRODUCT, version]).map(drop)
    }

    /// `clerestory-agent update`: gives what it said.
    pub(super) fn update(&self) -> anyhow::Result<Value> {
        let output = succeed(self.agent()?.args(["--json", "update"]))?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// The rules that the endpoint uses.
    pub(super) fn active(&self) -> anyhow::Result<Vec<u8>> {
        Ok(std::fs::read(self.file(&format!("endpoint/install/{PRODUCT}/current/rules.yar")))?)
    }

    fn clerestory(&self) -> anyhow::Result<Command> {
        let mut command = self.programs.command("clerestory")?;
        // git is looked for.
        command.current_dir(&self.folder);
        Ok(command)
    }

    fn agent(&self) -> anyhow::Result<Command> {
        let mut command = self.programs.command("clerestory-agent")?;
        command.arg("--config").arg(self.file("endpoint/agent.toml"));
        Ok(command)
    }

    fn make_endpoint(&self, genesis: &str) -> anyhow::Result<()> {
        let folder = self.file("endpoint");
        durable::create_folder(&folder)?;
        let (at, relay) = (folder.display(), self.relay.address());
        let text = format!(
            "state = \"{at}/state\"\ninstall = \"{at}/install\"\nchannel = [\"http://{relay}/channel\"]\n\
             ring = \"canary\"\n[[log]]\norigin = \"vendor.example/log\"\nurl = \"http://{relay}\"\n\
             [[log]]\norigin = \"supervisor.example/log\"\nurl = \"http://{}\"\n[[product]]\nid = \"{PRODUCT}\"\n",
            self.address(1)?
        );
        durable::write(&folder.join("agent.toml"), text.as_bytes())?;
        let policy = self.file("vendor/policy/1.envelope");
        succeed(self.agent()?.args(["init", "--policy-hash", genesis, "--policy"]).arg(policy)).map(drop)
    }

    fn address(&self, place: usize) -> anyhow::Result<String> {
        Ok(self.servers.get(place).context("a server")?.address()?.to_string())
    }

    fn vkey(&self, organisation: &str, role: &str) -> anyhow::Result<String> {
        let path = self.file(&format!("{organisation}/keys/{role}.pub"));
        Ok(std::fs::read_to_string(path)?.trim_end().to_owned())
    }

    /// Lines of a configuration for which `change` has others.
    fn change(&self, name: &str, change: impl Fn(&str) -> Option<String>) -> anyhow::Result<()> {
        let path = self.file(&format!("{name}/clerestory.toml"));
        let text = std::fs::read_to_string(&path)?;
        let lines = text.lines().map(|line| change(line).unwrap_or_else(|| format!("{line}\n")));
        Ok(durable::write(&path, lines.collect::<String>().as_bytes())?)
    }

    fn sign_policy(&self, root: &str) -> anyhow::Result<String> {
        let toml = toml::to_string_pretty(&self.policy(root)?)?;
        durable::write(&self.file("policy.toml"), toml.as_bytes())?;
        let draft = ["policy", "draft", "policy.toml", "--log", "vendor.example/log", "--stream", "policy"];
        self.run(&[&draft[..], &["--out", "payload"]].concat())?;
        for name in ORGANISATIONS {
            let (key, out) = (format!("{name}/keys/policy.key"), format!("{name}.signed"));
            self.run(&["policy", "sign", "--key", &key, "payload", "--out", &out])?;
        }
        let out = "vendor/policy/1.envelope";
        let said = self.run(&["--json", "policy", "assemble", "vendor.signed", "supervisor.signed", "--out", out])?;
        std::fs::copy(self.file(out), self.file("supervisor/policy/1.envelope"))?;
        let said: Value = serde_json::from_str(&said)?;
        Ok(said.get("id").and_then(Value::as_str).context("no id")?.to_owned())
    }

    fn policy(&self, root: &str) -> anyhow::Result<Policy> {
        let both = || -> anyhow::Result<Vec<Threshold>> {
            ORGANISATIONS.iter().map(|it| Ok(Threshold { organisation: it.parse()?, count: 1 })).collect()
        };
        let stream = |[log, stream, organisation]: [&str; 3]| -> anyhow::Result<StreamPolicy> {
            let log = format!("{log}.example/log").parse()?;
            Ok(StreamPolicy { log, stream: stream.parse()?, organisation: organisation.parse()?, interval_s: DAY_S })
        };
        let slow = LanePolicy {
            lane: Lane::Slow,
            builders: both()?,
            release: both()?,
            approvals: both()?,
            log: "vendor.example/log".parse()?,
            status: "supervisor".parse()?,
            status_log: "supervisor.example/log".parse()?,
            canary: None,
        };
        let fast = LanePolicy { lane: Lane::Fast, approvals: Vec::new(), canary: Some(CANARY), ..slow.clone() };
        let log = |name: &&str| -> anyhow::Result<LogPolicyEntry> {
            Ok(LogPolicyEntry { origin: format!("{name}.example/log").parse()?, organisation: name.parse()? })
        };
        let streams = [
            ["vendor", "policy", "vendor"],
            ["vendor", "assembly/vendor", "vendor"],
            ["vendor", "release/vendor", "vendor"],
            ["vendor", "approval/vendor", "vendor"],
            ["vendor", "approval/supervisor", "supervisor"],
            ["supervisor", "rebuild/supervisor", "supervisor"],
            ["supervisor", "desk/supervisor", "supervisor"],
            ["supervisor", "status/slow", "supervisor"],
            ["supervisor", "status/fast", "supervisor"],
            ["supervisor", "canary/supervisor", "supervisor"],
        ];
        Ok(Policy {
            name: "bench".to_owned(),
            version: 1,
            channel_root: Some(root.parse()?),
            ages: Ages::default(),
            witnessing: Witnessing { faulty: 1, policy: self.witnessing()? },
            organisations: ORGANISATIONS.iter().map(|name| self.organisation(name)).collect::<anyhow::Result<_>>()?,
            logs: ORGANISATIONS.iter().map(log).collect::<anyhow::Result<_>>()?,
            lanes: vec![slow, fast],
            mirrors: Vec::new(),
            lookup: None,
            residency: None,
            products: vec![ProductPolicy { id: PRODUCT.parse()?, lane: Lane::Fast }],
            streams: streams.map(stream).into_iter().collect::<anyhow::Result<_>>()?,
            change: both()?,
        })
    }

    fn witnessing(&self) -> anyhow::Result<String> {
        let mut text = String::new();
        for (place, name) in ORGANISATIONS.iter().enumerate() {
            text += &format!("log {} http://{}\n", self.vkey(name, "log")?, self.address(place)?);
        }
        for n in 0..WITNESSES {
            let (key, address) = (self.vkey(&format!("w{n}"), "witness")?, self.address(ORGANISATIONS.len() + n)?);
            text += &format!("witness w{n} {key} http://{address}\n");
        }
        Ok(text + "group g 3 w0 w1 w2 w3\nquorum g\n")
    }

    fn organisation(&self, name: &str) -> anyhow::Result<Organisation> {
        let roles = [
            ("builder", Role::Builder),
            ("release", Role::Release),
            ("rules", Role::Rules),
            ("approver", Role::Approver),
            ("policy", Role::Policy),
            ("recorder", Role::Recorder),
            ("status", Role::Status),
        ];
        let files = roles.into_iter().filter(|(file, _)| self.vkey(name, file).is_ok());
        let key = |(file, role)| anyhow::Ok(RoleKey { role, key: self.vkey(name, file)?.parse()? });
        Ok(Organisation { id: name.parse()?, keys: files.map(key).collect::<anyhow::Result<_>>()? })
    }

    /// Both organisations' copies of a corpus; gives its digest.
    pub(super) fn corpus(&self, name: &str) -> anyhow::Result<String> {
        let digest: String = serde_json::from_str(&self.run(&["--json", "rules", "corpus", name])?)?;
        for side in ORGANISATIONS {
            let copy = self.file(&format!("{side}/corpora/{digest}"));
            durable::create_folder(&copy)?;
            for entry in std::fs::read_dir(self.file(name))? {
                let from = entry?.path();
                let to = copy.join(from.file_name().context("a sample has a name")?);
                std::fs::copy(&from, to)?;
            }
        }
        Ok(digest)
    }
}

/// What a push says that it does, in this order.
pub(super) const STEPS: [&str; 4] = ["logging the source", "both assemble", "signing the result", "releasing"];

/// A push must have ended well, or have been refused.
pub(super) fn check(pushed: &Pushed) -> anyhow::Result<bool> {
    ensure!(pushed.steps.len() > 1, "a push said nothing of what it did: {}", pushed.report);
    match pushed.code {
        0 => Ok(true),
        1 => Ok(false),
        code => bail!("a push ended with {code}: {}", pushed.report),
    }
}
