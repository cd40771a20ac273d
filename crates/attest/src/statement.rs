//! in-toto Statement v1 (in-toto/attestation `spec/v1/statement.md`) with one encoding.

use std::fmt::Debug;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use stdx::{Digest, UnixTime};
use tlog::Origin;

use crate::{Envelope, StatementId, StreamName};

const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// Where our type URIs begin. The domain is reserved for examples (RFC 2606) until the project
/// has one of its own; this constant is the only place that knows it.
pub const TYPE_BASE: &str = "https://clerestory.example/";

/// A release of several files, or a build with many outputs, stays far below this.
const SUBJECTS_MAX: usize = 256;

/// What a statement says.
pub trait Predicate: Serialize + DeserializeOwned + Clone + Debug {
    /// The predicate type's URI: of others (`https://slsa.dev/…`), or a suffix to [`TYPE_BASE`].
    const TYPE: &'static str;

    /// The statement's place in its stream, if it is one that logs hold.
    fn position(&self) -> Option<&Position>;
}

/// The full type URI of `P`.
#[must_use]
pub fn predicate_type<P: Predicate>() -> String {
    if P::TYPE.starts_with("https://") { P::TYPE.to_owned() } else { format!("{TYPE_BASE}{}", P::TYPE) }
}

/// Where a statement stands: every enforcement point writes a stream, gapless, each entry naming
/// the one before it, so that a missing or doubled entry is seen by anyone who reads the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The log the statement was made for; in any other log it is a violation.
    pub log: Origin,
    /// The stream, which the policy opens for one instance of an enforcement point.
    pub stream: StreamName,
    /// Counts re-openings of the stream.
    pub epoch: u64,
    /// 0, 1, 2 … within the epoch.
    pub sequence: u64,
    /// The stream's entry before this one; absent only at sequence 0 of epoch 0.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub previous: Option<StatementId>,
    /// The signer's own clock; evidence time is what counts.
    pub time: UnixTime,
}

/// What a statement is about, matched by digest only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// A name for people.
    pub name: String,
    /// The content.
    pub digest: DigestSet,
}

impl Subject {
    /// The subject with this content.
    #[must_use]
    pub fn new(name: impl Into<String>, sha256: Digest) -> Self {
        Self { name: name.into(), digest: DigestSet { sha256 } }
    }

    /// SHA-256 of the content.
    #[must_use]
    pub const fn sha256(&self) -> Digest {
        self.digest.sha256
    }
}

/// in-toto's `DigestSet` with the one algorithm we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DigestSet {
    /// SHA-256, in hexadecimal.
    pub sha256: Digest,
}

/// A statement that predicates `P` of its subjects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement<P> {
    /// What it is about; never empty.
    pub subject: Vec<Subject>,
    /// What it says.
    pub predicate: P,
}

/// Why a payload is not the statement that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// Not JSON of the statement's shape.
    #[error("not a statement of type {expected}: {error}")]
    Syntax {
        /// The type asked for.
        expected: String,
        /// What the parser says.
        error: String,
    },
    /// A statement of another type.
    #[error("the statement says `{got}`, not `{expected}`")]
    OtherType {
        /// The type asked for.
        expected: String,
        /// The type found.
        got: String,
    },
    /// The right content in another encoding.
    #[error("the statement is not in canonical form")]
    NotCanonical,
    /// None, or too many.
    #[error("{0} subjects; a statement has 1 to {SUBJECTS_MAX}")]
    SubjectCount(usize),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<P> {
    #[serde(rename = "_type")]
    statement_type: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: P,
}

#[derive(Deserialize)]
struct TypeOnly {
    #[serde(rename = "predicateType")]
    predicate_type: String,
}

impl<P: Predicate> Statement<P> {
    /// The canonical payload: members in the order of in-toto's specification and of our structs,
    /// no white space, strings escaped only where JSON demands it, integers only.
    ///
    /// # Errors
    /// [`StatementError::SubjectCount`], or a predicate that JSON can't hold.
    pub fn encode(&self) -> Result<Vec<u8>, StatementError> {
        if !(1..=SUBJECTS_MAX).contains(&self.subject.len()) {
            return Err(StatementError::SubjectCount(self.subject.len()));
        }
        let wire = Wire {
            statement_type: STATEMENT_TYPE.to_owned(),
            subject: self.subject.clone(),
            predicate_type: predicate_type::<P>(),
            predicate: self.predicate.clone(),
        };
        serde_json::to_vec(&wire).map_err(|error| syntax::<P>(&error))
    }

    /// Reads a canonical payload. Only `verify` should have reason to call this on foreign bytes.
    ///
    /// # Errors
    /// [`StatementError`] for another type or any other encoding.
    pub fn decode(payload: &[u8]) -> Result<Self, StatementError> {
        let got = type_of(payload).ok_or_else(|| StatementError::Syntax {
            expected: predicate_type::<P>(),
            error: "no `predicateType`".to_owned(),
        })?;
        if got != predicate_type::<P>() {
            return Err(StatementError::OtherType {
                expected: predicate_type::<P>(),
                got: got.chars().take(120).collect(),
            });
        }
        let wire: Wire<P> = serde_json::from_slice(payload).map_err(|error| syntax::<P>(&error))?;
        let statement = Self { subject: wire.subject, predicate: wire.predicate };
        if wire.statement_type != STATEMENT_TYPE || statement.encode()? != payload {
            return Err(StatementError::NotCanonical);
        }
        Ok(statement)
    }
}

impl Envelope {
    /// The statement's type URI as it claims it, for finding one's way before verification.
    #[must_use]
    pub fn claimed_type(&self) -> Option<String> {
        type_of(self.payload())
    }
}

fn type_of(payload: &[u8]) -> Option<String> {
    serde_json::from_slice::<TypeOnly>(payload).ok().map(|it| it.predicate_type)
}

fn syntax<P: Predicate>(error: &serde_json::Error) -> StatementError {
    StatementError::Syntax { expected: predicate_type::<P>(), error: error.to_string() }
}
