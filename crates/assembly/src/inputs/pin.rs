//! `assembly pin`: resolves again, visibly, into a new lock.

use std::path::{Path, PathBuf};

use stdx::durable;

use crate::inputs::debian::Debian;
use crate::inputs::resolve::{crate_file, published_file};
use crate::inputs::{Depot, InputsError, cargo::Cargo, io_at, pypi};
use crate::lock::{LOCK_FILE, Lock, LockedFile, LockedWheel};
use crate::progress::{Event, Progress};
use crate::recipe::{EnvironmentSpec, PackageName, Publisher, RECIPE_FILE, Recipe, SourceSpec, Version, read_text};

/// What a new pin changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// The version that the recipe named before, if upstream replaced it.
    pub version_before: Option<Version>,
    /// The version now.
    pub version: Version,
    /// A line for each change of the lock.
    pub changes: Vec<String>,
}

/// Asks upstream for everything that the recipe in `folder` names and writes `assembly.lock` there
/// (and the new version into the recipe, when the Debian archive replaced the old one).
///
/// # Errors
/// [`InputsError`]; the files are then as they were.
pub fn pin(depot: &Depot, folder: &Path, progress: &dyn Progress) -> Result<Pinned, InputsError> {
    let recipe_path = folder.join(RECIPE_FILE);
    let text = read_text(&recipe_path)?;
    let mut recipe = Recipe::parse(&text, &recipe_path)?;
    let lock_path: PathBuf = folder.join(LOCK_FILE);
    let before = if lock_path.exists() {
        Lock::parse(&read_text(&lock_path)?, &lock_path)?
    } else {
        Lock { format: 1, ..Lock::default() }
    };
    let debian = Debian::open(depot)?;
    progress.event(Event::Resolving { index: "debian", packages: before.debian.len() });
    debian.update()?;

    let mut version_before = None;
    if let SourceSpec::Debian { name } = &recipe.source {
        let newest = debian.newest_source(name)?;
        if newest != recipe.version {
            version_before = Some(std::mem::replace(&mut recipe.version, newest));
        }
    }
    let mut lock = Lock { format: 1, source: pin_source(depot, &recipe, &debian)?, ..Lock::default() };
    for output in recipe.output.iter().filter(|output| output.published.is_some()) {
        lock.published.push(pin_published(&recipe, &recipe.expand(&output.name), output.published, &debian)?);
    }
    if let EnvironmentSpec::Debian { packages, wheels } = &recipe.environment {
        lock.debian = debian.closure(packages)?;
        for pin in wheels {
            let (name, version) = pin.parts();
            let files = pypi::files(name, version)?;
            let file = pypi::universal_wheel(&files)
                .ok_or_else(|| InputsError::Superseded { item: format!("a universal wheel of {name} {version}") })?;
            let unlocked = |_| InputsError::Unlocked { item: pin.to_string() };
            lock.wheels.push(LockedWheel {
                name: name.parse().map_err(unlocked)?,
                version: version.parse().map_err(unlocked)?,
                file: file.file.clone(),
                sha256: file.sha256,
            });
        }
    }
    if let Some(old) = &version_before {
        let line = |version: &Version| format!("version = \"{version}\"");
        let text = text.replacen(&line(old), &line(&recipe.version), 1);
        durable::write(&recipe_path, text.as_bytes()).map_err(io_at(&recipe_path))?;
    }
    durable::write(&lock_path, lock.to_text().as_bytes()).map_err(io_at(&lock_path))?;
    Ok(Pinned { version_before, version: recipe.version, changes: before.changes(&lock) })
}

fn pin_source(depot: &Depot, recipe: &Recipe, debian: &Debian) -> Result<Vec<LockedFile>, InputsError> {
    let version = &recipe.version;
    match &recipe.source {
        SourceSpec::Git { .. } => Ok(Vec::new()),
        SourceSpec::Debian { name } => debian.source(name, version),
        SourceSpec::Crate { name } => {
            let work = depot.work("pin")?;
            let sha256 = Cargo::open(depot)?.lookup(name, version, work.path())?;
            Ok(vec![LockedFile { file: crate_file(name, version), sha256 }])
        }
        SourceSpec::Sdist { name } => {
            let files = pypi::files(name.as_str(), version.as_str())?;
            let found = pypi::sdist(&files).cloned();
            found.map(|file| vec![file]).ok_or_else(|| missing(name, "sdist"))
        }
    }
}

fn pin_published(
    recipe: &Recipe,
    file: &str,
    publisher: Option<Publisher>,
    debian: &Debian,
) -> Result<LockedFile, InputsError> {
    let files = published_file(recipe, file, Some(debian))?;
    let found = files.into_iter().find(|found| found.file == file);
    found.ok_or_else(|| InputsError::Superseded { item: format!("{file} ({publisher:?})") })
}

fn missing(name: &PackageName, what: &str) -> InputsError {
    InputsError::Superseded { item: format!("an {what} of {name}") }
}
