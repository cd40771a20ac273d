//! For whom an owner's data is sealed: the policy says, and nobody else.

use attest::{BatchId, CountryCode, DataClass, OrganisationId, RegionId, StatementId};
use policy::{Region, Residency, SealingKey};
use stdx::{Entropy, UnixTime};

use crate::header::Bound;
use crate::key::PublicKey;
use crate::object::{Custodian, Custodians, SealError};
use crate::owner::OwnerSecret;

/// Where data of a country goes at a time: the region and its custodians.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    country: CountryCode,
    region: RegionId,
    policy: StatementId,
    classes: Vec<DataClass>,
    custodians: Custodians,
}

impl Destination {
    /// As `residency`, which the policy `policy` has, says for `at`.
    ///
    /// # Errors
    /// [`SealError::Unassigned`], [`SealError::NoKey`], [`SealError::Key`], and what
    /// [`Custodians::new`] refuses.
    pub fn new(
        residency: &Residency,
        policy: StatementId,
        country: CountryCode,
        at: UnixTime,
    ) -> Result<Self, SealError> {
        let region = residency.region_of(country, at).ok_or(SealError::Unassigned { country, at })?;
        Self::of(residency, policy, (region, country), at)
    }

    /// The same region again, for `country`'s data that lies there already and is written anew, if it was ever
    /// assigned to it: to the keys of `at`.
    ///
    /// # Errors
    /// As [`Destination::new`]'s.
    pub fn again(
        residency: &Residency,
        policy: StatementId,
        (region, country): (&RegionId, CountryCode),
        at: UnixTime,
    ) -> Result<Self, SealError> {
        let unassigned = || SealError::Unassigned { country, at };
        let was = residency.assignments.iter().any(|it| it.region == *region && it.countries.contains(&country));
        let region = residency.region(region).filter(|_| was).ok_or_else(unassigned)?;
        Self::of(residency, policy, (region, country), at)
    }

    fn of(
        residency: &Residency,
        policy: StatementId,
        (region, country): (&Region, CountryCode),
        at: UnixTime,
    ) -> Result<Self, SealError> {
        let custodians = region.keys_at(at)?.into_iter().map(|(who, key)| custodian(who, key));
        let custodians = Custodians::new(custodians.collect::<Result<_, _>>()?)?;
        let classes = residency.classes.iter().map(|it| it.id.clone()).collect();
        Ok(Self { country, region: region.id.clone(), policy, classes, custodians })
    }

    /// The region.
    #[must_use]
    pub const fn region(&self) -> &RegionId {
        &self.region
    }

    /// Seals data of `class` under a name that nobody has.
    ///
    /// # Errors
    /// [`SealError::Class`], [`SealError::TooLong`], [`SealError::Entropy`].
    pub fn seal(&self, class: &DataClass, plaintext: &[u8], entropy: &dyn Entropy) -> Result<Vec<u8>, SealError> {
        self.seal_as(BatchId::draw(entropy)?, class, plaintext, entropy)
    }

    /// Seals data of `class` under the name that `owner` gives it: who has that may have it erased.
    ///
    /// # Errors
    /// As [`Destination::seal`].
    pub fn seal_owned(
        &self,
        owner: &OwnerSecret,
        class: &DataClass,
        plaintext: &[u8],
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, SealError> {
        self.seal_as(owner.name(), class, plaintext, entropy)
    }

    fn seal_as(
        &self,
        id: BatchId,
        class: &DataClass,
        plaintext: &[u8],
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, SealError> {
        if !self.classes.contains(class) {
            return Err(SealError::Class(class.clone()));
        }
        let bound =
            Bound { id, region: self.region.clone(), country: self.country, class: class.clone(), policy: self.policy };
        self.custodians.seal(bound, plaintext, entropy)
    }
}

/// Whether every key of `residency` is one: a policy that nobody could seal by is not worth signing.
///
/// # Errors
/// [`SealError::Key`].
pub fn check_keys(residency: &Residency) -> Result<(), SealError> {
    let custodians = residency.regions.iter().flat_map(|it| &it.custodians);
    let keys = custodians.flat_map(|it| it.keys.iter().map(move |key| (&it.organisation, &key.key)));
    keys.into_iter().try_for_each(|(who, key)| custodian(who, key).map(drop))
}

fn custodian(who: &OrganisationId, key: &SealingKey) -> Result<Custodian, SealError> {
    let key: PublicKey = key.as_str().parse().map_err(|error| SealError::Key(who.clone(), error))?;
    Ok(Custodian { organisation: who.clone(), key })
}
