//! The public TUF conformance suite, at a pinned commit, on our client.
//!
//! No package registry has it, so it needs its own repository, or a clone of that.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::refusal::Refusal;
use crate::setup::foreign;
use crate::workspace::{Workspace, built, read, succeed};

const REPOSITORY: &str = "https://github.com/theupdateframework/tuf-conformance";
const COMMIT: &str = "eec841c186f81f2d9d8d30460c7e7deefa615f9e";
/// The commit's tree: what runs is what was pinned, wherever it came from.
const TREE: &str = "947f0ae0d309f8c6767826a056e07d45234f42b0";
/// All of its tests.
const TESTS: u64 = 113;

pub(super) fn run(
    workspace: &Workspace,
    from: Option<&str>,
    figures: &mut Vec<(String, String)>,
) -> anyhow::Result<()> {
    let folder = foreign::cache()?.join(format!("tuf-conformance-{COMMIT}"));
    let from = from.unwrap_or(REPOSITORY);
    if !folder.exists() {
        clone(from, &folder)?;
    }
    let found = git(&folder, &["rev-parse", "HEAD^{tree}"])?;
    let changed = git(&folder, &["status", "--porcelain", "--untracked-files=no"])?;
    if found.trim() != TREE || !changed.is_empty() {
        let what = format!("{} is not tree {TREE} of the suite", folder.display());
        return Err(Refusal::refused(what).with_hint("delete the folder; it is fetched again").into());
    }
    let passed = passed(&pytest(workspace, &folder)?)?;
    figures.push(("tests of the public suite passed".to_owned(), format!("{passed} of {TESTS}")));
    figures.push(("the suite's commit".to_owned(), COMMIT.chars().take(12).collect()));
    if passed == TESTS {
        return Ok(());
    }
    Err(Refusal::refused(format!("{passed} of {TESTS} tests of the suite pass")).into())
}

fn clone(from: &str, folder: &Path) -> anyhow::Result<()> {
    let mut clone = Command::new("git");
    clone.args(["clone", "--quiet", "--no-checkout", "--", from]).arg(folder).stdin(Stdio::null());
    let hint = "`--suite REPOSITORY` takes any clone of it, a folder for example";
    succeed(clone).map_err(|error| Refusal::unavailable(format!("{error:#}")).with_hint(hint))?;
    git(folder, &["checkout", "--quiet", "--detach", COMMIT]).map(drop)
}

fn git(folder: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let mut git = Command::new("git");
    git.arg("-C").arg(folder).args(arguments).stdin(Stdio::null());
    read(git)
}

/// What pytest prints. A failure of tests is not one of pytest: their number says it.
fn pytest(workspace: &Workspace, folder: &Path) -> anyhow::Result<String> {
    let mut pytest = Command::new("python3");
    pytest.args(["-B", "-m", "pytest", "-p", "no:cacheprovider", "--color=no", "--tb=short", "tuf_conformance"]);
    let client = built(workspace, &[], &["conformance"], "clerestory-tuf-conformance")?;
    pytest.arg("--entrypoint").arg(client);
    pytest.env("PYTHONPATH", foreign::cache()?.join("python")).current_dir(folder).stdin(Stdio::null());
    let output = pytest.stderr(Stdio::inherit()).output().context("`python3` could not be started")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    eprint!("{said}");
    Ok(said)
}

/// Reads `===== 112 passed, 1 failed in 89.12s =====`.
fn passed(said: &str) -> anyhow::Result<u64> {
    let last = said.lines().rev().find(|line| line.contains(" passed")).context("pytest gives no count")?;
    let words: Vec<&str> = last.trim_matches(['=', ' ']).split([' ', ',']).collect();
    let number = words.windows(2).find_map(|pair| match pair {
        [number, "passed"] => number.parse().ok(),
        _ => None,
    });
    number.with_context(|| format!("pytest gives no count: {last}"))
}

#[cfg(test)]
mod tests {
    use super::passed;

    #[test]
    fn closing_lines_of_pytest_are_read() {
        assert_eq!(passed("x\n===== 113 passed in 89.12s (0:01:29) =====\n").unwrap(), 113);
        assert_eq!(passed("===== 1 failed, 112 passed, 2 warnings in 89.12s =====\n").unwrap(), 112);
        assert!(passed("no tests ran in 0.01s\n").is_err());
    }
}
