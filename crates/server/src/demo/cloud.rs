//! The threat cloud: several endpoints see a file that nobody knows; a verdict comes back to all of them, and lies do
//! not make one.

use std::fs;

use anyhow::{Context as _, bail, ensure};
use attest::{CountryCode, Ring};
use seal::Destination;
use serde_json::{Value, json};
use stdx::{Clock as _, Digest, Entropy as _, SystemClock, SystemEntropy, durable};

use super::Options;
use super::endpoint::{Endpoint, Wanted};
use super::guard::{Guard, Told};
use super::indicators::known_good;
use super::path::approve;
use super::report::{Narrator, Report};
use super::stage::{INDICATORS, REPUTATION, Stage, last_words};
use crate::policy_folder;

/// Where the endpoints are that see it.
const SEERS: [&str; 3] = ["au", "de", "jp"];
const COUNTRIES: [&str; 8] = ["AU", "CA", "CH", "DE", "FR", "JP", "KR", "SG"];
const CLASSES: [&str; 2] = ["detections", "verdicts"];
const PURPOSE: &str = "threat-cloud";
const READER: &str = "threat cloud";
const VERSION: &str = "1";
/// Lying endpoints.
const LIARS: usize = 1_000;

/// The vendor's threat cloud on a stage whose worker serves.
pub struct Cloud<'a> {
    stage: &'a Stage,
    /// Go first with verdicts, one ring after the other: what nobody in a ring reports of goes no further.
    first: [Guard; 2],
}

impl<'a> Cloud<'a> {
    /// Asks for standing grants, has them approved, and starts the vendor's server with a cloud that believes the
    /// rules of `rules`. `good` is known to be good on both sides.
    ///
    /// # Errors
    /// When a command fails.
    pub fn set(stage: &'a Stage, rules: &str, good: &[Digest], code: &str) -> anyhow::Result<Self> {
        let list: String = good.iter().map(|hash| format!("{hash}\n")).collect();
        for side in ["vendor", "supervisor"] {
            write(stage, &format!("{side}/known-good/demo.txt"), &list)?;
        }
        let settings = format!("product = \"{REPUTATION}\"\nnotice = \"NOTICE\"\n");
        for tree in ["cloud-first", "cloud-tree"] {
            write(stage, &format!("{tree}/NOTICE"), "Verdicts of the threat cloud.\n")?;
            write(stage, &format!("{tree}/rules.toml"), &settings)?;
        }
        let nobody = Digest::of(b"the first release of a product needs people, and something in it");
        write(stage, "cloud-first/hashes/first.txt", &format!("{nobody}\n"))?;
        release(stage, REPUTATION, "cloud-first")?;
        let mut requests = Vec::new();
        for class in CLASSES {
            requests.push(format!("\"{}\"", request(stage, class, code)?));
        }
        let section = format!(
            "intake_segment_s = 1\n[cloud]\nkey = \"keys/reader.key\"\nrequests = [{}]\nrules = [\"{rules}\"]\n\
             tree = \"../cloud-tree\"\nfolder = \"cloud\"\n\n[policy]",
            requests.join(", ")
        );
        stage.configure("vendor", "\n[policy]", &format!("\n{section}"))?;
        stage.stop("vendor")?;
        stage.start("vendor")?;
        let first = [host(stage, "verdicts-first", Ring::Canary)?, host(stage, "verdicts-early", Ring::Early)?];
        Ok(Self { stage, first })
    }

    /// What verdicts are released as.
    pub const PRODUCT: &'static str = REPUTATION;
    /// The rule whose detections count, of a cloud [alone](Self::alone).
    pub const RULE: &'static str = "unwanted";

    /// The same with one rule, and a worker, on a stage where nothing was shown yet.
    ///
    /// # Errors
    /// When a command fails.
    pub fn alone(stage: &'a Stage) -> anyhow::Result<Self> {
        stage.configure("vendor", "waiting_max = 8192", "waiting_max = 20000")?;
        write(stage, "alone/NOTICE", "A rule.\n")?;
        write(stage, "alone/rules.toml", &format!("product = \"{INDICATORS}\"\nnotice = \"NOTICE\"\n"))?;
        let rule = format!("rule {} {{ strings: $a = \"an unwanted text\" condition: $a }}\n", Self::RULE);
        write(stage, "alone/rule.yar", &rule)?;
        release(stage, INDICATORS, "alone")?;
        let code = stage.start_worker()?;
        Self::set(stage, INDICATORS, &[Digest::of(b"known to be good")], &code)
    }

    /// Where the channel is served: `HOST:PORT`.
    ///
    /// # Errors
    /// Never, on a stage that is set.
    pub fn channel(&self) -> anyhow::Result<String> {
        Ok(self.stage.url("vendor")?.trim_start_matches("http://").to_owned())
    }

    /// The real agents that go first have what was released last, and have checked all of it.
    ///
    /// # Errors
    /// When it has not, after a minute.
    pub fn verified(&self) -> anyhow::Result<()> {
        self.stage.wait_until("an agent has not what was released last", || {
            let released = self.verdicts()?.pointer("/release/version").and_then(Value::as_str).map(str::to_owned);
            let mut all = true;
            for guard in &self.first {
                all &= guard.endpoint.installed()?.get(REPUTATION) == released.as_ref();
            }
            Ok(all)
        })
    }

    /// When a file was judged, and both had signed the release, in words.
    ///
    /// # Errors
    /// When it was not.
    pub fn released_s(&self, file: &Digest) -> anyhow::Result<String> {
        let verdicts = self.verdicts()?;
        let judged = verdicts.get("judged").and_then(Value::as_array).cloned().unwrap_or_default();
        let of = judged.iter().find(|it| it.get("sha256").and_then(Value::as_str) == Some(&file.to_string()));
        let first = of.and_then(|it| it.get("first")).and_then(Value::as_str).context("it was not judged")?;
        let at = verdicts.pointer("/release/time").and_then(Value::as_str).unwrap_or_default();
        Ok(format!("taken at {first}, with the canaries at {at}"))
    }

    /// Events as an endpoint in `country` seals them, whether or not anything of it is true.
    ///
    /// # Errors
    /// When the intake does not take them.
    pub fn share(&self, class: &str, country: &str, bodies: &[Value]) -> anyhow::Result<()> {
        let folder = self.stage.folder().join("vendor/policy");
        let policy = policy_folder::load(&folder, &self.stage.genesis())?;
        let residency = policy.policy().residency.as_ref().context("the policy has a residency")?;
        let country: CountryCode = country.parse()?;
        let to = Destination::new(residency, policy.id(), country, SystemClock::new().now())?;
        let mut lines = String::new();
        for body in bodies {
            let mut id = [0; 16];
            SystemEntropy.fill(&mut id)?;
            let id = format!("{:032x}", u128::from_be_bytes(id));
            lines.push_str(&json!({"id": id, "hour": "2026-11-22T14:00:00Z", "body": body}).to_string());
            lines.push('\n');
        }
        let object = to.seal(&class.parse()?, lines.as_bytes(), &SystemEntropy)?;
        self.stage.post("vendor", api::path::EVENTS, &object).map(drop)
    }

    /// What the cloud makes of files.
    ///
    /// # Errors
    /// Before there is anything.
    pub fn verdicts(&self) -> anyhow::Result<Value> {
        self.stage.clerestory(&["cloud", "verdicts", "--config", &self.stage.config("vendor")])
    }

    /// Waits for a verdict on a file, and gives all that is said of it.
    ///
    /// # Errors
    /// When there is none after a minute.
    pub fn wait(&self, file: &Digest, standing: &str) -> anyhow::Result<Value> {
        let mut found = Value::Null;
        self.stage.wait_until(&format!("no verdict `{standing}` on {file}; see vendor.log"), || {
            let verdicts = self.verdicts().unwrap_or_default();
            let judged = verdicts.get("judged").and_then(Value::as_array).cloned().unwrap_or_default();
            let is_it = |it: &Value| {
                it.get("sha256").and_then(Value::as_str) == Some(&file.to_string())
                    && it.get("standing").and_then(Value::as_str) == Some(standing)
            };
            found = judged.into_iter().find(is_it).unwrap_or_default();
            Ok(!found.is_null())
        })?;
        Ok(found)
    }
}

fn write(stage: &Stage, path: &str, text: &str) -> anyhow::Result<()> {
    let path = stage.folder().join(path);
    durable::create_folder(path.parent().context("a file lies in a folder")?)?;
    Ok(durable::write(&path, text.as_bytes())?)
}

/// A standing request, approved: it binds the worker's code, the query, and what comes out of it.
fn request(stage: &Stage, class: &str, code: &str) -> anyhow::Result<String> {
    let query = stage.clerestory_text(&["cloud", "query", class])?;
    let path = format!("{class}.sql");
    write(stage, &path, &query)?;
    let schema = schema(stage, class, &query)?;
    let (config, key, query) = (stage.config("vendor"), stage.file("vendor/keys/reader.key"), stage.file(&path));
    let mut arguments = vec!["data", "request", "--config", &config, "--key", &key, "--query", &query];
    arguments.extend(["--reader", READER, "--ticket", "CLOUD-1", "--purpose", PURPOSE, "--class", class]);
    COUNTRIES.iter().for_each(|country| arguments.extend(["--country", country]));
    arguments.extend(["--service", "--hours", "720", "--uses", "1000000", "--code", code, "--schema", &schema]);
    let asked = stage.clerestory(&arguments)?;
    let request = asked.get("id").and_then(Value::as_str).context("no id of a request")?.to_owned();
    let (config, key) = (stage.config("supervisor"), stage.file("supervisor/keys/approver.key"));
    let approve = ["data", "approve", "--config", &config, "--key", &key, "--comment", "for the threat cloud"];
    stage.clerestory(&[&approve[..], &[&request]].concat())?;
    Ok(request)
}

/// What comes out of a query, as the region's worker plans it.
fn schema(stage: &Stage, class: &str, query: &str) -> anyhow::Result<String> {
    let values = json!({"after": "2026-01-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"});
    let asked = json!({"query": query, "parameters": values, "class": class, "countries": COUNTRIES, "objects": 64});
    let plan: Value = stage.post_json(super::stage::WORKER, api::path::PLAN, &asked)?;
    Ok(plan.get("schema").and_then(Value::as_str).context("the plan has no schema")?.to_owned())
}

/// The first release of a product takes two people.
fn release(stage: &Stage, product: &str, tree: &str) -> anyhow::Result<()> {
    let (config, tree) = (stage.config("vendor"), stage.file(tree));
    let pushed = stage.try_clerestory(&["rules", "push", "--config", &config, &tree, VERSION])?;
    ensure!(pushed.status.code() == Some(1), "`rules push`: {}", last_words(&pushed));
    approve(stage, &stage.folder().join("vendor/builds").join(product).join(VERSION), "the first release")?;
    stage.clerestory(&["release", "publish", "--config", &config, product, VERSION]).map(drop)
}

pub(super) fn run(stage: &Stage, options: &Options, narrator: &Narrator, report: &mut Report) -> anyhow::Result<()> {
    narrator.chapter("A verdict that comes back to all");
    let good = known_good(options)?;
    let code = stage.worker_code()?;
    let cloud = Cloud::set(stage, INDICATORS, &good, &code)?;
    narrator.say(&format!(
        "the vendor's threat cloud reads under two standing grants, approved by the supervisor; {} files of MISP's list \
         are known to be good",
        good.len()
    ));
    let asker = endpoint(stage, "asker", "CA", &[REPUTATION])?;
    let seers = SEERS.iter().map(|name| endpoint(stage, name, &name.to_uppercase(), &[INDICATORS, REPUTATION]));
    let seers = seers.collect::<anyhow::Result<Vec<_>>>()?;
    let page = page(stage)?;
    let file = Digest::of(&page);
    must_know(&asker, &file, false)?;
    let begin = narrator.clock().monotonic();
    for seer in &seers {
        let path = seer.folder().join("pages/invoice.html");
        durable::write(&path, &page)?;
        let path = path.display().to_string();
        must_know(seer, &file, false)?;
        let scanned = seer.run(&["scan", &path], &[])?;
        ensure!(scanned.status.code() == Some(1), "`scan`: {}", last_words(&scanned));
        seer.must(&["share", "send"])?;
    }
    let shared = (narrator.clock().monotonic() - begin).as_secs_f64();
    narrator
        .say(&format!("an endpoint in each of {} sees a page that nobody knows; a rule finds it", SEERS.join(", ")));
    let verdict = cloud.wait(&file, "malicious")?;
    let judged = (narrator.clock().monotonic() - begin).as_secs_f64();
    stage.wait_until("the endpoint does not get the verdict", || {
        asker.update()?;
        Ok(asker.run(&["lookup", &file.to_string()], &[])?.status.code() == Some(1))
    })?;
    let active = (narrator.clock().monotonic() - begin).as_secs_f64();
    for seer in &seers {
        seer.update()?;
        must_know(seer, &file, true)?;
    }
    narrator.say(&format!(
        "all shared after {shared:.1} s; judged after {judged:.1} s; known to an endpoint that has none of these rules \
         after {active:.1} s: read, judged, built twice, signed, logged, baked in two rings"
    ));
    report.proven(
        "what several endpoints find comes back to all as a signed verdict",
        format!("{active:.1} s after the first of them looked; {}", because(&verdict)),
        asker.line(&format!("lookup {file}")),
    );
    lies(&cloud, narrator, report, good.first().context("something is known to be good")?)
}

/// A thousand endpoints say of a file that is known to be good that a rule has found something in it.
fn lies(cloud: &Cloud<'_>, narrator: &Narrator, report: &mut Report, good: &Digest) -> anyhow::Result<()> {
    let rule = rule_of(cloud.stage)?;
    for country in ["DE", "JP"] {
        let lie = json!({"detection": {"rule": rule, "sha256": good, "size": 68}});
        cloud.share("detections", country, &vec![lie; LIARS / 2])?;
    }
    let verdict = cloud.wait(good, "clean")?;
    let ignored = verdict.get("ignored").and_then(Value::as_array).map_or(0, Vec::len);
    ensure!(ignored > 0, "what was ignored is not shown: {verdict}");
    let shown = format!("clerestory cloud verdicts --config {} {good}", cloud.stage.config("vendor"));
    narrator.say(&format!(
        "{LIARS} lying events of two countries accuse a file of MISP's list of benign ones: it stays clean"
    ));
    report.proven(
        "poisoned telemetry does not make known-good files bad, and what was ignored is shown",
        format!("{LIARS} events in the name of a real rule; {}", because(&verdict)),
        shown,
    );
    Ok(())
}

/// The first reason, in words.
fn because(verdict: &Value) -> String {
    let reasons = verdict.get("reasons").and_then(Value::as_array).cloned().unwrap_or_default();
    let why = reasons.first().and_then(|it| serde_json::from_value::<reputation::Why>(it.clone()).ok());
    why.map(|why| why.to_string()).unwrap_or_default()
}

/// A rule of the released indicators.
fn rule_of(stage: &Stage) -> anyhow::Result<String> {
    let index = stage.folder().join("vendor/builds").join(INDICATORS).join(VERSION).join("outputs/rules.json");
    let index: Value = serde_json::from_slice(&fs::read(&index)?)?;
    let name = index.pointer("/rules/0/name").and_then(Value::as_str);
    Ok(name.context("the indicators have no rule")?.to_owned())
}

/// A page that this rule finds, of a content that was nowhere before.
fn page(stage: &Stage) -> anyhow::Result<Vec<u8>> {
    let host = rule_of(stage)?.trim_start_matches("urlhaus_").replace('_', ".");
    Ok(format!("<a href=\"http://{host}/\">Your invoice</a>\n").into_bytes())
}

/// Goes first with verdicts, and tells the supervisor how they fare.
fn host(stage: &Stage, name: &str, ring: Ring) -> anyhow::Result<Guard> {
    let inbox = stage.folder().join(name).join("inbox");
    durable::create_folder(&inbox)?;
    let sections = format!(
        "\n[scan]\nrules = \"{REPUTATION}\"\nfolders = [\"{}\"]\n\n[canary]\nsupervisor = \"{}\"\n",
        inbox.display(),
        stage.url("supervisor")?
    );
    let products = [REPUTATION.to_owned()];
    let endpoint = Endpoint::set(stage, &Wanted { name, products: &products, ring, sections })?;
    let agreed = endpoint.must(&["canary", "agree", name])?;
    let (config, file) = (stage.config("supervisor"), agreed.get("file").and_then(Value::as_str).unwrap_or_default());
    let enrolled = stage.clerestory(&["rules", "enrol", "--config", &config, file])?;
    let statement = enrolled.get("statement").and_then(Value::as_str).unwrap_or_default();
    endpoint.must(&["canary", "enrolled", statement])?;
    let guard = Guard::start(endpoint)?;
    guard.wait(stage, Told { event: "installed", words: "#1 " })?;
    Ok(guard)
}

fn endpoint(stage: &Stage, name: &str, country: &str, products: &[&str]) -> anyhow::Result<Endpoint> {
    let name = format!("sees-{name}");
    durable::create_folder(&stage.folder().join(&name).join("pages"))?;
    let scan = match products.contains(&INDICATORS) {
        true => format!("\n[scan]\nrules = \"{INDICATORS}\"\nfolders = []\n"),
        false => String::new(),
    };
    let sections = format!(
        "{scan}\n[lookup]\nrules = \"{REPUTATION}\"\n\n[share]\nintake = \"{}\"\ncountry = \"{country}\"\n",
        stage.url("vendor")?
    );
    let products: Vec<String> = products.iter().map(|it| (*it).to_owned()).collect();
    let endpoint = Endpoint::set(stage, &Wanted { name: &name, products: &products, ring: Ring::All, sections })?;
    endpoint.update()?;
    let statement = endpoint.must(&["share", "statement"])?;
    let statement = statement.get("sha256").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut agree = vec!["share", "agree", "--statement", &statement, "--mode", "verdicts"];
    CLASSES.iter().for_each(|class| agree.extend(["--class", class]));
    endpoint.must(&agree)?;
    Ok(endpoint)
}

/// What an endpoint says of a file.
fn must_know(endpoint: &Endpoint, file: &Digest, is_bad: bool) -> anyhow::Result<()> {
    let known = endpoint.run(&["lookup", &file.to_string()], &[])?;
    let expected = i32::from(is_bad);
    if known.status.code() == Some(expected) {
        return Ok(());
    }
    bail!("`{}` says: {} {}", endpoint.line("lookup"), String::from_utf8_lossy(&known.stdout), last_words(&known))
}
