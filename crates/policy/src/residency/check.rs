//! What makes a residency policy acceptable.

use std::collections::{BTreeMap, BTreeSet};

use attest::{CountryCode, OrganisationId, RegionId};
use stdx::UnixTime;

use super::{ClassPolicy, Region, Residency};
use crate::{Policy, PolicyError, Role};

/// All countries could have a region each, and no list here is read by machines alone.
const REGIONS_MAX: usize = 32;
/// Each a page of countries; years of moving them about.
const ASSIGNMENTS_MAX: usize = 64;
const CLASSES_MAX: usize = 32;
const PURPOSES_MAX: usize = 32;
/// As `seal` has it.
const CUSTODIANS_MAX: usize = 8;
/// A policy is an entry of a log, which has at most 65,535 bytes: 25 keys of 1.7 KB fill it. So half a year of
/// weeks is told in advance at most.
const KEYS_MAX: usize = 26;

/// Why a residency policy is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ResidencyError {
    /// More than is ever needed, or nothing.
    #[error("{what}: {count}; there must be 1 to {limit}")]
    Count {
        /// Of what.
        what: String,
        /// How many.
        count: usize,
        /// At most.
        limit: usize,
    },
    /// One organisation alone could open a region's data.
    #[error("region `{0}` has {1} custodians; there must be 2 to {CUSTODIANS_MAX}")]
    Custodians(RegionId, usize),
    /// Whoever keeps the bytes could open them all once quantum computers come.
    #[error("region `{0}` has no custodian whose keys are all `x-wing`")]
    NotHybrid(RegionId),
    /// A key that ends before it begins, or runs beside the next one.
    #[error("region `{region}`, custodian `{custodian}`: the key from {from} is not over when the next one begins")]
    Overlap {
        /// The region.
        region: RegionId,
        /// The custodian.
        custodian: OrganisationId,
        /// The key.
        from: UnixTime,
    },
    /// One key for two custodians, regions or times: its loss would be theirs as well.
    #[error("region `{0}`, custodian `{1}`: a key stands twice")]
    EqualKeys(RegionId, OrganisationId),
    /// Two answers to where a country's data belongs.
    #[error("country `{country}` is assigned twice from {from}")]
    Twice {
        /// The country.
        country: CountryCode,
        /// From when on.
        from: UnixTime,
    },
    /// One spelling.
    #[error("the countries assigned to `{0}` from {1} are not ascending")]
    Order(RegionId, UnixTime),
}

impl Residency {
    pub(crate) fn check(&self, policy: &Policy) -> Result<(), PolicyError> {
        policy.check_log("residency", &self.log)?;
        count("regions", self.regions.len(), REGIONS_MAX)?;
        count("assignments", self.assignments.len(), ASSIGNMENTS_MAX)?;
        count("classes", self.classes.len(), CLASSES_MAX)?;
        crate::check::unique("region", self.regions.iter().map(|it| it.id.as_str()))?;
        crate::check::unique("class of data", self.classes.iter().map(|it| it.id.as_str()))?;
        let one =
            |organisation: &OrganisationId| vec![crate::Threshold { organisation: organisation.clone(), count: 1 }];
        policy.check_thresholds("residency, gateway", Role::Gateway, &one(&self.gateway))?;
        policy.check_thresholds("residency, status", Role::Status, &one(&self.status))?;
        policy.check_thresholds("residency, redaction", Role::Approver, &self.redaction)?;
        let mut keys = BTreeSet::new();
        for region in &self.regions {
            region.check(&mut keys)?;
            for custodian in &region.custodians {
                let what = format!("region `{}`", region.id);
                policy.check_thresholds(&what, Role::Custodian, &one(&custodian.organisation))?;
            }
        }
        self.check_assignments()?;
        for class in &self.classes {
            class.check(policy)?;
        }
        for (stream, organisation) in policy.residency_streams(self) {
            let opened = policy
                .streams
                .iter()
                .any(|it| it.stream.as_str() == stream && it.log == self.log && it.organisation == organisation);
            if !opened {
                let what = "residency".to_owned();
                return Err(PolicyError::Undefined { what, kind: "a stream", name: stream });
            }
        }
        Ok(())
    }

    fn check_assignments(&self) -> Result<(), PolicyError> {
        let mut seen = BTreeSet::new();
        for assignment in &self.assignments {
            if self.region(&assignment.region).is_none() {
                let name = assignment.region.to_string();
                return Err(PolicyError::Undefined { what: "an assignment".to_owned(), kind: "a region", name });
            }
            let countries = &assignment.countries;
            count(&format!("countries of `{}`", assignment.region), countries.len(), CountryCode::all().count())?;
            if !countries.is_sorted_by(|left, right| left < right) {
                return Err(ResidencyError::Order(assignment.region.clone(), assignment.from).into());
            }
            let twice = countries.iter().find(|country| !seen.insert((**country, assignment.from)));
            if let Some(country) = twice {
                return Err(ResidencyError::Twice { country: *country, from: assignment.from }.into());
            }
        }
        Ok(())
    }
}

impl Region {
    fn check<'a>(&'a self, keys: &mut BTreeSet<&'a str>) -> Result<(), PolicyError> {
        let custodians = self.custodians.len();
        if !(2..=CUSTODIANS_MAX).contains(&custodians) {
            return Err(ResidencyError::Custodians(self.id.clone(), custodians).into());
        }
        crate::check::unique("custodian", self.custodians.iter().map(|it| it.organisation.as_str()))?;
        for custodian in &self.custodians {
            let who = &custodian.organisation;
            count(&format!("keys of `{who}` in region `{}`", self.id), custodian.keys.len(), KEYS_MAX)?;
            for (at, key) in custodian.keys.iter().enumerate() {
                let next = custodian.keys.get(at + 1);
                if key.from >= key.until || next.is_some_and(|next| next.from < key.until) {
                    let (region, custodian, from) = (self.id.clone(), who.clone(), key.from);
                    return Err(ResidencyError::Overlap { region, custodian, from }.into());
                }
                if !keys.insert(key.key.as_str()) {
                    return Err(ResidencyError::EqualKeys(self.id.clone(), who.clone()).into());
                }
            }
        }
        if self.custodians.iter().any(|it| it.keys.iter().all(|key| key.key.is_hybrid())) {
            return Ok(());
        }
        Err(ResidencyError::NotHybrid(self.id.clone()).into())
    }
}

impl ClassPolicy {
    fn check(&self, policy: &Policy) -> Result<(), PolicyError> {
        let what = format!("class `{}`, approvals", self.id);
        policy.check_thresholds(&what, Role::Approver, &self.approvals)?;
        count(&format!("purposes of class `{}`", self.id), self.purposes.len(), PURPOSES_MAX)?;
        crate::check::unique("purpose", self.purposes.iter().map(attest::Purpose::as_str))?;
        let amounts: BTreeMap<&'static str, u64> = [
            ("retention_s", self.retention_s),
            ("lease_s", self.lease_s),
            ("objects_max", self.objects_max),
            ("rows_max", self.rows_max),
            ("bytes_max", self.bytes_max),
        ]
        .into();
        amounts.into_iter().try_for_each(|(what, amount)| crate::check::not_zero(what, amount))
    }
}

fn count(what: &str, count: usize, limit: usize) -> Result<(), ResidencyError> {
    if (1..=limit).contains(&count) {
        return Ok(());
    }
    Err(ResidencyError::Count { what: what.to_owned(), count, limit })
}
