//! Where data lies.

use std::path::{Path, PathBuf};

/// Where a role's data lies, whatever the role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFolder(PathBuf);

impl DataFolder {
    /// The data below `path`.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The log's objects: a `storage::FileObjects`.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// Locks and the catalog: a `storage::SqliteStore`.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.0.join("state.sqlite")
    }

    /// Sources, inputs, environments and artifacts: an `assembly::Depot`.
    #[must_use]
    pub fn depot(&self) -> PathBuf {
        self.0.join("depot")
    }

    /// The objects of the depot, by digest: an `assembly::ContentStore`.
    #[must_use]
    pub fn content(&self) -> PathBuf {
        self.depot().join("content")
    }

    /// The channel's static tree.
    #[must_use]
    pub fn channel(&self) -> PathBuf {
        self.0.join("channel")
    }

    /// Sealed batches that endpoints share: a `storage::FileObjects`.
    #[must_use]
    pub fn intake(&self) -> PathBuf {
        self.0.join("intake")
    }

    /// What lies beside the log of access: openings of private fields, and queries: a `storage::FileObjects`.
    #[must_use]
    pub fn beside(&self) -> PathBuf {
        self.0.join("beside")
    }

    /// Rows of a custodian's own table.
    #[must_use]
    pub fn table(&self) -> PathBuf {
        self.0.join("table")
    }

    /// What was built: a folder for each product, and in it one for each version.
    #[must_use]
    pub fn builds(&self) -> PathBuf {
        self.0.join("builds")
    }
}
