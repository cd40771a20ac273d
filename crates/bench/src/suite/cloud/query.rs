//! A query over lines that endpoints have sealed, read by three workers and by one: from the call to the last byte of the
//! result, the grant and its outcome included. Everything runs as processes.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use api::DataRequestState;
use serde_json::Value;
use stdx::{Clock as _, SystemClock, durable};
use testkit::{OPEN_CLASS, PURPOSE, REGION};

use super::intake::Site;
use super::worker::Worker;
use crate::bench::Bench;
use crate::programs::succeed;
use crate::row::{Figure, Row};
use crate::samples::Samples;
use crate::suite::data::{CUSTODIANS, EVENTS};
use crate::suite::system::System;

/// That share a query.
const WORKERS: usize = 3;
const QUERY: &str = "select substr(sha256, 1, 2) as prefix, count(*) as events, count(distinct rule) as rules, \
                     max(size) as largest from statistics group by prefix order by prefix\n";
/// What was taken in is in segments a second later; a busy machine takes longer.
const TRIES: usize = 60;

/// The gateway knows of all workers from the beginning.
fn with_access(system: &System, workers: &[Worker]) -> anyhow::Result<()> {
    let urls = workers.iter().map(Worker::url).collect::<anyhow::Result<Vec<_>>>()?;
    let mut section = format!(
        "[access]\nkey = \"keys/gateway.key\"\nrules = \"access.cedar\"\nworkers = {{ {REGION} = {urls:?} }}\n\
         custodians = {{ "
    );
    for (place, (who, _)) in CUSTODIANS.iter().enumerate() {
        let comma = if place > 0 { ", " } else { "" };
        write!(section, "{comma}{who} = \"{}\"", system.url(System::further() + place)?)?;
    }
    section += " }\n\n[http]\n";
    system.change("supervisor", |line| (line == "[http]").then(|| section.clone()))
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
    let what = ["--query", "query.sql", "--reader", "an analyst", "--ticket", "T-1", "--class", OPEN_CLASS];
    let bounds = ["--country", "DE", "--objects", "4096", "--purpose", PURPOSE];
    let asked = system.run(&[&of("request")[..], &what, &bounds].concat())?;
    let asked: DataRequestState = serde_json::from_str(&asked)?;
    let clock = SystemClock::new();
    let read = succeed(system.program("clerestory")?.args(of("query")).arg(asked.id.to_string()))?;
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
    let site = Site::alone_with(bench, |system| {
        workers = (1..=WORKERS).map(|number| Worker::bound(system, number)).collect::<anyhow::Result<_>>()?;
        with_access(system, &workers)
    })?;
    let system = &site.system;
    workers.iter_mut().try_for_each(|worker| worker.start(system, bench))?;
    durable::write(&system.file("query.sql"), QUERY.as_bytes())?;
    let count = bench.scale().of(1000, 6);
    site.run(count)?;
    let whole = (count * EVENTS) as u64;
    let is_there = |_: &usize| -> bool {
        std::thread::sleep(Duration::from_secs(1));
        read(system).is_ok_and(|it| it.events == whole)
    };
    (0..TRIES).find(is_there).context("what was taken in is in no segment")?;
    bench.say(&format!("{whole} events in {count} objects"));
    let right = |expected: usize| -> anyhow::Result<f64> {
        let reading = read(system)?;
        ensure!(reading.events == whole, "{} of {whole} events were read", reading.events);
        ensure!(reading.said.contains(&format!("data.workers={expected}")), "read by others: {}", reading.said);
        Ok(reading.seconds)
    };
    // Those that are away are left out; one that has just come reads the manifests first.
    let (runs, mut many, mut one) = (bench.scale().of(7, 1), Vec::new(), Vec::new());
    for _ in 0..runs {
        right(WORKERS)?;
        many.push(right(WORKERS)?);
        workers.iter_mut().skip(1).for_each(Worker::kill);
        right(1)?;
        one.push(right(1)?);
        workers.iter_mut().skip(1).try_for_each(|worker| worker.go_on(bench))?;
    }
    let row = Row::new("cloud/query", "s", Figure::Median, &Samples::new(many)?);
    bench.row(row.against(Figure::Median, &Samples::new(one)?));
    Ok(())
}
