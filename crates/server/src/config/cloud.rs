//! The threat cloud's part of a vendor's configuration.

use std::collections::BTreeSet;
use std::path::PathBuf;

use attest::{ProductId, StatementId};
use reputation::Bounds;
use serde::Deserialize;

/// Automatic processing of what endpoints share, by standing requests that were approved like any other.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloudSection {
    /// Asks as a reader.
    pub key: PathBuf,
    /// The standing requests (`clerestory data request --service`), one a class and region; their queries are
    /// those of `clerestory cloud query`.
    pub requests: BTreeSet<StatementId>,
    /// The products whose rules' detections count.
    pub rules: BTreeSet<ProductId>,
    /// The tree that verdicts are released from: `rules.toml`, the notice, and lists of one's own. What is found
    /// is added to a copy of it.
    pub tree: PathBuf,
    /// Where verdicts, and the list for the gateway of look-ups, lie.
    pub folder: PathBuf,
    /// When reports are enough, and when too many.
    #[serde(default)]
    pub bounds: Bounds,
}

impl CloudSection {
    pub(super) fn paths_mut(&mut self) -> Vec<&mut PathBuf> {
        vec![&mut self.key, &mut self.tree, &mut self.folder]
    }
}
