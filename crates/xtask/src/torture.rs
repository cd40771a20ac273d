//! `cargo xtask torture`: what takes too long for every test run, with its last result written down.
//!
//! A torture is a set of ordinary tests that, with [`FULL`] set, try everything instead of a sample.
//! What they print as `figure: NAME: VALUE` goes into the section of `docs/torture.md` that has the
//! torture's name; text above the section's result is for people to write, and stays.

mod mutation;
mod record;
mod suite;

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::ci::timed;
use crate::fuzz::{self, AtOnce, Seconds};
use crate::refusal::Refusal;
use crate::setup::{self, Purpose};
use crate::test::{Counts, count, judge};
use crate::workspace::{Workspace, read, succeed};

/// Run every torture, or those that are named, and write the results into docs/torture.md.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Which ones; none means all.
    names: Vec<String>,
    /// Where `conformance` clones the public TUF suite from, if not from its own address.
    #[arg(long, value_name = "REPOSITORY")]
    suite: Option<String>,
    /// How long `fuzz` runs each of its targets.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    seconds: u32,
}

/// Set for the tests of a torture: try everything (`testkit::Breadth`).
const FULL: &str = "CLERESTORY_TORTURE";

/// One torture.
struct Torture {
    name: &'static str,
    steps: &'static [Step],
}

/// One part of it.
enum Step {
    /// The tests of a package whose names contain the filter.
    Tests { package: &'static str, filter: &'static str },
    /// The public TUF conformance suite.
    Suite,
    /// The fuzz targets.
    Fuzz,
    /// cargo-mutants on `fsck`.
    Mutation,
}

/// All of them, in the order in which they run.
const TORTURES: &[Torture] = &[
    Torture {
        name: "faults",
        steps: &[
            Step::Tests { package: "server", filter: "faults::" },
            Step::Tests { package: "agent", filter: "strace::" },
            Step::Tests { package: "agent", filter: "flips::" },
        ],
    },
    Torture {
        name: "conformance",
        steps: &[Step::Suite, Step::Tests { package: "conformance", filter: "scenarios::" }],
    },
    Torture {
        name: "liars",
        steps: &[
            Step::Tests { package: "agent", filter: "forks::" },
            Step::Tests { package: "agent", filter: "liars::" },
        ],
    },
    Torture { name: "products", steps: &[Step::Tests { package: "assembly", filter: "products::" }] },
    Torture { name: "scan", steps: &[Step::Tests { package: "scanner", filter: "engines::" }] },
    Torture { name: "fire", steps: &[Step::Tests { package: "server", filter: "fire::" }] },
    Torture { name: "simulation", steps: &[Step::Tests { package: "simulation", filter: "every_promise" }] },
    Torture { name: "mutation", steps: &[Step::Mutation] },
    Torture { name: "fuzz", steps: &[Step::Fuzz, Step::Tests { package: "server", filter: "damaged::" }] },
];

/// Prints the figures as a table on stdout.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let chosen = chosen(&arguments.names)?;
    setup::ensure(Purpose::Test)?;
    let workspace = Workspace::find()?;
    // Tests start programs of other packages.
    succeed(workspace.cargo(["build", "--workspace", "--bins"]))?;
    for torture in chosen {
        eprintln!("== {}", torture.name);
        let mut figures = Vec::new();
        let mut run = |step: &Step| step.run(&workspace, arguments, &mut figures);
        let (result, duration) = timed(|| torture.steps.iter().try_for_each(&mut run));
        for (name, value) in &figures {
            println!("{:<12} {name:<60} {value}", torture.name);
        }
        result?;
        let circumstances = format!("{}, {:.0} s", circumstances(&workspace)?, duration.as_secs_f64());
        record::write(&workspace, torture.name, &circumstances, &figures)?;
    }
    Ok(())
}

fn chosen(names: &[String]) -> anyhow::Result<Vec<&'static Torture>> {
    if let Some(unknown) = names.iter().find(|name| TORTURES.iter().all(|torture| torture.name != **name)) {
        let known: Vec<_> = TORTURES.iter().map(|torture| torture.name).collect();
        let hint = format!("there are: {}", known.join(", "));
        return Err(Refusal::missing(format!("there is no torture `{unknown}`")).with_hint(hint).into());
    }
    let is_chosen = |torture: &&Torture| names.is_empty() || names.iter().any(|name| name == torture.name);
    Ok(TORTURES.iter().filter(is_chosen).collect())
}

impl Step {
    fn run(
        &self,
        workspace: &Workspace,
        arguments: &Arguments,
        figures: &mut Vec<(String, String)>,
    ) -> anyhow::Result<()> {
        match self {
            Self::Fuzz => {
                // One at a time, so that others' work and the figures don't depend on each other.
                for ran in fuzz::run(workspace, Seconds(arguments.seconds), AtOnce(1))? {
                    let fuzz::Ran { target, executions, edges, kept } = ran;
                    figures.push((target, format!("{executions} runs, {edges} edges, {kept} inputs kept")));
                }
                Ok(())
            }
            Self::Mutation => mutation::run(workspace, figures),
            Self::Suite => suite::run(workspace, arguments.suite.as_deref(), figures),
            Self::Tests { package, filter } => {
                let mut command = workspace.cargo(["test", "--package", package, "--test", "it", "--", filter]);
                // One after another: what one measures is not another's load, and figures come whole.
                command.args(["--nocapture", "--test-threads=1"]).env(FULL, "1");
                let mut sum = Counts::default();
                let failure = count(command, SILENCE_MAX, &mut sum, |line| figures.extend(figure(line)))?;
                judge(sum, failure.as_slice())
            }
        }
    }
}

/// A torture may take hours, and says little.
const SILENCE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads `figure: NAME: VALUE`, wherever in the line it stands: libtest may have begun it.
fn figure(line: &str) -> Option<(String, String)> {
    let (_, figure) = line.split_once("figure: ")?;
    let (name, value) = figure.split_once(": ")?;
    Some((name.trim().to_owned(), value.trim().to_owned()))
}

/// When, what and where: `2026-11-22, commit 1a2b3c4, 2 × AMD EPYC, Linux 6.1`.
fn circumstances(workspace: &Workspace) -> anyhow::Result<String> {
    let said = |program: &str, arguments: &[&str]| -> anyhow::Result<String> {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(workspace.root()).stdin(Stdio::null());
        Ok(read(command)?.trim().to_owned())
    };
    let date = said("date", &["--utc", "+%F"])?;
    let commit = said("git", &["rev-parse", "--short", "HEAD"])?;
    let (processors, kernel) = (said("nproc", &[])?, said("uname", &["--kernel-release"])?);
    let about = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = about.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model.trim());
    Ok(format!("{date}, commit {commit}, {processors} × {model}, Linux {kernel}"))
}

#[cfg(test)]
mod tests {
    use super::{TORTURES, chosen, figure};

    #[test]
    fn figures_are_read() {
        let read = |name: &str, value: &str| Some((name.to_owned(), value.to_owned()));
        assert_eq!(figure("figure: append: calls: 12"), read("append", "calls: 12"));
        assert_eq!(figure("test a::b ... figure: seed: 7"), read("seed", "7"));
        assert_eq!(figure("test a::b ... ok"), None);
    }

    #[test]
    fn names_choose() {
        assert_eq!(chosen(&[]).unwrap().len(), TORTURES.len());
        assert_eq!(chosen(&["faults".to_owned()]).unwrap().len(), 1);
        assert!(chosen(&["other".to_owned()]).is_err());
    }
}
