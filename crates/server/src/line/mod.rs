//! The vendor's assembly line: source in, a result that two organisations signed out.
//!
//! Each step leaves a file in `builds/PRODUCT/VERSION/`, so that a run that was interrupted goes on
//! where it stopped, and anybody can look at what was signed.

mod import;
pub(crate) mod rebuild;
mod release;
mod rules;
mod standing;
pub(crate) mod submit;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use api::BaseUrl;
use assembly::{
    Asking, BuildRecord, Builder, Checkout, Conditions, Depot, Environment, Fetched, Product, Progress, Resolved,
};
use attest::{Bundle, BundleEntry, Lane};
use sandbox::{Cancel, Sandbox};
use stdx::{UnixTime, durable};
use tlog::SignerKey;

pub use import::Handover;
pub use rebuild::RebuildOutcome;
pub use release::{ApprovalOf, Publication, approve};
pub(crate) use release::{logged_release, sign_draft};
pub(crate) use rules::LoggedRules;
pub use rules::Pushed;
pub use standing::Standing;

use crate::config::Config;
use crate::domain::{BuildFolder, Domain};
use crate::failure::Failure;
use crate::key_file;

/// The vendor's assembly line.
pub struct Line {
    domain: Domain,
    builder: SignerKey,
    release: SignerKey,
    recorder: SignerKey,
    rules: Option<SignerKey>,
    supervisor: BaseUrl,
}

/// What a build is asked to do.
#[derive(Clone, Debug)]
pub struct BuildOptions {
    /// The product's folder: recipe and lock.
    pub product: PathBuf,
    /// The repository and commit, for a recipe whose source is git.
    pub checkout: Option<Checkout>,
    /// Whether upstream's indexes are asked.
    pub asking: Asking,
    /// A folder of downloads that others fill too.
    pub cache: Option<PathBuf>,
    /// Another root file system than the recipe's: such a build is marked and never releases.
    pub environment: Option<PathBuf>,
}

/// A product that was built here.
pub struct Built {
    /// Recipe and lock.
    pub product: Product,
    /// What came out, and of what.
    pub record: BuildRecord,
    /// What went in.
    pub fetched: Fetched,
    /// The logged source.
    pub source: BundleEntry,
    /// When the build began.
    pub started: UnixTime,
    /// Where the evidence lies.
    pub folder: BuildFolder,
}

impl Line {
    /// Opens the line of `config`.
    ///
    /// # Errors
    /// When a key, the policy or a store is missing, or no supervisor is named.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        Self::of(config, Domain::open(config).await?)
    }

    /// The assembly line of `config` with these tools.
    ///
    /// # Errors
    /// When a key is missing, or nobody supervises.
    pub fn of(config: &Config, domain: Domain) -> anyhow::Result<Self> {
        let Config::Vendor(vendor) = config else {
            return Err(Failure::usage("only a vendor has an assembly line")
                .hint("name the vendor's configuration")
                .into());
        };
        let supervisor = vendor.supervisor.clone().ok_or_else(|| {
            Failure::usage("the configuration names no `supervisor`").hint("nothing is released without one")
        })?;
        Ok(Self {
            domain,
            builder: key_file::load(&vendor.keys.builder)?,
            release: key_file::load(&vendor.keys.release)?,
            recorder: key_file::load(&vendor.keys.recorder)?,
            rules: vendor.keys.rules.as_deref().map(key_file::load).transpose()?,
            supervisor,
        })
    }

    /// The organisation's tools.
    #[must_use]
    pub const fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Where the supervisor answers.
    #[must_use]
    pub(crate) const fn supervisor(&self) -> &BaseUrl {
        &self.supervisor
    }

    /// The key that signs releases of `lane`.
    fn release_key(&self, lane: Lane) -> anyhow::Result<&SignerKey> {
        match lane {
            Lane::Slow => Ok(&self.release),
            Lane::Fast => Ok(self.rules.as_ref().ok_or_else(no_rules_key)?),
        }
    }

    /// Fetches, logs the source, builds.
    ///
    /// # Errors
    /// When any of that fails; what was fetched and logged stays.
    pub async fn build(&self, options: &BuildOptions, progress: &dyn Progress) -> anyhow::Result<Built> {
        let prepared = self.prepare(options, progress).await?;
        let Prepared { product, depot, fetched, .. } = &prepared;
        let record = tokio::task::block_in_place(|| -> anyhow::Result<BuildRecord> {
            let environment = match &options.environment {
                Some(root) => Environment::captured(root)?,
                None => Environment::prepare(depot, &product.recipe.environment, fetched, progress)?,
            };
            let builder = Builder { depot, sandbox: sandbox()?, cancel: Cancel::default() };
            Ok(builder.build(product, fetched, &environment, &Conditions::plain(), progress)?)
        })?;
        self.keep(prepared, record)
    }

    /// Resolves, fetches, and logs the source.
    async fn prepare(&self, options: &BuildOptions, progress: &dyn Progress) -> anyhow::Result<Prepared> {
        let product = Product::open(&options.product)?;
        let recipe = &product.recipe;
        let id: attest::ProductId = recipe.product.as_str().parse()?;
        if self.domain.policy.policy().product(&id).is_none() {
            return Err(Failure::refused(format!("the policy knows no product `{id}`"))
                .hint("add it to the policy's `products`")
                .into());
        }
        let depot = self.domain.depot(options.cache.as_deref())?;
        let fetched = tokio::task::block_in_place(|| -> anyhow::Result<Fetched> {
            let resolved = Resolved::ask(&depot, &product, options.asking, progress)?;
            let checkout = options.checkout.as_ref();
            Ok(Fetched::fetch(&depot, &product, &resolved, checkout, options.asking, progress)?)
        })?;
        let folder = BuildFolder::new(&self.domain.data, recipe.product.as_str(), recipe.version.as_str());
        self.domain.pull(&folder)?;
        durable::create_folder(folder.path()).with_context(|| format!("can't make `{}`", folder.path().display()))?;
        let source = self.log_source(&id, &product, &fetched.source, &folder).await?;
        Ok(Prepared { product, depot, fetched, source, started: self.domain.clock.now(), folder })
    }

    /// Keeps the record and the SBOM where people find them; the outputs lie in the depot until a
    /// rebuild has confirmed them.
    fn keep(&self, prepared: Prepared, record: BuildRecord) -> anyhow::Result<Built> {
        let Prepared { product, depot, fetched, source, started, folder } = prepared;
        write(&folder.file("record.json"), &record.to_bytes())?;
        write(&folder.file("sbom.cdx.json"), &depot.content().get(&record.agreed.sbom, SBOM_BYTES_MAX)?)?;
        self.domain.save(&folder)?;
        Ok(Built { product, record, fetched, source, started, folder })
    }
}

/// Whoever has no key for rules releases none.
pub(crate) fn no_rules_key() -> Failure {
    Failure::usage("the configuration names no key for rules")
        .hint("`clerestory key generate` makes one; name it as `rules` under `[keys]`, and in the policy")
}

/// What a build needs, at hand; its source is logged.
struct Prepared {
    product: Product,
    depot: Depot,
    fetched: Fetched,
    source: BundleEntry,
    started: UnixTime,
    folder: BuildFolder,
}

/// 10,000 components of 1 KB.
const SBOM_BYTES_MAX: u64 = 16 << 20;

/// The program that isolates lies beside this one.
pub(crate) fn sandbox() -> anyhow::Result<Sandbox> {
    Ok(Sandbox::beside_this_program()?)
}

pub(crate) fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    durable::write(path, bytes).with_context(|| format!("can't write `{}`", path.display()))
}

/// Reads a bundle that an earlier step left, if it did.
pub(crate) fn read_bundle(path: &Path) -> anyhow::Result<Option<Bundle>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(Bundle::parse(&bytes).with_context(|| format!("`{}`", path.display()))?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("can't read `{}`", path.display())),
    }
}

pub(crate) fn bundle_text(bundle: &Bundle) -> anyhow::Result<String> {
    Ok(String::from_utf8(bundle.to_bytes())?)
}
