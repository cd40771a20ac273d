//! `clerestory-verify`, as anybody would run it.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use serde_json::Value;

use super::stage::{Stage, last_words};

/// What the verifier says.
pub(super) struct Said {
    pub(super) verified: bool,
    pub(super) reason: String,
}

fn arguments(stage: &Stage, file: &Path, bundle: &Path) -> Vec<String> {
    let status = stage.folder().join("vendor/channel/status/slow.bundle");
    let list: [(&str, String); 4] = [
        ("--bundle", bundle.display().to_string()),
        ("--policy", stage.file("vendor/policy")),
        ("--genesis", stage.genesis().to_string()),
        ("--status", status.display().to_string()),
    ];
    let mut arguments = vec![file.display().to_string()];
    for (name, value) in list {
        arguments.push(name.to_owned());
        arguments.push(value);
    }
    arguments
}

/// The command line, for people.
pub(super) fn command(stage: &Stage, file: &Path, bundle: &Path) -> String {
    format!("clerestory-verify {}", arguments(stage, file, bundle).join(" "))
}

/// Runs it.
pub(super) fn run(stage: &Stage, file: &Path, bundle: &Path, more: &[&str]) -> anyhow::Result<Said> {
    let program = stage.beside("clerestory-verify")?;
    let mut command = Command::new(&program);
    command.args(arguments(stage, file, bundle)).args(more).arg("--json").stdin(Stdio::null());
    let output = command.output().with_context(|| format!("can't run `{}`", program.display()))?;
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let text = |key: &str| said.get(key).and_then(Value::as_str).unwrap_or_default();
    let reason = match (text("code"), text("message")) {
        ("", "") => last_words(&output),
        (code, message) => format!("{code}: {message}"),
    };
    Ok(Said { verified: output.status.success(), reason })
}
