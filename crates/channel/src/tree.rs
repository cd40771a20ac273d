//! The folder that the tree lies in.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use stdx::{Digest, Hasher, durable};

use crate::error::Error;
use crate::layout;

/// How much of a file is in memory at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// A folder of published files.
#[derive(Clone, Debug)]
pub(crate) struct Tree(PathBuf);

/// Whether a file is never replaced, nor half-written.
fn is_kept(name: &str) -> bool {
    !name.starts_with("status/") && name != layout::TIMESTAMP && !name.starts_with('.') && !name.contains("/.")
}

/// What a file must hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

impl Tree {
    /// A new tree in `folder`, which must be missing or empty.
    pub(crate) fn create(folder: &Path) -> Result<Self, Error> {
        durable::create_folder(folder).map_err(at(folder))?;
        match std::fs::read_dir(folder).map_err(at(folder))?.next() {
            None => Ok(Self(folder.to_owned())),
            Some(_) => Err(Error::Exists(folder.to_owned())),
        }
    }

    /// The tree in `folder`.
    pub(crate) fn open(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    /// Writes or replaces a small file.
    pub(crate) fn write(&self, file: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.prepare(file)?;
        durable::write(&path, bytes).map_err(at(&path))
    }

    /// A file of at most `limit` bytes, if it is there; of a longer one just enough to be refused.
    pub(crate) fn read(&self, file: &str, limit: usize) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path(file);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|file| file.take(limit as u64 + 1).read_to_end(&mut bytes)) {
            Ok(_) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(&path)(error)),
        }
    }

    /// Whether a file is there and holds `content`.
    pub(crate) fn holds(&self, file: &str, content: Content) -> Result<bool, Error> {
        let path = self.path(file);
        match File::open(&path).and_then(Digest::of_reader) {
            Ok(found) => Ok(found == (content.digest, content.size)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(at(&path)(error)),
        }
    }

    /// The files that are never replaced: those with a version or a digest in their name.
    pub(crate) fn names(&self) -> Result<BTreeSet<String>, Error> {
        let (mut names, mut folders) = (BTreeSet::new(), vec![String::new()]);
        while let Some(folder) = folders.pop() {
            let path = self.0.join(&folder);
            for entry in std::fs::read_dir(&path).map_err(at(&path))? {
                let entry = entry.map_err(at(&path))?;
                let Ok(name) = entry.file_name().into_string() else { continue };
                let name = format!("{folder}{name}");
                // Links lead out.
                let kind = entry.file_type().map_err(at(&path))?;
                if kind.is_dir() {
                    folders.push(format!("{name}/"));
                } else if kind.is_file() && is_kept(&name) {
                    names.insert(name);
                }
            }
        }
        Ok(names)
    }

    /// Removes temporary files, here and below.
    pub(crate) fn sweep(&self) -> Result<(), Error> {
        let mut folders = vec![self.0.clone()];
        while let Some(folder) = folders.pop() {
            durable::sweep(&folder).map_err(at(&folder))?;
            for entry in std::fs::read_dir(&folder).map_err(at(&folder))? {
                let path = entry.map_err(at(&folder))?.path();
                if path.is_dir() {
                    folders.push(path);
                }
            }
        }
        Ok(())
    }

    /// Copies `from` to `file`, unless it holds something else than `content`.
    pub(crate) fn copy(&self, from: &Path, file: &str, content: Content) -> Result<(), Error> {
        let path = self.prepare(file)?;
        // No file of the tree begins with a dot, and `sweep` finds it.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let incoming = path.with_file_name(format!(".tmp-{name}"));
        let copied = copy_and_sync(from, &incoming).and_then(|(found, size)| {
            if (found, size) == (content.digest, content.size) {
                return durable::rename(&incoming, &path).map_err(at(&path));
            }
            let (expected, expected_size) = (content.digest, content.size);
            Err(Error::OtherContent { path: from.to_owned(), expected, expected_size, found, size })
        });
        copied.inspect_err(|_| {
            // A full disk must not be made fuller; the first error is the one to report.
            let _ = std::fs::remove_file(&incoming);
        })
    }

    fn prepare(&self, file: &str) -> Result<PathBuf, Error> {
        let path = self.path(file);
        if let Some(folder) = path.parent() {
            durable::create_folder(folder).map_err(at(folder))?;
        }
        Ok(path)
    }
}

fn copy_and_sync(from: &Path, to: &Path) -> Result<(Digest, u64), Error> {
    let mut source = File::open(from).map_err(at(from))?;
    let mut target = File::create(to).map_err(at(to))?;
    let (mut hasher, mut size) = (Hasher::default(), 0);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = source.read(&mut chunk).map_err(at(from))?;
        let Some(part) = chunk.get(..count).filter(|part| !part.is_empty()) else { break };
        hasher.update(part);
        size += part.len() as u64;
        target.write_all(part).map_err(at(to))?;
    }
    target.sync_all().map_err(at(to))?;
    Ok((hasher.finish(), size))
}

fn at(path: &Path) -> impl Fn(io::Error) -> Error + '_ {
    move |error| Error::File { path: path.to_owned(), error }
}
