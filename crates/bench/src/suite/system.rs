//! Organisations and witnesses as processes, made by the commands that users make them with.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use attest::Lane;
use policy::{
    Ages, LanePolicy, LogPolicyEntry, Organisation, Policy, Role, RoleKey, StreamPolicy, Threshold, Witnessing,
};
use serde_json::Value;
use stdx::durable;

use crate::programs::{Programs, succeed};
use crate::suite::log::Server;

const WITNESSES: usize = 4;
/// Each with a log of its own.
pub(super) const ORGANISATIONS: [&str; 2] = ["vendor", "supervisor"];
pub(super) const VENDOR: usize = 0;
pub(super) const SUPERVISOR: usize = 1;
const DAY_S: u64 = 24 * 60 * 60;

pub(super) struct System {
    folder: PathBuf,
    programs: Programs,
    /// In this order: vendor, supervisor, witnesses, whatever else there is.
    servers: Vec<Server>,
    genesis: String,
}

impl System {
    /// Everything is made, nothing runs. `more` makes the folders of further `servers`, and says in the policy what
    /// they are there for.
    pub(super) fn made(
        folder: &Path,
        programs: Programs,
        servers: &[&str],
        more: impl FnOnce(&Self, &mut Policy) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        Self::made_with(folder, programs, (servers, &[]), more)
    }

    /// The same with further arguments for `init vendor`.
    pub(super) fn made_with(
        folder: &Path,
        programs: Programs,
        (servers, vendor): (&[&str], &[&str]),
        more: impl FnOnce(&Self, &mut Policy) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let witnesses: Vec<String> = (0..WITNESSES).map(|n| format!("w{n}")).collect();
        let names =
            ORGANISATIONS.into_iter().chain(witnesses.iter().map(String::as_str)).chain(servers.iter().copied());
        let names: Vec<&str> = names.collect();
        let bound = names.iter().map(|name| Server::bound(folder.join(name))).collect::<anyhow::Result<Vec<_>>>()?;
        let mut system = Self { folder: folder.to_owned(), programs, servers: bound, genesis: String::new() };
        for name in ORGANISATIONS {
            let further = if name == "vendor" { vendor } else { &[] };
            system.run(&[&["init", name, "--dir", name, "--organisation", name][..], further].concat())?;
        }
        let [vendor, supervisor] = [system.vkey("vendor", "log")?, system.vkey("supervisor", "log")?];
        for name in &witnesses {
            let logs = ["--log", &vendor, "--log", &supervisor];
            system.run(&[&["init", "witness", "--dir", name, "--organisation", name][..], &logs[..]].concat())?;
        }
        let root = system.run(&["--json", "release", "create-channel", "--config", "vendor/clerestory.toml"])?;
        let url = system.url(SUPERVISOR)?;
        system.change("vendor", |line| {
            line.starts_with("# supervisor = ").then(|| format!("supervisor = \"{url}\"\n"))
        })?;
        let mut policy = system.policy(&serde_json::from_str::<String>(&root)?)?;
        more(&system, &mut policy)?;
        system.genesis = system.sign_policy(&policy)?;
        for name in names {
            let envelope = system.file(&format!("{name}/policy/1.envelope"));
            if !envelope.exists() && system.file(&format!("{name}/policy")).is_dir() {
                std::fs::copy(system.file("vendor/policy/1.envelope"), envelope)?;
            }
            system.change(name, |line| match line {
                line if line.starts_with("listen = ") => Some("listen = \"stdin\"\n".to_owned()),
                line if line.starts_with("# genesis = ") => Some(format!("genesis = \"{}\"\n", system.genesis)),
                _ => None,
            })?;
        }
        for name in ORGANISATIONS {
            system.run(&["log", "create", "--config", &format!("{name}/clerestory.toml")])?;
        }
        Ok(system)
    }

    /// Starts everything but the vendor, and has the supervisor say how it stands.
    pub(super) fn start(&mut self) -> anyhow::Result<()> {
        let program = self.programs.path("clerestory")?;
        for server in self.servers.iter_mut().skip(1) {
            server.start(&program)?;
        }
        self.run(&["status", "publish", "--config", "supervisor/clerestory.toml"]).map(drop)
    }

    /// Starts the vendor: it asks the supervisor for a status.
    pub(super) fn start_vendor(&mut self) -> anyhow::Result<()> {
        let program = self.programs.path("clerestory")?;
        self.servers.first_mut().context("a vendor")?.start(&program)
    }

    /// Ends a server and starts it again: with what its configuration says now.
    pub(super) fn restart(&mut self, place: usize) -> anyhow::Result<()> {
        let program = self.programs.path("clerestory")?;
        let server = self.servers.get_mut(place).context("a server")?;
        server.kill();
        server.start(&program)
    }

    pub(super) fn file(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    /// The policy's id.
    pub(super) fn genesis(&self) -> &str {
        &self.genesis
    }

    pub(super) fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.program("clerestory")?;
        Ok(String::from_utf8(succeed(command.args(arguments))?.stdout)?)
    }

    /// A program, in the system's folder.
    pub(super) fn program(&self, name: &str) -> anyhow::Result<Command> {
        let mut command = self.programs.command(name)?;
        // git is looked for.
        command.current_dir(&self.folder);
        Ok(command)
    }

    pub(super) fn address(&self, place: usize) -> anyhow::Result<String> {
        Ok(self.servers.get(place).context("a server")?.address()?.to_string())
    }

    pub(super) fn url(&self, place: usize) -> anyhow::Result<String> {
        Ok(format!("http://{}", self.address(place)?))
    }

    /// The place of the first of the further servers.
    pub(super) const fn further() -> usize {
        ORGANISATIONS.len() + WITNESSES
    }

    pub(super) fn vkey(&self, folder: &str, role: &str) -> anyhow::Result<String> {
        let path = self.file(&format!("{folder}/keys/{role}.pub"));
        Ok(std::fs::read_to_string(path)?.trim_end().to_owned())
    }

    /// Lines of a configuration for which `change` has others.
    pub(super) fn change(&self, name: &str, change: impl Fn(&str) -> Option<String>) -> anyhow::Result<()> {
        let path = self.file(&format!("{name}/clerestory.toml"));
        let text = std::fs::read_to_string(&path)?;
        let lines = text.lines().map(|line| change(line).unwrap_or_else(|| format!("{line}\n")));
        Ok(durable::write(&path, lines.collect::<String>().as_bytes())?)
    }

    fn sign_policy(&self, policy: &Policy) -> anyhow::Result<String> {
        let toml = toml::to_string_pretty(policy)?;
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

    /// A stream by its log's organisation, its name, and who writes it.
    pub(super) fn stream([log, stream, organisation]: [&str; 3]) -> anyhow::Result<StreamPolicy> {
        let log = format!("{log}.example/log").parse()?;
        Ok(StreamPolicy { log, stream: stream.parse()?, organisation: organisation.parse()?, interval_s: DAY_S })
    }

    fn policy(&self, root: &str) -> anyhow::Result<Policy> {
        let both = || -> anyhow::Result<Vec<Threshold>> {
            ORGANISATIONS.iter().map(|it| Ok(Threshold { organisation: it.parse()?, count: 1 })).collect()
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
        ];
        Ok(Policy {
            name: "bench".to_owned(),
            version: 1,
            channel_root: Some(root.parse()?),
            ages: Ages::default(),
            witnessing: Witnessing { faulty: 1, policy: self.witnessing()? },
            organisations: ORGANISATIONS.iter().map(|name| self.organisation(name)).collect::<anyhow::Result<_>>()?,
            logs: ORGANISATIONS.iter().map(log).collect::<anyhow::Result<_>>()?,
            lanes: vec![slow],
            mirrors: Vec::new(),
            lookup: None,
            residency: None,
            products: Vec::new(),
            streams: streams.map(Self::stream).into_iter().collect::<anyhow::Result<_>>()?,
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
}
