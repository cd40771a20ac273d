//! Queries over sealed data: `clerestory-query-measure` has the same engine read the same Parquet, sealed and plain.

use anyhow::Context as _;
use serde::Deserialize;

use crate::bench::Bench;
use crate::programs::succeed;
use crate::row::{Figure, Row, Target};
use crate::samples::Samples;

/// What sealing may cost a query.
const RATIO_MAX: f64 = 1.25;

/// One query's seconds.
#[derive(Deserialize)]
struct Measured {
    name: String,
    ours: Vec<f64>,
    reference: Vec<f64>,
}

pub(super) fn query(bench: &mut Bench) -> anyhow::Result<()> {
    let mut command = bench.programs()?.command("clerestory-query-measure")?;
    let rows = bench.scale().of(4_000_000, 20_000).to_string();
    let runs = bench.scale().of(9, 2).to_string();
    command.arg(bench.folder()).args(["--rows", &rows, "--runs", &runs]);
    for line in String::from_utf8(succeed(&mut command)?.stdout)?.lines() {
        let measured: Measured = serde_json::from_str(line).context("what the measuring program said")?;
        let (ours, reference) = (Samples::new(measured.ours)?, Samples::new(measured.reference)?);
        let row = Row::new(format!("data/query/{}", measured.name), "s", Figure::Median, &ours);
        bench.row(row.against(Figure::Median, &reference).target(Target::RatioAtMost(RATIO_MAX)));
    }
    Ok(())
}
