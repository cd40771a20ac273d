//! The stage: folders, keys, a policy, and the processes of every domain.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, bail};
use api::{BodyLimit, Client, path as api_path};
use attest::{Lane, StatementId};
use policy::{
    Ages, CanaryPolicy, LanePolicy, LogPolicyEntry, Organisation, Policy, ProductPolicy, Residency, Role, RoleKey,
    StreamPolicy, Threshold, Witnessing,
};
use stdx::{Clock as _, Digest, SystemClock, UnixTime, durable};
use tlog::VerifierKey;

use super::Options;
use super::report::Narrator;
use crate::failure::Failure;

/// Four witnesses, of which three are a quorum and one may be faulty.
pub(super) const WITNESSES: [&str; 4] = ["w1", "w2", "w3", "w4"];
/// A product of the demo's own that builds differently each time.
pub(super) const CLOCK_PRODUCT: &str = "tells-the-time";
/// A product that is not released, but could be put in another's place.
pub(super) const OTHER_PRODUCT: &str = "something-else";
/// The detection rules.
pub(super) const RULES_PRODUCT: &str = "guarddog";
/// The detection rules that are made of a list of hosts that spread malware.
pub(super) const INDICATORS: &str = "urlhaus";
/// What the threat cloud says is bad, as a set of hashes.
pub(super) const REPUTATION: &str = "reputation";
/// Custodians: who, and how shares are sealed to each.
pub(super) const CUSTODIANS: [(&str, &str); 2] = [("supervisor", "p256"), ("member", "x-wing")];
/// A host of the supervisor's, in the region.
pub(super) const WORKER: &str = "worker";
/// Which countries' data lies in which region, and who must agree before it is read.
const RESIDENCY: &str = include_str!("../../../../docs/samples/residency.toml");
/// Who may ask what for which purpose.
const ACCESS_RULES: &str = include_str!("../../../../docs/samples/access.cedar");
/// A release of rules stays in a ring for a second: nobody wants to watch that for long, either.
const CANARY: CanaryPolicy = CanaryPolicy { healthy: 1, bake_s: 1, unhealthy: 1, fires: 1_000 };

/// What vendor and supervisor have keys for.
const ROLES: [Role; 6] = [Role::Builder, Role::Release, Role::Rules, Role::Approver, Role::Policy, Role::Recorder];
const DAY_S: u64 = 24 * 60 * 60;
/// People approve when they do.
const PEOPLE_S: u64 = 3650 * DAY_S;
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Folders, keys and processes of a demo.
pub struct Stage {
    folder: PathBuf,
    program: PathBuf,
    ports: BTreeMap<String, TcpListener>,
    children: Mutex<BTreeMap<String, Child>>,
    genesis: StatementId,
    client: Client,
}

impl Stage {
    /// Makes everything anew but what was fetched, and starts the processes of `program`, which is
    /// `clerestory`.
    ///
    /// # Errors
    /// When a command fails or a process does not serve.
    pub fn set(program: &Path, options: &Options, narrator: &Narrator) -> anyhow::Result<Self> {
        narrator.chapter("Setting the stage");
        let folder = options.folder.join("run");
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("can't remove `{}`", folder.display()))?;
        }
        durable::create_folder(&folder).with_context(|| format!("can't make `{}`", folder.display()))?;
        let folder = fs::canonicalize(&folder)?;
        let custodians = CUSTODIANS.map(|(who, _)| custodian(who));
        let names = ["vendor", "supervisor", WORKER].into_iter().chain(WITNESSES).map(str::to_owned);
        let ports = names
            .chain(custodians)
            .map(|name| Ok((name, TcpListener::bind("127.0.0.1:0")?)))
            .collect::<std::io::Result<BTreeMap<_, _>>>()
            .context("can't listen on the loopback address")?;
        let mut stage = Self {
            program: program.to_owned(),
            folder,
            ports,
            children: Mutex::new(BTreeMap::new()),
            genesis: StatementId::of(b""),
            client: Client::new(Duration::from_secs(60)),
        };
        stage.make_domains(options)?;
        narrator.say("keys and stores: a vendor, a supervisor, four witnesses, two custodians");
        stage.make_policy(options)?;
        narrator.say(&format!("policy signed by vendor and supervisor: {}", stage.genesis));
        for witness in WITNESSES {
            stage.start(witness)?;
        }
        for log in ["vendor", "supervisor"] {
            stage.clerestory(&["log", "create", "--config", &stage.config(log)])?;
            stage.start(log)?;
        }
        let genesis = stage.file("vendor/policy/1.envelope");
        stage.clerestory(&[
            "log",
            "append",
            "--config",
            &stage.config("vendor"),
            "--log",
            "vendor.example/log",
            &genesis,
        ])?;
        stage.wait_for_status()?;
        stage.clerestory(&["release", "freshen", "--config", &stage.config("vendor")])?;
        for (who, _) in CUSTODIANS {
            stage.start(&custodian(who))?;
        }
        narrator.say("eight processes serve; the policy is logged and witnessed by three of four");
        Ok(stage)
    }

    /// The folder of this run.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file of this run, as text for a command line.
    #[must_use]
    pub fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// The configuration of a domain.
    #[must_use]
    pub fn config(&self, name: &str) -> String {
        self.file(&format!("{name}/clerestory.toml"))
    }

    pub(super) const fn genesis(&self) -> StatementId {
        self.genesis
    }

    pub(super) fn url(&self, name: &str) -> anyhow::Result<String> {
        let listener = self.ports.get(name).with_context(|| format!("no process `{name}`"))?;
        Ok(format!("http://{}", listener.local_addr()?))
    }

    pub(super) fn addresses(&self) -> Vec<(String, String)> {
        self.ports.keys().filter_map(|name| Some((name.clone(), self.url(name).ok()?))).collect()
    }

    /// A program that lies beside this one.
    pub(super) fn beside(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.program.with_file_name(name);
        if path.is_file() {
            return Ok(path);
        }
        Err(Failure::usage(format!("`{}` is missing", path.display()))
            .hint("build all programs: `cargo xtask demo` does")
            .into())
    }

    /// Runs `clerestory` and gives what it printed as JSON.
    ///
    /// # Errors
    /// The program's own words.
    pub fn clerestory(&self, arguments: &[&str]) -> anyhow::Result<serde_json::Value> {
        let output = self.try_clerestory(arguments)?;
        if !output.status.success() {
            bail!("`clerestory {}`: {}", arguments.join(" "), last_words(&output));
        }
        if output.stdout.iter().all(u8::is_ascii_whitespace) {
            return Ok(serde_json::Value::Null);
        }
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("`clerestory {}` printed no JSON", arguments.join(" ")))
    }

    /// The same for what is no JSON.
    pub(super) fn clerestory_text(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.try_clerestory(arguments)?;
        anyhow::ensure!(output.status.success(), "`clerestory {}`: {}", arguments.join(" "), last_words(&output));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Asks a process as others do over the network.
    pub(super) fn post(&self, name: &str, path: &str, body: &[u8]) -> anyhow::Result<Vec<u8>> {
        Ok(self.client.post(&format!("{}{path}", self.url(name)?), body, BodyLimit(1 << 20))?)
    }

    /// The same in JSON.
    pub(super) fn post_json(
        &self,
        name: &str,
        path: &str,
        body: &serde_json::Value,
    ) -> anyhow::Result<serde_json::Value> {
        Ok(self.client.post_json(&format!("{}{path}", self.url(name)?), body, BodyLimit(1 << 20))?)
    }

    /// Runs `clerestory` whatever comes of it.
    pub(super) fn try_clerestory(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--json").env("RUST_LOG", "warn").stdin(Stdio::null());
        command.output().with_context(|| format!("can't run `{}`", self.program.display()))
    }

    /// Starts a process and waits until it serves.
    pub(super) fn start(&self, name: &str) -> anyhow::Result<()> {
        self.start_program(&self.program, name)
    }

    /// The same for another program.
    pub(super) fn start_program(&self, program: &Path, name: &str) -> anyhow::Result<()> {
        let listener = self.ports.get(name).with_context(|| format!("no process `{name}`"))?;
        let log = fs::File::options().create(true).append(true).open(self.folder.join(format!("{name}.log")))?;
        let child = Command::new(program)
            .args(["serve", "--config", &self.config(name)])
            .stdin(Stdio::from(OwnedFd::from(listener.try_clone()?)))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("can't start `{name}`"))?;
        if let Ok(mut children) = self.children.lock() {
            children.insert(name.to_owned(), child);
        }
        self.wait_until(&format!("`{name}` does not serve; see {name}.log"), || {
            let url = format!("{}{}", self.url(name)?, api_path::HEALTH);
            Ok(self.client.get(&url, BodyLimit(4096)).is_ok())
        })
    }

    /// A host in the region, enrolled by ceremony: its key and its program stand in the log. Gives its program's
    /// SHA-256.
    pub(super) fn start_worker(&self) -> anyhow::Result<String> {
        let program = self.beside("clerestory-query")?;
        let folder = self.folder().join(WORKER);
        durable::create_folder(&folder)?;
        let key = self.file("worker/host.key");
        self.clerestory(&["key", "generate", "--name", "host-1.example/host", &key])?;
        let code = self.worker_code()?;
        let (config, vkey) = (self.config("supervisor"), self.key("worker/host")?.to_string());
        let out = self.file("worker/enrolment.bundle");
        let enrol = ["data", "enrol", "--config", &config, "--key", &vkey, "--code", &code, "--region", "zurich"];
        self.clerestory(&[&enrol[..], &["--out", &out, "host-1"]].concat())?;
        let text = format!(
            "listen = \"stdin\"\nregion = \"zurich\"\npolicies = \"../supervisor/policy\"\ngenesis = \"{}\"\n\
             host_key = \"host.key\"\nenrolment = \"enrolment.bundle\"\nvault = \"{}\"\nmemory_mb = 256\n",
            self.genesis(),
            self.url("vendor")?
        );
        durable::write(&folder.join("clerestory.toml"), text.as_bytes())?;
        self.start_program(&program, WORKER)?;
        Ok(code)
    }

    /// SHA-256 of the worker's program.
    pub(super) fn worker_code(&self) -> anyhow::Result<String> {
        let code = Command::new(self.beside("clerestory-query")?).arg("code").output()?;
        anyhow::ensure!(code.status.success(), "`clerestory-query code`: {}", last_words(&code));
        Ok(String::from_utf8(code.stdout)?.trim().to_owned())
    }

    /// Ends a process by its id.
    pub(super) fn stop(&self, name: &str) -> anyhow::Result<()> {
        let child = self.children.lock().ok().and_then(|mut children| children.remove(name));
        if let Some(mut child) = child {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Waits for the supervisor's first status of each lane.
    fn wait_for_status(&self) -> anyhow::Result<()> {
        self.wait_until("the supervisor publishes no status; see supervisor.log", || {
            let url = format!("{}{}", self.url("supervisor")?, api_path::STATUS);
            let is_there = |lane| self.client.get(&format!("{url}/{lane}"), BodyLimit(1 << 20)).is_ok();
            Ok([Lane::Slow, Lane::Fast].into_iter().all(is_there))
        })
    }

    /// Waits until the vendor's channel has what the supervisor said last.
    pub(super) fn wait_until_carried(&self) -> anyhow::Result<()> {
        self.wait_until("the vendor does not carry the supervisor's status; see vendor.log", || {
            let mut carried = true;
            for lane in [Lane::Slow, Lane::Fast] {
                let status = |of: &str| -> anyhow::Result<Vec<u8>> {
                    let url = format!("{}/channel/{}", self.url(of)?, channel::layout::status(lane));
                    Ok(self.client.get(&url, BodyLimit(1 << 20))?)
                };
                carried &= status("vendor")? == status("supervisor")?;
            }
            Ok(carried)
        })
    }

    /// Asks again and again until something is so.
    pub(super) fn wait_until(
        &self,
        complaint: &str,
        mut ready: impl FnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let clock = SystemClock::new();
        while !ready()? {
            if clock.monotonic() > START_TIMEOUT {
                bail!("{complaint}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn make_domains(&self, options: &Options) -> anyhow::Result<()> {
        for name in ["vendor", "supervisor"] {
            self.clerestory(&["init", name, "--organisation", name, "--dir", &self.file(name)])?;
            // What was fetched outlives the run: each organisation has a depot of its own.
            let kept = options.folder.join("depots").join(name);
            durable::create_folder(&kept)?;
            let kept = fs::canonicalize(kept)?;
            let depot = self.folder.join(name).join("depot");
            fs::remove_dir_all(&depot)?;
            std::os::unix::fs::symlink(&kept, &depot)?;
            self.configure(name, "listen = \"127.0.0.1:808", "listen = \"stdin\"\n#")?;
            // Two witnesses will be silent for a while; nobody wants to watch that for long.
            self.configure(name, "append_wait_s = 20", "append_wait_s = 3")?;
        }
        self.configure("vendor", "# supervisor = ", &format!("supervisor = \"{}\"\n#", self.url("supervisor")?))?;
        let cache = options.folder.join("downloads");
        durable::create_folder(&cache)?;
        let cache = fs::canonicalize(cache)?;
        self.configure("supervisor", "# cache = ", &format!("cache = \"{}\"\n# ", cache.display()))?;
        self.configure("supervisor", "offline = false", &format!("offline = {}", options.offline))?;
        let logs = [self.key("vendor/keys/log")?.to_string(), self.key("supervisor/keys/log")?.to_string()];
        for name in WITNESSES {
            let [vendor, supervisor] = &logs;
            let domain = format!("{name}.example");
            let dir = self.file(name);
            let arguments = [
                "init",
                "witness",
                "--organisation",
                name,
                "--domain",
                &domain,
                "--dir",
                &dir,
                "--log",
                vendor,
                "--log",
                supervisor,
            ];
            self.clerestory(&arguments)?;
            self.configure(name, "listen = \"127.0.0.1:808", "listen = \"stdin\"\n#")?;
        }
        for (who, _) in CUSTODIANS {
            let name = custodian(who);
            self.clerestory(&["init", "custodian", "--organisation", who, "--dir", &self.file(&name)])?;
            self.configure(&name, "listen = \"127.0.0.1:808", "listen = \"stdin\"\n#")?;
            self.configure(&name, "# vault = ", &format!("vault = \"{}\"\n# ", self.url("vendor")?))?;
        }
        durable::write(&self.folder.join("supervisor/access.cedar"), ACCESS_RULES.as_bytes())?;
        let mut urls = Vec::new();
        for (who, _) in CUSTODIANS {
            urls.push(format!("{who} = \"{}\"", self.url(&custodian(who))?));
        }
        let access = format!(
            "[access]\nkey = \"keys/gateway.key\"\nrules = \"access.cedar\"\nworkers = {{ zurich = \"{}\" }}\n\
             custodians = {{ {} }}\n\n[http]",
            self.url(WORKER)?,
            urls.join(", ")
        );
        self.configure("supervisor", "[http]", &access)?;
        Ok(())
    }

    pub(super) fn configure(&self, name: &str, from: &str, to: &str) -> anyhow::Result<()> {
        let path = self.folder.join(name).join("clerestory.toml");
        let text = fs::read_to_string(&path)?;
        if !text.contains(from) {
            bail!("`{}` has no line with `{from}`", path.display());
        }
        durable::write(&path, text.replacen(from, to, 1).as_bytes())?;
        Ok(())
    }

    pub(super) fn key(&self, name: &str) -> anyhow::Result<VerifierKey> {
        let path = self.folder.join(format!("{name}.pub"));
        let text = fs::read_to_string(&path).with_context(|| format!("can't read `{}`", path.display()))?;
        Ok(text.trim().parse()?)
    }

    fn make_policy(&mut self, options: &Options) -> anyhow::Result<()> {
        let root = self.clerestory(&["release", "create-channel", "--config", &self.config("vendor")])?;
        let mut policy = self.policy(options)?;
        policy.channel_root = Some(root.as_str().context("no digest of the channel's root")?.parse()?);
        policy.check()?;
        durable::write(&self.folder.join("policy.toml"), toml::to_string(&policy)?.as_bytes())?;
        let (payload, toml) = (self.file("policy.json"), self.file("policy.toml"));
        let drafted = ["policy", "draft", &toml, "--log", "vendor.example/log", "--out", &payload];
        self.clerestory(&drafted)?;
        let mut envelopes = Vec::new();
        for name in ["vendor", "supervisor"] {
            let (key, out) = (self.file(&format!("{name}/keys/policy.key")), self.file(&format!("policy.{name}")));
            self.clerestory(&["policy", "sign", "--key", &key, &payload, "--out", &out])?;
            envelopes.push(out);
        }
        let genesis = self.file("vendor/policy/1.envelope");
        let mut arguments = vec!["policy", "assemble"];
        arguments.extend(envelopes.iter().map(String::as_str));
        arguments.extend(["--out", &genesis]);
        self.clerestory(&arguments)?;
        self.genesis = attest::Envelope::parse(&fs::read(&genesis)?)?.id();
        let custodians = CUSTODIANS.map(|(who, _)| custodian(who));
        for name in ["supervisor".to_owned()].iter().chain(&custodians) {
            fs::copy(&genesis, self.folder.join(name).join("policy/1.envelope"))?;
        }
        for name in ["vendor".to_owned(), "supervisor".to_owned()].iter().chain(&custodians) {
            self.configure(name, "# genesis = ", &format!("genesis = \"{}\"\n#", self.genesis))?;
        }
        Ok(())
    }

    /// The sample's, with keys that the custodians have just made: this week's and the next two.
    fn residency(&self) -> anyhow::Result<Residency> {
        #[derive(serde::Deserialize)]
        struct Sample {
            residency: Residency,
        }
        let mut residency = toml::from_str::<Sample>(RESIDENCY)?.residency;
        for assignment in &mut residency.assignments {
            assignment.from = UnixTime::EPOCH;
        }
        residency.rules = Some(Digest::of(ACCESS_RULES.as_bytes()));
        for region in &mut residency.regions {
            for who in &mut region.custodians {
                let name = who.organisation.as_str();
                let kem = CUSTODIANS.iter().find(|(it, _)| *it == name).map_or("p256", |(_, kem)| kem);
                let config = self.config(&custodian(name));
                let made = self.clerestory(&["data", "keys", "--config", &config, "--kem", kem, "--weeks", "3"])?;
                who.keys = serde_json::from_value(made.get("keys").cloned().context("no keys of a region")?)?;
            }
        }
        Ok(residency)
    }

    fn policy(&self, options: &Options) -> anyhow::Result<Policy> {
        let each = || -> anyhow::Result<Vec<Threshold>> {
            ["vendor", "supervisor"].iter().map(|it| Ok(Threshold { organisation: it.parse()?, count: 1 })).collect()
        };
        let (vendor_log, supervisor_log) = ("vendor.example/log", "supervisor.example/log");
        let stream = |log: &str, stream: &str, organisation: &str, interval_s| -> anyhow::Result<StreamPolicy> {
            Ok(StreamPolicy {
                log: log.parse()?,
                stream: stream.parse()?,
                organisation: organisation.parse()?,
                interval_s,
            })
        };
        let own = [CLOCK_PRODUCT, OTHER_PRODUCT].map(str::to_owned);
        let code = options.names.iter().chain(&own).map(|name| (name.as_str(), Lane::Slow));
        let slow = LanePolicy {
            lane: Lane::Slow,
            builders: each()?,
            release: each()?,
            approvals: each()?,
            log: vendor_log.parse()?,
            status: "supervisor".parse()?,
            status_log: supervisor_log.parse()?,
            canary: None,
        };
        let fast = LanePolicy { lane: Lane::Fast, approvals: Vec::new(), canary: Some(CANARY), ..slow.clone() };
        Ok(Policy {
            name: "demo".to_owned(),
            version: 1,
            channel_root: None,
            mirrors: Vec::new(),
            lookup: None,
            residency: Some(self.residency()?),
            ages: Ages::default(),
            witnessing: Witnessing { faulty: 1, policy: self.witnessing()? },
            organisations: vec![
                self.organisation("vendor", &[&ROLES[..], &[Role::Reader]].concat())?,
                self.guardian()?,
                Organisation { id: "member".parse()?, keys: vec![self.custodian_key("member")?] },
            ],
            logs: vec![
                LogPolicyEntry { origin: vendor_log.parse()?, organisation: "vendor".parse()? },
                LogPolicyEntry { origin: supervisor_log.parse()?, organisation: "supervisor".parse()? },
            ],
            lanes: vec![slow, fast],
            products: code
                .chain([RULES_PRODUCT, INDICATORS, REPUTATION].map(|name| (name, Lane::Fast)))
                .map(|(name, lane)| Ok(ProductPolicy { id: name.parse()?, lane }))
                .collect::<anyhow::Result<_>>()?,
            streams: vec![
                stream(vendor_log, "policy", "vendor", PEOPLE_S)?,
                stream(vendor_log, "assembly/vendor", "vendor", DAY_S)?,
                stream(vendor_log, "release/vendor", "vendor", DAY_S)?,
                stream(vendor_log, "approval/vendor", "vendor", PEOPLE_S)?,
                stream(vendor_log, "approval/supervisor", "supervisor", PEOPLE_S)?,
                stream(supervisor_log, "rebuild/supervisor", "supervisor", DAY_S)?,
                stream(supervisor_log, "desk/supervisor", "supervisor", DAY_S)?,
                stream(supervisor_log, "canary/supervisor", "supervisor", DAY_S)?,
                stream(supervisor_log, "status/slow", "supervisor", DAY_S)?,
                stream(supervisor_log, "status/fast", "supervisor", DAY_S)?,
                stream(supervisor_log, "region/zurich", "supervisor", DAY_S)?,
                stream(supervisor_log, "access/supervisor", "supervisor", DAY_S)?,
                stream(supervisor_log, "data/supervisor", "supervisor", PEOPLE_S)?,
                stream(supervisor_log, "data/vendor", "vendor", PEOPLE_S)?,
                stream(supervisor_log, "custody/supervisor", "supervisor", DAY_S)?,
                stream(supervisor_log, "custody/member", "member", DAY_S)?,
            ],
            change: each()?,
        })
    }

    fn witnessing(&self) -> anyhow::Result<String> {
        let mut text = String::new();
        for log in ["vendor", "supervisor"] {
            text.push_str(&format!("log {} {}\n", self.key(&format!("{log}/keys/log"))?, self.url(log)?));
        }
        for name in WITNESSES {
            text.push_str(&format!(
                "witness {name} {} {}\n",
                self.key(&format!("{name}/keys/witness"))?,
                self.url(name)?
            ));
        }
        text.push_str("group witnesses 3 w1 w2 w3 w4\nquorum witnesses\n");
        Ok(text)
    }

    /// The supervisor, which is a custodian too, with a process and a key of its own for that.
    fn guardian(&self) -> anyhow::Result<Organisation> {
        let mut organisation =
            self.organisation("supervisor", &[&ROLES[..], &[Role::Status, Role::Gateway]].concat())?;
        organisation.keys.push(self.custodian_key("supervisor")?);
        Ok(organisation)
    }

    fn custodian_key(&self, who: &str) -> anyhow::Result<RoleKey> {
        let key = self.key(&format!("{}/keys/custodian", custodian(who)))?;
        Ok(RoleKey { role: Role::Custodian, key })
    }

    fn organisation(&self, name: &str, roles: &[Role]) -> anyhow::Result<Organisation> {
        let keys = roles
            .iter()
            .map(|role| Ok(RoleKey { role: *role, key: self.key(&format!("{name}/keys/{role}"))? }))
            .collect::<anyhow::Result<_>>()?;
        Ok(Organisation { id: name.parse()?, keys })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Ok(mut children) = self.children.lock() {
            for child in children.values_mut() {
                // A process that has ended already needs no ending.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// The process of a custodian, and its folder.
pub(super) fn custodian(who: &str) -> String {
    format!("custodian-{who}")
}

/// The first `error:` line that a program printed, without the mark.
pub(super) fn last_words(output: &Output) -> String {
    let mut text = String::new();
    // A slice is read without an error.
    let _ = output.stderr.as_slice().read_to_string(&mut text);
    let error = text.lines().rev().find_map(|line| line.strip_prefix("error: "));
    error.map_or_else(|| text.trim().to_owned(), str::to_owned)
}
