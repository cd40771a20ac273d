//! A region with two custodians as processes, and a gateway that a test can make say anything.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::{GrantAnswer, GrantRequest, OutcomeNote};
use attest::{
    AccessApproval, AccessIntent, AccessMode, AccessOutcome, AccessRequest, BatchId, Budget, Bundle, BundleEntry,
    Ended, Envelope, Opening, Position, ReaderKind, Statement, StatementId, Subject, WorkerKey, Workers,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use custody::{grant_info, objects_root};
use policy::{Organisation, Policy, Residency, Role, RoleKey, TimedKey};
use seal::{DataKey, Destination, Header, Kem, PrivateKey, Sealed, Share, Wrapped};
use server::config::Config;
use server::domain::Domain;
use server::prove::under_one_checkpoint;
use stdx::{Clock as _, Digest, SystemClock, SystemEntropy, UnixTime, durable};
use storage::RecordKey;
use tempfile::TempDir;
use testkit::{APPROVED_CLASS, Custody, PURPOSE, Postgres, REGION, Seaweed, write_section};
use tlog::{KeyKind, SignerKey};

use crate::process::{Server, run_with};
use crate::raw::{self, Response};
use crate::shared::balancer::Balancer;
use crate::system::{Scope, System};
use crate::vault::chain;

pub(crate) const CUSTODIANS: [&str; 2] = ["supervisor", "member"];

/// Everything runs: logs, witnesses, and a custodian of each organisation.
pub(crate) struct Scene {
    pub(crate) system: System,
    pub(crate) custodians: Vec<Server>,
    /// The vendor's, where it has several: then they stand behind its address.
    pub(crate) machines: Vec<Server>,
    pub(crate) balancer: Option<Balancer>,
    pub(crate) worker: PrivateKey,
    pub(crate) host: SignerKey,
    pub(crate) enrolment: StatementId,
    vendor: Domain,
    supervisor: Domain,
    runtime: tokio::runtime::Runtime,
}

/// A SoftHSM2 token with the label `custodian` and the PIN `1234`.
pub(crate) struct Token {
    pub(crate) program: PathBuf,
    pub(crate) softhsm: String,
}

/// What a scene has that others have not.
#[derive(Default)]
pub(crate) struct Setting {
    /// The supervisor's custodian has its keys there.
    pub(crate) token: Option<Token>,
    /// Custodians' keys begin then, and not with this week.
    pub(crate) from: Option<UnixTime>,
    /// The vendor has two machines on these, and what they take in lies in a segment a second later.
    pub(crate) shared: Option<Shared>,
}

/// Stores of the vendor's machines and of the supervisor's, which has one.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) postgres: Arc<Postgres>,
    pub(crate) seaweed: Arc<Seaweed>,
    /// The vendor's bucket and schema; the supervisor's bucket is `NAME-supervisor`.
    pub(crate) name: &'static str,
}

impl Shared {
    pub(crate) fn of_its_own(name: &'static str) -> Self {
        Self { postgres: Arc::new(Postgres::start()), seaweed: Arc::new(Seaweed::start()), name }
    }

    /// On services that other tests use, too.
    pub(crate) fn with_others(name: &'static str) -> Self {
        Self { postgres: Postgres::shared(), seaweed: Seaweed::shared(), name }
    }

    pub(crate) fn bucket(&self, organisation: &str) -> String {
        if organisation == "vendor" { self.name.to_owned() } else { format!("{}-{organisation}", self.name) }
    }
}

/// What a gateway brings.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) intent: BundleEntry,
    pub(crate) request: BundleEntry,
    pub(crate) others: Vec<BundleEntry>,
    pub(crate) worker: Envelope,
    pub(crate) objects: Vec<Vec<u8>>,
}

pub(crate) const BUDGET: Budget = Budget { objects: 2, rows: 100, bytes: 10_000 };

pub(crate) fn folder(custodian: &str) -> String {
    format!("custodian-{custodian}")
}

fn now() -> UnixTime {
    SystemClock::new().now()
}

fn in_s(seconds: u64) -> UnixTime {
    now().after(Duration::from_secs(seconds))
}

/// What the scene's statements say in private.
pub(crate) fn opening(label: &str, value: &str) -> Opening {
    let key = "07".repeat(32);
    Opening::parse(format!(r#"{{"label":"{label}","value":"{value}","key":"{key}"}}"#).as_bytes()).unwrap()
}

impl Scene {
    pub(crate) fn running() -> Self {
        Self::running_with(&Setting::default())
    }

    /// With a token, or keys of weeks that are over.
    pub(crate) fn running_with(setting: &Setting) -> Self {
        let mut scene = Self::made_with(setting);
        scene.start_logs();
        scene.custodians.iter_mut().for_each(Server::start);
        scene.enrolment = scene.enrol(&Digest::of(b"code").to_string(), "enrolment");
        scene
    }

    /// Everything is there, nothing runs.
    pub(crate) fn made() -> Self {
        Self::made_for(Scope::Logs, |_| {})
    }

    /// The same, under a policy that is otherwise.
    pub(crate) fn made_for(scope: Scope, more: impl FnOnce(&mut Policy)) -> Self {
        Self::made_as(&Setting::default(), scope, more)
    }

    /// With what others have not.
    pub(crate) fn made_with(setting: &Setting) -> Self {
        Self::made_as(setting, Scope::Logs, |_| {})
    }

    /// All of that.
    pub(crate) fn made_as(setting: &Setting, scope: Scope, more: impl FnOnce(&mut Policy)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let Some(shared) = &setting.shared else {
            return Self::made_in(folder, [&[], &[]], (setting, scope), more);
        };
        for organisation in ["vendor", "supervisor"] {
            let bucket = shared.bucket(organisation);
            shared.seaweed.make_bucket(&bucket);
            write_section(folder.path(), (&shared.postgres, &shared.seaweed), &bucket, organisation);
        }
        let further = [&["--shared", "vendor.toml"][..], &["--shared", "supervisor.toml"]];
        let mut scene = Self::made_in(folder, further, (setting, scope), more);
        let (system, full) = (&scene.system, "intake_bytes_max = 68719476736");
        system.set("vendor", full, &format!("{full}\nintake_segment_s = 1"));
        scene.machines = (1..=2).map(|n| system.front("vendor", &format!("vendor{n}"))).collect();
        let balancer = Balancer::start(system.vendor.listener().try_clone().unwrap());
        balancer.ask(&scene.machines.iter().map(Server::address).collect::<Vec<_>>());
        scene.balancer = Some(balancer);
        scene
    }

    /// On stores that machines share.
    pub(crate) fn made_on(shared: &Shared, more: impl FnOnce(&mut Policy)) -> Self {
        Self::made_as(&Setting { shared: Some(shared.clone()), ..Setting::default() }, Scope::Logs, more)
    }

    fn made_in(
        folder: TempDir,
        further: [&[&str]; 2],
        (setting, scope): (&Setting, Scope),
        more: impl FnOnce(&mut Policy),
    ) -> Self {
        let change = |system: &System, policy: &mut Policy| {
            put_residency_into(system, policy, setting);
            more(policy);
        };
        let system = System::made_in(folder, scope, further, change);
        let mut custodians: Vec<Server> = CUSTODIANS.iter().map(|who| configure(&system, who)).collect();
        if let Some(token) = &setting.token {
            custodians[0].set_env("SOFTHSM2_CONF", &token.softhsm);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let open = |name: &str| {
            let config = Config::load(&system.file(&format!("{name}/clerestory.toml"))).unwrap();
            runtime.block_on(Domain::open(&config)).unwrap()
        };
        let (vendor, supervisor) = (open("vendor"), open("supervisor"));
        let name = "host-1.example/host".parse().unwrap();
        let host = SignerKey::generate(name, KeyKind::Ed25519, &SystemEntropy).unwrap();
        let worker = PrivateKey::generate(Kem::P256, &SystemEntropy).unwrap();
        let enrolment = StatementId::of(b"none yet");
        let (machines, balancer) = (Vec::new(), None);
        Self { system, custodians, machines, balancer, worker, host, enrolment, vendor, supervisor, runtime }
    }

    /// Logs and witnesses.
    pub(crate) fn start_logs(&mut self) {
        self.system.witnesses.iter_mut().for_each(Server::start);
        self.vendors().into_iter().for_each(|(_, vendor)| vendor.start());
        self.system.supervisor.start();
    }

    /// The ceremony, by its command; the bundle is there then, in the system's folder.
    pub(crate) fn enrol(&self, code: &str, bundle: &str) -> StatementId {
        let key = self.host.verifier().to_string();
        let config = ["--json", "data", "enrol", "--config", "supervisor/clerestory.toml"];
        let about = ["--key", &key, "--code", code, "--region", REGION, "--out", bundle, "host-1"];
        let done = self.system.run(&[&config[..], &about].concat());
        done.ok().json()["statement"].as_str().unwrap().parse().unwrap()
    }

    pub(crate) fn supervisor_data(&self, arguments: &[&str]) -> crate::process::Done {
        let (command, rest) = arguments.split_first().unwrap();
        self.system.run(&[&["--json", "data", command, "--config", "supervisor/clerestory.toml"], rest].concat())
    }

    pub(crate) fn custodian(&mut self, who: &str) -> &mut Server {
        let at = CUSTODIANS.iter().position(|it| *it == who).unwrap();
        &mut self.custodians[at]
    }

    /// Signs and logs a statement in the stream of an organisation.
    pub(crate) fn write(
        &self,
        stream: &str,
        sign: impl Fn(Position) -> Envelope + Send + Sync,
    ) -> Result<BundleEntry, server::stream::StreamError> {
        let domain = if stream.ends_with("vendor") { &self.vendor } else { &self.supervisor };
        let writer = domain.stream(stream).unwrap();
        self.runtime.block_on(async { writer.write(|position| Ok(sign(position))).await })
    }

    /// Objects from two countries, ascending by name.
    pub(crate) fn objects(&self) -> Vec<Vec<u8>> {
        self.objects_of(APPROVED_CLASS)
    }

    pub(crate) fn objects_of(&self, class: &str) -> Vec<Vec<u8>> {
        self.objects_at(class, now())
    }

    /// Sealed at another time.
    pub(crate) fn objects_at(&self, class: &str, at: UnixTime) -> Vec<Vec<u8>> {
        let policy = self.system.policy();
        let residency = policy.policy().residency.as_ref().unwrap();
        let seal = |country: &str| {
            let to = Destination::new(residency, policy.id(), country.parse().unwrap(), at).unwrap();
            let text = format!("an event from {country}");
            to.seal(&class.parse().unwrap(), text.as_bytes(), &SystemEntropy).unwrap()
        };
        let mut objects: Vec<Vec<u8>> = ["DE", "JP"].iter().map(|country| seal(country)).collect();
        objects.sort_by_key(|object| Header::parse(object).unwrap().0.bound.id);
        objects
    }

    pub(crate) fn request(&self) -> BundleEntry {
        let key = self.system.key("vendor", "reader");
        let private = |label, value| opening(label, value).commitment();
        let sign = |position| {
            let request = AccessRequest {
                position,
                reader: private("reader", "an analyst"),
                kind: ReaderKind::Person,
                purpose: PURPOSE.parse().unwrap(),
                ticket: private("ticket", "a ticket"),
                region: REGION.parse().unwrap(),
                class: APPROVED_CLASS.parse().unwrap(),
                countries: ["DE", "JP"].map(|it| it.parse().unwrap()).to_vec(),
                budget: BUDGET,
                until: in_s(3600),
                mode: AccessMode::Ordinary,
                standing: None,
            };
            signed(Statement { subject: query(), predicate: request }, &key)
        };
        self.write("data/vendor", sign).unwrap()
    }

    fn approval(&self, request: StatementId) -> BundleEntry {
        let key = self.system.key("supervisor", "approver");
        let sign = |position| {
            let comment = opening("comment", "yes").commitment();
            signed(Statement { subject: query(), predicate: AccessApproval { position, request, comment } }, &key)
        };
        self.write("data/supervisor", sign).unwrap()
    }

    /// An intent for these objects and this worker, signed by the gateway, in its place.
    pub(crate) fn intent_at(&self, position: Position, request: StatementId, objects: &[Vec<u8>]) -> Envelope {
        let intent = AccessIntent {
            position,
            policy: self.system.policy().id(),
            request,
            region: REGION.parse().unwrap(),
            class: APPROVED_CLASS.parse().unwrap(),
            countries: ["DE", "JP"].map(|it| it.parse().unwrap()).to_vec(),
            workers: Workers::one(self.worker.public().id()),
            budget: BUDGET,
            expires: in_s(600),
            reader: None,
            parameters: None,
        };
        let subject = vec![Subject::new("objects", objects_root(&headers(objects)).unwrap())];
        signed(Statement { subject, predicate: intent }, &self.system.key("supervisor", "gateway"))
    }

    pub(crate) fn intent(&self, request: StatementId, objects: &[Vec<u8>]) -> BundleEntry {
        self.write("access/supervisor", |position| self.intent_at(position, request, objects)).unwrap()
    }

    pub(crate) fn certify(&self) -> Envelope {
        self.certify_code(b"code")
    }

    pub(crate) fn certify_code(&self, code: &[u8]) -> Envelope {
        let certificate = WorkerKey {
            enrolment: self.enrolment,
            key: self.worker.public().to_string(),
            region: REGION.parse().unwrap(),
            from: UnixTime::from_seconds(now().seconds() - 60),
            until: in_s(3600),
        };
        let subject = vec![Subject::new("clerestory-query", Digest::of(code))];
        signed(Statement { subject, predicate: certificate }, &self.host)
    }

    /// The worker's key, for the worker.
    pub(crate) fn take_worker(&self) -> PrivateKey {
        PrivateKey::from_text(&self.worker.to_text()).unwrap()
    }

    /// The region's newest status, as everybody gets it.
    pub(crate) fn status(&self) -> BundleEntry {
        let answer = raw::get(self.system.supervisor.address(), "/v1/regions/zurich");
        assert_eq!(answer.status, 200, "{}", answer.text());
        Bundle::parse(&answer.body).unwrap().entries()[0].clone()
    }

    fn enrolled(&self) -> BundleEntry {
        let key =
            RecordKey { table: "worker-enrolment".parse().unwrap(), key: self.enrolment.to_string().parse().unwrap() };
        let bytes = self.runtime.block_on(self.supervisor.catalog().record(&key)).unwrap().unwrap();
        Bundle::parse(&bytes).unwrap().entries()[0].clone()
    }

    /// The whole path up to the custodians.
    pub(crate) fn make(&self) -> Made {
        self.make_of(self.objects())
    }

    pub(crate) fn make_of(&self, objects: Vec<Vec<u8>>) -> Made {
        let request = self.request();
        let others = vec![self.approval(request.envelope.id()), self.enrolled(), self.status()];
        let intent = self.intent(request.envelope.id(), &objects);
        Made { intent, request, others, worker: self.certify(), objects }
    }

    /// Endpoints bring these, and they lie in a segment.
    pub(crate) fn keep(&mut self, objects: &[Vec<u8>]) {
        objects.iter().for_each(|object| self.send(object));
        if self.machines.is_empty() {
            // What a process leaves behind becomes one when the next comes.
            return self.change_vendor(|_, _| {});
        }
        let mut left: BTreeSet<BatchId> = headers(objects).iter().map(|header| header.bound.id).collect();
        while !left.is_empty() {
            for kept in chain(self.system.vendor.address()).segments().flat_map(|it| &it.objects) {
                left.remove(&kept.id);
            }
        }
    }

    /// An endpoint brings this.
    pub(crate) fn send(&self, object: &[u8]) {
        let taken = raw::post(self.system.vendor.address(), "/v1/events", object);
        assert_eq!(taken.status, 200, "{}", taken.text());
    }

    /// The vendor's processes with the folders of their configurations.
    pub(crate) fn vendors(&mut self) -> Vec<(String, &mut Server)> {
        match &mut self.machines[..] {
            [] => vec![("vendor".to_owned(), &mut self.system.vendor)],
            machines => machines.iter_mut().zip(1..).map(|(it, n)| (format!("vendor{n}"), it)).collect(),
        }
    }

    /// Stops the vendor's processes, changes something in each one's folder, and starts them again.
    pub(crate) fn change_vendor(&mut self, change: impl Fn(&System, &str)) {
        let folders: Vec<String> = self.vendors().into_iter().map(|(folder, _)| folder).collect();
        self.vendors().into_iter().for_each(|(_, vendor)| assert_eq!(vendor.stop().code, 0));
        folders.iter().for_each(|folder| change(&self.system, folder));
        self.vendors().into_iter().for_each(|(_, vendor)| vendor.start());
    }

    /// As it goes over the wire, all under the newest checkpoint of those.
    pub(crate) fn ask(&self, made: &Made) -> GrantRequest {
        let entries: Vec<BundleEntry> =
            [&made.intent, &made.request].into_iter().chain(&made.others).cloned().collect();
        let url = self.system.supervisor.url().parse().unwrap();
        let bundle = under_one_checkpoint(&entries, &url, &self.supervisor.client).unwrap();
        let header = |header: &Header| STANDARD.encode(header.to_bytes());
        GrantRequest {
            evidence: String::from_utf8(bundle.to_bytes()).unwrap(),
            workers: vec![String::from_utf8(made.worker.to_bytes()).unwrap()],
            headers: headers(&made.objects).iter().map(header).collect(),
            openings: vec![opening("reader", "an analyst"), opening("ticket", "a ticket"), opening("comment", "yes")],
        }
    }

    pub(crate) fn grant(&self, who: &str, ask: &GrantRequest) -> Response {
        let at = CUSTODIANS.iter().position(|it| *it == who).unwrap();
        raw::post(self.custodians[at].address(), "/v1/custody/grants", &serde_json::to_vec(ask).unwrap())
    }

    /// What a custodian has given for each object, opened by the worker.
    pub(crate) fn shares(&self, who: &str, made: &Made, answer: &Response) -> Vec<Share> {
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer: GrantAnswer = serde_json::from_slice(&answer.body).unwrap();
        let open = |granted: &api::GrantedShare| {
            let decode = |text: &String| STANDARD.decode(text).unwrap();
            let wrapped = Wrapped { encapsulated: decode(&granted.encapsulated), sealed: decode(&granted.sealed) };
            let info = grant_info(made.intent.envelope.id(), granted.object.parse().unwrap(), &who.parse().unwrap());
            Share::open(&wrapped, &self.worker, &info).unwrap()
        };
        answer.granted.iter().map(open).collect()
    }

    /// The gateway's word on how it ended, logged.
    pub(crate) fn outcome(&self, made: &Made) -> BundleEntry {
        let (key, intent) = (self.system.key("supervisor", "gateway"), made.intent.envelope.id());
        let sign = |position| {
            let predicate = AccessOutcome { position, intent, ended: Ended::Done, rows: 2, bytes: 36 };
            signed(Statement { subject: vec![Subject::new("result", Digest::of(b"rows"))], predicate }, &key)
        };
        self.write("access/supervisor", sign).unwrap()
    }

    pub(crate) fn conclude(&self, who: &str, outcome: &BundleEntry) -> Response {
        let at = CUSTODIANS.iter().position(|it| *it == who).unwrap();
        let bundle = Bundle::new(vec![outcome.clone()]).unwrap();
        let note = OutcomeNote { outcome: String::from_utf8(bundle.to_bytes()).unwrap() };
        raw::post(self.custodians[at].address(), "/v1/custody/outcomes", &serde_json::to_vec(&note).unwrap())
    }

    pub(crate) fn state(&self, who: &str) -> api::RegionCustody {
        let at = CUSTODIANS.iter().position(|it| *it == who).unwrap();
        let answer = raw::get(self.custodians[at].address(), "/v1/custody");
        let state: api::CustodyState = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(state.organisation.as_str(), who);
        state.regions[0].clone()
    }
}

/// What two custodians' shares of each object open.
pub(crate) fn read(made: &Made, shares: [&[Share]; 2]) -> Vec<String> {
    let pairs = shares[0].iter().zip(shares[1]);
    let keys = pairs.map(|(one, other)| DataKey::join([one, other]));
    let texts = made.objects.iter().zip(keys).map(|(object, key)| Sealed::read(object, &key).unwrap());
    texts.map(|text| String::from_utf8(text).unwrap()).collect()
}

pub(crate) fn headers(objects: &[Vec<u8>]) -> Vec<Header> {
    objects.iter().map(|object| Header::parse(object).unwrap().0).collect()
}

fn query() -> Vec<Subject> {
    vec![Subject::new("query", Digest::of(b"select"))]
}

pub(crate) fn signed<P: attest::Predicate>(statement: Statement<P>, key: &SignerKey) -> Envelope {
    Envelope::sign(statement.encode().unwrap(), &[key]).unwrap()
}

const WEEK_S: u64 = 7 * 24 * 60 * 60;

/// When the week began that was so many before this one.
pub(crate) fn weeks_ago(weeks: u64) -> UnixTime {
    // The fifth day of 1970 was a Monday.
    const MONDAY_S: u64 = 4 * 24 * 60 * 60;
    let now = now().seconds() - MONDAY_S;
    UnixTime::from_seconds(now - now % WEEK_S - weeks * WEEK_S + MONDAY_S)
}

/// Makes the custodians' folders and keys by the commands that users make them with, and a policy that names them.
fn put_residency_into(system: &System, policy: &mut Policy, setting: &Setting) {
    let mut residency: Residency = Custody::new().residency();
    for assignment in &mut residency.assignments {
        assignment.from = UnixTime::from_seconds(0);
    }
    let region = &mut residency.regions[0];
    for (custodian, kem) in region.custodians.iter_mut().zip(["p256", "x-wing"]) {
        let (who, folder) = (custodian.organisation.to_string(), folder(custodian.organisation.as_str()));
        system.run(&["init", "custodian", "--dir", &folder, "--organisation", &who]).ok();
        let config = format!("{folder}/clerestory.toml");
        let token = setting.token.as_ref().filter(|_| who == "supervisor");
        if let Some(token) = token {
            let section = format!(
                "[keys.token]\nprogram = \"{}\"\nmodule = \"/usr/lib/softhsm/libsofthsm2.so\"\nlabel = \"custodian\"\npin = \"keys/pin\"\n\n[http]",
                token.program.display()
            );
            system.set(&folder, "[http]", &section);
            durable::write_private(&system.file(&format!("{folder}/keys/pin")), b"1234\n").unwrap();
        }
        let softhsm = token.map(|token| ("SOFTHSM2_CONF", token.softhsm.as_str()));
        // This week and the next two: nobody waits for a Monday.
        let from = setting.from.unwrap_or_else(|| weeks_ago(0));
        let weeks = (3 + now().since(from).as_secs() / WEEK_S).to_string();
        let from = from.to_string();
        let made = ["--json", "data", "keys", "--config", &config, "--kem", kem, "--weeks", &weeks, "--from", &from];
        let made = run_with(system.path(), &made, softhsm.as_slice()).ok().json();
        custodian.keys = serde_json::from_value::<Vec<TimedKey>>(made["keys"].clone()).unwrap();
    }
    for (who, role) in [("supervisor", "gateway"), ("vendor", "reader")] {
        let (name, file) = (format!("{who}.example/{role}"), format!("{who}/keys/{role}.key"));
        if !system.file(&file).exists() {
            system.run(&["key", "generate", "--name", &name, &file]).ok();
        }
        let role = if role == "gateway" { Role::Gateway } else { Role::Reader };
        add_key(system, policy, who, RoleKey { role, key: system.vkey(who, &role.to_string()).parse().unwrap() });
    }
    for who in CUSTODIANS {
        let key = system.vkey(&folder(who), "custodian").parse().unwrap();
        add_key(system, policy, who, RoleKey { role: Role::Custodian, key });
    }
    policy.streams.extend(Custody::streams());
    let rules = include_bytes!("../../../../../docs/samples/access.cedar");
    durable::write(&system.file("supervisor/access.cedar"), rules).unwrap();
    residency.rules = Some(Digest::of(rules));
    policy.residency = Some(residency);
}

fn add_key(_: &System, policy: &mut Policy, who: &str, key: RoleKey) {
    let found = policy.organisations.iter_mut().find(|it| it.id.as_str() == who);
    match found {
        Some(organisation) => organisation.keys.push(key),
        None => policy.organisations.push(Organisation { id: who.parse().unwrap(), keys: vec![key] }),
    }
}

/// Gives a custodian the policy, and a socket.
fn configure(system: &System, who: &str) -> Server {
    let folder = folder(who);
    let path = system.file(&format!("{folder}/clerestory.toml"));
    std::fs::copy(system.file("vendor/policy/1.envelope"), system.file(&format!("{folder}/policy/1.envelope")))
        .unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let change = |line: &str| match line {
        line if line.starts_with("listen = ") => "listen = \"stdin\"\n".to_owned(),
        line if line.starts_with("# genesis = ") => format!("genesis = \"{}\"\n", system.genesis),
        line => format!("{line}\n"),
    };
    durable::write(&path, text.lines().map(change).collect::<String>().as_bytes()).unwrap();
    Server::bound(path)
}
