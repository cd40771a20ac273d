//! `cargo xtask setup`: what the machine must have, and installs it where that is possible.

pub(crate) mod foreign;
mod service;

use std::ffi::OsStr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::refusal::Refusal;
use crate::workspace::{Workspace, command_line};

/// Install what `demo` and `test` need, or say exactly what is missing.
#[derive(clap::Args)]
pub(crate) struct Arguments {}

/// Who needs a program.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    Demo,
    Test,
    Bench,
}

/// How a need is recognised as met.
#[derive(Clone, Copy)]
enum Probe {
    Program(&'static str),
    /// A program of PostgreSQL's, which Debian keeps in a folder of its version.
    Postgres(&'static str),
    PythonModule(&'static str),
    /// A file that a test reads.
    File(&'static str),
}

/// One line of [`NEEDS`].
#[derive(Clone, Copy)]
struct Need {
    /// Needed for this and everything after it.
    since: Purpose,
    package: &'static str,
    probe: Probe,
    why: &'static str,
}

const fn need(since: Purpose, package: &'static str, probe: Probe, why: &'static str) -> Need {
    Need { since, package, probe, why }
}

/// What we use beyond Rust and git, by Debian package.
const NEEDS: &[Need] = &[
    need(Purpose::Demo, "gcc", Probe::Program("cc"), "links every program and compiles SQLite"),
    need(Purpose::Demo, "git", Probe::Program("git"), "lists the files of the checkout"),
    need(Purpose::Demo, "apt", Probe::Program("apt-get"), "resolves and fetches a product's Debian packages"),
    need(Purpose::Demo, "python3", Probe::Program("python3"), "runs pip"),
    need(Purpose::Demo, "python3-pip", Probe::PythonModule("pip"), "resolves and fetches a product's Python packages"),
    need(Purpose::Demo, "faketime", Probe::Program("faketime"), "shows what an endpoint does days later"),
    need(Purpose::Demo, "util-linux", Probe::Program("unshare"), "tells whether this machine allows namespaces"),
    need(Purpose::Test, "util-linux", Probe::Program("setpriv"), "runs sandboxes as an ordinary user"),
    need(Purpose::Test, "systemd", Probe::Program("systemd-analyze"), "checks the units of `dist/systemd`"),
    need(Purpose::Test, "strace", Probe::Program("strace"), "fails and kills programs at one system call"),
    need(Purpose::Test, "iproute2", Probe::Program("ip"), "sets up a network of a test's own"),
    need(Purpose::Test, "tcpdump", Probe::Program("tcpdump"), "captures what an endpoint sends there"),
    need(Purpose::Test, "g++", Probe::Program("c++"), "compiles libFuzzer"),
    need(Purpose::Test, "nodejs", Probe::Program("node"), "runs the foreign TUF client of npm"),
    need(Purpose::Test, "npm", Probe::Program("npm"), "installs it"),
    need(Purpose::Test, "perl-base", Probe::Program("perl"), "is a hostile program in the sandbox's tests"),
    need(
        Purpose::Test,
        "clamav-testfiles",
        Probe::File("/usr/share/clamav-testfiles/clam.exe"),
        "holds one file in many containers",
    ),
    need(
        Purpose::Test,
        "softhsm2",
        Probe::File("/usr/lib/softhsm/libsofthsm2.so"),
        "keeps a custodian's keys as hardware would",
    ),
    need(Purpose::Test, "postgresql", Probe::Postgres("postgres"), "keeps locks and catalog beyond one machine"),
];

/// Checks everything, prints one line a need on stdout.
pub(crate) fn run(_: &Arguments) -> anyhow::Result<()> {
    ensure(Purpose::Test)?;
    for need in NEEDS {
        println!("{:<13} {}", need.package, need.why);
    }
    Ok(())
}

/// Installs or names what is missing for `purpose`. Quiet and quick when nothing is.
pub(crate) fn ensure(purpose: Purpose) -> anyhow::Result<()> {
    let missing = missing_for(purpose);
    if !missing.is_empty() {
        supply(&missing)?;
        let still = missing_for(purpose);
        if !still.is_empty() {
            return Err(Refusal::missing(format!("still missing after installation: {}", named(&still)))
                .with_hint("the packages are installed: does PATH hold /usr/bin, and is python3 Debian's own?")
                .into());
        }
    }
    ensure_namespaces()?;
    if purpose < Purpose::Test {
        return Ok(());
    }
    service::ensure(&service::SEAWEED)?;
    if purpose == Purpose::Bench {
        service::ensure(&service::OPENBAO)?;
    }
    foreign::ensure(&Workspace::find()?)
}

fn missing_for(purpose: Purpose) -> Vec<Need> {
    NEEDS.iter().filter(|need| need.since <= purpose && !is_met(need.probe)).copied().collect()
}

fn is_met(probe: Probe) -> bool {
    match probe {
        Probe::Program(name) => find_program(name, std::env::var_os("PATH").as_deref()).is_some(),
        Probe::Postgres(name) => std::fs::read_dir("/usr/lib/postgresql")
            .is_ok_and(|versions| versions.flatten().any(|version| version.path().join("bin").join(name).is_file())),
        Probe::PythonModule(name) => {
            let mut python = Command::new("python3");
            python.args(["-c", &format!("import {name}")]).stdin(Stdio::null()).stdout(Stdio::null());
            python.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        }
        Probe::File(path) => Path::new(path).is_file(),
    }
}

/// The first executable file called `name` in the folders of `path`.
fn find_program(name: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    std::env::split_paths(path?).map(|folder| folder.join(name)).find(|file| {
        std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    })
}

fn supply(missing: &[Need]) -> anyhow::Result<()> {
    if !Path::new("/etc/debian_version").exists()
        || find_program("apt-get", std::env::var_os("PATH").as_deref()).is_none()
    {
        return Err(Refusal::missing(format!("this machine lacks {}", named(missing)))
            .with_hint("this is no Debian: install them with your own package manager, then repeat the command")
            .into());
    }
    if !is_root()? {
        return Err(Refusal::missing(format!("this machine lacks {}", named(missing)))
            .with_hint(format!("sudo apt-get update && sudo {}", command_line(&install_command(missing))))
            .into());
    }
    eprintln!("installing {}", named(missing));
    if !has_package_lists(Path::new("/var/lib/apt/lists")) {
        apt(update_command())?;
    }
    // Lists that are present may still be too old to name what the archive holds now.
    if apt(install_command(missing)).is_err() {
        apt(update_command())?;
        apt(install_command(missing))?;
    }
    Ok(())
}

fn named(needs: &[Need]) -> String {
    let names = needs.iter().map(|need| match need.probe {
        Probe::Program(name) | Probe::Postgres(name) => format!("{name} (package {}; {})", need.package, need.why),
        Probe::PythonModule(name) => format!("Python's {name} (package {}; {})", need.package, need.why),
        Probe::File(path) => format!("{path} (package {}; {})", need.package, need.why),
    });
    names.collect::<Vec<_>>().join(", ")
}

fn update_command() -> Command {
    let mut command = Command::new("apt-get");
    command.args(["update", "-q"]);
    command
}

fn install_command(missing: &[Need]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(["install", "-y", "-q", "--no-install-recommends"]);
    command.args(missing.iter().map(|need| need.package));
    command
}

fn apt(mut command: Command) -> anyhow::Result<()> {
    let name = command_line(&command);
    command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(std::io::stderr());
    let status = command.status().with_context(|| format!("`{name}` could not be started"))?;
    if status.success() {
        return Ok(());
    }
    Err(Refusal::unavailable(format!("`{name}` failed: {status}"))
        .with_hint("its reason stands above; a network or archive failure passes, so try again")
        .into())
}

fn has_package_lists(folder: &Path) -> bool {
    std::fs::read_dir(folder)
        .is_ok_and(|entries| entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("_Packages")))
}

/// `/proc/self` belongs to the effective user.
fn is_root() -> anyhow::Result<bool> {
    Ok(std::fs::metadata("/proc/self").context("/proc is not mounted")?.uid() == 0)
}

/// Builds run in their own user, mount, process and network namespaces.
fn ensure_namespaces() -> anyhow::Result<()> {
    let mut probe = Command::new("unshare");
    probe.args(["--user", "--map-root-user", "--mount", "--net", "--ipc", "--uts", "--pid", "--fork", "true"]);
    let output = probe.stdin(Stdio::null()).output().context("`unshare` could not be started")?;
    if output.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stderr);
    Err(Refusal::missing(format!("this machine forbids user namespaces: {}", reason.trim()))
        .with_hint(namespace_hint(Path::new("/proc/sys")))
        .into())
}

/// The switch that is off under `settings` (`/proc/sys`), and how to turn it on.
fn namespace_hint(settings: &Path) -> String {
    let switches = [
        ("user/max_user_namespaces", "0", "sudo sysctl -w user.max_user_namespaces=10000"),
        ("kernel/unprivileged_userns_clone", "0", "sudo sysctl -w kernel.unprivileged_userns_clone=1"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ];
    for (file, off, remedy) in switches {
        if std::fs::read_to_string(settings.join(file)).is_ok_and(|value| value.trim() == off) {
            return format!("run `{remedy}`, then repeat the command");
        }
    }
    "no kernel switch is off, so a chroot or a container's filter forbids it: leave the chroot, or \
     start the container with `--security-opt seccomp=unconfined --security-opt apparmor=unconfined` and an \
     unmasked /proc, or use a virtual machine"
        .to_owned()
}

#[cfg(test)]
mod tests;
