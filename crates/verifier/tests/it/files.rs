//! A release on disk, as somebody would have fetched it.

use std::path::PathBuf;

use attest::{BundleEntry, Envelope};
use stdx::{Clock as _, SystemClock, durable};
use tempfile::TempDir;
use testkit::{PRODUCT, Released, World};
use verifier::{Arguments, Failure, Proof, prove};

pub(crate) const CONTENT: &[u8] = b"the bytes of a product, long enough to be cut";

pub(crate) struct Files {
    pub(crate) world: World,
    pub(crate) released: Released,
    pub(crate) folder: TempDir,
    pub(crate) arguments: Arguments,
}

impl Files {
    /// A good release with its status in the bundle, and a second artifact.
    pub(crate) fn new() -> Self {
        Self::of(World::new())
    }

    pub(crate) fn of(mut world: World) -> Self {
        world.clock.set(SystemClock::new().now());
        let released = world.release(PRODUCT, "1.0", &[("product", CONTENT), ("manual", b"a manual")]);
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let arguments = Arguments {
            file: path("product"),
            bundle: path("bundle"),
            policy: path("policy"),
            genesis: world.genesis().id(),
            status: None,
            product: PRODUCT.parse().unwrap(),
            age_days: None,
            json: false,
        };
        std::fs::create_dir(&arguments.policy).unwrap();
        let files = Self { world, released, folder, arguments };
        files.write("product", CONTENT);
        files.write("policy/1.envelope", &files.world.genesis().to_bytes());
        let mut files = files;
        let status = files.world.status();
        let bundle = files.released.bundle.with(&status).unwrap();
        files.write("bundle", &bundle.to_bytes());
        files
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        durable::write(&path, bytes).unwrap();
        path
    }

    pub(crate) fn bundle_bytes(&self) -> Vec<u8> {
        std::fs::read(&self.arguments.bundle).unwrap()
    }

    pub(crate) fn prove(&self) -> Result<Proof, Failure> {
        prove(&self.arguments, &self.world.clock)
    }

    /// The code with which the present files are refused.
    pub(crate) fn refusal(&self) -> &'static str {
        self.prove().map(|proof| panic!("proven: {proof}")).unwrap_err().code
    }

    /// The code with which a bundle of these entries is refused.
    pub(crate) fn refusal_of(&self, entries: Vec<BundleEntry>) -> &'static str {
        let bundle = attest::Bundle::new(entries).unwrap();
        self.write("bundle", &bundle.to_bytes());
        self.refusal()
    }

    pub(crate) fn entries(&self) -> Vec<BundleEntry> {
        attest::Bundle::parse(&self.bundle_bytes()).unwrap().entries().to_vec()
    }
}

/// The envelope's JSON with one textual change.
pub(crate) fn edited(envelope: &Envelope, edit: impl FnOnce(String) -> String) -> String {
    edit(String::from_utf8(envelope.to_bytes()).unwrap())
}
