//! What a gateway and a custodian say to each other about data that nobody opens without an entry.

use attest::{OrganisationId, RegionId, StatementId};
use serde::{Deserialize, Serialize};
use stdx::Digest;

/// "Open your shares of these": nothing in it is believed, all of it is checked
/// (`docs/formats/custody.md`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantRequest {
    /// A bundle with exactly the intent, its request, the approvals, the region's status and the
    /// worker's enrolment.
    pub evidence: String,
    /// The host's `worker-key` statement, a canonical envelope.
    pub worker: String,
    /// The headers of the objects as they stand in them (JSON, without the length before it), in
    /// base64, ascending by the objects' names.
    pub headers: Vec<String>,
}

/// A custodian's shares, each sealed to the worker: of all objects that were asked for, in that order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantAnswer {
    /// One for each object.
    pub granted: Vec<GrantedShare>,
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

/// How a custodian stands, for everybody to see: its reports in the log say the same, signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustodyState {
    /// Who.
    pub organisation: OrganisationId,
    /// For which region.
    pub region: RegionId,
    /// The policy that it goes by.
    pub policy: StatementId,
    /// Intents for which it has opened shares, ever.
    pub uses: u64,
    /// Shares that it has opened, ever.
    pub opened: u64,
    /// The end of its chain of uses.
    pub head: Digest,
    /// Intents that have no outcome yet.
    pub open: Vec<StatementId>,
    /// Those of them whose lease is over for long: each is an alarm.
    pub missing: Vec<StatementId>,
    /// The keys that it has, by the SHA-256 of their text.
    pub keys: Vec<Digest>,
}
