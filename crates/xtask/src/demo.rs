//! `cargo xtask demo`: the whole system on this machine.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use serde::Deserialize;

use crate::refusal::Refusal;
use crate::setup::{self, Purpose};
use crate::workspace::{Workspace, read, succeed};

/// Build everything and run `clerestory demo` with the given arguments (`--once`, `--json`, `--dir D`, …).
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Passed on as they are.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Packages whose programs take part; `clerestory` finds the others beside itself.
const PACKAGES: [&str; 4] = ["server", "agent", "verifier", "sandbox"];
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
    eprintln!("building {} (minutes the first time)", PACKAGES.join(", "));
    let mut command = workspace.cargo(["build", "--bins", "--message-format", "json-render-diagnostics"]);
    command.args(PACKAGES.iter().flat_map(|package| ["--package", package]));
    let messages = read(command)?;
    program_in(&messages)?.with_context(|| Refusal::refused(format!("the build gave no program `{PROGRAM}`")))
}

/// What cargo reports of each artifact, as far as we read it.
#[derive(Deserialize)]
struct Message {
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

fn program_in(messages: &str) -> anyhow::Result<Option<PathBuf>> {
    for line in messages.lines() {
        let message: Message = serde_json::from_str(line).with_context(|| format!("cargo's message `{line}`"))?;
        if message.target.is_some_and(|target| target.name == PROGRAM) && message.executable.is_some() {
            return Ok(message.executable);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::program_in;

    #[test]
    fn the_program_is_found_among_cargos_messages() {
        let others = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"server","kind":["lib"]},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"clerestory-agent","kind":["bin"]},"executable":"/t/clerestory-agent"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(program_in(others).unwrap(), None);
        let with = format!(
            "{}\n{others}",
            r#"{"reason":"compiler-artifact","target":{"name":"clerestory"},"executable":"/t/clerestory"}"#
        );
        assert_eq!(program_in(&with).unwrap(), Some(PathBuf::from("/t/clerestory")));
        assert!(program_in("not JSON").is_err());
    }
}
