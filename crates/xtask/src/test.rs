//! `cargo xtask test`: every test of the workspace, documentation included.

use std::io::{BufRead as _, BufReader, Write as _};
use std::ops::AddAssign;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::Context as _;

use crate::fuzz::{self, AtOnce, Seconds};
use crate::refusal::Refusal;
use crate::setup::{self, Purpose};
use crate::workspace::{Workspace, command_line, succeed};

/// Run every test, or those whose names contain one of the filters.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Parts of test names; none means all.
    filter: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    run_tests(&Workspace::find()?, &arguments.filter)
}

/// Prints the sum of all test programs on stdout; refuses a failure, an ignored test, and no test at all.
pub(crate) fn run_tests(workspace: &Workspace, filter: &[String]) -> anyhow::Result<()> {
    setup::ensure(Purpose::Test)?;
    // Tests start programs of other packages (the sandbox, the servers), so those must be there first.
    succeed(workspace.cargo(["build", "--workspace", "--all-targets"]))?;
    let mut sum = Counts::default();
    let mut failures = Vec::new();
    for kind in [["--workspace", "--all-targets"], ["--workspace", "--doc"]] {
        let mut command = workspace.cargo(["test", "--no-fail-fast"]);
        command.args(kind).arg("--").args(filter);
        failures.extend(count(command, SILENCE_MAX, &mut sum, |_| {})?);
    }
    println!("{} passed, {} failed, {} ignored", sum.passed, sum.failed, sum.ignored);
    judge(sum, &failures)?;
    if filter.is_empty() { fuzz_a_second(workspace) } else { Ok(()) }
}

/// Every fuzz target on its corpus, and a second further; what takes longer is a torture.
fn fuzz_a_second(workspace: &Workspace) -> anyhow::Result<()> {
    let ran = fuzz::run(workspace, Seconds(1), AtOnce(2))?;
    let executions: u64 = ran.iter().map(|ran| ran.executions).sum();
    println!("{} fuzz targets, {executions} runs, no failure", ran.len());
    Ok(())
}

/// The sums of libtest's closing lines.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

impl Counts {
    /// Reads `test result: ok. 3 passed; 0 failed; 0 ignored; …`.
    fn from_line(line: &str) -> Option<Self> {
        let (_, results) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let number = |what: &str| {
            let (number, _) =
                results.split("; ").filter_map(|part| part.split_once(' ')).find(|part| part.1 == what)?;
            number.parse().ok()
        };
        Some(Self { passed: number("passed")?, failed: number("failed")?, ignored: number("ignored")? })
    }
}

/// The longest single test takes three minutes on a machine with two cores.
const SILENCE_MAX: Duration = Duration::from_secs(20 * 60);

/// Runs one `cargo test`, passing its output on to stderr and to `read`; returns its name if it failed. One that
/// says nothing for so long is ended: above, libtest has named the tests that were running.
pub(crate) fn count(
    mut command: Command,
    silence_max: Duration,
    sum: &mut Counts,
    mut read: impl FnMut(&str),
) -> anyhow::Result<Option<String>> {
    let name = command_line(&command);
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("`{name}` could not be started"))?;
    let output = child.stdout.take().context("the child's stdout is not piped")?;
    let (said, lines) = mpsc::channel();
    std::thread::spawn(move || BufReader::new(output).split(b'\n').try_for_each(|line| said.send(line)));
    let mut stderr = std::io::stderr();
    loop {
        let line = match lines.recv_timeout(silence_max) {
            Ok(line) => line.with_context(|| format!("the output of `{name}`"))?,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                end(child.id())?;
                child.wait()?;
                let minutes = silence_max.as_secs() / 60;
                return Ok(Some(format!("`{name}` (ended: it said nothing for {minutes} minutes)")));
            }
        };
        stderr.write_all(&line)?;
        stderr.write_all(b"\n")?;
        let line = String::from_utf8_lossy(&line);
        if let Some(counts) = Counts::from_line(&line) {
            *sum += counts;
        }
        read(&line);
    }
    let status = child.wait().with_context(|| format!("the end of `{name}`"))?;
    Ok((!status.success()).then(|| format!("`{name}` ({status})")))
}

/// Ends a process and all that it has started.
fn end(process: u32) -> anyhow::Result<()> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let children = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<u32> =
        children.collect::<String>().split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    // One that is gone already is what we want.
    Command::new("kill").args(["-KILL", &process.to_string()]).stderr(Stdio::null()).status()?;
    children.into_iter().try_for_each(end)
}

pub(crate) fn judge(sum: Counts, failures: &[String]) -> anyhow::Result<()> {
    if !failures.is_empty() || sum.failed > 0 {
        let what = format!("{} tests failed in {}", sum.failed, failures.join(" and "));
        return Err(Refusal::refused(what).with_hint("search the output above for `FAILED` and `error`").into());
    }
    if sum.ignored > 0 {
        let what = format!("{} tests are ignored", sum.ignored);
        return Err(Refusal::refused(what).with_hint("make them run everywhere, or delete them").into());
    }
    if sum.passed == 0 {
        return Err(Refusal::refused("no test ran").with_hint("the filter matches no test name").into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::{Counts, count, judge};

    #[test]
    fn closing_lines_are_read() {
        let line = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.10s";
        assert_eq!(Counts::from_line(line), Some(Counts { passed: 12, failed: 0, ignored: 1 }));
        let line = "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s";
        assert_eq!(Counts::from_line(line), Some(Counts { passed: 1, failed: 2, ignored: 0 }));
        assert_eq!(Counts::from_line("test result::works ... ok"), None);
        assert_eq!(Counts::from_line("running 3 tests"), None);
    }

    #[test]
    fn what_hangs_is_ended_with_all_that_it_has_started() {
        let folder = tempfile::tempdir().unwrap();
        let alive = folder.path().join("alive");
        let mut command = Command::new("sh");
        // The grandchild holds the pipe open.
        command.args(["-c", "echo begun; sh -c 'echo $$ >alive; read never <fifo'; true"]).current_dir(folder.path());
        assert!(Command::new("mkfifo").arg(folder.path().join("fifo")).status().unwrap().success());
        let mut lines = Vec::new();
        let short = Duration::from_secs(3);
        let failure = count(command, short, &mut Counts::default(), |line| lines.push(line.to_owned())).unwrap();
        assert!(failure.unwrap().contains("said nothing"));
        assert_eq!(lines, ["begun"]);
        let grandchild = std::fs::read_to_string(alive).unwrap();
        // It was killed, and on a busy machine takes a moment to die of it.
        let stat = || std::fs::read_to_string(format!("/proc/{}/stat", grandchild.trim())).unwrap_or_default();
        let is_gone = || {
            let stat = stat();
            std::thread::park_timeout(Duration::from_millis(10));
            stat.is_empty() || stat.contains(" Z ")
        };
        assert!((0..1000).any(|_| is_gone()), "{}", stat());
    }

    #[test]
    fn only_a_full_success_is_one() {
        let passed = Counts { passed: 3, ..Counts::default() };
        assert!(judge(passed, &[]).is_ok());
        assert!(judge(Counts::default(), &[]).is_err(), "no test at all");
        assert!(judge(Counts { ignored: 1, ..passed }, &[]).is_err());
        assert!(judge(Counts { failed: 1, ..passed }, &[]).is_err());
        assert!(judge(passed, &["`cargo test` (exit status: 101)".to_owned()]).is_err(), "did not compile");
    }
}
