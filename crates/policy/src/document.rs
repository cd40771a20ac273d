//! The policy document. The same structure is written by people in TOML and signed as JSON.

use std::fmt;
use std::time::Duration;

use attest::{Lane, OrganisationId, Position, Predicate, ProductId, StatementId, StreamName};
use serde::{Deserialize, Serialize};
use stdx::Digest;
use tlog::{Origin, VerifierKey};

use crate::{LookupPolicy, Residency};

/// The `policy` predicate. Its subject is the policy's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyDocument {
    /// Where this stands.
    pub position: Position,
    /// The version before this one; absent only in a genesis policy.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub previous: Option<StatementId>,
    /// What it says.
    pub policy: Policy,
}

impl Predicate for PolicyDocument {
    const TYPE: &'static str = "policy/v1";

    fn position(&self) -> Option<&Position> {
        Some(&self.position)
    }
}

/// Who must build, approve, witness, where, until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// What the policy is called.
    pub name: String,
    /// 1 for a genesis policy, then one more each time.
    pub version: u64,
    /// SHA-256 of the first TUF root metadata of the channel, so that the policy's hash is the
    /// only thing an endpoint must learn from elsewhere.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub channel_root: Option<Digest>,
    /// Where status and policies are served besides the channel: by those who give them, by
    /// members. Endpoints ask each one at every look, so whoever runs the channel can't keep a
    /// "no" from them, and can't take a name off this list alone.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub mirrors: Vec<MirrorUrl>,
    /// Whom anyone may ask what is known of a file's hash, if anybody.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lookup: Option<LookupPolicy>,
    /// Where whose data lies, and what reading it needs. Without it nobody shares anything.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub residency: Option<Residency>,
    /// How old evidence may be.
    pub ages: Ages,
    /// The witnesses and their quorum.
    pub witnessing: Witnessing,
    /// The organisations and their keys.
    pub organisations: Vec<Organisation>,
    /// Which organisation runs which log.
    pub logs: Vec<LogPolicyEntry>,
    /// The lanes.
    pub lanes: Vec<LanePolicy>,
    /// The products.
    pub products: Vec<ProductPolicy>,
    /// The streams that enforcement points write.
    pub streams: Vec<StreamPolicy>,
    /// Who must sign the next version of this policy.
    pub change: Vec<Threshold>,
}

/// How old evidence may be, in seconds; an endpoint's owner may set less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ages {
    /// For endpoints that are online (default 24 hours).
    pub online_s: u64,
    /// For an import from a stick (default 30 days).
    pub import_s: u64,
}

impl Ages {
    /// For endpoints that are online.
    #[must_use]
    pub const fn online(&self) -> Duration {
        Duration::from_secs(self.online_s)
    }

    /// For an import from a stick.
    #[must_use]
    pub const fn import(&self) -> Duration {
        Duration::from_secs(self.import_s)
    }
}

impl Default for Ages {
    fn default() -> Self {
        Self { online_s: 24 * 60 * 60, import_s: 30 * 24 * 60 * 60 }
    }
}

/// Where a mirror is: `https://host/prefix`, without a final slash. Below it lie `status/` and
/// `policy/` as in a channel (`docs/formats/channel.md`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MirrorUrl(String);

/// A text that is no mirror's URL.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a URL like https://host/prefix without a final slash")]
pub struct MirrorUrlError(String);

/// Eight times what is in use anywhere.
const MIRROR_URL_BYTES_MAX: usize = 512;

impl MirrorUrl {
    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for MirrorUrl {
    type Error = MirrorUrlError;

    fn try_from(text: String) -> Result<Self, MirrorUrlError> {
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '@' | '"' | '\\');
        let good = rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && rest.chars().all(plain));
        if good && !text.ends_with('/') && text.len() <= MIRROR_URL_BYTES_MAX {
            Ok(Self(text))
        } else {
            Err(MirrorUrlError(text.chars().take(200).collect()))
        }
    }
}

impl std::str::FromStr for MirrorUrl {
    type Err = MirrorUrlError;

    fn from_str(text: &str) -> Result<Self, MirrorUrlError> {
        Self::try_from(text.to_owned())
    }
}

impl From<MirrorUrl> for String {
    fn from(url: MirrorUrl) -> Self {
        url.0
    }
}

/// The logs, witnesses and quorum as a C2SP tlog-policy, and what it claims to survive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Witnessing {
    /// How many of the witnesses may lie, or have been restored from a backup, at once.
    pub faulty: usize,
    /// The tlog-policy text: `log`, `witness`, one flat `group`, `quorum`.
    pub policy: String,
}

/// An organisation and its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Organisation {
    /// Its name in this policy.
    pub id: OrganisationId,
    /// Its keys; each has one role.
    pub keys: Vec<RoleKey>,
}

/// A key and what it is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleKey {
    /// What it is for.
    pub role: Role,
    /// The key, as a `vkey`.
    pub key: VerifierKey,
}

/// What a key may sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// `result`, provenance; and as supervisor `mismatch` and VSA.
    Builder,
    /// `release` and `promotion`.
    Release,
    /// `approval`.
    Approver,
    /// `status`, `stop`, `revocation`.
    Status,
    /// `policy`.
    Policy,
    /// `source` and `heartbeat`: what an enforcement point says of itself.
    Recorder,
    /// Releases of declarative rules, in the fast lane only.
    Rules,
    /// `access-intent` and `access-outcome`: what is about to be read, and what came of it.
    Gateway,
    /// `custody-report`: what a custodian has opened. Shares are sealed to other keys of its.
    Custodian,
    /// `access-request`; belongs to a person or a service.
    Reader,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Builder => "builder",
            Self::Release => "release",
            Self::Approver => "approver",
            Self::Status => "status",
            Self::Policy => "policy",
            Self::Recorder => "recorder",
            Self::Rules => "rules",
            Self::Gateway => "gateway",
            Self::Custodian => "custodian",
            Self::Reader => "reader",
        })
    }
}

/// "At least `count` keys of `organisation`"; a list of these is met when each of them is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// Whose keys.
    pub organisation: OrganisationId,
    /// How many different ones.
    pub count: usize,
}

/// Which organisation runs a log of the tlog-policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogPolicyEntry {
    /// The log.
    pub origin: Origin,
    /// Who runs it.
    pub organisation: OrganisationId,
}

/// What a release of a lane needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LanePolicy {
    /// The lane.
    pub lane: Lane,
    /// Who must have built it, each for itself; at least two organisations.
    pub builders: Vec<Threshold>,
    /// Who must release it; at least two organisations.
    pub release: Vec<Threshold>,
    /// Which people must approve it. Never empty in the slow lane.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub approvals: Vec<Threshold>,
    /// The log that records results, approvals and releases.
    pub log: Origin,
    /// Who publishes the lane's status.
    pub status: OrganisationId,
    /// The log that records the status.
    pub status_log: Origin,
    /// When a release may leave the canary ring, and when it is stopped. The fast lane's, always.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub canary: Option<CanaryPolicy>,
}

/// When a release of the fast lane may go to the next ring, and when its product is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CanaryPolicy {
    /// So many different enrolled hosts must have sent a good report in each ring.
    pub healthy: u64,
    /// For so many seconds a release stays in a ring at least.
    pub bake_s: u64,
    /// So many different hosts with a bad report stop the product.
    pub unhealthy: u64,
    /// So many detections of one release, on all enrolled hosts together, stop the product.
    pub fires: u64,
}

impl CanaryPolicy {
    /// For so long a release stays in a ring at least.
    #[must_use]
    pub const fn bake(&self) -> Duration {
        Duration::from_secs(self.bake_s)
    }
}

/// A product and its lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProductPolicy {
    /// The product.
    pub id: ProductId,
    /// Its lane.
    pub lane: Lane,
}

/// A stream that is open: whoever writes it must not leave gaps or fall silent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamPolicy {
    /// The log that it is written to.
    pub log: Origin,
    /// Its name.
    pub stream: StreamName,
    /// Who writes it.
    pub organisation: OrganisationId,
    /// At least one entry, if only a heartbeat, in so many seconds.
    pub interval_s: u64,
}

impl Policy {
    /// The lane's rules.
    #[must_use]
    pub fn lane(&self, lane: Lane) -> Option<&LanePolicy> {
        self.lanes.iter().find(|it| it.lane == lane)
    }

    /// The product's entry.
    #[must_use]
    pub fn product(&self, id: &ProductId) -> Option<&ProductPolicy> {
        self.products.iter().find(|it| it.id == *id)
    }

    /// The keys that `organisation` has for `role`.
    pub fn keys(&self, organisation: &OrganisationId, role: Role) -> impl Iterator<Item = &VerifierKey> {
        self.organisations
            .iter()
            .filter(move |it| it.id == *organisation)
            .flat_map(|it| &it.keys)
            .filter(move |it| it.role == role)
            .map(|it| &it.key)
    }

    /// Every key for `role`, with the organisation that holds it.
    pub fn keys_of(&self, role: Role) -> impl Iterator<Item = (&OrganisationId, &VerifierKey)> {
        self.organisations
            .iter()
            .flat_map(|it| it.keys.iter().map(move |key| (&it.id, key)))
            .filter(move |(_, key)| key.role == role)
            .map(|(organisation, key)| (organisation, &key.key))
    }
}

#[cfg(test)]
mod tests {
    use super::MirrorUrl;

    #[test]
    fn a_mirror_is_a_url_without_a_final_slash() {
        for good in ["https://status.supervisor.example", "http://127.0.0.1:8080/channel"] {
            assert_eq!(good.parse::<MirrorUrl>().map(|url| url.as_str().to_owned()), Ok(good.to_owned()));
        }
        for bad in ["", "ftp://a", "https://", "https:///a", "https://a/", "https://a b", "https://a?b", "https://u@a"]
        {
            assert!(bad.parse::<MirrorUrl>().is_err(), "{bad}");
        }
    }
}
