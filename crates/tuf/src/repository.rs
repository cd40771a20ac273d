//! The repository's side (TUF 6): what to publish, in which order, and nothing that a client
//! would refuse.

use std::collections::BTreeMap;

use stdx::UnixTime;

use crate::client::{Client, authority_of};
use crate::error::Error;
use crate::key::Suite;
use crate::limits::Limits;
use crate::metadata::{Authority, Metadata};
use crate::name::{RoleName, TargetPath};
use crate::ports::{Fetch, Location, MemoryStore};
use crate::roles::{Content, MetaFile, Root, Snapshot, Targets, Timestamp, TimestampMeta, Version};
use crate::sign::{SignError, Signer};

/// A repository with consistent snapshots and one level of delegations below `targets`: its latest
/// metadata. Each change gives the files to write, and only then counts.
#[derive(Clone, Debug)]
pub struct Repository {
    root: Metadata<Root>,
    targets: Metadata<Targets>,
    delegated: BTreeMap<RoleName, Metadata<Targets>>,
    snapshot: Metadata<Snapshot>,
    timestamp: Metadata<Timestamp>,
}

/// What is new. Root and targets come signed, by as many organisations as they need.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// A new root, one version after the last, signed by the old keys and the new.
    pub root: Option<Metadata<Root>>,
    /// New top-level targets, one version after the last.
    pub targets: Option<Metadata<Targets>>,
    /// New metadata of delegated roles, each one version after its last.
    pub delegated: BTreeMap<RoleName, Metadata<Targets>>,
    /// Target files to publish with it. Large ones the caller may write by itself, before all else,
    /// where [`Repository::location`] says.
    pub artifacts: BTreeMap<TargetPath, Vec<u8>>,
}

/// The keys that sign at each publication, and until when.
#[derive(Clone, Copy)]
pub struct OnlineKeys<'a> {
    /// Who signs the snapshot.
    pub snapshot: &'a [&'a dyn Signer],
    /// When the snapshot expires.
    pub snapshot_expires: UnixTime,
    /// Who signs the timestamp.
    pub timestamp: &'a [&'a dyn Signer],
    /// When the timestamp expires.
    pub timestamp_expires: UnixTime,
}

/// A file to write. Write them in the order given, each durable before the next: a client that
/// reads meanwhile sees the old state or the new one. A metadata file left from a publication that
/// crashed before its timestamp was named by nothing, and may be overwritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedFile {
    /// Where.
    pub location: Location,
    /// What.
    pub bytes: Vec<u8>,
}

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A client would refuse it.
    #[error("clients would refuse this publication")]
    Refused(#[from] Error),
    /// A signer failed.
    #[error("the snapshot or timestamp could not be signed")]
    Sign(#[from] SignError),
    /// A first publication without root or targets.
    #[error("a new repository needs a root and targets")]
    Incomplete,
    /// Consistent snapshots are off.
    #[error("the root does not ask for consistent snapshots")]
    NotConsistent,
    /// A delegation without a file; searches would end there.
    #[error("the delegated role `{0}` has no metadata")]
    NoMetadata(RoleName),
    /// A file of a role that nobody delegates to.
    #[error("nobody delegates to the role `{0}`")]
    Undelegated(RoleName),
    /// A target file that no role describes with these bytes.
    #[error("no role describes the target `{0}` with these bytes")]
    Undescribed(TargetPath),
    /// The last version that can be written was reached.
    #[error("there is no version after {0}")]
    LastVersion(Version),
}

impl Repository {
    /// A new repository and the files of its first publication. `now` is when it is published.
    ///
    /// # Errors
    /// Any [`PublishError`].
    pub fn create(
        change: Change,
        keys: OnlineKeys<'_>,
        suite: &dyn Suite,
        now: UnixTime,
    ) -> Result<(Self, Vec<PublishedFile>), PublishError> {
        let (Some(root), Some(targets)) = (&change.root, &change.targets) else {
            return Err(PublishError::Incomplete);
        };
        let first = [("targets.json", targets)].into_iter();
        for (file, metadata) in first.chain(change.delegated.values().map(|metadata| ("a delegated role", metadata))) {
            check_version(file, metadata.version(), Version::FIRST)?;
            check_not_expired(file, metadata, now)?;
        }
        let (root, targets, delegated) = (root.clone(), targets.clone(), change.delegated.clone());
        let (snapshot, timestamp) = sign_online(Listed::first(&targets, &delegated), keys)?;
        let repository = Self { root, targets, delegated, snapshot, timestamp };
        repository.check(suite, now)?;
        let files = repository.files(&change)?;
        Ok((repository, files))
    }

    /// The repository that `fetch` reads, from `root` on, the latest root or an earlier one. It is
    /// verified as a client would, save for expiry: what has expired is there to be renewed.
    ///
    /// # Errors
    /// Any [`Error`] of a client's refresh and searches.
    pub fn open(root: &[u8], fetch: &dyn Fetch, suite: &dyn Suite) -> Result<Self, Error> {
        let store = MemoryStore::default();
        let client = Client::new(&store, suite, Limits::default());
        client.create(root)?;
        let trusted = client.refresh(fetch, UnixTime::EPOCH)?;
        let mut delegated = BTreeMap::new();
        for role in trusted.targets.content().delegations.iter().flat_map(|delegations| &delegations.roles) {
            delegated.insert(role.name.clone(), trusted.delegated(&role.name)?);
        }
        let (root, targets) = (trusted.root.clone(), trusted.targets().clone());
        let (snapshot, timestamp) = (trusted.snapshot.clone(), trusted.timestamp.clone());
        Ok(Self { root, targets, delegated, snapshot, timestamp })
    }

    /// Publishes `change` under a new snapshot and a new timestamp.
    ///
    /// # Errors
    /// Any [`PublishError`]; the repository is then as it was.
    pub fn publish(
        &mut self,
        change: &Change,
        keys: OnlineKeys<'_>,
        suite: &dyn Suite,
        now: UnixTime,
    ) -> Result<Vec<PublishedFile>, PublishError> {
        let mut next = self.clone();
        if let Some(root) = &change.root {
            check_version("root.json", root.version(), following(self.root.version())?)?;
            root.verify("root.json", authority_of(&self.root, &RoleName::ROOT), suite)?;
            next.root = root.clone();
        }
        if let Some(targets) = &change.targets {
            check_version("targets.json", targets.version(), following(self.targets.version())?)?;
            next.targets = targets.clone();
        }
        for (role, metadata) in &change.delegated {
            // A role that left and comes back goes on from the version that clients remember.
            let last = self.snapshot.content().of(role).map(|meta| meta.version);
            let expected = last.map_or(Ok(Version::FIRST), following)?;
            check_version(&role.file_name(), metadata.version(), expected)?;
            check_not_expired(&role.file_name(), metadata, now)?;
            next.delegated.insert(role.clone(), metadata.clone());
        }
        next.drop_undelegated(change)?;
        let listed = Listed {
            snapshot: following(self.snapshot.version())?,
            timestamp: following(self.timestamp.version())?,
            // 5.5.5: what was once listed stays listed.
            meta: {
                let mut meta = self.snapshot.content().meta.clone();
                meta.extend(meta_files(&next.targets, &next.delegated));
                meta
            },
        };
        (next.snapshot, next.timestamp) = sign_online(listed, keys)?;
        next.check(suite, now)?;
        let files = next.files(change)?;
        *self = next;
        Ok(files)
    }

    /// Publishes a new timestamp for the same snapshot: the heartbeat between changes.
    ///
    /// # Errors
    /// Any [`PublishError`]; the repository is then as it was.
    pub fn renew(
        &mut self,
        keys: OnlineKeys<'_>,
        suite: &dyn Suite,
        now: UnixTime,
    ) -> Result<Vec<PublishedFile>, PublishError> {
        let version = following(self.timestamp.version())?;
        let mut next = self.clone();
        next.timestamp = sign_timestamp(version, &self.snapshot, keys)?;
        next.check(suite, now)?;
        let file = next.timestamp_file();
        *self = next;
        Ok(vec![file])
    }

    /// Where a target's file lies, by its signed description.
    #[must_use]
    pub fn location(path: &TargetPath, file: &crate::roles::TargetFile) -> Location {
        let hash = file.hashes.sha256().map(|digest| digest.to_string());
        Location::Target(path.location(hash.as_deref()))
    }

    /// The latest root.
    #[must_use]
    pub const fn root(&self) -> &Metadata<Root> {
        &self.root
    }

    /// The latest top-level targets.
    #[must_use]
    pub const fn targets(&self) -> &Metadata<Targets> {
        &self.targets
    }

    /// The latest metadata of a delegated role.
    #[must_use]
    pub fn delegated(&self, role: &RoleName) -> Option<&Metadata<Targets>> {
        self.delegated.get(role)
    }

    /// The latest snapshot.
    #[must_use]
    pub const fn snapshot(&self) -> &Metadata<Snapshot> {
        &self.snapshot
    }

    /// The latest timestamp.
    #[must_use]
    pub const fn timestamp(&self) -> &Metadata<Timestamp> {
        &self.timestamp
    }

    /// Forgets the files of roles that the new targets no longer delegate to.
    fn drop_undelegated(&mut self, change: &Change) -> Result<(), PublishError> {
        let delegated_to = |role: &RoleName, targets: &Targets| {
            targets.delegations.iter().any(|delegations| delegations.roles.iter().any(|other| other.name == *role))
        };
        if let Some(role) = change.delegated.keys().find(|role| !delegated_to(role, self.targets.content())) {
            return Err(PublishError::Undelegated(role.clone()));
        }
        let targets = self.targets.content();
        self.delegated.retain(|role, _| delegated_to(role, targets));
        Ok(())
    }

    /// What a client checks, for every file at once. A delegated role that has expired since it was
    /// published does not hold up the others, whose targets clients still find.
    fn check(&self, suite: &dyn Suite, now: UnixTime) -> Result<(), PublishError> {
        if !self.root.content().consistent_snapshot {
            return Err(PublishError::NotConsistent);
        }
        let authority = |role| authority_of(&self.root, role);
        check_file("root.json", &self.root, authority(&RoleName::ROOT), suite, now)?;
        check_file("timestamp.json", &self.timestamp, authority(&RoleName::TIMESTAMP), suite, now)?;
        check_file("snapshot.json", &self.snapshot, authority(&RoleName::SNAPSHOT), suite, now)?;
        check_file("targets.json", &self.targets, authority(&RoleName::TARGETS), suite, now)?;
        let Some(delegations) = &self.targets.content().delegations else {
            return self.delegated.keys().next().map_or(Ok(()), |role| Err(PublishError::Undelegated(role.clone())));
        };
        for role in &delegations.roles {
            let metadata = self.delegated.get(&role.name);
            let metadata = metadata.ok_or_else(|| PublishError::NoMetadata(role.name.clone()))?;
            let authority = Authority { keys: &delegations.keys, role: &role.keys };
            metadata.verify(&role.name.file_name(), authority, suite)?;
        }
        match self.delegated.keys().find(|name| !delegations.roles.iter().any(|role| role.name == **name)) {
            Some(name) => Err(PublishError::Undelegated(name.clone())),
            None => Ok(()),
        }
    }

    /// The files of a publication: what nothing refers to yet comes first, the timestamp last.
    fn files(&self, change: &Change) -> Result<Vec<PublishedFile>, PublishError> {
        let mut files = Vec::new();
        for (path, bytes) in &change.artifacts {
            files.push(self.artifact(path, bytes)?);
        }
        for (role, metadata) in &change.delegated {
            files.push(versioned(role, metadata));
        }
        files.extend(change.targets.iter().map(|targets| versioned(&RoleName::TARGETS, targets)));
        files.push(versioned(&RoleName::SNAPSHOT, &self.snapshot));
        files.extend(change.root.iter().map(|root| versioned(&RoleName::ROOT, root)));
        files.push(self.timestamp_file());
        Ok(files)
    }

    fn artifact(&self, path: &TargetPath, bytes: &[u8]) -> Result<PublishedFile, PublishError> {
        let roles = [&self.targets].into_iter().chain(self.delegated.values());
        let described = roles.filter_map(|role| role.content().targets.get(path.as_str()));
        let digest = stdx::Digest::of(bytes);
        let file = described
            .into_iter()
            .find(|file| file.length == bytes.len() as u64 && file.hashes.sha256() == Some(digest))
            .ok_or_else(|| PublishError::Undescribed(path.clone()))?;
        Ok(PublishedFile { location: Self::location(path, file), bytes: bytes.to_vec() })
    }

    fn timestamp_file(&self) -> PublishedFile {
        let location = Location::Metadata(RoleName::TIMESTAMP.file_name());
        PublishedFile { location, bytes: self.timestamp.bytes().to_vec() }
    }
}

/// What the next snapshot and timestamp say.
struct Listed {
    snapshot: Version,
    timestamp: Version,
    meta: BTreeMap<String, MetaFile>,
}

impl Listed {
    fn first(targets: &Metadata<Targets>, delegated: &BTreeMap<RoleName, Metadata<Targets>>) -> Self {
        let meta = meta_files(targets, delegated);
        Self { snapshot: Version::FIRST, timestamp: Version::FIRST, meta }
    }
}

fn meta_files(
    targets: &Metadata<Targets>,
    delegated: &BTreeMap<RoleName, Metadata<Targets>>,
) -> BTreeMap<String, MetaFile> {
    let meta = |metadata: &Metadata<Targets>| MetaFile::of(metadata.version(), metadata.bytes());
    let mut listed: BTreeMap<_, _> =
        delegated.iter().map(|(role, metadata)| (role.meta_path(), meta(metadata))).collect();
    listed.insert(RoleName::TARGETS.meta_path(), meta(targets));
    listed
}

fn sign_online(listed: Listed, keys: OnlineKeys<'_>) -> Result<(Metadata<Snapshot>, Metadata<Timestamp>), SignError> {
    let content = Snapshot { version: listed.snapshot, expires: keys.snapshot_expires, meta: listed.meta };
    let snapshot = Metadata::sign(&content, keys.snapshot)?;
    let timestamp = sign_timestamp(listed.timestamp, &snapshot, keys)?;
    Ok((snapshot, timestamp))
}

fn sign_timestamp(
    version: Version,
    snapshot: &Metadata<Snapshot>,
    keys: OnlineKeys<'_>,
) -> Result<Metadata<Timestamp>, SignError> {
    let meta = TimestampMeta { snapshot: MetaFile::of(snapshot.version(), snapshot.bytes()) };
    Metadata::sign(&Timestamp { version, expires: keys.timestamp_expires, meta }, keys.timestamp)
}

fn versioned<T: Content>(role: &RoleName, metadata: &Metadata<T>) -> PublishedFile {
    let location = Location::Metadata(format!("{}.{}", metadata.version(), role.file_name()));
    PublishedFile { location, bytes: metadata.bytes().to_vec() }
}

fn check_file<T: Content>(
    file: &str,
    metadata: &Metadata<T>,
    authority: Authority<'_>,
    suite: &dyn Suite,
    now: UnixTime,
) -> Result<(), Error> {
    metadata.verify(file, authority, suite)?;
    check_not_expired(file, metadata, now)
}

fn check_not_expired<T: Content>(file: &str, metadata: &Metadata<T>, now: UnixTime) -> Result<(), Error> {
    let expires = metadata.expires();
    if expires > now { Ok(()) } else { Err(Error::Expired { file: file.to_owned(), expires, now }) }
}

fn check_version(file: &str, got: Version, expected: Version) -> Result<(), Error> {
    if got == expected { Ok(()) } else { Err(Error::OtherVersion { file: file.to_owned(), expected, got }) }
}

fn following(version: Version) -> Result<Version, PublishError> {
    version.next().ok_or(PublishError::LastVersion(version))
}
