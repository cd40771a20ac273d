//! Objects by content: every file of an organisation is found by its SHA-256 and by nothing else.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use stdx::{Digest, Hasher, durable};

/// One object: what it is called and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
}

/// A content store failed, or holds other bytes than it should.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The folder is not a store.
    #[error("{0} is not a content store; create it first")]
    Missing(PathBuf),
    /// The object is not here.
    #[error("object {0} is not in the store")]
    Absent(Digest),
    /// The bytes on disk do not have the digest they are filed under.
    #[error("object {expected} holds bytes with digest {got}: the store is damaged")]
    Damaged {
        /// What the object is filed under.
        expected: Digest,
        /// What its bytes hash to.
        got: Digest,
    },
    /// What was to be stored is not what was announced.
    #[error("{what}: expected SHA-256 {expected}, got {got}")]
    Other {
        /// What was to be stored.
        what: String,
        /// The announced digest.
        expected: Digest,
        /// The digest of what came.
        got: Digest,
    },
    /// More bytes than allowed.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What was read.
        what: String,
        /// The most that is accepted.
        limit: u64,
    },
    /// A file operation failed.
    #[error("cannot use {path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> ContentError + '_ {
    move |source| ContentError::Io { path: path.to_owned(), source }
}

/// A folder of immutable objects, `xx/REST` by the hexadecimal digest.
///
/// Each object is complete and on disk when a `put` returns. Reading hashes again, so that a
/// damaged disk or a hand in the folder is seen.
#[derive(Clone, Debug)]
pub struct ContentStore {
    folder: PathBuf,
}

impl ContentStore {
    /// Creates the store, or opens it where it already is.
    ///
    /// # Errors
    /// [`ContentError::Io`].
    pub fn create(folder: &Path) -> Result<Self, ContentError> {
        durable::create_folder(&folder.join("incoming")).map_err(io_at(folder))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Removes what crashed writers left on its way into the store. Nobody may be writing.
    ///
    /// # Errors
    /// [`ContentError::Io`].
    pub(crate) fn sweep(&self) -> Result<(), ContentError> {
        let folder = self.folder.join("incoming");
        for entry in fs::read_dir(&folder).map_err(io_at(&folder))? {
            let path = entry.map_err(io_at(&folder))?.path();
            fs::remove_file(&path).map_err(io_at(&path))?;
        }
        Ok(())
    }

    /// Opens an existing store.
    ///
    /// # Errors
    /// [`ContentError::Missing`].
    pub fn open(folder: &Path) -> Result<Self, ContentError> {
        if folder.join("incoming").is_dir() {
            Ok(Self { folder: folder.to_owned() })
        } else {
            Err(ContentError::Missing(folder.to_owned()))
        }
    }

    /// Stores `bytes`.
    ///
    /// # Errors
    /// [`ContentError::Io`].
    pub fn put(&self, bytes: &[u8]) -> Result<Object, ContentError> {
        // On its way, every object lies in `incoming`: a crash leaves nothing among the objects.
        self.put_reader("bytes in memory", bytes, bytes.len() as u64)
    }

    /// Stores what `reader` gives, up to `limit` bytes.
    ///
    /// # Errors
    /// [`ContentError::TooLarge`], [`ContentError::Io`].
    pub fn put_reader(&self, what: &str, reader: impl Read, limit: u64) -> Result<Object, ContentError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let temporary = self.folder.join("incoming").join(format!("{}-{number}", std::process::id()));
        let object = write_hashed(&temporary, what, reader, limit).inspect_err(|_| {
            // The first error is the one to report.
            let _ = fs::remove_file(&temporary);
        })?;
        let path = self.place(&object.digest)?;
        durable::rename(&temporary, &path).map_err(io_at(&path)).inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        })?;
        Ok(object)
    }

    /// Stores the file at `path` if it has the digest `expected`.
    ///
    /// # Errors
    /// [`ContentError::Other`] and then nothing is stored; [`ContentError::TooLarge`]; [`ContentError::Io`].
    pub fn put_expected(&self, path: &Path, expected: Object) -> Result<(), ContentError> {
        let what = path.display().to_string();
        let file = File::open(path).map_err(io_at(path))?;
        let (got, _) = Digest::of_reader(file.take(expected.size.saturating_add(1))).map_err(io_at(path))?;
        if got != expected.digest {
            return Err(ContentError::Other { what, expected: expected.digest, got });
        }
        let file = File::open(path).map_err(io_at(path))?;
        let stored = self.put_reader(&what, file, expected.size)?;
        if stored.digest == expected.digest {
            Ok(())
        } else {
            Err(ContentError::Other { what, expected: expected.digest, got: stored.digest })
        }
    }

    /// Whether the object is here (its bytes are checked when they are read).
    #[must_use]
    pub fn contains(&self, digest: &Digest) -> bool {
        self.path(digest).is_file()
    }

    /// The object's bytes, hashed again.
    ///
    /// # Errors
    /// [`ContentError::Absent`], [`ContentError::Damaged`], [`ContentError::TooLarge`], [`ContentError::Io`].
    pub fn get(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, ContentError> {
        let path = self.path(digest);
        let file = self.file(digest)?;
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(io_at(&path))?;
        if bytes.len() as u64 > limit {
            return Err(ContentError::TooLarge { what: format!("object {digest}"), limit });
        }
        let got = Digest::of(&bytes);
        if got == *digest { Ok(bytes) } else { Err(ContentError::Damaged { expected: *digest, got }) }
    }

    /// The object as an open file whose bytes were hashed just now.
    ///
    /// # Errors
    /// [`ContentError::Absent`], [`ContentError::Damaged`], [`ContentError::Io`].
    pub fn open_object(&self, digest: &Digest) -> Result<File, ContentError> {
        let path = self.path(digest);
        let (got, _) = Digest::of_reader(self.file(digest)?).map_err(io_at(&path))?;
        if got != *digest {
            return Err(ContentError::Damaged { expected: *digest, got });
        }
        self.file(digest)
    }

    fn file(&self, digest: &Digest) -> Result<File, ContentError> {
        let path = self.path(digest);
        match File::open(&path) {
            Ok(file) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ContentError::Absent(*digest)),
            Err(source) => Err(ContentError::Io { path, source }),
        }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let text = digest.to_string();
        let (first, rest) = text.split_at(2);
        self.folder.join(first).join(rest)
    }

    fn place(&self, digest: &Digest) -> Result<PathBuf, ContentError> {
        let path = self.path(digest);
        if let Some(folder) = path.parent() {
            durable::create_folder(folder).map_err(io_at(folder))?;
        }
        Ok(path)
    }
}

fn write_hashed(path: &Path, what: &str, reader: impl Read, limit: u64) -> Result<Object, ContentError> {
    let mut file = File::create(path).map_err(io_at(path))?;
    let mut reader = reader.take(limit.saturating_add(1));
    let mut hasher = Hasher::default();
    let mut size = 0_u64;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = reader.read(&mut buffer).map_err(io_at(path))?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        hasher.update(bytes);
        size = size.saturating_add(count as u64);
        file.write_all(bytes).map_err(io_at(path))?;
    }
    if size > limit {
        return Err(ContentError::TooLarge { what: what.to_owned(), limit });
    }
    file.sync_all().map_err(io_at(path))?;
    Ok(Object { digest: hasher.finish(), size })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn objects_come_back_or_the_damage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(ContentStore::open(&folder.path().join("x")), Err(ContentError::Missing(_))));
        let store = ContentStore::create(folder.path()).unwrap();
        let object = store.put(b"abc").unwrap();
        assert_eq!(store.put_reader("abc", &b"abc"[..], 3).unwrap(), object);
        assert_eq!(store.get(&object.digest, 3).unwrap(), b"abc");
        assert!(matches!(store.get(&object.digest, 2), Err(ContentError::TooLarge { .. })));
        assert!(matches!(store.put_reader("abc", &b"abc"[..], 2), Err(ContentError::TooLarge { .. })));

        let path = store.path(&object.digest);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        durable::write(&path, b"abd").unwrap();
        assert!(matches!(store.get(&object.digest, 3), Err(ContentError::Damaged { .. })));
        assert!(matches!(store.open_object(&object.digest), Err(ContentError::Damaged { .. })));
        assert!(matches!(store.get(&Digest::of(b"x"), 3), Err(ContentError::Absent(_))));
    }

    #[test]
    fn a_file_with_other_bytes_is_not_stored() {
        let folder = tempfile::tempdir().unwrap();
        let store = ContentStore::create(&folder.path().join("store")).unwrap();
        let file = folder.path().join("file");
        durable::write(&file, b"poison").unwrap();
        let expected = Object { digest: Digest::of(b"honest"), size: 6 };
        assert!(matches!(store.put_expected(&file, expected), Err(ContentError::Other { .. })));
        assert!(!store.contains(&expected.digest));
        assert!(!store.contains(&Digest::of(b"poison")));
    }
}
