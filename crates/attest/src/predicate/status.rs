//! Negative facts, which need proof too: revocations, stops, and the short-lived `status` that
//! says which of them hold now.

use std::fmt;

use serde::{Deserialize, Serialize};
use stdx::{Digest, UnixTime};

use super::in_stream;
use crate::{Lane, Position, ProductId, ReleaseNumber, StatementId};

/// "These bytes must not be installed any more": its subjects are the bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// Where this stands.
    pub position: Position,
    /// The product they belong to.
    pub product: ProductId,
    /// The lowest release that may still be installed, where older ones go as well.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub floor: Option<ReleaseNumber>,
    /// Why.
    pub reason: String,
}

/// What a stop covers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StopScope {
    /// The whole lane.
    Lane(Lane),
    /// One product.
    Product(ProductId),
}

impl fmt::Display for StopScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lane(lane) => write!(f, "lane `{lane}`"),
            Self::Product(product) => write!(f, "product `{product}`"),
        }
    }
}

/// "Nothing new until this is lifted", or that it is lifted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// Where this stands.
    pub position: Position,
    /// What it covers.
    pub scope: StopScope,
    /// Whether the stop ends here.
    pub lifted: bool,
    /// Why.
    pub reason: String,
}

/// The lowest release of a product that may be installed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floor {
    /// The product.
    pub product: ProductId,
    /// Its lowest release.
    pub number: ReleaseNumber,
}

/// A rebuild that did not give the claimed bytes, as it stands in the supervisor's log for good.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mismatched {
    /// The product.
    pub product: ProductId,
    /// The version that was claimed.
    pub version: String,
    /// The `mismatch` statement.
    pub statement: StatementId,
}

/// "As of now, this is revoked and stopped, and nothing else": what endpoints and signers must
/// hold a fresh one of. Its subject is the lane (the digest of its name), so that it has one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Where this stands; the sequence is the status's own number.
    pub position: Position,
    /// The lane.
    pub lane: Lane,
    /// The policy in force when this was issued: who is shown a fresh status learns of every
    /// succession, whatever a mirror withholds.
    pub policy: StatementId,
    /// After this time a newer one is needed.
    pub expires: UnixTime,
    /// SHA-256 of content that must not be installed, ascending.
    pub revoked: Vec<Digest>,
    /// Floors, ascending by product.
    pub floors: Vec<Floor>,
    /// Stops in force, ascending.
    pub stops: Vec<StopScope>,
    /// Recent mismatches, ascending: they forbid nothing by themselves (what was not built twice
    /// alike is no release), but nobody who takes a status can be kept from learning of them.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub mismatches: Vec<Mismatched>,
}

impl Status {
    /// Whether `content` is revoked.
    #[must_use]
    pub fn revokes(&self, content: &Digest) -> bool {
        self.revoked.binary_search(content).is_ok()
    }

    /// Whether anything of `product` is stopped.
    #[must_use]
    pub fn stops(&self, product: &ProductId) -> bool {
        self.stops.iter().any(|scope| match scope {
            StopScope::Lane(lane) => *lane == self.lane,
            StopScope::Product(stopped) => stopped == product,
        })
    }

    /// The lowest release of `product` that may be installed.
    #[must_use]
    pub fn floor(&self, product: &ProductId) -> ReleaseNumber {
        self.floors.iter().find(|floor| floor.product == *product).map_or(ReleaseNumber::FIRST, |floor| floor.number)
    }

    /// Whether this forbids all that `other` forbids.
    #[must_use]
    pub fn forbids_all_of(&self, other: &Self) -> bool {
        other.revoked.iter().all(|content| self.revokes(content))
            && other.floors.iter().all(|floor| self.floor(&floor.product) >= floor.number)
            && other.stops.iter().all(|scope| self.stops.contains(scope))
    }

    /// Whether the lists are strictly ascending, as [`Status::revokes`] needs them.
    #[must_use]
    pub fn is_sorted(&self) -> bool {
        self.revoked.is_sorted_by(|left, right| left < right)
            && self.floors.is_sorted_by(|left, right| left.product < right.product)
            && self.stops.is_sorted_by(|left, right| left < right)
            && self.mismatches.is_sorted_by(|left, right| left < right)
    }
}

in_stream! {
    Revocation => "revocation/v1",
    Stop => "stop/v1",
    Status => "status/v1",
}
