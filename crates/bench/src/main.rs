//! Measurements: the program `clerestory-bench`, which `cargo xtask bench` builds and runs.
//!
//! # In scope
//! [`suite`]: what is measured, each against a reference that does only what can't be left out, in
//! the same run and interleaved with it. [`Row`]: one figure with its reference, spread
//! and target. [`picture`]: growth and latency as SVG.
//!
//! # Out of scope
//! Whether something is right: tests say that. What the figures mean: `docs/performance.md`.
//!
//! # Invariants
//! - Products are measured as users run them: release profile, real keys, real processes, real
//!   disk. Nothing is switched off for a measurement.
//! - Percentiles come from all samples; nothing is dropped but the warm-up, which is named.
//! - Rows go to standard output, everything else to standard error.

mod bench;
mod history;
mod machine;
mod picture;
mod programs;
mod reference;
mod row;
mod samples;
mod suite;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;

use crate::bench::{Places, Scale};
use crate::programs::Programs;
use crate::row::Row;

/// Measure Clerestory
#[derive(Parser)]
#[command(name = "clerestory-bench")]
enum Command {
    /// Measure and print a row for each figure
    Run(Run),
    /// Draw each FILE.json as FILE.svg
    Draw {
        /// Points, as `run --pictures` writes them
        #[arg(value_name = "FILE.json", required = true)]
        files: Vec<PathBuf>,
    },
    /// Only what a measured process can't do without
    #[command(hide = true)]
    Reference(reference::Arguments),
}

#[derive(clap::Args)]
struct Run {
    /// Suites (`verify`) or rows (`verify/bundle`); none means all
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// One JSON object a row
    #[arg(long)]
    json: bool,
    /// Tiny sizes: shows that everything runs, measures nothing
    #[arg(long)]
    quick: bool,
    /// Where pictures go, and the points that they are drawn from
    #[arg(long, value_name = "DIR")]
    pictures: Option<PathBuf>,
    /// A folder on the disk that is to be measured [default: the one with this program]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Where it keeps what it fetched [default: clerestory/bench in the cache folder]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// The cache folder of this user
    #[arg(long, env = "XDG_CACHE_HOME", hide = true)]
    cache_home: Option<PathBuf>,
    /// The home folder of this user
    #[arg(long, env = "HOME", hide = true)]
    home: Option<PathBuf>,
    /// List what can be measured, and end
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Run(arguments) => run(&arguments),
        Command::Draw { files } => files.iter().try_for_each(|file| picture::draw_file(file)),
        Command::Reference(arguments) => reference::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if error.is::<suite::UnknownName>() { 2 } else { 1 })
        }
    }
}

fn run(arguments: &Run) -> anyhow::Result<()> {
    let benches = suite::select(&arguments.names)?;
    if arguments.list {
        benches.iter().for_each(|entry| println!("{:<22} {}", entry.name, entry.about));
        return Ok(());
    }
    let scale = if arguments.quick { Scale::Quick } else { Scale::Full };
    let machine = machine::describe();
    eprintln!("{machine}");
    if arguments.quick {
        eprintln!("quick: these figures measure nothing");
    }
    // Temporary files often lie in memory, where nothing waits for a disk.
    let dir = arguments.dir.clone().map_or_else(|| Programs::beside_this().map(|it| it.folder().to_owned()), Ok)?;
    let folder = tempfile::tempdir_in(&dir).with_context(|| format!("can't use `{}`", dir.display()))?;
    let cache = arguments.cache_home.clone().or_else(|| arguments.home.as_ref().map(|home| home.join(".cache")));
    let cache = arguments.cache.clone().or_else(|| cache.map(|cache| cache.join("clerestory/bench")));
    let places = Places {
        scratch: folder.path().to_owned(),
        cache: cache.context("there is no home folder; give `--cache DIR`")?,
        pictures: arguments.pictures.clone(),
    };
    let mut rows = Vec::new();
    for entry in benches {
        let mut bench = bench::Bench::new(entry.name, scale, &places)?;
        (entry.run)(&mut bench).with_context(|| entry.name)?;
        for row in bench.finish()? {
            if arguments.json {
                println!("{}", row.to_json(&machine)?);
            }
            rows.push(row);
        }
    }
    if !arguments.json {
        print!("{}", Row::table(&rows));
    }
    Ok(())
}
