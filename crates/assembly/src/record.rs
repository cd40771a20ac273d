//! What a build leaves: outputs by digest, everything that went in, and how it was isolated.

use serde::{Deserialize, Serialize};
use stdx::Digest;

use crate::conditions::Conditions;
use crate::environment::Origin;
use crate::foreign::ForeignBuild;
use crate::inputs::{Kind, ResolvedItem};
use crate::recipe::{ProductId, Version};
use crate::source::GitOrigin;

/// Longest record: 10,000 inputs of 150 bytes and as much again.
const RECORD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A file that came out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// What it is called when it is shipped.
    pub name: String,
    /// SHA-256.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
}

/// What two organisations must agree on, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agreed {
    /// The product.
    pub product: ProductId,
    /// Its version.
    pub version: Version,
    /// Digest of the source's canonical tree.
    pub source: Digest,
    /// Digest of the canonical tree of recipe and lock.
    pub recipe: Digest,
    /// Digest of the list of inputs: SHA-256 of its canonical JSON.
    pub inputs: Digest,
    /// Digest of the environment's canonical tree.
    pub environment: Digest,
    /// Whether others can have that environment.
    pub origin: Origin,
    /// Digest of the CycloneDX document.
    pub sbom: Digest,
    /// What came out, sorted by name.
    pub outputs: Vec<Artifact>,
}

/// A build as one organisation saw it. Plain data: whoever signs it is responsible for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildRecord {
    /// The part that must be the same for all.
    pub agreed: Agreed,
    /// The commit, if the source is one.
    pub git: Option<GitOrigin>,
    /// Everything that went in, sorted.
    pub inputs: Vec<ResolvedItem>,
    /// How the outputs came to be.
    pub made: Made,
}

/// How outputs came to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Made {
    /// In the sandbox.
    Here(Box<Isolated>),
    /// By a builder elsewhere, of whom only the digests are believed until a rebuild confirms them.
    Elsewhere(Box<ForeignBuild>),
}

/// A build in the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Isolated {
    /// Under which circumstances.
    pub conditions: Conditions,
    /// How it was isolated, as the sandbox enforced it.
    pub isolation: sandbox::Evidence,
    /// SHA-256 of the build's log, kept beside the outputs.
    pub log: Digest,
}

/// Bytes that are not a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Too long.
    #[error("a build record of {0} bytes is too long")]
    TooLong(usize),
    /// Not the JSON that is expected.
    #[error("not a build record: {0}")]
    Syntax(String),
    /// Not in the one form that we write.
    #[error("the build record is not in its canonical form")]
    NotCanonical,
    /// The digest of the inputs is not that of the list.
    #[error("the build record's list of inputs has digest {got}, not {expected}")]
    Inputs {
        /// What the record says.
        expected: Digest,
        /// What its list hashes to.
        got: Digest,
    },
}

/// SHA-256 of the canonical JSON of a sorted list of inputs.
#[must_use]
pub fn inputs_digest(items: &[ResolvedItem]) -> Digest {
    Digest::of(&canonical(&items))
}

impl BuildRecord {
    /// The canonical JSON: members in the order of this struct, no whitespace.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        canonical(self)
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(RecordError::TooLong(bytes.len()));
        }
        let record: Self = serde_json::from_slice(bytes).map_err(|error| RecordError::Syntax(error.to_string()))?;
        if record.to_bytes() != bytes {
            return Err(RecordError::NotCanonical);
        }
        let got = inputs_digest(&record.inputs);
        if got != record.agreed.inputs {
            return Err(RecordError::Inputs { expected: record.agreed.inputs, got });
        }
        Ok(record)
    }

    /// Whether a release may rest on it, as far as its environment goes.
    #[must_use]
    pub fn is_releasable(&self) -> bool {
        self.agreed.origin == Origin::Pinned
    }

    /// The inputs of one kind.
    pub fn inputs_of(&self, kind: Kind) -> impl Iterator<Item = &ResolvedItem> {
        self.inputs.iter().filter(move |item| item.kind == kind)
    }
}

/// JSON of our own plain types, which always succeeds: they have string keys and no foreign parts.
pub(crate) fn canonical(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
