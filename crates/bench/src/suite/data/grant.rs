//! What it takes until a worker has the shares of a sealed object: the call checked, the intent durable and
//! witnessed, both custodians' checks, notes and keys. Everything runs as processes, but for the worker, which plans as
//! many objects as a request may open, and gives out nothing, so that no query is in the figures.

use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use api::{
    BaseUrl, Client, DataQuery, Plan, PlanRequest, PlannedObject, ResultEnd, ResultFormat, ResultPiece, ResultReader,
    path, result_end,
};
use attest::{AccessCall, AccessRequest, Bundle, Envelope, Statement, StatementId, Subject, WorkerKey};
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use policy::{Organisation, Policy, Residency, Role, RoleKey, TimedKey};
use seal::{Destination, Header, Kem, PrivateKey, Wrapped};
use serde::Deserialize as _;
use serde_json::Value;
use server::key_file;
use stdx::{Clock as _, Digest, Entropy as _, SystemClock, SystemEntropy, UnixTime, durable};
use testkit::{APPROVED_CLASS, Custody, PURPOSE, REGION};
use tlog::{KeyKind, SignerKey};

use super::openbao::OpenBao;
use crate::bench::Bench;
use crate::row::{Figure, Row, Target};
use crate::samples::Samples;
use crate::suite::system::{SUPERVISOR, System};

const CUSTODIANS: [(&str, &str); 2] = [("supervisor", "p256"), ("member", "x-wing")];
/// Of the custodians.
pub(in super::super) const FOLDERS: [&str; 2] = ["custodian-supervisor", "custodian-member"];
const QUERY: &str = "select line from detections\n";
const CODE: &[u8] = b"a worker";
const SCHEMA: &[u8] = b"line: text";
/// A service's standing request for what needs an approval: the sample has no such rule.
const RULES: &str = concat!(
    include_str!("../../../../../docs/samples/access.cedar"),
    "permit (principal in Organisation::\"vendor\", action, resource) when { context.standing };\n"
);
/// As many as one grant opens, and a segment holds.
const OBJECTS: usize = 4096;
/// Services that ask at once.
const READERS: usize = 48;
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes the custodians by their commands, and puts them and their streams into the policy.
pub(in super::super) fn add_residency(system: &System, policy: &mut Policy) -> anyhow::Result<()> {
    let mut residency: Residency = Custody::new().residency();
    for assignment in &mut residency.assignments {
        assignment.from = UnixTime::from_seconds(0);
    }
    residency.classes.iter_mut().for_each(|class| class.objects_max = OBJECTS as u64);
    let region = residency.regions.first_mut().context("a region")?;
    for ((custodian, (who, kem)), folder) in region.custodians.iter_mut().zip(CUSTODIANS).zip(FOLDERS) {
        system.run(&["init", "custodian", "--dir", folder, "--organisation", who])?;
        let config = format!("{folder}/clerestory.toml");
        let made = system.run(&["--json", "data", "keys", "--config", &config, "--kem", kem, "--weeks", "2"])?;
        let made: Value = serde_json::from_str(&made)?;
        custodian.keys = Vec::<TimedKey>::deserialize(made.get("keys").context("no keys")?)?;
    }
    durable::write(&system.file("supervisor/access.cedar"), RULES.as_bytes())?;
    residency.rules = Some(Digest::of(RULES.as_bytes()));
    let keys = [
        ("supervisor", "supervisor", Role::Gateway),
        ("vendor", "vendor", Role::Reader),
        ("supervisor", FOLDERS[0], Role::Custodian),
        ("member", FOLDERS[1], Role::Custodian),
    ];
    for (who, folder, role) in keys {
        let (name, file) = (role.to_string(), format!("{folder}/keys/{role}.key"));
        if !system.file(&file).exists() {
            system.run(&["key", "generate", "--name", &format!("{who}.example/{role}"), &file])?;
        }
        let key = RoleKey { role, key: system.vkey(folder, &name)?.parse()? };
        match policy.organisations.iter_mut().find(|it| it.id.as_str() == who) {
            Some(organisation) => organisation.keys.push(key),
            None => policy.organisations.push(Organisation { id: who.parse()?, keys: vec![key] }),
        }
    }
    policy.streams.extend(Custody::streams());
    policy.residency = Some(residency);
    Ok(())
}

/// Makes the supervisor the gateway to these workers, when it is started.
pub(in super::super) fn add_access(system: &System, workers: &[String]) -> anyhow::Result<()> {
    let mut custodians = Vec::new();
    for (place, (who, _)) in CUSTODIANS.iter().enumerate() {
        custodians.push(format!("{who} = \"{}\"", system.url(System::further() + place)?));
    }
    let section = format!(
        "[access]\nkey = \"keys/gateway.key\"\nrules = \"access.cedar\"\nworkers = {{ {REGION} = {workers:?} }}\n\
         custodians = {{ {} }}\n\n[http]\n",
        custodians.join(", ")
    );
    system.change("supervisor", |line| (line == "[http]").then(|| section.clone()))
}

/// A worker that holds objects, and never opens them.
struct Worker {
    key: PrivateKey,
    host: SignerKey,
    listener: std::net::TcpListener,
}

impl Worker {
    fn new() -> anyhow::Result<Self> {
        let host = SignerKey::generate("host-1.example/host".parse()?, KeyKind::Ed25519, &SystemEntropy)?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        Ok(Self { key: PrivateKey::generate(Kem::P256, &SystemEntropy)?, host, listener })
    }

    /// Serves until the process ends.
    fn serve(self, enrolment: String, objects: &[Vec<u8>]) -> anyhow::Result<()> {
        let bundle = Bundle::parse(enrolment.as_bytes())?;
        let entry = bundle.entries().first().context("an enrolment")?;
        let now = SystemClock::new().now();
        let predicate = WorkerKey {
            enrolment: entry.envelope.id(),
            key: self.key.public().to_string(),
            region: REGION.parse()?,
            from: UnixTime::from_seconds(now.seconds() - 60),
            until: now.after(Duration::from_secs(3600)),
        };
        let statement = Statement { subject: vec![Subject::new("clerestory-query", Digest::of(CODE))], predicate };
        let key = String::from_utf8(Envelope::sign(statement.encode()?, &[&self.host])?.to_bytes())?;
        let presented = api::Worker { key, enrolment, code: Digest::of(CODE) };
        let mut objects = objects.iter().map(|object| planned(object)).collect::<anyhow::Result<Vec<_>>>()?;
        objects.sort_by(|one, other| one.id.cmp(&other.id));
        let objects = Arc::new(objects);
        let plan = move |asked: Json<PlanRequest>| async move {
            let columns = vec![("line".to_owned(), "text".to_owned())];
            let objects = objects.iter().zip(0..asked.objects).map(|(object, _)| object.clone()).collect();
            Json(Plan { objects, columns, bytes: 1000, schema: Digest::of(SCHEMA), is_for_one: false })
        };
        let end = result_end(&ResultEnd::nothing());
        let router = Router::new()
            .route(path::WORKER, get(|| async move { Json(presented) }))
            .route(path::PLAN, post(plan))
            .route(path::RUN, post(|_: axum::body::Bytes| async move { end }).layer(DefaultBodyLimit::disable()));
        let listener = self.listener;
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async { axum::serve(tokio::net::TcpListener::from_std(listener)?, router).await })
        });
        Ok(())
    }
}

fn planned(object: &[u8]) -> anyhow::Result<PlannedObject> {
    let (header, _) = Header::parse(object)?;
    Ok(PlannedObject {
        id: header.bound.id.to_string(),
        header: STANDARD.encode(header.to_bytes()),
        segment: Digest::of(object),
        at: 0,
        bytes: object.len() as u64,
    })
}

/// A service with a standing request that was approved.
struct Reader {
    url: BaseUrl,
    key: SignerKey,
    request: StatementId,
    says: Statement<AccessRequest>,
}

impl Reader {
    /// Seconds until a worker has the shares; the rest of the answer is read, too, and says that the outcome is in
    /// the log.
    fn ask(&self, client: &Client, clock: &SystemClock) -> anyhow::Result<f64> {
        let mut nonce = [0; 32];
        SystemEntropy.fill(&mut nonce)?;
        let (reader, time) = (self.says.predicate.reader, SystemClock::new().now());
        let nonce = Digest::from_bytes(nonce);
        let predicate = AccessCall { request: self.request, reader, parameters: None, time, nonce };
        let call = Statement { subject: self.says.subject.clone(), predicate };
        let call = String::from_utf8(Envelope::sign(call.encode()?, &[&self.key])?.to_bytes())?;
        let query = DataQuery { call, openings: Vec::new(), format: ResultFormat::Json };
        let start = clock.monotonic();
        let answer = client.post_open(&self.url.join(path::DATA_QUERIES), &query)?;
        let seconds = (clock.monotonic() - start).as_secs_f64();
        match ResultReader::new(answer).piece()? {
            ResultPiece::End(end) if end.failed.is_none() => Ok(seconds),
            other => bail!("the reading did not end well: {other:?}"),
        }
    }
}

/// A system, who reads one object, and who reads all of them.
fn make(bench: &Bench) -> anyhow::Result<(System, Reader, Reader)> {
    let folder = bench.folder().to_owned();
    let mut system = System::made(&folder, bench.programs()?, &FOLDERS, add_residency)?;
    let worker = Worker::new()?;
    let url = format!("http://{}", worker.listener.local_addr()?);
    add_access(&system, &[url])?;
    system.start()?;
    let (config, host, code) = ("supervisor/clerestory.toml", worker.host.verifier().to_string(), Digest::of(CODE));
    let (code, schema) = (code.to_string(), Digest::of(SCHEMA).to_string());
    let enrol = ["data", "enrol", "--config", config, "--key", &host, "--code", &code, "--region", REGION];
    system.run(&[&enrol[..], &["--out", "enrolment", "host-1"]].concat())?;
    let policy = system.genesis().parse()?;
    let toml: Policy = toml::from_str(&std::fs::read_to_string(system.file("policy.toml"))?)?;
    let residency = toml.residency.context("a residency")?;
    let country = "DE".parse().map_err(|error| anyhow::anyhow!("{error}"))?;
    let destination = Destination::new(&residency, policy, country, SystemClock::new().now())?;
    let class = APPROVED_CLASS.parse().map_err(|error| anyhow::anyhow!("{error}"))?;
    let seal = |_| Ok(destination.seal(&class, b"a line\n", &SystemEntropy)?);
    let objects = (0..OBJECTS).map(seal).collect::<anyhow::Result<Vec<_>>>()?;
    worker.serve(std::fs::read_to_string(system.file("enrolment"))?, &objects)?;
    let one = reader(&system, &code, &schema, 1)?;
    let all = reader(&system, &code, &schema, OBJECTS)?;
    Ok((system, one, all))
}

/// Asks and approves by the commands that people use.
fn reader(system: &System, code: &str, schema: &str, objects: usize) -> anyhow::Result<Reader> {
    let objects = objects.to_string();
    durable::write(&system.file("query.sql"), QUERY.as_bytes())?;
    let ask = ["--json", "data", "request", "--config", "vendor/clerestory.toml", "--key", "vendor/keys/reader.key"];
    let what = ["--query", "query.sql", "--reader", "a service", "--ticket", "T-1", "--class", APPROVED_CLASS];
    let bounds = ["--country", "DE", "--objects", &objects, "--purpose", PURPOSE, "--service", "--uses", "1000000"];
    let asked = system.run(&[&ask[..], &what, &bounds, &["--code", code, "--schema", schema]].concat())?;
    let asked: api::DataRequestState = serde_json::from_str(&asked)?;
    let id = asked.id.to_string();
    let approve = ["data", "approve", "--config", "supervisor/clerestory.toml", "--key"];
    system.run(&[&approve[..], &["supervisor/keys/approver.key", &id, "--comment", "a service"]].concat())?;
    let envelope = Envelope::parse(asked.envelope.as_bytes())?;
    Ok(Reader {
        url: system.url(SUPERVISOR)?.parse()?,
        key: key_file::load(&system.file("vendor/keys/reader.key"))?,
        request: asked.id,
        says: Statement::decode(envelope.payload())?,
    })
}

pub(in super::super) fn grant(bench: &mut Bench) -> anyhow::Result<()> {
    let (_system, reader, of_all) = make(bench)?;
    let clock = SystemClock::new();
    let one = bench.scale().of(1000, 5);
    let at_once = bench.scale().of(6000, READERS);
    let connect = || Ok(Client::new(PATIENCE));
    bench.say("one after the other");
    let alone = asked(&clock, 1, one, connect, |client| reader.ask(client, &clock))?;
    bench.say("many at once");
    let many = asked(&clock, READERS, at_once, connect, |client| reader.ask(client, &clock))?;
    bench.say(&format!("{OBJECTS} objects in one grant"));
    shares(bench, &of_all, &clock)?;
    let p99 = Figure::Percentile(99.0);
    let mut rows = [
        Row::new("data/grant/p50", "ms", Figure::Median, &alone.taken).target(Target::AtMost(30.0)),
        Row::new("data/grant/p99", "ms", p99, &alone.taken).target(Target::AtMost(120.0)),
        Row::new("data/grant/rate", "1/s", Figure::Median, &many.rate).target(Target::AtLeast(1000.0)),
        Row::new("data/grant/busy", "ms", Figure::Median, &many.taken),
    ];
    let folder = bench.folder().join("openbao");
    durable::create_folder(&folder)?;
    if let Some(bao) = OpenBao::start(&folder)? {
        bench.say("OpenBao's audited decrypt");
        let decrypt = |stream: &mut TcpStream| {
            let start = clock.monotonic();
            bao.decrypt(stream)?;
            Ok((clock.monotonic() - start).as_secs_f64())
        };
        let one = asked(&clock, 1, one, || bao.connect(), decrypt)?;
        let all = asked(&clock, READERS, at_once, || bao.connect(), decrypt)?;
        let [p50, worst, rate, busy] = rows;
        rows = [
            p50.against(Figure::Median, &one.taken),
            worst.against(p99, &one.taken),
            rate.against(Figure::Median, &all.rate),
            busy.against(Figure::Median, &all.taken),
        ];
    } else {
        bench.say("OpenBao is not installed, and left out");
    }
    rows.into_iter().for_each(|row| bench.row(row));
    Ok(())
}

/// Objects a second of which both custodians open their shares, within one grant; beside it nothing but the opening, on
/// a thread for each custodian.
fn shares(bench: &mut Bench, reader: &Reader, clock: &SystemClock) -> anyhow::Result<()> {
    let client = Client::new(PATIENCE);
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    let count = OBJECTS as f64;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    let keys = [Kem::P256, Kem::XWing].map(|kem| PrivateKey::generate(kem, &SystemEntropy));
    let mut sealed = Vec::new();
    for key in keys {
        let key = key?;
        let seal = |_| Wrapped::seal(&[7; 32], key.public(), b"", &SystemEntropy);
        let shares = (0..OBJECTS).map(seal).collect::<Result<Vec<_>, _>>()?;
        sealed.push((key, shares));
    }
    for _ in 0..bench.scale().of(5, 1) {
        ours.push(count / reader.ask(&client, clock)?);
        let start = clock.monotonic();
        let opened = std::thread::scope(|scope| {
            let open = |(key, shares): &(PrivateKey, Vec<Wrapped>)| {
                shares.iter().filter(|share| share.open(key, b"").is_some()).count()
            };
            let running: Vec<_> = sealed.iter().map(|it| scope.spawn(move || open(it))).collect();
            running.into_iter().filter_map(|it| it.join().ok()).sum::<usize>()
        });
        ensure!(opened == 2 * OBJECTS, "{opened} shares were opened");
        bare.push(count / (clock.monotonic() - start).as_secs_f64());
    }
    let row = Row::new("data/grant/objects", "1/s", Figure::Median, &Samples::new(ours)?);
    bench.row(row.against(Figure::Median, &Samples::new(bare)?));
    Ok(())
}

/// How long each took, in ms, and how many a second.
struct Asked {
    taken: Samples,
    rate: Samples,
}

/// Asks `count` times, from so many threads with a connection each, which is warm.
fn asked<C>(
    clock: &SystemClock,
    threads: usize,
    count: usize,
    connect: impl Fn() -> anyhow::Result<C> + Sync,
    ask: impl Fn(&mut C) -> anyhow::Result<f64> + Sync,
) -> anyhow::Result<Asked> {
    let (next, warm) = (AtomicUsize::new(0), Barrier::new(threads + 1));
    let work = || {
        let connection = connect().and_then(|mut connection| ask(&mut connection).map(|_| connection));
        warm.wait();
        let (mut connection, mut taken) = (connection?, Vec::new());
        while next.fetch_add(1, Ordering::Relaxed) < count {
            taken.push(ask(&mut connection)? * 1000.0);
        }
        Ok(taken)
    };
    let (taken, seconds) = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        warm.wait();
        let start = clock.monotonic();
        let taken = running.into_iter().map(|it| it.join().unwrap_or_else(|_| bail!("a thread has panicked")));
        let taken: Vec<anyhow::Result<Vec<f64>>> = taken.collect();
        (taken, (clock.monotonic() - start).as_secs_f64())
    });
    let taken = taken.into_iter().collect::<anyhow::Result<Vec<_>>>()?.concat();
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    let rate = Samples::new(vec![taken.len() as f64 / seconds])?;
    Ok(Asked { taken: Samples::new(taken)?, rate })
}
