//! The canary ring: who goes first, how they fare, and when it was long enough.

use serde::{Deserialize, Serialize};
use stdx::{Digest, UnixTime};
use tlog::VerifierKey;

use super::in_stream;
use crate::{HostId, Position, Predicate, ProductId, Ring, StatementId, Subject};

/// What an owner agrees to. Another wording is another agreement.
const TEXT: &str = "This host installs new detection rules before others do. After each of them, and from time to \
time, it sends a signed report to the supervisor: which release it uses, whether the rules could be compiled and \
passed the self-test, how often the scanner crashed, and how many detections there were. A report names no file, no \
rule and no person. The supervisor keeps reports, and publishes their counts. The agreement ends when the owner says \
so, and at the time that it names.\n";

/// "My host may go first": signed by the host's own key, for its owner. It stands in no stream;
/// the supervisor keeps it by its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agreement {
    /// What the host is called, by its owner's choice.
    pub host: HostId,
    /// The host's key, which signs this and its reports.
    pub key: VerifierKey,
    /// When the owner agreed.
    pub time: UnixTime,
    /// Until when.
    pub until: UnixTime,
}

impl Agreement {
    /// What is agreed to; the subject of an agreement and of an enrolment.
    #[must_use]
    pub const fn text() -> &'static str {
        TEXT
    }

    /// The text as a subject.
    #[must_use]
    pub fn subject() -> Subject {
        Subject::new("agreement", Digest::of(TEXT.as_bytes()))
    }
}

impl Predicate for Agreement {
    const TYPE: &'static str = "agreement/v1";

    fn position(&self) -> Option<&Position> {
        None
    }
}

/// "Reports of this host count from now on": signed by the supervisor's recorder. A later one of
/// the same host takes its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    /// Where this stands.
    pub position: Position,
    /// The host.
    pub host: HostId,
    /// Its key.
    pub key: VerifierKey,
    /// The owner's agreement.
    pub agreement: StatementId,
    /// Until when reports count.
    pub until: UnixTime,
}

/// "Reports of this host count no more", before its agreement has run out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentEnd {
    /// Where this stands.
    pub position: Position,
    /// The host.
    pub host: HostId,
    /// Its enrolment.
    pub enrolment: StatementId,
    /// Why.
    pub reason: String,
}

/// What became of rules on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// They are in use.
    Active,
    /// They could not be compiled; the ones before are in use.
    NotCompiled,
    /// They compiled, but did not find what they must, or found what they must not.
    SelfTestFailed,
    /// They were in use, and given up after too many crashes.
    RolledBack,
}

/// "This is how the rules fare here": signed by an enrolled host's key. It stands in no stream, so
/// it counts itself. Its subjects are the release's artifacts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// The enrolment, which names the key: a report for one supervisor is none for another.
    pub enrolment: StatementId,
    /// Larger with each report under this enrolment, so that none counts twice.
    pub sequence: u64,
    /// When it was made, by the host's clock.
    pub time: UnixTime,
    /// The product.
    pub product: ProductId,
    /// The release.
    pub release: StatementId,
    /// The ring that the host is in.
    pub ring: Ring,
    /// What became of it.
    pub outcome: Outcome,
    /// Crashes of the scanner with this release so far.
    pub crashes: u64,
    /// Detections with this release so far.
    pub detections: u64,
}

impl Predicate for Health {
    const TYPE: &'static str = "health/v1";

    fn position(&self) -> Option<&Position> {
        None
    }
}

/// "This release has been in this ring for long enough, and fares well": signed by the
/// supervisor's recorder. Without one it is promoted no further. Its subjects are the release's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bake {
    /// Where this stands.
    pub position: Position,
    /// The product.
    pub product: ProductId,
    /// The release.
    pub release: StatementId,
    /// The ring that it was in.
    pub ring: Ring,
    /// Since when.
    pub since: UnixTime,
    /// Different hosts whose last report in that time was good.
    pub healthy: u64,
    /// Detections of all of them.
    pub detections: u64,
}

in_stream! {
    Enrolment => "enrolment/v1",
    EnrolmentEnd => "enrolment-end/v1",
    Bake => "bake/v1",
}
