//! File operations that are complete and on disk when they return.
//!
//! Each write goes to a temporary file in the same folder, is synced, renamed (or linked) into
//! place, and then the folder is synced. A crash leaves the old content or the new, never a mix;
//! what it can leave is a `.tmp-*` file, which [`sweep`] removes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

const TEMPORARY_PREFIX: &str = ".tmp-";

/// What [`create`] found in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The file is new.
    New,
    /// A file of this name stood there already and was left alone.
    Existed,
}

/// Replaces `path` by a file that holds `bytes`.
///
/// # Errors
/// I/O errors; `path` then holds what it held before, or (if only the last sync failed) `bytes`.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes, Readers::Everyone)
}

/// Replaces `path` by a file that holds `bytes` and that only its owner can read.
///
/// # Errors
/// As [`write()`].
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes, Readers::Owner)
}

/// Creates `path` with `bytes` unless a file of that name exists. Of several callers at once
/// exactly one gets [`Created::New`].
///
/// # Errors
/// I/O errors; the file is then absent or complete.
pub fn create(path: &Path, bytes: &[u8]) -> io::Result<Created> {
    let temporary = write_temporary(path, bytes, Readers::Everyone)?;
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary)?;
    match linked {
        Ok(()) => sync_folder(folder_of(path)).map(|()| Created::New),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Created::Existed),
        Err(error) => Err(error),
    }
}

/// Moves `from` to `to`, replacing it, and syncs the folder.
///
/// # Errors
/// I/O errors.
#[expect(clippy::disallowed_methods, reason = "the one place that renames")]
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_folder(folder_of(to))
}

/// Removes `path` and syncs the folder; a missing file is no error.
///
/// # Errors
/// I/O errors.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder(folder_of(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Creates `folder` and its parents, each synced into its own parent.
///
/// # Errors
/// I/O errors.
pub fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    create_folder(folder_of(folder))?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_folder(folder_of(folder)),
    }
}

/// Removes what crashed writes left in `folder` (not below it). Call it before anything else
/// writes there.
///
/// # Errors
/// I/O errors.
pub fn sweep(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if is_temporary(&path) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Whether this is a file that is being written, or that a crash left so.
#[must_use]
pub fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(TEMPORARY_PREFIX))
}

/// A file that only grows. What was added is on disk after [`Growing::sync`], and may be before; after a
/// crash its end may be a part of what was added last.
#[derive(Debug)]
pub struct Growing(File);

impl Growing {
    /// Makes a file that begins with `bytes`, on disk with its name when this returns.
    ///
    /// # Errors
    /// I/O errors, also when there is one already.
    pub fn create(path: &Path, bytes: &[u8]) -> io::Result<Self> {
        let mut file = OpenOptions::new().append(true).create_new(true).mode(Readers::Owner as u32).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        sync_folder(folder_of(path))?;
        Ok(Self(file))
    }

    /// Adds `bytes` at the end.
    ///
    /// # Errors
    /// I/O errors; some of `bytes` may be there.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// Waits until all that was added is on disk.
    ///
    /// # Errors
    /// I/O errors. After one, nothing that was added since the last success can be relied on, even if a
    /// later call succeeds: the kernel forgets what it could not write.
    pub fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// Who may read a file, as far as the umask agrees.
#[derive(Clone, Copy)]
enum Readers {
    Everyone = 0o644,
    Owner = 0o600,
}

fn replace(path: &Path, bytes: &[u8], readers: Readers) -> io::Result<()> {
    let temporary = write_temporary(path, bytes, readers)?;
    rename(&temporary, path).inspect_err(|_| {
        // It stands there still if it could not be renamed; that error is the one to report.
        let _ = fs::remove_file(&temporary);
    })
}

fn write_temporary(path: &Path, bytes: &[u8], readers: Readers) -> io::Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let temporary = folder_of(path).join(format!("{TEMPORARY_PREFIX}{}-{number}", process::id()));
    let written = (|| {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(readers as u32).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()
    })();
    match written {
        Ok(()) => Ok(temporary),
        Err(error) => {
            // A full disk must not be made fuller; the first error is the one to report.
            let _ = fs::remove_file(&temporary);
            Err(error)
        }
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_replaces_and_a_create_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        assert_eq!(create(&path, b"1").unwrap(), Created::New);
        assert_eq!(create(&path, b"2").unwrap(), Created::Existed);
        assert_eq!(fs::read(&path).unwrap(), b"1");
        write(&path, b"3").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"3");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_growing_file_is_made_once_and_keeps_its_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut file = Growing::create(&path, b"1").unwrap();
        file.append(b"2").and_then(|()| file.sync()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"12");
        assert_eq!(Growing::create(&path, b"3").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"12");
    }

    #[test]
    fn sweeping_removes_only_what_a_crash_left() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("kept"), b"").unwrap();
        write_temporary(&folder.path().join("lost"), b"", Readers::Everyone).unwrap();
        sweep(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn folders_are_made_with_their_parents() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b/c");
        create_folder(&deep).unwrap();
        create_folder(&deep).unwrap();
        assert!(deep.is_dir());
        remove(&deep.join("missing")).unwrap();
    }
}
