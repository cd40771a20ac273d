//! What an auditor remembers: the last checkpoint of each log that held.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use stdx::durable;
use tlog::{MAX_NOTE_BYTES, Origin, SignedCheckpoint};

use crate::command::read_limited;

/// A policy has at most 64 logs, and a checkpoint with its cosignatures is some 2 KB.
const STATE_BYTES_MAX: usize = MAX_NOTE_BYTES;

/// The last checkpoint of each log, as signed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditState {
    checkpoints: BTreeMap<String, String>,
}

impl AuditState {
    /// Reads the state in `path`; without a file nothing has been audited yet.
    ///
    /// # Errors
    /// When the file is damaged: starting anew by itself would forget a fork.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let bytes = read_limited(path, STATE_BYTES_MAX)?;
        serde_json::from_slice(&bytes).with_context(|| format!("`{}` is no auditor's state", path.display()))
    }

    /// Writes the state to `path`.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn save(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        durable::write(path, &text).with_context(|| format!("can't write `{}`", path.display()))
    }

    pub(super) fn last(&self, origin: &Origin) -> anyhow::Result<Option<SignedCheckpoint>> {
        let Some(text) = self.checkpoints.get(origin.as_str()) else { return Ok(None) };
        let parsed = SignedCheckpoint::parse(text);
        parsed.map(Some).with_context(|| format!("the auditor's last checkpoint of `{origin}` is damaged"))
    }

    pub(super) fn keep(&mut self, origin: &Origin, checkpoint: &SignedCheckpoint) {
        self.checkpoints.insert(origin.to_string(), checkpoint.to_string());
    }
}
