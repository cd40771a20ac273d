//! From the first sighting of a file by several endpoints to a verdict that is active on all.

use std::cell::Cell;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;
use server::demo::{Cloud, Narrator, Options, Stage};
use stdx::{Clock as _, Digest, SystemClock};

use super::crowd::{Arrived, CONNECTIONS, Crowd, connections};
use crate::bench::Bench;
use crate::row::{Figure, Row, Target};
use crate::samples::Samples;

/// How many endpoints, and how often it is done.
struct Size {
    endpoints: usize,
    runs: usize,
}

const SIZES: [Size; 4] = [
    Size { endpoints: 10, runs: 10 },
    Size { endpoints: 1_000, runs: 5 },
    Size { endpoints: CONNECTIONS, runs: 3 },
    Size { endpoints: 100_000, runs: 3 },
];
const QUICK: [Size; 1] = [Size { endpoints: 10, runs: 1 }];
const PATIENCE: Duration = Duration::from_secs(240);

pub(in super::super) fn verdicts(bench: &mut Bench) -> anyhow::Result<()> {
    let options = Options {
        folder: bench.folder().to_owned(),
        products: bench.folder().to_owned(),
        names: Vec::new(),
        offline: true,
    };
    let program = bench.programs()?.path("clerestory")?;
    // Before anything is started: it has the same limits.
    let connections = connections()?;
    let stage = Stage::set(&program, &options, &Narrator::new())?;
    let cloud = Cloud::alone(&stage)?;
    let channel = cloud.channel()?.parse().context("the channel's address")?;
    let sizes: &[Size] = if bench.scale() == crate::bench::Scale::Full { &SIZES } else { &QUICK };
    let clock = SystemClock::new();
    for Size { endpoints, runs } in sizes {
        let crowd = Crowd {
            channel,
            product: Cloud::PRODUCT.to_owned(),
            endpoints: *endpoints,
            connections,
            patience: PATIENCE,
        };
        let mut seconds = Vec::new();
        for run in 0..*runs {
            let file = Digest::of(format!("{endpoints} {run}").as_bytes());
            let begin = Cell::new(0.0);
            let Arrived { at, requests } = crowd.wait(file, clock, || {
                begin.set(clock.monotonic().as_secs_f64());
                see(&cloud, &file)
            })?;
            let mut took: Vec<f64> = at.iter().map(|at| at - begin.get()).collect();
            took.sort_by(f64::total_cmp);
            let (first, last) = (took.first().copied().unwrap_or_default(), took.last().copied().unwrap_or_default());
            let released = cloud.released_s(&file)?;
            bench.say(&format!(
                "{endpoints} endpoints: active after {first:.2} to {last:.2} s, {requests} requests; {released}"
            ));
            seconds.extend(took);
        }
        // One of them is a real agent that checks everything.
        cloud.verified()?;
        let samples = Samples::new(seconds)?;
        let name = format!("cloud/verdicts/{endpoints}");
        let p50 = Row::new(format!("{name}/p50"), "s", Figure::Median, &samples);
        let p99 = Row::new(format!("{name}/p99"), "s", Figure::Percentile(99.0), &samples);
        bench.row(p50.target(Target::AtMost(10.0)));
        bench.row(p99.target(Target::AtMost(10.0)));
    }
    Ok(())
}

/// Three endpoints in three countries, each looks it up in vain and finds something in it.
fn see(cloud: &Cloud<'_>, file: &Digest) -> anyhow::Result<()> {
    for country in ["DE", "JP", "CH"] {
        let nothing = json!({"verdict": {"sha256": file, "found": "nothing"}});
        let detection = json!({"detection": {"rule": Cloud::RULE, "sha256": file, "size": 68}});
        cloud.share("verdicts", country, &[nothing])?;
        cloud.share("detections", country, &[detection])?;
    }
    Ok(())
}
