//! Is `fsck` tested? cargo-mutants changes one thing of it at a time; each change must fail a test.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::refusal::Refusal;
use crate::setup::foreign;
use crate::workspace::{Workspace, read, succeed};

/// Another version makes other mutants, and would make other figures.
const VERSION: &str = "27.1.0";

const PACKAGE: &str = "clerestory-log";
const FILES: [&str; 2] = ["crates/log/src/fsck.rs", "crates/log/src/fsck/*.rs"];
/// The package's other tests call `fsck` too; a mutant shall take seconds, and fall to its own tests.
const TESTS: &str = "fsck::";

/// Changes that change nothing, with the reason.
const EQUIVALENT: [&str; 1] = [
    // A tile above that is one too narrow holds no hash at the position: "not good" either way.
    "replace > with >= in Check<'_>::tile_is_good",
];

/// Seconds for the tests of one mutant; they take about two on a free processor.
const TIMEOUT_S: &str = "180";

pub(super) fn run(workspace: &Workspace, figures: &mut Vec<(String, String)>) -> anyhow::Result<()> {
    let program = ensure(workspace)?;
    let folder = workspace.target_folder().join("mutants");
    std::fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    let mut mutants = Command::new(program);
    mutants.args(["mutants", "--jobs", "1", "--timeout", TIMEOUT_S, "--colors", "never", "--package", PACKAGE]);
    mutants.args(FILES.iter().flat_map(|file| ["--file", file]));
    mutants.args(EQUIVALENT.iter().flat_map(|mutant| ["--exclude-re".to_owned(), escaped(mutant)]));
    mutants.arg("--output").arg(&folder).args(["--", "--test", "it", TESTS]);
    // What was compiled for the last mutants is there for the next ones.
    mutants.env("CARGO_TARGET_DIR", folder.join("target")).current_dir(workspace.root()).stdin(Stdio::null());
    let output = mutants.stdout(Stdio::piped()).stderr(Stdio::inherit()).output();
    let said = String::from_utf8_lossy(&output.context("cargo-mutants could not be started")?.stdout).into_owned();
    eprint!("{said}");
    let counts = counts(&said).context("cargo-mutants gives no count")?;
    let Counts { mutants, missed, caught, unviable, timeouts } = counts;
    figures.push((
        "mutants of `fsck`".to_owned(),
        format!("{mutants}: {caught} caught, {unviable} do not compile, {timeouts} timeouts, {missed} missed"),
    ));
    figures.push(("mutants left out because they change nothing".to_owned(), EQUIVALENT.len().to_string()));
    if missed + timeouts == 0 && caught > 0 {
        return Ok(());
    }
    Err(Refusal::refused(format!("{missed} mutants of fsck are missed, {timeouts} take too long"))
        .with_hint("they are named above: write the test that catches each, or say why it changes nothing")
        .into())
}

/// Installs cargo-mutants where no other version is in its way.
fn ensure(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let root = foreign::cache()?.join(format!("cargo-mutants-{VERSION}"));
    let program = root.join("bin/cargo-mutants");
    if !is_there(&program) {
        eprintln!("installing cargo-mutants {VERSION} (minutes, once)");
        let mut install = workspace.cargo(["install", "--locked", "cargo-mutants", "--version", VERSION, "--root"]);
        install.arg(&root).env("CARGO_TARGET_DIR", root.join("target"));
        succeed(install)?;
        std::fs::remove_dir_all(root.join("target")).context("the leavings of the installation")?;
    }
    Ok(program)
}

fn is_there(program: &Path) -> bool {
    let mut about = Command::new(program);
    about.args(["mutants", "--version"]).stdin(Stdio::null());
    read(about).is_ok_and(|said| said.contains(VERSION))
}

/// A text as the regular expression that matches it alone.
fn escaped(text: &str) -> String {
    let mut expression = String::new();
    for letter in text.chars() {
        if "\\.+*?()|[]{}^$".contains(letter) {
            expression.push('\\');
        }
        expression.push(letter);
    }
    expression
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    mutants: u64,
    missed: u64,
    caught: u64,
    unviable: u64,
    timeouts: u64,
}

/// Reads `89 mutants tested in 9m: 3 missed, 70 caught, 16 unviable`; what is none is left out.
fn counts(said: &str) -> Option<Counts> {
    let line = said.lines().rev().find(|line| line.contains(" tested in "))?;
    let (head, rest) = line.split_once(": ")?;
    let mut counts = Counts { mutants: head.split(' ').next()?.parse().ok()?, ..Counts::default() };
    for part in rest.split(", ") {
        let (number, what) = part.trim().split_once(' ')?;
        let number = number.parse().ok()?;
        match what {
            "missed" => counts.missed = number,
            "caught" => counts.caught = number,
            "unviable" => counts.unviable = number,
            "timeout" | "timeouts" => counts.timeouts = number,
            _ => return None,
        }
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::{Counts, counts, escaped};

    #[test]
    fn the_last_line_is_read() {
        let said = "MISSED   x.rs:1:1\n89 mutants tested in 9m 1s: 3 missed, 70 caught, 15 unviable, 1 timeouts\n";
        let read = Counts { mutants: 89, missed: 3, caught: 70, unviable: 15, timeouts: 1 };
        assert_eq!(counts(said), Some(read));
        let none = Counts { mutants: 2, caught: 2, ..Counts::default() };
        assert_eq!(counts("2 mutants tested in 3s: 2 caught\n"), Some(none));
        assert_eq!(counts("error: no mutants\n"), None);
        assert_eq!(counts("2 mutants tested in 3s: 2 odd\n"), None);
    }

    #[test]
    fn a_mutant_is_meant_literally() {
        assert_eq!(escaped("f(x) + A<'_>::b"), "f\\(x\\) \\+ A<'_>::b");
    }
}
