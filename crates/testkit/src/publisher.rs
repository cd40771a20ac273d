//! A channel in a folder, with keys of its own, that publishes the world's releases.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use attest::{Bundle, Lane, Release, Ring};
use channel::{Channel, Delegates, Keys, Lifetimes, Publication, Signing};
use stdx::{Clock as _, Digest, UnixTime, durable};
use tuf::{Ed25519Signer, Metadata, PublicKey, Root, Signer, Signers, TopLevelSigners, Version};
use verify::{Approved, CurrentStatus, Evidence, Moment, Request};

use crate::release::Released;
use crate::world::{PRODUCT, World};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A vendor that publishes: the world, and a channel whose root its policy names.
#[derive(Debug)]
pub struct Publisher {
    /// Who signs and logs.
    pub world: World,
    channel: Channel,
    keys: Vec<Ed25519Signer>,
    built: PathBuf,
}

impl Publisher {
    /// A channel at `folder/channel` with a status and no release, at the time `now`.
    #[must_use]
    pub fn new(folder: &Path, now: UnixTime) -> Self {
        let keys: Vec<_> = (1..=6).map(|seed| Ed25519Signer::from_seed(&[seed; 32])).collect();
        let root = first_root(&keys);
        let digest = Digest::of(root.bytes());
        let world = World::with_policy(|policy| policy.channel_root = Some(digest));
        world.clock.set(now);
        let delegate = [key(&keys, 3).public_key().clone()];
        let delegates = Delegates { products: signers(&delegate, 1), rules: signers(&delegate, 1) };
        let path = folder.join("channel");
        let channel = with_signing(&keys, now, |signing| Channel::create(&path, root, delegates, signing)).unwrap();
        let built = folder.join("built");
        durable::create_folder(&built).unwrap();
        let mut publisher = Self { world, channel, keys, built };
        publisher.publish_status();
        publisher
    }

    /// The channel's folder: what is served.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.channel.folder()
    }

    /// Puts a fresh status into the channel.
    pub fn publish_status(&mut self) {
        let (status, bundle) = self.status();
        self.channel.publish_status(&status, &bundle).unwrap();
    }

    /// Builds, approves and publishes a release whose one artifact is `content`.
    pub fn release(&mut self, version: &str, content: &[u8]) -> Released {
        let released = self.world.release(PRODUCT, version, &[("product", content)]);
        let approved = self.approve(&released);
        let digest = Digest::of(content);
        let path = self.built.join(digest.to_string());
        durable::write(&path, content).unwrap();
        let artifacts = BTreeMap::from([(digest, path)]);
        let publication = Publication { approved: &approved, bundle: &released.bundle, artifacts: &artifacts };
        let channel = &mut self.channel;
        let now = self.world.clock.now();
        with_signing(&self.keys, now, |signing| channel.publish(&publication, signing)).unwrap();
        released
    }

    fn status(&mut self) -> (CurrentStatus, Bundle) {
        let bundle = self.world.status();
        let evidence = Evidence::open(self.world.policy(), &bundle).unwrap();
        let at = Moment::new(&self.world.clock, UnixTime::EPOCH, DAY);
        (self.world.policy().current_status(&evidence, Lane::Slow, None, &at).unwrap(), bundle)
    }

    fn approve(&mut self, released: &Released) -> Approved<Release> {
        let (status, _) = self.status();
        let evidence = Evidence::open(self.world.policy(), &released.bundle).unwrap();
        let at = self.world.moment();
        let product = &released.build.product;
        let request = Request { product, ring: Ring::Canary, status: &status, at: &at, installed: None };
        self.world.policy().approve(&evidence, &request).unwrap()
    }
}

fn key(keys: &[Ed25519Signer], at: usize) -> &Ed25519Signer {
    keys.get(at).unwrap()
}

fn signers(keys: &[PublicKey], threshold: u32) -> Signers<'_> {
    Signers { keys, threshold: NonZeroU32::new(threshold).unwrap() }
}

fn first_root(keys: &[Ed25519Signer]) -> Metadata<Root> {
    let public = |at: &[usize]| -> Vec<_> { at.iter().map(|at| key(keys, *at).public_key().clone()).collect() };
    let (root, targets, snapshot, timestamp) = (public(&[0, 1]), public(&[2]), public(&[4]), public(&[5]));
    let top = TopLevelSigners {
        root: signers(&root, 2),
        targets: signers(&targets, 1),
        snapshot: signers(&snapshot, 1),
        timestamp: signers(&timestamp, 1),
    };
    let expires = UnixTime::from_seconds(4_000_000_000);
    Metadata::sign(&Root::new(Version::FIRST, expires, top), &[key(keys, 0), key(keys, 1)]).unwrap()
}

fn with_signing<T>(keys: &[Ed25519Signer], now: UnixTime, act: impl FnOnce(&Signing<'_>) -> T) -> T {
    let one = |at: usize| [key(keys, at) as &dyn Signer];
    let (targets, delegated, snapshot, timestamp) = (one(2), one(3), one(4), one(5));
    let keys =
        Keys { targets: &targets, products: &delegated, rules: &delegated, snapshot: &snapshot, timestamp: &timestamp };
    act(&Signing { keys, lifetimes: Lifetimes::default(), now })
}
