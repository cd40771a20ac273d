//! What is released, and to whom.

use serde::{Deserialize, Serialize};
use stdx::{Digest, UnixTime};

use super::in_stream;
use crate::{Lane, Position, ProductId, ReleaseNumber, Ring, StatementId};

/// "These bytes may be installed": its subjects are the artifacts, a subset of the result's.
/// Vendor and supervisor sign the same payload. It is the manifest of DESIGN section 4.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Where this stands.
    pub position: Position,
    /// What is released.
    pub product: ProductId,
    /// Its version, for people.
    pub version: String,
    /// Its number; one more than the previous release's.
    pub number: ReleaseNumber,
    /// The release before it; absent only for the first.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub previous: Option<StatementId>,
    /// The lane that it went through.
    pub lane: Lane,
    /// The widest ring that it is for, until a promotion widens it.
    pub ring: Ring,
    /// The `result` that both builders signed.
    pub result: StatementId,
    /// The policy under which it was released.
    pub policy: StatementId,
    /// Sizes of the artifacts, and the deltas that lead to them; one for each subject, in order.
    pub artifacts: Vec<Artifact>,
    /// Not to be installed before this time.
    pub not_before: UnixTime,
    /// Not to be newly installed after this time.
    pub expires: UnixTime,
    /// The lowest engine release that can use it, where it needs one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub minimum_engine: Option<ReleaseNumber>,
}

/// What the manifest says of one artifact besides its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// Size in bytes.
    pub size: u64,
    /// Patches that lead to it.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub deltas: Vec<Delta>,
}

/// A patch, pinned at both ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delta {
    /// SHA-256 of the artifact that it starts from; the other end is the subject.
    pub from: Digest,
    /// SHA-256 of the patch.
    pub patch: Digest,
    /// Size of the patch in bytes.
    pub size: u64,
}

/// "This release may go to that ring now": signed like a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promotion {
    /// Where this stands.
    pub position: Position,
    /// The product.
    pub product: ProductId,
    /// The release.
    pub release: StatementId,
    /// The ring it goes to.
    pub ring: Ring,
}

in_stream! {
    Release => "release/v1",
    Promotion => "promotion/v1",
}
