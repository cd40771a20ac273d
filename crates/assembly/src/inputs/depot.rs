//! One organisation's own store of sources, inputs and environments.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stdx::durable;

use crate::content::{ContentError, ContentStore, Object};
use crate::inputs::{InputsError, io_at};

/// Largest fetched object: the largest package in the Debian archive has about 2 GB.
const OBJECT_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// Whether bytes may come from a cache that others also write to.
#[derive(Clone, Debug)]
pub enum Transport {
    /// Every byte comes through the package clients.
    Clients,
    /// Bytes of the wanted digest are taken from this store first, and left there for others.
    Shared(ContentStore),
}

/// One organisation's folder: objects, resolutions, environments, and the package clients' own state.
#[derive(Clone, Debug)]
pub struct Depot {
    folder: PathBuf,
    content: ContentStore,
    transport: Transport,
    /// Locked, with others, for as long as somebody works here.
    _in_use: Arc<File>,
}

impl Depot {
    /// Creates the depot, or opens it where it already is. Who comes first, with nobody else at
    /// work, removes what crashed processes left in `work` and on its way into `content`.
    ///
    /// # Errors
    /// [`InputsError::Io`], [`InputsError::Content`].
    pub fn create(folder: &Path, transport: Transport) -> Result<Self, InputsError> {
        for part in ["resolved", "environments", "vendor", "work"] {
            let part = folder.join(part);
            durable::create_folder(&part).map_err(io_at(&part))?;
        }
        // Relative paths would mean something else to the package clients, which change folders.
        let folder = fs::canonicalize(folder).map_err(io_at(folder))?;
        let content = ContentStore::create(&folder.join("content"))?;
        let in_use = in_use(&folder, &content)?;
        Ok(Self { folder, content, transport, _in_use: Arc::new(in_use) })
    }

    /// Opens a depot that exists.
    ///
    /// # Errors
    /// [`InputsError::Content`] if there is none.
    pub fn open(folder: &Path, transport: Transport) -> Result<Self, InputsError> {
        ContentStore::open(&folder.join("content"))?;
        Self::create(folder, transport)
    }

    /// Where all objects lie.
    #[must_use]
    pub const fn content(&self) -> &ContentStore {
        &self.content
    }

    pub(crate) fn part(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Waits until nobody else, in this process or another, works on `what`, and holds it until the
    /// file is dropped. The package clients and half-made folders bear only one at a time.
    pub(crate) fn exclusive(&self, what: &str) -> Result<File, InputsError> {
        let path = self.part(&format!("{what}.lock"));
        let file = File::create(&path).map_err(io_at(&path))?;
        file.lock().map_err(io_at(&path))?;
        Ok(file)
    }

    /// An empty folder for one piece of work, removed with the guard.
    pub(crate) fn work(&self, what: &str) -> Result<WorkFolder, InputsError> {
        WorkFolder::create(&self.part("work"), what)
    }

    /// Stores `file`, fetched by a client, if it has the wanted digest.
    pub(crate) fn take(&self, file: &Path, digest: &stdx::Digest) -> Result<(), InputsError> {
        let size = fs::metadata(file).map_err(io_at(file))?.len();
        let object = Object { digest: *digest, size };
        if size > OBJECT_BYTES_MAX {
            return Err(ContentError::TooLarge { what: file.display().to_string(), limit: OBJECT_BYTES_MAX }.into());
        }
        self.content.put_expected(file, object)?;
        if let Transport::Shared(shared) = &self.transport
            && !shared.contains(digest)
        {
            // The object is in our own store; a cache that takes nothing is only slower.
            let _ = shared.put_expected(file, object);
        }
        Ok(())
    }

    /// Whether the object is here, or in the shared cache and intact, and then taken from there.
    pub(crate) fn has(&self, digest: &stdx::Digest) -> Result<bool, InputsError> {
        if self.content.contains(digest) {
            return Ok(true);
        }
        let Transport::Shared(shared) = &self.transport else { return Ok(false) };
        // A damaged or poisoned cache is as good as none.
        let Ok(file) = shared.open_object(digest) else { return Ok(false) };
        let stored = self.content.put_reader("the shared cache's object", file, OBJECT_BYTES_MAX)?;
        Ok(stored.digest == *digest)
    }
}

fn in_use(folder: &Path, content: &ContentStore) -> Result<File, InputsError> {
    let path = folder.join("in-use.lock");
    let file = File::create(&path).map_err(io_at(&path))?;
    match file.try_lock() {
        Ok(()) => {
            content.sweep()?;
            sweep(&folder.join("work"))?;
        }
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(io_at(&path)(error)),
    }
    file.lock_shared().map_err(io_at(&path))?;
    Ok(file)
}

/// Folders of work that nobody does any more; files there (the shim) are for everybody.
fn sweep(work: &Path) -> Result<(), InputsError> {
    for entry in fs::read_dir(work).map_err(io_at(work))? {
        let path = entry.map_err(io_at(work))?.path();
        if path.is_dir() {
            fs::remove_dir_all(&path).map_err(io_at(&path))?;
        }
    }
    Ok(())
}

/// A temporary folder of a depot.
#[derive(Debug)]
pub(crate) struct WorkFolder(PathBuf);

impl WorkFolder {
    fn create(parent: &Path, what: &str) -> Result<Self, InputsError> {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = parent.join(format!("{what}-{}-{number}", std::process::id()));
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(io_at(&folder))?;
        }
        durable::create_folder(&folder).map_err(io_at(&folder))?;
        Ok(Self(folder))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        // A left-over folder is removed when the depot is opened next.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_crash_left_goes_when_nobody_else_works_here() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Depot::create(folder.path(), Transport::Clients).unwrap();
        let depot = open();
        let left = folder.path().join("work/build-1-0");
        durable::create_folder(&left.join("deep")).unwrap();
        durable::write(&folder.path().join("work/shim-1.so"), b"").unwrap();
        durable::write(&folder.path().join("content/incoming/1-0"), b"").unwrap();
        let object = depot.content().put(b"object").unwrap();
        let second = open();
        assert!(left.exists(), "somebody may be working on it");
        drop((depot, second));
        let depot = open();
        assert!(!left.exists());
        assert_eq!(fs::read_dir(folder.path().join("content/incoming")).unwrap().count(), 0);
        assert!(depot.content().contains(&object.digest) && depot.part("work").join("shim-1.so").exists());
        let work = depot.work("build").unwrap();
        drop(open());
        assert!(work.path().exists());
    }
}
