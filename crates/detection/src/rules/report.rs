//! What is known of a bundle before it is released: its index, and what it finds.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use stdx::Digest;

use super::index::{INDEX_BYTES_MAX, Index, IndexError};

/// Longest report: an index, and 64 MiB for what fires on some 100,000 samples.
pub const REPORT_BYTES_MAX: u64 = INDEX_BYTES_MAX + (64 << 20);

/// What is known of a bundle before it is released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// What is in it.
    pub index: Index,
    /// What it finds; none, if it was not tried.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub behaviour: Option<Behaviour>,
    /// What its set of hashes changes; none, if there is none now and was none before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hashes: Option<HashesReport>,
}

/// What a set of hashes changes, and whether it accuses what is known to be good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HashesReport {
    /// How many are in it that the release before did not have. One in 65,536 new ones is not counted.
    pub added: u32,
    /// How many of the release before are gone.
    pub removed: u32,
    /// How many files were known to be good where this was made: samples of the goodware, and lists.
    pub compared: u64,
    /// Hashes that are known to be good, each with the list or sample that says so; the first of them.
    pub known_good: BTreeMap<Digest, String>,
}

/// So many known-good hashes are named: one is enough to refuse a set.
pub const KNOWN_GOOD_NAMED_MAX: usize = 100;

/// What a bundle finds in both corpora.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Behaviour {
    /// In what should be found.
    pub known_bad: Run,
    /// In what should not.
    pub goodware: Run,
}

/// What a bundle finds in one corpus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The digest of the corpus's tree manifest.
    pub corpus: Digest,
    /// Every sample, by path, with the rules that fire on it.
    pub samples: BTreeMap<String, BTreeSet<String>>,
    /// The samples that were not scanned to their end, with the reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub unread: BTreeMap<String, String>,
}

impl Report {
    /// The one encoding.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a report; only the canonical form is accepted.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, IndexError> {
        if bytes.len() as u64 > REPORT_BYTES_MAX {
            return Err(IndexError::Form("and what it finds are longer than any"));
        }
        let report: Self = serde_json::from_slice(bytes)?;
        // The index is held to its own rules, too.
        Index::parse(&report.index.to_bytes())?;
        if report.to_bytes() != bytes {
            return Err(IndexError::Form("is not in its canonical form"));
        }
        Ok(report)
    }
}
