//! `assembly.toml`: what a product is made from, where, how, and what comes out.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stdx::{Digest, Hasher};

use crate::lock::{LOCK_FILE, Lock, LockError};
use attest::tree::{MANIFEST_HEADER, TreePath};

/// Name of the recipe in a product's folder.
pub const RECIPE_FILE: &str = "assembly.toml";
/// Longest recipe or lock; a lock of 1,000 packages has 200 KB.
pub(crate) const RECIPE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Most outputs of one product. An update of a large suite has a few hundred files.
const OUTPUTS_MAX: usize = 1_000;
/// Longest time a build may take: a week covers the largest browsers on small machines.
const SECONDS_MAX: u64 = 7 * 24 * 3_600;

/// A recipe that we do not accept.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not the TOML that is expected; the message names line and column.
    #[error("{path}: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column, the line itself and what is wrong with it.
        message: String,
    },
    /// A field that contradicts another one.
    #[error("{path}: `{field}` {problem}")]
    Field {
        /// The file.
        path: PathBuf,
        /// Its name.
        field: &'static str,
        /// What is wrong, and what to write instead.
        problem: String,
    },
    /// The lock beside the recipe.
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// What `assembly.toml` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The product's name: lower-case letters, digits, `.`, `+`, `-`.
    pub product: ProductId,
    /// The product's version; of third-party sources, exactly upstream's.
    pub version: Version,
    /// SPDX licence expression of the product, where its inputs do not tell it.
    #[serde(default)]
    pub licence: Option<String>,
    /// Where the source comes from.
    pub source: SourceSpec,
    /// What the product is built in.
    pub environment: EnvironmentSpec,
    /// What else goes in.
    #[serde(default)]
    pub inputs: InputsSpec,
    /// How it is built.
    pub build: BuildSpec,
    /// What must come out; anything missing is an error.
    pub output: Vec<OutputSpec>,
    /// What the build may use.
    #[serde(default)]
    pub limits: LimitsSpec,
}

/// Where a source comes from. Its digests stand in the lock; those of `git` are of the commit
/// that is submitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum SourceSpec {
    /// A commit of a git repository that whoever builds has at hand.
    Git {
        /// Only these files and folders; everything, if empty.
        #[serde(default)]
        include: Vec<TreePath>,
    },
    /// A crate of the registry that cargo is set up with.
    Crate {
        /// Its name.
        name: PackageName,
    },
    /// A source package of the Debian archive that apt is set up with.
    Debian {
        /// Its name.
        name: PackageName,
    },
    /// A source distribution of the index that pip is set up with.
    Sdist {
        /// Its name.
        name: PackageName,
    },
}

/// What a product is built in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum EnvironmentSpec {
    /// A root file system from Debian packages, pinned in the lock.
    Debian {
        /// What `pin` asks for; it adds what these depend on.
        packages: Vec<PackageName>,
        /// Python wheels unpacked into it, as `NAME==VERSION`.
        #[serde(default)]
        wheels: Vec<WheelPin>,
    },
    /// The machine's own root, which nobody else has: such a build never releases.
    Host,
}

/// What else goes in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputsSpec {
    /// The `Cargo.lock` in the source whose crates are vendored; none, if not given.
    #[serde(default)]
    pub cargo_lock: Option<TreePath>,
}

/// How it is built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildSpec {
    /// Run by `/bin/sh -eu` in the source's copy. It sees `BUILD` (the base of everything that is
    /// written), `SOURCE`, `VENDOR` (crates, with cargo set up for them), `JOBS` and `VERSION`.
    pub script: String,
    /// `SOURCE_DATE_EPOCH`; unset, if not given.
    #[serde(default)]
    pub source_date_epoch: Option<u64>,
}

/// One file that must come out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputSpec {
    /// What it is called when it is shipped; `{version}` is the version.
    pub name: String,
    /// Where the script leaves it, below `BUILD`; `{version}` is the version.
    pub path: String,
    /// Who else published it; the lock then has that file's digest to compare with.
    #[serde(default)]
    pub published: Option<Publisher>,
}

/// Who publishes files that a rebuild should equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Publisher {
    /// The Debian archive (a binary package).
    Debian,
    /// The Python index (a wheel of the source's name).
    Pypi,
}

/// What a build may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSpec {
    /// Time on the wall, in seconds.
    pub seconds: u64,
    /// Memory of all processes, in MiB.
    pub memory_mib: u32,
    /// Everything written, in MiB; it lies in memory too.
    pub disk_mib: u32,
    /// Processes and threads at one time.
    pub processes: u32,
}

impl Default for LimitsSpec {
    /// Half an hour, 4 GiB of memory, 4 GiB written, 512 processes.
    fn default() -> Self {
        Self { seconds: 1_800, memory_mib: 4_096, disk_mib: 4_096, processes: 512 }
    }
}

macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $check:expr, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                let check: fn(&str) -> bool = $check;
                if check(&text) {
                    Ok(Self(text))
                } else {
                    let shown: String = text.chars().take(80).collect();
                    Err(format!("{shown:?} is not {}", $expected))
                }
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::try_from(text.to_owned())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// Names of 100 and versions of 200 characters are longer than any in the archives we read.
fn is_word(text: &str, most: usize, also: &[char]) -> bool {
    (1..=most).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(&c))
}

checked_text! {
    /// A product's name.
    ProductId,
    |text| is_word(text, 100, &['.', '+', '-']) && !text.contains(|c: char| c.is_ascii_uppercase()),
    "a product: lower-case letters, digits, `.`, `+`, `-`, at most 100"
}
checked_text! {
    /// A version as upstream writes it.
    Version,
    |text| is_word(text, 200, &['.', '+', '-', '~', ':', '_', '!']),
    "a version: letters, digits, `.`, `+`, `-`, `~`, `:`, at most 200"
}
checked_text! {
    /// The name of a package in an archive or registry.
    PackageName,
    |text| is_word(text, 100, &['.', '+', '-', '_']),
    "a package: letters, digits, `.`, `+`, `-`, `_`, at most 100"
}
checked_text! {
    /// `NAME==VERSION`.
    WheelPin,
    |text| text.split_once("==").is_some_and(|(name, version)| {
        is_word(name, 100, &['.', '-', '_']) && is_word(version, 200, &['.', '+', '!'])
    }),
    "a pinned wheel: `NAME==VERSION`"
}

impl WheelPin {
    /// Name and version.
    #[must_use]
    pub fn parts(&self) -> (&str, &str) {
        self.0.split_once("==").unwrap_or((&self.0, ""))
    }
}

impl Recipe {
    /// Reads a recipe; `path` is for messages.
    ///
    /// # Errors
    /// [`RecipeError::Syntax`], [`RecipeError::Field`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, RecipeError> {
        let recipe: Self = toml::from_str(text).map_err(|error| RecipeError::Syntax {
            path: path.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        })?;
        let field =
            |field, problem: &str| RecipeError::Field { path: path.to_owned(), field, problem: problem.to_owned() };
        if recipe.output.is_empty() || recipe.output.len() > OUTPUTS_MAX {
            return Err(field("output", "needs 1 to 1000 entries: add an [[output]] with name and path"));
        }
        if !(1..=SECONDS_MAX).contains(&recipe.limits.seconds) {
            return Err(field("limits.seconds", "is 0 or more than a week"));
        }
        if recipe.build.script.contains('\0') {
            return Err(field("build.script", "has a NUL character"));
        }
        let mut names = std::collections::BTreeSet::new();
        for output in &recipe.output {
            let name = recipe.expand(&output.name);
            let flat = TreePath::new(&name).is_ok_and(|path| path.parent().is_none());
            if !flat || !names.insert(name) {
                return Err(field("output.name", "must be a plain file name, each only once"));
            }
            if TreePath::new(&recipe.expand(&output.path)).is_err() {
                return Err(field("output.path", "must be a relative path without `..`, below BUILD"));
            }
            if output.published == Some(Publisher::Pypi) && !matches!(recipe.source, SourceSpec::Sdist { .. }) {
                return Err(field("output.published", "can be `pypi` only if source.kind is `sdist`"));
            }
        }
        Ok(recipe)
    }

    /// `text` with `{version}` replaced, without Debian's epoch, as file names have it.
    #[must_use]
    pub fn expand(&self, text: &str) -> String {
        let version = self.version.as_str();
        text.replace("{version}", version.split_once(':').map_or(version, |(_, rest)| rest))
    }
}

/// A product's folder: recipe and lock, and the digest of both.
#[derive(Clone, Debug)]
pub struct Product {
    /// The folder.
    pub folder: PathBuf,
    /// `assembly.toml`.
    pub recipe: Recipe,
    /// `assembly.lock`.
    pub lock: Lock,
    /// What everybody who builds must agree on, and what resolutions are filed under: the digest of
    /// the canonical tree of recipe and lock.
    pub digest: Digest,
}

impl Product {
    /// Reads a product's folder.
    ///
    /// # Errors
    /// Any [`RecipeError`].
    pub fn open(folder: &Path) -> Result<Self, RecipeError> {
        let path = folder.join(RECIPE_FILE);
        let recipe_text = read_text(&path)?;
        let recipe = Recipe::parse(&recipe_text, &path)?;
        let lock_path = folder.join(LOCK_FILE);
        let lock_text = read_text(&lock_path)?;
        let lock = Lock::parse(&lock_text, &lock_path)?;
        let digest = digest_of(&recipe_text, &lock_text);
        Ok(Self { folder: folder.to_owned(), recipe, lock, digest })
    }
}

/// The digest of a canonical tree that has nothing but recipe and lock: what else lies in the
/// folder (notes, a copy's attributes) goes into no build.
fn digest_of(recipe: &str, lock: &str) -> Digest {
    let mut hasher = Hasher::default();
    hasher.update(MANIFEST_HEADER.as_bytes());
    for (name, text) in [(LOCK_FILE, lock), (RECIPE_FILE, recipe)] {
        let digest = Digest::of(text.as_bytes());
        hasher.update(format!("\nf\t{digest}\t{}\t{name}", text.len()).as_bytes());
    }
    hasher.update(b"\n");
    hasher.finish()
}

pub(crate) fn read_text(path: &Path) -> Result<String, RecipeError> {
    let io = |source| RecipeError::Io { path: path.to_owned(), source };
    let size = fs::metadata(path).map_err(io)?.len();
    if size > RECIPE_BYTES_MAX {
        let message = format!("has {size} bytes; the most is {RECIPE_BYTES_MAX}");
        return Err(RecipeError::Syntax { path: path.to_owned(), message });
    }
    fs::read_to_string(path).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
product = "hexyl"
version = "0.16.0"

[source]
kind = "crate"
name = "hexyl"

[environment]
kind = "debian"
packages = ["cargo-web"]

[build]
script = "cargo build"

[[output]]
name = "hexyl"
path = "target/release/hexyl"
"#;

    fn refusal(text: &str) -> String {
        Recipe::parse(text, Path::new("assembly.toml")).unwrap_err().to_string()
    }

    #[test]
    fn a_recipe_is_read() {
        let recipe = Recipe::parse(GOOD, Path::new("assembly.toml")).unwrap();
        assert_eq!(recipe.product.as_str(), "hexyl");
        assert_eq!(recipe.build.source_date_epoch, None);
        assert_eq!(recipe.limits, LimitsSpec::default());
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        insta::assert_snapshot!(refusal(&GOOD.replace("[build]", "[build]\nscripts = 1")), @r#"
        assembly.toml: TOML parse error at line 14, column 1
           |
        14 | scripts = 1
           | ^^^^^^^
        unknown field `scripts`, expected `script` or `source_date_epoch`
        "#);
        insta::assert_snapshot!(refusal(&GOOD.replace("\"hexyl\"\nversion", "\"He xyl\"\nversion")), @r#"
        assembly.toml: TOML parse error at line 2, column 11
          |
        2 | product = "He xyl"
          |           ^^^^^^^^
        "He xyl" is not a product: lower-case letters, digits, `.`, `+`, `-`, at most 100
        "#);
        insta::assert_snapshot!(refusal(&GOOD.replace("kind = \"crate\"", "kind = \"svn\"")), @r#"
        assembly.toml: TOML parse error at line 6, column 8
          |
        6 | kind = "svn"
          |        ^^^^^
        unknown variant `svn`, expected one of `git`, `crate`, `debian`, `sdist`
        "#);
        insta::assert_snapshot!(refusal(&GOOD.replace("target/release", "..")), @"assembly.toml: `output.path` must be a relative path without `..`, below BUILD");
        insta::assert_snapshot!(refusal(&GOOD.replace("name = \"hexyl\"\npath", "name = \"a/b\"\npath")), @"assembly.toml: `output.name` must be a plain file name, each only once");
    }

    #[test]
    fn a_product_is_its_recipe_and_its_lock() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [(RECIPE_FILE, GOOD), (LOCK_FILE, "format = 1\n")] {
            stdx::durable::write(&folder.path().join(name), text.as_bytes()).unwrap();
        }
        let tree = crate::source::capture_folder(folder.path(), attest::tree::Links::Inside, None).unwrap();
        assert_eq!(Product::open(folder.path()).unwrap().digest, tree.digest());
        stdx::durable::write(&folder.path().join("README"), b"").unwrap();
        assert_eq!(Product::open(folder.path()).unwrap().digest, tree.digest());
    }

    #[test]
    fn file_names_have_no_epoch() {
        let recipe = Recipe::parse(&GOOD.replace("0.16.0", "2:1.0-1"), Path::new("x")).unwrap();
        assert_eq!(recipe.expand("a_{version}.deb"), "a_1.0-1.deb");
    }
}
