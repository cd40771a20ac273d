//! A vendor with a world, a channel and its keys.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use attest::{Bundle, Lane, Promotion, Release, Ring, Statement};
use channel::{Channel, Delegates, Error, Keys, Lifetimes, Publication, Published, Signing};
use policy::Role;
use stdx::{Clock as _, Digest, durable};
use tempfile::TempDir;
use testkit::{Released, VENDOR_LOG, World};
use tuf::{
    Client, Ed25519Sha256, Ed25519Signer, FolderFetch, Limits, MemoryStore, Metadata, PublicKey, Root, Signer, Signers,
    TopLevelSigners, Trusted, Version,
};
use verify::{Approved, CurrentStatus, Evidence, Request};

pub(crate) const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const SUITE: Ed25519Sha256 = Ed25519Sha256;

pub(crate) struct Vendor {
    pub(crate) world: World,
    pub(crate) folder: TempDir,
    pub(crate) channel: Channel,
    pub(crate) root: Vec<u8>,
    pub(crate) keys: Vec<Ed25519Signer>,
}

fn signers(keys: &[PublicKey], threshold: u32) -> Signers<'_> {
    Signers { keys, threshold: NonZeroU32::new(threshold).unwrap() }
}

impl Vendor {
    pub(crate) fn new() -> Self {
        Self::of(World::new())
    }

    pub(crate) fn of(world: World) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys: Vec<_> = (1..=7).map(|seed| Ed25519Signer::from_seed(&[seed; 32])).collect();
        let root = first_root(&keys, world.clock.now().after(YEAR));
        let bytes = root.bytes().to_vec();
        let [products, rules] = [3, 4].map(|at: usize| [keys[at].public_key().clone()]);
        let delegates = Delegates { products: signers(&products, 1), rules: signers(&rules, 1) };
        let path = folder.path().join("channel");
        let channel = with_signing(&keys, &world, |signing| Channel::create(&path, root, delegates, signing)).unwrap();
        Self { world, folder, channel, root: bytes, keys }
    }

    /// Does something with the channel and its keys.
    pub(crate) fn with<T>(&mut self, act: impl FnOnce(&mut Channel, &Signing<'_>) -> T) -> T {
        let channel = &mut self.channel;
        with_signing(&self.keys, &self.world, |signing| act(channel, signing))
    }

    pub(crate) fn status(&mut self) -> (CurrentStatus, Bundle) {
        self.status_of(Lane::Slow)
    }

    fn status_of(&mut self, lane: Lane) -> (CurrentStatus, Bundle) {
        let bundle = self.world.status_of(lane, |_| {});
        let evidence = Evidence::open(self.world.policy(), &bundle).unwrap();
        let status = self.world.policy().current_status(&evidence, lane, None, &self.world.moment()).unwrap();
        (status, bundle)
    }

    pub(crate) fn approve(&mut self, released: &Released) -> Approved<Release> {
        let statement = Statement::<Release>::decode(released.release.payload()).unwrap();
        let (status, _) = self.status_of(statement.predicate.lane);
        let evidence = Evidence::open(self.world.policy(), &released.bundle).unwrap();
        let at = self.world.moment();
        let request =
            Request { product: &released.build.product, ring: Ring::Canary, status: &status, at: &at, installed: None };
        self.world.policy().approve(&evidence, &request).unwrap()
    }

    /// Releases and publishes one file of these bytes.
    pub(crate) fn publish(&mut self, product: &str, content: &[u8]) -> (Released, Result<Published, Error>) {
        let released = self.world.release(product, "1.0", &[("a file+1.bin", content)]);
        let approved = self.approve(&released);
        let artifacts = self.artifacts(&[content]);
        let publication = Publication { approved: &approved, bundle: &released.bundle, artifacts: &artifacts };
        let published = self.with(|channel, signing| channel.publish(&publication, signing));
        (released, published)
    }

    /// Promotes a release and publishes that, which needs no artifacts.
    pub(crate) fn promote(&mut self, released: &mut Released, ring: Ring) {
        let promotion = Promotion {
            position: self.world.position(VENDOR_LOG, "release/vendor"),
            product: released.build.product.clone(),
            release: released.release.id(),
            ring,
        };
        let statement = Statement { subject: released.build.outputs.clone(), predicate: promotion };
        let promotion = self.world.sign_as(&statement, Role::Release, &["vendor", "supervisor"]);
        released.bundle = released.bundle.with(&self.world.bundle(&[(VENDOR_LOG, &promotion)])).unwrap();
        let approved = self.approve(released);
        assert_eq!(approved.ring(), ring);
        let publication = Publication { approved: &approved, bundle: &released.bundle, artifacts: &BTreeMap::new() };
        self.with(|channel, signing| channel.publish(&publication, signing)).unwrap();
    }

    /// Artifacts where a builder would have left them.
    pub(crate) fn artifacts(&self, contents: &[&[u8]]) -> BTreeMap<Digest, PathBuf> {
        let write = |content: &&[u8]| {
            let digest = Digest::of(content);
            let path = self.folder.path().join(format!("built-{digest}"));
            durable::write(&path, content).unwrap();
            (digest, path)
        };
        contents.iter().map(write).collect()
    }

    /// What an endpoint that knows the first root gets of a target.
    pub(crate) fn fetch(&self, path: &str) -> Result<Vec<u8>, tuf::Error> {
        let store = MemoryStore::default();
        let client = Client::new(&store, &SUITE, Limits::default());
        client.create(&self.root)?;
        let fetch = FolderFetch::new(self.channel.folder());
        let trusted: Trusted<'_> = client.refresh(&fetch, self.world.clock.now())?;
        trusted.fetch(&trusted.find(&path.parse().unwrap())?)
    }
}

fn first_root(keys: &[Ed25519Signer], expires: stdx::UnixTime) -> Metadata<Root> {
    let root: Vec<_> = keys[..2].iter().map(|key| key.public_key().clone()).collect();
    let [targets, snapshot, timestamp] = [2, 5, 6].map(|at: usize| [keys[at].public_key().clone()]);
    let top = TopLevelSigners {
        root: signers(&root, 2),
        targets: signers(&targets, 1),
        snapshot: signers(&snapshot, 1),
        timestamp: signers(&timestamp, 1),
    };
    let mut root = Metadata::sign(&Root::new(Version::FIRST, expires, top), &[&keys[0]]).unwrap();
    // The other organisation signs on its own machine.
    root.add_signature(&keys[1]).unwrap();
    root
}

fn with_signing<T>(keys: &[Ed25519Signer], world: &World, act: impl FnOnce(&Signing<'_>) -> T) -> T {
    let one = |at: usize| [&keys[at] as &dyn Signer];
    let (targets, products, rules, snapshot, timestamp) = (one(2), one(3), one(4), one(5), one(6));
    let keys =
        Keys { targets: &targets, products: &products, rules: &rules, snapshot: &snapshot, timestamp: &timestamp };
    act(&Signing { keys, lifetimes: Lifetimes::default(), now: world.clock.now() })
}
