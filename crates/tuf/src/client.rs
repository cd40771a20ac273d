//! The client workflow, 5.1 to 5.6.6: from the trusted root to the trusted top-level targets.
//! Numbers in comments are those of the specification.

use std::io::Read as _;
use std::rc::Rc;

use stdx::UnixTime;

use crate::error::Error;
use crate::key::Suite;
use crate::limits::Limits;
use crate::metadata::{Authority, Metadata};
use crate::name::RoleName;
use crate::ports::{Fetch, FetchError, Location, Offline, Store};
use crate::roles::{Content, MetaFile, Root, Snapshot, Targets, Timestamp, Version};
use crate::search::Trusted;

/// A TUF client: a store of trusted metadata, the algorithms it accepts and its limits.
#[derive(Clone, Copy)]
pub struct Client<'a> {
    pub(crate) store: &'a dyn Store,
    pub(crate) suite: &'a dyn Suite,
    pub(crate) limits: Limits,
}

impl<'a> Client<'a> {
    /// A client on `store`. Nothing is read yet.
    #[must_use]
    pub const fn new(store: &'a dyn Store, suite: &'a dyn Suite, limits: Limits) -> Self {
        Self { store, suite, limits }
    }

    /// Sets the client up with its first trusted root, which came by a way that the caller trusts.
    ///
    /// # Errors
    /// [`Error::RootExists`] on a store in use; [`Error::Malformed`] or [`Error::Unsigned`] if
    /// `root` isn't a root signed by its own keys.
    pub fn create(&self, root: &[u8]) -> Result<(), Error> {
        if self.load(&RoleName::ROOT)?.is_some() {
            return Err(Error::RootExists);
        }
        let root = self.checked_root("the first root", root.to_vec())?;
        self.save(&RoleName::ROOT, &root)
    }

    /// Brings the trusted metadata up to date: 5.1 to 5.6.6, with `now` as the fixed start time
    /// (5.1). What was verified before an error is kept, as the specification asks.
    ///
    /// # Errors
    /// Any [`Error`] but those of searches and downloads.
    pub fn refresh(self, fetch: &'a dyn Fetch, now: UnixTime) -> Result<Trusted<'a>, Error> {
        let update = Update { client: self, fetch, now };
        let root = update.root()?;
        let timestamp = update.timestamp(&root)?;
        update.below(root, timestamp)
    }

    /// The trusted metadata as it was last refreshed, without any repository.
    ///
    /// # Errors
    /// [`Error::NoRoot`]; [`Error::Expired`] by `now`; [`Error::Fetch`] for what was never cached.
    pub fn cached(self, now: UnixTime) -> Result<Trusted<'a>, Error> {
        let update = Update { client: self, fetch: &Offline, now };
        let root = self.trusted_root()?;
        update.check_freeze("root.json", &root)?;
        let timestamp = update.trusted(&RoleName::TIMESTAMP, authority_of(&root, &RoleName::TIMESTAMP))?;
        let missing = || Error::Fetch { file: "timestamp.json".to_owned(), source: FetchError::NotFound };
        let timestamp = timestamp.ok_or_else(missing)?;
        update.check_freeze("timestamp.json", &timestamp)?;
        update.below(root, timestamp)
    }

    /// 5.2: load the trusted root. It must be signed by its own keys; its expiry doesn't matter.
    fn trusted_root(&self) -> Result<Metadata<Root>, Error> {
        let bytes = self.load(&RoleName::ROOT)?.ok_or(Error::NoRoot)?;
        self.checked_root("the trusted root.json", bytes)
    }

    fn checked_root(&self, file: &str, bytes: Vec<u8>) -> Result<Metadata<Root>, Error> {
        let root = Metadata::<Root>::parse(file, bytes)?;
        root.verify(file, authority_of(&root, &RoleName::ROOT), self.suite)?;
        Ok(root)
    }

    fn load(&self, role: &RoleName) -> Result<Option<Vec<u8>>, Error> {
        self.store.load(role).map_err(|source| Error::Store { file: role.file_name(), source })
    }

    fn save<T: Content>(&self, role: &RoleName, metadata: &Metadata<T>) -> Result<(), Error> {
        let saved = self.store.save(role, metadata.bytes());
        saved.map_err(|source| Error::Store { file: role.file_name(), source })
    }

    fn remove(&self, role: &RoleName) -> Result<(), Error> {
        self.store.remove(role).map_err(|source| Error::Store { file: role.file_name(), source })
    }
}

/// One run of the workflow.
#[derive(Clone, Copy)]
pub(crate) struct Update<'a> {
    pub(crate) client: Client<'a>,
    pub(crate) fetch: &'a dyn Fetch,
    /// 5.1: the fixed update start time.
    pub(crate) now: UnixTime,
}

/// A file that its referrer has described.
pub(crate) struct Described<'a> {
    pub(crate) role: &'a RoleName,
    pub(crate) meta: &'a MetaFile,
    pub(crate) authority: Authority<'a>,
    pub(crate) bytes_max: u64,
    /// 5.3.12
    pub(crate) consistent_snapshot: bool,
}

/// Where a file was found.
enum Origin {
    Store,
    Repository,
}

impl<'a> Update<'a> {
    /// 5.3: update the root role.
    fn root(&self) -> Result<Metadata<Root>, Error> {
        let mut trusted = self.client.trusted_root()?;
        for _ in 0..self.client.limits.roots {
            // 5.3.2, 5.3.3: try version N+1.
            let Some(version) = trusted.version().next() else { break };
            let file = format!("{version}.root.json");
            let bytes = match self.download(&file, self.client.limits.root_bytes) {
                Err(Error::Fetch { source: FetchError::NotFound, .. }) => break,
                other => other?,
            };
            let new = Metadata::<Root>::parse(&file, bytes)?;
            // 5.3.4: signed by a threshold of the old keys and by one of the new.
            new.verify(&file, authority_of(&trusted, &RoleName::ROOT), self.client.suite)?;
            new.verify(&file, authority_of(&new, &RoleName::ROOT), self.client.suite)?;
            // 5.3.5: exactly N+1. 5.3.6: its expiry doesn't matter yet.
            check_version(&file, &new, version)?;
            // 5.3.11, brought forward: a crash between the two files then repeats this step, while
            // in the specification's order it would leave the fast-forwarded files for good.
            if signers_changed(&trusted, &new) {
                self.client.remove(&RoleName::TIMESTAMP)?;
                self.client.remove(&RoleName::SNAPSHOT)?;
            }
            // 5.3.7, 5.3.8: trust it and persist it; 5.3.9: again.
            self.client.save(&RoleName::ROOT, &new)?;
            trusted = new;
        }
        // 5.3.10: only the last one must not have expired.
        self.check_freeze("root.json", &trusted)?;
        Ok(trusted)
    }

    /// 5.4: update the timestamp role.
    fn timestamp(&self, root: &Metadata<Root>) -> Result<Metadata<Timestamp>, Error> {
        let role = RoleName::TIMESTAMP;
        let file = role.file_name();
        let authority = authority_of(root, &role);
        let trusted = self.trusted::<Timestamp>(&role, authority)?;
        // 5.4.1, 5.4.2
        let bytes = self.download(&file, self.client.limits.timestamp_bytes)?;
        let new = Metadata::<Timestamp>::parse(&file, bytes)?;
        new.verify(&file, authority, self.client.suite)?;
        if let Some(trusted) = trusted {
            // 5.4.3.1: older is an attack; the same version is no news, whatever it says.
            check_no_rollback(&file, trusted.version(), new.version())?;
            if new.version() == trusted.version() {
                self.check_freeze(&file, &trusted)?;
                return Ok(trusted);
            }
            // 5.4.3.2
            let snapshot = |timestamp: &Metadata<Timestamp>| timestamp.content().meta.snapshot.version;
            check_no_rollback("snapshot.json", snapshot(&trusted), snapshot(&new))?;
        }
        // 5.4.4, 5.4.5
        self.check_freeze(&file, &new)?;
        self.client.save(&role, &new)?;
        Ok(new)
    }

    /// 5.5 and 5.6.1 to 5.6.6: the snapshot and the top-level targets.
    fn below(self, root: Metadata<Root>, timestamp: Metadata<Timestamp>) -> Result<Trusted<'a>, Error> {
        let snapshot = self.snapshot(&root, &timestamp)?;
        let targets = self.described::<Targets>(&Described {
            role: &RoleName::TARGETS,
            meta: listed(&snapshot, &RoleName::TARGETS)?,
            authority: authority_of(&root, &RoleName::TARGETS),
            bytes_max: self.client.limits.targets_bytes,
            consistent_snapshot: root.content().consistent_snapshot,
        })?;
        Ok(Trusted { update: self, root, timestamp, snapshot, targets: Rc::new(targets) })
    }

    /// 5.5: update the snapshot role.
    fn snapshot(&self, root: &Metadata<Root>, timestamp: &Metadata<Timestamp>) -> Result<Metadata<Snapshot>, Error> {
        let role = RoleName::SNAPSHOT;
        let authority = authority_of(root, &role);
        let trusted = self.trusted::<Snapshot>(&role, authority)?;
        let wanted = Described {
            role: &role,
            meta: &timestamp.content().meta.snapshot,
            authority,
            bytes_max: self.client.limits.snapshot_bytes,
            consistent_snapshot: root.content().consistent_snapshot,
        };
        // 5.5.1 to 5.5.4
        let (new, origin) = self.obtain::<Snapshot>(&wanted)?;
        // 5.5.5: no targets file goes back or goes missing.
        for (file, meta) in trusted.iter().flat_map(|trusted| &trusted.content().meta) {
            let listed = new.content().meta.get(file).ok_or_else(|| Error::Unlisted(file.clone()))?;
            check_no_rollback(file, meta.version, listed.version)?;
        }
        // 5.5.6, 5.5.7
        self.accept(&role, new, &origin)
    }

    /// 5.6.1 to 5.6.6, and the same for a delegated role.
    pub(crate) fn described<T: Content>(&self, wanted: &Described<'_>) -> Result<Metadata<T>, Error> {
        let (new, origin) = self.obtain(wanted)?;
        self.accept(wanted.role, new, &origin)
    }

    /// Steps 1 to 4 of 5.5 and 5.6. A file in the store that passes steps 2 to 4 again needs no
    /// download; each look-up does so anew, since another delegator may name other keys.
    fn obtain<T: Content>(&self, wanted: &Described<'_>) -> Result<(Metadata<T>, Origin), Error> {
        let file = wanted.role.file_name();
        if let Some(bytes) = self.client.load(wanted.role)?
            && let Ok(cached) = self.check_described(wanted, &file, bytes)
        {
            return Ok((cached, Origin::Store));
        }
        // Step 1
        let name = if wanted.consistent_snapshot { format!("{}.{file}", wanted.meta.version) } else { file };
        if wanted.meta.length.is_some_and(|length| length > wanted.bytes_max) {
            return Err(Error::TooLong { file: name, max: wanted.bytes_max });
        }
        let bytes = self.download(&name, wanted.meta.length.unwrap_or(wanted.bytes_max))?;
        Ok((self.check_described(wanted, &name, bytes)?, Origin::Repository))
    }

    fn check_described<T: Content>(
        &self,
        wanted: &Described<'_>,
        file: &str,
        bytes: Vec<u8>,
    ) -> Result<Metadata<T>, Error> {
        // Step 2: length and hashes, if any are listed.
        let Described { meta, authority, .. } = wanted;
        let length = meta.length.is_none_or(|length| length == bytes.len() as u64);
        if !length || meta.hashes.as_ref().is_some_and(|hashes| !hashes.matches(self.client.suite, &bytes)) {
            return Err(Error::OtherContent(file.to_owned()));
        }
        // Step 3
        let metadata = Metadata::<T>::parse(file, bytes)?;
        metadata.verify(file, *authority, self.client.suite)?;
        // Step 4
        check_version(file, &metadata, meta.version)?;
        Ok(metadata)
    }

    /// The last two steps of 5.5 and 5.6: not expired, then persisted.
    fn accept<T: Content>(
        &self,
        role: &RoleName,
        metadata: Metadata<T>,
        origin: &Origin,
    ) -> Result<Metadata<T>, Error> {
        self.check_freeze(&role.file_name(), &metadata)?;
        if matches!(origin, Origin::Repository) {
            self.client.save(role, &metadata)?;
        }
        Ok(metadata)
    }

    /// The file of `role` in the store, if the keys that now count signed it. Expired or not, it
    /// bounds what may follow. What the keys no longer cover (5.3.11), or what isn't readable, is
    /// as good as absent: it must not lock the client out for ever.
    fn trusted<T: Content>(&self, role: &RoleName, authority: Authority<'_>) -> Result<Option<Metadata<T>>, Error> {
        let file = role.file_name();
        let Some(bytes) = self.client.load(role)? else { return Ok(None) };
        let metadata = Metadata::<T>::parse(&file, bytes).ok();
        Ok(metadata.filter(|metadata| metadata.verify(&file, authority, self.client.suite).is_ok()))
    }

    /// Reads a metadata file to its end, or one byte past the limit.
    fn download(&self, file: &str, max: u64) -> Result<Vec<u8>, Error> {
        let failed = |source| Error::Fetch { file: file.to_owned(), source };
        let reader = self.fetch.open(&Location::Metadata(file.to_owned())).map_err(failed)?;
        let mut bytes = Vec::new();
        let read = reader.take(max.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(|error| failed(FetchError::Unavailable(error.to_string())))?;
        if bytes.len() as u64 > max { Err(Error::TooLong { file: file.to_owned(), max }) } else { Ok(bytes) }
    }

    /// 5.3.10, 5.4.4, 5.5.6, 5.6.5: it must expire after the update began.
    fn check_freeze<T: Content>(&self, file: &str, metadata: &Metadata<T>) -> Result<(), Error> {
        let (expires, now) = (metadata.expires(), self.now);
        if expires > now { Ok(()) } else { Err(Error::Expired { file: file.to_owned(), expires, now }) }
    }
}

/// What `snapshot` says about the file of `role`.
pub(crate) fn listed<'m>(snapshot: &'m Metadata<Snapshot>, role: &RoleName) -> Result<&'m MetaFile, Error> {
    snapshot.content().of(role).ok_or_else(|| Error::Unlisted(role.meta_path()))
}

/// The keys of a top-level role.
pub(crate) fn authority_of<'m>(root: &'m Metadata<Root>, role: &RoleName) -> Authority<'m> {
    let roles = &root.content().roles;
    let role = match role.as_str() {
        "timestamp" => &roles.timestamp,
        "snapshot" => &roles.snapshot,
        "targets" => &roles.targets,
        _ => &roles.root,
    };
    Authority { keys: &root.content().keys, role }
}

fn signers_changed(old: &Metadata<Root>, new: &Metadata<Root>) -> bool {
    let (old, new) = (&old.content().roles, &new.content().roles);
    old.timestamp.keyids != new.timestamp.keyids || old.snapshot.keyids != new.snapshot.keyids
}

fn check_version<T: Content>(file: &str, metadata: &Metadata<T>, expected: Version) -> Result<(), Error> {
    let got = metadata.version();
    if got == expected { Ok(()) } else { Err(Error::OtherVersion { file: file.to_owned(), expected, got }) }
}

fn check_no_rollback(file: &str, trusted: Version, got: Version) -> Result<(), Error> {
    if got >= trusted { Ok(()) } else { Err(Error::Rollback { file: file.to_owned(), trusted, got }) }
}
