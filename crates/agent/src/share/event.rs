//! Events: what is shared, as the very bytes that are sealed.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use stdx::{Digest, Entropy, EntropyError, UnixTime};

use super::Class;

/// Times say the hour: the second would tell machines apart.
const HOUR_S: u64 = 3600;

/// One file may match many rules; as many are shared of it.
const DETECTIONS_MAX: usize = 16;

/// A random number, 32 hexadecimal digits, of one event and of nothing else.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(String);

impl EventId {
    pub(super) fn draw(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        let mut bytes = [0; 16];
        entropy.fill(&mut bytes)?;
        Ok(Self(format!("{:032x}", u128::from_be_bytes(bytes))))
    }
}

impl AsRef<str> for EventId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a verdict comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Found {
    /// A bucket of the gateway's.
    Bucket,
    /// Nowhere: nothing is known of the file.
    Nothing,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Statistic {
    /// Files that were looked up.
    Lookups,
    /// Files that were scanned.
    Scans,
}

/// A count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    /// How many.
    pub files: u64,
    /// How many of them were found to be bad.
    pub found: u64,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Body {
    /// A rule found something.
    Detection {
        /// The rule.
        rule: String,
        /// The file's content.
        sha256: Digest,
        /// Its bytes.
        size: u64,
    },
    /// What is known of a file that somebody looked up: that it is malicious, or nothing.
    Verdict {
        /// The file's content.
        sha256: Digest,
        /// Where that is known from.
        found: Found,
    },
    /// Something was counted.
    Statistic {
        /// What.
        of: Statistic,
        /// How much.
        tally: Tally,
    },
    /// A file that its owner gave.
    Content {
        /// The rule that found it, and that declares to collect.
        rule: String,
        /// Its SHA-256.
        sha256: Digest,
        /// Its content, in base64.
        content: String,
    },
}

impl Body {
    /// What `rules` found in one file: each of them once.
    pub fn detections<'a>(sha256: Digest, size: u64, rules: impl Iterator<Item = &'a str>) -> Vec<Self> {
        let rules: BTreeSet<&str> = rules.collect();
        let detection = |rule: &str| Self::Detection { rule: rule.to_owned(), sha256, size };
        rules.into_iter().take(DETECTIONS_MAX).map(detection).collect()
    }

    /// The class that must be agreed to.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Detection { .. } => Class::Detections,
            Self::Verdict { .. } => Class::Verdicts,
            Self::Statistic { .. } => Class::Statistics,
            Self::Content { .. } => Class::Content,
        }
    }
}

/// An event. Its one line of JSON is what waits, what is shown, and what is sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareEvent {
    /// Its number.
    pub id: EventId,
    /// When it happened, to the hour.
    pub hour: UnixTime,
    /// What happened.
    pub body: Body,
}

impl ShareEvent {
    pub(super) fn new(id: EventId, now: UnixTime, body: Body) -> Self {
        let seconds = now.seconds();
        Self { id, hour: UnixTime::from_seconds(seconds - seconds % HOUR_S), body }
    }

    /// The line, with its end.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("texts and numbers are always JSON");
        line.push('\n');
        line
    }
}
