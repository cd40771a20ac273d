//! Data: what readers, approvers, the gateway, its workers and the custodians say to each other.
//!
//! A *signed text* is a canonical envelope, a *bundle* one of `docs/formats/statements.md`; both as text.

use std::collections::BTreeMap;
use std::io::Read;

use attest::{
    AccessMode, Budget, CountryCode, DataClass, Opening, OrganisationId, Position, Purpose, RegionId, StatementId,
    StreamName,
};
use serde::{Deserialize, Serialize};
use stdx::Digest;

use crate::client::BaseUrl;
use crate::error::ErrorBody;

/// Where a stream ends in a log, for writers who share one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamEnd {
    /// The stream.
    pub stream: StreamName,
    /// Its last entry, if it has one: its place, and its identity.
    pub last: Option<(Position, StatementId)>,
}

/// "I want to read this": a signed `access-request`, and what it says in private.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRequest {
    /// The signed text.
    pub envelope: String,
    /// The query, whose SHA-256 is the statement's subject.
    pub query: String,
    /// `reader` and `ticket`.
    pub openings: Vec<Opening>,
}

/// "This may be read": a signed `access-approval`, and what it says in private.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataApproval {
    /// The signed text.
    pub envelope: String,
    /// `comment`.
    pub openings: Vec<Opening>,
}

/// How a request stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRequestState {
    /// The request.
    pub id: StatementId,
    /// Its reader's organisation.
    pub organisation: OrganisationId,
    /// Ordinary, or break-glass.
    pub mode: AccessMode,
    /// What for.
    pub purpose: Purpose,
    /// Where.
    pub region: RegionId,
    /// What kind of data.
    pub class: DataClass,
    /// Whose.
    pub countries: Vec<CountryCode>,
    /// How much at most.
    pub budget: Budget,
    /// The signed request, as it stands in the log.
    pub envelope: String,
    /// The signed approvals so far.
    pub approvals: Vec<String>,
    /// Whose approvals are missing, and how many.
    pub missing: Vec<(OrganisationId, u64)>,
    /// Intents that were made for it.
    pub intents: Vec<StatementId>,
    /// The query and the openings: only for who may see them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub private: Option<PrivateParts>,
}

/// What lies beside the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrivateParts {
    /// The query.
    pub query: String,
    /// The private fields of the request.
    pub request: Vec<Opening>,
    /// The private fields of each approval.
    pub approvals: BTreeMap<StatementId, Vec<Opening>>,
}

/// A value for `$name` in a query.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Parameter {
    /// Yes or no.
    Boolean(bool),
    /// A number.
    Integer(i64),
    /// A text.
    Text(String),
}

/// The values for a query, by name. Their canonical JSON is what a call commits to.
pub type Parameters = BTreeMap<String, Parameter>;

/// "Run it now": a signed `access-call`, answered with a result stream ([`ResultReader`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataQuery {
    /// The signed text.
    pub call: String,
    /// `reader`, and `parameters` if the query has some.
    pub openings: Vec<Opening>,
    /// How the result is written.
    pub format: ResultFormat,
}

/// How a result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResultFormat {
    /// For people.
    Table,
    /// One object a line.
    Json,
    /// With a line of names.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
    /// A segment of sealed objects: what a [`Rewrite`] gives, and nothing else does.
    Sealed,
}

/// A query that is no SQL: objects are written anew, sealed as they were, and nothing is given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewrite {
    /// Endpoints' lines become columns.
    Compact,
}

impl Rewrite {
    /// The query's text, to the byte.
    #[must_use]
    pub const fn query(self) -> &'static str {
        match self {
            Self::Compact => "COMPACT\n",
        }
    }

    /// What `query` is, if it is one.
    #[must_use]
    pub fn of(query: &str) -> Option<Self> {
        (query == Self::Compact.query()).then_some(Self::Compact)
    }
}

/// A worker: `GET /v1/worker`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    /// The host's signed `worker-key`.
    pub key: String,
    /// A bundle with the host's `worker-enrolment`, as it was logged: the host has it from the ceremony.
    pub enrolment: String,
    /// SHA-256 of the program that runs.
    pub code: Digest,
}

/// "What would this need?"
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    /// The query.
    pub query: String,
    /// Its values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub parameters: Parameters,
    /// What kind of data.
    pub class: DataClass,
    /// Whose.
    pub countries: Vec<CountryCode>,
    /// As many objects as the request may open. A query that needs more is refused; a rewriting takes no more.
    pub objects: u64,
}

/// What a query needs, and what comes out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The sealed objects, ascending by `id`.
    pub objects: Vec<PlannedObject>,
    /// What comes out: each column's name and type.
    pub columns: Vec<(String, String)>,
    /// Bytes that are read at most.
    pub bytes: u64,
    /// SHA-256 of the result's schema: what a standing request is bound to.
    pub schema: Digest,
    /// Whether one worker must read it, however many there are; left out if not.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub is_for_one: bool,
}

/// A sealed object, and where the vault has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedObject {
    /// Its name.
    pub id: String,
    /// Its header, in base64.
    pub header: String,
    /// The segment that it is in,
    pub segment: Digest,
    /// from this byte on,
    pub at: u64,
    /// so many bytes.
    pub bytes: u64,
}

/// "Open your shares of these": nothing in it is believed, all of it is checked
/// (`docs/formats/custody.md`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantRequest {
    /// A bundle with exactly the intent, its request, the approvals, the region's status and the
    /// enrolment of each worker's host.
    pub evidence: String,
    /// The hosts' `worker-key` statements, canonical envelopes, in the intent's order.
    pub workers: Vec<String>,
    /// The headers of the objects as they stand in them (JSON, without the length before it), in
    /// base64, ascending by the objects' names.
    pub headers: Vec<String>,
    /// What opens the private fields of the statements, as far as it was not redacted: no custodian opens
    /// anything before it has a copy.
    pub openings: Vec<Opening>,
}

/// A custodian's shares, each sealed to the worker whose slice its object is in, in the order of the objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantAnswer {
    /// One for each object whose share opens.
    pub granted: Vec<GrantedShare>,
    /// Names of the others: their shares were never this custodian's, or their key is destroyed.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub closed: Vec<String>,
}

/// One share, sealed to the worker by HPKE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantedShare {
    /// The object's name.
    pub object: String,
    /// HPKE's encapsulated key, in base64.
    pub encapsulated: String,
    /// The sealed share, in base64.
    pub sealed: String,
}

/// "This came of it": closes the lease of the outcome's intent. Safe to repeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutcomeNote {
    /// A bundle with the logged outcome, and nothing else.
    pub outcome: String,
}

/// A region's status, for a custodian that shall not wait until it asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusNote {
    /// The region.
    pub region: RegionId,
    /// A bundle with the logged status, and nothing else.
    pub status: String,
}

/// What an owner wants erased, for a custodian.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErasureNote {
    /// The region.
    pub region: RegionId,
    /// A bundle with the logged request, and nothing else.
    pub evidence: String,
    /// For each object what its name was made of, in any order.
    pub owners: Vec<String>,
}

/// A custodian's logged word that it opens these no more, and until when it could.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErasureAnswer {
    /// A bundle with the statement, and nothing else.
    pub receipt: String,
}

/// What an owner wants erased, for a vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultErasure {
    /// A bundle with the logged request, and the logged `erasure` of a custodian at least.
    pub evidence: String,
}

/// What a vault has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultErased {
    /// Objects that are gone from it with this.
    pub erased: usize,
    /// Segments that were made of some of them by a worker, which must make them anew.
    pub made_of_them: Vec<Digest>,
}

/// How a custodian stands, for everybody to see: its reports in the log say the same, signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustodyState {
    /// Who.
    pub organisation: OrganisationId,
    /// The policy that it goes by.
    pub policy: StatementId,
    /// Each region whose custodian it is.
    pub regions: Vec<RegionCustody>,
}

/// What a custodian has opened of a region, and with what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionCustody {
    /// The region.
    pub region: RegionId,
    /// Intents for which it has opened shares, ever.
    pub uses: u64,
    /// Shares that it has opened, ever.
    pub opened: u64,
    /// The end of its chain of uses.
    pub head: Digest,
    /// Intents that have no outcome yet, ascending.
    pub open: Vec<StatementId>,
    /// Those of them whose lease is over for long: each is an alarm.
    pub missing: Vec<StatementId>,
}

/// "Now read it": answered with a result stream ([`ResultReader`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// The bundle that the custodians got.
    pub evidence: String,
    /// The query, whose SHA-256 is the request's subject.
    pub query: String,
    /// Its values, as the intent commits to them: JSON, or nothing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub parameters: Option<Opening>,
    /// The objects, as they were planned.
    pub objects: Vec<PlannedObject>,
    /// What each custodian has given.
    pub grants: BTreeMap<OrganisationId, GrantAnswer>,
    /// How the result is written.
    pub format: ResultFormat,
    /// Where all workers of the intent are, in its order; left out if there is one. The first leads.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub workers: Vec<RunWorker>,
}

/// A worker of an intent. Others believe nothing of it but that the intent names this key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunWorker {
    /// Where it is.
    pub url: BaseUrl,
    /// Its key, as text.
    pub key: String,
}

/// What came out: the last frame of a result stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultEnd {
    /// Rows that were given out.
    pub rows: u64,
    /// Bytes that were given out.
    pub bytes: u64,
    /// SHA-256 of these bytes.
    pub sha256: Digest,
    /// Sealed objects that hold no events of their class, and were passed over: endpoints can seal anything.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub unreadable: u64,
    /// Workers that have read it together; left out if it was one.
    #[serde(skip_serializing_if = "is_one", default = "one")]
    pub workers: u64,
    /// For a rewriting: what tells who has made it of what.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub made: Option<Made>,
    /// Why there is not all of it; nothing if there is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failed: Option<ErrorBody>,
}

impl ResultEnd {
    /// These rows, as bytes of this number and SHA-256, by one worker.
    #[must_use]
    pub const fn new(rows: u64, bytes: u64, sha256: Digest) -> Self {
        Self { rows, bytes, sha256, unreadable: 0, workers: 1, made: None, failed: None }
    }

    /// Nothing at all.
    #[must_use]
    pub fn nothing() -> Self {
        Self::new(0, 0, Digest::of(b""))
    }
}

/// A worker's word on what it has written anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// The host's signed `rewriting`.
    pub statement: String,
    /// The bundle that the custodians got: intent, request and enrolment, as they were logged.
    pub evidence: String,
}

/// What has taken the place of what, in a vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replaced {
    /// The intent under which it was read.
    pub intent: StatementId,
    /// What kind of data.
    pub class: DataClass,
    /// Segments that are gone,
    pub segments_before: u64,
    /// their objects,
    pub objects_before: u64,
    /// and bytes.
    pub bytes_before: u64,
    /// The segment that there is in their place,
    pub segment: Digest,
    /// its objects,
    pub objects: u64,
    /// and bytes.
    pub bytes: u64,
    /// Events in it.
    pub events: u64,
    /// Events that stood there twice.
    pub doubles: u64,
    /// Objects that could not be read, and stay as they are.
    pub unread: u64,
    /// Events that are not in it any more, since they were erased.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub omitted: u64,
}

const fn one() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_one(number: &u64) -> bool {
    *number == 1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A frame of a result stream: 4 bytes of length (big-endian) before it. An empty frame ends the result; one
/// with a [`ResultEnd`] in JSON follows. A stream without it was cut off.
pub const RESULT_FRAME_BYTES_MAX: usize = 1 << 20;

/// Reads a result stream.
pub struct ResultReader<R>(R);

/// A piece of a result stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResultPiece {
    /// Bytes of the result.
    Bytes(Vec<u8>),
    /// There are no more.
    End(ResultEnd),
}

impl<R: Read> ResultReader<R> {
    /// What `source` has.
    #[must_use]
    pub const fn new(source: R) -> Self {
        Self(source)
    }

    /// The next piece. After [`ResultPiece::End`] nothing is asked for any more.
    ///
    /// # Errors
    /// When the stream breaks off, or is none.
    pub fn piece(&mut self) -> std::io::Result<ResultPiece> {
        let frame = self.frame()?;
        if !frame.is_empty() {
            return Ok(ResultPiece::Bytes(frame));
        }
        Ok(ResultPiece::End(serde_json::from_slice(&self.frame()?)?))
    }

    fn frame(&mut self) -> std::io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > RESULT_FRAME_BYTES_MAX {
            return Err(std::io::Error::other(format!("a frame of {length} bytes")));
        }
        let mut frame = vec![0; length];
        self.0.read_exact(&mut frame)?;
        Ok(frame)
    }
}

/// A frame of a result, as it is sent. An empty one ends the result.
///
/// # Panics
/// Never: bytes are cut by who sends them, and `u32` has room for any that are.
#[must_use]
pub fn result_frame(bytes: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    frame.extend_from_slice(bytes);
    frame
}

/// The end of a result stream, as it is sent.
///
/// # Panics
/// Never: strings and integers are always JSON.
#[must_use]
pub fn result_end(end: &ResultEnd) -> Vec<u8> {
    let end = serde_json::to_vec(end).expect("strings and integers are always JSON");
    [result_frame(&[]), result_frame(&end)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_comes_back_in_pieces_and_a_cut_is_seen() {
        let end = ResultEnd::new(1, 3, Digest::of(b"abc"));
        let stream = [result_frame(b"ab"), result_frame(b"c"), result_end(&end)].concat();
        let mut reader = ResultReader::new(&stream[..]);
        let pieces: Vec<_> = (0..3).map(|_| reader.piece().unwrap()).collect();
        let bytes = |bytes: &[u8]| ResultPiece::Bytes(bytes.to_vec());
        assert_eq!(pieces, [bytes(b"ab"), bytes(b"c"), ResultPiece::End(end)]);
        for cut in 0..stream.len() {
            let mut reader = ResultReader::new(&stream[..cut]);
            assert!((0..3).any(|_| reader.piece().is_err()), "{cut}");
        }
        assert!(ResultReader::new(&u32::MAX.to_be_bytes()[..]).piece().is_err());
    }
}
