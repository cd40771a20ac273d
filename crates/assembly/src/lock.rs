//! `assembly.lock`: the digests of everything a product is made from, as upstream's index gave them
//! when somebody pinned.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stdx::Digest;

use crate::recipe::{PackageName, Version};

/// Name of the lock in a product's folder.
pub const LOCK_FILE: &str = "assembly.lock";
/// Most packages in an environment; a desktop has 2,500.
const PACKAGES_MAX: usize = 10_000;

/// A lock that we do not accept.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Not the TOML that is expected; the message names line and column.
    #[error("{path}: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A lock of another format.
    #[error("{path} has format {got}; this program reads format 1")]
    Format {
        /// The file.
        path: PathBuf,
        /// What it says.
        got: u32,
    },
    /// A `Cargo.lock` that names what we cannot fetch by digest.
    #[error("{path}: crate {name} comes from `{origin}` without a checksum; only registry crates are accepted")]
    Origin {
        /// The file.
        path: PathBuf,
        /// The crate.
        name: String,
        /// Its source.
        origin: String,
    },
}

/// What `assembly.lock` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// 1.
    pub format: u32,
    /// The source's files.
    #[serde(default)]
    pub source: Vec<LockedFile>,
    /// What others published, to compare our outputs with.
    #[serde(default)]
    pub published: Vec<LockedFile>,
    /// Wheels unpacked into the environment.
    #[serde(default)]
    pub wheels: Vec<LockedWheel>,
    /// Debian packages of the environment, sorted.
    #[serde(default)]
    pub debian: Vec<LockedPackage>,
}

/// A file by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedFile {
    /// Its name upstream.
    pub file: String,
    /// Its digest.
    pub sha256: Digest,
}

/// A wheel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedWheel {
    /// The project.
    pub name: PackageName,
    /// Its version.
    pub version: Version,
    /// The file.
    pub file: String,
    /// Its digest.
    pub sha256: Digest,
}

/// A Debian binary package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedPackage {
    /// The package.
    pub name: PackageName,
    /// Its version.
    pub version: Version,
    /// Its architecture, or `all`.
    pub architecture: PackageName,
    /// Its digest.
    pub sha256: Digest,
}

impl Lock {
    /// Reads a lock; `path` is for messages.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, LockError> {
        let syntax = |message: String| LockError::Syntax { path: path.to_owned(), message };
        let lock: Self = toml::from_str(text).map_err(|error| syntax(error.to_string().trim_end().to_owned()))?;
        if lock.format != 1 {
            return Err(LockError::Format { path: path.to_owned(), got: lock.format });
        }
        if lock.debian.len() > PACKAGES_MAX {
            return Err(syntax(format!("more than {PACKAGES_MAX} packages")));
        }
        for file in lock.source.iter().chain(&lock.published).map(|file| &file.file) {
            if attest::tree::TreePath::new(file).map_or(true, |path| path.parent().is_some()) {
                return Err(syntax(format!("`{file}` is not a plain file name")));
            }
        }
        Ok(lock)
    }

    /// The lock as a file: a line for each entry, so that a change of a pin is one line.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text =
            String::from("# Written by `assembly pin`. Every digest was taken from upstream's index.\nformat = 1\n");
        // Writing to a String cannot fail. Names and versions are checked and need no escapes;
        // file names are escaped by TOML's rules through serde.
        for (list, files) in [("source", &self.source), ("published", &self.published)] {
            let _ = writeln!(text, "{list} = [");
            for LockedFile { file, sha256 } in files {
                let file = toml::Value::from(file.as_str());
                let _ = writeln!(text, "    {{ file = {file}, sha256 = \"{sha256}\" }},");
            }
            text.push_str("]\n");
        }
        text.push_str("wheels = [\n");
        for LockedWheel { name, version, file, sha256 } in &self.wheels {
            let file = toml::Value::from(file.as_str());
            let _ = writeln!(
                text,
                "    {{ name = \"{name}\", version = \"{version}\", file = {file}, sha256 = \"{sha256}\" }},"
            );
        }
        text.push_str("]\ndebian = [\n");
        for LockedPackage { name, version, architecture, sha256 } in &self.debian {
            let _ = writeln!(
                text,
                "    {{ name = \"{name}\", version = \"{version}\", architecture = \"{architecture}\", sha256 = \"{sha256}\" }},"
            );
        }
        text.push_str("]\n");
        text
    }

    /// What a person should see of the step from `self` to `new`: a line for each change.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Vec<String> {
        let lines =
            |lock: &Self| -> std::collections::BTreeMap<String, String> {
                let files = |kind: &str, files: &[LockedFile]| -> Vec<(String, String)> {
                    files.iter().map(|f| (format!("{kind} {}", f.file), f.sha256.to_string())).collect()
                };
                let mut all = files("source", &lock.source);
                all.extend(files("published", &lock.published));
                all.extend(
                    lock.wheels.iter().map(|w| (format!("wheel {}", w.name), format!("{} {}", w.version, w.sha256))),
                );
                all.extend(lock.debian.iter().map(|p| {
                    (format!("package {}:{}", p.name, p.architecture), format!("{} {}", p.version, p.sha256))
                }));
                all.into_iter().collect()
            };
        let (old, new) = (lines(self), lines(new));
        let mut changes = Vec::new();
        for (key, before) in &old {
            match new.get(key) {
                None => changes.push(format!("- {key} {before}")),
                Some(after) if after != before => changes.push(format!("~ {key} {before} -> {after}")),
                Some(_) => {}
            }
        }
        changes.extend(
            new.iter().filter(|(key, _)| !old.contains_key(*key)).map(|(key, after)| format!("+ {key} {after}")),
        );
        changes
    }
}

/// A crate of a `Cargo.lock`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockedCrate {
    /// Its name.
    pub name: PackageName,
    /// Its version.
    pub version: Version,
    /// SHA-256 of the `.crate`.
    pub sha256: Digest,
}

/// The registry crates of a `Cargo.lock` (crates of the workspace itself are left out).
///
/// # Errors
/// [`LockError::Syntax`]; [`LockError::Origin`] for git dependencies.
pub fn parse_cargo_lock(text: &str, path: &Path) -> Result<Vec<LockedCrate>, LockError> {
    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        package: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        name: PackageName,
        version: Version,
        source: Option<String>,
        checksum: Option<Digest>,
    }
    let syntax = |message: String| LockError::Syntax { path: path.to_owned(), message };
    let file: File = toml::from_str(text).map_err(|error| syntax(error.to_string().trim_end().to_owned()))?;
    if file.package.len() > PACKAGES_MAX {
        return Err(syntax(format!("more than {PACKAGES_MAX} crates")));
    }
    let mut crates = Vec::new();
    for Entry { name, version, source, checksum } in file.package {
        match (source, checksum) {
            (None, None) => {}
            (Some(origin), Some(sha256)) if origin.starts_with("registry+") || origin.starts_with("sparse+") => {
                crates.push(LockedCrate { name, version, sha256 });
            }
            (origin, _) => {
                let origin = origin.unwrap_or_default();
                return Err(LockError::Origin { path: path.to_owned(), name: name.to_string(), origin });
            }
        }
    }
    crates.sort();
    crates.dedup();
    Ok(crates)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Lock {
        Lock {
            format: 1,
            source: vec![LockedFile { file: "a\"b.tar".to_owned(), sha256: Digest::of(b"1") }],
            published: Vec::new(),
            wheels: vec![LockedWheel {
                name: "poetry-core".parse().unwrap(),
                version: "2.5.0".parse().unwrap(),
                file: "x.whl".to_owned(),
                sha256: Digest::of(b"2"),
            }],
            debian: vec![LockedPackage {
                name: "libc6".parse().unwrap(),
                version: "1:2.36-9+deb12u14".parse().unwrap(),
                architecture: "amd64".parse().unwrap(),
                sha256: Digest::of(b"3"),
            }],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let lock = example();
        assert_eq!(Lock::parse(&lock.to_text(), Path::new("x")).unwrap(), lock);
    }

    #[test]
    fn changes_are_listed() {
        let old = example();
        let mut new = example();
        new.debian[0].version = "1:2.36-9+deb12u15".parse().unwrap();
        new.wheels.clear();
        let changes: Vec<String> = old.changes(&new).into_iter().map(|line| line.chars().take(40).collect()).collect();
        insta::assert_debug_snapshot!(changes, @r#"
        [
            "~ package libc6:amd64 1:2.36-9+deb12u14 ",
            "- wheel poetry-core 2.5.0 d4735e3a265e16",
        ]
        "#);
    }

    #[test]
    fn bad_locks_are_refused() {
        let path = Path::new("assembly.lock");
        assert!(matches!(Lock::parse("format = 2", path), Err(LockError::Format { got: 2, .. })));
        for bad in ["", "format = 1\nfoo = 1", "format = 1\nsource = [{ file = \"../x\", sha256 = \"00\" }]"] {
            assert!(matches!(Lock::parse(bad, path), Err(LockError::Syntax { .. })), "{bad}");
        }
        let up = format!("format = 1\nsource = [{{ file = \"../x\", sha256 = \"{}\" }}]", Digest::of(b""));
        assert!(matches!(Lock::parse(&up, path), Err(LockError::Syntax { .. })));
    }

    #[test]
    fn cargo_locks_are_read_and_git_dependencies_refused() {
        let digest = Digest::of(b"");
        let registry = format!(
            "version = 4\n[[package]]\nname = \"own\"\nversion = \"1.0.0\"\n\
             [[package]]\nname = \"b\"\nversion = \"1.0.0\"\nsource = \"registry+x\"\nchecksum = \"{digest}\"\n"
        );
        let crates = parse_cargo_lock(&registry, Path::new("Cargo.lock")).unwrap();
        assert_eq!(crates.len(), 1);
        let git = "[[package]]\nname = \"b\"\nversion = \"1.0.0\"\nsource = \"git+x\"\n";
        assert!(matches!(parse_cargo_lock(git, Path::new("Cargo.lock")), Err(LockError::Origin { .. })));
    }
}
