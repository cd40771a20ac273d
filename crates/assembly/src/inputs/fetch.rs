//! Brings everything that was resolved into the depot, checked by digest.

use std::fs;
use std::path::{Path, PathBuf};

use stdx::Digest;

use crate::content::Object;
use crate::inputs::cargo::{Cargo, registry_of};
use crate::inputs::debian::Debian;
use crate::inputs::resolve::crate_file;
use crate::inputs::{Asking, Depot, InputsError, Kind, Resolved, ResolvedItem, io_at, pypi};
use crate::lock::{LockedCrate, LockedFile, LockedPackage, parse_cargo_lock};
use crate::progress::{Event, Progress};
use crate::recipe::{PackageName, Product, RECIPE_BYTES_MAX, SourceSpec, Version};
use crate::source::{GitRevision, Source};

/// A git repository that the caller has at hand, for recipes whose source is one.
#[derive(Clone, Debug)]
pub struct Checkout {
    /// The repository.
    pub repository: PathBuf,
    /// The commit.
    pub revision: GitRevision,
}

/// A source distribution that nothing is built from.
#[derive(Clone, Debug)]
pub struct Sdist {
    /// Its project in the index that pip is set up with.
    pub name: PackageName,
    /// Its version.
    pub version: Version,
    /// Its file; the digest counts, whatever the index says.
    pub file: LockedFile,
}

impl Sdist {
    /// Its files. What the depot has is not fetched again.
    ///
    /// # Errors
    /// [`InputsError`]; [`InputsError::NeverResolved`] if it is not here, and upstream is not to be asked.
    pub fn fetch(&self, depot: &Depot, asking: Asking, progress: &dyn Progress) -> Result<Source, InputsError> {
        if asking == Asking::Recorded && !depot.has(&self.file.sha256)? {
            return Err(InputsError::NeverResolved);
        }
        fetch_pypi(depot, self.name.as_str(), self.version.as_str(), &self.file, progress)?;
        unpack_source(depot, &self.file.file, &self.file.sha256)
    }
}

/// Everything a build needs, in the depot.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The source.
    pub source: Source,
    /// The environment's packages, in the lock's order.
    pub debian: Vec<LockedPackage>,
    /// The environment's wheels.
    pub wheels: Vec<crate::lock::LockedWheel>,
    /// The crates to be vendored, sorted.
    pub crates: Vec<LockedCrate>,
    /// All inputs, sorted: what the record lists and the SBOM is made of.
    pub items: Vec<ResolvedItem>,
    /// What others published, to compare with.
    pub published: Vec<LockedFile>,
}

impl Fetched {
    /// Fetches what `resolved` found; what the depot has is not fetched again.
    ///
    /// # Errors
    /// [`InputsError`].
    pub fn fetch(
        depot: &Depot,
        product: &Product,
        resolved: &Resolved,
        checkout: Option<&Checkout>,
        asking: Asking,
        progress: &dyn Progress,
    ) -> Result<Self, InputsError> {
        let source = fetch_source(depot, product, checkout, progress)?;
        Self::with_source(depot, product, resolved, source, asking, progress)
    }

    /// As [`Fetched::fetch`], for a source whose tree and files the depot was given by digest.
    ///
    /// # Errors
    /// [`InputsError`].
    pub fn fetch_with_source(
        depot: &Depot,
        product: &Product,
        resolved: &Resolved,
        source: &Digest,
        asking: Asking,
        progress: &dyn Progress,
    ) -> Result<Self, InputsError> {
        let source = Source::load(source, depot.content())?;
        Self::with_source(depot, product, resolved, source, asking, progress)
    }

    fn with_source(
        depot: &Depot,
        product: &Product,
        resolved: &Resolved,
        source: Source,
        asking: Asking,
        progress: &dyn Progress,
    ) -> Result<Self, InputsError> {
        fetch_debian(depot, &product.lock.debian, progress)?;
        fetch_wheels(depot, product, progress)?;
        let mut items: Vec<ResolvedItem> =
            resolved.items().iter().filter(|item| item.kind != Kind::Published).cloned().collect();
        let mut crates = Vec::new();
        if let Some(path) = &product.recipe.inputs.cargo_lock {
            let bytes = source.read(path, depot.content(), RECIPE_BYTES_MAX)?;
            let text = String::from_utf8_lossy(&bytes);
            crates = parse_cargo_lock(&text, Path::new(path.as_str()))?;
            let registry = registry_of(&text).unwrap_or_default();
            if asking == Asking::Upstream {
                progress.event(Event::Resolving { index: "cargo", packages: crates.len() });
            }
            let found = Resolved::ask_crates(depot, &Digest::of(&bytes), &crates, registry, asking)?;
            items.extend(found.items().iter().cloned());
            fetch_crates(depot, &crates, registry, progress)?;
        }
        items.sort();
        let Product { lock, .. } = product;
        let (debian, wheels, published) = (lock.debian.clone(), lock.wheels.clone(), lock.published.clone());
        Ok(Self { source, debian, wheels, crates, items, published })
    }
}

fn fetch_debian(depot: &Depot, packages: &[LockedPackage], progress: &dyn Progress) -> Result<(), InputsError> {
    let mut missing = Vec::new();
    for package in packages {
        if !depot.has(&package.sha256)? {
            missing.push(package);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    progress.event(Event::Fetching { index: "debian", missing: missing.len() });
    let work = depot.work("debian")?;
    Debian::open(depot)?.download(&missing, work.path())?;
    for package in missing {
        let LockedPackage { name, version, architecture, sha256 } = package;
        // apt writes the epoch's colon as `%3a`.
        let file = format!("{name}_{}_{architecture}.deb", version.as_str().replace(':', "%3a"));
        take(depot, work.path(), &file, sha256)?;
    }
    Ok(())
}

fn fetch_wheels(depot: &Depot, product: &Product, progress: &dyn Progress) -> Result<(), InputsError> {
    for wheel in &product.lock.wheels {
        let file = LockedFile { file: wheel.file.clone(), sha256: wheel.sha256 };
        fetch_pypi(depot, wheel.name.as_str(), wheel.version.as_str(), &file, progress)?;
    }
    Ok(())
}

fn fetch_pypi(
    depot: &Depot,
    project: &str,
    version: &str,
    file: &LockedFile,
    progress: &dyn Progress,
) -> Result<(), InputsError> {
    if depot.has(&file.sha256)? {
        return Ok(());
    }
    progress.event(Event::Fetching { index: "pypi", missing: 1 });
    let work = depot.work("pypi")?;
    pypi::download(project, version, &file.file, &work.path().join("file"))?;
    take(depot, work.path(), "file", &file.sha256)
}

fn fetch_source(
    depot: &Depot,
    product: &Product,
    checkout: Option<&Checkout>,
    progress: &dyn Progress,
) -> Result<Source, InputsError> {
    let version = &product.recipe.version;
    match &product.recipe.source {
        SourceSpec::Git { include } => {
            let Some(Checkout { repository, revision }) = checkout else {
                return Err(InputsError::Unlocked { item: "a commit: this recipe's source is git".to_owned() });
            };
            Ok(Source::from_git(repository, revision, include, depot.content())?)
        }
        SourceSpec::Crate { name } => {
            let file = first_source(product)?;
            if !depot.has(&file.sha256)? {
                progress.event(Event::Fetching { index: "cargo", missing: 1 });
                let work = depot.work("crate")?;
                let cargo = Cargo::open(depot)?;
                cargo.lookup(name, version, work.path())?;
                cargo.fetch(work.path())?;
                depot.take(&cargo.archive(name, version)?, &file.sha256)?;
            }
            unpack_source(depot, &crate_file(name, version), &file.sha256)
        }
        SourceSpec::Sdist { name } => {
            let file = first_source(product)?;
            fetch_pypi(depot, name.as_str(), version.as_str(), file, progress)?;
            unpack_source(depot, &file.file, &file.sha256)
        }
        SourceSpec::Debian { name } => fetch_debian_source(depot, product, name, progress),
    }
}

fn fetch_debian_source(
    depot: &Depot,
    product: &Product,
    name: &PackageName,
    progress: &dyn Progress,
) -> Result<Source, InputsError> {
    let files = &product.lock.source;
    let mut missing = 0_usize;
    for file in files {
        missing = missing.saturating_add(usize::from(!depot.has(&file.sha256)?));
    }
    if missing > 0 {
        progress.event(Event::Fetching { index: "debian", missing });
        let work = depot.work("source")?;
        Debian::open(depot)?.download_source(name, &product.recipe.version, work.path())?;
        for file in files {
            take(depot, work.path(), &file.file, &file.sha256)?;
        }
    }
    let mut objects = Vec::new();
    for file in files {
        let opened = depot.content().open_object(&file.sha256)?;
        let size = opened.metadata().map_err(io_at(Path::new(&file.file)))?.len();
        objects.push((file.file.clone(), Object { digest: file.sha256, size }));
    }
    Ok(Source::from_objects(objects, depot.content())?)
}

fn fetch_crates(
    depot: &Depot,
    crates: &[LockedCrate],
    registry: &str,
    progress: &dyn Progress,
) -> Result<(), InputsError> {
    let mut missing = Vec::new();
    for locked in crates {
        if !depot.has(&locked.sha256)? {
            missing.push(locked);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    progress.event(Event::Fetching { index: "cargo", missing: missing.len() });
    let work = depot.work("crates")?;
    let cargo = Cargo::open(depot)?;
    cargo.verify(crates, registry, work.path())?;
    cargo.fetch(work.path())?;
    for locked in missing {
        depot.take(&cargo.archive(&locked.name, &locked.version)?, &locked.sha256)?;
    }
    Ok(())
}

fn first_source(product: &Product) -> Result<&LockedFile, InputsError> {
    product.lock.source.first().ok_or_else(|| InputsError::Unlocked { item: "the source".to_owned() })
}

fn unpack_source(depot: &Depot, name: &str, digest: &Digest) -> Result<Source, InputsError> {
    Ok(Source::from_archive(name, depot.content().open_object(digest)?, depot.content())?)
}

fn take(depot: &Depot, folder: &Path, file: &str, digest: &Digest) -> Result<(), InputsError> {
    let path = folder.join(file);
    if !fs::exists(&path).map_err(io_at(&path))? {
        return Err(InputsError::NotFetched { item: file.to_owned() });
    }
    depot.take(&path, digest)
}
