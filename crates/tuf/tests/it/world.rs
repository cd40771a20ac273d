//! A repository with real keys, a network that records and lies, and a client.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::num::NonZeroU32;
use std::time::Duration;

use stdx::UnixTime;
use tuf::{
    Change, Client, Ed25519Sha256, Ed25519Signer, Error, Fetch, FetchError, Limits, Location, MemoryStore, MetaFile,
    Metadata, OnlineKeys, Paths, PublicKey, PublishedFile, Repository, RoleName, Root, Signer, Signers, Snapshot,
    Target, TargetFile, TargetPath, Targets, Timestamp, TimestampMeta, TopLevelSigners, Trusted, Version,
};

pub(crate) const SUITE: Ed25519Sha256 = Ed25519Sha256;
pub(crate) const NOW: UnixTime = UnixTime::from_seconds(1_795_000_000);
const DAY: u64 = 86_400;

pub(crate) fn days(count: u64) -> UnixTime {
    NOW.after(Duration::from_secs(count * DAY))
}

pub(crate) fn version(number: u64) -> Version {
    Version::new(number).unwrap()
}

pub(crate) fn role(name: &str) -> RoleName {
    name.parse().unwrap()
}

pub(crate) fn path(text: &str) -> TargetPath {
    text.parse().unwrap()
}

pub(crate) fn key(seed: u8) -> Ed25519Signer {
    Ed25519Signer::from_seed(&[seed; 32])
}

/// A key and the number of its kin that must sign.
pub(crate) fn public(signers: &[&Ed25519Signer]) -> Vec<PublicKey> {
    signers.iter().map(|signer| signer.public_key().clone()).collect()
}

pub(crate) fn signers(keys: &[PublicKey], threshold: u32) -> Signers<'_> {
    Signers { keys, threshold: NonZeroU32::new(threshold).unwrap() }
}

pub(crate) fn as_signers<'a>(signers: &[&'a Ed25519Signer]) -> Vec<&'a dyn Signer> {
    signers.iter().map(|signer| *signer as &dyn Signer).collect()
}

/// The organisations' keys. Root needs two of vendor, supervisor and member.
pub(crate) struct Keys {
    pub(crate) root: [Ed25519Signer; 3],
    pub(crate) targets: Ed25519Signer,
    pub(crate) products: Ed25519Signer,
    pub(crate) rules: Ed25519Signer,
    pub(crate) snapshot: Ed25519Signer,
    pub(crate) timestamp: Ed25519Signer,
}

impl Keys {
    pub(crate) fn new() -> Self {
        Self {
            root: [key(1), key(2), key(3)],
            targets: key(4),
            products: key(5),
            rules: key(6),
            snapshot: key(7),
            timestamp: key(8),
        }
    }

    pub(crate) fn root_content(&self, number: u64) -> Root {
        let root = public(&self.root.each_ref());
        let [timestamp, snapshot, targets] =
            [&self.timestamp, &self.snapshot, &self.targets].map(|signer| public(&[signer]));
        let top = TopLevelSigners {
            root: signers(&root, 2),
            timestamp: signers(&timestamp, 1),
            snapshot: signers(&snapshot, 1),
            targets: signers(&targets, 1),
        };
        Root::new(version(number), days(365), top)
    }

    pub(crate) fn root(&self, number: u64) -> Metadata<Root> {
        Metadata::sign(&self.root_content(number), &[&self.root[0], &self.root[1]]).unwrap()
    }

    /// Top-level targets that delegate to `products` and `rules`.
    pub(crate) fn targets_content(&self, number: u64) -> Targets {
        let paths = |pattern: &str| Paths::Patterns(vec![pattern.to_owned()]);
        Targets::new(version(number), days(180))
            .with_delegation(role("products"), signers(&public(&[&self.products]), 1), paths("products/*/*"))
            .with_delegation(role("rules"), signers(&public(&[&self.rules]), 1), paths("rules/*"))
    }

    pub(crate) fn targets(&self, number: u64) -> Metadata<Targets> {
        self.sign_targets(&self.targets_content(number))
    }

    pub(crate) fn sign_targets(&self, content: &Targets) -> Metadata<Targets> {
        Metadata::sign(content, &[&self.targets]).unwrap()
    }

    pub(crate) fn online(&self) -> ([&dyn Signer; 1], [&dyn Signer; 1]) {
        ([&self.snapshot], [&self.timestamp])
    }
}

/// What `products` lists at a version: one file whose content is the version.
pub(crate) const PRODUCT: &str = "products/scanner/scanner.tar";

pub(crate) fn product(number: u64) -> Vec<u8> {
    format!("scanner {number}").into_bytes()
}

pub(crate) fn products_content(number: u64) -> Targets {
    Targets::new(version(number), days(90)).with_target(&path(PRODUCT), TargetFile::of(&product(number)))
}

/// Serves files, records what was asked for, and can be told to serve without end.
#[derive(Default)]
pub(crate) struct Network {
    pub(crate) files: RefCell<BTreeMap<String, Vec<u8>>>,
    pub(crate) requests: RefCell<Vec<String>>,
    pub(crate) endless: RefCell<Option<String>>,
    pub(crate) broken: RefCell<Option<String>>,
    /// Bytes that clients have read of the endless file.
    pub(crate) endless_read: Cell<u64>,
}

struct Endless<'a>(&'a Cell<u64>);

impl Read for Endless<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        buffer.fill(b' ');
        self.0.set(self.0.get() + buffer.len() as u64);
        Ok(buffer.len())
    }
}

impl Network {
    pub(crate) fn write(&self, files: Vec<PublishedFile>) {
        for file in files {
            self.files.borrow_mut().insert(file.location.to_string(), file.bytes);
        }
    }

    pub(crate) fn put(&self, name: &str, bytes: impl Into<Vec<u8>>) {
        self.files.borrow_mut().insert(name.to_owned(), bytes.into());
    }

    pub(crate) fn get(&self, name: &str) -> Vec<u8> {
        self.files.borrow()[name].clone()
    }

    pub(crate) fn take_requests(&self) -> Vec<String> {
        self.requests.take()
    }
}

impl Fetch for Network {
    fn open(&self, location: &Location) -> Result<Box<dyn Read + '_>, FetchError> {
        let name = location.to_string();
        self.requests.borrow_mut().push(name.clone());
        if self.broken.borrow().as_ref() == Some(&name) {
            return Err(FetchError::Unavailable("the line is down".to_owned()));
        }
        if self.endless.borrow().as_ref() == Some(&name) {
            return Ok(Box::new(Endless(&self.endless_read)));
        }
        let bytes = self.files.borrow().get(&name).cloned().ok_or(FetchError::NotFound)?;
        Ok(Box::new(io::Cursor::new(bytes)))
    }
}

/// All of it: version 1 of everything is published and the client has been set up with root 1.
pub(crate) struct World {
    pub(crate) keys: Keys,
    pub(crate) repository: Repository,
    pub(crate) network: Network,
    pub(crate) store: MemoryStore,
}

impl World {
    pub(crate) fn new() -> Self {
        let keys = Keys::new();
        let change = first_change(&keys);
        let (repository, files) = Repository::create(change, online(&keys.online()), &SUITE, NOW).unwrap();
        let world = Self { keys, repository, network: Network::default(), store: MemoryStore::default() };
        world.network.write(files);
        world.network.put("metadata/1.root.json", world.keys.root(1).bytes());
        world.client().create(world.keys.root(1).bytes()).unwrap();
        world
    }

    /// The same, with a client that has refreshed once.
    pub(crate) fn refreshed() -> Self {
        let world = Self::new();
        world.refresh().unwrap();
        world.network.take_requests();
        world
    }

    pub(crate) fn client(&self) -> Client<'_> {
        Client::new(&self.store, &SUITE, Limits::default())
    }

    pub(crate) fn refresh(&self) -> Result<Trusted<'_>, Error> {
        self.refresh_at(NOW)
    }

    pub(crate) fn refresh_at(&self, now: UnixTime) -> Result<Trusted<'_>, Error> {
        self.client().refresh(&self.network, now)
    }

    pub(crate) fn find(&self, text: &str) -> Result<Target, Error> {
        self.refresh()?.find(&path(text))
    }

    pub(crate) fn publish(&mut self, change: &Change) {
        let online_keys = self.keys.online();
        let files = self.repository.publish(change, online(&online_keys), &SUITE, NOW).unwrap();
        self.network.write(files);
    }

    /// Publishes the next version of `products`.
    pub(crate) fn publish_product(&mut self) {
        let number = self.repository.delegated(&role("products")).unwrap().version().get() + 1;
        let metadata = Metadata::sign(&products_content(number), &[&self.keys.products]).unwrap();
        let change = Change {
            delegated: [(role("products"), metadata)].into(),
            artifacts: [(path(PRODUCT), product(number))].into(),
            ..Change::default()
        };
        self.publish(&change);
    }

    /// Serves a snapshot and a timestamp that lists it, both properly signed, without the checks
    /// that an honest repository makes.
    pub(crate) fn force(&self, snapshot: &Snapshot, timestamp_version: u64) {
        let snapshot = Metadata::sign(snapshot, &[&self.keys.snapshot]).unwrap();
        self.network.put(&format!("metadata/{}.snapshot.json", snapshot.version()), snapshot.bytes());
        self.force_timestamp(MetaFile::of(snapshot.version(), snapshot.bytes()), timestamp_version);
    }

    pub(crate) fn force_timestamp(&self, snapshot: MetaFile, number: u64) {
        let content = Timestamp { version: version(number), expires: days(1), meta: TimestampMeta { snapshot } };
        let timestamp = Metadata::sign(&content, &[&self.keys.timestamp]).unwrap();
        self.network.put("metadata/timestamp.json", timestamp.bytes());
    }

    /// Serves top-level targets under a snapshot and timestamp of versions 2, with whatever
    /// further files they list.
    pub(crate) fn force_targets(&self, targets: &Targets, further: &[(&str, &Metadata<Targets>)]) {
        let targets = self.keys.sign_targets(targets);
        self.network.put(&format!("metadata/{}.targets.json", targets.version()), targets.bytes());
        let mut snapshot = Snapshot { version: version(2), ..self.repository.snapshot().content().clone() };
        snapshot.meta.insert("targets.json".to_owned(), MetaFile::of(targets.version(), targets.bytes()));
        for (name, metadata) in further {
            self.network.put(&format!("metadata/{}.{name}.json", metadata.version()), metadata.bytes());
            snapshot.meta.insert(format!("{name}.json"), MetaFile::of(metadata.version(), metadata.bytes()));
        }
        self.force(&snapshot, 2);
    }

    /// The trusted version of a role's file, 0 if there is none.
    pub(crate) fn stored(&self, name: &str) -> u64 {
        let bytes = tuf::Store::load(&self.store, &role(name)).unwrap();
        let Some(bytes) = bytes else { return 0 };
        let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        json["signed"]["version"].as_u64().unwrap()
    }

    pub(crate) fn all_stored(&self) -> [u64; 4] {
        ["root", "timestamp", "snapshot", "targets"].map(|name| self.stored(name))
    }
}

pub(crate) fn first_change(keys: &Keys) -> Change {
    let products = Metadata::sign(&products_content(1), &[&keys.products]).unwrap();
    let rules = Metadata::sign(&Targets::new(version(1), days(30)), &[&keys.rules]).unwrap();
    Change {
        root: Some(keys.root(1)),
        targets: Some(keys.targets(1)),
        delegated: [(role("products"), products), (role("rules"), rules)].into(),
        artifacts: [(path(PRODUCT), product(1))].into(),
    }
}

pub(crate) fn online<'a>(keys: &'a ([&'a dyn Signer; 1], [&'a dyn Signer; 1])) -> OnlineKeys<'a> {
    OnlineKeys { snapshot: &keys.0, snapshot_expires: days(7), timestamp: &keys.1, timestamp_expires: days(1) }
}

/// Changes the parsed JSON of a file.
pub(crate) fn edit(bytes: &[u8], change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let mut json = serde_json::from_slice(bytes).unwrap();
    change(&mut json);
    serde_json::to_vec(&json).unwrap()
}
