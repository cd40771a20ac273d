//! The host's own programs that we call: package clients and compilers.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// How much of a program's last words is shown.
const SHOWN_BYTES_MAX: usize = 2_000;

/// A program of the host failed or is missing.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It is not installed.
    #[error("`{tool}` is not installed; on Debian: apt-get install {package}")]
    Missing {
        /// The program.
        tool: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// It could not be run.
    #[error("cannot run `{tool}`")]
    Start {
        /// The program.
        tool: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It said no.
    #[error("`{tool}` failed: {words}")]
    Failed {
        /// The program.
        tool: &'static str,
        /// The end of what it wrote to standard error.
        words: String,
    },
    /// It wrote something that we do not understand.
    #[error("`{tool}` answered `{answer}`")]
    Answer {
        /// The program.
        tool: &'static str,
        /// What it wrote.
        answer: String,
    },
}

/// A program of the host and where it comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
}

pub(crate) const APT_GET: Tool = Tool { name: "apt-get", package: "apt" };
pub(crate) const APT_CACHE: Tool = Tool { name: "apt-cache", package: "apt" };
pub(crate) const APT_CONFIG: Tool = Tool { name: "apt-config", package: "apt" };
pub(crate) const CARGO: Tool = Tool { name: "cargo", package: "cargo" };
pub(crate) const PYTHON: Tool = Tool { name: "python3", package: "python3-pip" };
pub(crate) const GIT: Tool = Tool { name: "git", package: "git" };
pub(crate) const CC: Tool = Tool { name: "cc", package: "gcc" };

impl Tool {
    /// A command that inherits the caller's environment (proxies, configured indexes) and no input.
    pub(crate) fn command(self) -> Command {
        let mut command = Command::new(self.name);
        command.stdin(Stdio::null()).env("LC_ALL", "C.UTF-8");
        command
    }

    /// Runs `command` (of this tool) and gives what it wrote to standard output.
    pub(crate) fn output(self, command: &mut Command) -> Result<Vec<u8>, ToolError> {
        let output = command.output().map_err(|source| self.start_error(source))?;
        if output.status.success() {
            Ok(output.stdout)
        } else {
            Err(ToolError::Failed { tool: self.name, words: last_words(&output.stderr) })
        }
    }

    /// As [`Tool::output`], as text.
    pub(crate) fn text(self, command: &mut Command) -> Result<String, ToolError> {
        String::from_utf8(self.output(command)?)
            .map_err(|error| self.answer(&String::from_utf8_lossy(error.as_bytes())))
    }

    /// An answer that we do not understand.
    pub(crate) fn answer(self, answer: &str) -> ToolError {
        ToolError::Answer { tool: self.name, answer: answer.chars().take(300).collect() }
    }

    fn start_error(self, source: io::Error) -> ToolError {
        if source.kind() == io::ErrorKind::NotFound {
            ToolError::Missing { tool: self.name, package: self.package }
        } else {
            ToolError::Start { tool: self.name, source }
        }
    }
}

/// Runs the host's C compiler.
pub(crate) fn compile_shared(source: &Path, object: &Path) -> Result<(), ToolError> {
    let mut command = CC.command();
    command.args(["-shared", "-fPIC", "-O1", "-Wall", "-o"].map(OsStr::new)).args([object, source]);
    CC.output(&mut command).map(|_| ())
}

fn last_words(stderr: &[u8]) -> String {
    let start = stderr.len().saturating_sub(SHOWN_BYTES_MAX);
    String::from_utf8_lossy(stderr.get(start..).unwrap_or_default()).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_its_package() {
        let tool = Tool { name: "clerestory-no-such-program", package: "nothing" };
        let error = tool.output(&mut tool.command()).unwrap_err();
        assert!(error.to_string().contains("apt-get install nothing"), "{error}");
        let error = GIT.output(GIT.command().arg("no-such-command")).unwrap_err();
        assert!(matches!(error, ToolError::Failed { .. }), "{error}");
    }
}
