//! A system with a fast lane, and an endpoint in ring `canary`.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use attest::Lane;
use policy::{CanaryPolicy, LanePolicy, Policy, ProductPolicy};
use serde_json::Value;
use stdx::durable;

use crate::programs::{Programs, succeed};
use crate::suite::system::{self, ORGANISATIONS, SUPERVISOR, VENDOR};
use crate::suite::traffic::Relay;

pub(super) const PRODUCT: &str = "signatures";
/// Who bakes is nobody here: how long it takes is a setting.
const CANARY: CanaryPolicy = CanaryPolicy { healthy: 1, bake_s: 3600, unhealthy: 1, fires: 100 };

pub(super) struct System {
    system: system::System,
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

fn add_fast_lane(policy: &mut Policy) -> anyhow::Result<()> {
    let slow = policy.lanes.first().context("the slow lane")?.clone();
    policy.lanes.push(LanePolicy { lane: Lane::Fast, approvals: Vec::new(), canary: Some(CANARY), ..slow });
    policy.products.push(ProductPolicy { id: PRODUCT.parse()?, lane: Lane::Fast });
    for stream in ["status/fast", "canary/supervisor"] {
        policy.streams.push(system::System::stream(["supervisor", stream, "supervisor"])?);
    }
    Ok(())
}

impl System {
    pub(super) fn new(folder: &Path, programs: Programs) -> anyhow::Result<Self> {
        let mut system = system::System::made(folder, programs, &[], |_, policy| add_fast_lane(policy))?;
        let relay = Relay::before(&system.address(VENDOR)?)?;
        system.start()?;
        system.start_vendor()?;
        system.run(&["release", "freshen", "--config", "vendor/clerestory.toml"])?;
        let system = Self { system, relay };
        system.make_endpoint()?;
        Ok(system)
    }

    pub(super) fn file(&self, path: &str) -> PathBuf {
        self.system.file(path)
    }

    pub(super) const fn relay(&self) -> &Relay {
        &self.relay
    }

    pub(super) fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.system.run(arguments)
    }

    /// `rules push`; `now` is asked when it says what it does.
    pub(super) fn push(
        &self,
        repository: &Path,
        commit: &str,
        version: &str,
        now: impl Fn() -> f64,
    ) -> anyhow::Result<Pushed> {
        let mut command = self.system.program("clerestory")?;
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

    fn agent(&self) -> anyhow::Result<Command> {
        let mut command = self.system.program("clerestory-agent")?;
        command.arg("--config").arg(self.file("endpoint/agent.toml"));
        Ok(command)
    }

    fn make_endpoint(&self) -> anyhow::Result<()> {
        let folder = self.file("endpoint");
        durable::create_folder(&folder)?;
        let (at, relay) = (folder.display(), self.relay.address());
        let text = format!(
            "state = \"{at}/state\"\ninstall = \"{at}/install\"\nchannel = [\"http://{relay}/channel\"]\n\
             ring = \"canary\"\n[[log]]\norigin = \"vendor.example/log\"\nurl = \"http://{relay}\"\n\
             [[log]]\norigin = \"supervisor.example/log\"\nurl = \"http://{}\"\n[[product]]\nid = \"{PRODUCT}\"\n",
            self.system.address(SUPERVISOR)?
        );
        durable::write(&folder.join("agent.toml"), text.as_bytes())?;
        let policy = self.file("vendor/policy/1.envelope");
        succeed(self.agent()?.args(["init", "--policy-hash", self.system.genesis(), "--policy"]).arg(policy)).map(drop)
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
