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

/// Becomes the measuring program, so that signals and its exit code need no forwarding.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    setup::ensure(Purpose::Bench)?;
    let workspace = Workspace::find()?;
    let program = built(&workspace, &["--release"], &PACKAGES, PROGRAM)?;
    let mut command = Command::new(&program);
    let error = command.arg("run").args(arguments.arguments).current_dir(workspace.root()).exec();
    Err(error).with_context(|| format!("{} could not be started", program.display()))
}
