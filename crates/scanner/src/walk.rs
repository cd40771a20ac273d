//! Which files there are: each is opened here, and nowhere else.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use detection::Item;
use rustix::fs::{MemfdFlags, OFlags, memfd_create};

use crate::cli::Arguments;

/// What the walk comes across.
pub(crate) enum Met {
    /// A file to be scanned.
    File(Item),
    /// Something that is not.
    Other(Passed),
}

/// Something that is not scanned.
pub(crate) struct Passed {
    pub(crate) path: PathBuf,
    pub(crate) why: Why,
}

/// Why something is not scanned.
pub(crate) enum Why {
    /// A link: what it leads to is scanned where it lies.
    Link,
    /// Neither file nor folder.
    Special,
    /// A folder on another file system.
    OtherFileSystem,
    /// It can't be read.
    Unreadable(io::Error),
}

/// Whether other file systems are entered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileSystems {
    One,
    All,
}

impl From<&Arguments> for FileSystems {
    fn from(arguments: &Arguments) -> Self {
        if arguments.other_file_systems { Self::All } else { Self::One }
    }
}

/// The files below some paths, folder by folder, in order of their names.
pub(crate) struct Walk {
    /// What is still to be looked at, next last; with the file system that it must be on.
    left: Vec<(PathBuf, On)>,
    file_systems: FileSystems,
    stdin_bytes_max: u64,
}

/// Where a path is from.
#[derive(Clone, Copy)]
enum On {
    /// The command line: links are followed, and any file system will do.
    Argument,
    /// A folder on this file system.
    Device(u64),
}

impl Walk {
    /// Of standard input, one byte more than `file_bytes` is kept: then it is seen to be longer.
    pub(crate) fn new(paths: &[PathBuf], file_systems: FileSystems, file_bytes: u64) -> Self {
        let left = paths.iter().rev().map(|path| (path.clone(), On::Argument)).collect();
        Self { left, file_systems, stdin_bytes_max: file_bytes + 1 }
    }

    fn look(&mut self, path: &Path, on: On) -> Result<Option<Item>, Why> {
        let found = match on {
            On::Argument => std::fs::metadata(path),
            On::Device(_) => std::fs::symlink_metadata(path),
        };
        let found = found.map_err(Why::Unreadable)?;
        if found.is_dir() {
            return self.enter(path, on, &found).map(|()| None);
        }
        if found.is_symlink() {
            return Err(Why::Link);
        }
        if !found.is_file() {
            return Err(Why::Special);
        }
        let follow = if matches!(on, On::Argument) { OFlags::empty() } else { OFlags::NOFOLLOW };
        // Should a pipe have taken the file's place by now, opening it must not wait for a writer.
        let flags = (follow | OFlags::NONBLOCK | OFlags::NOCTTY).bits();
        let opened = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path);
        let file = opened.map_err(Why::Unreadable)?;
        match file.metadata() {
            Ok(opened) if opened.is_file() => Ok(Some(Item { path: path.to_owned(), file })),
            Ok(_) => Err(Why::Special),
            Err(error) => Err(Why::Unreadable(error)),
        }
    }

    fn enter(&mut self, path: &Path, on: On, found: &Metadata) -> Result<(), Why> {
        if matches!(on, On::Device(device) if device != found.dev()) && self.file_systems == FileSystems::One {
            return Err(Why::OtherFileSystem);
        }
        let entries = std::fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let entries = entries.map_err(Why::Unreadable)?;
        let mut paths: Vec<PathBuf> = entries.iter().map(std::fs::DirEntry::path).collect();
        paths.sort_unstable_by(|a, b| b.cmp(a));
        self.left.extend(paths.into_iter().map(|path| (path, On::Device(found.dev()))));
        Ok(())
    }

    /// Standard input may be anything; the child takes files only.
    fn standard_input(&self) -> io::Result<Item> {
        let mut file = File::from(memfd_create("standard input", MemfdFlags::CLOEXEC)?);
        io::copy(&mut io::stdin().lock().take(self.stdin_bytes_max), &mut file)?;
        file.rewind()?;
        Ok(Item { path: PathBuf::from("-"), file })
    }
}

impl Iterator for Walk {
    type Item = Met;

    fn next(&mut self) -> Option<Met> {
        loop {
            let (path, on) = self.left.pop()?;
            let looked = match on {
                On::Argument if path == Path::new("-") => self.standard_input().map(Some).map_err(Why::Unreadable),
                _ => self.look(&path, on),
            };
            match looked {
                Ok(Some(item)) => return Some(Met::File(item)),
                Ok(None) => {}
                Err(why) => return Some(Met::Other(Passed { path, why })),
            }
        }
    }
}
