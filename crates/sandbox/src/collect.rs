//! Copies the output to the host, after everything inside has ended.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::SandboxError;
use crate::job::{Limits, Output};
use crate::outcome::{Copied, Status};

/// Deeper than any product's tree; our own recursion takes one frame and one descriptor each.
const DEPTH_MAX: usize = 64;

enum Refused {
    /// The command's fault.
    Bad {
        path: PathBuf,
        problem: String,
    },
    /// The host's.
    Host {
        path: PathBuf,
        error: io::Error,
    },
    Limit,
}

/// Copies the output folder of `scratch`; the inner error is the command's fault.
pub(crate) fn copy(
    scratch: BorrowedFd<'_>,
    output: &Output,
    limits: &Limits,
) -> Result<Result<Copied, Status>, SandboxError> {
    let failed =
        |path: &Path, error: io::Error| SandboxError::Output { path: path.to_owned(), problem: error.to_string() };
    make_folder(&output.to).map_err(|error| failed(&output.to, error))?;
    let mut copying = Copying { limits, copied: Copied::default() };
    let folder = open_folder(scratch, c"output").map_err(|error| failed(&output.to, error.into()));
    let done = folder.map(|folder| copying.folder(&folder, Path::new(""), &output.to, 0));
    let problem = match done {
        Ok(Ok(())) => return Ok(Ok(copying.copied)),
        Ok(Err(Refused::Bad { path, problem })) => Ok(Err(Status::BadOutput { path, problem })),
        Ok(Err(Refused::Limit)) => Ok(Err(Status::DiskLimit)),
        Ok(Err(Refused::Host { path, error })) => Err(failed(&path, error)),
        Err(error) => Err(error),
    };
    // Half an output is worse than none.
    std::fs::remove_dir_all(&output.to).map_err(|error| failed(&output.to, error))?;
    problem
}

struct Copying<'a> {
    limits: &'a Limits,
    copied: Copied,
}

impl Copying<'_> {
    fn folder(&mut self, from: &OwnedFd, inside: &Path, to: &Path, depth: usize) -> Result<(), Refused> {
        let bad = |path: &Path, problem: &str| Refused::Bad { path: path.to_owned(), problem: problem.to_owned() };
        if depth > DEPTH_MAX {
            return Err(bad(inside, "lies too deep"));
        }
        let unreadable = |error: Errno| bad(inside, &format!("cannot be read: {error}"));
        for entry in Dir::read_from(from).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            self.copied.entries += 1;
            if self.copied.entries > self.limits.inodes {
                return Err(Refused::Limit);
            }
            let part = std::ffi::OsStr::from_bytes(name.to_bytes());
            let (inside, to) = (inside.join(part), to.join(part));
            let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW);
            let stat = stat.map_err(|error| bad(&inside, &error.to_string()))?;
            let host = |error| Refused::Host { path: to.clone(), error };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    let folder = open_folder(from.as_fd(), name);
                    let folder = folder.map_err(|error| bad(&inside, &error.to_string()))?;
                    make_folder(&to).map_err(host)?;
                    self.folder(&folder, &inside, &to, depth + 1)?;
                }
                FileType::RegularFile => self.file(from, name, &stat, &inside, &to)?,
                FileType::Symlink => {
                    let target = rustix::fs::readlinkat(from, name, Vec::new());
                    let target = target.map_err(|error| bad(&inside, &error.to_string()))?;
                    let target = PathBuf::from(std::ffi::OsStr::from_bytes(target.to_bytes()));
                    if !stays_inside(&inside, &target) {
                        return Err(bad(&inside, "is a link that leads out of the output"));
                    }
                    std::os::unix::fs::symlink(&target, &to).map_err(host)?;
                }
                _ => return Err(bad(&inside, "is a device, a pipe or a socket")),
            }
        }
        Ok(())
    }

    fn file(&mut self, folder: &OwnedFd, name: &CStr, stat: &Stat, inside: &Path, to: &Path) -> Result<(), Refused> {
        let unreadable =
            |error: Errno| Refused::Bad { path: inside.to_owned(), problem: format!("cannot be read: {error}") };
        let host = |error| Refused::Host { path: to.to_owned(), error };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(folder, name, flags, Mode::empty());
        let opened = open().or_else(|error| {
            if error != Errno::ACCESS {
                return Err(error);
            }
            // The owner took the right from itself; nobody is left whom that could surprise.
            rustix::fs::chmodat(folder, name, Mode::RUSR, AtFlags::empty())?;
            open()
        });
        let file = File::from(opened.map_err(unreadable)?);
        // Counted as it seems, so a sparse file cannot fill the host's disk.
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        self.copied.bytes = self.copied.bytes.saturating_add(size);
        if self.copied.bytes > self.limits.disk.0 {
            return Err(Refused::Limit);
        }
        let mode = if stat.st_mode & 0o100 == 0 { 0o644 } else { 0o755 };
        let mut options = std::fs::OpenOptions::new();
        let mut written = options.write(true).create_new(true).mode(mode).open(to).map_err(host)?;
        io::copy(&mut file.take(size), &mut written).map_err(host)?;
        // The supervisor's own mask must not decide what others see.
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        written.set_permissions(permissions).map_err(host)
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().mode(0o755).create(path)
}

fn open_folder(at: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(at, name, flags, Mode::empty());
    open().or_else(|error| {
        if error != Errno::ACCESS {
            return Err(error);
        }
        // As for files. It is a folder, or the second try fails too.
        rustix::fs::chmodat(at, name, Mode::RWXU, AtFlags::empty())?;
        open()
    })
}

/// Whether a link at `link` (relative to the output) with this target names something in it.
fn stays_inside(link: &Path, target: &Path) -> bool {
    let mut depth = link.components().count().saturating_sub(1);
    for part in target.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::stays_inside;
    use std::path::Path;

    #[test]
    fn links_may_not_lead_out() {
        let stays = |link: &str, target: &str| stays_inside(Path::new(link), Path::new(target));
        assert!(stays("a/b", "../c"));
        assert!(stays("a", "b/./c"));
        assert!(!stays("a", ".."));
        assert!(!stays("a/b", "../../c"));
        assert!(!stays("a", "/etc/passwd"));
        assert!(!stays("a/b", "c/../../.."));
    }
}
