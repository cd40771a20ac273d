//! Crates through cargo, with a CARGO_HOME of the depot's own.
//!
//! cargo never sees the product's manifests or configuration, which could make it run programs: it
//! gets a manifest of ours that names each locked crate at its exact version, and a lock with their
//! checksums. It then asks the registry's index, and refuses a checksum that differs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use stdx::{Digest, durable};

use crate::inputs::{Depot, InputsError, io_at};
use crate::lock::{LockedCrate, parse_cargo_lock};
use crate::recipe::{PackageName, Version};
use crate::tool::{CARGO, ToolError};

/// cargo with a private home.
pub(crate) struct Cargo {
    home: PathBuf,
    /// We remove what cargo unpacks, so it must not be unpacking for somebody else.
    _alone: File,
}

impl Cargo {
    pub(crate) fn open(depot: &Depot) -> Result<Self, InputsError> {
        let alone = depot.exclusive("cargo")?;
        let home = depot.part("cargo");
        durable::create_folder(&home).map_err(io_at(&home))?;
        Ok(Self { home, _alone: alone })
    }

    /// Asks the index for each crate, in `work`; an error if any checksum differs.
    pub(crate) fn verify(&self, crates: &[LockedCrate], registry: &str, work: &Path) -> Result<(), InputsError> {
        write_manifest(work, crates.iter().map(|locked| (&locked.name, &locked.version)))?;
        let mut lock = String::from("version = 3\n");
        for LockedCrate { name, version, sha256 } in crates {
            // Writing to a String cannot fail.
            let _ = writeln!(
                lock,
                "[[package]]\nname = \"{name}\"\nversion = \"{version}\"\nsource = \"{registry}\"\nchecksum = \"{sha256}\""
            );
        }
        lock.push_str("[[package]]\nname = \"resolution\"\nversion = \"0.0.0\"\n");
        let path = work.join("Cargo.lock");
        durable::write(&path, lock.as_bytes()).map_err(io_at(&path))?;
        CARGO.output(self.command(work).args(["update", "--workspace", "--quiet"])).map_err(refused)?;
        // What cargo wrote back has the index's checksums; that ours are among them is what we asked.
        let upstream: BTreeMap<_, _> = read_lock(&path)?
            .into_iter()
            .map(|found| ((found.name.to_string(), found.version.to_string()), found.sha256))
            .collect();
        for locked in crates {
            let item = format!("crate {} {}", locked.name, locked.version);
            match upstream.get(&(locked.name.to_string(), locked.version.to_string())) {
                Some(digest) if *digest == locked.sha256 => {}
                Some(digest) => {
                    return Err(InputsError::Differs { item, locked: locked.sha256, upstream: *digest });
                }
                None => return Err(InputsError::Superseded { item }),
            }
        }
        Ok(())
    }

    /// What the index says of one crate; leaves `work` ready for [`Cargo::fetch`].
    pub(crate) fn lookup(&self, name: &PackageName, version: &Version, work: &Path) -> Result<Digest, InputsError> {
        write_manifest(work, [(name, version)])?;
        CARGO.output(self.command(work).args(["generate-lockfile", "--quiet"])).map_err(refused)?;
        let lock = read_lock(&work.join("Cargo.lock"))?;
        lock.into_iter()
            .find(|found| found.name == *name && found.version == *version)
            .map(|found| found.sha256)
            .ok_or_else(|| InputsError::Superseded { item: format!("crate {name} {version}") })
    }

    /// Downloads what `work` was set up for by [`Cargo::verify`] or [`Cargo::lookup`].
    pub(crate) fn fetch(&self, work: &Path) -> Result<(), InputsError> {
        CARGO.output(self.command(work).args(["fetch", "--locked", "--quiet"])).map_err(refused)?;
        // cargo unpacks what it fetches; we unpack ourselves, from checked archives.
        let unpacked = self.home.join("registry/src");
        if unpacked.exists() {
            fs::remove_dir_all(&unpacked).map_err(io_at(&unpacked))?;
        }
        Ok(())
    }

    /// Where a downloaded crate lies.
    pub(crate) fn archive(&self, name: &PackageName, version: &Version) -> Result<PathBuf, InputsError> {
        let cache = self.home.join("registry/cache");
        let file = format!("{name}-{version}.crate");
        for registry in fs::read_dir(&cache).map_err(io_at(&cache))? {
            let path = registry.map_err(io_at(&cache))?.path().join(&file);
            if path.is_file() {
                return Ok(path);
            }
        }
        Err(InputsError::NotFetched { item: file })
    }

    fn command(&self, work: &Path) -> Command {
        let mut command = CARGO.command();
        command.current_dir(work).env("CARGO_HOME", &self.home).env("CARGO_TERM_COLOR", "never");
        // A caller that is itself run by cargo must not pass its toolchain's choices on.
        for name in ["CARGO_TARGET_DIR", "RUSTFLAGS", "RUSTC_WRAPPER", "CARGO_BUILD_TARGET", "RUSTUP_TOOLCHAIN"] {
            command.env_remove(name);
        }
        command
    }
}

/// The name by which a `Cargo.lock` calls its registry.
pub(crate) fn registry_of(lock: &str) -> Option<&str> {
    lock.lines().find_map(|line| line.trim().strip_prefix("source = \"")?.strip_suffix('"'))
}

fn write_manifest<'a>(
    work: &Path,
    crates: impl IntoIterator<Item = (&'a PackageName, &'a Version)>,
) -> Result<(), InputsError> {
    let mut text = String::from(
        "[package]\nname = \"resolution\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[workspace]\n[dependencies]\n",
    );
    for (number, (name, version)) in crates.into_iter().enumerate() {
        // Build metadata (`+…`) is no part of a requirement.
        let version = version.as_str().split('+').next().unwrap_or_default();
        let _ = writeln!(
            text,
            "p{number} = {{ package = \"{name}\", version = \"={version}\", default-features = false }}"
        );
    }
    let folder = work.join("src");
    durable::create_folder(&folder).map_err(io_at(&folder))?;
    for (path, text) in [(folder.join("lib.rs"), ""), (work.join("Cargo.toml"), text.as_str())] {
        durable::write(&path, text.as_bytes()).map_err(io_at(&path))?;
    }
    Ok(())
}

fn read_lock(path: &Path) -> Result<Vec<LockedCrate>, InputsError> {
    let text = fs::read_to_string(path).map_err(io_at(path))?;
    Ok(parse_cargo_lock(&text, path)?)
}

/// cargo's words for a checksum that differs and for a version that is gone.
fn refused(error: ToolError) -> InputsError {
    let ToolError::Failed { words, .. } = &error else { return error.into() };
    if words.contains("no matching package") || words.contains("failed to select a version") {
        let line = words.lines().find(|line| line.contains("no matching") || line.contains("requirement"));
        return InputsError::Superseded { item: line.unwrap_or("a crate").trim_start_matches("error: ").to_owned() };
    }
    error.into()
}
