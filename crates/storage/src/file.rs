//! Objects as files.
//!
//! ```text
//! ROOT/store        marks the folder as a store and names its version
//! ROOT/lock         locked by the one process that writes
//! ROOT/incoming/    files being written; emptied when the store is opened
//! ROOT/objects/KEY  the objects
//! ```

mod list;
mod write;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use stdx::{FileLock, durable};

use crate::{Error, Key, Listing, MAX_OBJECT_BYTES, Move, ObjectStore, Piece, Put};

const MARKER: &str = "store";
const MARKER_TEXT: &[u8] = b"clerestory objects 1\n";
/// The number in it.
const FORMAT: u32 = 1;
const LOCK: &str = "lock";
const INCOMING: &str = "incoming";
const OBJECTS: &str = "objects";

/// How many blocking tasks share a batch: syncs of several files at once end in one commit of
/// the file system's journal. A batch of a log has up to 130 objects, so nine rounds of syncs.
const BATCH_TASKS: usize = 16;

/// Objects as files in a folder of this machine, each synced before it gets its name.
#[derive(Debug)]
pub struct FileObjects {
    folders: Arc<Folders>,
    access: Access,
}

#[derive(Debug)]
struct Folders {
    incoming: PathBuf,
    objects: PathBuf,
}

#[derive(Debug)]
enum Access {
    /// Alone, for as long as the store lives.
    Write {
        _lock: FileLock,
    },
    Read,
}

impl FileObjects {
    /// Makes an empty store in the folder `path`, which must be missing or empty, and opens it.
    ///
    /// # Errors
    /// [`Error::Exists`] when something is there; file-system errors.
    pub async fn create(path: &Path) -> Result<Self, Error> {
        let path = path.to_owned();
        blocking(move || {
            let mut found = match std::fs::read_dir(&path) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    durable::create_folder(&path).map_err(failed("create", &path))?;
                    std::fs::read_dir(&path).map_err(failed("read", &path))?
                }
                Err(error) => return Err(failed("read", &path)(error)),
            };
            if found.next().is_some() {
                return Err(Error::Exists { path });
            }
            for folder in [INCOMING, OBJECTS] {
                let folder = path.join(folder);
                durable::create_folder(&folder).map_err(failed("create", &folder))?;
            }
            // The marker comes last: without it there is no store, and `create` didn't happen.
            let marker = path.join(MARKER);
            durable::create(&marker, MARKER_TEXT).map_err(failed("create", &marker))?;
            open(&path)
        })
        .await
    }

    /// Opens a store for writing; no other process can meanwhile.
    ///
    /// # Errors
    /// [`Error::NotAStore`], [`Error::Busy`], file-system errors.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let path = path.to_owned();
        blocking(move || open(&path)).await
    }

    /// Opens a store for reading, also while another process writes.
    ///
    /// # Errors
    /// [`Error::NotAStore`], file-system errors.
    pub async fn open_read_only(path: &Path) -> Result<Self, Error> {
        let path = path.to_owned();
        blocking(move || Ok(Self { folders: Arc::new(recognise(&path)?), access: Access::Read })).await
    }

    fn writable(&self) -> Result<Arc<Folders>, Error> {
        match self.access {
            Access::Write { .. } => Ok(Arc::clone(&self.folders)),
            Access::Read => Err(Error::ReadOnly),
        }
    }
}

fn recognise(path: &Path) -> Result<Folders, Error> {
    let marker = path.join(MARKER);
    match std::fs::read(&marker) {
        Ok(text) if text == MARKER_TEXT => Ok(Folders { incoming: path.join(INCOMING), objects: path.join(OBJECTS) }),
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(failed("read", &marker)(error))
        }
        Ok(text) if newer(&text).is_some() => {
            Err(Error::Newer { path: path.to_owned(), found: newer(&text).unwrap_or_default(), known: FORMAT })
        }
        _ => Err(Error::NotAStore { path: path.to_owned(), kind: "store of objects" }),
    }
}

/// The format of a store that is ours, but later than this version.
fn newer(marker: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(marker).ok()?;
    let format = text.strip_prefix("clerestory objects ")?.strip_suffix('\n')?.parse().ok()?;
    (format > FORMAT).then_some(format)
}

fn open(path: &Path) -> Result<FileObjects, Error> {
    let folders = recognise(path)?;
    let lock_path = path.join(LOCK);
    let lock = FileLock::try_new(&lock_path).map_err(failed("lock", &lock_path))?;
    let lock = lock.ok_or_else(|| Error::Busy { path: path.to_owned() })?;
    durable::sweep(&folders.incoming).map_err(failed("sweep", &folders.incoming))?;
    Ok(FileObjects { folders: Arc::new(folders), access: Access::Write { _lock: lock } })
}

#[async_trait]
impl ObjectStore for FileObjects {
    async fn put(&self, key: &Key, bytes: Bytes) -> Result<Put, Error> {
        within_limit(key, bytes.len() as u64)?;
        let (folders, key) = (self.writable()?, key.clone());
        blocking(move || write::put(&folders, &key, &bytes)).await
    }

    async fn put_all(&self, objects: Vec<(Key, Bytes)>) -> Result<(), Error> {
        for (key, bytes) in &objects {
            within_limit(key, bytes.len() as u64)?;
        }
        let folders = self.writable()?;
        let synced = write::folders_of(objects.iter().map(|(key, _)| folders.path(key)));
        let share = objects.len().div_ceil(BATCH_TASKS).max(1);
        let mut tasks = Vec::new();
        let mut rest = objects;
        while !rest.is_empty() {
            let later = rest.split_off(share.min(rest.len()));
            let (folders, objects) = (Arc::clone(&folders), std::mem::replace(&mut rest, later));
            tasks.push(tokio::task::spawn_blocking(move || write::place(&folders, &objects)));
        }
        for task in tasks {
            joined(task.await)?;
        }
        sync_all(synced).await
    }

    /// By renaming: what an object holds was synced when it was put.
    async fn move_all(&self, moves: Vec<Move>) -> Result<(), Error> {
        let folders = self.writable()?;
        let synced = write::folders_of(moves.iter().map(|it| folders.path(&it.to)));
        blocking(move || moves.iter().try_for_each(|it| write::move_one(&folders, it))).await?;
        sync_all(synced).await
    }

    async fn replace(&self, key: &Key, bytes: Bytes) -> Result<(), Error> {
        within_limit(key, bytes.len() as u64)?;
        let (folders, key) = (self.writable()?, key.clone());
        blocking(move || write::replace(&folders, &key, &bytes)).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        let (path, key) = (self.folders.path(key), key.clone());
        blocking(move || read(&path, &key)).await
    }

    async fn get_piece(&self, key: &Key, range: Range<u64>) -> Result<Option<Piece>, Error> {
        let (path, key) = (self.folders.path(key), key.clone());
        blocking(move || read_piece(&path, &key, range)).await
    }

    async fn list(&self, listing: &Listing) -> Result<Vec<Key>, Error> {
        let (folders, listing) = (Arc::clone(&self.folders), listing.clone());
        blocking(move || list::list(&folders.objects, &listing)).await
    }

    async fn bytes(&self) -> Result<u64, Error> {
        let folders = Arc::clone(&self.folders);
        blocking(move || list::bytes(&folders.objects)).await
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        let (folders, key) = (self.writable()?, key.clone());
        blocking(move || write::delete(&folders, &key)).await
    }
}

impl Folders {
    fn path(&self, key: &Key) -> PathBuf {
        self.objects.join(key.as_str())
    }
}

fn read(path: &Path, key: &Key) -> Result<Option<Bytes>, Error> {
    let Some((mut file, size)) = open_object(path)? else { return Ok(None) };
    within_limit(key, size)?;
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    file.read_to_end(&mut bytes).map_err(failed("read", path))?;
    Ok(Some(bytes.into()))
}

fn read_piece(path: &Path, key: &Key, range: Range<u64>) -> Result<Option<Piece>, Error> {
    let Some((mut file, size)) = open_object(path)? else { return Ok(None) };
    let wanted = range.end.min(size).saturating_sub(range.start);
    within_limit(key, wanted)?;
    let mut bytes = Vec::with_capacity(usize::try_from(wanted).unwrap_or(0));
    if wanted > 0 {
        file.seek(SeekFrom::Start(range.start)).map_err(failed("read", path))?;
        file.take(wanted).read_to_end(&mut bytes).map_err(failed("read", path))?;
    }
    Ok(Some(Piece { bytes: bytes.into(), size }))
}

/// The file of an object, and its bytes, if there is one.
fn open_object(path: &Path) -> Result<Option<(File, u64)>, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let metadata = file.metadata().map_err(failed("read", path))?;
    Ok((!metadata.is_dir()).then_some((file, metadata.len())))
}

fn within_limit(key: &Key, size: u64) -> Result<(), Error> {
    if size > MAX_OBJECT_BYTES { Err(Error::TooLarge { key: key.clone(), size }) } else { Ok(()) }
}

/// A key below an object finds a file where a folder would be: nothing is there.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::File { action, path, source }
}

/// Folders at once: in turn each would wait for the disk to empty its cache.
async fn sync_all(folders: BTreeSet<PathBuf>) -> Result<(), Error> {
    let folders: Vec<PathBuf> = folders.into_iter().collect();
    let share = folders.len().div_ceil(BATCH_TASKS).max(1);
    let tasks: Vec<_> = folders
        .chunks(share)
        .map(<[PathBuf]>::to_vec)
        .map(|share| tokio::task::spawn_blocking(move || share.iter().try_for_each(|folder| write::sync(folder))))
        .collect();
    for task in tasks {
        joined(task.await)?;
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    joined(tokio::task::spawn_blocking(work).await)
}

/// The task's own outcome. A blocking task isn't cancelled, so it was lost with the runtime.
fn joined<T>(outcome: Result<Result<T, Error>, tokio::task::JoinError>) -> Result<T, Error> {
    outcome.unwrap_or_else(|error| {
        Err(Error::File { action: "finish work on", path: PathBuf::new(), source: io::Error::other(error) })
    })
}
