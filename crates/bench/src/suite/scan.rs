//! Scanning files: `clerestory-scan` beside the bare engine, and beside what else is in use.
//!
//! What is compared is a whole process over a sample, less the same process over an empty file: so loading
//! the rules is out of every figure of speed alike, and has rows of its own. All scan the same contents: what
//! is in containers is taken out beforehand for those who open none.

use std::collections::BTreeMap;

use anyhow::ensure;

use crate::bench::Bench;
use crate::history;
use crate::picture::Picture;
use crate::reference::Cost;
use crate::row::{Figure, Row, Target};
use crate::samples::Samples;

mod engine;
mod sample;

use engine::{Engine, Scene};
use sample::Sample;

/// What the real collection imports.
const SETTINGS: &str = "product = \"signature-base\"\nsources = \"yara\"\nnotice = \"LICENSE\"\n\
                        imports = [\"hash\", \"math\", \"pe\"]\n";

/// Runs of each, after one as a warm-up.
const RUNS: usize = 5;

/// One engine's figures.
#[derive(Default)]
struct Figures {
    /// Over the sample, without loading, in seconds.
    seconds: Vec<f64>,
    processor: Vec<f64>,
    load: Vec<f64>,
    peak: Vec<f64>,
}

/// Runs `engines` in turn over `sample`; who begins changes from round to round.
fn measure(bench: &Bench, scene: &Scene, sample: &Sample, engines: &[Engine]) -> anyhow::Result<Vec<Figures>> {
    let mut figures: Vec<Figures> = engines.iter().map(|_| Figures::default()).collect();
    let runs = bench.scale().of(RUNS, 1);
    for run in 0..=runs {
        let order = (0..engines.len()).map(|place| (place + run) % engines.len());
        for place in order {
            let (Some(engine), Some(figures)) = (engines.get(place), figures.get_mut(place)) else { continue };
            // It takes minutes, and stands beside the others for people who know it.
            if *engine == Engine::ClamScan && run > 1 {
                continue;
            }
            let whole = scene.cost(*engine, sample)?;
            let load = scene.cost(*engine, scene.nothing())?;
            // Of a quick sample loading is all.
            let took = |of: fn(&Cost) -> f64| if of(&whole) > of(&load) { of(&whole) - of(&load) } else { of(&whole) };
            let (seconds, processor) = (took(|cost| cost.seconds), took(|cost| cost.processor_seconds));
            bench.say(&format!(
                "{}: {seconds:.2} s, {processor:.2} s of processor, {:.2} s to load, {:.0} MiB",
                engine.name(),
                load.seconds,
                whole.peak_mib
            ));
            // The first is the warm-up.
            if run > 0 {
                figures.seconds.push(seconds);
                figures.processor.push(processor);
                figures.load.push(load.seconds);
                figures.peak.push(whole.peak_mib);
            }
        }
    }
    Ok(figures)
}

fn rates(seconds: &[f64], bytes: u64) -> anyhow::Result<Samples> {
    Samples::new(seconds.iter().map(|seconds| bytes as f64 / 1e6 / seconds).collect())
}

fn ratio_row(name: String, unit: &'static str, ours: &Samples, theirs: &Samples) -> Row {
    Row::new(name, unit, Figure::Median, ours).against(Figure::Median, theirs)
}

/// One core and two, beside the bare engine on one.
pub(super) fn bare(bench: &mut Bench) -> anyhow::Result<()> {
    let rules = history::newest_bundle(bench, SETTINGS)?;
    let scene = Scene::new(bench, rules)?;
    let (plain, containers) = sample::split(bench)?;
    let engines = [Engine::Ours { cores: 1 }, Engine::Bare, Engine::Ours { cores: 2 }];
    for (name, sample) in [("scan/bare/plain", &plain), ("scan/bare/containers", &containers)] {
        bench.say(&format!("{name}: {sample}"));
        let figures = measure(bench, &scene, sample, &engines)?;
        let [one, bare, two] = figures.as_slice() else { continue };
        let of = |figures: &Figures| rates(&figures.seconds, sample.bytes);
        let (ours, both, theirs) = (of(one)?, of(two)?, of(bare)?);
        let speed = ratio_row(name.to_owned(), "MB/s", &ours, &theirs).target(Target::RatioAtLeast(0.95));
        let cores = ratio_row(format!("{name}/cores"), "MB/s", &both, &ours).target(Target::RatioAtLeast(1.8));
        let (ours, theirs) = (Samples::new(one.processor.clone())?, Samples::new(bare.processor.clone())?);
        let processor = ratio_row(format!("{name}/processor"), "s", &ours, &theirs);
        let (ours, theirs) = (Samples::new(one.peak.clone())?, Samples::new(bare.peak.clone())?);
        let memory = Row::new(format!("{name}/memory"), "MiB", Figure::Max, &ours).against(Figure::Max, &theirs);
        let (ours, theirs) = (Samples::new(one.load.clone())?, Samples::new(bare.load.clone())?);
        let load = ratio_row(format!("{name}/load"), "s", &ours, &theirs);
        [speed, cores, processor, memory, load].into_iter().for_each(|row| bench.row(row));
    }
    Ok(())
}

/// Other engines with the same rules, on one core each: over files that all of them scan alike, and over containers,
/// which only ours opens while it is measured.
pub(super) fn engines(bench: &mut Bench) -> anyhow::Result<()> {
    let rules = history::newest_bundle(bench, SETTINGS)?;
    let scene = Scene::new(bench, rules)?;
    let (plain, containers) = sample::split(bench)?;
    for (name, sample) in [("scan/engines", &plain), ("scan/engines/containers", &containers)] {
        bench.say(&format!("{name}: {sample}"));
        let mut engines = vec![Engine::Ours { cores: 1 }, Engine::YaraX, Engine::Yara];
        match scene.has_clamscan() {
            true => engines.push(Engine::ClamScan),
            false => bench.say("clamscan is not installed, and left out"),
        }
        let figures = measure(bench, &scene, sample, &engines)?;
        let Some((ours, others)) = figures.split_first() else { return Ok(()) };
        let speed = |figures: &Figures| rates(&figures.seconds, sample.bytes);
        let our_speed = speed(ours)?;
        let mut lines = vec![(Engine::Ours { cores: 1 }.name(), our_speed.clone())];
        for (engine, theirs) in engines.iter().skip(1).zip(others) {
            let (other, their_speed) = (engine.name(), speed(theirs)?);
            let row = ratio_row(format!("{name}/{other}"), "MB/s", &our_speed, &their_speed);
            let wanted = name == "scan/engines" && engine.has_target();
            bench.row(if wanted { row.target(Target::RatioAtLeast(2.0)) } else { row });
            let (mine, their) = (Samples::new(ours.peak.clone())?, Samples::new(theirs.peak.clone())?);
            let memory = Row::new(format!("{name}/{other}/memory"), "MiB", Figure::Max, &mine);
            bench.row(memory.against(Figure::Max, &their));
            let (mine, their) = (Samples::new(ours.load.clone())?, Samples::new(theirs.load.clone())?);
            bench.row(ratio_row(format!("{name}/{other}/load"), "s", &mine, &their));
            lines.push((other, their_speed));
        }
        let lines: Vec<(&str, &Samples)> = lines.iter().map(|(name, speed)| (*name, speed)).collect();
        let title = "Scanning /usr with 5,900 rules on one core";
        bench.picture(&name.replace('/', "-"), &Picture::of_latencies(title, "MB/s", &lines))?;
    }
    Ok(())
}

/// The same rules must match each file.
pub(super) fn verdicts(bench: &mut Bench) -> anyhow::Result<()> {
    let rules = history::newest_bundle(bench, SETTINGS)?;
    let scene = Scene::new(bench, rules)?;
    let (plain, containers) = sample::split(bench)?;
    let all = plain.and(containers, bench)?;
    let ours = scene.verdicts(Engine::Ours { cores: 2 }, &all)?;
    ensure!(!ours.is_empty(), "rules that match nothing compare nothing");
    bench.say(&format!("{all}; rules match in {} of them", ours.len()));
    for engine in [Engine::Bare, Engine::YaraX, Engine::Yara] {
        let theirs = scene.verdicts(engine, &all)?;
        let mut different = BTreeMap::new();
        for path in ours.keys().chain(theirs.keys()) {
            if ours.get(path) != theirs.get(path) {
                different.insert(path.clone(), (ours.get(path), theirs.get(path)));
            }
        }
        for (path, (ours, theirs)) in &different {
            bench.say(&format!("{path}: ours {ours:?}, {} {theirs:?}", engine.name()));
        }
        let count = Samples::one(different.len() as f64);
        let row = Row::new(format!("scan/verdicts/{}", engine.name()), "files", Figure::Max, &count);
        bench.row(row.target(Target::AtMost(0.0)));
    }
    Ok(())
}
