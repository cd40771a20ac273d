//! What an entry says about access to data, and whether who says it may.

use std::collections::BTreeSet;

use attest::{
    AccessApproval, AccessIntent, AccessOutcome, AccessRedaction, AccessRequest, AccessReview, CustodyReport,
    OrganisationId, Predicate, Statement, StatementId, predicate_type,
};
use policy::{Role, Signer};
use serde::{Deserialize, Serialize};
use verify::{Judged, TrustedPolicy};

/// What is wrong, as the log shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// The entry, if it is one entry.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub entry: Option<u64>,
    /// Which kind.
    pub kind: FindingKind,
    /// In words.
    pub detail: String,
}

/// Kinds of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// No entry of a stream that the policy opens, or signed by nobody who may say this.
    Entry,
    /// A number of a stream is missing, was there before, or doesn't name the one before it.
    Gap,
    /// A stream is silent for longer than it may be.
    Silent,
    /// An intent for a request that is not logged before it, or is over.
    NoRequest,
    /// An intent without the approvals that its class needs.
    NotApproved,
    /// An intent that names more than its request, or an outcome with more than its intent.
    Budget,
    /// A lease is over for long, and nobody says what came of it.
    NoOutcome,
    /// An outcome of no intent, or a second one.
    NoIntent,
    /// A custodian has opened more than the log has intents for.
    OpenedMore,
    /// A custodian has opened less than it must have, or less than it had before.
    OpenedLess,
}

/// What an entry says.
pub(crate) enum Fact {
    Request(Said<AccessRequest>),
    Approval(Said<AccessApproval>),
    Intent(Said<AccessIntent>),
    Outcome(Said<AccessOutcome>),
    Review(Said<AccessReview>),
    Redaction(Said<AccessRedaction>),
    Report(Said<CustodyReport>),
}

/// A statement, signed by its stream's organisation in the right role.
pub(crate) struct Said<P> {
    pub(crate) id: StatementId,
    pub(crate) statement: Statement<P>,
    pub(crate) by: OrganisationId,
    pub(crate) signers: BTreeSet<Signer>,
}

impl Fact {
    /// Reads an entry; `None` if it is about something else.
    ///
    /// # Errors
    /// Why it counts for nothing, in words.
    pub(crate) fn read(policy: &TrustedPolicy, judged: &Judged) -> Result<Option<Self>, String> {
        let Some(claimed) = judged.envelope.claimed_type() else { return Ok(None) };
        let is = |expected: String| claimed == expected;
        Ok(Some(if is(predicate_type::<AccessRequest>()) {
            Self::Request(said(policy, judged, "data", Role::Reader)?)
        } else if is(predicate_type::<AccessApproval>()) {
            Self::Approval(said(policy, judged, "data", Role::Approver)?)
        } else if is(predicate_type::<AccessIntent>()) {
            Self::Intent(said(policy, judged, "access", Role::Gateway)?)
        } else if is(predicate_type::<AccessOutcome>()) {
            Self::Outcome(said(policy, judged, "access", Role::Gateway)?)
        } else if is(predicate_type::<AccessReview>()) {
            Self::Review(said(policy, judged, "data", Role::Approver)?)
        } else if is(predicate_type::<AccessRedaction>()) {
            Self::Redaction(said(policy, judged, "data", Role::Approver)?)
        } else if is(predicate_type::<CustodyReport>()) {
            Self::Report(said(policy, judged, "custody", Role::Custodian)?)
        } else {
            return Ok(None);
        }))
    }
}

fn said<P: Predicate>(
    policy: &TrustedPolicy,
    judged: &Judged,
    stream: &'static str,
    role: Role,
) -> Result<Said<P>, String> {
    let verified = policy.verify::<P>(&judged.envelope, role).map_err(|error| error.to_string())?;
    let name = judged.position.stream.as_str();
    let by = name.strip_prefix(stream).and_then(|rest| rest.strip_prefix('/'));
    let by: OrganisationId = by
        .and_then(|by| by.parse().ok())
        .ok_or_else(|| format!("a `{}` in the stream `{name}`", predicate_type::<P>()))?;
    if !verified.signers().iter().any(|signer| signer.organisation == by) {
        return Err(format!("no `{role}` key of `{by}` has signed it"));
    }
    let (id, statement, signers) = (verified.id(), verified.statement().clone(), verified.signers().clone());
    Ok(Said { id, statement, by, signers })
}
