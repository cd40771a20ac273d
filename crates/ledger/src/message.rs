//! What is said to holders of private parts.

use attest::{Commitment, Opening};
use serde::{Deserialize, Serialize};
use stdx::Digest;

use crate::review::Disclosure;

/// "Keep these": evidence is a bundle with the statements that commit to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BringOpenings {
    /// The bundle.
    pub evidence: String,
    /// The openings.
    pub openings: Vec<Opening>,
}

/// "Keep this": which objects an intent names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BringObjects {
    /// A bundle with the intent.
    pub evidence: String,
    /// SHA-256 of each object's header, ascending by the objects' names.
    pub headers: Vec<Digest>,
}

/// "Show me these": sealed to the review's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disclose {
    /// A bundle with the logged review, and nothing else.
    pub review: String,
    /// The key whose SHA-256 the review names, as text.
    pub key: String,
    /// What to open, [`DISCLOSED_MAX`](crate::DISCLOSED_MAX) at most.
    pub commitments: Vec<Commitment>,
}

/// What is here of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disclosed {
    /// In the order in which they were asked for.
    pub disclosed: Vec<Disclosure>,
}

/// "Delete these": a bundle with a redaction and its approvals, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redact {
    /// The bundle.
    pub evidence: String,
}
