//! `cargo xtask ci`: everything that must hold before a change lands. Nothing here is advisory.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::workspace::{Workspace, succeed};
use crate::{demo, test, tidy};

/// Run every check in turn and stop at the first failure.
#[derive(clap::Args)]
pub(crate) struct Arguments {}

type Step = (&'static str, fn(&Workspace) -> anyhow::Result<()>);

/// The quick ones first.
const STEPS: [Step; 6] = [
    ("format", |workspace| succeed(workspace.cargo(["fmt", "--all", "--check"]))),
    ("tidy", tidy::check),
    ("clippy", |workspace| {
        succeed(workspace.cargo(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))
    }),
    ("test", |workspace| test::run_tests(workspace, &[])),
    ("documentation", |workspace| {
        let mut command = workspace.cargo(["doc", "--workspace", "--no-deps"]);
        command.env("RUSTDOCFLAGS", "-D warnings");
        succeed(command)
    }),
    ("demo", demo::run_once),
];

/// Prints one line with its duration for each step that passed.
pub(crate) fn run(_: &Arguments) -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    for (name, step) in STEPS {
        eprintln!("== {name}");
        let (result, duration) = timed(|| step(&workspace));
        // The step's own exit code and hint stay in force.
        result.with_context(|| format!("{name} failed after {:.1} s", duration.as_secs_f64()))?;
        println!("{name:<14} {:>7.1} s", duration.as_secs_f64());
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "shown to people only; a dependency on stdx would slow every xtask build"
)]
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}
