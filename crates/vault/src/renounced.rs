//! Objects that nobody opens any more: a custodian has logged that it erases them, after their owner has shown that they
//! are theirs. That is enough, since every custodian is needed to open anything.

use std::collections::BTreeSet;

use attest::{Bundle, Erasure, ErasureRequest, OrganisationId, RegionId, StatementId};
use bytes::Bytes;
use policy::Role;
use seal::BatchId;
use stdx::Digest;
use verify::{Evidence, Recorded, TrustedPolicy};

use crate::rewriting::recorded;

/// The logged request to erase objects of a region, and the logged word of a custodian there that it has. Only
/// [`Renounced::check`] makes one.
#[derive(Debug)]
pub struct Renounced {
    region: RegionId,
    objects: BTreeSet<BatchId>,
    evidence: Bytes,
}

/// Why nothing shows that objects are erased.
#[derive(Debug, thiserror::Error)]
pub enum NotRenounced {
    /// Not logged, not witnessed, not signed by whom it must be.
    #[error(transparent)]
    Evidence(#[from] verify::Refusal),
    /// No bundle.
    #[error("what is to show that objects are erased can't be read: {0}")]
    Form(String),
    /// The policy names no regions.
    #[error("the policy in force says nothing of data")]
    NoResidency,
    /// Nobody has said so.
    #[error("no custodian of the region has logged that it has erased what {0} names")]
    Kept(StatementId),
}

impl Renounced {
    /// Whether `evidence` is a bundle with one request, by a recorder of the gateway's, and the word of a custodian of that
    /// region for it.
    ///
    /// # Errors
    /// [`NotRenounced`], the first that is found.
    pub fn check(policy: &TrustedPolicy, evidence: &[u8]) -> Result<Self, NotRenounced> {
        let residency = policy.policy().residency.as_ref();
        let residency = residency.ok_or(NotRenounced::NoResidency)?;
        let bundle = Bundle::parse(evidence).map_err(|error| NotRenounced::Form(error.to_string()))?;
        let opened = Evidence::open(policy, &bundle)?;
        let request: Recorded<ErasureRequest> = opened.one(Role::Recorder)?;
        recorded(&request, Role::Recorder, residency, Some(&residency.gateway))?;
        let says = &request.statement().predicate;
        let custodians: Vec<&OrganisationId> = residency
            .region(&says.region)
            .into_iter()
            .flat_map(|it| &it.custodians)
            .map(|it| &it.organisation)
            .collect();
        let mut renounced = false;
        for word in opened.all::<Erasure>(Role::Custodian)? {
            recorded(&word, Role::Custodian, residency, None)?;
            let (by, of) = (word.signers().iter(), &word.statement().predicate);
            let is_custodian = by.map(|it| &it.organisation).any(|it| custodians.contains(&it));
            renounced |= is_custodian && of.request == request.id() && of.region == says.region;
        }
        if !renounced {
            return Err(NotRenounced::Kept(request.id()));
        }
        let objects = says.objects.iter().copied().collect();
        Ok(Self { region: says.region.clone(), objects, evidence: bundle.to_bytes().into() })
    }

    /// The region.
    #[must_use]
    pub const fn region(&self) -> &RegionId {
        &self.region
    }

    /// The objects.
    #[must_use]
    pub const fn objects(&self) -> &BTreeSet<BatchId> {
        &self.objects
    }

    /// The bundle.
    pub(crate) const fn evidence(&self) -> &Bytes {
        &self.evidence
    }

    /// What it is called.
    pub(crate) fn name(&self) -> Digest {
        Digest::of(&self.evidence)
    }
}
