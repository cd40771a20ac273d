//! The custodian's own table of shares: what it keeps when a region's key is destroyed.
//!
//! A table is written once, as a whole, under a key of its own; a change is another table, and the one before is
//! destroyed with its key. So what was left out of a change can't be opened any more, by the custodian either. It
//! also has the names of what was erased: these are refused wherever their share still is, and never moved here.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use seal::{BatchId, Share, TABLE_ROW_BYTES, TableKey};
use stdx::{Digest, Entropy, EntropyError, FileLock, durable};

use crate::grant::ClosedShare;

/// How many names of erased objects follow (8 bytes, big-endian), these, and the records.
const HEAD: &[u8] = b"clerestory-table 1\n";
/// An object's name: hexadecimal digits.
const NAME_BYTES: usize = 32;
/// The object's name (32 hexadecimal digits), the share's name, the share.
const RECORD_BYTES: usize = NAME_BYTES + 32 + TABLE_ROW_BYTES;
/// 1.2 GB.
const ROWS_MAX: u64 = 10_000_000;

/// Why a table can't be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// A file can't be read or written.
    #[error("the custodian's table `{path}`")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what was written.
    #[error("the custodian's table is damaged: `{0}`")]
    Damaged(PathBuf),
    /// An object that is not to be opened any more.
    #[error("object {0} was erased")]
    Erased(BatchId),
    /// Another process changes it.
    #[error("another process changes the custodian's table")]
    Busy,
    /// More than a table has.
    #[error("a table has at most {ROWS_MAX} rows")]
    Full,
    /// No randomness.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// Where a table lies: the keys apart from the rows, so that a copy of the rows is of no use.
#[derive(Clone, Debug)]
pub struct TableFolders {
    /// `N.key`, of which there is one.
    pub keys: PathBuf,
    /// `N.rows`, and the file by which processes exclude each other.
    pub rows: PathBuf,
}

/// The table, as it is now.
pub struct Table {
    folders: TableFolders,
    now: RwLock<Generation>,
}

#[derive(Default)]
struct Generation {
    number: u64,
    key: Option<TableKey>,
    erased: HashSet<BatchId>,
    rows: HashMap<Digest, Row>,
}

/// What a new table has that the one before has not, and what not.
#[derive(Clone, Copy, Default)]
pub struct Change<'a> {
    /// Shares that come in.
    pub add: &'a [(ClosedShare, Share)],
    /// Objects that go, for good.
    pub erase: &'a [BatchId],
}

struct Row {
    object: BatchId,
    number: u64,
    closed: [u8; TABLE_ROW_BYTES],
}

impl Table {
    /// Reads it; there may be none yet.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn open(folders: TableFolders) -> Result<Self, TableError> {
        let now = RwLock::new(Generation::read(&folders)?);
        Ok(Self { folders, now })
    }

    /// The share, if it is here.
    ///
    /// # Errors
    /// [`TableError`]; [`TableError::Erased`] also if it never was.
    pub fn find(&self, closed: &ClosedShare) -> Result<Option<Share>, TableError> {
        self.refresh()?;
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        let name = closed.name();
        if now.erased.contains(&closed.object) {
            return Err(TableError::Erased(closed.object));
        }
        let (Some(key), Some(row)) = (&now.key, now.rows.get(&name)) else { return Ok(None) };
        let damaged = || TableError::Damaged(rows_of(&self.folders, now.number));
        key.open(&row.closed, row.number, &name).ok_or_else(damaged).map(Some)
    }

    /// How many rows it has of each of these objects, in their order.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn rows_of(&self, objects: &[BatchId]) -> Result<Vec<u64>, TableError> {
        self.refresh()?;
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        let mut counts: HashMap<BatchId, u64> = HashMap::new();
        now.rows.values().for_each(|row| *counts.entry(row.object).or_default() += 1);
        Ok(objects.iter().map(|object| counts.get(object).copied().unwrap_or_default()).collect())
    }

    /// Whether all of these were erased.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn has_erased(&self, objects: &[BatchId]) -> Result<bool, TableError> {
        self.refresh()?;
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        Ok(objects.iter().all(|object| now.erased.contains(object)))
    }

    /// How many shares it has.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.now.read().unwrap_or_else(PoisonError::into_inner).rows.len()
    }

    /// Writes a new table under a new key. Then the old one and its key are gone. Gives how many rows it lacks.
    ///
    /// # Errors
    /// [`TableError`]; there is one table then, the old or the new.
    pub fn change(&self, change: Change<'_>, entropy: &dyn Entropy) -> Result<usize, TableError> {
        let _alone = alone(&self.folders)?;
        let old = Generation::read(&self.folders)?;
        let number = old.number + 1;
        let erased: BTreeSet<BatchId> = old.erased.iter().chain(change.erase).copied().collect();
        let key = TableKey::generate(entropy)?;
        let mut bytes = HEAD.to_vec();
        bytes.extend_from_slice(&(erased.len() as u64).to_be_bytes());
        erased.iter().for_each(|it| bytes.extend_from_slice(it.to_string().as_bytes()));
        let mut count = 0;
        let mut write = |object: &BatchId, name: &Digest, share: &Share| {
            bytes.extend_from_slice(object.to_string().as_bytes());
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(&key.close(share, count, name));
            count += 1;
        };
        let added: HashSet<Digest> = change.add.iter().map(|(closed, _)| closed.name()).collect();
        let (mut before, mut gone) = (old.rows.iter().collect::<Vec<_>>(), 0);
        before.sort_unstable_by_key(|(_, row)| row.number);
        for (name, row) in before.into_iter().filter(|(name, _)| !added.contains(*name)) {
            if erased.contains(&row.object) {
                gone += 1;
                continue;
            }
            let share = old.key.as_ref().and_then(|key| key.open(&row.closed, row.number, name));
            let share = share.ok_or_else(|| TableError::Damaged(rows_of(&self.folders, old.number)))?;
            write(&row.object, name, &share);
        }
        for (closed, share) in change.add.iter().filter(|(closed, _)| !erased.contains(&closed.object)) {
            write(&closed.object, &closed.name(), share);
        }
        if count > ROWS_MAX {
            return Err(TableError::Full);
        }
        let (rows_path, key_path) = (rows_of(&self.folders, number), key_of(&self.folders, number));
        durable::write(&rows_path, &bytes).map_err(file(&rows_path))?;
        // From here on this is the table.
        durable::write_private(&key_path, key.to_text().as_bytes()).map_err(file(&key_path))?;
        destroy(&self.folders, number)?;
        self.refresh()?;
        Ok(gone)
    }

    /// Reads what another process has changed.
    fn refresh(&self) -> Result<(), TableError> {
        let number = self.now.read().unwrap_or_else(PoisonError::into_inner).number;
        let is_now = if number == 0 { newest(&self.folders)? == 0 } else { key_of(&self.folders, number).exists() };
        if !is_now {
            let now = Generation::read(&self.folders)?;
            *self.now.write().unwrap_or_else(PoisonError::into_inner) = now;
        }
        Ok(())
    }
}

impl Generation {
    fn read(folders: &TableFolders) -> Result<Self, TableError> {
        let number = newest(folders)?;
        if number == 0 {
            return Ok(Self::default());
        }
        let (key_path, path) = (key_of(folders, number), rows_of(folders, number));
        let text = zeroize::Zeroizing::new(std::fs::read_to_string(&key_path).map_err(file(&key_path))?);
        let key = TableKey::from_text(&text).map_err(|_| TableError::Damaged(key_path))?;
        let bytes = std::fs::read(&path).map_err(file(&path))?;
        let damaged = || TableError::Damaged(path.clone());
        let rest = bytes.strip_prefix(HEAD).ok_or_else(damaged)?;
        let (count, rest) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
        let erased_bytes = usize::try_from(u64::from_be_bytes(*count)).ok().and_then(|it| it.checked_mul(NAME_BYTES));
        let (erased, records) = erased_bytes.and_then(|it| rest.split_at_checked(it)).ok_or_else(damaged)?;
        let named = |bytes: &[u8]| -> Option<BatchId> { std::str::from_utf8(bytes).ok()?.parse().ok() };
        let erased = erased.chunks_exact(NAME_BYTES).map(|it| named(it).ok_or_else(damaged));
        let erased = erased.collect::<Result<_, _>>()?;
        if records.len() % RECORD_BYTES != 0 {
            return Err(damaged());
        }
        let mut rows = HashMap::with_capacity(records.len() / RECORD_BYTES);
        for (number, record) in (0..).zip(records.chunks_exact(RECORD_BYTES)) {
            let (object, rest) = record.split_at(NAME_BYTES);
            let (name, closed) = rest.split_at(32);
            let object = named(object).ok_or_else(damaged)?;
            let name = Digest::from_bytes(name.try_into().map_err(|_| damaged())?);
            rows.insert(name, Row { object, number, closed: closed.try_into().map_err(|_| damaged())? });
        }
        Ok(Self { number, key: Some(key), erased, rows })
    }
}

/// The number of the table that has a key; 0 if none has.
fn newest(folders: &TableFolders) -> Result<u64, TableError> {
    Ok(numbers(&folders.keys, "key")?.into_iter().max().unwrap_or(0))
}

/// Removes every table before `number`, keys first.
fn destroy(folders: &TableFolders, number: u64) -> Result<(), TableError> {
    let older = |folder: &Path, extension| -> Result<Vec<u64>, TableError> {
        Ok(numbers(folder, extension)?.into_iter().filter(|it| *it < number).collect())
    };
    let keys = older(&folders.keys, "key")?.into_iter().map(|it| key_of(folders, it));
    let rows = older(&folders.rows, "rows")?.into_iter().map(|it| rows_of(folders, it));
    for path in keys.chain(rows) {
        durable::remove(&path).map_err(file(&path))?;
    }
    Ok(())
}

fn numbers(folder: &Path, extension: &str) -> Result<Vec<u64>, TableError> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(file(folder))? {
        let path = entry.map_err(file(folder))?.path();
        if path.extension().is_some_and(|it| it == extension) && !durable::is_temporary(&path) {
            numbers.extend(path.file_stem().and_then(|it| it.to_str()?.parse::<u64>().ok()));
        }
    }
    Ok(numbers)
}

/// Held while a table is changed.
fn alone(folders: &TableFolders) -> Result<FileLock, TableError> {
    let path = folders.rows.join("lock");
    FileLock::try_new(&path).map_err(file(&path))?.ok_or(TableError::Busy)
}

fn key_of(folders: &TableFolders, number: u64) -> PathBuf {
    folders.keys.join(format!("{number}.key"))
}

fn rows_of(folders: &TableFolders, number: u64) -> PathBuf {
    folders.rows.join(format!("{number}.rows"))
}

fn file(path: &Path) -> impl FnOnce(std::io::Error) -> TableError {
    let path = path.to_owned();
    move |source| TableError::File { path, source }
}
