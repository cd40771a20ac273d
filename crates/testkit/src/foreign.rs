//! Programs of `foreign/`: Python and JavaScript that know the public specifications and nothing of
//! our code. Their packages are installed by `cargo xtask setup`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A Python program of `foreign/`, ready for arguments.
#[must_use]
pub fn python(script: &str) -> Command {
    let mut command = python_in(script);
    command.env("PYTHONPATH", packages("python", &["python/requirements.txt"]));
    command
}

/// The same with what reads numbers and alert rules.
#[must_use]
pub fn scraper(script: &str) -> Command {
    let mut command = python_in(script);
    command.env("PYTHONPATH", packages("metrics", &["python/metrics.txt"]));
    command
}

/// The same with other engines for rules.
#[must_use]
pub fn engine(script: &str) -> Command {
    let mut command = python_in(script);
    command.env("PYTHONPATH", packages("engines", &["python/engines.txt"]));
    command
}

/// The folder of guarddog's YARA files.
#[must_use]
pub fn guarddog_rules() -> PathBuf {
    packages("engines", &["python/engines.txt"]).join("guarddog/analyzer/sourcecode")
}

/// A JavaScript program of `foreign/`, ready for arguments.
#[must_use]
pub fn node(script: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(source().join(script)).stdin(Stdio::null());
    let packages = packages("node", &["node/package.json", "node/package-lock.json"]);
    command.env("NODE_PATH", packages.join("node_modules"));
    command
}

/// The folder of python-tuf's sdist, with its tests.
#[must_use]
pub fn tuf_sdist() -> PathBuf {
    packages("tuf-sdist", &["python/tuf-sdist.txt"])
}

/// Runs a program to its end, which must be a good one, and gives what it printed.
///
/// # Panics
/// With all that it said, if it failed.
#[must_use]
pub fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}\n{}\n{}", said(&output.stdout), said(&output.stderr));
    said(&output.stdout)
}

fn python_in(script: &str) -> Command {
    let mut command = Command::new("python3");
    // Nothing is written beside the sources, and lines come as they are printed.
    command.args(["-B", "-u"]).arg(source().join(script)).stdin(Stdio::null());
    command
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../foreign")
}

/// Where `cargo xtask setup` put a set of packages, if it is the one that is pinned now.
fn packages(set: &str, pins: &[&str]) -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "the cache folder, as xtask finds it")]
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| Path::new(&variable("HOME").unwrap()).join(".cache"));
    let folder = cache.join("clerestory/foreign").join(set);
    for pins in pins {
        let copy = folder.join(Path::new(pins).file_name().unwrap());
        let (wanted, found) = (std::fs::read(source().join(pins)).unwrap(), std::fs::read(&copy).unwrap_or_default());
        assert!(wanted == found, "{} is not what foreign/{pins} pins: run `cargo xtask setup`", folder.display());
    }
    folder
}
