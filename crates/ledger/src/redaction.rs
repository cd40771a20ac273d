//! When private parts may be deleted.

use std::collections::BTreeSet;

use attest::{AccessApproval, AccessRedaction, Commitment, StatementId};
use policy::{Missing, Policy, Role};
use verify::Evidence;

/// Why nothing is deleted.
#[derive(Debug, thiserror::Error)]
pub enum RedactionError {
    /// The evidence does not hold.
    #[error(transparent)]
    Evidence(#[from] verify::Refusal),
    /// The policy says of nobody that they may.
    #[error("the policy lets nobody delete private parts (`residency.redaction`)")]
    Never,
    /// It stands in another log, or holds something else.
    #[error("redaction {0}: {1}")]
    Unfit(StatementId, &'static str),
    /// Too few have agreed.
    #[error("redaction {id} lacks approvals")]
    NotApproved {
        /// The redaction.
        id: StatementId,
        /// What is missing.
        source: Missing,
    },
}

/// Private parts whose deletion is logged and approved. Only [`Redacting::of`] makes one.
#[derive(Clone, Debug)]
pub struct Redacting {
    redaction: StatementId,
    fields: Vec<Commitment>,
}

impl Redacting {
    /// What `evidence` (a redaction and its approvals, nothing else) lets holders delete.
    ///
    /// # Errors
    /// [`RedactionError`].
    pub fn of(evidence: &Evidence<'_>) -> Result<Self, RedactionError> {
        let residency = evidence.policy().policy().residency.as_ref().ok_or(RedactionError::Never)?;
        if residency.redaction.is_empty() {
            return Err(RedactionError::Never);
        }
        let redaction = evidence.one::<AccessRedaction>(Role::Approver)?;
        let id = redaction.id();
        let approvals = evidence.all::<AccessApproval>(Role::Approver)?;
        if evidence.checkpoints().any(|checkpoint| *checkpoint.origin() != residency.log) {
            return Err(RedactionError::Unfit(id, "it stands in another log"));
        }
        if evidence.entries() != approvals.len() + 1 {
            return Err(RedactionError::Unfit(id, "holds entries that nobody asked for"));
        }
        if approvals.iter().any(|approval| approval.statement().predicate.request != id) {
            return Err(RedactionError::Unfit(id, "an approval is of something else"));
        }
        let signers: BTreeSet<_> = approvals.iter().flat_map(|approval| approval.signers().iter().cloned()).collect();
        Policy::decide(Role::Approver, &residency.redaction, &signers)
            .map_err(|source| RedactionError::NotApproved { id, source })?;
        Ok(Self { redaction: id, fields: redaction.statement().predicate.fields.clone() })
    }

    /// The redaction.
    #[must_use]
    pub const fn redaction(&self) -> StatementId {
        self.redaction
    }

    /// What is deleted.
    #[must_use]
    pub fn fields(&self) -> &[Commitment] {
        &self.fields
    }
}
