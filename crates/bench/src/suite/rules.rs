//! A history of rules, replayed: each commit goes from the vendor to a canary that uses it, with real processes.
//!
//! Measured is `clerestory rules push` (the source is logged, both assemble and decide, both sign the result and
//! the release, all is witnessed and published), and then `clerestory-agent update` in ring `canary`, until it has
//! switched to the new rules. How often endpoints look, and how long rules bake, are settings and come on top.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, ensure};
use detection::{Index, Rejected};
use stdx::durable;

use crate::bench::{Bench, Scale};
use crate::history::{History, KNOWN_BAD};
use crate::picture::Picture;
use crate::row::{Figure, Row, Target};
use crate::samples::Samples;
use crate::suite::traffic::Traffic;

mod system;

use system::{PRODUCT, STEPS, System, check};

/// The parts that a release's time is made of, after the push's own steps.
const PARTS: [&str; 6] = ["read", "source", "assemble", "result", "release", "endpoint"];
const _: () = assert!(PARTS.len() == STEPS.len() + 2, "before the first step, each step, and the endpoint");

/// A megabyte of harmless files.
const GOODWARE_BYTES: u64 = 1 << 20;
const GOODWARE_FILE_BYTES_MAX: u64 = 100 << 10;

/// One commit that went through the fast lane.
struct Replayed {
    /// In seconds: [`PARTS`].
    parts: [f64; PARTS.len()],
    traffic: Traffic,
}

pub(super) fn replay(bench: &mut Bench) -> anyhow::Result<()> {
    let system = System::new(bench.folder(), bench.programs()?)?;
    let history = History::open(bench, &settings(bench, &system)?)?;
    let mut replayed = Vec::new();
    let mut rejected: BTreeMap<Rejected, usize> = BTreeMap::new();
    for (number, commit) in history.commits().iter().enumerate() {
        let version = (number + 1).to_string();
        replayed.extend(one(bench, &system, history.repository(), commit, &version)?);
        let index = system.file(&format!("vendor/builds/{PRODUCT}/{version}/outputs/rules.json"));
        for file in Index::parse(&std::fs::read(index)?)?.rejected {
            *rejected.entry(file).or_default() += 1;
        }
    }
    for (file, commits) in &rejected {
        bench.say(&format!("rejected in {commits} commits: {}: {}: {}", file.file, file.cause.as_str(), file.detail));
    }
    bench.say(&format!("{} of {} commits took the fast lane", replayed.len(), history.commits().len()));
    rows(bench, &replayed)
}

/// With corpora that both organisations have: a web shell of one line, and what is harmless on this machine.
fn settings(bench: &Bench, system: &System) -> anyhow::Result<String> {
    let write = |path: &str, bytes: &[u8]| -> anyhow::Result<()> {
        let path = system.file(path);
        durable::create_folder(path.parent().context("a sample lies in a folder")?)?;
        Ok(durable::write(&path, bytes)?)
    };
    write("bad/sample.php", KNOWN_BAD.as_bytes())?;
    write("good/letter.txt", b"Dear reader, nothing is wrong with this letter.\n")?;
    let mut left = if bench.scale() == Scale::Full { GOODWARE_BYTES } else { 0 };
    let entries = std::fs::read_dir("/usr/bin")?.collect::<std::io::Result<Vec<_>>>()?;
    let mut paths: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let Ok(found) = std::fs::symlink_metadata(&path) else { continue };
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if !found.is_file() || found.len() > GOODWARE_FILE_BYTES_MAX.min(left) {
            continue;
        }
        left -= found.len();
        write(&format!("good/{name}"), &std::fs::read(&path)?)?;
    }
    let (bad, good) = (system.corpus("bad")?, system.corpus("good")?);
    Ok(format!(
        "product = \"{PRODUCT}\"\nsources = \"yara\"\nnotice = \"LICENSE\"\nimports = [\"hash\", \"math\", \"pe\"]\n\
         [corpus]\nknown_bad = \"{bad}\"\ngoodware = \"{good}\"\n"
    ))
}

/// Takes one commit to the endpoint; nothing if people had to approve it.
fn one(
    bench: &Bench,
    system: &System,
    repository: &Path,
    commit: &str,
    version: &str,
) -> anyhow::Result<Option<Replayed>> {
    system.relay().take();
    let begun = bench.seconds();
    let pushed = system.push(repository, commit, version, || bench.seconds())?;
    let is_fast = check(&pushed)?;
    if !is_fast {
        let reasons = pushed.report.get("reasons").and_then(serde_json::Value::as_array);
        for reason in reasons.into_iter().flatten().take(3) {
            bench.say(&format!("commit {version}: not fit for the fast lane: {reason}"));
        }
        system.approve(version)?;
    }
    let published = bench.seconds();
    let said = system.update()?;
    let active = bench.seconds();
    let traffic = system.relay().take();
    let whole = system.file(&format!("vendor/builds/{PRODUCT}/{version}/outputs/rules.yar"));
    ensure!(system.active()? == std::fs::read(whole)?, "commit {version} is not active: {said}");
    if !is_fast {
        return Ok(None);
    }
    let moments: Vec<f64> = std::iter::once(begun).chain(pushed.steps.iter().map(|(_, at)| *at)).collect();
    let mut parts = [0.0; PARTS.len()];
    ensure!(moments.len() == PARTS.len(), "a push went another way: {:?}", pushed.steps);
    for (part, pair) in parts.iter_mut().zip(moments.windows(2)) {
        *part = pair.iter().rev().copied().reduce(|end, start| end - start).unwrap_or_default();
    }
    if let Some(endpoint) = parts.last_mut() {
        *endpoint = active - published;
    }
    let shown = PARTS.iter().zip(parts).map(|(part, seconds)| format!("{part} {:.0}", seconds * 1e3));
    let shown = shown.collect::<Vec<_>>().join(", ");
    let total: f64 = parts.iter().sum();
    bench.say(&format!("commit {version}: {:.0} ms ({shown}); {traffic:?}", total * 1e3));
    Ok(Some(Replayed { parts, traffic }))
}

fn rows(bench: &mut Bench, replayed: &[Replayed]) -> anyhow::Result<()> {
    let of = |figure: &dyn Fn(&Replayed) -> f64| Samples::new(replayed.iter().map(figure).collect());
    let total = of(&|it| it.parts.iter().sum())?;
    let row =
        |name: &str, unit, figure, samples: &Samples| Row::new(format!("rules/replay{name}"), unit, figure, samples);
    bench.row(row("", "s", Figure::Median, &total).target(Target::AtMost(2.0)));
    bench.row(row("/p99", "s", Figure::Percentile(99.0), &total).target(Target::AtMost(5.0)));
    let mut lines = Vec::new();
    for (place, part) in PARTS.into_iter().enumerate() {
        let seconds = of(&|it| it.parts.get(place).copied().unwrap_or_default())?;
        bench.row(row(&format!("/{part}"), "s", Figure::Median, &seconds));
        lines.push((part, seconds));
    }
    let patches = of(&|it| it.traffic.patches as f64)?;
    bench.row(row("/delta", "bytes", Figure::Median, &patches).target(Target::AtMost(1_200.0)));
    let evidence = of(&|it| it.traffic.rest as f64)?;
    bench.row(row("/evidence", "bytes", Figure::Median, &evidence).target(Target::AtMost(6_000.0)));
    bench.row(row("/growth", "bytes", Figure::Median, &of(&|it| it.traffic.tiles as f64)?));
    bench.row(row("/heads", "bytes", Figure::Median, &of(&|it| it.traffic.heads as f64)?));
    bench.row(row("/whole", "bytes", Figure::Max, &of(&|it| it.traffic.whole as f64)?));
    let all = ("all of it", total);
    // The first two are milliseconds.
    let shown: Vec<(&str, &Samples)> = lines.iter().skip(2).chain([&all]).map(|(name, it)| (*name, it)).collect();
    let title = "From a commit of rules to active on a canary";
    bench.picture("rules-replay", &Picture::of_latencies(title, "seconds", &shown))
}
