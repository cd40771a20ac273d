//! A query over lines that endpoints have sealed, read by three workers and by one: from the call to the last byte of the
//! result, the grant and its outcome included. Everything runs as processes.

use anyhow::{Context as _, ensure};
use api::DataRequestState;
use serde_json::Value;
use stdx::{Clock as _, SystemClock, durable};
use testkit::{APPROVED_CLASS, PURPOSE, REGION};

use super::intake::Site;
use super::worker::Worker;
use crate::bench::Bench;
use crate::programs::succeed;
use crate::row::{Figure, Row};
use crate::samples::Samples;
use crate::suite::data::{EVENTS, add_access};
use crate::suite::system::{SUPERVISOR, System, VENDOR};

/// That share a query.
const WORKERS: usize = 3;
const QUERY: &str = "select substr(sha256, 1, 2) as prefix, count(*) as events, count(distinct rule) as rules, \
                     max(size) as largest from detections group by prefix order by prefix\n";
fn urls(workers: &[Worker]) -> anyhow::Result<Vec<String>> {
    workers.iter().map(Worker::url).collect()
}

/// The gateway knows of these from now on.
fn have(system: &mut System, workers: &[Worker]) -> anyhow::Result<()> {
    let line = format!("workers = {{ {REGION} = {:?} }}\n", urls(workers)?);
    system.change("supervisor", |other| other.starts_with("workers = ").then(|| line.clone()))?;
    system.restart(SUPERVISOR)
}

/// A reading of everything by a request of its own: how long it took, how many events it found, and what was said.
struct Reading {
    seconds: f64,
    events: u64,
    said: String,
}

fn read(system: &System) -> anyhow::Result<Reading> {
    let of =
        |command| ["--json", "data", command, "--config", "vendor/clerestory.toml", "--key", "vendor/keys/reader.key"];
    let what = ["--query", "query.sql", "--reader", "an analyst", "--ticket", "T-1", "--class", APPROVED_CLASS];
    let bounds = ["--country", "DE", "--objects", "4096", "--purpose", PURPOSE];
    let asked = system.run(&[&of("request")[..], &what, &bounds].concat())?;
    let asked: DataRequestState = serde_json::from_str(&asked)?;
    let id = asked.id.to_string();
    let approve =
        ["data", "approve", "--config", "supervisor/clerestory.toml", "--key", "supervisor/keys/approver.key"];
    system.run(&[&approve[..], &[&id, "--comment", "seen"]].concat())?;
    let clock = SystemClock::new();
    let read = succeed(system.program("clerestory")?.args(of("query")).arg(id))?;
    let seconds = clock.monotonic().as_secs_f64();
    let mut events = 0;
    for line in String::from_utf8(read.stdout)?.lines() {
        let row: Value = serde_json::from_str(line)?;
        events += row.get("events").and_then(Value::as_u64).context("no count")?;
    }
    Ok(Reading { seconds, events, said: String::from_utf8(read.stderr)? })
}

pub(in super::super) fn query(bench: &mut Bench) -> anyhow::Result<()> {
    let mut workers = Vec::new();
    let mut site = Site::alone_with(bench, |system| {
        workers = (1..=WORKERS).map(|number| Worker::bound(system, number)).collect::<anyhow::Result<_>>()?;
        // All of them from the beginning.
        add_access(system, &urls(&workers)?)
    })?;
    workers.iter_mut().try_for_each(|worker| worker.start(&site.system, bench))?;
    durable::write(&site.system.file("query.sql"), QUERY.as_bytes())?;
    let class = APPROVED_CLASS.parse().map_err(|error| anyhow::anyhow!("{error}"))?;
    let count = bench.scale().of(1000, 6);
    site.run_as(&class, count)?;
    // What a process leaves behind becomes segments when the next one comes.
    site.system.restart(VENDOR)?;
    let whole = (count * EVENTS) as u64;
    bench.say(&format!("{whole} events in {count} objects"));
    // The first reading after a start is not counted.
    let mut right = |those: &[Worker]| -> anyhow::Result<f64> {
        have(&mut site.system, those)?;
        read(&site.system)?;
        let reading = read(&site.system)?;
        ensure!(reading.events == whole, "{} of {whole} events were read", reading.events);
        let by = format!("data.workers={}", those.len());
        ensure!(reading.said.contains(&by), "read by others: {}", reading.said);
        Ok(reading.seconds)
    };
    let (mut many, mut one) = (Vec::new(), Vec::new());
    for _ in 0..bench.scale().of(7, 1) {
        many.push(right(&workers)?);
        one.push(right(workers.get(..1).context("a worker")?)?);
    }
    let row = Row::new("cloud/query", "s", Figure::Median, &Samples::new(many)?);
    bench.row(row.against(Figure::Median, &Samples::new(one)?));
    Ok(())
}
