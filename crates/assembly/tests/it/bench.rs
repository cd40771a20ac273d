//! Two organisations with depots of their own, kept between runs so that only the first one fetches.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use assembly::{
    Asking, BuildError, BuildRecord, Builder, Checkout, Conditions, ContentStore, Depot, Environment, Fetched,
    GitRevision, InputsError, Product, Resolved, Silent, Transport, pin,
};
use sandbox::{Cancel, Sandbox};

pub(crate) fn kept() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The sandbox's program, built by the cargo that runs this test.
pub(crate) fn sandbox() -> Sandbox {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| {
        let output = Command::new(env!("CARGO"))
            .current_dir(repository())
            .args(["build", "--quiet", "--package", "sandbox", "--bin", "clerestory-sandbox", "--message-format=json"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let messages = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).next_back().unwrap()
    });
    Sandbox::new(program)
}

/// An organisation: its own depot, its own questions to upstream.
pub(crate) struct Organisation {
    pub(crate) depot: Depot,
}

impl Organisation {
    pub(crate) fn new(name: &str) -> Self {
        let shared = ContentStore::create(&kept().join("transport")).unwrap();
        Self { depot: Depot::create(&kept().join(name), Transport::Shared(shared)).unwrap() }
    }

    /// Asks upstream, fetches, and makes the environment.
    pub(crate) fn prepare(&self, product: &Product, repository: &Path) -> Result<Prepared, InputsError> {
        let resolved = Resolved::ask(&self.depot, product, Asking::Upstream, &Silent)?;
        let checkout = Checkout { repository: repository.to_owned(), revision: GitRevision("HEAD".to_owned()) };
        let fetched = Fetched::fetch(&self.depot, product, &resolved, Some(&checkout), Asking::Upstream, &Silent)?;
        let environment = Environment::prepare(&self.depot, &product.recipe.environment, &fetched, &Silent).unwrap();
        Ok(Prepared { fetched, environment })
    }

    pub(crate) fn build(
        &self,
        product: &Product,
        prepared: &Prepared,
        conditions: &Conditions,
    ) -> Result<BuildRecord, BuildError> {
        let builder = Builder { depot: &self.depot, sandbox: sandbox(), cancel: Cancel::default() };
        builder.build(product, &prepared.fetched, &prepared.environment, conditions, &Silent)
    }
}

#[derive(Clone)]
pub(crate) struct Prepared {
    pub(crate) fetched: Fetched,
    pub(crate) environment: Environment,
}

/// A copy of a product's folder that a test may change.
pub(crate) fn copy_of(product: &str, to: &Path) -> PathBuf {
    let folder = to.join(product);
    std::fs::create_dir_all(&folder).unwrap();
    for entry in std::fs::read_dir(repository().join("products").join(product)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    folder
}

/// The product as it is in the repository; where its pins have left the archive since, pinned anew
/// in a copy, and said so.
pub(crate) fn current(vendor: &Organisation, name: &str, scratch: &Path) -> Product {
    let folder = copy_of(name, scratch);
    let product = Product::open(&folder).unwrap();
    match Resolved::ask(&vendor.depot, &product, Asking::Upstream, &Silent) {
        Ok(_) => product,
        Err(error @ InputsError::Superseded { .. }) => {
            eprintln!("{name}: {error}");
            let pinned = pin(&vendor.depot, &folder, &Silent).unwrap();
            eprintln!("{name}: pinned anew:\n{}", pinned.changes.join("\n"));
            Product::open(&folder).unwrap()
        }
        Err(error) => panic!("{name}: {error}"),
    }
}
