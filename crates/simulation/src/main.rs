//! Runs simulations, and shrinks what fails.

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use simulation::{Broken, parse_plan, plan_of, run, run_all, shrink};

/// Simulate the whole product, from a seed
#[derive(Parser)]
struct Arguments {
    /// The seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A plan as it was printed, instead of the seed's own
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Run all seeds from the first to before the second, each with its own plan
    #[arg(long, value_name = "FIRST..END", value_parser = range, conflicts_with_all = ["seed", "plan"])]
    seeds: Option<Range<u64>>,
    /// Print what happens, and shrink nothing
    #[arg(long)]
    trace: bool,
}

/// A shrunk plan is worth so many runs of a second.
const TRIES: usize = 400;

fn range(text: &str) -> Result<Range<u64>, String> {
    let ends = text.split_once("..").and_then(|(first, end)| Some(first.parse().ok()?..end.parse().ok()?));
    ends.ok_or_else(|| "give two numbers, like 1..201".to_owned())
}

fn all(seeds: Range<u64>) -> ExitCode {
    let summary = run_all(seeds);
    println!("{} seeds, {} h of simulated time", summary.seeds, summary.simulated.as_secs() / 3600);
    summary.counts.iter().for_each(|(what, count)| println!("{count:>9} {what}"));
    summary.failures.iter().for_each(|failure| println!("seed {}: {}", failure.seed, failure.violation));
    if summary.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(seeds) = arguments.seeds {
        return all(seeds);
    }
    let plan = match &arguments.plan {
        None => Ok(plan_of(arguments.seed)),
        Some(path) => std::fs::read_to_string(path).map_err(|error| error.to_string()).and_then(|it| parse_plan(&it)),
    };
    let plan = match plan {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let outcome = run(arguments.seed, &plan, Broken::Nothing);
    if arguments.trace {
        outcome.trace.iter().for_each(|line| println!("{line}"));
    }
    let Some(violation) = outcome.violation else {
        println!("seed {}: {} steps, every promise was kept", arguments.seed, plan.len());
        return ExitCode::SUCCESS;
    };
    println!("seed {}: {violation}", arguments.seed);
    if arguments.trace {
        return ExitCode::FAILURE;
    }
    let small = shrink(arguments.seed, plan, Broken::Nothing, TRIES);
    println!("# cargo run -p simulation -- --seed {} --plan FILE, with these lines in FILE", arguments.seed);
    small.iter().for_each(|step| println!("{step}"));
    ExitCode::FAILURE
}
