//! The engines: each as a process over a list of files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use stdx::durable;
use testkit::foreign;

use super::sample::Sample;
use crate::bench::Bench;
use crate::programs::{Programs, Surroundings};
use crate::reference::Cost;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    /// `clerestory-scan` with as many threads as it has processors.
    Ours {
        cores: u16,
    },
    /// The library that it is built on, with nothing around it.
    Bare,
    YaraX,
    Yara,
    ClamScan,
}

impl Engine {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ours { cores: 1 } => "clerestory-scan",
            Self::Ours { .. } => "clerestory-scan, all cores",
            Self::Bare => "boreal",
            Self::YaraX => "yara-x",
            Self::Yara => "yara",
            Self::ClamScan => "clamscan",
        }
    }

    /// Those that our engine is to be twice as fast as. What `clamscan` reads of the rules is another matter.
    pub(super) const fn has_target(self) -> bool {
        matches!(self, Self::YaraX | Self::Yara)
    }

    const fn cores(self) -> usize {
        match self {
            Self::Ours { cores } => cores as usize,
            _ => 1,
        }
    }
}

/// Which rules match which files; nothing of files that no rule matches.
pub(super) type Verdicts = BTreeMap<String, Vec<String>>;

/// Rules, programs and a place.
pub(super) struct Scene {
    programs: Programs,
    rules: PathBuf,
    output: PathBuf,
    nothing: Sample,
}

impl Scene {
    pub(super) fn new(bench: &Bench, rules: PathBuf) -> anyhow::Result<Self> {
        let folder = bench.folder();
        let empty = folder.join("empty");
        durable::write(&empty, b"")?;
        let nothing = Sample::new(vec![empty], Vec::new(), &folder.join("nothing"))?;
        Ok(Self { programs: bench.programs()?, rules, output: folder.join("output"), nothing })
    }

    /// One empty file.
    pub(super) const fn nothing(&self) -> &Sample {
        &self.nothing
    }

    pub(super) fn has_clamscan(&self) -> bool {
        Command::new("clamscan").arg("--version").output().is_ok_and(|output| output.status.success())
    }

    /// What a run takes over the same contents: what is in containers lies beside them for those who open none.
    pub(super) fn cost(&self, engine: Engine, sample: &Sample) -> anyhow::Result<Cost> {
        let (command, input) = self.command(engine, sample, sample.contents())?;
        let surroundings = Surroundings { cores: Some(engine.cores()), input, output: None };
        let cost = self.programs.cost(&command, &surroundings)?;
        // 1: something was found; 75: something was not looked at. `clamscan` says 2 for rules that it leaves out.
        ensure!(matches!(cost.code, Some(0..=2 | 75)), "{} ended with {:?}", engine.name(), cost.code);
        Ok(cost)
    }

    /// What a run finds in the files themselves.
    pub(super) fn verdicts(&self, engine: Engine, sample: &Sample) -> anyhow::Result<Verdicts> {
        let (command, input) = self.command(engine, sample, sample.list())?;
        let surroundings = Surroundings { cores: None, input, output: Some(self.output.clone()) };
        let cost = self.programs.cost(&command, &surroundings)?;
        ensure!(matches!(cost.code, Some(0 | 1 | 75)), "{} ended with {:?}", engine.name(), cost.code);
        let said = std::fs::read_to_string(&self.output)?;
        let mut verdicts = Verdicts::new();
        for line in said.lines() {
            let line: Value = serde_json::from_str(line).with_context(|| format!("{} said `{line}`", engine.name()))?;
            let Some(path) = line.get("path").and_then(Value::as_str) else { continue };
            let rules = match engine {
                Engine::Ours { .. } => matched(&line),
                _ => names(line.get("rules"), Some),
            };
            if !rules.is_empty() {
                verdicts.insert(path.to_owned(), rules);
            }
        }
        Ok(verdicts)
    }

    /// The command, and what it reads. `list` is for those who open no containers.
    fn command(&self, engine: Engine, sample: &Sample, list: &Path) -> anyhow::Result<(Command, Option<PathBuf>)> {
        let list = Some(list.to_owned());
        Ok(match engine {
            Engine::Ours { cores } => {
                let mut command = self.programs.command("clerestory-scan")?;
                command.args(["--json", "--threads", &cores.to_string(), "--rules"]).arg(&self.rules);
                command.arg("--").args(sample.files());
                (command, None)
            }
            Engine::Bare => {
                let mut command = self.programs.reference();
                command.arg("scan").arg(&self.rules);
                (command, list)
            }
            Engine::YaraX => (self.python("yara-x"), list),
            Engine::Yara => (self.python("yara"), list),
            Engine::ClamScan => {
                let mut command = Command::new("clamscan");
                command.args(["--no-summary", "--max-filesize=256M", "--max-scansize=4000M", "--database"]);
                command.arg(&self.rules).arg(listed(sample.list()));
                (command, None)
            }
        })
    }

    fn python(&self, engine: &str) -> Command {
        let mut command = foreign::engine("scan.py");
        command.arg(engine).arg(&self.rules);
        command
    }
}

fn listed(list: &Path) -> std::ffi::OsString {
    let mut option = std::ffi::OsString::from("--file-list=");
    option.push(list);
    option
}

/// The rules that match the file itself, and not what is in it.
fn matched(line: &Value) -> Vec<String> {
    names(line.get("matches"), |found| {
        let is_outside = found.get("inside").and_then(Value::as_array).is_some_and(Vec::is_empty);
        found.get("rule").filter(|_| is_outside)
    })
}

fn names<'v>(list: Option<&'v Value>, name: impl Fn(&'v Value) -> Option<&'v Value>) -> Vec<String> {
    let all = list.and_then(Value::as_array).into_iter().flatten();
    let mut names: Vec<String> = all.filter_map(name).filter_map(Value::as_str).map(str::to_owned).collect();
    names.sort();
    names
}
