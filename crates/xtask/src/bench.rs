//! `cargo xtask bench`: measures what was built as users get it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::Context as _;

use crate::setup::{self, Purpose};
use crate::workspace::{Workspace, built};

/// Build in the release profile and measure: ours, the reference, and whether the target is met.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Passed on as they are: suites or rows, `--json`, `--pictures DIR`, `--list`, …
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// The programs that are measured, and the one that measures them; it finds them beside itself.
const PACKAGES: [&str; 6] = ["bench", "server", "agent", "verifier", "sandbox", "scanner"];
const PROGRAM: &str = "clerestory-bench";
/// It takes minutes to compile, so only those who measure it wait for it.
const SLOW: ([&str; 5], &str) = (["data", "cloud", "cloud/verdicts", "cloud/intake-growth", "cloud/query"], "query");

/// Becomes the measuring program, so that signals and its exit code need no forwarding.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    setup::ensure(Purpose::Bench)?;
    let workspace = Workspace::find()?;
    let mut packages = PACKAGES.to_vec();
    let (suites, package) = SLOW;
    let names = arguments.arguments.iter().filter_map(|argument| argument.to_str());
    let mut names = names.filter(|name| !name.starts_with('-')).peekable();
    if names.peek().is_none() || names.any(|name| suites.contains(&name) || name.starts_with("data/query")) {
        packages.push(package);
    }
    let program = built(&workspace, &["--release"], &packages, PROGRAM)?;
    let mut command = Command::new(&program);
    let error = command.arg("run").args(arguments.arguments).current_dir(workspace.root()).exec();
    Err(error).with_context(|| format!("{} could not be started", program.display()))
}
