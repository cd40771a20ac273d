//! Publishing: what the vendor's side does with what was approved.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use attest::{Bundle, Envelope, Lane, Release, StatementId};
use stdx::{Digest, UnixTime};
use tuf::{
    Change, Ed25519Sha256, FolderFetch, Hashes, Metadata, OnlineKeys, PublishedFile, Repository, Root, Signer, Signers,
    TargetFile, TargetPath, Targets, Version,
};
use verify::{Approved, CurrentStatus, TrustedPolicy};

use crate::error::Error;
use crate::layout::{self, ArtifactName, Product};
use crate::releases::{Listed, RELEASES_BYTES_MAX, Releases};
use crate::tree::{Content, Tree};

const SUITE: Ed25519Sha256 = Ed25519Sha256;

/// tuf's own limit for a root.
const ROOT_BYTES_MAX: usize = 512 << 10;

const FIRST_ROOT: &str = "metadata/1.root.json";

/// A channel in a folder. One process publishes at a time; readers need no lock.
#[derive(Clone, Debug)]
pub struct Channel {
    tree: Tree,
    repository: Repository,
}

/// Who may sign the delegated roles.
#[derive(Clone, Copy, Debug)]
pub struct Delegates<'a> {
    /// Signers of `products`, the slow lane.
    pub products: Signers<'a>,
    /// Signers of `rules`, the fast lane.
    pub rules: Signers<'a>,
}

impl<'a> Delegates<'a> {
    const fn of_lane(&self, lane: Lane) -> Signers<'a> {
        match lane {
            Lane::Slow => self.products,
            Lane::Fast => self.rules,
        }
    }
}

/// The keys that publishing takes. Roots come signed from elsewhere, by both organisations.
#[derive(Clone, Copy)]
pub struct Keys<'a> {
    /// Signs the delegations; needed to create a channel and when these run out.
    pub targets: &'a [&'a dyn Signer],
    /// Signs what is said of products.
    pub products: &'a [&'a dyn Signer],
    /// Signs what is said of rules.
    pub rules: &'a [&'a dyn Signer],
    /// Signs snapshots.
    pub snapshot: &'a [&'a dyn Signer],
    /// Signs timestamps.
    pub timestamp: &'a [&'a dyn Signer],
}

/// For how long metadata holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of the delegations.
    pub targets: Duration,
    /// Of what is said of products and rules.
    pub delegated: Duration,
    /// Of snapshots.
    pub snapshot: Duration,
    /// Of timestamps.
    pub timestamp: Duration,
}

impl Default for Lifetimes {
    /// A year, 90 days, 30 days, and a day: the policy's default age for evidence.
    fn default() -> Self {
        let days = |days: u64| Duration::from_secs(days * 24 * 60 * 60);
        Self { targets: days(365), delegated: days(90), snapshot: days(30), timestamp: days(1) }
    }
}

/// Who signs, for how long, and when.
#[derive(Clone, Copy)]
pub struct Signing<'a> {
    /// The keys.
    pub keys: Keys<'a>,
    /// The lifetimes.
    pub lifetimes: Lifetimes,
    /// The time of publication.
    pub now: UnixTime,
}

impl<'a> Signing<'a> {
    fn online(&self) -> OnlineKeys<'a> {
        OnlineKeys {
            snapshot: self.keys.snapshot,
            snapshot_expires: self.now.after(self.lifetimes.snapshot),
            timestamp: self.keys.timestamp,
            timestamp_expires: self.now.after(self.lifetimes.timestamp),
        }
    }

    const fn of_lane(&self, lane: Lane) -> &'a [&'a dyn Signer] {
        match lane {
            Lane::Slow => self.keys.products,
            Lane::Fast => self.keys.rules,
        }
    }

    /// Whether less than a third of `lifetime` is left.
    fn is_due(&self, expires: UnixTime, lifetime: Duration) -> bool {
        expires.since(self.now) < lifetime / 3
    }
}

/// A release and its files.
#[derive(Clone, Copy, Debug)]
pub struct Publication<'a> {
    /// The release.
    pub approved: &'a Approved<Release>,
    /// The evidence by which it was approved; after a promotion, with the promotion.
    pub bundle: &'a Bundle,
    /// Where the artifacts are, and the patches that lead to them. Those that the channel holds
    /// already may be left out.
    pub artifacts: &'a BTreeMap<Digest, PathBuf>,
}

/// What a publication changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// Endpoints see something new.
    New,
    /// The channel held all of it already.
    Same,
}

impl Channel {
    /// Makes a channel in `folder`, which must be missing or empty, under the root `root` that both
    /// organisations have signed.
    ///
    /// # Errors
    /// Any [`Error`]; what was written then is no channel.
    pub fn create(
        folder: &Path,
        root: Metadata<Root>,
        delegates: Delegates<'_>,
        signing: &Signing<'_>,
    ) -> Result<Self, Error> {
        let tree = Tree::create(folder)?;
        let mut targets = Targets::new(Version::FIRST, signing.now.after(signing.lifetimes.targets));
        let mut delegated = BTreeMap::new();
        for lane in [Lane::Slow, Lane::Fast] {
            targets = targets.with_delegation(layout::role(lane), delegates.of_lane(lane), layout::paths(lane));
            let empty = Targets::new(Version::FIRST, signing.now.after(signing.lifetimes.delegated));
            delegated.insert(layout::role(lane), Metadata::sign(&empty, signing.of_lane(lane))?);
        }
        let targets = Some(Metadata::sign(&targets, signing.keys.targets)?);
        let change = Change { root: Some(root), targets, delegated, artifacts: BTreeMap::new() };
        let (repository, files) = Repository::create(change, signing.online(), &SUITE, signing.now)?;
        write_all(&tree, &files)?;
        Ok(Self { tree, repository })
    }

    /// The channel in `folder`, verified as an endpoint would, save for expiry.
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::Metadata`], [`Error::File`].
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let tree = Tree::open(folder);
        let root = tree.read(FIRST_ROOT, ROOT_BYTES_MAX)?.ok_or_else(|| Error::Absent(folder.to_owned()))?;
        let repository = Repository::open(&root, &FolderFetch::new(folder), &SUITE)?;
        Ok(Self { tree, repository })
    }

    /// Has the delegated roles signed by `delegates` from now on, if they are not yet.
    ///
    /// # Errors
    /// Any [`Error`]; endpoints then see what they saw before.
    pub fn delegate(&mut self, delegates: Delegates<'_>, signing: &Signing<'_>) -> Result<Published, Error> {
        let old = self.repository.targets().content();
        let mut targets = Targets { delegations: None, ..old.clone() };
        let mut delegated = BTreeMap::new();
        for lane in [Lane::Slow, Lane::Fast] {
            targets = targets.with_delegation(layout::role(lane), delegates.of_lane(lane), layout::paths(lane));
            let mut content = self.delegated(lane)?.content().clone();
            content.version = following(layout::folder(lane), content.version)?;
            content.expires = signing.now.after(signing.lifetimes.delegated);
            delegated.insert(layout::role(lane), Metadata::sign(&content, signing.of_lane(lane))?);
        }
        if targets.delegations == old.delegations {
            return Ok(Published::Same);
        }
        targets.version = following("targets", old.version)?;
        targets.expires = signing.now.after(signing.lifetimes.targets);
        let targets = Some(Metadata::sign(&targets, signing.keys.targets)?);
        self.apply(&Change { targets, delegated, ..Change::default() }, signing)?;
        Ok(Published::New)
    }

    /// Removes what publishers that died left half-written. Nobody may be publishing.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn sweep(&self) -> Result<(), Error> {
        self.tree.sweep()
    }

    /// Where the channel lies.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.tree.folder()
    }

    /// The metadata in force.
    #[must_use]
    pub const fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Publishes a release, or what is new about it (its bundle grows with each promotion).
    ///
    /// # Errors
    /// Any [`Error`]; endpoints then see what they saw before.
    pub fn publish(&mut self, publication: &Publication<'_>, signing: &Signing<'_>) -> Result<Published, Error> {
        let Publication { approved, bundle, .. } = *publication;
        let release = approved.release();
        if !holds(bundle, approved.id()) {
            return Err(Error::OtherBundle(approved.id()));
        }
        let product = Product { lane: release.lane, id: &release.product };
        self.patches(publication)?;
        let mut described = self.artifacts(publication)?;
        let mut releases = self.releases(product)?;
        releases.enter(Listed { number: release.number, version: release.version.clone(), ring: approved.ring() });
        let retired = releases.retire();
        let small = BTreeMap::from([
            (product.bundle(release.number), bundle.to_bytes()),
            (product.releases(), releases.to_bytes()),
        ]);
        described.extend(small.iter().map(|(path, bytes)| (path.clone(), TargetFile::of(bytes))));

        let role = layout::role(release.lane);
        let old = self.delegated(release.lane)?.content();
        let mut new = old.clone();
        for (path, file) in described {
            new = new.with_target(&path, file);
        }
        for number in retired {
            let prefix = product.release_prefix(number);
            new.targets.retain(|path, _| !path.starts_with(&prefix));
        }
        if new.targets == old.targets {
            return Ok(Published::Same);
        }
        new.version = following(layout::folder(release.lane), old.version)?;
        new.expires = signing.now.after(signing.lifetimes.delegated);
        let delegated = BTreeMap::from([(role, Metadata::sign(&new, signing.of_lane(release.lane))?)]);
        self.apply(&Change { delegated, artifacts: small, ..Change::default() }, signing)?;
        Ok(Published::New)
    }

    /// Renews the timestamp, and whatever else has less than a third of its lifetime left. To be
    /// called several times within a timestamp's lifetime.
    ///
    /// # Errors
    /// Any [`Error`]; endpoints then see what they saw before.
    pub fn refresh(&mut self, signing: &Signing<'_>) -> Result<(), Error> {
        let mut change = Change::default();
        for lane in [Lane::Slow, Lane::Fast] {
            let old = self.delegated(lane)?.content();
            if signing.is_due(old.expires, signing.lifetimes.delegated) {
                let mut new = old.clone();
                new.version = following(layout::folder(lane), old.version)?;
                new.expires = signing.now.after(signing.lifetimes.delegated);
                change.delegated.insert(layout::role(lane), Metadata::sign(&new, signing.of_lane(lane))?);
            }
        }
        let old = self.repository.targets().content();
        if signing.is_due(old.expires, signing.lifetimes.targets) {
            let mut new = old.clone();
            new.version = following("targets", old.version)?;
            new.expires = signing.now.after(signing.lifetimes.targets);
            change.targets = Some(Metadata::sign(&new, signing.keys.targets)?);
        }
        let snapshot = self.repository.snapshot().expires();
        let is_due = signing.is_due(snapshot, signing.lifetimes.snapshot);
        if is_due || change.targets.is_some() || !change.delegated.is_empty() {
            return self.apply(&change, signing);
        }
        let mut next = self.repository.clone();
        write_all(&self.tree, &next.renew(signing.online(), &SUITE, signing.now)?)?;
        self.repository = next;
        Ok(())
    }

    /// Publishes the next root, signed as the present one and the next one demand.
    ///
    /// # Errors
    /// Any [`Error`]; endpoints then see what they saw before.
    pub fn publish_root(&mut self, root: Metadata<Root>, signing: &Signing<'_>) -> Result<(), Error> {
        self.apply(&Change { root: Some(root), ..Change::default() }, signing)
    }

    /// Replaces a lane's status. It is no TUF target: its freshness comes from its evidence.
    ///
    /// # Errors
    /// [`Error::OtherBundle`], [`Error::File`].
    pub fn publish_status(&self, status: &CurrentStatus, bundle: &Bundle) -> Result<(), Error> {
        let id = status.recorded().id();
        if bundle.entries().len() != 1 || !holds(bundle, id) {
            return Err(Error::OtherBundle(id));
        }
        self.tree.write(&layout::status(status.status().lane), &bundle.to_bytes())
    }

    /// Publishes the genesis policy, for people; endpoints have it already.
    ///
    /// # Errors
    /// [`Error::OtherBundle`], [`Error::File`].
    pub fn publish_genesis(&self, policy: &TrustedPolicy, envelope: &Envelope) -> Result<(), Error> {
        if policy.id() != envelope.id() {
            return Err(Error::OtherBundle(policy.id()));
        }
        self.tree.write(&layout::policy(1), &envelope.to_bytes())
    }

    /// Publishes a policy that succeeded another one.
    ///
    /// # Errors
    /// [`Error::OtherBundle`], [`Error::File`].
    pub fn publish_policy(&self, policy: &TrustedPolicy, bundle: &Bundle) -> Result<(), Error> {
        if bundle.entries().len() != 1 || !holds(bundle, policy.id()) {
            return Err(Error::OtherBundle(policy.id()));
        }
        self.tree.write(&layout::policy(policy.policy().version), &bundle.to_bytes())
    }

    /// The releases of `product` that the channel offers.
    ///
    /// # Errors
    /// [`Error::Releases`], [`Error::File`].
    pub fn releases(&self, product: Product<'_>) -> Result<Releases, Error> {
        let path = product.releases();
        let Some(file) = self.delegated(product.lane)?.content().targets.get(path.as_str()) else {
            return Ok(Releases::new(product.id.clone(), product.lane));
        };
        let location = Repository::location(&path, file).to_string();
        let bytes = self.tree.read(&location, RELEASES_BYTES_MAX)?.unwrap_or_default();
        Releases::parse(&bytes).map_err(|error| Error::Releases { path: location, error })
    }

    pub(crate) const fn tree(&self) -> &Tree {
        &self.tree
    }

    pub(crate) fn delegated(&self, lane: Lane) -> Result<&Metadata<Targets>, Error> {
        let role = layout::role(lane);
        self.repository.delegated(&role).ok_or_else(|| tuf::Error::Unlisted(role.file_name()).into())
    }

    /// Copies the patches into the tree, where only the release names them.
    fn patches(&self, publication: &Publication<'_>) -> Result<(), Error> {
        let release = publication.approved.release();
        for delta in release.artifacts.iter().flat_map(|artifact| &artifact.deltas) {
            let content = Content { digest: delta.patch, size: delta.size };
            let file = layout::patch(&release.product, &delta.patch);
            if !self.tree.holds(&file, content)? {
                let missing = || Error::NoArtifact { name: file.clone(), content: delta.patch };
                let from = publication.artifacts.get(&delta.patch).ok_or_else(missing)?;
                self.tree.copy(from, &file, content)?;
            }
        }
        Ok(())
    }

    /// Copies the artifacts into the tree, where nothing names them yet.
    fn artifacts(&self, publication: &Publication<'_>) -> Result<BTreeMap<TargetPath, TargetFile>, Error> {
        let approved = publication.approved;
        let mut described = BTreeMap::new();
        for (place, (subject, says)) in approved.artifacts().iter().zip(&approved.release().artifacts).enumerate() {
            let content = Content { digest: subject.sha256(), size: says.size };
            let path = layout::artifact(approved.release(), ArtifactName { place, name: &subject.name });
            let file = TargetFile { length: content.size, hashes: Hashes::from(content.digest), custom: None };
            let location = Repository::location(&path, &file).to_string();
            if !self.tree.holds(&location, content)? {
                let missing = || Error::NoArtifact { name: subject.name.clone(), content: content.digest };
                let from = publication.artifacts.get(&content.digest).ok_or_else(missing)?;
                self.tree.copy(from, &location, content)?;
            }
            described.insert(path, file);
        }
        Ok(described)
    }

    /// Writes the files of a change, the timestamp last; only then has it happened.
    fn apply(&mut self, change: &Change, signing: &Signing<'_>) -> Result<(), Error> {
        let mut next = self.repository.clone();
        let files = next.publish(change, signing.online(), &SUITE, signing.now)?;
        write_all(&self.tree, &files)?;
        self.repository = next;
        Ok(())
    }
}

fn write_all(tree: &Tree, files: &[PublishedFile]) -> Result<(), Error> {
    files.iter().try_for_each(|file| tree.write(&file.location.to_string(), &file.bytes))
}

fn holds(bundle: &Bundle, id: StatementId) -> bool {
    bundle.entries().iter().any(|entry| entry.envelope.id() == id)
}

fn following(role: &str, version: Version) -> Result<Version, Error> {
    version.next().ok_or_else(|| Error::LastVersion(role.to_owned()))
}
