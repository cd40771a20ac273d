//! An endpoint under guard: `clerestory-agent run` as a process of its own, and what its journal says.

use std::fs;
use std::process::Child;

use anyhow::Context as _;
use serde_json::Value;

use super::endpoint::Endpoint;
use super::stage::Stage;

/// What a journal is to say.
#[derive(Clone, Copy)]
pub(super) struct Told<'a> {
    pub(super) event: &'a str,
    /// A part of what it is about, or of its detail.
    pub(super) words: &'a str,
}

/// An endpoint that looks for news, and scans what changes.
pub(super) struct Guard {
    pub(super) endpoint: Endpoint,
    child: Child,
}

impl Guard {
    pub(super) fn start(endpoint: Endpoint) -> anyhow::Result<Self> {
        let path = endpoint.folder().join("guard.log");
        let log = fs::File::create(&path).with_context(|| format!("can't write `{}`", path.display()))?;
        let child = endpoint.command(&["run"]).stdout(log.try_clone()?).stderr(log).spawn();
        Ok(Self { child: child.context("can't start the guard")?, endpoint })
    }

    /// Waits until the journal says it, and gives the detail.
    pub(super) fn wait(&self, stage: &Stage, told: Told<'_>) -> anyhow::Result<String> {
        let journal = self.endpoint.folder().join("state/journal.jsonl");
        let complaint = format!("`{}` says nothing of `{} {}`", journal.display(), told.event, told.words);
        let mut found = None;
        stage.wait_until(&complaint, || {
            found = fs::read_to_string(&journal)?.lines().find_map(|line| detail(line, told));
            Ok(found.is_some())
        })?;
        Ok(found.unwrap_or_default())
    }
}

/// The line's detail, if it is what was to be told.
fn detail(line: &str, told: Told<'_>) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    let text = |key: &str| line.get(key).and_then(Value::as_str).unwrap_or_default();
    let is_it =
        text("event") == told.event && (text("object").contains(told.words) || text("detail").contains(told.words));
    is_it.then(|| text("detail").to_owned())
}

impl Drop for Guard {
    fn drop(&mut self) {
        // A process that has ended already needs no ending.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
