//! What the client needs from outside: a repository to read and a place to keep metadata.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use stdx::durable;

use crate::name::RoleName;

/// Which file of a repository, as a relative URL path. It has only unreserved characters, `%XX`
/// and (in targets) `/`, and no part `.` or `..`: it can be joined to a URL or a folder as it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Location {
    /// A file below the metadata's base URL.
    Metadata(String),
    /// A file below the targets' base URL.
    Target(String),
}

/// The layout that [`crate::Repository`] writes: both kinds below one base URL.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Metadata(path) => write!(f, "metadata/{path}"),
            Self::Target(path) => write!(f, "targets/{path}"),
        }
    }
}

/// Why a file could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The repository says that there is no such file.
    #[error("there is no such file")]
    NotFound,
    /// Anything else: no network, a refusal, a time limit.
    #[error("{0}")]
    Unavailable(String),
}

/// Reads a repository over HTTP, from a folder, from a stick. None of them is trusted.
///
/// The caller enforces lengths by reading no further than a limit; the implementation bounds time
/// (slow data must fail some read) and follows no redirect to another kind of source.
pub trait Fetch {
    /// Opens a file for reading from its first byte.
    ///
    /// # Errors
    /// [`FetchError::NotFound`] only if the source answers so; during a root update it means that
    /// there is no newer root.
    fn open(&self, location: &Location) -> Result<Box<dyn Read + '_>, FetchError>;
}

/// No repository: searches see cached metadata only.
#[derive(Clone, Copy, Debug, Default)]
pub struct Offline;

impl Fetch for Offline {
    fn open(&self, _: &Location) -> Result<Box<dyn Read + '_>, FetchError> {
        Err(FetchError::Unavailable("offline".to_owned()))
    }
}

/// A repository in a folder laid out as [`Location`] displays: a stick, a mirror, a test.
#[derive(Clone, Debug)]
pub struct FolderFetch(PathBuf);

impl FolderFetch {
    /// The repository in `folder`.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self(folder.to_owned())
    }
}

impl Fetch for FolderFetch {
    fn open(&self, location: &Location) -> Result<Box<dyn Read + '_>, FetchError> {
        let path = self.0.join(location.to_string());
        match File::open(&path) {
            Ok(file) => Ok(Box::new(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(FetchError::NotFound),
            Err(error) => Err(FetchError::Unavailable(format!("{}: {error}", path.display()))),
        }
    }
}

/// The store failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(#[from] pub io::Error);

/// Keeps trusted metadata: one file for each role, byte for byte as received.
///
/// One client uses a store at a time.
pub trait Store {
    /// The file of `role`, if there is one.
    ///
    /// # Errors
    /// [`StoreError`] if it can't be told.
    fn load(&self, role: &RoleName) -> Result<Option<Vec<u8>>, StoreError>;

    /// Replaces the file of `role`. After return it survives a crash; a crash before that leaves
    /// the old file or the new, whole.
    ///
    /// # Errors
    /// [`StoreError`] if it may not have been written.
    fn save(&self, role: &RoleName, bytes: &[u8]) -> Result<(), StoreError>;

    /// Removes the file of `role`, durably; it is no error if there is none.
    ///
    /// # Errors
    /// [`StoreError`] if it may still be there.
    fn remove(&self, role: &RoleName) -> Result<(), StoreError>;
}

/// A store in a folder of its own: `root.json`, `timestamp.json`, …
#[derive(Clone, Debug)]
pub struct FolderStore(PathBuf);

impl FolderStore {
    /// The store in `folder`, which must exist. What a crashed write left there is removed.
    ///
    /// # Errors
    /// [`StoreError`] if the folder can't be read.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        durable::sweep(folder)?;
        Ok(Self(folder.to_owned()))
    }

    fn path(&self, role: &RoleName) -> PathBuf {
        self.0.join(role.file_name())
    }
}

impl Store for FolderStore {
    fn load(&self, role: &RoleName) -> Result<Option<Vec<u8>>, StoreError> {
        match std::fs::read(self.path(role)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn save(&self, role: &RoleName, bytes: &[u8]) -> Result<(), StoreError> {
        Ok(durable::write(&self.path(role), bytes)?)
    }

    fn remove(&self, role: &RoleName) -> Result<(), StoreError> {
        Ok(durable::remove(&self.path(role))?)
    }
}

/// A store that ends with the process: for a repository that reads itself.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(RefCell<BTreeMap<RoleName, Vec<u8>>>);

impl Store for MemoryStore {
    fn load(&self, role: &RoleName) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.borrow().get(role).cloned())
    }

    fn save(&self, role: &RoleName, bytes: &[u8]) -> Result<(), StoreError> {
        self.0.borrow_mut().insert(role.clone(), bytes.to_vec());
        Ok(())
    }

    fn remove(&self, role: &RoleName) -> Result<(), StoreError> {
        self.0.borrow_mut().remove(role);
        Ok(())
    }
}
