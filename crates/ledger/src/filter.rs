//! What somebody looks for.

use attest::{AccessMode, CountryCode, DataClass, OrganisationId, Purpose, ReaderKind, RegionId, StatementId};
use serde::{Deserialize, Serialize};
use stdx::UnixTime;

/// What a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// Somebody was about to read: an intent, with its outcome.
    Access,
    /// Somebody has asked.
    Request,
    /// Somebody has looked at who read what.
    Review,
    /// Private parts are to be deleted, or were.
    Redaction,
}

impl What {
    pub(crate) const ALL: [Self; 4] = [Self::Access, Self::Request, Self::Review, Self::Redaction];

    pub(crate) const fn code(self) -> u8 {
        self as u8
    }
}

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessState {
    /// An access under way: there is no outcome yet.
    Open,
    /// An access that has a result; a redaction that was approved.
    Done,
    /// An access without a result.
    Failed,
    /// Not every custodian gave its share.
    Refused,
    /// An access whose lease is over for long, without an outcome.
    Missing,
    /// A request that no intent names; a redaction without its approvals.
    Asked,
    /// A request that an intent names.
    Used,
    /// A review.
    Said,
}

impl AccessState {
    pub(crate) const ALL: [Self; 8] =
        [Self::Open, Self::Done, Self::Failed, Self::Refused, Self::Missing, Self::Asked, Self::Used, Self::Said];

    pub(crate) const fn code(self) -> u8 {
        self as u8
    }
}

/// What rows must be like. Of several values of one kind any is good, and an empty list means all. Its canonical
/// JSON is the `question` of a review.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// What it is; nothing here means accesses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub what: Vec<What>,
    /// A part of the reader's name, in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// The reader's organisation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub employer: Vec<OrganisationId>,
    /// A person, or a program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<ReaderKind>,
    /// What for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub purpose: Vec<Purpose>,
    /// Where.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub region: Vec<RegionId>,
    /// What kind of data.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub class: Vec<DataClass>,
    /// Whose data: one of these countries is named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub country: Vec<CountryCode>,
    /// From when on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<UnixTime>,
    /// Before when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixTime>,
    /// So many people have approved, or more,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approvals_min: Option<u8>,
    /// or fewer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approvals_max: Option<u8>,
    /// So many bytes were given out, or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_min: Option<u64>,
    /// So many rows were given out, or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows_min: Option<u64>,
    /// How it stands.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub state: Vec<AccessState>,
    /// How loud it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<AccessMode>,
    /// This very statement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<StatementId>,
}
