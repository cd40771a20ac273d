//! The port to the disk: every step that changes something, so that tests can let any of them be
//! the last one before a crash.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use stdx::durable;

/// From where to where.
#[derive(Clone, Copy, Debug)]
pub struct Move<'a> {
    /// What is moved.
    pub from: &'a Path,
    /// Its new place, which must be free.
    pub to: &'a Path,
}

/// Changes to files. Each call is done and durable when it returns `Ok`; after `Err`, or a crash
/// within it, it has happened wholly or not at all, save for [`Disk::remove_tree`], which may stop
/// half way.
pub trait Disk {
    /// Creates a folder with its parents.
    ///
    /// # Errors
    /// I/O errors.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;

    /// Writes or replaces a file.
    ///
    /// # Errors
    /// I/O errors.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// The same, for the owner's eyes only.
    ///
    /// # Errors
    /// I/O errors.
    fn write_private(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.write(path, bytes)
    }

    /// Removes what writes that a crash cut short left in a folder.
    ///
    /// # Errors
    /// I/O errors.
    fn sweep(&self, folder: &Path) -> io::Result<()>;

    /// Appends to a file. A crash may leave a part of `bytes`.
    ///
    /// # Errors
    /// I/O errors.
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Creates an empty file to be filled by the caller and then sealed. Not durable before that.
    ///
    /// # Errors
    /// I/O errors.
    fn start(&self, path: &Path) -> io::Result<File>;

    /// Makes a started file durable, with this Unix mode.
    ///
    /// # Errors
    /// I/O errors.
    fn seal(&self, file: &File, mode: u32) -> io::Result<()>;

    /// Moves a folder.
    ///
    /// # Errors
    /// I/O errors.
    fn rename(&self, names: Move<'_>) -> io::Result<()>;

    /// Makes `link` a symbolic link to `target`, in place of any other.
    ///
    /// # Errors
    /// I/O errors.
    fn link(&self, link: &Path, target: &str) -> io::Result<()>;

    /// Removes a file or link; a missing one is no error.
    ///
    /// # Errors
    /// I/O errors.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes a folder with all in it; a missing one is no error.
    ///
    /// # Errors
    /// I/O errors.
    fn remove_tree(&self, folder: &Path) -> io::Result<()>;
}

/// The machine's disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        durable::create_folder(folder)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        durable::write(path, bytes)
    }

    fn write_private(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        durable::write_private(path, bytes)
    }

    fn sweep(&self, folder: &Path) -> io::Result<()> {
        durable::sweep(folder)
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn start(&self, path: &Path) -> io::Result<File> {
        File::create_new(path)
    }

    fn seal(&self, file: &File, mode: u32) -> io::Result<()> {
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()
    }

    fn rename(&self, names: Move<'_>) -> io::Result<()> {
        // The files in it are sealed; their names must be, too.
        sync_folders(names.from)?;
        durable::rename(names.from, names.to)
    }

    fn link(&self, link: &Path, target: &str) -> io::Result<()> {
        let new = link.with_extension("new");
        durable::remove(&new)?;
        symlink(target, &new)?;
        durable::rename(&new, link)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        durable::remove(path)
    }

    fn remove_tree(&self, folder: &Path) -> io::Result<()> {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn sync_folders(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    File::open(folder)?.sync_all()
}
