//! Requests and responses.

use attest::{Lane, ProductId, Ring};
use serde::{Deserialize, Serialize};
use stdx::Digest;
use tlog::EntryIndex;

/// Where things are.
pub mod path {
    /// `POST`: append an entry to a log; answers [`crate::Appended`] once it is witnessed.
    pub const ENTRIES: &str = "/v1/entries";
    /// `POST`: append several, as a list of texts; answers a list of [`crate::Appended`].
    pub const ENTRY_BATCHES: &str = "/v1/entries/batch";
    /// `POST`: ask for a rebuild. `GET …/{ticket}`: how it stands.
    /// `PUT …/{ticket}/objects/{sha256}`: an object that the rebuild wants.
    pub const REBUILDS: &str = "/v1/rebuilds";
    /// `POST`: ask for the second signature under a `result`.
    pub const RESULTS: &str = "/v1/results";
    /// `POST`: ask for the second signature under a `release` or `promotion`.
    pub const RELEASES: &str = "/v1/releases";
    /// `POST`: assemble rules. `POST …/{ticket}/files`: what the assembly wants.
    /// `POST …/{ticket}/result`: ask for the second signature under their `result`.
    pub const RULES: &str = "/v1/rules";
    /// `POST`: a canary's signed health report.
    pub const REPORTS: &str = "/v1/health";
    /// `GET`: [`crate::Baked`] releases of rules, which may be promoted.
    pub const BAKES: &str = "/v1/bakes";
    /// `POST`: a sealed batch of what an endpoint shares; answers with an envelope, the signed `receipt`.
    pub const EVENTS: &str = "/v1/events";
    /// `GET …/{region}/manifests/{number}`: a manifest of the vault (`docs/formats/vault.md`); 404 as long as
    /// there is none. `GET …/{region}/segments/{class}/{sha256}`: a segment, or one `Range` of it.
    pub const VAULT: &str = "/v1/vault";
    /// `POST`: [`crate::VaultErasure`]; answers [`crate::VaultErased`].
    pub const VAULT_ERASURES: &str = "/v1/vault/erasures";
    /// `POST`: [`crate::GrantRequest`] to a custodian; answers [`crate::GrantAnswer`].
    pub const GRANTS: &str = "/v1/custody/grants";
    /// `POST`: [`crate::OutcomeNote`] to a custodian.
    pub const OUTCOMES: &str = "/v1/custody/outcomes";
    /// `POST`: [`crate::StatusNote`] to a custodian.
    pub const STATUSES: &str = "/v1/custody/statuses";
    /// `POST`: [`crate::ErasureNote`] to a custodian; answers [`crate::ErasureAnswer`].
    pub const ERASURES: &str = "/v1/custody/erasures";
    /// `GET`: a custodian's [`crate::CustodyState`].
    pub const CUSTODY: &str = "/v1/custody";
    /// `GET …/{region}`: the region's current `region-status`, as a bundle.
    pub const REGIONS: &str = "/v1/regions";
    /// `POST …/{stream}`: where a stream ends in this log ([`crate::StreamEnd`]), for writers who share one. No
    /// `GET`: only the process that sequences knows.
    pub const STREAMS: &str = "/v1/streams";
    /// `POST`: [`crate::DataRequest`], logged. `GET …[/{id}]`: how they stand. `POST …/{id}`: a signed call; the
    /// same with its private parts.
    pub const DATA_REQUESTS: &str = "/v1/data/requests";
    /// `POST`: [`crate::DataApproval`], logged.
    pub const DATA_APPROVALS: &str = "/v1/data/approvals";
    /// `POST`: [`crate::DataQuery`]; answers a result stream.
    pub const DATA_QUERIES: &str = "/v1/data/queries";
    /// `GET`: a [`crate::Worker`].
    pub const WORKER: &str = "/v1/worker";
    /// `POST`: [`crate::PlanRequest`]; answers a [`crate::Plan`].
    pub const PLAN: &str = "/v1/plan";
    /// `POST`: [`crate::RunRequest`]; answers a result stream.
    pub const RUN: &str = "/v1/run";
    /// `POST`, between workers of one intent: begins a session (`docs/formats/worker.md`).
    pub const HOPS: &str = "/v1/hops";
    /// `POST`, in such a session: a question, answered by a stream of frames.
    pub const QUESTIONS: &str = "/v1/hops/questions";
    /// `POST`: openings of private fields, with the logged statements that commit to them.
    pub const OPENINGS: &str = "/v1/ledger/openings";
    /// `POST`: a logged review; answers openings, sealed to its key.
    pub const DISCLOSURES: &str = "/v1/ledger/disclosures";
    /// `POST`: a logged, approved redaction; what it names is deleted.
    pub const REDACTIONS: &str = "/v1/ledger/redactions";
    /// `POST`: which objects an intent names. `GET /addenda/{ab}/{cd}/{root}`: the same, by their root.
    pub const OBJECT_LISTS: &str = "/v1/ledger/objects";
    /// `GET …/{lane}`: the lane's current status, as a bundle.
    pub const STATUS: &str = "/v1/status";
    /// `GET`: whether the process serves.
    pub const HEALTH: &str = "/healthz";
    /// `GET`: whether it can do its work now; if not (503), why.
    pub const READY: &str = "/readyz";
}

/// An entry's place in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Appended {
    /// Its index.
    pub index: EntryIndex,
    /// Its C2SP tlog-proof under a cosigned checkpoint, as text.
    pub proof: String,
}

/// "Assemble these rules": what the vendor has logged. Of the vendor the supervisor takes the files
/// of the tree, by digest; it answers with no digest of what comes out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RulesRequest {
    /// A bundle with the vendor's logged `source` statement.
    pub source: String,
    /// The tree's manifest (`docs/formats/build.md`), whose SHA-256 the statement names.
    pub manifest: String,
}

/// How an assembly of rules stands. Its ticket is the `source` statement's identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase", deny_unknown_fields)]
pub enum RulesState {
    /// These files are missing: `POST` them all.
    Wanting {
        /// Their digests.
        objects: Vec<Digest>,
    },
    /// The supervisor has assembled them.
    Assembled {
        /// A bundle with its logged `refusal`, if it finds them not fit for the fast lane.
        refusal: Option<String>,
    },
}

/// A release of rules that fared well for long enough in its ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baked {
    /// The product.
    pub product: ProductId,
    /// Its version.
    pub version: String,
    /// The ring that it was in.
    pub ring: Ring,
    /// A bundle with the logged `bake` statement.
    pub bundle: String,
}

/// "Rebuild this": what the vendor claims. The rebuilder resolves every input by itself; of the
/// vendor it takes the recipe, a git source's files and the claimed outputs, all by digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RebuildRequest {
    /// A bundle with the vendor's logged `source` statement.
    pub source: String,
    /// The vendor's signed SLSA provenance, a canonical envelope whose subjects are the outputs.
    pub provenance: String,
    /// The build record (`docs/formats/build.md`), canonical JSON.
    pub record: String,
    /// The recipe, `assembly.toml`.
    pub recipe: String,
    /// Its lock, `assembly.lock`.
    pub lock: String,
}

/// How a rebuild stands. Its ticket is the SHA-256 of the request's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase", deny_unknown_fields)]
pub enum RebuildState {
    /// These objects are missing: `PUT` each, then ask again.
    Wanting {
        /// Their digests.
        objects: Vec<Digest>,
    },
    /// Nobody works at it yet.
    Queued,
    /// Somebody does.
    Running {
        /// What is being done, for people.
        step: String,
    },
    /// The same bytes. The VSA stands in the supervisor's log.
    Matched {
        /// A bundle with the VSA.
        vsa: String,
    },
    /// Other bytes, or none. The `mismatch` stands in the supervisor's log, for good.
    Mismatched {
        /// A bundle with the `mismatch`.
        mismatch: String,
        /// The diagnosis, for people.
        diagnosis: String,
    },
    /// The rebuilder could not do its work; says nothing about the product. Ask again.
    Failed {
        /// Why.
        reason: String,
    },
}

/// "Sign this `result` too": its envelope carries the vendor's signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DraftRequest {
    /// The rebuild that it rests on.
    pub ticket: Digest,
    /// The envelope.
    pub envelope: String,
}

/// "Sign this `release` (or `promotion`) too."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRequest {
    /// The lane.
    pub lane: Lane,
    /// The envelope with the vendor's signature.
    pub envelope: String,
    /// A bundle with the result and the approvals (for a promotion: with the release as well).
    pub evidence: String,
}

/// Whether a process serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The role.
    pub role: String,
    /// The version of the program.
    pub version: String,
}
