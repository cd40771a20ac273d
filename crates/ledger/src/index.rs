//! The index on disk: blocks of rows, and a head that says which of them count.
//!
//! A block that changes is written anew, under the number of the next save; the head is replaced last. So a
//! crash leaves the index as it was saved, and some files that the next save removes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use attest::{Commitment, OrganisationId, Position, StatementId, StreamName};
use serde::{Deserialize, Serialize};
use stdx::{UnixTime, durable};
use tlog::Origin;
use verify::TrustedPolicy;

use crate::custodians::Custodians;
use crate::facts::Finding;
use crate::names::Names;
use crate::row::{BLOCK_ROWS, Column, ROW_BYTES, Row, decode, encode};
use crate::streams::Streams;

const FORMAT: u32 = 1;

/// Changed blocks that are kept in memory: 128 MB.
const CHANGED_MAX: usize = 16;

/// A log with more is no ledger.
pub(crate) const FINDINGS_MAX: usize = 10_000;

/// Why the index can't be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The disk.
    #[error("`{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is there is not what was written, or another version's.
    #[error("`{}` is damaged, or another version's; delete the folder, and it is built again from the log", .0.display())]
    Damaged(PathBuf),
    /// It is of another log.
    #[error("the index is of log `{found}`, not of `{expected}`")]
    OtherLog {
        /// What was asked for.
        expected: Origin,
        /// What it is of.
        found: Origin,
    },
    /// Entries come in order.
    #[error("entry {found} where {expected} was due")]
    Order {
        /// The next entry.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// Row numbers have 32 bits.
    #[error("the index is full")]
    Full,
}

/// The index of one log's access statements.
pub struct Index {
    folder: Option<PathBuf>,
    pub(crate) state: State,
    changed: BTreeMap<usize, Vec<Row>>,
}

/// The head.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    format: u32,
    origin: Origin,
    /// The checkpoint up to which entries were read, as it was published.
    checkpoint: Option<String>,
    pub(crate) entries: u64,
    pub(crate) rows: u64,
    save: u64,
    pub(crate) blocks: Vec<BlockAt>,
    pub(crate) latest: UnixTime,
    pub(crate) who: Names,
    pub(crate) employers: Names,
    pub(crate) purposes: Names,
    pub(crate) regions: Names,
    pub(crate) classes: Names,
    pub(crate) countries: Names,
    pub(crate) requests: BTreeMap<StatementId, LiveRequest>,
    pub(crate) intents: BTreeMap<StatementId, OpenIntent>,
    pub(crate) redactions: BTreeMap<StatementId, OpenRedaction>,
    pub(crate) streams: Streams,
    pub(crate) custodians: Custodians,
    pub(crate) findings: Vec<Finding>,
    /// Findings that there was no room for.
    pub(crate) more: u64,
}

/// A block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BlockAt {
    /// The save that wrote it.
    save: u64,
    pub(crate) rows: usize,
    /// Of its rows.
    pub(crate) first: u32,
    pub(crate) last: u32,
}

/// A request that may still be used.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LiveRequest {
    pub(crate) row: u32,
    /// What rows of its intents have of it.
    pub(crate) who: u32,
    pub(crate) reader: Commitment,
    pub(crate) employer: u16,
    pub(crate) purpose: u16,
    pub(crate) kind: u8,
    pub(crate) mode: u8,
    pub(crate) is_used: bool,
    pub(crate) until: UnixTime,
    pub(crate) objects: u64,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) class: attest::DataClass,
    pub(crate) countries: Vec<attest::CountryCode>,
    /// Organisation and key of each approver.
    pub(crate) approvers: BTreeSet<(OrganisationId, String)>,
}

/// An intent without an outcome.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OpenIntent {
    pub(crate) row: u32,
    pub(crate) entry: u64,
    pub(crate) expires: UnixTime,
    pub(crate) objects: u64,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

/// A redaction that lacks approvals.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OpenRedaction {
    pub(crate) row: u32,
    pub(crate) fields: BTreeSet<Commitment>,
    pub(crate) approvers: BTreeSet<(OrganisationId, String)>,
}

impl Index {
    /// An index of `origin` that is kept nowhere.
    #[must_use]
    pub fn in_memory(origin: Origin) -> Self {
        Self { folder: None, state: State::new(origin), changed: BTreeMap::new() }
    }

    /// The index of `origin` in `folder`; an empty one if nothing is there yet.
    ///
    /// # Errors
    /// [`IndexError`] when what is there is damaged, or another log's.
    pub fn open(folder: &Path, origin: Origin) -> Result<Self, IndexError> {
        let path = folder.join("head");
        let state = match std::fs::read(&path) {
            Ok(bytes) => {
                let state: State = serde_json::from_slice(&bytes).map_err(|_| IndexError::Damaged(path.clone()))?;
                if state.format != FORMAT {
                    return Err(IndexError::Damaged(path));
                }
                if state.origin != origin {
                    return Err(IndexError::OtherLog { expected: origin, found: state.origin });
                }
                state
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => State::new(origin),
            Err(source) => return Err(IndexError::File { path, source }),
        };
        Ok(Self { folder: Some(folder.to_owned()), state, changed: BTreeMap::new() })
    }

    /// The checkpoint up to which entries were read, as it was published; `None` before the first.
    #[must_use]
    pub fn checkpoint(&self) -> Option<&str> {
        self.state.checkpoint.as_deref()
    }

    /// How many entries of the log were read.
    #[must_use]
    pub const fn entries(&self) -> u64 {
        self.state.entries
    }

    /// How many rows there are.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.state.rows
    }

    /// What is wrong as of `now`: what entries showed as they were read, outcomes that are missing, streams that
    /// are silent. At most 10,000 and a number of those that there was no room for.
    #[must_use]
    pub fn findings(&self, policy: &TrustedPolicy, now: UnixTime) -> (Vec<Finding>, u64) {
        let mut findings = self.state.findings.clone();
        findings.extend(self.state.missing(now));
        findings.extend(self.state.streams.silent(policy, now));
        (findings, self.state.more)
    }

    /// Where a stream of access statements ends, as far as was read.
    #[must_use]
    pub fn stream_end(&self, stream: &StreamName) -> Option<&(Position, StatementId)> {
        self.state.streams.end(stream)
    }

    /// Writes what has changed; `checkpoint` covers exactly the entries that were read.
    ///
    /// # Errors
    /// [`IndexError::File`]; the index is then as it was saved last.
    pub fn save(&mut self, checkpoint: &str) -> Result<(), IndexError> {
        self.state.checkpoint = Some(checkpoint.to_owned());
        let Some(folder) = self.folder.clone() else { return Ok(()) };
        self.spill()?;
        let path = folder.join("head");
        let file = |source| IndexError::File { path: path.clone(), source };
        durable::create_folder(&folder).map_err(file)?;
        self.state.save += 1;
        let head = serde_json::to_vec(&self.state).map_err(|error| file(io::Error::other(error)))?;
        durable::write_private(&path, &head).map_err(file)?;
        self.sweep(&folder)
    }

    /// Removes the files that do not count.
    fn sweep(&self, folder: &Path) -> Result<(), IndexError> {
        let wanted: BTreeSet<PathBuf> =
            self.state.blocks.iter().enumerate().map(|(number, block)| block.path(folder, number)).collect();
        let file = |source| IndexError::File { path: folder.to_owned(), source };
        for entry in std::fs::read_dir(folder).map_err(file)? {
            let path = entry.map_err(file)?.path();
            if path.extension().is_some_and(|it| it == "rows") && !wanted.contains(&path) {
                std::fs::remove_file(&path).map_err(|source| IndexError::File { path, source })?;
            }
        }
        Ok(())
    }

    /// Writes changed blocks, which count with the next head.
    fn spill(&mut self) -> Result<(), IndexError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        for (number, rows) in std::mem::take(&mut self.changed) {
            let Some(block) = self.state.blocks.get_mut(number) else { continue };
            block.save = self.state.save + 1;
            let path = block.path(folder, number);
            let file = |source| IndexError::File { path: path.clone(), source };
            durable::create_folder(folder).map_err(file)?;
            durable::write_private(&path, &encode(&rows)).map_err(file)?;
        }
        Ok(())
    }

    /// Adds a row; its number.
    pub(crate) fn push(&mut self, row: Row) -> Result<u32, IndexError> {
        let ordinal = u32::try_from(self.state.rows).ok().filter(|it| *it != crate::row::NO_ROW);
        let ordinal = ordinal.ok_or(IndexError::Full)?;
        let number = place(ordinal).0;
        if self.state.blocks.len() <= number {
            self.bound()?;
            self.state.blocks.push(BlockAt { first: u32::MAX, ..BlockAt::default() });
        }
        self.rows_of(number)?.push(row);
        if let Some(block) = self.state.blocks.get_mut(number) {
            block.rows += 1;
            block.first = block.first.min(row.time);
            block.last = block.last.max(row.time);
        }
        self.state.rows += 1;
        Ok(ordinal)
    }

    /// The row of this number, to be changed.
    pub(crate) fn change(&mut self, ordinal: u32, change: impl FnOnce(&mut Row)) -> Result<(), IndexError> {
        let (number, at) = place(ordinal);
        if let Some(row) = self.rows_of(number)?.get_mut(at) {
            change(row);
        }
        self.bound()
    }

    /// Keeps what is in memory within bounds.
    pub(crate) fn bound(&mut self) -> Result<(), IndexError> {
        if self.changed.len() > CHANGED_MAX { self.spill() } else { Ok(()) }
    }

    /// The rows of a block, to be changed.
    pub(crate) fn rows_of(&mut self, number: usize) -> Result<&mut Vec<Row>, IndexError> {
        if !self.changed.contains_key(&number) {
            let rows = match self.state.blocks.get(number) {
                Some(block) if block.rows > 0 => {
                    let path = self.path(number);
                    let bytes =
                        std::fs::read(&path).map_err(|source| IndexError::File { path: path.clone(), source })?;
                    decode(&bytes).filter(|rows| rows.len() == block.rows).ok_or(IndexError::Damaged(path))?
                }
                _ => Vec::with_capacity(BLOCK_ROWS),
            };
            self.changed.insert(number, rows);
        }
        Ok(self.changed.entry(number).or_default())
    }

    fn path(&self, number: usize) -> PathBuf {
        let folder = self.folder.as_deref().unwrap_or(Path::new("."));
        self.state.blocks.get(number).copied().unwrap_or_default().path(folder, number)
    }

    /// A block, to be searched.
    pub(crate) fn block(&self, number: usize) -> Result<Block, IndexError> {
        let rows = self.state.blocks.get(number).map_or(0, |block| block.rows);
        if let Some(changed) = self.changed.get(&number) {
            return Ok(Block { rows, source: BlockSource::Memory(encode(changed)) });
        }
        let path = self.path(number);
        let open = || -> io::Result<(File, u64)> {
            let file = File::open(&path)?;
            let length = file.metadata()?.len();
            Ok((file, length))
        };
        let (file, length) = open().map_err(|source| IndexError::File { path: path.clone(), source })?;
        if length != (rows * ROW_BYTES) as u64 {
            return Err(IndexError::Damaged(path));
        }
        Ok(Block { rows, source: BlockSource::File(file, path) })
    }
}

/// The block of a row, and its place there.
pub(crate) fn place(ordinal: u32) -> (usize, usize) {
    let ordinal = usize::try_from(ordinal).unwrap_or(usize::MAX);
    (ordinal / BLOCK_ROWS, ordinal % BLOCK_ROWS)
}

/// A block that is being read.
pub(crate) struct Block {
    pub(crate) rows: usize,
    source: BlockSource,
}

enum BlockSource {
    Memory(Vec<u8>),
    File(File, PathBuf),
}

impl Block {
    /// Some values of a column, into `buffer`.
    pub(crate) fn read(
        &self,
        column: Column,
        rows: std::ops::Range<usize>,
        buffer: &mut Vec<u8>,
    ) -> Result<(), IndexError> {
        let width = column.width();
        let (at, length) = (column.offset(self.rows) + rows.start * width, rows.len() * width);
        buffer.clear();
        match &self.source {
            BlockSource::Memory(bytes) => buffer.extend_from_slice(bytes.get(at..at + length).unwrap_or_default()),
            BlockSource::File(file, path) => {
                buffer.resize(length, 0);
                file.read_exact_at(buffer, at as u64)
                    .map_err(|source| IndexError::File { path: path.clone(), source })?;
            }
        }
        Ok(())
    }
}

impl BlockAt {
    fn path(&self, folder: &Path, number: usize) -> PathBuf {
        folder.join(format!("{number}-{}.rows", self.save))
    }
}

impl State {
    fn new(origin: Origin) -> Self {
        Self {
            format: FORMAT,
            origin,
            checkpoint: None,
            entries: 0,
            rows: 0,
            save: 0,
            blocks: Vec::new(),
            latest: UnixTime::EPOCH,
            who: Names::default(),
            employers: Names::default(),
            purposes: Names::default(),
            regions: Names::default(),
            classes: Names::default(),
            countries: Names::default(),
            requests: BTreeMap::new(),
            intents: BTreeMap::new(),
            redactions: BTreeMap::new(),
            streams: Streams::default(),
            custodians: Custodians::default(),
            findings: Vec::new(),
            more: 0,
        }
    }

    pub(crate) fn find(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.more += 1;
        }
    }
}
