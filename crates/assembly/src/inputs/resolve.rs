//! Compares a lock with what upstream's index says today, and records that it was done.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};
use stdx::{Digest, durable};

use crate::inputs::debian::Debian;
use crate::inputs::{Depot, InputsError, cargo::Cargo, io_at, pypi};
use crate::lock::{Lock, LockedCrate, LockedFile};
use crate::progress::{Event, Progress};
use crate::recipe::{PackageName, Product, Publisher, Recipe, SourceSpec, Version};

/// Whether upstream is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// Now, whatever was recorded before.
    Upstream,
    /// Not: what this depot recorded when it asked for the same lock counts.
    Recorded,
}

/// What an input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A file of the source.
    Source,
    /// A Debian package of the environment.
    Debian,
    /// A wheel of the environment.
    Wheel,
    /// A vendored crate.
    Crate,
    /// A file that somebody published, to compare with. It is no input of the build.
    Published,
}

/// One thing that upstream's index has with this digest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolvedItem {
    /// What it is.
    pub kind: Kind,
    /// Its name: of a file, package, crate or wheel.
    pub name: String,
    /// Its version, where it has one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// SHA-256.
    pub digest: Digest,
}

/// A lock whose every digest this organisation found in upstream's index by itself. Only
/// [`Resolved::ask`] makes one (or reads back what it recorded).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    items: Vec<ResolvedItem>,
}

impl Resolved {
    /// Resolves the product's lock. What is found is recorded for this recipe and lock together: what
    /// a lock means depends on the recipe.
    ///
    /// # Errors
    /// [`InputsError::Differs`], [`InputsError::Superseded`], [`InputsError::Unlocked`],
    /// [`InputsError::NeverResolved`], [`InputsError::Tool`].
    pub fn ask(depot: &Depot, product: &Product, asking: Asking, progress: &dyn Progress) -> Result<Self, InputsError> {
        if asking == Asking::Recorded {
            return Self::recorded(depot, &product.digest);
        }
        let Product { recipe, lock, .. } = product;
        let mut items = Vec::new();
        let debian = if needs_debian(recipe, lock) {
            let debian = Debian::open(depot)?;
            progress.event(Event::Resolving { index: "debian", packages: lock.debian.len() });
            debian.update()?;
            ask_debian(&debian, lock, &mut items)?;
            Some(debian)
        } else {
            None
        };
        ask_source(depot, product, debian.as_ref(), &mut items, progress)?;
        ask_published(product, debian.as_ref(), &mut items)?;
        for wheel in &lock.wheels {
            let upstream = pypi::files(wheel.name.as_str(), wheel.version.as_str())?;
            let locked = LockedFile { file: wheel.file.clone(), sha256: wheel.sha256 };
            same_file(&locked, &upstream)?;
            let version = Some(wheel.version.to_string());
            items.push(ResolvedItem { kind: Kind::Wheel, name: wheel.name.to_string(), version, digest: wheel.sha256 });
        }
        items.sort();
        let resolved = Self { items };
        resolved.record(depot, &product.digest)?;
        Ok(resolved)
    }

    /// Resolves the crates of a `Cargo.lock` whose text has the digest `lock`.
    pub(crate) fn ask_crates(
        depot: &Depot,
        lock: &Digest,
        crates: &[LockedCrate],
        registry: &str,
        asking: Asking,
    ) -> Result<Self, InputsError> {
        if asking == Asking::Recorded {
            return Self::recorded(depot, lock);
        }
        let work = depot.work("crates")?;
        Cargo::open(depot)?.verify(crates, registry, work.path())?;
        let items = crates.iter().map(|locked| ResolvedItem {
            kind: Kind::Crate,
            name: locked.name.to_string(),
            version: Some(locked.version.to_string()),
            digest: locked.sha256,
        });
        let resolved = Self { items: items.collect() };
        resolved.record(depot, lock)?;
        Ok(resolved)
    }

    /// Everything that was found.
    #[must_use]
    pub fn items(&self) -> &[ResolvedItem] {
        &self.items
    }

    fn recorded(depot: &Depot, of: &Digest) -> Result<Self, InputsError> {
        let path = record_path(depot, of);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(InputsError::NeverResolved),
            Err(source) => return Err(InputsError::Io { path, source }),
        };
        let items = serde_json::from_slice(&bytes).map_err(|error| io_at(&path)(error.into()))?;
        Ok(Self { items })
    }

    fn record(&self, depot: &Depot, of: &Digest) -> Result<(), InputsError> {
        let path = record_path(depot, of);
        let bytes = serde_json::to_vec_pretty(&self.items).map_err(|error| io_at(&path)(error.into()))?;
        durable::write(&path, &bytes).map_err(io_at(&path))
    }
}

fn record_path(depot: &Depot, of: &Digest) -> std::path::PathBuf {
    depot.part("resolved").join(format!("{of}.json"))
}

fn needs_debian(recipe: &Recipe, lock: &Lock) -> bool {
    !lock.debian.is_empty()
        || matches!(recipe.source, SourceSpec::Debian { .. })
        || recipe.output.iter().any(|output| output.published == Some(Publisher::Debian))
}

fn ask_debian(debian: &Debian, lock: &Lock, items: &mut Vec<ResolvedItem>) -> Result<(), InputsError> {
    let wanted: Vec<_> = lock.debian.iter().map(|package| (package.name.clone(), package.version.clone())).collect();
    let upstream: BTreeMap<_, _> = debian
        .packages(&wanted)?
        .into_iter()
        .map(|package| ((package.name, package.version, package.architecture), package.sha256))
        .collect();
    for package in &lock.debian {
        let item = format!("package {} {} {}", package.name, package.version, package.architecture);
        let key = (package.name.clone(), package.version.clone(), package.architecture.clone());
        match upstream.get(&key) {
            Some(digest) if *digest == package.sha256 => items.push(ResolvedItem {
                kind: Kind::Debian,
                name: package.name.to_string(),
                version: Some(package.version.to_string()),
                digest: *digest,
            }),
            Some(digest) => return Err(InputsError::Differs { item, locked: package.sha256, upstream: *digest }),
            None => return Err(InputsError::Superseded { item }),
        }
    }
    Ok(())
}

fn ask_source(
    depot: &Depot,
    product: &Product,
    debian: Option<&Debian>,
    items: &mut Vec<ResolvedItem>,
    progress: &dyn Progress,
) -> Result<(), InputsError> {
    let version = &product.recipe.version;
    let upstream = match &product.recipe.source {
        SourceSpec::Git { .. } => return Ok(()),
        SourceSpec::Crate { name } => {
            progress.event(Event::Resolving { index: "cargo", packages: 1 });
            let work = depot.work("crate")?;
            let sha256 = Cargo::open(depot)?.lookup(name, version, work.path())?;
            vec![LockedFile { file: crate_file(name, version), sha256 }]
        }
        SourceSpec::Debian { name } => match debian {
            Some(debian) => debian.source(name, version)?,
            None => Vec::new(),
        },
        SourceSpec::Sdist { name } => {
            progress.event(Event::Resolving { index: "pypi", packages: 1 });
            let files = pypi::files(name.as_str(), version.as_str())?;
            pypi::sdist(&files).cloned().into_iter().collect()
        }
    };
    // Each file upstream has must be locked, and each locked one must be upstream's.
    for file in &upstream {
        if !product.lock.source.iter().any(|locked| locked.file == file.file) {
            return Err(InputsError::Unlocked { item: format!("the source's file {}", file.file) });
        }
    }
    if upstream.is_empty() || product.lock.source.is_empty() {
        return Err(InputsError::Unlocked { item: "the source".to_owned() });
    }
    for locked in &product.lock.source {
        same_file(locked, &upstream)?;
        items.push(ResolvedItem {
            kind: Kind::Source,
            name: locked.file.clone(),
            version: None,
            digest: locked.sha256,
        });
    }
    Ok(())
}

fn ask_published(product: &Product, debian: Option<&Debian>, items: &mut Vec<ResolvedItem>) -> Result<(), InputsError> {
    for locked in &product.lock.published {
        let upstream = published_file(&product.recipe, &locked.file, debian)?;
        same_file(locked, &upstream)?;
        let digest = locked.sha256;
        items.push(ResolvedItem { kind: Kind::Published, name: locked.file.clone(), version: None, digest });
    }
    Ok(())
}

/// What upstream published under the name of one of our outputs.
pub(crate) fn published_file(
    recipe: &Recipe,
    file: &str,
    debian: Option<&Debian>,
) -> Result<Vec<LockedFile>, InputsError> {
    let publisher = recipe.output.iter().find(|output| recipe.expand(&output.name) == file).and_then(|o| o.published);
    match (publisher, &recipe.source, debian) {
        (Some(Publisher::Debian), _, Some(debian)) => {
            let name = file.split('_').next().unwrap_or_default();
            let name: PackageName =
                name.parse().map_err(|_| InputsError::Unlocked { item: format!("the published {file}") })?;
            let found = debian.packages(&[(name, recipe.version.clone())])?;
            Ok(found.into_iter().map(|package| LockedFile { file: file.to_owned(), sha256: package.sha256 }).collect())
        }
        (Some(Publisher::Pypi), SourceSpec::Sdist { name }, _) => pypi::files(name.as_str(), recipe.version.as_str()),
        _ => Err(InputsError::Unlocked { item: format!("the published {file}") }),
    }
}

fn same_file(locked: &LockedFile, upstream: &[LockedFile]) -> Result<(), InputsError> {
    match upstream.iter().find(|file| file.file == locked.file) {
        Some(file) if file.sha256 == locked.sha256 => Ok(()),
        Some(file) => {
            Err(InputsError::Differs { item: locked.file.clone(), locked: locked.sha256, upstream: file.sha256 })
        }
        None => Err(InputsError::Superseded { item: locked.file.clone() }),
    }
}

pub(crate) fn crate_file(name: &PackageName, version: &Version) -> String {
    format!("{name}-{version}.crate")
}
