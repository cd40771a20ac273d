//! Files, opened so that nobody can make the scanner wait or look elsewhere.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use detection::Item;
use rustix::fs::OFlags;

/// What is still to be looked at, next last. Links are not followed: what they lead to is scanned
/// where it lies, if it lies in a watched folder. Other file systems are not entered.
#[derive(Default)]
pub(super) struct Walk {
    left: Vec<(PathBuf, Option<u64>)>,
}

/// What a walk comes across.
pub(super) enum Met {
    /// A file.
    File(Item),
    /// Something that can't be looked at.
    Unreadable(PathBuf, io::Error),
}

impl Walk {
    /// Looks at these next.
    pub(super) fn first(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        self.left.extend(paths.into_iter().map(|path| (path, None)));
    }

    pub(super) fn is_done(&self) -> bool {
        self.left.is_empty()
    }

    fn look(&mut self, path: &Path, device: Option<u64>) -> io::Result<Option<Item>> {
        let found = std::fs::symlink_metadata(path)?;
        if found.is_dir() {
            return self.enter(path, device, &found).map(|()| None);
        }
        if !found.is_file() {
            return Ok(None);
        }
        // Should a pipe or a link have taken the file's place by now, opening it neither waits nor follows.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits();
        let file = File::options().read(true).custom_flags(flags.cast_signed()).open(path)?;
        Ok(file.metadata()?.is_file().then(|| Item { path: path.to_owned(), file }))
    }

    fn enter(&mut self, path: &Path, device: Option<u64>, found: &Metadata) -> io::Result<()> {
        if device.is_some_and(|device| device != found.dev()) {
            return Ok(());
        }
        for entry in std::fs::read_dir(path)? {
            self.left.push((entry?.path(), Some(found.dev())));
        }
        Ok(())
    }
}

impl Iterator for Walk {
    type Item = Met;

    fn next(&mut self) -> Option<Met> {
        loop {
            let (path, device) = self.left.pop()?;
            match self.look(&path, device) {
                Ok(Some(item)) => return Some(Met::File(item)),
                // Gone again, like most temporary files.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Ok(None) => {}
                Err(error) => return Some(Met::Unreadable(path, error)),
            }
        }
    }
}
