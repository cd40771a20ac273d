//! The programs under measurement: they lie beside this one.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, bail};

use crate::reference::Cost;

/// Where they lie.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    folder: PathBuf,
    this: PathBuf,
}

impl Programs {
    pub(crate) fn beside_this() -> anyhow::Result<Self> {
        let this = std::env::current_exe().context("can't find this program")?;
        let folder = this.parent().context("this program lies in no folder")?.to_owned();
        Ok(Self { folder, this })
    }

    /// The folder that holds them, on the disk that was built on.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// `clerestory`, `clerestory-agent`, `clerestory-scan`, `clerestory-verify` or `clerestory-sandbox`.
    pub(crate) fn path(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.join(name);
        if path.is_file() {
            return Ok(path);
        }
        bail!("`{}` is missing; `cargo xtask bench` builds it", path.display())
    }

    pub(crate) fn command(&self, name: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(self.path(name)?);
        command.stdin(Stdio::null());
        Ok(command)
    }

    /// This program as a reference process: see [`crate::reference`].
    pub(crate) fn reference(&self) -> Command {
        let mut command = Command::new(&self.this);
        command.arg("reference").stdin(Stdio::null());
        command
    }

    /// Runs `command` to its end, whatever that is, and says what it took.
    pub(crate) fn cost(&self, command: &Command, surroundings: &Surroundings) -> anyhow::Result<Cost> {
        let mut measured = self.reference();
        measured.arg("cost");
        if let Some(cores) = surroundings.cores {
            measured.args(["--cores", &cores.to_string()]);
        }
        for (option, path) in [("--input", &surroundings.input), ("--output", &surroundings.output)] {
            if let Some(path) = path {
                measured.arg(option).arg(path);
            }
        }
        for (name, value) in command.get_envs() {
            measured.env(name, value.unwrap_or_default());
        }
        measured.arg("--").arg(command.get_program()).args(command.get_args());
        serde_json::from_slice(&succeed(&mut measured)?.stdout).context("the cost of a process")
    }
}

/// What a measured process has around it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    /// So many processors; all, if it is not said.
    pub(crate) cores: Option<usize>,
    /// Its standard input.
    pub(crate) input: Option<PathBuf>,
    /// Where its standard output goes.
    pub(crate) output: Option<PathBuf>,
}

/// Runs to the end, which must be a success, and gives what was printed.
pub(crate) fn succeed(command: &mut Command) -> anyhow::Result<Output> {
    let output = command.output().with_context(|| format!("can't run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output)
}
