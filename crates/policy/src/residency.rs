//! Where whose data lies, who must be asked before anybody reads it, and for how long it is kept.

mod changes;
mod check;

use std::fmt;

use attest::{CountryCode, DataClass, OrganisationId, Purpose, RegionId};
use serde::{Deserialize, Serialize};
use stdx::{Digest, UnixTime};
use tlog::Origin;

use crate::{Policy, Threshold};

pub use changes::{Change, Whereabouts};
pub use check::ResidencyError;

/// Which region each country's data belongs to, and what a reader of it needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Residency {
    /// The log in which every access stands before a key is given out.
    pub log: Origin,
    /// Who asks custodians for keys, in the stream `access/ORGANISATION`.
    pub gateway: OrganisationId,
    /// Who can stop a region, in the stream `region/REGION`.
    pub status: OrganisationId,
    /// SHA-256 of the Cedar policies by which the gateway decides who may ask what for which purpose. Without it
    /// nobody may.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rules: Option<Digest>,
    /// The regions.
    pub regions: Vec<Region>,
    /// Which countries' data belongs to which region, and since when. A country that is in none has no
    /// region, and its data is refused.
    pub assignments: Vec<Assignment>,
    /// The kinds of data. What is listed nowhere is refused.
    pub classes: Vec<ClassPolicy>,
    /// Which people must approve that private parts of access statements are deleted. Without any, none are.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub redaction: Vec<Threshold>,
}

/// Where data is stored and processed, and by whose keys alone it opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// Its name.
    pub id: RegionId,
    /// The country that it is in.
    pub country: CountryCode,
    /// Who must agree, each of them, before anything of it opens.
    pub custodians: Vec<RegionCustodian>,
}

/// A custodian of a region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionCustodian {
    /// Who.
    pub organisation: OrganisationId,
    /// Its keys for this region, one after the other: each for a week or so, told in advance.
    pub keys: Vec<TimedKey>,
}

/// A key, and when data is sealed to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimedKey {
    /// The key.
    pub key: SealingKey,
    /// From this time on,
    pub from: UnixTime,
    /// and before this one.
    pub until: UnixTime,
}

/// A public key that data is sealed to, `p256:BASE64` or `x-wing:BASE64` (`docs/formats/seal.md`). Here it is
/// a text of the right form; whoever seals checks that it is a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SealingKey(String);

/// A text that is no such key.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is no key of a custodian's: it reads `p256:` or `x-wing:` and the key in base64")]
pub struct SealingKeyError(String);

/// 65 bytes, and 1,216, in base64.
const FORMS: [(&str, usize); 2] = [("p256:", 88), (X_WING, 1624)];
const X_WING: &str = "x-wing:";

impl SealingKey {
    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether what is sealed to it stays closed for quantum computers, too.
    #[must_use]
    pub fn is_hybrid(&self) -> bool {
        self.0.starts_with(X_WING)
    }
}

impl TryFrom<String> for SealingKey {
    type Error = SealingKeyError;

    fn try_from(text: String) -> Result<Self, SealingKeyError> {
        let base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
        let good = FORMS.iter().any(|(begins, chars)| {
            text.strip_prefix(begins).is_some_and(|key| key.len() == *chars && key.bytes().all(base64))
        });
        if good { Ok(Self(text)) } else { Err(SealingKeyError(text.chars().take(80).collect())) }
    }
}

impl std::str::FromStr for SealingKey {
    type Err = SealingKeyError;

    fn from_str(text: &str) -> Result<Self, SealingKeyError> {
        Self::try_from(text.to_owned())
    }
}

impl From<SealingKey> for String {
    fn from(key: SealingKey) -> Self {
        key.0
    }
}

impl fmt::Display for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// "From then on, the data of these countries belongs there."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    /// Where it belongs.
    pub region: RegionId,
    /// From when on; of several for a country the latest that has come counts.
    pub from: UnixTime,
    /// The countries, ascending.
    pub countries: Vec<CountryCode>,
}

/// A kind of data: what a reader of it needs, how much one grant opens, how long it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassPolicy {
    /// Its name.
    pub id: DataClass,
    /// Which people must approve a request before anything is read.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub approvals: Vec<Threshold>,
    /// What it may be read for.
    pub purposes: Vec<Purpose>,
    /// It is kept for so many seconds.
    pub retention_s: u64,
    /// A grant lasts for so many seconds at most.
    pub lease_s: u64,
    /// One grant opens so many objects at most,
    pub objects_max: u64,
    /// gives out so many rows,
    pub rows_max: u64,
    /// and so many bytes.
    pub bytes_max: u64,
}

/// A custodian without a key at the time.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("custodian `{custodian}` of region `{region}` has no key for {at}")]
pub struct NoKey {
    /// Who has none.
    pub custodian: OrganisationId,
    /// Of which region.
    pub region: RegionId,
    /// When.
    pub at: UnixTime,
}

impl Residency {
    /// The region that `country`'s data belongs to at `at`, if it has one.
    #[must_use]
    pub fn region_of(&self, country: CountryCode, at: UnixTime) -> Option<&Region> {
        let of_country = self.assignments.iter().filter(|it| it.from <= at && it.countries.contains(&country));
        self.region(&of_country.max_by_key(|it| it.from)?.region)
    }

    /// The region of this name.
    #[must_use]
    pub fn region(&self, id: &RegionId) -> Option<&Region> {
        self.regions.iter().find(|it| it.id == *id)
    }

    /// The class of this name.
    #[must_use]
    pub fn class(&self, id: &DataClass) -> Option<&ClassPolicy> {
        self.classes.iter().find(|it| it.id == *id)
    }
}

impl Region {
    /// The key of every custodian at `at`.
    ///
    /// # Errors
    /// [`NoKey`]: nothing is sealed, because nothing would need that custodian.
    pub fn keys_at(&self, at: UnixTime) -> Result<Vec<(&OrganisationId, &SealingKey)>, NoKey> {
        let keys = self.custodians.iter().map(|custodian| {
            let key = custodian.keys.iter().find(|key| key.from <= at && at < key.until);
            key.map(|key| (&custodian.organisation, &key.key)).ok_or_else(|| {
                let (custodian, region) = (custodian.organisation.clone(), self.id.clone());
                NoKey { custodian, region, at }
            })
        });
        keys.collect()
    }
}

impl ClassPolicy {
    /// Whether it may be read for `purpose`.
    #[must_use]
    pub fn allows(&self, purpose: &Purpose) -> bool {
        self.purposes.contains(purpose)
    }
}

impl Policy {
    /// The streams that [`Residency`] needs, with who writes each.
    fn residency_streams(&self, residency: &Residency) -> Vec<(String, OrganisationId)> {
        let mut streams = vec![(format!("access/{}", residency.gateway), residency.gateway.clone())];
        for region in &residency.regions {
            streams.push((format!("region/{}", region.id), residency.status.clone()));
            let custodians = region.custodians.iter().map(|it| &it.organisation);
            streams.extend(custodians.map(|it| (format!("custody/{it}"), it.clone())));
        }
        let readers = self.keys_of(crate::Role::Reader).map(|(organisation, _)| organisation);
        let approving = residency.classes.iter().flat_map(|it| &it.approvals).chain(&residency.redaction);
        let approving = approving.map(|it| &it.organisation);
        streams.extend(readers.chain(approving).map(|it| (format!("data/{it}"), it.clone())));
        streams.sort();
        streams.dedup();
        streams
    }
}
