//! `cargo xtask demo`: the whole system on this machine.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::setup::{self, Purpose};
use crate::workspace::{ALL, Workspace, built, succeed};

/// Build everything and run `clerestory demo` with the given arguments (`--once`, `--json`, `--dir D`, …).
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Passed on as they are.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// It finds the others beside itself.
const PROGRAM: &str = "clerestory";

/// Becomes the demo, so that signals and its exit code need no forwarding.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    setup::ensure(Purpose::Demo)?;
    let program = build(&Workspace::find()?)?;
    let error = Command::new(&program).arg("demo").args(arguments.arguments).exec();
    Err(error).with_context(|| format!("{} could not be started", program.display()))
}

/// The demo as one step among others: runs to its end, without a terminal.
pub(crate) fn run_once(workspace: &Workspace) -> anyhow::Result<()> {
    setup::ensure(Purpose::Demo)?;
    let mut command = Command::new(build(workspace)?);
    command.args(["demo", "--once"]).current_dir(workspace.root()).stdin(Stdio::null()).stdout(std::io::stderr());
    succeed(command)
}

/// Builds the programs (development profile: hashes and curves are optimised in it, and the tests share
/// its artifacts) and returns where `clerestory` lies.
fn build(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    built(workspace, &[], ALL, PROGRAM)
}
