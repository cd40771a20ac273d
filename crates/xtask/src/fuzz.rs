//! The fuzz targets of `crates/fuzz`: built with coverage instrumentation, each run on its corpus and
//! then on its own for some seconds.
//!
//! What cargo-fuzz does beyond this (a nightly compiler's sanitizers) we do without: there is no `unsafe`
//! in the workspace, and its flags (`crates/fuzz/rustc`) are stable.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::Context as _;

use crate::refusal::Refusal;
use crate::workspace::{Workspace, program_in, read};

/// The one program that holds every target, and the variable that names one to it.
const PROGRAM: &str = "parsers";
const TARGET: &str = "CLERESTORY_FUZZ";

/// How long each target runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seconds(pub(crate) u32);

/// How many targets run at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AtOnce(pub(crate) usize);

/// What one target did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) target: String,
    pub(crate) executions: u64,
    /// Edges of the program that were taken.
    pub(crate) edges: u64,
    /// Inputs kept because each takes an edge that the others don't.
    pub(crate) kept: u64,
}

/// Runs every target; the first failure ends it, with the input that shows it.
pub(crate) fn run(workspace: &Workspace, seconds: Seconds, at_once: AtOnce) -> anyhow::Result<Vec<Ran>> {
    let fuzzer = Fuzzer::build(workspace)?;
    let ahead = Mutex::new(fuzzer.targets()?.into_iter());
    let next = || ahead.lock().ok()?.next();
    let worker = || -> anyhow::Result<Vec<Ran>> {
        let mut ran = Vec::new();
        while let Some(target) = next() {
            ran.push(fuzzer.run(&target, seconds)?);
        }
        Ok(ran)
    };
    let mut all = Vec::new();
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let workers: Vec<_> = (0..at_once.0).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            all.extend(worker.join().map_err(|_| Refusal::refused("a thread of the fuzzer panicked"))??);
        }
        Ok(())
    })?;
    all.sort_by(|one, other| one.target.cmp(&other.target));
    Ok(all)
}

struct Fuzzer {
    program: PathBuf,
    /// The committed inputs, a folder a target.
    corpus: PathBuf,
    /// What was found on this machine, kept from run to run.
    found: PathBuf,
    artifacts: PathBuf,
}

impl Fuzzer {
    fn build(workspace: &Workspace) -> anyhow::Result<Self> {
        eprintln!("building the fuzz targets (a minute the first time)");
        let folder = workspace.root().join("crates/fuzz");
        // The whole workspace's features, so that other people's crates are those that are there already.
        let mut build = workspace.cargo(["build", "--workspace", "--bin", PROGRAM, "--features"]);
        build.args(["clerestory-fuzz/libfuzzer", "--message-format", "json-render-diagnostics"]);
        build.env("RUSTC_WORKSPACE_WRAPPER", folder.join("rustc"));
        let program = program_in(&read(build)?, PROGRAM)?.context("the build gave no program of fuzz targets")?;
        let artifacts = folder.join("artifacts");
        std::fs::create_dir_all(&artifacts).with_context(|| format!("{}", artifacts.display()))?;
        Ok(Self { program, corpus: folder.join("corpus"), found: workspace.target_folder().join("fuzz"), artifacts })
    }

    /// The program's list, which must be the corpus's too: a target without a seed finds little.
    fn targets(&self) -> anyhow::Result<Vec<String>> {
        let mut list = Command::new(&self.program);
        list.env(TARGET, "list");
        let mut targets: Vec<String> = read(list)?.lines().map(str::to_owned).collect();
        targets.sort();
        let corpus = std::fs::read_dir(&self.corpus).with_context(|| format!("{}", self.corpus.display()))?;
        let mut folders: Vec<String> =
            corpus.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        folders.sort();
        if targets == folders {
            return Ok(targets);
        }
        let what = format!("the fuzz targets are {targets:?}, the folders of crates/fuzz/corpus {folders:?}");
        Err(Refusal::refused(what).with_hint("each target has a folder of its name with at least one input").into())
    }

    fn run(&self, target: &str, seconds: Seconds) -> anyhow::Result<Ran> {
        let found = self.found.join(target);
        std::fs::create_dir_all(&found).with_context(|| format!("{}", found.display()))?;
        let artifact = self.artifacts.join(format!("{target}-"));
        let mut fuzzer = Command::new(&self.program);
        fuzzer.arg(format!("-max_total_time={}", seconds.0)).arg(format!("-artifact_prefix={}", artifact.display()));
        fuzzer.args(["-max_len=65536", "-timeout=20", "-rss_limit_mb=1024", "-print_final_stats=1"]);
        // New inputs go into the first folder.
        fuzzer.arg(&found).arg(self.corpus.join(target)).env(TARGET, target).stdin(Stdio::null());
        let output = fuzzer.output().with_context(|| format!("{}", self.program.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(failed(target, &said, &self.program).into());
        }
        statistics(target, &said).with_context(|| format!("the fuzz target `{target}` gives no statistics:\n{said}"))
    }
}

fn failed(target: &str, said: &str, program: &Path) -> Refusal {
    let end: Vec<&str> = said.lines().rev().take(40).collect();
    let end: Vec<&str> = end.into_iter().rev().collect();
    let input =
        said.lines().find_map(|line| line.split_once("Test unit written to ")).map_or("INPUT", |(_, path)| path);
    Refusal::refused(format!("the fuzz target `{target}` failed:\n{}", end.join("\n")))
        .with_hint(format!("{TARGET}={target} {} {input}", program.display()))
}

/// Reads libFuzzer's last line and its statistics.
fn statistics(target: &str, said: &str) -> Option<Ran> {
    let executions = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))?;
    let last = said.lines().rev().find(|line| line.starts_with('#') && line.contains(" cov: "))?;
    let words: Vec<&str> = last.split_whitespace().collect();
    let after =
        |name: &str| words.windows(2).find_map(|pair| (pair.first() == Some(&name)).then(|| pair.last().copied())?);
    Some(Ran {
        target: target.to_owned(),
        executions: executions.trim().parse().ok()?,
        edges: after("cov:")?.parse().ok()?,
        kept: after("corp:")?.split('/').next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::{Ran, statistics};

    #[test]
    fn the_fuzzers_statistics_are_read() {
        let said = "#2\tINITED cov: 90 ft: 90 corp: 1/1b\n#524\tDONE   cov: 1434 ft: 2201 corp: 87/12Kb lim: 4096 \
                    exec/s: 262 rss: 61Mb\nDone 524 runs in 2 second(s)\nstat::number_of_executed_units: 524\n";
        let expected = Ran { target: "a".to_owned(), executions: 524, edges: 1434, kept: 87 };
        assert_eq!(statistics("a", said), Some(expected));
        assert_eq!(statistics("a", "crashed"), None);
    }
}
