//! The compact form of a diagnosis, for a signed statement.

use serde::{Deserialize, Serialize};

use super::{Cause, Difference, Excerpt, Finding, Remark, Role, Stop};

/// A diagnosis in at most [`Summary::MAX_BYTES`] of JSON: `docs/formats/compare.md`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Every cause, in the order of [`Cause`].
    pub causes: Vec<Cause>,
    /// How deep the difference goes; information only.
    pub remark: Remark,
    /// Limits that cut the diagnosis short.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stops: Vec<Stop>,
    /// One finding for each cause first, then as many as fit.
    pub findings: Vec<SummaryFinding>,
    /// Findings that did not fit.
    pub left_out: u64,
}

/// One finding of a [`Summary`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SummaryFinding {
    /// The output, then the members inside, separated by ` ▸ `.
    pub member: String,
    /// Why.
    pub cause: Cause,
    /// What differs.
    pub what: String,
    /// What the first build has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Excerpt>,
    /// What the second build has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub right: Option<Excerpt>,
}

/// Why bytes are not a summary.
#[derive(Debug, thiserror::Error)]
pub enum SummaryError {
    /// Beyond [`Summary::MAX_BYTES`].
    #[error("a summary of {bytes} bytes; at most {} are allowed", Summary::MAX_BYTES)]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not the JSON of a summary.
    #[error("not a summary")]
    Json(#[source] serde_json::Error),
    /// A difference without a cause.
    #[error("a summary without a cause")]
    NoCause,
}

/// Characters of an excerpt in a summary.
const EXCERPT_CHARS: usize = 60;
/// Characters of a place or of what differs: nine causes of these, all of three bytes, still fit.
const PLACE_CHARS: usize = 100;

impl Summary {
    /// Bytes of JSON: a sixteenth of a log entry (65,535).
    pub const MAX_BYTES: usize = 4_096;

    /// Parses the JSON of a summary.
    ///
    /// # Errors
    /// When it is too large, malformed or without a cause.
    pub fn parse(bytes: &[u8]) -> Result<Self, SummaryError> {
        if bytes.len() > Self::MAX_BYTES {
            return Err(SummaryError::TooLarge { bytes: bytes.len() });
        }
        let summary: Self = serde_json::from_slice(bytes).map_err(SummaryError::Json)?;
        if summary.causes.is_empty() { Err(SummaryError::NoCause) } else { Ok(summary) }
    }

    pub(super) fn of(difference: &Difference) -> Self {
        let mut summary = Self {
            causes: difference.causes().to_vec(),
            remark: difference.remark(),
            stops: difference.stops().to_vec(),
            findings: Vec::new(),
            left_out: u64::MAX,
        };
        let (mut first, mut others) = (Vec::new(), Vec::new());
        for finding in difference.findings().iter().filter(|finding| finding.role == Role::Cause) {
            let is_first = first.iter().all(|earlier: &&Finding| earlier.cause != finding.cause);
            if is_first { first.push(finding) } else { others.push(finding) }
        }
        for finding in first.into_iter().chain(others) {
            summary.findings.push(SummaryFinding::of(finding));
            // The count stands at its longest until the end, so that it can only shrink.
            if summary.size() > Self::MAX_BYTES {
                summary.findings.pop();
            }
        }
        let kept = summary.findings.len();
        let all = u64::try_from(difference.findings().len() - kept).unwrap_or(u64::MAX);
        summary.left_out = all.saturating_add(difference.left_out());
        summary
    }

    fn size(&self) -> usize {
        serde_json::to_vec(self).map_or(usize::MAX, |bytes| bytes.len())
    }
}

impl SummaryFinding {
    fn of(finding: &Finding) -> Self {
        // The end of a place says most: the member that differs.
        let member = finding.member.to_string();
        let start = member.char_indices().rev().nth(PLACE_CHARS).map(|(at, _)| at);
        let member = start.map_or(member.clone(), |at| format!("…{}", member.get(at..).unwrap_or_default()));
        Self {
            member,
            cause: finding.cause,
            what: finding.what.chars().take(PLACE_CHARS).collect(),
            left: finding.left.as_ref().map(|excerpt| excerpt.cut(EXCERPT_CHARS)),
            right: finding.right.as_ref().map(|excerpt| excerpt.cut(EXCERPT_CHARS)),
        }
    }
}
