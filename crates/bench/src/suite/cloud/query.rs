//! A query over lines that endpoints have sealed, read by three workers and by one: from the call to the last byte of the
//! result, the grant and its outcome included. Everything runs as processes.

use anyhow::{Context as _, ensure};
use api::{DataRequestState, Replaced};
use attest::DataClass;
use serde_json::Value;
use stdx::{Clock as _, SystemClock, durable};
use testkit::{APPROVED_CLASS, COMPACTION, PURPOSE, REGION};

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

/// A command of the reader's.
const fn of(command: &str) -> [&str; 7] {
    ["--json", "data", command, "--config", "vendor/clerestory.toml", "--key", "vendor/keys/reader.key"]
}

/// A request that was approved.
fn requested(system: &System, what: &[&str]) -> anyhow::Result<String> {
    let common = ["--reader", "an analyst", "--ticket", "T-1", "--class", APPROVED_CLASS, "--country", "DE"];
    let asked = system.run(&[&of("request")[..], &common, what].concat())?;
    let asked: DataRequestState = serde_json::from_str(&asked)?;
    let id = asked.id.to_string();
    let approve =
        ["data", "approve", "--config", "supervisor/clerestory.toml", "--key", "supervisor/keys/approver.key"];
    system.run(&[&approve[..], &[&id, "--comment", "seen"]].concat())?;
    Ok(id)
}

fn read(system: &System) -> anyhow::Result<Reading> {
    let id = requested(system, &["--query", "query.sql", "--objects", "4096", "--purpose", PURPOSE])?;
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
    let (few, count) = (bench.scale().of(100, 3), bench.scale().of(1000, 6));
    let runs = bench.scale().of(7, 1);
    fill(&mut site, &class, few)?;
    let few_events = few * EVENTS;
    bench.say(&format!("{few_events} events in {few} objects"));
    let short = (0..runs).map(|_| timed(&mut site.system, &workers, few_events)).collect::<anyhow::Result<Vec<_>>>()?;
    fill(&mut site, &class, count - few)?;
    let events = count * EVENTS;
    bench.say(&format!("{events} events in {count} objects"));
    let (mut many, mut one) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        many.push(timed(&mut site.system, &workers, events)?);
        one.push(timed(&mut site.system, workers.get(..1).context("a worker")?, events)?);
    }
    let (short, many) = (Samples::new(short)?, Samples::new(many)?);
    let row = Row::new("cloud/query", "s", Figure::Median, &many);
    bench.row(row.against(Figure::Median, &Samples::new(one)?));
    let growth = Row::new("cloud/query/growth", "s", Figure::Median, &many);
    bench.row(growth.against(Figure::Median, &short));
    compaction(bench, &site.system, events)
}

/// Lines become columns under a grant: bytes of an event after it and before, and how many events a second.
#[expect(clippy::cast_precision_loss, reason = "millions")]
fn compaction(bench: &mut Bench, system: &System, events: usize) -> anyhow::Result<()> {
    durable::write(&system.file("compact.sql"), b"COMPACT\n")?;
    let file = system.file("compact.sql").display().to_string();
    let says = |arguments: &[&str]| -> anyhow::Result<String> {
        let said = succeed(bench.programs()?.command("clerestory-query")?.args(arguments))?;
        Ok(String::from_utf8(said.stdout)?.trim_end().to_owned())
    };
    let (code, schema) = (says(&["code"])?, says(&["schema", "--class", APPROVED_CLASS, &file])?);
    let purpose = COMPACTION.to_string();
    let standing = ["--compact", "--purpose", &purpose, "--uses", "50", "--code", &code, "--schema", &schema];
    let id = requested(system, &standing)?;
    let clock = SystemClock::new();
    let rounds = system.run(&[&of("compact")[..], &[&id]].concat())?;
    let seconds = clock.monotonic().as_secs_f64();
    let rounds: Vec<Replaced> = serde_json::from_str(&rounds)?;
    let of_all = |what: fn(&Replaced) -> u64| rounds.iter().map(what).sum::<u64>() as f64;
    let found = of_all(|it| it.events);
    ensure!(found == events as f64, "{found} of {events} events were written anew");
    let each = |bytes: f64| Samples::new(vec![bytes / found]);
    let row = Row::new("cloud/query/compaction/bytes", "B", Figure::Median, &each(of_all(|it| it.bytes))?);
    bench.row(row.against(Figure::Median, &each(of_all(|it| it.bytes_before))?));
    bench.row(Row::new("cloud/query/compaction/rate", "1/s", Figure::Median, &Samples::new(vec![found / seconds])?));
    Ok(())
}

/// So many objects more, in segments.
fn fill(site: &mut Site, class: &DataClass, count: usize) -> anyhow::Result<()> {
    site.run_as(class, count)?;
    // What a process leaves behind becomes segments when the next one comes.
    site.system.restart(VENDOR)
}

/// How long these workers need for all of it; the first reading after a start is not counted.
fn timed(system: &mut System, workers: &[Worker], events: usize) -> anyhow::Result<f64> {
    have(system, workers)?;
    read(system)?;
    let reading = read(system)?;
    ensure!(reading.events == events as u64, "{} of {events} events were read", reading.events);
    let by = format!("data.workers={}", workers.len());
    ensure!(reading.said.contains(&by), "read by others: {}", reading.said);
    Ok(reading.seconds)
}
