//! The bundle: one file with everything that somebody offline needs to check.
//!
//! It holds cosigned checkpoints, and entries with their inclusion proofs under one of these.
//! Each entry together with its checkpoint is a C2SP tlog-proof; checkpoints are shared because
//! they are the larger half. The encoding is canonical JSON like an envelope's.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tlog::{EntryIndex, Hash, InclusionProof, LogProof, SignedCheckpoint};

use crate::{Envelope, EnvelopeError, TYPE_BASE};

/// A release with its result, approvals and status is about 8 KB; a long policy history stays
/// below this too.
pub const BUNDLE_BYTES_MAX: usize = 1 << 20;
const ENTRIES_MAX: usize = 64;
const CHECKPOINTS_MAX: usize = 16;

const TYPE: &str = "bundle/v1";

/// A file of evidence, in which nothing has been verified yet.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Bundle {
    checkpoints: Vec<SignedCheckpoint>,
    entries: Vec<BundleEntry>,
}

/// A log entry and where it claims to stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleEntry {
    /// The statement.
    pub envelope: Envelope,
    /// Its proof, under one of the bundle's checkpoints.
    pub proof: LogProof,
}

/// Why bytes are not a bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Too long.
    #[error("the bundle has {0} bytes; at most {BUNDLE_BYTES_MAX} are read")]
    TooLong(usize),
    /// Not JSON of the bundle's shape.
    #[error("not a bundle: {0}")]
    Syntax(String),
    /// Another encoding than ours.
    #[error("the bundle is not in canonical form")]
    NotCanonical,
    /// Too many entries or checkpoints.
    #[error("too many {what}: {count}, at most {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many may be.
        limit: usize,
    },
    /// A checkpoint that can't be read.
    #[error("checkpoint {number}: {error}")]
    Checkpoint {
        /// Which, from 0.
        number: usize,
        /// Why.
        error: String,
    },
    /// An entry that can't be read.
    #[error("entry {number}: {error}")]
    Entry {
        /// Which, from 0.
        number: usize,
        /// Why.
        error: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    #[serde(rename = "type")]
    bundle_type: String,
    checkpoints: Vec<String>,
    entries: Vec<WireEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireEntry {
    checkpoint: usize,
    index: u64,
    path: Vec<String>,
    envelope: Box<RawValue>,
}

impl Bundle {
    /// A bundle of these entries, in this order.
    ///
    /// # Errors
    /// [`BundleError::TooMany`].
    pub fn new(entries: Vec<BundleEntry>) -> Result<Self, BundleError> {
        let mut checkpoints: Vec<SignedCheckpoint> = Vec::new();
        for entry in &entries {
            if !checkpoints.contains(entry.proof.checkpoint()) {
                checkpoints.push(entry.proof.checkpoint().clone());
            }
        }
        let bundle = Self { checkpoints, entries };
        bundle.check_counts()?;
        Ok(bundle)
    }

    /// This bundle with the entries of `other` behind its own.
    ///
    /// # Errors
    /// [`BundleError::TooMany`].
    pub fn with(&self, other: &Self) -> Result<Self, BundleError> {
        Self::new(self.entries.iter().chain(&other.entries).cloned().collect())
    }

    /// Reads a bundle in canonical form. Nothing is verified.
    ///
    /// # Errors
    /// [`BundleError`] for anything but the one canonical encoding.
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        if bytes.len() > BUNDLE_BYTES_MAX {
            return Err(BundleError::TooLong(bytes.len()));
        }
        let wire: Wire = serde_json::from_slice(bytes).map_err(|error| BundleError::Syntax(error.to_string()))?;
        if wire.bundle_type != format!("{TYPE_BASE}{TYPE}") {
            return Err(BundleError::Syntax(format!("its type is `{}`", wire.bundle_type)));
        }
        let checkpoints = wire
            .checkpoints
            .iter()
            .enumerate()
            .map(|(number, text)| {
                SignedCheckpoint::parse(text.as_bytes())
                    .map_err(|error| BundleError::Checkpoint { number, error: error.to_string() })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let entries = wire
            .entries
            .into_iter()
            .enumerate()
            .map(|(number, entry)| entry.open(&checkpoints).map_err(|error| BundleError::Entry { number, error }))
            .collect::<Result<Vec<_>, _>>()?;
        let bundle = Self { checkpoints, entries };
        bundle.check_counts()?;
        if bundle.to_bytes() != bytes {
            return Err(BundleError::NotCanonical);
        }
        Ok(bundle)
    }

    /// The canonical encoding.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let wire = Wire {
            bundle_type: format!("{TYPE_BASE}{TYPE}"),
            checkpoints: self.checkpoints.iter().map(ToString::to_string).collect(),
            entries: self.entries.iter().map(|entry| WireEntry::of(entry, &self.checkpoints)).collect(),
        };
        serde_json::to_vec(&wire).expect("strings and integers are always JSON")
    }

    /// The entries, in the order of the file.
    #[must_use]
    pub fn entries(&self) -> &[BundleEntry] {
        &self.entries
    }

    /// The checkpoints, in the order of their first use.
    #[must_use]
    pub fn checkpoints(&self) -> &[SignedCheckpoint] {
        &self.checkpoints
    }

    fn check_counts(&self) -> Result<(), BundleError> {
        let limit = |what, count, limit| {
            if count > limit { Err(BundleError::TooMany { what, count, limit }) } else { Ok(()) }
        };
        limit("entries", self.entries.len(), ENTRIES_MAX)?;
        limit("checkpoints", self.checkpoints.len(), CHECKPOINTS_MAX)
    }
}

impl WireEntry {
    fn of(entry: &BundleEntry, checkpoints: &[SignedCheckpoint]) -> Self {
        let checkpoint = checkpoints.iter().position(|it| it == entry.proof.checkpoint()).unwrap_or(usize::MAX);
        Self {
            checkpoint,
            index: entry.proof.index().get(),
            path: entry.proof.path().hashes().iter().map(ToString::to_string).collect(),
            envelope: String::from_utf8(entry.envelope.to_bytes())
                .ok()
                .and_then(|json| RawValue::from_string(json).ok())
                .expect("an envelope is JSON"),
        }
    }

    fn open(self, checkpoints: &[SignedCheckpoint]) -> Result<BundleEntry, String> {
        let checkpoint = checkpoints.get(self.checkpoint).ok_or("it names a checkpoint that is not there")?.clone();
        let hashes: Vec<Hash> =
            self.path.iter().map(|text| text.parse()).collect::<Result<_, _>>().map_err(|_| "a hash is not base64")?;
        let path = InclusionProof::new(hashes).map_err(|error| error.to_string())?;
        let envelope =
            Envelope::parse(self.envelope.get().as_bytes()).map_err(|error: EnvelopeError| error.to_string())?;
        let proof = LogProof::new(EntryIndex::new(self.index), path, checkpoint);
        Ok(BundleEntry { envelope, proof })
    }
}
