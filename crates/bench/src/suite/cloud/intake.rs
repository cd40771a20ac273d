//! Sealed batches over HTTP until each has its receipt: at two machines of one vendor on SeaweedFS and PostgreSQL, and at
//! one on its own disk. Everything runs as processes; batches were sealed before. What is taken in becomes segments every
//! second, while more comes.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use api::{BodyLimit, Client, Plan, PlanRequest, path};
use attest::DataClass;
use policy::{Policy, Residency};
use seal::Destination;
use stdx::{Clock as _, Entropy as _, SystemClock, SystemEntropy, durable};
use testkit::{OPEN_CLASS, Postgres, Seaweed, write_section};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use super::crowd::Connection;
use super::worker::Worker;
use crate::bench::Bench;
use crate::row::{Figure, Row, Target};
use crate::samples::Samples;
use crate::suite::data::{EVENTS, FOLDERS, add_residency, events};
use crate::suite::log::Server;
use crate::suite::system::{System, VENDOR};

/// Endpoints that send at once, each one batch after the other.
const SENDERS: usize = 64;
/// Whoever is told to come back does.
const AGAIN: Duration = Duration::from_millis(100);
const BUCKET: &str = "bench";
/// A worker that reads a long list of manifests for the first time.
const PATIENCE: Duration = Duration::from_secs(120);

/// A vendor that takes in, and everybody whom it needs.
pub(super) struct Site {
    pub(super) system: System,
    /// The second machine, where there are two.
    _second: Option<Server>,
    /// What both stand on.
    _services: Option<(Postgres, Seaweed)>,
    machines: Vec<SocketAddr>,
    destination: Destination,
}

fn class() -> anyhow::Result<DataClass> {
    OPEN_CLASS.parse().map_err(|error| anyhow::anyhow!("{error}"))
}

impl Site {
    /// One machine, on its own disk.
    fn alone(bench: &Bench) -> anyhow::Result<Self> {
        Self::alone_with(bench, |_| Ok(()))
    }

    /// The same, with what `more` writes into configurations before anything runs.
    pub(super) fn alone_with(bench: &Bench, more: impl FnOnce(&System) -> anyhow::Result<()>) -> anyhow::Result<Self> {
        let folder = bench.folder().join("alone");
        durable::create_folder(&folder)?;
        let system = System::made(&folder, bench.programs()?, &FOLDERS, add_residency)?;
        more(&system)?;
        Self::started(system, bench, None)
    }

    /// Two machines.
    fn shared(bench: &Bench) -> anyhow::Result<Self> {
        let folder = bench.folder().join("shared");
        durable::create_folder(&folder)?;
        let (postgres, seaweed) = (Postgres::start(), Seaweed::start());
        seaweed.make_bucket(BUCKET);
        write_section(&folder, (&postgres, &seaweed), BUCKET, "vendor");
        let vendor: &[&str] = &["--shared", "vendor.toml"];
        let system = System::made_with(&folder, bench.programs()?, (&FOLDERS, vendor), add_residency)?;
        Self::started(system, bench, Some((postgres, seaweed)))
    }

    fn started(mut system: System, bench: &Bench, services: Option<(Postgres, Seaweed)>) -> anyhow::Result<Self> {
        // Above the first section.
        system.change("vendor", |line| {
            line.starts_with("intake_bytes_max = ").then(|| format!("{line}\nintake_segment_s = 1\n"))
        })?;
        system.start()?;
        system.start_vendor()?;
        let mut machines = vec![system.address(VENDOR)?.parse()?];
        let mut second = None;
        if services.is_some() {
            let folder = system.file("second");
            copied(&system.file("vendor"), &folder)?;
            let mut server = Server::bound(folder)?;
            server.start(&bench.programs()?.path("clerestory")?)?;
            machines.push(server.address()?);
            second = Some(server);
        }
        let destination = Destination::new(
            &residency(&system)?,
            system.genesis().parse()?,
            "DE".parse().map_err(|error| anyhow::anyhow!("{error}"))?,
            SystemClock::new().now(),
        )?;
        Ok(Self { system, _second: second, _services: services, machines, destination })
    }

    /// Events a second, from the first byte sent to the last receipt.
    fn run(&self, count: usize) -> anyhow::Result<f64> {
        self.run_as(&class()?, count)
    }

    /// The same, of a class.
    pub(super) fn run_as(&self, class: &DataClass, count: usize) -> anyhow::Result<f64> {
        let seal = |_| -> anyhow::Result<Vec<u8>> {
            let mut batch = [0; 8];
            SystemEntropy.fill(&mut batch)?;
            Ok(self.destination.seal(class, &events(u64::from_be_bytes(batch)), &SystemEntropy)?)
        };
        let batches = Arc::new((0..count).map(seal).collect::<anyhow::Result<Vec<_>>>()?);
        Builder::new_multi_thread().enable_all().build()?.block_on(self.send(batches))
    }

    async fn send(&self, batches: Arc<Vec<Vec<u8>>>) -> anyhow::Result<f64> {
        let (next, mut connections) = (Arc::new(AtomicUsize::new(0)), Vec::new());
        for machine in self.machines.iter().cycle().take(SENDERS) {
            connections.push(Connection::new(TcpStream::connect(machine).await?)?);
        }
        let clock = SystemClock::new();
        let begin = clock.monotonic();
        let mut senders = JoinSet::new();
        for mut connection in connections {
            let (next, batches) = (Arc::clone(&next), Arc::clone(&batches));
            senders.spawn(async move {
                while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                    receipt(&mut connection, batch).await?;
                }
                anyhow::Ok(())
            });
        }
        senders.join_all().await.into_iter().collect::<anyhow::Result<()>>()?;
        #[expect(clippy::cast_precision_loss, reason = "millions")]
        let rate = (batches.len() * EVENTS) as f64 / (clock.monotonic() - begin).as_secs_f64();
        Ok(rate)
    }
}

async fn receipt(connection: &mut Connection, batch: &[u8]) -> anyhow::Result<()> {
    loop {
        match connection.post(path::EVENTS, "application/octet-stream", batch).await? {
            (200, _) => return Ok(()),
            (503, _) => tokio::time::sleep(AGAIN).await,
            (status, body) => bail!("{status}: {}", String::from_utf8_lossy(body)),
        }
    }
}

fn residency(system: &System) -> anyhow::Result<Residency> {
    let policy: Policy = toml::from_str(&std::fs::read_to_string(system.file("policy.toml"))?)?;
    policy.residency.context("a residency")
}

/// Another machine has the same configuration, keys and policy.
fn copied(from: &Path, to: &Path) -> anyhow::Result<()> {
    for folder in ["keys", "policy"] {
        durable::create_folder(&to.join(folder))?;
        for entry in std::fs::read_dir(from.join(folder))? {
            let entry = entry?;
            std::fs::copy(entry.path(), to.join(folder).join(entry.file_name()))?;
        }
    }
    std::fs::copy(from.join("clerestory.toml"), to.join("clerestory.toml"))?;
    Ok(())
}

pub(in super::super) fn intake(bench: &mut Bench) -> anyhow::Result<()> {
    let (shared, alone) = (Site::shared(bench)?, Site::alone(bench)?);
    let count = bench.scale().of(2000, 8);
    let (ours, reference) = bench.interleaved(
        bench.scale().of(5, 1),
        || {
            let rate = shared.run(count)?;
            bench.say(&format!("{rate:.0} events/s at two machines on shared stores"));
            Ok(rate)
        },
        || {
            let rate = alone.run(count)?;
            bench.say(&format!("{rate:.0} events/s at one on its own disk"));
            Ok(rate)
        },
    )?;
    let row = Row::new("cloud/intake", "1/s", Figure::Median, &ours).against(Figure::Median, &reference);
    bench.row(row.target(Target::RatioAtLeast(1.0)));
    Ok(())
}

/// The same with ten times as many in the vault, and how long planning takes then.
pub(in super::super) fn growth(bench: &mut Bench) -> anyhow::Result<()> {
    let site = Site::shared(bench)?;
    let (count, runs) = (bench.scale().of(500, 4), bench.scale().of(3, 1));
    let mut worker = Worker::bound(&site.system, 1)?;
    worker.start(&site.system, bench)?;
    let rates = |runs: usize| (0..runs).map(|_| site.run(count)).collect::<anyhow::Result<Vec<f64>>>();
    rates(1)?;
    let (before, few) = (rates(runs)?, plans(&worker, bench.scale().of(20, 2))?);
    bench.say("and now ten times as many");
    rates(9 * (1 + runs))?;
    let (after, many) = (rates(runs)?, plans(&worker, bench.scale().of(20, 2))?);
    let row = Row::new("cloud/intake-growth", "1/s", Figure::Median, &Samples::new(after)?);
    let row = row.against(Figure::Median, &Samples::new(before)?);
    bench.row(row.target(Target::RatioAtLeast(0.8)));
    let plan = Row::new("cloud/intake-growth/plan", "ms", Figure::Median, &Samples::new(many)?);
    bench.row(plan.against(Figure::Median, &Samples::new(few)?));
    Ok(())
}

/// How long each plan takes, in ms, after one that reads what is new: of a query that needs none of what is listed, so
/// that no header is fetched.
fn plans(worker: &Worker, count: usize) -> anyhow::Result<Vec<f64>> {
    let country = |code: &str| code.parse().map_err(|error| anyhow::anyhow!("{error}"));
    let request = PlanRequest {
        query: "select count(*) as events from statistics where taken > '2099-01-01T00:00:00Z'".to_owned(),
        parameters: api::Parameters::new(),
        class: class()?,
        countries: vec![country("CH")?, country("DE")?, country("JP")?],
        objects: 4096,
    };
    let (clock, client, url) = (SystemClock::new(), Client::new(PATIENCE), worker.url()? + path::PLAN);
    let plan = || -> anyhow::Result<f64> {
        let begin = clock.monotonic();
        let plan: Plan = client.post_json(&url, &request, BodyLimit(1 << 20))?;
        anyhow::ensure!(plan.objects.is_empty(), "nothing was taken in that year");
        Ok((clock.monotonic() - begin).as_secs_f64() * 1000.0)
    };
    plan()?;
    (0..count).map(|_| plan()).collect()
}
