//! What can go wrong in a store.

use std::io;
use std::path::PathBuf;

use crate::Key;

/// Why a store didn't do as asked. Unless a variant says otherwise, a write that failed may or
/// may not have happened: read before going on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An immutable object of this name has other content; nothing was written.
    #[error("object `{key}` is there already, with other content")]
    Conflict {
        /// The object.
        key: Key,
    },
    /// Larger than [`MAX_OBJECT_BYTES`](crate::MAX_OBJECT_BYTES); nothing was written or read.
    #[error("object `{key}` has {size} bytes, more than a store takes")]
    TooLarge {
        /// The object.
        key: Key,
        /// Its size in bytes.
        size: u64,
    },
    /// The lease ran out and somebody else took the job, or it is finished.
    #[error("the lease on job `{id}` is lost")]
    LeaseLost {
        /// The job.
        id: Key,
    },
    /// The store was opened for reading.
    #[error("the store was opened for reading only")]
    ReadOnly,
    /// `create` found something in place.
    #[error("`{path}` is there already; a store is never created over something else")]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// `open` found no store, or one of another kind or version.
    #[error("`{path}` is no {kind} that this version can open")]
    NotAStore {
        /// Where.
        path: PathBuf,
        /// What was expected there.
        kind: &'static str,
    },
    /// `open` found a store that a later version of this program has made; nothing was changed.
    #[error("`{path}` has format {found}, and this version knows only {known}: a newer version has written it")]
    Newer {
        /// The store.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest that is known here.
        known: u32,
    },
    /// Another process has the store open for writing.
    #[error("another process has `{path}` open")]
    Busy {
        /// The store.
        path: PathBuf,
    },
    /// The file system failed.
    #[error("can't {action} `{path}`")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A service on another machine failed, or can't be reached.
    #[error("{service} can't {action}")]
    Service {
        /// Which: its kind and address.
        service: String,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A service on another machine answers, but can't be used as it is set up.
    #[error("{service}: {problem}")]
    Setup {
        /// Which: its kind and address.
        service: String,
        /// What is wrong.
        problem: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// The database failed.
    #[error("the database can't {action}")]
    Database {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// Whether there is no room left on the disk.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::File { source, .. } => source.kind() == io::ErrorKind::StorageFull,
            Self::Database { source, .. } => {
                let database = source.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
                // SQLITE_FULL
                database.and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "13")
            }
            _ => false,
        }
    }
}
