//! Trees of rules as they were, one commit after the other: the real history of a public collection, or
//! one that is made here where that is not at hand.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use stdx::{Digest, durable};

use crate::bench::{Bench, Scale};
use crate::programs::succeed;

/// Where the real one lies: beside the checkout, as a bundle of git's.
const BUNDLE: &str = "../shared/data/rules/signature-base-yara.bundle";
const UPSTREAM: &str = "refs/heads/upstream";
const SETTINGS: &str = "rules.toml";

/// Of a history that is made: rules at its beginning, and commits.
const MADE_RULES: usize = 400;
const MADE_COMMITS: usize = 6;

/// A git repository of trees of rules, each with the same settings.
pub(crate) struct History {
    repository: PathBuf,
    /// The oldest first.
    commits: Vec<String>,
}

impl History {
    /// The real one, with `settings` as `rules.toml`; a made one where there is none, and for quick runs.
    pub(crate) fn open(bench: &Bench, settings: &str) -> anyhow::Result<Self> {
        let mut history = Self { repository: bench.folder().join("rules.git"), commits: Vec::new() };
        history.git(&["init", "--quiet", "--bare"])?;
        let bundle = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(BUNDLE);
        let settings = history.written("hash-object", &["-w", "--stdin"], settings.as_bytes())?;
        if bench.scale() == Scale::Quick {
            bench.say("quick: a few rules that are made here");
        } else if bundle.is_file() {
            let bundle = bundle.to_string_lossy().into_owned();
            history.git(&["fetch", "--quiet", &bundle, &format!("refs/heads/main:{UPSTREAM}")])?;
            let trees = history.git(&["log", "--reverse", "--format=%T", UPSTREAM])?;
            for tree in trees.lines() {
                let entries = history.git(&["ls-tree", tree])?;
                history.commit(&entries, &settings)?;
            }
            bench.say(&format!("the real history: {} commits", history.commits.len()));
            return Ok(history);
        } else {
            bench.say(&format!("`{BUNDLE}` is not here: rules that are made here take its place"));
        }
        let notice = history.written("hash-object", &["-w", "--stdin"], b"Rules made for a measurement.\n")?;
        for number in 0..MADE_COMMITS {
            let rules = history.written("hash-object", &["-w", "--stdin"], made(number).as_bytes())?;
            let folder = history.written("mktree", &[], format!("100644 blob {rules}\tmade.yar\n").as_bytes())?;
            history.commit(&format!("100644 blob {notice}\tLICENSE\n040000 tree {folder}\tyara\n"), &settings)?;
        }
        Ok(history)
    }

    pub(crate) fn repository(&self) -> &Path {
        &self.repository
    }

    pub(crate) fn commits(&self) -> &[String] {
        &self.commits
    }

    /// Adds a commit of these entries and the settings.
    fn commit(&mut self, entries: &str, settings: &str) -> anyhow::Result<()> {
        let entries = format!("{}\n100644 blob {settings}\t{SETTINGS}\n", entries.trim_end());
        let tree = self.written("mktree", &[], entries.as_bytes())?;
        let mut arguments = vec![tree.as_str(), "-m", "rules"];
        let parent = self.commits.last().cloned();
        if let Some(parent) = &parent {
            arguments.extend(["-p", parent]);
        }
        let commit = self.written("commit-tree", &arguments, b"")?;
        self.commits.push(commit);
        Ok(())
    }

    fn command(&self) -> Command {
        let mut command = Command::new("git");
        command.arg("--git-dir").arg(&self.repository).stdin(Stdio::null());
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), "bench").env(format!("GIT_{role}_EMAIL"), "bench@example.org");
            command.env(format!("GIT_{role}_DATE"), "1700000000 +0000");
        }
        command
    }

    fn git(&self, arguments: &[&str]) -> anyhow::Result<String> {
        Ok(String::from_utf8(succeed(self.command().args(arguments))?.stdout)?)
    }

    /// Gives `input` to a command of git's, and its answer back.
    fn written(&self, name: &str, arguments: &[&str], input: &[u8]) -> anyhow::Result<String> {
        let mut command = self.command();
        command.arg(name).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("git")?;
        child.stdin.take().context("git takes an input")?.write_all(input)?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "`git {name}` failed: {}", output.status);
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }
}

/// Rules that look for texts which are nowhere; with each commit one is new, and one changed. And those that
/// find the samples.
fn made(commit: usize) -> String {
    let mut text = format!("rule sample {{ strings: $a = \"{KNOWN_BAD}\" condition: $a }}\n");
    for number in 0..MADE_RULES + commit {
        let changed = if number < commit { "changed " } else { "" };
        let mark = Digest::of(&number.to_be_bytes());
        let _ = writeln!(text, "rule made_{number} {{ strings: $a = \"{changed}{mark}\" condition: $a }}");
    }
    text
}

/// What any rules of ours find: a web shell of one line, as real rules know it, too.
pub(crate) const KNOWN_BAD: &str = "<?php eval($_POST['clerestory']); ?>";

/// Writes the newest commit's bundle, as `clerestory-scan` assembles it, and says which files stay out.
pub(crate) fn newest_bundle(bench: &Bench, settings: &str) -> anyhow::Result<PathBuf> {
    let history = History::open(bench, settings)?;
    let newest = history.commits().last().context("a history has a commit")?.clone();
    let tree = detection::RulesTree::from_commit(history.repository(), &detection::Revision(newest))?;
    let limits = detection::Limits::new(std::num::NonZeroU16::MIN);
    let mut worker = detection::Worker::start(&bench.programs()?.path("clerestory-scan")?, limits)?;
    let made = worker.assemble(&tree.sources())?;
    for file in &made.rejected {
        bench.say(&format!("rejected: {}: {}", file.path, file.cause));
    }
    let index = detection::Index::parse(&made.index)?;
    bench.say(&format!(
        "{} rules, {} bytes, {} files rejected",
        index.rules.len(),
        made.bundle.len(),
        made.rejected.len()
    ));
    let path = bench.folder().join("rules.yar");
    durable::write(&path, &made.bundle)?;
    Ok(path)
}
