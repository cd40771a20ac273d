//! A vendor with a channel and a server, and an endpoint that reads it.

use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use agent::{Config, Disk, Endpoint, Failure, Gate, Genesis, Installed, Ports, RealDisk, Report, StatusReport};
use attest::{Bundle, Lane, Release, Ring, Statement, StatementId, Subject};
use channel::{Channel, Delegates, Keys, Lifetimes, Publication, Signing};
use policy::{Policy, PolicyDocument, Role};
use stdx::{Clock as _, Digest, UnixTime, durable};
use tempfile::TempDir;
use testkit::{PRODUCT, ReleaseOptions, Released, VENDOR_LOG, World};
use tuf::{Ed25519Signer, Metadata, PublicKey, Root, Signer, Signers, TopLevelSigners, Version};
use verify::{Approved, CurrentStatus, Evidence, Moment, Request};

use crate::server::Server;

pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) folder: TempDir,
    pub(crate) channel: Channel,
    pub(crate) server: Server,
    pub(crate) config: Config,
    client: api::Client,
    gate: Gate,
    pub(crate) lanes: &'static [Lane],
    keys: Vec<Ed25519Signer>,
}

fn signers(keys: &[PublicKey], threshold: u32) -> Signers<'_> {
    Signers { keys, threshold: NonZeroU32::new(threshold).unwrap() }
}

impl Scene {
    /// A channel with a status and no release, and an endpoint that was set up.
    pub(crate) fn new() -> Self {
        Self::with_mirrors(&[])
    }

    /// The same, with these mirrors in the policy.
    pub(crate) fn with_mirrors(mirrors: &[&Server]) -> Self {
        Self::under(|policy| policy.mirrors = mirrors.iter().map(|server| server.url().parse().unwrap()).collect())
    }

    /// The same, under a policy that is otherwise.
    pub(crate) fn under(change: impl FnOnce(&mut Policy)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys: Vec<_> = (1..=6).map(|seed| Ed25519Signer::from_seed(&[seed; 32])).collect();
        let root = first_root(&keys);
        let digest = Digest::of(root.bytes());
        let world = World::with_policy(|policy| {
            policy.channel_root = Some(digest);
            change(policy);
        });
        let path = folder.path().join("channel");
        let delegate = [keys[3].public_key().clone()];
        let delegates = Delegates { products: signers(&delegate, 1), rules: signers(&delegate, 1) };
        let channel =
            with_signing(&keys, world.clock.now(), |signing| Channel::create(&path, root, delegates, signing)).unwrap();
        let server = Server::new(&path);
        let config = config(folder.path(), server.url(), "");
        let client = api::Client::new(Duration::from_secs(2));
        let gate = Gate::with(scanner_path(), detection::Limits::new(NonZeroU16::MIN));
        let mut scene = Self { world, folder, channel, server, config, client, gate, lanes: &[Lane::Slow], keys };
        scene.publish_status();
        let id = scene.world.genesis().id();
        scene.init(&id).unwrap();
        scene
    }

    /// A scene whose product is installed in this content.
    pub(crate) fn installed(content: &[u8]) -> Self {
        let mut scene = Self::new();
        scene.release(content);
        assert_eq!(scene.update().exit_code(), 0);
        assert_eq!(scene.current().as_deref(), Some(content));
        scene
    }

    pub(crate) fn reconfigure(&mut self, more: &str) {
        self.config = config(self.folder.path(), self.server.url(), more);
    }

    pub(crate) fn init(&self, id: &StatementId) -> Result<(), Failure> {
        let envelope = self.world.genesis().to_bytes();
        Endpoint::init(&self.config, self.ports(&RealDisk), Genesis { id, envelope: &envelope })
    }

    pub(crate) fn ports<'a>(&'a self, disk: &'a dyn Disk) -> Ports<'a> {
        Ports { clock: &self.world.clock, disk, progress: &(), client: &self.client, rules: &self.gate }
    }

    pub(crate) fn update(&self) -> Report {
        self.update_on(&RealDisk).unwrap()
    }

    pub(crate) fn update_on(&self, disk: &dyn Disk) -> Result<Report, Failure> {
        Endpoint::open(&self.config, self.ports(disk))?.update()
    }

    /// An update that is refused with this code, and changes nothing that is installed.
    pub(crate) fn refused(&self, code: &str) -> Report {
        let before = self.current();
        let report = self.update();
        assert!(report.has(code), "{code} in {report:?}");
        assert_eq!(self.current(), before, "what is installed stays");
        report
    }

    pub(crate) fn check(&self) -> Report {
        Endpoint::open(&self.config, self.ports(&RealDisk)).unwrap().check().unwrap()
    }

    pub(crate) fn import(&self, bytes: &[u8]) -> Result<Report, Failure> {
        Endpoint::open(&self.config, self.ports(&RealDisk))?.import(bytes)
    }

    pub(crate) fn status(&self) -> StatusReport {
        Endpoint::read(&self.config, self.ports(&RealDisk)).unwrap().status().unwrap()
    }

    /// The content of the product in use.
    pub(crate) fn current(&self) -> Option<Vec<u8>> {
        std::fs::read(self.folder.path().join("install").join(PRODUCT).join("current/product")).ok()
    }

    pub(crate) fn journal(&self) -> String {
        std::fs::read_to_string(self.config.state.join("journal.jsonl")).unwrap()
    }

    pub(crate) fn with<T>(&mut self, act: impl FnOnce(&mut Channel, &Signing<'_>) -> T) -> T {
        let channel = &mut self.channel;
        with_signing(&self.keys, self.world.clock.now(), |signing| act(channel, signing))
    }

    pub(crate) fn make_status(&mut self) -> (CurrentStatus, Bundle) {
        self.status_of(Lane::Slow)
    }

    fn status_of(&mut self, lane: Lane) -> (CurrentStatus, Bundle) {
        let bundle = self.world.status_of(lane, |_| {});
        let evidence = Evidence::open(self.world.policy(), &bundle).unwrap();
        let at = Moment::new(&self.world.clock, UnixTime::EPOCH, DAY);
        (self.world.policy().current_status(&evidence, lane, None, &at).unwrap(), bundle)
    }

    pub(crate) fn publish_status(&mut self) {
        for lane in self.lanes {
            let (status, bundle) = self.status_of(*lane);
            self.channel.publish_status(&status, &bundle).unwrap();
        }
    }

    /// Lets time pass, with the vendor and supervisor awake.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.world.clock.advance(time);
        self.with(|channel, signing| channel.refresh(signing)).unwrap();
        self.publish_status();
    }

    pub(crate) fn release(&mut self, content: &[u8]) -> Released {
        self.release_with(PRODUCT, content, &ReleaseOptions::default())
    }

    pub(crate) fn release_with(&mut self, product: &str, content: &[u8], options: &ReleaseOptions) -> Released {
        let released = self.world.release_with(product, "1.0", &[("product", content)], options);
        self.publish(&released, content);
        released
    }

    /// Publishes what deserves it.
    pub(crate) fn publish(&mut self, released: &Released, content: &[u8]) {
        self.publish_files(released, Lane::Slow, &[content]);
    }

    /// Publishes what came through `lane`: artifacts and patches.
    pub(crate) fn publish_files(&mut self, released: &Released, lane: Lane, files: &[&[u8]]) {
        let approved = self.approve(released, lane);
        let artifacts = files.iter().map(|content| self.artifact(content)).collect();
        let publication = Publication { approved: &approved, bundle: &released.bundle, artifacts: &artifacts };
        self.with(|channel, signing| channel.publish(&publication, signing)).unwrap();
    }

    fn approve(&mut self, released: &Released, lane: Lane) -> Approved<Release> {
        // The publisher's own status may be from before a revocation.
        let (revoked, stops) = (std::mem::take(&mut self.world.revoked), std::mem::take(&mut self.world.stops));
        let (status, _) = self.status_of(lane);
        (self.world.revoked, self.world.stops) = (revoked, stops);
        let evidence = Evidence::open(self.world.policy(), &released.bundle).unwrap();
        let at = self.world.moment();
        let product = &released.build.product;
        let request = Request { product, ring: Ring::Canary, status: &status, at: &at, installed: None };
        self.world.policy().approve(&evidence, &request).unwrap()
    }

    fn artifact(&self, content: &[u8]) -> (Digest, PathBuf) {
        let digest = Digest::of(content);
        let path = self.folder.path().join(format!("built-{digest}"));
        durable::write(&path, content).unwrap();
        (digest, path)
    }

    /// The bundle that the channel serves for a release is replaced by `bundle`, as a vendor with
    /// all of the channel's keys could do: TUF alone must not be what protects.
    pub(crate) fn smuggle(&mut self, bundle: &Bundle) {
        let bytes = bundle.to_bytes();
        let path = format!("products/{PRODUCT}/{}/bundle", self.number());
        let path: tuf::TargetPath = path.parse().unwrap();
        let role = channel::layout::role(Lane::Slow);
        let folder = self.channel.folder().to_owned();
        let mut repository = self.channel.repository().clone();
        let old = repository.delegated(&role).unwrap().content().clone();
        let mut new = old.with_target(&path, tuf::TargetFile::of(&bytes));
        new.version = new.version.next().unwrap();
        let keys = &self.keys;
        let files = with_signing(keys, self.world.clock.now(), |signing| {
            let delegated = BTreeMap::from([(role.clone(), Metadata::sign(&new, signing.keys.products).unwrap())]);
            let artifacts = BTreeMap::from([(path.clone(), bytes.clone())]);
            let online = tuf::OnlineKeys {
                snapshot: signing.keys.snapshot,
                snapshot_expires: signing.now.after(30 * DAY),
                timestamp: signing.keys.timestamp,
                timestamp_expires: signing.now.after(DAY),
            };
            let change = tuf::Change { delegated, artifacts, ..tuf::Change::default() };
            repository.publish(&change, online, &tuf::Ed25519Sha256, signing.now).unwrap()
        });
        for file in files {
            write(&folder, &file.location.to_string(), &file.bytes);
        }
        self.channel = Channel::open(&folder).unwrap();
    }

    fn number(&self) -> u64 {
        let id = PRODUCT.parse().unwrap();
        let product = channel::layout::Product { lane: Lane::Slow, id: &id };
        self.channel.releases(product).unwrap().releases().last().unwrap().number.get()
    }

    /// Version 2 of the policy, signed by `parties` and recorded.
    pub(crate) fn succession(&mut self, parties: &[&str]) -> Bundle {
        let mut policy = self.world.policy().policy().clone();
        policy.version = 2;
        let position = self.world.position(VENDOR_LOG, "policy");
        let document = PolicyDocument { position, previous: Some(self.world.policy().id()), policy };
        let subject = vec![Subject::new("policy", Digest::of(b"policy"))];
        let envelope = self.world.sign_as(&Statement { subject, predicate: document }, Role::Policy, parties);
        self.world.bundle(&[(VENDOR_LOG, &envelope)])
    }

    /// A copy of the channel as it is now.
    pub(crate) fn copy_of_channel(&self, name: &str) -> PathBuf {
        let copy = self.folder.path().join(name);
        copy_tree(self.channel.folder(), &copy);
        copy
    }
}

fn scanner_path() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_clerestory-agent")).with_file_name("clerestory-scan")
}

/// The scanner, which the cargo that runs this test builds where the agent is.
pub(crate) fn scanner() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let path = scanner_path();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
        let done =
            cargo.args(["build", "--quiet", "--package", "scanner", "--bin", "clerestory-scan"]).output().unwrap();
        assert!(done.status.success() && path.exists(), "{}", String::from_utf8_lossy(&done.stderr));
        path
    })
}

pub(crate) fn write(folder: &Path, file: &str, bytes: &[u8]) {
    let path = folder.join(file);
    durable::create_folder(path.parent().unwrap()).unwrap();
    durable::write(&path, bytes).unwrap();
}

pub(crate) fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy_tree(&entry.path(), &target);
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(entry.path()).unwrap(), target).unwrap();
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn config(folder: &Path, url: &str, more: &str) -> Config {
    let folder = folder.display();
    let text = format!(
        "state = \"{folder}/state\"\ninstall = \"{folder}/install\"\nchannel = [\"{url}\"]\nring = \"all\"\n\
         [network]\ntimeout_s = 2\n[[product]]\nid = \"{PRODUCT}\"\n{more}"
    );
    Config::parse(&text).unwrap()
}

fn first_root(keys: &[Ed25519Signer]) -> Metadata<Root> {
    let public = |at: &[usize]| -> Vec<_> { at.iter().map(|at| keys[*at].public_key().clone()).collect() };
    let (root, targets, snapshot, timestamp) = (public(&[0, 1]), public(&[2]), public(&[4]), public(&[5]));
    let top = TopLevelSigners {
        root: signers(&root, 2),
        targets: signers(&targets, 1),
        snapshot: signers(&snapshot, 1),
        timestamp: signers(&timestamp, 1),
    };
    let expires = UnixTime::from_seconds(4_000_000_000);
    Metadata::sign(&Root::new(Version::FIRST, expires, top), &[&keys[0], &keys[1]]).unwrap()
}

fn with_signing<T>(keys: &[Ed25519Signer], now: UnixTime, act: impl FnOnce(&Signing<'_>) -> T) -> T {
    let one = |at: usize| [&keys[at] as &dyn Signer];
    let (targets, delegated, snapshot, timestamp) = (one(2), one(3), one(4), one(5));
    let keys =
        Keys { targets: &targets, products: &delegated, rules: &delegated, snapshot: &snapshot, timestamp: &timestamp };
    act(&Signing { keys, lifetimes: Lifetimes::default(), now })
}

/// What the record says is in use.
pub(crate) fn active(scene: &Scene) -> Option<Installed> {
    let path = scene.config.state.join("products").join(format!("{PRODUCT}.json"));
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(path).ok()?).unwrap();
    serde_json::from_value(record["active"].clone()).ok()
}
