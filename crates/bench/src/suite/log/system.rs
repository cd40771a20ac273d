//! A vendor and four witnesses as processes, made by the commands that users make them with.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use attest::Lane;
use log::{Faulty, Limits, LogParts};
use policy::{
    Ages, LanePolicy, LogPolicyEntry, Organisation, Policy, ProductPolicy, Role, RoleKey, StreamPolicy, Threshold,
    Witnessing,
};
use stdx::{SystemClock, durable};
use storage::{FileObjects, ObjectStore, SqliteStore};
use tlog::{LogPolicy, SignerKey};

/// 3 of 4 witnesses, one of which may be faulty.
const WITNESSES: usize = 4;
pub(super) const LOG: &str = "vendor.example/log";

/// A role as a process, with a socket of its own.
pub(in crate::suite) struct Server {
    folder: PathBuf,
    listener: TcpListener,
    child: Option<Child>,
}

impl Server {
    pub(in crate::suite) fn bound(folder: PathBuf) -> anyhow::Result<Self> {
        Ok(Self { folder, listener: TcpListener::bind("127.0.0.1:0")?, child: None })
    }

    pub(in crate::suite) fn address(&self) -> anyhow::Result<SocketAddr> {
        self.listener.local_addr().context("a bound socket has an address")
    }

    pub(in crate::suite) fn start(&mut self, program: &Path) -> anyhow::Result<()> {
        self.start_on(program, None)
    }

    /// The same on one core alone.
    pub(in crate::suite) fn start_on(&mut self, program: &Path, core: Option<usize>) -> anyhow::Result<()> {
        let socket = OwnedFd::from(self.listener.try_clone()?);
        let mut command = match core {
            // It is found where util-linux has it; the environment is the program's.
            Some(core) => {
                let mut pinned = Command::new("/usr/bin/taskset");
                pinned.arg("-c").arg(core.to_string()).arg(program);
                pinned
            }
            None => Command::new(program),
        };
        let child = command
            .args(["serve", "--config", "clerestory.toml"])
            .current_dir(&self.folder)
            .env_clear()
            .stdin(Stdio::from(socket))
            .stderr(std::fs::File::create(self.folder.join("stderr"))?)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }
}

impl Server {
    /// Ends it as a power cut would.
    pub(in crate::suite) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Bytes of memory that are its own: not of files.
    pub(super) fn memory(&self) -> anyhow::Result<f64> {
        let id = self.child.as_ref().context("it runs")?.id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("the kernel says how much")?;
        let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kilobytes * 1024.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How many streams the policy opens in the vendor's log.
#[derive(Clone, Copy)]
pub(super) struct Streams(pub(super) usize);

/// The processes and what they were made of.
pub(super) struct System {
    folder: PathBuf,
    program: PathBuf,
    pub(super) vendor: Server,
    pub(super) witnesses: Vec<Server>,
}

impl System {
    /// Everything is made, and the witnesses run. The policy opens so many streams.
    pub(super) fn new(folder: &Path, program: &Path, streams: Streams) -> anyhow::Result<Self> {
        let at = |name: &str| Server::bound(folder.join(name));
        let witnesses = (0..WITNESSES).map(|n| at(&format!("w{n}"))).collect::<anyhow::Result<Vec<_>>>()?;
        let mut system = Self { folder: folder.into(), program: program.into(), vendor: at("vendor")?, witnesses };
        system.run(&["init", "vendor", "--dir", "vendor", "--organisation", "vendor"])?;
        system.run(&["init", "supervisor", "--dir", "supervisor", "--organisation", "supervisor"])?;
        let log = system.vkey("vendor/keys/log")?;
        for n in 0..WITNESSES {
            let name = format!("w{n}");
            system.run(&["init", "witness", "--dir", &name, "--organisation", &name, "--log", &log])?;
        }
        let genesis = system.sign_policy(streams)?;
        for name in ["vendor".to_owned()].into_iter().chain((0..WITNESSES).map(|n| format!("w{n}"))) {
            let path = folder.join(&name).join("clerestory.toml");
            let change = |line: &str| match line {
                line if line.starts_with("listen = ") => "listen = \"stdin\"\n".to_owned(),
                line if line.starts_with("# genesis = ") => format!("genesis = \"{genesis}\"\n"),
                line if line.starts_with("heartbeat_s = ") => "heartbeat_s = 86400\n".to_owned(),
                line => format!("{line}\n"),
            };
            let text = std::fs::read_to_string(&path)?;
            durable::write(&path, text.lines().map(change).collect::<String>().as_bytes())?;
        }
        system.run(&["log", "create", "--config", "vendor/clerestory.toml"])?;
        for witness in &mut system.witnesses {
            witness.start(&system.program)?;
        }
        Ok(system)
    }

    pub(super) fn start_vendor(&mut self) -> anyhow::Result<()> {
        self.vendor.start(&self.program)
    }

    fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let done = Command::new(&self.program).current_dir(&self.folder).args(arguments).env_clear().output()?;
        let stderr = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "`clerestory {}` failed: {stderr}", arguments.join(" "));
        Ok(String::from_utf8(done.stdout)?)
    }

    fn vkey(&self, path: &str) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.folder.join(format!("{path}.pub")))?.trim_end().to_owned())
    }

    pub(super) fn key(&self, path: &str) -> anyhow::Result<SignerKey> {
        server::key_file::load(&self.folder.join(format!("{path}.key")))
    }

    fn sign_policy(&self, streams: Streams) -> anyhow::Result<String> {
        let toml = toml::to_string_pretty(&self.policy(streams)?)?;
        durable::write(&self.folder.join("policy.toml"), toml.as_bytes())?;
        let draft = ["policy", "draft", "policy.toml", "--log", LOG, "--stream", "policy", "--out", "payload"];
        self.run(&draft)?;
        for name in ["vendor", "supervisor"] {
            let (key, out) = (format!("{name}/keys/policy.key"), format!("{name}.signed"));
            self.run(&["policy", "sign", "--key", &key, "payload", "--out", &out])?;
        }
        let assemble = ["--json", "policy", "assemble", "vendor.signed", "supervisor.signed", "--out"];
        let done = self.run(&[&assemble[..], &["vendor/policy/1.envelope"]].concat())?;
        let done: serde_json::Value = serde_json::from_str(&done)?;
        Ok(done.get("id").and_then(|id| id.as_str()).context("no id")?.to_owned())
    }

    fn policy(&self, streams: Streams) -> anyhow::Result<Policy> {
        let both = || -> Vec<Threshold> {
            let threshold = |name: &str| Threshold { organisation: name.parse().expect("a name"), count: 1 };
            ["vendor", "supervisor"].into_iter().map(threshold).collect()
        };
        let roles = [
            ("builder", Role::Builder),
            ("release", Role::Release),
            ("approver", Role::Approver),
            ("policy", Role::Policy),
            ("recorder", Role::Recorder),
            ("status", Role::Status),
        ];
        let organisation = |name: &str| -> anyhow::Result<Organisation> {
            let files = roles.into_iter().filter(|(file, _)| self.vkey(&format!("{name}/keys/{file}")).is_ok());
            let key =
                |(file, role)| anyhow::Ok(RoleKey { role, key: self.vkey(&format!("{name}/keys/{file}"))?.parse()? });
            Ok(Organisation { id: name.parse()?, keys: files.map(key).collect::<anyhow::Result<_>>()? })
        };
        let stream = |log: &str, stream: &str, organisation: &str| -> anyhow::Result<StreamPolicy> {
            Ok(StreamPolicy {
                log: log.parse()?,
                stream: stream.parse()?,
                organisation: organisation.parse()?,
                interval_s: 86400,
            })
        };
        let mut opened = vec![stream(LOG, "policy", "vendor")?, stream("supervisor.example/log", "s", "supervisor")?];
        for number in 0..streams.0 {
            opened.push(stream(LOG, &format!("s/{number}"), "vendor")?);
        }
        let log = |name: &str| -> anyhow::Result<LogPolicyEntry> {
            Ok(LogPolicyEntry { origin: format!("{name}.example/log").parse()?, organisation: name.parse()? })
        };
        Ok(Policy {
            name: "bench".to_owned(),
            version: 1,
            channel_root: None,
            ages: Ages::default(),
            witnessing: Witnessing { faulty: 1, policy: self.log_policy()? },
            organisations: vec![organisation("vendor")?, organisation("supervisor")?],
            logs: vec![log("vendor")?, log("supervisor")?],
            lanes: vec![LanePolicy {
                lane: Lane::Slow,
                builders: both(),
                release: both(),
                approvals: both(),
                log: LOG.parse()?,
                status: "supervisor".parse()?,
                status_log: "supervisor.example/log".parse()?,
                canary: None,
            }],
            mirrors: Vec::new(),
            lookup: None,
            residency: None,
            products: vec![ProductPolicy { id: "libexample".parse()?, lane: Lane::Slow }],
            streams: opened,
            change: both(),
        })
    }

    fn log_policy(&self) -> anyhow::Result<String> {
        let mut text = format!("log {}\n", self.vkey("vendor/keys/log")?);
        text += &format!("log {}\n", self.vkey("supervisor/keys/log")?);
        for (n, witness) in self.witnesses.iter().enumerate() {
            let key = self.vkey(&format!("w{n}/keys/witness"))?;
            text += &format!("witness w{n} {key} http://{}\n", witness.address()?);
        }
        Ok(text + "group g 3 w0 w1 w2 w3\nquorum g\n")
    }

    /// The vendor's log in this process, on the same store and with the same witnesses.
    pub(super) async fn log_parts(&self) -> anyhow::Result<LogParts> {
        let policy = LogPolicy::parse(self.log_policy()?)?;
        let objects: Arc<dyn ObjectStore> = Arc::new(FileObjects::open(&self.folder.join("vendor/log")).await?);
        Ok(LogParts {
            objects,
            locks: Arc::new(SqliteStore::open(&self.folder.join("vendor/state.sqlite")).await?),
            witnesses: server::peer::witnesses_of(&policy)?,
            clock: Arc::new(SystemClock::new()),
            signer: Arc::new(self.key("vendor/keys/log")?),
            policy,
            faulty: Faulty(1),
            limits: Limits::default(),
        })
    }

    pub(super) fn store(&self) -> PathBuf {
        self.folder.join("vendor/log")
    }
}
