//! The threat cloud by its own programs: sealed events become verdicts, a signed set, and a list for look-ups; lies
//! become nothing but lines that say that they were ignored.

use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use attest::{AccessIntent, AccessOutcome, Ended, Statement, WorkerKey};
use policy::{CanaryPolicy, ClassPolicy, Policy, ProductPolicy};
use reputation::{ReputationSet, Verdict as Bucket};
use seal::Destination;
use serde_json::Value;
use stdx::{Clock as _, Digest, Entropy as _, SystemClock, SystemEntropy, durable};
use testkit::{APPROVED_CLASS, sealed_wrongly};

use super::columns::until;
use super::gateway::Desk;
use super::scene::{CUSTODIANS, Scene, Setting, Shared, signed};
use super::stand::{Stand, text};
use super::through::{program, start, with_real_worker};
use crate::lookups::{gateway_at, look_up, relay};
use crate::process::{Done, Server};
use crate::raw;
use crate::system::{Scope, System};

const PURPOSE: &str = "threat-cloud";
const RULES: &str = "signatures";
const CLOUD: &str = "reputation";
const CANARY: CanaryPolicy = CanaryPolicy { healthy: 1, bake_s: 1, unhealthy: 1, fires: 100 };

/// A fast lane with the cloud's product, and a class for what is looked up in vain.
fn with_cloud(policy: &mut Policy) {
    System::with_fast_lane(policy, CANARY);
    policy.products.push(ProductPolicy { id: CLOUD.parse().unwrap(), lane: attest::Lane::Fast });
    let residency = policy.residency.as_mut().unwrap();
    let detections = residency.classes.iter().find(|it| it.id.as_str() == APPROVED_CLASS).unwrap().clone();
    residency.classes.push(ClassPolicy { id: "verdicts".parse().unwrap(), ..detections });
    for class in &mut residency.classes {
        class.purposes.push(PURPOSE.parse().unwrap());
        class.objects_max = 64;
    }
}

/// Everything runs, the cloud too.
pub(super) struct Cloud {
    pub(super) desk: Desk<()>,
    worker: Server,
    pub(super) requests: Vec<String>,
}

fn file(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

impl Cloud {
    pub(super) fn running() -> Self {
        Self::running_with(&Setting::default())
    }

    fn running_with(setting: &Setting) -> Self {
        crate::rules::needs_scanner();
        let (desk, worker) = with_real_worker(Scene::made_as(setting, Scope::Releases, with_cloud));
        let system = &desk.scene.system;
        system.run(&["status", "publish", "--config", "supervisor/clerestory.toml"]).ok();
        system.run(&["release", "freshen", "--config", "vendor/clerestory.toml"]).ok();
        let mut cloud = Self { desk, worker, requests: Vec::new() };
        for folder in ["vendor", "vendor1", "vendor2"] {
            cloud.known_good(folder, &file("a part of the system"));
        }
        cloud.known_good("supervisor", &file("known to the supervisor alone"));
        cloud.rules();
        cloud.tree();
        for class in [APPROVED_CLASS, "verdicts"] {
            let request = cloud.request(class, &[]).ok().json()["id"].as_str().unwrap().to_owned();
            cloud.desk.approve(&request);
            cloud.requests.push(request);
        }
        cloud.configure();
        cloud
    }

    pub(super) fn system(&self) -> &System {
        &self.desk.scene.system
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.system().file(path);
        durable::create_folder(path.parent().unwrap()).unwrap();
        durable::write(&path, text.as_bytes()).unwrap();
    }

    fn known_good(&self, folder: &str, hash: &Digest) {
        self.write(&format!("{folder}/known-good/own.txt"), &format!("{hash}\n"));
    }

    /// One rule, released.
    fn rules(&self) {
        let corpora = crate::rules::corpora(self.system());
        self.write("rules/NOTICE", "Rules of a test.\n");
        self.write("rules/rules.toml", &format!("product = \"{RULES}\"\nnotice = \"NOTICE\"\n{corpora}"));
        let text = "rule trojan { strings: $a = \"clerestory-known-bad-sample\" condition: $a }\n";
        self.write("rules/a.yar", text);
        self.release(RULES, "rules");
    }

    /// The tree that verdicts are released from; its first release takes people.
    fn tree(&self) {
        self.write("cloud-tree/NOTICE", "Verdicts.\n");
        self.write("cloud-tree/rules.toml", &format!("product = \"{CLOUD}\"\nnotice = \"NOTICE\"\n"));
        self.write("first/NOTICE", "Verdicts.\n");
        self.write("first/rules.toml", &format!("product = \"{CLOUD}\"\nnotice = \"NOTICE\"\n"));
        self.write("first/hashes/cloud.txt", &format!("{}\n", file("the first of all")));
        self.release(CLOUD, "first");
    }

    fn release(&self, product: &str, tree: &str) {
        let (system, config) = (self.system(), "vendor/clerestory.toml");
        let pushed = system.run(&["--json", "rules", "push", "--config", config, tree, "1"]);
        assert_eq!(pushed.code, 1, "{pushed:?}");
        assert_eq!(pushed.json()["reasons"][0]["code"], "first-release", "{pushed:?}");
        let result = format!("vendor/builds/{product}/1/result.bundle");
        for name in ["vendor", "supervisor"] {
            let (config, key) = (format!("{name}/clerestory.toml"), format!("{name}/keys/approver.key"));
            let out = format!("vendor/builds/{product}/1/approvals/{name}.bundle");
            let approve = ["release", "approve", "--config", &config, "--key", &key, "--result", &result];
            system.run(&[&approve[..], &["--out", &out]].concat()).ok();
        }
        system.run(&["release", "publish", "--config", config, product, "1"]).ok();
    }

    /// A standing request for this program's own query.
    pub(super) fn request(&self, class: &str, further: &[&str]) -> Done {
        let query = self.system().run(&["cloud", "query", class]).ok().stdout;
        self.write("cloud.sql", &query);
        let standing = Standing { code: self.code(), schema: self.schema(class, &query), uses: "1000" };
        self.request_for(class, &standing, further)
    }

    /// The same for the query that is written down, and whatever it stands for.
    fn request_for(&self, class: &str, standing: &Standing, further: &[&str]) -> Done {
        let Standing { code, schema, uses } = standing;
        let common = ["--query", "cloud.sql", "--reader", "threat cloud", "--ticket", "C-1", "--purpose", PURPOSE];
        let about = ["--class", class, "--country", "DE", "--country", "JP", "--country", "CH", "--service"];
        let standing = ["--uses", uses, "--code", code, "--schema", schema];
        self.desk.data("request", "reader", &[&common[..], &about, &standing, further].concat())
    }

    fn code(&self) -> String {
        self.worker_says()["code"].as_str().unwrap().to_owned()
    }

    fn worker_says(&self) -> Value {
        let address = self.worker.address();
        serde_json::from_slice(&raw::get(address, "/v1/worker").body).unwrap()
    }

    /// What comes out, as the worker plans it.
    fn schema(&self, class: &str, query: &str) -> String {
        let values = serde_json::json!({"after": "2026-01-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"});
        let asked = serde_json::json!({
            "query": query, "parameters": values, "class": class, "countries": ["DE"], "objects": 64
        });
        let answer = raw::post(self.worker.address(), "/v1/plan", &serde_json::to_vec(&asked).unwrap());
        assert_eq!(answer.status, 200, "{}", answer.text());
        let plan: Value = serde_json::from_slice(&answer.body).unwrap();
        plan["schema"].as_str().unwrap().to_owned()
    }

    fn configure(&mut self) {
        let requests = self.requests.iter().map(|it| format!("\"{it}\"")).collect::<Vec<_>>().join(", ");
        let section = format!(
            "[cloud]\nkey = \"keys/reader.key\"\nrequests = [{requests}]\nrules = [\"{RULES}\"]\n\
             tree = \"../cloud-tree\"\nfolder = \"cloud\"\n\n[cloud.bounds]\npopular_events = 20\npopular_s = 1\n\n[policy]"
        );
        let segment = if self.desk.scene.machines.is_empty() { "intake_segment_s = 1\n" } else { "" };
        let section = format!("\n{segment}{section}");
        self.desk.scene.change_vendor(|system, folder| system.set(folder, "\n[policy]", &section));
    }

    /// Events as an endpoint sends them: sealed, in one batch.
    pub(super) fn share(&self, class: &str, country: &str, bodies: &[Value]) {
        let line = |body: &Value| {
            let mut id = [0; 16];
            SystemEntropy.fill(&mut id).unwrap();
            let id = format!("{:032x}", u128::from_be_bytes(id));
            format!("{{\"id\":\"{id}\",\"hour\":\"2026-11-22T14:00:00Z\",\"body\":{body}}}\n")
        };
        self.send(&self.sealed(class, country, &bodies.iter().map(line).collect::<String>()));
    }

    fn sealed(&self, class: &str, country: &str, lines: &str) -> Vec<u8> {
        let policy = self.system().policy();
        let residency = policy.policy().residency.as_ref().unwrap();
        let to = Destination::new(residency, policy.id(), country.parse().unwrap(), SystemClock::new().now()).unwrap();
        to.seal(&class.parse().unwrap(), lines.as_bytes(), &SystemEntropy).unwrap()
    }

    fn send(&self, object: &[u8]) {
        let taken = raw::post(self.system().vendor.address(), "/v1/events", object);
        assert_eq!(taken.status, 200, "{}", taken.text());
    }

    /// What the vendor's machine says that it made of it.
    fn verdicts_of(&self, folder: &str) -> Value {
        let config = format!("{folder}/clerestory.toml");
        let done = self.system().run(&["--json", "cloud", "verdicts", "--config", &config]);
        if done.code == 0 { done.json() } else { Value::Null }
    }

    /// Waits until the verdicts are so.
    pub(super) fn wait(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        self.wait_for(&["vendor"], what, is_so).1
    }

    /// Which of these machines it is that has such verdicts.
    fn wait_for<'m>(&self, machines: &[&'m str], what: &str, is_so: impl Fn(&Value) -> bool) -> (&'m str, Value) {
        let clock = SystemClock::new();
        let begun = clock.monotonic();
        loop {
            for machine in machines {
                let verdicts = self.verdicts_of(machine);
                if is_so(&verdicts) {
                    return (machine, verdicts);
                }
                assert!(clock.monotonic() - begun < Duration::from_secs(90), "no {what}: {verdicts:#}");
            }
            std::thread::yield_now();
        }
    }

    /// The set that was released last.
    fn set(&self, verdicts: &Value) -> ReputationSet {
        let version = verdicts["release"]["version"].as_str().unwrap();
        let path = format!("vendor/builds/{CLOUD}/{version}/outputs/hashes.fuse");
        ReputationSet::parse(&fs::read(self.system().file(&path)).unwrap()).unwrap()
    }
}

pub(super) fn detection(rule: &str, name: &str) -> Value {
    serde_json::json!({"detection": {"rule": rule, "sha256": file(name), "size": 68}})
}

fn verdict(found: &str, name: &str) -> Value {
    serde_json::json!({"verdict": {"sha256": file(name), "found": found}})
}

fn of<'v>(verdicts: &'v Value, name: &str) -> &'v Value {
    let judged = verdicts["judged"].as_array().into_iter().flatten();
    judged.into_iter().find(|it| it["sha256"] == file(name).to_string()).unwrap_or(&Value::Null)
}

fn standing(verdicts: &Value, name: &str) -> String {
    of(verdicts, name)["standing"].as_str().unwrap_or("none").to_owned()
}

fn is_released(verdicts: &Value) -> bool {
    let release = &verdicts["release"];
    release.is_object() && release.get("refused").is_none()
}

#[test]
fn what_several_endpoints_find_comes_back_as_a_verdict_and_lies_do_not() {
    let cloud = Cloud::running();
    cloud.share("verdicts", "CH", &vec![verdict("nothing", "a popular file"); 20]);
    cloud.share("verdicts", "CH", &vec![verdict("nothing", "suddenly everywhere"); 100]);
    cloud.wait("first look", |it| standing(it, "suddenly everywhere") == "unknown");
    // The gateway of look-ups has the cloud's own list besides another.
    let (folder, lists) = (cloud.system().path(), ["../vendor/cloud/malicious.txt"]);
    let (gateway, key) = gateway_at(folder, Ipv4Addr::LOCALHOST, &lists);
    let relay = relay(folder, gateway.address());
    assert_eq!(look_up(&relay, &key, &file("a new file")), None);
    // Three endpoints find the same; nobody knew it.
    for country in ["DE", "JP", "CH"] {
        cloud.share("verdicts", country, &[verdict("nothing", "a new file")]);
        cloud.share(APPROVED_CLASS, country, &[detection("trojan", "a new file")]);
    }
    let verdicts = cloud.wait("verdict", |it| standing(it, "a new file") == "malicious" && is_released(it));
    let why = &of(&verdicts, "a new file")["reasons"][0];
    assert_eq!(
        (&why["code"], &why["rule"], &why["release"]),
        (&"detected".into(), &"trojan".into(), &"signatures 1".into())
    );
    assert!(cloud.set(&verdicts).may_contain(&file("a new file")));
    let list = fs::read_to_string(cloud.system().file("vendor/cloud/malicious.txt")).unwrap();
    assert_eq!(list, format!("{}\n", file("a new file")));
    let (clock, patience) = (SystemClock::new(), Duration::from_secs(20));
    let begun = clock.monotonic();
    while look_up(&relay, &key, &file("a new file")) != Some(Bucket::Malicious) {
        assert!(clock.monotonic() - begun < patience, "the gateway does not follow the cloud");
    }
    let outbreak = &of(&verdicts, "suddenly everywhere")["reasons"][0];
    assert_eq!((&outbreak["code"], &outbreak["events"]), (&"outbreak".into(), &100.into()));
    // Each batch has its entries, under a request that was approved.
    cloud.desk.settled();
    let intents = cloud.desk.logged::<AccessIntent>();
    assert!(!intents.is_empty());
    assert!(intents.iter().all(|(_, it)| cloud.requests.contains(&it.predicate.request.to_string())));
    let outcomes = cloud.desk.logged::<AccessOutcome>();
    assert!(outcomes.iter().all(|(_, it)| it.predicate.ended == Ended::Done), "{outcomes:?}");
    poisoned(&cloud);
    known_to_a_builder(&cloud);
    too_much(&cloud);
}

/// What a machine has read is its own, and what it is made of lies in the vault: the next machine on duty reads it again.
#[test]
fn on_shared_stores_another_machine_comes_to_the_same_verdicts_and_goes_on() {
    const MACHINES: [&str; 2] = ["vendor1", "vendor2"];
    let setting = Setting { shared: Some(Shared::with_others("cloud")), ..Setting::default() };
    let mut cloud = Cloud::running_with(&setting);
    let found = |cloud: &Cloud, name: &str| {
        for country in ["DE", "JP", "CH"] {
            cloud.share(APPROVED_CLASS, country, &[detection("trojan", name)]);
        }
    };
    found(&cloud, "a new file");
    let is_so = |it: &Value| standing(it, "a new file") == "malicious" && is_released(it);
    let (first, verdicts) = cloud.wait_for(&MACHINES, "verdict", is_so);
    let at = MACHINES.iter().position(|it| *it == first).unwrap();
    let other = MACHINES[1 - at];
    assert_eq!(cloud.verdicts_of(other), Value::Null, "one works");
    let scene = &mut cloud.desk.scene;
    scene.balancer.as_ref().unwrap().ask(&[scene.machines[1 - at].address()]);
    scene.machines[at].kill();
    scene.machines[at].hang_up();
    let (_, again) = cloud.wait_for(&[other], "verdict of the other machine", is_so);
    assert_eq!(of(&again, "a new file"), of(&verdicts, "a new file"));
    found(&cloud, "a newer file");
    let is_so = |it: &Value| standing(it, "a newer file") == "malicious" && is_released(it);
    let (_, verdicts) = cloud.wait_for(&[other], "verdict on what is new", is_so);
    assert_eq!(standing(&verdicts, "a new file"), "malicious");
    cloud.desk.settled();
}

/// A thousand lying endpoints, each with an event of its own, and one with many; the same bytes again and again.
fn poisoned(cloud: &Cloud) {
    let accusations = |rule: &str, name: &str, count: usize| vec![detection(rule, name); count];
    for country in ["DE", "JP"] {
        cloud.share(APPROVED_CLASS, country, &accusations("trojan", "a part of the system", 500));
        cloud.share(APPROVED_CLASS, country, &accusations("made_up", "of a rival", 500));
        cloud.share("verdicts", country, &vec![verdict("bucket", "a rumour"); 50]);
        cloud.share(APPROVED_CLASS, country, &accusations("trojan", "a popular file", 20));
    }
    // What no rule is called, and what can't be opened.
    cloud.share(APPROVED_CLASS, "DE", &[detection(&"long".repeat(1000), "whatever")]);
    let lie = serde_json::json!({"id": format!("{:032x}", 8), "hour": "2026-11-22T14:00:00Z"});
    let sealed = || cloud.sealed(APPROVED_CLASS, "DE", &format!("{lie}\n"));
    sealed_wrongly(sealed).iter().for_each(|object| cloud.send(object));
    cloud.share(APPROVED_CLASS, "DE", &accusations("trojan", "seen in one country", 400));
    let again = {
        let event = format!(
            "{{\"id\":\"{:032x}\",\"hour\":\"2026-11-22T14:00:00Z\",\"body\":{}}}\n",
            7,
            detection("trojan", "replayed")
        );
        cloud.sealed(APPROVED_CLASS, "JP", &event)
    };
    (0..20).for_each(|_| cloud.send(&again));
    cloud.share(
        APPROVED_CLASS,
        "JP",
        &[serde_json::json!({"detection": {"rule": "trojan", "sha256": "none", "size": 1}})],
    );
    let all = ["a popular file", "a part of the system", "of a rival", "a rumour", "seen in one country", "replayed"];
    let is_all = |it: &Value| all.iter().all(|name| standing(it, name) != "none") && it["ignored"]["malformed"] == 2;
    let verdicts = cloud.wait("judgement", is_all);
    assert!(verdicts["ignored"]["unreadable"].as_u64() >= Some(3), "{}", verdicts["ignored"]);
    let code = |name: &str| of(&verdicts, name)["ignored"][0]["code"].as_str().unwrap().to_owned();
    assert_eq!(standing(&verdicts, "a part of the system"), "clean");
    assert_eq!(of(&verdicts, "a part of the system")["reasons"][0]["by"], "known-good/own.txt");
    assert_eq!(code("a part of the system"), "detected", "what was ignored is visible");
    assert_eq!(of(&verdicts, "a part of the system")["ignored"][0]["events"], 1000);
    for (name, why) in [("of a rival", "unknown-rule"), ("a rumour", "echo"), ("seen in one country", "detected")] {
        assert_eq!((standing(&verdicts, name), code(name)), ("unknown".to_owned(), why.to_owned()), "{name}");
    }
    assert_eq!((standing(&verdicts, "a popular file"), code("a popular file")), ("held".into(), "popular".into()));
    assert_eq!(
        (standing(&verdicts, "replayed"), of(&verdicts, "replayed")["events"].as_u64()),
        ("unknown".to_owned(), Some(1))
    );
    assert_eq!(standing(&verdicts, "a new file"), "malicious", "and nothing of it is taken back");
    let shown = cloud.system().run(&["cloud", "verdicts", "--config", "vendor/clerestory.toml"]).ok().stdout;
    assert!(
        shown.contains("ignored: 1000 events in the name of \"made_up\", which no release in force has"),
        "{shown}"
    );
    assert!(shown.contains("because known to be good by known-good/own.txt"), "{shown}");
}

/// What only the supervisor knows to be good is refused, and then known here.
fn known_to_a_builder(cloud: &Cloud) {
    const NAME: &str = "known to the supervisor alone";
    for country in ["DE", "JP", "CH"] {
        cloud.share(APPROVED_CLASS, country, &[detection("trojan", NAME), detection("trojan", "another new file")]);
    }
    let is_so = |it: &Value| {
        standing(it, NAME) == "clean" && standing(it, "another new file") == "malicious" && is_released(it)
    };
    let verdicts = cloud.wait("refusal and release", is_so);
    let by = of(&verdicts, NAME)["reasons"][0]["by"].as_str().unwrap().to_owned();
    assert!(by.contains("a builder") && by.contains("known-good/own.txt"), "{by}");
    assert_eq!(verdicts["ignored"]["malformed"], 2, "however often the same seconds were read");
    let set = cloud.set(&verdicts);
    assert!(set.may_contain(&file("another new file")) && !set.may_contain(&file(NAME)));
}

/// More groups in one second than may be given out: it is not read, which is told, and what comes later is.
fn too_much(cloud: &Cloud) {
    let flood: Vec<Value> = (0..1100).map(|number| detection("trojan", &format!("flood {number}"))).collect();
    cloud.share(APPROVED_CLASS, "DE", &flood);
    cloud.wait("second that is not read", |it| it["ignored"]["unread"].as_u64() >= Some(1));
    for country in ["DE", "JP", "CH"] {
        cloud.share(APPROVED_CLASS, country, &[detection("trojan", "after the flood")]);
    }
    cloud.wait("verdict after it", |it| standing(it, "after the flood") == "malicious" && is_released(it));
}

/// What a request stands for.
struct Standing {
    code: String,
    schema: String,
    uses: &'static str,
}

fn refused(done: &Done, why: &str) {
    assert!(done.code == 1 && done.stdout.is_empty(), "{done:?}");
    assert!(done.stderr.contains(why), "{}", done.stderr);
}

const WINDOW: [&str; 4] = ["--set", "after=2026-01-01T00:00:00Z", "--set", "until=2126-01-01T00:00:00Z"];

impl Cloud {
    fn approved(&self, class: &str, standing: &Standing) -> String {
        let asked = self.request_for(class, standing, &[]).ok().json();
        let request = asked["id"].as_str().unwrap().to_owned();
        self.desk.approve(&request);
        request
    }

    /// Reads as the service does, by hand.
    fn read(&self, request: &str) -> Done {
        self.desk.data("query", "reader", &[&[request][..], &WINDOW].concat())
    }

    fn intents(&self) -> usize {
        self.desk.logged::<AccessIntent>().len()
    }

    /// Starts the vendor, which has ended; what it says comes back.
    fn start_vendor(&mut self) -> Arc<Mutex<Vec<String>>> {
        let vendor = &mut self.desk.scene.system.vendor;
        let mut command = Command::new(env!("CARGO_BIN_EXE_clerestory"));
        command.env_clear().args(["serve", "--config", vendor.config()]);
        vendor.start_as(command);
        let said = Arc::default();
        vendor.listen(&said);
        said
    }

    /// Waits until the vendor says `text`.
    fn until_said(said: &Mutex<Vec<String>>, text: &str) {
        until(&format!("nobody says `{text}`"), || said.lock().unwrap().iter().any(|line| line.contains(text)));
    }
}

/// Nothing about it is exempt: what the grant binds can't be changed, and it is used as often as was agreed.
#[test]
fn the_clouds_reader_is_bound_like_any_other() {
    let mut cloud = Cloud::running();
    for country in ["DE", "JP"] {
        cloud.share(APPROVED_CLASS, country, &[detection("trojan", "whatever"), detection("trojan", "whatever")]);
    }
    cloud.wait("verdict", |it| standing(it, "whatever") == "malicious" && is_released(it));
    cloud.desk.settled();
    let announced = cloud.intents();
    let lonely = cloud.request(APPROVED_CLASS, &[]).ok().json()["id"].as_str().unwrap().to_owned();
    refused(&cloud.read(&lonely), "approval(s) of `supervisor` missing");
    let other = || Digest::of(b"another").to_string();
    let (code, query) = (cloud.code(), fs::read_to_string(cloud.system().file("cloud.sql")).unwrap());
    let schema = cloud.schema(APPROVED_CLASS, &query);
    let stands = |code: &str, schema: &str, uses| Standing { code: code.to_owned(), schema: schema.to_owned(), uses };
    // Other code than the worker's, another schema than the query's.
    let request = cloud.approved(APPROVED_CLASS, &stands(&other(), &schema, "9"));
    refused(&cloud.read(&request), "other code");
    let request = cloud.approved(APPROVED_CLASS, &stands(&code, &other(), "9"));
    refused(&cloud.read(&request), "another schema");
    // Another query than was approved: the grant is of its hash, and the call says another one.
    let reader = super::gateway::opening("reader", "threat cloud");
    let answer = cloud.desk.post(&cloud.desk.call(&cloud.requests[0], &reader), vec![reader]);
    assert!(answer.error().contains("another query than its request"), "{}", answer.error());
    refused(&cloud.request(APPROVED_CLASS, &["--region", "elsewhere"]), "elsewhere");
    assert_eq!(cloud.intents(), announced, "nothing of this was announced, and nothing opened");
    // As often as was agreed, here once; that it was tried again is on record.
    let once = cloud.approved(APPROVED_CLASS, &stands(&code, &schema, "1"));
    let first = cloud.read(&once).ok();
    assert!(first.stdout.contains("trojan"), "{first:?}");
    refused(&cloud.read(&once), "as often as it may be");
    assert_eq!(cloud.desk.outcomes().last().unwrap().0, Ended::Refused);
    another_query(&mut cloud, &code);
}

/// The service does not go on with a request for another query than its own, approved as it may be, and says so.
fn another_query(cloud: &mut Cloud, code: &str) {
    let query = "select sha256 as said from detections where taken > $after and taken <= $until\n";
    cloud.write("cloud.sql", query);
    let schema = cloud.schema(APPROVED_CLASS, query);
    let strange = cloud.approved(APPROVED_CLASS, &Standing { code: code.to_owned(), schema, uses: "9" });
    cloud.desk.settled();
    let text = fs::read_to_string(cloud.system().file("vendor/clerestory.toml")).unwrap();
    let line = text.lines().find(|line| line.starts_with("requests = ")).unwrap().to_owned();
    assert_eq!(cloud.desk.scene.system.vendor.stop().code, 0);
    let before = cloud.intents();
    cloud.system().set("vendor", &line, &format!("requests = [\"{strange}\"]"));
    let said = cloud.start_vendor();
    cloud.share(APPROVED_CLASS, "DE", &[detection("trojan", "unread")]);
    Cloud::until_said(&said, "is not about this program's query");
    assert_eq!(cloud.intents(), before);
}

/// Its worker is another program, enrolled as it should be, or moves: nothing is opened for the cloud then, and what
/// came meanwhile becomes a verdict when the old one is back.
#[test]
fn the_clouds_worker_is_changed_or_moved_and_opens_nothing() {
    let mut cloud = Cloud::running();
    assert_eq!(cloud.desk.scene.system.vendor.stop().code, 0);
    let said = cloud.start_vendor();
    let presented: api::Worker = serde_json::from_value(cloud.worker_says()).unwrap();
    let query = cloud.system().run(&["cloud", "query", APPROVED_CLASS]).ok().stdout;
    let schema: Digest = cloud.schema(APPROVED_CLASS, &query).parse().unwrap();
    assert_eq!(cloud.worker.stop().code, 0);
    // One byte more: it works as before, and is another program.
    let changed = cloud.system().file("changed");
    fs::copy(program(), &changed).unwrap();
    fs::OpenOptions::new().append(true).open(&changed).unwrap().write_all(b"\0").unwrap();
    let start_changed = |worker: &mut Server| {
        let mut command = Command::new(&changed);
        command.env_clear().args(["serve", "--config", worker.config()]);
        worker.start_as(command);
    };
    start_changed(&mut cloud.worker);
    let done = cloud.worker.wait();
    assert!(done.code != 0 && done.stderr.contains("enrolment"), "{done:?}");
    let enrolment = cloud.system().file("worker/enrolment.bundle");
    let enrolled = fs::read(&enrolment).unwrap();
    let code = Command::new(&changed).arg("code").output().unwrap().stdout;
    cloud.desk.scene.enrol(String::from_utf8(code).unwrap().trim_end(), "worker/enrolment.bundle");
    start_changed(&mut cloud.worker);
    let before = cloud.intents();
    let event = || detection("trojan", "meanwhile");
    cloud.share(APPROVED_CLASS, "DE", &[event(), event()]);
    Cloud::until_said(&said, "other code");
    refused(&cloud.read(&cloud.requests[0]), "other code");
    assert_eq!(cloud.intents(), before, "nothing of this was announced");
    assert_eq!(cloud.worker.stop().code, 0);
    // The code that was approved, on a host that says that it stands elsewhere.
    let scene = &cloud.desk.scene;
    let mut moved =
        Statement::<WorkerKey>::decode(scene.certify_code(&fs::read(program()).unwrap()).payload()).unwrap();
    moved.predicate.region = "geneva".parse().unwrap();
    let opened = CUSTODIANS.map(|who| scene.state(who).opened);
    let presented = api::Worker { key: text(&signed(moved, &scene.host)), ..presented };
    let listener = cloud.worker.listener().try_clone().unwrap();
    let stand = Stand::at(listener, scene.take_worker(), presented, schema);
    stand.keep(vec![cloud.sealed(APPROVED_CLASS, "DE", "{}\n")]);
    Cloud::until_said(&said, "not in this region");
    refused(&cloud.read(&cloud.requests[0]), "not in this region");
    assert_eq!(CUSTODIANS.map(|who| cloud.desk.scene.state(who).opened), opened);
    // The gateway has announced it; that it came to nothing stands in the log, too.
    assert_eq!(cloud.desk.outcomes().last(), Some(&(Ended::Refused, 0, 0)));
    drop(stand);
    // The old one, where it was.
    durable::write(&enrolment, &enrolled).unwrap();
    cloud.worker.listener().set_nonblocking(false).unwrap();
    start(&mut cloud.worker);
    cloud.share(APPROVED_CLASS, "JP", &[event()]);
    cloud.wait("verdict", |it| standing(it, "meanwhile") == "malicious" && is_released(it));
}
