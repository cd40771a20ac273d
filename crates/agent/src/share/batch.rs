//! Batches: what goes over the wire together, durable with its plaintext before it does.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use seal::OwnerSecret;
use serde::{Deserialize, Serialize};
use stdx::{Digest, UnixTime};

use super::{Class, EventId};
use crate::disk::Disk;
use crate::failure::Failure;

/// Owners read what was sent; when so much of it lies there, they must take it away first.
pub(super) const SENT_BYTES_MAX: u64 = 1 << 30;

/// A batch that is under way: the same bytes until the intake has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Batch {
    /// SHA-256 of the sealed bytes.
    pub(super) batch: Digest,
    pub(super) class: Class,
    pub(super) events: Vec<EventId>,
    /// What was sealed.
    pub(super) plain: String,
    /// What goes over the wire, in base64.
    sealed: String,
    /// What its name was made of; batches of earlier versions have a name of nothing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) owner: Option<String>,
}

impl Batch {
    pub(super) fn new(class: Class, events: Vec<EventId>, plain: String, sealed: &[u8]) -> Self {
        Self { batch: Digest::of(sealed), class, events, plain, sealed: STANDARD.encode(sealed), owner: None }
    }

    /// The same, of whoever keeps this.
    pub(super) fn of(mut self, owner: &OwnerSecret) -> Self {
        self.owner = Some(owner.to_text());
        self
    }

    /// The bytes for the wire.
    pub(super) fn sealed(&self, path: &Path) -> Result<Vec<u8>, Failure> {
        let bytes = STANDARD.decode(&self.sealed).map_err(|error| Failure::state(path, error))?;
        if Digest::of(&bytes) == self.batch {
            Ok(bytes)
        } else {
            Err(Failure::state(path, "its bytes are not those that it names"))
        }
    }
}

/// A batch that the intake has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SentBatch {
    pub(super) batch: Digest,
    pub(super) class: Class,
    /// SHA-256 of the sealed object's header, as lists of what was read have it; earlier versions kept none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) header: Option<Digest>,
    /// How many bytes went over the wire.
    pub(super) bytes: u64,
    pub(super) time: UnixTime,
    pub(super) intake: String,
    /// The signed receipt, as it came; earlier versions got none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) receipt: Option<String>,
    /// What the object's name was made of: who has it may have the object erased.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) owner: Option<String>,
    pub(super) plain: String,
}

/// Where batches lie.
pub(super) struct Batches {
    share: PathBuf,
}

impl Batches {
    pub(super) fn new(share: &Path) -> Self {
        Self { share: share.to_owned() }
    }

    pub(super) fn sent_folder(&self) -> PathBuf {
        self.share.join("sent")
    }

    pub(super) fn path(&self) -> PathBuf {
        self.share.join("batch.json")
    }

    /// The batch that is under way.
    pub(super) fn under_way(&self) -> Result<Option<Batch>, Failure> {
        read(&self.path())
    }

    pub(super) fn start(&self, disk: &dyn Disk, batch: &Batch) -> Result<(), Failure> {
        write(disk, &self.path(), batch)
    }

    /// Whether the record of a batch that the intake has is there already.
    pub(super) fn is_sent(&self, batch: &Batch) -> Result<bool, Failure> {
        let path = self.sent_path(&batch.batch);
        path.try_exists().map_err(|error| Failure::file(&path, &error))
    }

    pub(super) fn keep_sent(&self, disk: &dyn Disk, sent: &SentBatch) -> Result<(), Failure> {
        write(disk, &self.sent_path(&sent.batch), sent)
    }

    pub(super) fn end(&self, disk: &dyn Disk) -> Result<(), Failure> {
        let path = self.path();
        disk.remove(&path).map_err(|error| Failure::file(&path, &error))
    }

    fn sent_path(&self, batch: &Digest) -> PathBuf {
        self.sent_folder().join(format!("{batch}.json"))
    }

    /// Everything that was sent, oldest first (within a second in no order), each with its file.
    pub(super) fn sent(&self) -> Result<Vec<(PathBuf, SentBatch)>, Failure> {
        let mut sent = Vec::new();
        for path in self.sent_files()? {
            sent.extend(read(&path)?.map(|batch: SentBatch| (path, batch)));
        }
        sent.sort_by_key(|(_, batch)| (batch.time, batch.batch));
        Ok(sent)
    }

    /// How many bytes the records of what was sent take.
    pub(super) fn sent_bytes(&self) -> Result<u64, Failure> {
        let mut bytes = 0;
        for path in self.sent_files()? {
            bytes += fs::metadata(&path).map_err(|error| Failure::file(&path, &error))?.len();
        }
        Ok(bytes)
    }

    fn sent_files(&self) -> Result<Vec<PathBuf>, Failure> {
        let folder = self.sent_folder();
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|error| Failure::file(&folder, &error))?,
        };
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        let paths: Vec<PathBuf> = paths.collect::<Result<_, _>>().map_err(|error| Failure::file(&folder, &error))?;
        Ok(paths.into_iter().filter(|path| !stdx::durable::is_temporary(path)).collect())
    }
}

pub(super) fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, Failure> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| Failure::state(path, error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::file(path, &error)),
    }
}

pub(super) fn write<T: Serialize>(disk: &dyn Disk, path: &Path, value: &T) -> Result<(), Failure> {
    let bytes = serde_json::to_vec(value).expect("texts and numbers are always JSON");
    disk.write_private(path, &bytes).map_err(|error| Failure::file(path, &error))
}
