//! `clerestory-verify`, as anybody would run it.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use attest::Lane;
use serde_json::Value;

use super::stage::{Stage, last_words};

/// What the verifier says.
pub(super) struct Said {
    pub(super) verified: bool,
    pub(super) reason: String,
}

/// What it is asked.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) file: &'a Path,
    pub(super) bundle: &'a Path,
    pub(super) product: &'a str,
    /// The lane that it was released through.
    pub(super) lane: Lane,
}

impl Question<'_> {
    fn arguments(self, stage: &Stage) -> Vec<String> {
        let status = stage.folder().join(format!("vendor/channel/status/{}.bundle", self.lane));
        let list: [(&str, String); 5] = [
            ("--product", self.product.to_owned()),
            ("--bundle", self.bundle.display().to_string()),
            ("--policy", stage.file("vendor/policy")),
            ("--genesis", stage.genesis().to_string()),
            ("--status", status.display().to_string()),
        ];
        let mut arguments = vec![self.file.display().to_string()];
        for (name, value) in list {
            arguments.push(name.to_owned());
            arguments.push(value);
        }
        arguments
    }

    /// The command line, for people.
    pub(super) fn command(self, stage: &Stage) -> String {
        format!("clerestory-verify {}", self.arguments(stage).join(" "))
    }

    /// Runs it.
    pub(super) fn ask(self, stage: &Stage) -> anyhow::Result<Said> {
        let program = stage.beside("clerestory-verify")?;
        let mut command = Command::new(&program);
        command.args(self.arguments(stage)).arg("--json").stdin(Stdio::null());
        let output = command.output().with_context(|| format!("can't run `{}`", program.display()))?;
        let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let text = |key: &str| said.get(key).and_then(Value::as_str).unwrap_or_default();
        let reason = match (text("code"), text("message")) {
            ("", "") => last_words(&output),
            (code, message) => format!("{code}: {message}"),
        };
        Ok(Said { verified: output.status.success(), reason })
    }
}
