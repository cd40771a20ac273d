//! The journal: every decision, one JSON line each, for the owner to read.

use std::path::{Path, PathBuf};

use serde::Serialize;
use stdx::UnixTime;

use crate::disk::Disk;
use crate::failure::Failure;

/// Kinds of decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// The state was made.
    Initialised,
    /// The owner's part of the configuration is another than before.
    OwnerChanged,
    /// A policy succeeded the one before.
    PolicySucceeded,
    /// A release was installed.
    Installed,
    /// The previous release was put back.
    Reverted,
    /// A product was switched off.
    Disabled,
    /// Something was refused.
    Refused,
    /// Something could not be had.
    Unavailable,
    /// A health check failed.
    Unhealthy,
    /// A log's gap was closed by proof.
    GapClosed,
    /// A log showed two trees.
    SplitView,
    /// The owner agreed to share, or gave one file.
    SharingAgreed,
    /// The owner agrees no more.
    SharingWithdrawn,
    /// Something that was to be shared is not, and why.
    SharingDropped,
    /// Something was shared.
    Shared,
    /// A look-up was sent: all of it.
    Asked,
    /// Rules found something in a file.
    Found,
    /// The set of known-bad files may have a content: it does, or this is one in 65,536.
    Listed,
    /// A file, or a part of it, was not scanned.
    NotScanned,
    /// Changes were missed, and all is scanned again.
    Rescan,
}

#[derive(Serialize)]
struct Line<'a> {
    time: UnixTime,
    event: Event,
    #[serde(skip_serializing_if = "str::is_empty")]
    object: &'a str,
    detail: &'a str,
}

/// What happened to what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) event: Event,
    /// A product, log or file; may be empty.
    pub(crate) object: &'a str,
    pub(crate) detail: &'a str,
}

/// Appends to the journal's file. Readers skip a line that a crash cut short.
#[derive(Clone, Debug)]
pub(crate) struct Journal(PathBuf);

impl Journal {
    pub(crate) fn new(state: &Path) -> Self {
        Self(state.join("journal.jsonl"))
    }

    pub(crate) fn write(&self, disk: &dyn Disk, time: UnixTime, entry: Entry<'_>) -> Result<(), Failure> {
        let Entry { event, object, detail } = entry;
        let line = Line { time, event, object, detail };
        let mut bytes = serde_json::to_vec(&line).expect("texts are always JSON");
        // A newline in front as well ends whatever a crash left of the line before.
        bytes.insert(0, b'\n');
        bytes.push(b'\n');
        disk.append(&self.0, &bytes).map_err(|error| Failure::file(&self.0, &error))
    }
}
