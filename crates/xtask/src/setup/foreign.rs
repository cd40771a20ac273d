//! What foreign eyes are made of: packages of Python and npm, pinned with their hashes in `foreign/`,
//! installed into the cache folder, where `testkit::foreign` finds them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::refusal::Refusal;
use crate::workspace::{Workspace, command_line};

/// A set of packages. It is complete when its folder holds a copy of its pins.
struct Set {
    /// Its folder in the cache.
    name: &'static str,
    /// The pins, by their paths in the checkout.
    pins: &'static [&'static str],
    install: fn(&Place) -> Vec<Command>,
}

/// Where a set is put together.
struct Place {
    /// The checkout's `foreign`.
    source: PathBuf,
    /// The cache's folder of all sets.
    cache: PathBuf,
    /// The set's own, empty folder.
    folder: PathBuf,
}

const SETS: [Set; 5] = [
    Set { name: "python", pins: &["python/requirements.txt"], install: python },
    Set { name: "engines", pins: &["python/engines.txt"], install: engines },
    Set { name: "metrics", pins: &["python/metrics.txt"], install: metrics },
    // Its sdist is opened by what the first set installs.
    Set { name: "tuf-sdist", pins: &["python/tuf-sdist.txt"], install: tuf_sdist },
    Set { name: "node", pins: &["node/package.json", "node/package-lock.json"], install: node },
];

/// Installs what is missing or pinned otherwise. Without a difference nothing is asked of anyone.
pub(super) fn ensure(workspace: &Workspace) -> anyhow::Result<()> {
    let (source, cache) = (workspace.root().join("foreign"), cache()?);
    for set in &SETS {
        let folder = cache.join(set.name);
        if !is_complete(set, &source, &folder)? {
            eprintln!("installing {} into {}", set.pins.join(", "), folder.display());
            let place = Place { source: source.clone(), cache: cache.clone(), folder };
            install(set, &place).with_context(|| format!("packages of `{}`", set.name))?;
        }
    }
    Ok(())
}

/// `$XDG_CACHE_HOME/clerestory/foreign`, else below `~/.cache`; `testkit::foreign` says the same.
pub(crate) fn cache() -> anyhow::Result<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|it| !it.is_empty()).map(PathBuf::from).or_else(home);
    let hint = "set HOME or XDG_CACHE_HOME to a folder that may be written";
    let cache = cache.ok_or_else(|| Refusal::missing("there is no cache folder").with_hint(hint))?;
    Ok(cache.join("clerestory/foreign"))
}

/// Where a set keeps the copy of a pin file.
fn copy_of(folder: &Path, pins: &str) -> PathBuf {
    folder.join(Path::new(pins).file_name().unwrap_or_default())
}

fn is_complete(set: &Set, source: &Path, folder: &Path) -> anyhow::Result<bool> {
    for pins in set.pins {
        let wanted = source.join(pins);
        let wanted = std::fs::read(&wanted).with_context(|| format!("{}", wanted.display()))?;
        if std::fs::read(copy_of(folder, pins)).ok() != Some(wanted) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn install(set: &Set, place: &Place) -> anyhow::Result<()> {
    // The copy of the pins comes last, so what is here now is old or was interrupted.
    if place.folder.exists() {
        std::fs::remove_dir_all(&place.folder).with_context(|| format!("{}", place.folder.display()))?;
    }
    std::fs::create_dir_all(&place.folder).with_context(|| format!("{}", place.folder.display()))?;
    for mut command in (set.install)(place) {
        let name = command_line(&command);
        command.current_dir(&place.folder).stdin(Stdio::null()).stdout(std::io::stderr());
        let status = command.status().with_context(|| format!("`{name}` could not be started"))?;
        if !status.success() {
            let hint = "its reason stands above; without a network this can't be done the first time";
            return Err(Refusal::unavailable(format!("`{name}` failed: {status}")).with_hint(hint).into());
        }
    }
    for pins in set.pins {
        let copy = copy_of(&place.folder, pins);
        std::fs::copy(place.source.join(pins), &copy).with_context(|| format!("{}", copy.display()))?;
    }
    Ok(())
}

fn pip<const N: usize>(place: &Place, arguments: [&str; N], pins: &str) -> Command {
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "--disable-pip-version-check"]).args(arguments);
    command.args(["--no-deps", "--require-hashes", "--requirement"]).arg(place.source.join(pins));
    // Into a folder of its own, whoever runs it: its warning about root means something else.
    command.env("PIP_ROOT_USER_ACTION", "ignore");
    command
}

fn python(place: &Place) -> Vec<Command> {
    let arguments = ["install", "--quiet", "--only-binary", ":all:", "--target", "."];
    vec![pip(place, arguments, "python/requirements.txt")]
}

fn engines(place: &Place) -> Vec<Command> {
    vec![pip(place, ["install", "--quiet", "--only-binary", ":all:", "--target", "."], "python/engines.txt")]
}

fn metrics(place: &Place) -> Vec<Command> {
    vec![pip(place, ["install", "--quiet", "--only-binary", ":all:", "--target", "."], "python/metrics.txt")]
}

fn tuf_sdist(place: &Place) -> Vec<Command> {
    let arguments = ["download", "--quiet", "--no-binary", ":all:", "--no-build-isolation", "--dest", "."];
    let mut download = pip(place, arguments, "python/tuf-sdist.txt");
    // pip asks the sdist's own build program for its name.
    download.env("PYTHONPATH", place.cache.join("python"));
    let mut unpack = Command::new("sh");
    unpack.args(["-c", "tar -xzf tuf-*.tar.gz --strip-components=1 && rm tuf-*.tar.gz"]);
    vec![download, unpack]
}

fn node(place: &Place) -> Vec<Command> {
    let mut copy = Command::new("cp");
    copy.arg(place.source.join("node/package.json")).arg(place.source.join("node/package-lock.json")).arg(".");
    let mut install = Command::new("npm");
    install.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]);
    // Until everything is there, no copy of the pins may be.
    let mut unmark = Command::new("rm");
    unmark.arg("package-lock.json");
    vec![copy, install, unmark]
}

#[cfg(test)]
mod tests {
    use super::{SETS, copy_of, is_complete};

    #[test]
    fn a_set_is_complete_with_a_copy_of_its_pins() {
        let (source, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let set = SETS.iter().find(|set| set.name == "node").unwrap();
        let write = |path: std::path::PathBuf, text: &str| {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::io::Write::write_all(&mut std::fs::File::create(path).unwrap(), text.as_bytes()).unwrap();
        };
        assert!(is_complete(set, source.path(), folder.path()).is_err(), "no pins in the checkout");
        set.pins.iter().for_each(|pins| write(source.path().join(pins), "1"));
        assert!(!is_complete(set, source.path(), folder.path()).unwrap());
        write(copy_of(folder.path(), set.pins[0]), "1");
        assert!(!is_complete(set, source.path(), folder.path()).unwrap(), "one of two");
        write(copy_of(folder.path(), set.pins[1]), "1");
        assert!(is_complete(set, source.path(), folder.path()).unwrap());
        write(source.path().join(set.pins[1]), "2");
        assert!(!is_complete(set, source.path(), folder.path()).unwrap(), "pinned otherwise");
    }
}
