//! Access to data: who asks, who agrees, what is about to be read by whom, and what came of it.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use stdx::{Digest, UnixTime};
use tlog::{TreeEdge, VerifierKey, leaf_hash};

use super::in_stream;
use crate::{BatchId, Commitment, CountryCode, DataClass, HostId, Position, Predicate, Purpose, RegionId, StatementId};

/// What is read at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Sealed objects.
    pub objects: u64,
    /// Rows that are given out.
    pub rows: u64,
    /// Bytes that are given out.
    pub bytes: u64,
}

impl Budget {
    /// Whether all of this is within `other`.
    #[must_use]
    pub const fn is_within(&self, other: &Self) -> bool {
        self.objects <= other.objects && self.rows <= other.rows && self.bytes <= other.bytes
    }
}

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReaderKind {
    /// A person.
    Person,
    /// A program.
    Service,
}

/// How loud a request is. Nothing else depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessMode {
    /// As every day.
    Ordinary,
    /// An emergency; reviewers look at each.
    BreakGlass,
}

/// The same code may ask the same question again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// SHA-256 of the code that may run.
    pub code: Digest,
    /// SHA-256 of the schema of what comes out.
    pub schema: Digest,
    /// How often.
    pub uses: u64,
}

/// "I want to read this": signed by a reader's key. Its subject is the query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessRequest {
    /// Where this stands.
    pub position: Position,
    /// Who, in private.
    pub reader: Commitment,
    /// A person, or a program.
    pub kind: ReaderKind,
    /// What for.
    pub purpose: Purpose,
    /// The ticket, in private.
    pub ticket: Commitment,
    /// Where.
    pub region: RegionId,
    /// What kind of data.
    pub class: DataClass,
    /// Whose, ascending.
    pub countries: Vec<CountryCode>,
    /// How much at most.
    pub budget: Budget,
    /// Until when.
    pub until: UnixTime,
    /// How loud.
    pub mode: AccessMode,
    /// For automation; without it the request is good for one intent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub standing: Option<Standing>,
}

/// "This may be read": signed by an approver's key. Its subject is the request's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessApproval {
    /// Where this stands.
    pub position: Position,
    /// The request.
    pub request: StatementId,
    /// What the approver has to say, in private.
    pub comment: Commitment,
}

/// Workers that share one intent, at most: each more is asked by, and asks, all others.
pub const WORKERS_MAX: usize = 8;

/// Who reads, by the SHA-256 of each worker's key as text, in the order of their slices. One worker is written as its
/// digest, several as a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WorkersForm", into = "WorkersForm")]
pub struct Workers(Vec<Digest>);

/// Why a list is none of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an intent names 1 to {WORKERS_MAX} different workers, one of them by its digest and several in a list")]
pub struct WorkersError;

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum WorkersForm {
    One(Digest),
    Several(Vec<Digest>),
}

impl Workers {
    /// This one.
    #[must_use]
    pub fn one(key: Digest) -> Self {
        Self(vec![key])
    }

    /// These, in the order of their slices.
    ///
    /// # Errors
    /// [`WorkersError`] when there are none or too many, or one stands twice.
    pub fn new(keys: Vec<Digest>) -> Result<Self, WorkersError> {
        let mut different = keys.clone();
        different.sort_unstable();
        different.dedup();
        let fits = (1..=WORKERS_MAX).contains(&keys.len()) && different.len() == keys.len();
        if fits { Ok(Self(keys)) } else { Err(WorkersError) }
    }

    /// Each worker's.
    #[must_use]
    pub fn keys(&self) -> &[Digest] {
        &self.0
    }

    /// Which of `objects`, ascending by name, the worker at `place` reads: nothing but the intent says so. No object is
    /// in two slices, and each is in one.
    #[must_use]
    pub const fn slice(&self, place: usize, objects: usize) -> Range<usize> {
        let count = self.0.len();
        place * objects / count..(place + 1) * objects / count
    }
}

impl TryFrom<WorkersForm> for Workers {
    type Error = WorkersError;

    fn try_from(form: WorkersForm) -> Result<Self, WorkersError> {
        match form {
            WorkersForm::One(key) => Ok(Self::one(key)),
            WorkersForm::Several(keys) if keys.len() > 1 => Self::new(keys),
            WorkersForm::Several(_) => Err(WorkersError),
        }
    }
}

impl From<Workers> for WorkersForm {
    fn from(Workers(keys): Workers) -> Self {
        match keys[..] {
            [key] => Self::One(key),
            _ => Self::Several(keys),
        }
    }
}

/// "These workers are about to read this": signed by the gateway. No custodian opens anything before it is
/// logged and witnessed. Its subject is the root of a Merkle tree (RFC 6962) over the SHA-256 of each
/// object's header, ascending by the objects' names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessIntent {
    /// Where this stands.
    pub position: Position,
    /// The policy in force.
    pub policy: StatementId,
    /// The request.
    pub request: StatementId,
    /// Where.
    pub region: RegionId,
    /// What kind of data.
    pub class: DataClass,
    /// Whose, ascending.
    pub countries: Vec<CountryCode>,
    /// By which keys: nobody else can use what is given out.
    #[serde(rename = "worker")]
    pub workers: Workers,
    /// How much. As many objects as the tree has leaves.
    pub budget: Budget,
    /// Until when.
    pub expires: UnixTime,
    /// Who reads, in private, where the request stands for several readers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reader: Option<Commitment>,
    /// The values for the query's parameters (canonical JSON), in private, where it has some.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub parameters: Option<Commitment>,
}

/// "Run my query now": signed by a reader's key, for the gateway alone; it stands in no log. Its subject is
/// the request's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessCall {
    /// The request.
    pub request: StatementId,
    /// Who, in private: for a request of one's own what the request says.
    pub reader: Commitment,
    /// The values for the query's parameters (canonical JSON), in private, where it has some.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub parameters: Option<Commitment>,
    /// When: a call is good for a minute, and once.
    pub time: UnixTime,
    /// 32 random bytes, of this call alone.
    pub nonce: Digest,
}

impl Predicate for AccessCall {
    const TYPE: &'static str = "access-call/v1";

    fn position(&self) -> Option<&Position> {
        None
    }
}

/// How an access ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// There is a result.
    Done,
    /// There is none.
    Failed,
    /// No custodian, or not every one, gave its share.
    Refused,
}

/// "This came of it": signed by the gateway. Its subject is the result, or the intent's if there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessOutcome {
    /// Where this stands.
    pub position: Position,
    /// The intent.
    pub intent: StatementId,
    /// How it ended.
    pub ended: Ended,
    /// Rows that were given out.
    pub rows: u64,
    /// Bytes that were given out.
    pub bytes: u64,
}

/// What is stopped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessStop {
    /// All of the region.
    Region,
    /// A kind of data.
    Class(DataClass),
    /// A request.
    Request(StatementId),
    /// A worker, by its enrolment.
    Worker(StatementId),
}

impl fmt::Display for AccessStop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Region => f.write_str("the region"),
            Self::Class(class) => write!(f, "class `{class}`"),
            Self::Request(request) => write!(f, "request {request}"),
            Self::Worker(worker) => write!(f, "worker {worker}"),
        }
    }
}

/// "As of now, this is stopped, and nothing else": no custodian opens anything without a fresh one. Its
/// subject is the region (the digest of its name).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionStatus {
    /// Where this stands; the sequence is the status's own number.
    pub position: Position,
    /// The policy in force.
    pub policy: StatementId,
    /// The region.
    pub region: RegionId,
    /// After this time a newer one is needed.
    pub expires: UnixTime,
    /// What is stopped, ascending.
    pub stopped: Vec<AccessStop>,
}

/// "This host may have workers": signed by the recorder of the gateway's organisation, after a ceremony.
/// Its subject is the code that it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerEnrolment {
    /// Where this stands.
    pub position: Position,
    /// The host.
    pub host: HostId,
    /// Its key.
    pub key: VerifierKey,
    /// Where it is.
    pub region: RegionId,
    /// Until when.
    pub until: UnixTime,
}

/// "This key is a worker's of mine today": signed by an enrolled host's key; it stands in no stream. Its
/// subject is the code that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerKey {
    /// The host's enrolment.
    pub enrolment: StatementId,
    /// The worker's key, as text (`docs/formats/seal.md`).
    pub key: String,
    /// Where it runs.
    pub region: RegionId,
    /// From when,
    pub from: UnixTime,
    /// until when: a day at most.
    pub until: UnixTime,
}

impl Predicate for WorkerKey {
    const TYPE: &'static str = "worker-key/v1";

    fn position(&self) -> Option<&Position> {
        None
    }
}

/// "I have it": signed by a recorder of whoever keeps a region's vault, for whoever sent a sealed object; it
/// stands in no stream. Its subject is the object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// Where it is kept.
    pub region: RegionId,
    /// Its bytes.
    pub bytes: u64,
}

impl Predicate for Receipt {
    const TYPE: &'static str = "receipt/v1";

    fn position(&self) -> Option<&Position> {
        None
    }
}

/// "For this intent I have written these objects anew, sealed as before": signed by an enrolled host's key, for
/// whoever keeps the region's vault; it stands in no stream. Its subjects are the objects (the intent's) and the
/// segment that was made of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rewriting {
    /// The host's enrolment, which names the code.
    pub enrolment: StatementId,
    /// The intent.
    pub intent: StatementId,
    /// Where.
    pub region: RegionId,
    /// What kind of data.
    pub class: DataClass,
    /// The segments that these objects are all of, by their SHA-256, ascending.
    pub replaced: Vec<Digest>,
    /// Events in what was made.
    pub events: u64,
    /// Events that stood there twice, to the byte, and stand there once now.
    pub doubles: u64,
    /// Objects whose content this code can't read, by the SHA-256 of their headers, ascending: they are in nothing that
    /// was made, and stay as they are.
    pub unread: Vec<Digest>,
    /// Objects whose events were in what was read and are not in what was made, since they are erased: ascending.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub left_out: Vec<BatchId>,
    /// How many events that are.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub omitted: u64,
    /// What the names of those objects were made of that a worker had made, ascending: all they held is in what was made,
    /// but for what is left out, and so anybody may have them erased.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub owners: Vec<Digest>,
}

impl Predicate for Rewriting {
    const TYPE: &'static str = "rewriting/v1";

    fn position(&self) -> Option<&Position> {
        None
    }
}

/// The root of a Merkle tree (RFC 6962) over objects: the SHA-256 of each one's header, ascending by the objects'
/// names. It is an intent's subject.
#[must_use]
pub fn objects_root(headers: impl IntoIterator<Item = Digest>) -> Digest {
    let mut edge = TreeEdge::new();
    for header in headers {
        edge.append(&leaf_hash(header.as_bytes()), |_, _| {});
    }
    Digest::from_bytes(*edge.head().root.as_bytes())
}

/// "So much have I opened": signed by a custodian. Its subject is the end of its chain of uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustodyReport {
    /// Where this stands.
    pub position: Position,
    /// The region.
    pub region: RegionId,
    /// Intents for which it has opened shares, ever.
    pub uses: u64,
    /// Shares that it has opened, ever: what an HSM has counted must not be more.
    pub opened: u64,
    /// Shares that it has moved into a table of its own, ever, before it destroyed a region's key.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub moved: u64,
    /// Intents whose lease is over, and that have no outcome, ascending.
    pub missing: Vec<StatementId>,
}

/// "These are to be erased": signed by a recorder of the gateway's organisation, for whoever has shown that they are
/// theirs. Its subject is the SHA-256 of the objects' names, each ended by a line feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErasureRequest {
    /// Where this stands.
    pub position: Position,
    /// The region that keeps them.
    pub region: RegionId,
    /// The objects, ascending.
    pub objects: Vec<BatchId>,
    /// When no vault may have them any more.
    pub deadline: UnixTime,
}

/// "I open these no more": signed by a custodian. Its subject is the request's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Erasure {
    /// Where this stands.
    pub position: Position,
    /// The request.
    pub request: StatementId,
    /// The region.
    pub region: RegionId,
    /// Rows that its own table had of them; that table and its key are destroyed.
    pub rows: u64,
    /// Until then a copy of this custodian's keys could still open its share, since it has them itself.
    pub horizon: UnixTime,
}

/// "I have looked at who read what": signed by an approver's key, before any private part is given out. Its
/// subject is the root of the log's tree with so many entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessReview {
    /// Where this stands.
    pub position: Position,
    /// Who looks, in private.
    pub reviewer: Commitment,
    /// What is looked for, in private.
    pub question: Commitment,
    /// How many entries of the log are looked at.
    pub entries: u64,
    /// SHA-256 of the key, as text, that private parts are sealed to: nobody else can read them.
    pub key: Digest,
    /// Until when they are given out.
    pub until: UnixTime,
}

/// "These private parts are to be taken away": signed by an approver's key, and nothing is taken before enough
/// others have agreed by [`AccessApproval`]s. Its subject is the statement that they belong to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessRedaction {
    /// Where this stands.
    pub position: Position,
    /// The statement.
    pub of: StatementId,
    /// Its commitments whose values and keys are deleted, ascending. They stay.
    pub fields: Vec<Commitment>,
    /// Why.
    pub reason: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

in_stream! {
    AccessReview => "access-review/v1",
    AccessRedaction => "access-redaction/v1",
    AccessRequest => "access-request/v1",
    AccessApproval => "access-approval/v1",
    AccessIntent => "access-intent/v1",
    AccessOutcome => "access-outcome/v1",
    RegionStatus => "region-status/v1",
    WorkerEnrolment => "worker-enrolment/v1",
    CustodyReport => "custody-report/v1",
    ErasureRequest => "erasure-request/v1",
    Erasure => "erasure/v1",
}
