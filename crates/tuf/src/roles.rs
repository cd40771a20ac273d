//! The content of the four kinds of metadata files (TUF 4.3 to 4.6).

use std::collections::BTreeMap;
use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, de};
use stdx::{Digest, UnixTime};

use crate::delegation::{DelegatedRole, Delegations, Paths};
use crate::json::Json;
use crate::key::{KeyRing, PublicKey, RoleKeys, Suite};
use crate::name::{RoleName, TargetPath};

/// A version of a metadata file; the first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(NonZeroU64);

impl Version {
    /// The first version.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// The version with this number, unless that is 0.
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The version after this one, unless this is the last that can be written.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a kind of metadata file holds under `signed`, besides `_type` and `spec_version`.
pub trait Content: Clone + DeserializeOwned + Serialize {
    /// The text of `_type`.
    const TYPE: &'static str;

    /// The file's version.
    fn version(&self) -> Version;

    /// When the file expires.
    fn expires(&self) -> UnixTime;
}

macro_rules! content {
    ($name:ty, $kind:literal) => {
        impl Content for $name {
            const TYPE: &'static str = $kind;

            fn version(&self) -> Version {
                self.version
            }

            fn expires(&self) -> UnixTime {
                self.expires
            }
        }
    };
}

content!(Root, "root");
content!(Timestamp, "timestamp");
content!(Snapshot, "snapshot");
content!(Targets, "targets");

/// `root.json` (TUF 4.3): who signs for each top-level role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The file's version.
    pub version: Version,
    /// When it expires.
    pub expires: UnixTime,
    /// Whether file names carry versions and hashes (6.2).
    #[serde(default)]
    pub consistent_snapshot: bool,
    /// The keys.
    pub keys: KeyRing,
    /// Who signs for what.
    pub roles: TopLevelRoles,
}

/// The signers of each top-level role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopLevelRoles {
    /// Who signs the next root.
    pub root: RoleKeys,
    /// Who signs timestamps.
    pub timestamp: RoleKeys,
    /// Who signs snapshots.
    pub snapshot: RoleKeys,
    /// Who signs the top-level targets.
    pub targets: RoleKeys,
}

/// Whose keys, of which so many must sign: what a role is made from.
#[derive(Clone, Copy, Debug)]
pub struct Signers<'a> {
    /// The keys.
    pub keys: &'a [PublicKey],
    /// How many of them must sign.
    pub threshold: NonZeroU32,
}

impl Signers<'_> {
    fn enter(self, ring: &mut KeyRing) -> RoleKeys {
        for key in self.keys {
            ring.insert(key.clone());
        }
        RoleKeys { keyids: self.keys.iter().map(|key| key.id().clone()).collect(), threshold: self.threshold }
    }
}

/// The signers of the four top-level roles, to make a root from.
#[derive(Clone, Copy, Debug)]
pub struct TopLevelSigners<'a> {
    /// Who signs the next root.
    pub root: Signers<'a>,
    /// Who signs timestamps.
    pub timestamp: Signers<'a>,
    /// Who signs snapshots.
    pub snapshot: Signers<'a>,
    /// Who signs the top-level targets.
    pub targets: Signers<'a>,
}

impl Root {
    /// A root with consistent snapshots and these signers.
    #[must_use]
    pub fn new(version: Version, expires: UnixTime, signers: TopLevelSigners<'_>) -> Self {
        let mut keys = KeyRing::default();
        let roles = TopLevelRoles {
            root: signers.root.enter(&mut keys),
            timestamp: signers.timestamp.enter(&mut keys),
            snapshot: signers.snapshot.enter(&mut keys),
            targets: signers.targets.enter(&mut keys),
        };
        Self { version, expires, consistent_snapshot: true, keys, roles }
    }
}

/// What a file says about another metadata file (TUF 4.4 `METAFILES`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaFile {
    /// Its version.
    pub version: Version,
    /// Its length in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// Its hashes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hashes: Option<Hashes>,
}

impl MetaFile {
    /// What to say about version `version` with these bytes.
    #[must_use]
    pub fn of(version: Version, bytes: &[u8]) -> Self {
        Self { version, length: Some(bytes.len() as u64), hashes: Some(Hashes::of(bytes)) }
    }
}

/// Hashes of a file by the name of the hash function (TUF 4.4 `HASHES`); never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Hashes(BTreeMap<String, String>);

impl Hashes {
    /// The SHA-256 of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Digest::of(bytes).into()
    }

    /// The SHA-256, if it is listed.
    #[must_use]
    pub fn sha256(&self) -> Option<Digest> {
        self.0.get("sha256").and_then(|text| text.parse().ok())
    }

    /// The listed hashes that `suite` can calculate, by name.
    pub(crate) fn known<'a>(&'a self, suite: &'a dyn Suite) -> impl Iterator<Item = (&'a str, &'a str)> {
        let entries = self.0.iter().map(|(name, hash)| (name.as_str(), hash.as_str()));
        entries.filter(|(name, _)| suite.hash(name).is_some())
    }

    /// Whether `bytes` have all hashes that `suite` can calculate, and at least one.
    pub(crate) fn matches(&self, suite: &dyn Suite, bytes: &[u8]) -> bool {
        let mut known = self.known(suite).peekable();
        known.peek().is_some()
            && known.all(|(name, hash)| {
                suite.hash(name).is_some_and(|mut run| {
                    run.update(bytes);
                    run.finish() == hash
                })
            })
    }
}

impl From<Digest> for Hashes {
    fn from(digest: Digest) -> Self {
        Self([("sha256".to_owned(), digest.to_string())].into())
    }
}

impl<'de> Deserialize<'de> for Hashes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hashes = BTreeMap::<String, String>::deserialize(deserializer)?;
        if hashes.is_empty() { Err(de::Error::custom("hashes without a hash")) } else { Ok(Self(hashes)) }
    }
}

/// `timestamp.json` (TUF 4.6): which snapshot is the latest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timestamp {
    /// The file's version.
    pub version: Version,
    /// When it expires.
    pub expires: UnixTime,
    /// The one file it lists.
    pub meta: TimestampMeta,
}

/// The `meta` of a timestamp.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimestampMeta {
    /// The latest snapshot.
    #[serde(rename = "snapshot.json")]
    pub snapshot: MetaFile,
}

/// `snapshot.json` (TUF 4.4): the version of every targets file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The file's version.
    pub version: Version,
    /// When it expires.
    pub expires: UnixTime,
    /// The targets files by `METAPATH` (the role's name and `.json`).
    pub meta: BTreeMap<String, MetaFile>,
}

impl Snapshot {
    /// What the snapshot says about `role`'s file.
    #[must_use]
    pub fn of(&self, role: &RoleName) -> Option<&MetaFile> {
        self.meta.get(&role.meta_path())
    }
}

/// `targets.json` or the file of a delegated role (TUF 4.5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Targets {
    /// The file's version.
    pub version: Version,
    /// When it expires.
    pub expires: UnixTime,
    /// The targets, by path as it stands there: a path we can't use only matches no look-up.
    pub targets: BTreeMap<String, TargetFile>,
    /// To whom this role delegates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegations: Option<Delegations>,
}

impl Targets {
    /// Metadata without targets or delegations.
    #[must_use]
    pub const fn new(version: Version, expires: UnixTime) -> Self {
        Self { version, expires, targets: BTreeMap::new(), delegations: None }
    }

    /// Lists `file` as `path`, in place of what was there.
    #[must_use]
    pub fn with_target(mut self, path: &TargetPath, file: TargetFile) -> Self {
        self.targets.insert(path.as_str().to_owned(), file);
        self
    }

    /// Delegates `paths` to `role`, after all earlier delegations.
    #[must_use]
    pub fn with_delegation(mut self, role: RoleName, signers: Signers<'_>, paths: Paths) -> Self {
        let delegations = self.delegations.get_or_insert_default();
        let keys = signers.enter(&mut delegations.keys);
        delegations.roles.push(DelegatedRole { name: role, keys, paths, terminating: false });
        self
    }
}

/// What targets metadata says about a target (TUF 4.5 `TARGETS`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetFile {
    /// The length in bytes.
    pub length: u64,
    /// The hashes.
    pub hashes: Hashes,
    /// What the application adds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom: Option<Json>,
}

impl TargetFile {
    /// What to say about a target with these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self { length: bytes.len() as u64, hashes: Hashes::of(bytes), custom: None }
    }
}
