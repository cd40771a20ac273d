//! A lock that one process has at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

/// A file that nobody else has locked; the kernel lets go of it when the process ends, however.
///
/// It is unlocked when dropped, not just closed: a process that is being started at that moment by another thread has a
/// copy of the descriptor until it runs its program, and the lock would be held for as long (flock(2)).
#[derive(Debug)]
pub struct FileLock(File);

impl FileLock {
    /// Locks the file at `path`, which is made if it is not there. `None` if it is locked.
    ///
    /// # Errors
    /// The file system's.
    pub fn try_new(path: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Closing it does the same, later at worst.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_it_has_it_alone_and_not_longer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = FileLock::try_new(&path).unwrap().unwrap();
        assert!(FileLock::try_new(&path).unwrap().is_none());
        // As a process has it that was forked, and has not run its program yet.
        let copy = first.0.try_clone().unwrap();
        drop(first);
        assert!(FileLock::try_new(&path).unwrap().is_some());
        drop(copy);
        assert!(FileLock::try_new(&folder.path().join("no/lock")).is_err());
    }
}
