//! The write-ahead log: what was taken and lies in no segment yet, on this machine's disk.
//!
//! A file is a mark and groups. A group is what was written and synced at once: a head (length, SHA-256, and a
//! check of both), and the objects, each with its length. A group at the end that is not whole was acknowledged
//! to nobody. The head has a check of its own because a length that is wrong hides everything behind it.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use stdx::{Digest, FileLock, durable};

use crate::segment::{length, records};

const MARK: &[u8] = b"clerestory-wal 1\n";
/// Length, SHA-256 of the objects, and the beginning of the SHA-256 of both.
const GROUP_HEAD: usize = 4 + 32 + CHECK;
const CHECK: usize = 8;
/// What a disk writes wholly or not at all.
const SECTOR: usize = 512;

/// Why the write-ahead log can't go on.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
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
    /// Another process has it open.
    #[error("another process has `{0}` open")]
    Busy(PathBuf),
    /// Something that was acknowledged is not as it was written.
    #[error("`{path}` is damaged at byte {at}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        at: u64,
    },
    /// A write or sync failed before: what the disk has of it nobody knows.
    #[error("`{0}` could not be written before; the process must begin anew")]
    Broken(PathBuf),
}

/// The write-ahead log, open for writing by this process alone.
#[derive(Debug)]
pub struct Wal {
    folder: PathBuf,
    file: durable::Growing,
    number: u64,
    bytes: u64,
    broken: bool,
    _lock: FileLock,
}

/// A file to which nothing is added any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    path: PathBuf,
    number: u64,
    bytes: u64,
}

impl Wal {
    /// Opens `folder`, which is there, and gives what earlier processes left in it, oldest first.
    ///
    /// # Errors
    /// [`WalError::Busy`], [`WalError::File`].
    pub fn open(folder: &Path) -> Result<(Self, Vec<Closed>), WalError> {
        let lock_path = folder.join("lock");
        let lock = FileLock::try_new(&lock_path).map_err(failed("lock", &lock_path))?;
        let lock = lock.ok_or_else(|| WalError::Busy(folder.to_owned()))?;
        let left = files(folder)?;
        let number = left.last().map_or(0, |last| last.number + 1);
        let file = start(folder, number)?;
        Ok((Self { folder: folder.to_owned(), file, number, bytes: 0, broken: false, _lock: lock }, left))
    }

    /// Adds `objects` at the end; they are on disk when this returns.
    ///
    /// # Errors
    /// [`WalError::File`], and [`WalError::Broken`] ever after: a sync that failed once may succeed the next
    /// time without having written what failed.
    pub fn append(&mut self, objects: &[Bytes]) -> Result<(), WalError> {
        let path = path_of(&self.folder, self.number);
        if self.broken {
            return Err(WalError::Broken(path));
        }
        let mut payload = Vec::new();
        for object in objects {
            payload.extend_from_slice(&length(object));
            payload.extend_from_slice(object);
        }
        let mut group = Vec::with_capacity(GROUP_HEAD + payload.len());
        group.extend_from_slice(&head(&payload));
        group.append(&mut payload);
        self.broken = true;
        self.file.append(&group).and_then(|()| self.file.sync()).map_err(failed("write", &path))?;
        self.broken = false;
        self.bytes += group.len() as u64;
        Ok(())
    }

    /// Bytes in the present file.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Closes the present file and begins another.
    ///
    /// # Errors
    /// [`WalError::File`], [`WalError::Broken`].
    pub fn turn(&mut self) -> Result<Closed, WalError> {
        let path = path_of(&self.folder, self.number);
        if self.broken {
            return Err(WalError::Broken(path));
        }
        self.file = start(&self.folder, self.number + 1)?;
        self.number += 1;
        Ok(Closed { path, number: self.number - 1, bytes: std::mem::take(&mut self.bytes) })
    }
}

impl Closed {
    /// Bytes that this process has written into it.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Everything that was acknowledged, and perhaps more that was written with the last group.
    ///
    /// # Errors
    /// [`WalError::Damaged`], [`WalError::File`].
    pub fn objects(&self) -> Result<Vec<Bytes>, WalError> {
        let bytes = Bytes::from(std::fs::read(&self.path).map_err(failed("read", &self.path))?);
        let damaged = |at: usize| WalError::Damaged { path: self.path.clone(), at: at as u64 };
        if !bytes.starts_with(MARK) {
            // A crash before the first sync leaves less than a mark.
            return if MARK.starts_with(&bytes) { Ok(Vec::new()) } else { Err(damaged(0)) };
        }
        let (mut objects, mut at) = (Vec::new(), MARK.len());
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let Some((length, payload)) = group(rest) else {
                // Of the last group a power cut leaves a beginning, or zeros where its bytes should be.
                let torn = rest.len() < GROUP_HEAD || rest.iter().all(|byte| *byte == 0);
                return if torn { Ok(objects) } else { Err(damaged(at)) };
            };
            let start = at + GROUP_HEAD;
            if payload.len() < length || head(payload) != rest.get(..GROUP_HEAD).unwrap_or_default() {
                let torn = start + payload.len() == bytes.len() && (payload.len() < length || lacks_sector(&bytes, at));
                return if torn { Ok(objects) } else { Err(damaged(at)) };
            }
            objects.extend(records(&bytes.slice(start..start + length), 0).map_err(|_| damaged(at))?);
            at = start + length;
        }
        Ok(objects)
    }

    /// Removes the file: all of it lies in segments that manifests name.
    ///
    /// # Errors
    /// [`WalError::File`].
    pub fn remove(self) -> Result<(), WalError> {
        durable::remove(&self.path).map_err(failed("remove", &self.path))
    }
}

fn head(payload: &[u8]) -> [u8; GROUP_HEAD] {
    let mut head = [0; GROUP_HEAD];
    let (checked, check) = head.split_at_mut(GROUP_HEAD - CHECK);
    let (bytes, digest) = checked.split_at_mut(4);
    bytes.copy_from_slice(&length(payload));
    digest.copy_from_slice(Digest::of(payload).as_bytes());
    check.copy_from_slice(&check_of(checked));
    head
}

fn check_of(checked: &[u8]) -> [u8; CHECK] {
    let mut check = [0; CHECK];
    check.copy_from_slice(Digest::of(checked).as_bytes().split_at(CHECK).0);
    check
}

/// How long the group at the beginning of `rest` is, and what there is of it; nothing without a valid head.
fn group(rest: &[u8]) -> Option<(usize, &[u8])> {
    let (head, behind) = rest.split_first_chunk::<GROUP_HEAD>()?;
    let (checked, check) = head.split_at(GROUP_HEAD - CHECK);
    let length = checked.first_chunk::<4>().map(|length| u32::from_be_bytes(*length))?;
    let length = usize::try_from(length).ok().filter(|_| check_of(checked) == *check)?;
    Some((length, behind.get(..length).unwrap_or(behind)))
}

/// Whether a sector from `at` on is nothing but zeros: it was given room, and never written.
fn lacks_sector(bytes: &[u8], at: usize) -> bool {
    let first = at - at % SECTOR;
    let mut sectors = bytes.get(first..).unwrap_or_default().chunks(SECTOR);
    let lacks = |sector: &[u8]| sector.iter().all(|byte| *byte == 0);
    // The first is shared with what stands before the group.
    let own = sectors.next().and_then(|sector| sector.get(at - first..));
    own.is_some_and(lacks) || sectors.any(lacks)
}

/// The files in `folder`, oldest first.
pub(crate) fn files(folder: &Path) -> Result<Vec<Closed>, WalError> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed("read", folder))? {
        let name = entry.map_err(failed("read", folder))?.file_name().to_string_lossy().into_owned();
        numbers.extend(name.strip_suffix(".wal").and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers.into_iter().map(|number| Closed { path: path_of(folder, number), number, bytes: 0 }).collect())
}

fn start(folder: &Path, number: u64) -> Result<durable::Growing, WalError> {
    let path = path_of(folder, number);
    durable::Growing::create(&path, MARK).map_err(failed("create", &path))
}

fn path_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:016}.wal"))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> WalError + use<> {
    let path = path.to_owned();
    move |source| WalError::File { action, path, source }
}
