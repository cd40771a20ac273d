//! Which objects are taken: what the policy in force lets endpoints seal, for a region that is kept here.

use std::collections::{BTreeMap, BTreeSet};

use attest::{CountryCode, DataClass, OrganisationId, RegionId, StatementId};
use policy::{ClassPolicy, Region, Residency};
use seal::{BatchId, Header, OpenError};
use stdx::Digest;

/// Why an object is not taken; it never will be, as it is.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Not sealed, or not whole.
    #[error("not a sealed object")]
    Form(#[from] OpenError),
    /// Sealed for a region that is not kept here.
    #[error("object {0} is sealed for region `{1}`, which is not kept here")]
    Region(BatchId, RegionId),
    /// The policy assigns the country to another region, or to none.
    #[error("object {0} is from `{1}`, which the policy does not assign to region `{2}`")]
    Country(BatchId, CountryCode, RegionId),
    /// A kind of data that the policy lacks.
    #[error("object {0} is of class `{1}`, which the policy lacks")]
    Class(BatchId, DataClass),
    /// Sealed by a policy that did not lead to the one in force.
    #[error("object {0} was sealed under {1}, which is no policy that led to the one in force")]
    Policy(BatchId, StatementId),
    /// Not sealed to the custodians of its region: nobody could open it, or somebody else could.
    #[error("object {0} is not sealed to the custodians of its region")]
    Custodians(BatchId),
    /// Another object has its name.
    #[error("there is another object with the name {0}")]
    Name(BatchId),
}

/// What is taken.
#[derive(Clone, Debug)]
pub struct Admission {
    regions: BTreeMap<RegionId, Keys>,
    countries: BTreeSet<(CountryCode, RegionId)>,
    /// Each with how many objects one grant opens.
    classes: BTreeMap<DataClass, usize>,
    policies: BTreeSet<StatementId>,
}

/// A region's custodians, with every key that anything is sealed to.
type Keys = BTreeMap<OrganisationId, BTreeSet<Digest>>;

impl Admission {
    /// What `residency` says, for the regions that are kept here; `policies` are the one in force and those
    /// that led to it.
    #[must_use]
    pub fn new(residency: &Residency, kept: &BTreeSet<RegionId>, policies: BTreeSet<StatementId>) -> Self {
        let regions = residency.regions.iter().filter(|region| kept.contains(&region.id));
        let assigned = residency
            .assignments
            .iter()
            .flat_map(|assignment| assignment.countries.iter().map(|country| (*country, assignment.region.clone())));
        Self {
            regions: regions.map(|region| (region.id.clone(), keys(region))).collect(),
            countries: assigned.collect(),
            classes: residency.classes.iter().map(|class| (class.id.clone(), objects_max(class))).collect(),
            policies,
        }
    }

    /// Name and region of `object`, if it is taken. Its content can't be looked at.
    pub(crate) fn admit(&self, object: &[u8]) -> Result<(BatchId, RegionId), Refused> {
        let (header, start) = Header::parse(object)?;
        let (id, region) = (header.bound.id, &header.bound.region);
        let found = (object.len() as u64).saturating_sub(start as u64);
        if found != header.frames_bytes() {
            return Err(OpenError::Length { expected: header.frames_bytes(), found }.into());
        }
        let keys = self.regions.get(region).ok_or_else(|| Refused::Region(id, region.clone()))?;
        if !self.countries.contains(&(header.bound.country, region.clone())) {
            return Err(Refused::Country(id, header.bound.country, region.clone()));
        }
        if !self.classes.contains_key(&header.bound.class) {
            return Err(Refused::Class(id, header.bound.class));
        }
        if !self.policies.contains(&header.bound.policy) {
            return Err(Refused::Policy(id, header.bound.policy));
        }
        let sealed_to_all = header.shares.len() == keys.len()
            && header.shares.iter().all(|share| keys.get(&share.custodian).is_some_and(|it| it.contains(&share.key)));
        if !sealed_to_all {
            return Err(Refused::Custodians(id));
        }
        Ok((id, header.bound.region))
    }

    /// How many objects of each class one grant opens.
    pub(crate) const fn objects_max(&self) -> &BTreeMap<DataClass, usize> {
        &self.classes
    }

    /// Whether this region is kept here.
    #[must_use]
    pub fn keeps(&self, region: &RegionId) -> bool {
        self.regions.contains_key(region)
    }

    /// The regions that are kept here.
    pub(crate) fn regions(&self) -> impl Iterator<Item = &RegionId> {
        self.regions.keys()
    }
}

fn objects_max(class: &ClassPolicy) -> usize {
    usize::try_from(class.objects_max).unwrap_or(usize::MAX).max(1)
}

fn keys(region: &Region) -> Keys {
    let custodians = region.custodians.iter().map(|custodian| {
        let keys = custodian.keys.iter().map(|key| Digest::of(key.key.as_str().as_bytes()));
        (custodian.organisation.clone(), keys.collect())
    });
    custodians.collect()
}
