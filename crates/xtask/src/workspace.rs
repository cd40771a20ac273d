//! The checkout we stand in, and the programs we run in it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use serde::Deserialize;

use crate::refusal::Refusal;

/// The checkout: its root folder.
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// Finds the root from the current folder.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let mut locate = Command::new(cargo_program());
        locate.args(["locate-project", "--workspace", "--message-format", "plain"]);
        let manifest = PathBuf::from(read(locate)?.trim_end());
        let root = manifest.parent().with_context(|| format!("{} has no folder", manifest.display()))?;
        Ok(Self { root: root.to_owned() })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where cargo puts what it builds.
    pub(crate) fn target_folder(&self) -> PathBuf {
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.root.join("target"), |it| self.root.join(it))
    }

    /// `cargo` with `arguments`, not yet started. Its stdout goes to our stderr: it is progress, not data.
    pub(crate) fn cargo<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Command {
        let mut command = Command::new(cargo_program());
        command.args(arguments).current_dir(&self.root).stdin(Stdio::null()).stdout(std::io::stderr());
        // What `cargo run` says of this package is not so of those that are built. Build scripts that look at it
        // (ring's does) would run anew whenever cargo is called by hand in between, and all that stands on them.
        let of_this_package = |name: &&str| OF_PACKAGE.iter().any(|prefix| name.starts_with(prefix));
        for (name, _) in std::env::vars_os() {
            if let Some(name) = name.to_str().filter(of_this_package) {
                command.env_remove(name);
            }
        }
        command
    }
}

/// What `cargo metadata` tells, as far as we read it.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) workspace_members: Vec<String>,
}

/// One package, ours or foreign.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
}

/// One line of a package's dependencies.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `None` is a normal dependency; else `dev` or `build`.
    pub(crate) kind: Option<String>,
}

impl Metadata {
    /// Our own packages only.
    pub(crate) fn of_members(workspace: &Workspace) -> anyhow::Result<Self> {
        Self::read(workspace, &["--no-deps"])
    }

    /// Everything that is compiled on this kind of machine.
    pub(crate) fn of_everything(workspace: &Workspace) -> anyhow::Result<Self> {
        let mut rustc = Command::new("rustc");
        rustc.arg("-vV");
        let about = read(rustc)?;
        let host = about.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV names no host")?;
        Self::read(workspace, &["--locked", "--filter-platform", host])
    }

    fn read(workspace: &Workspace, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut command = workspace.cargo(["metadata", "--format-version", "1"]);
        command.args(arguments);
        serde_json::from_str(&read(command)?).context("cargo metadata gave something else than its format 1")
    }
}

/// Every package. What they share then has the features that the tests build it with: DataFusion is not compiled again.
pub(crate) const ALL: &[&str] = &[];

/// Builds the programs of `packages` and returns where `program` among them lies.
pub(crate) fn built(
    workspace: &Workspace,
    profile: &[&str],
    packages: &[&str],
    program: &str,
) -> anyhow::Result<PathBuf> {
    eprintln!("building `{program}` and what goes with it (minutes the first time)");
    let mut command = workspace.cargo(["build", "--bins", "--message-format", "json-render-diagnostics"]);
    command.args(profile).args(packages.iter().flat_map(|package| ["--package", package]));
    if packages == ALL {
        command.arg("--workspace");
    }
    let messages = read(command)?;
    let found = program_in(&messages, program)?;
    found.with_context(|| Refusal::refused(format!("the build gave no program `{program}`")))
}

/// What cargo reports of each artifact, as far as we read it.
#[derive(Deserialize)]
struct Message {
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

pub(crate) fn program_in(messages: &str, program: &str) -> anyhow::Result<Option<PathBuf>> {
    for line in messages.lines() {
        let message: Message = serde_json::from_str(line).with_context(|| format!("cargo's message `{line}`"))?;
        if message.target.is_some_and(|target| target.name == program) && message.executable.is_some() {
            return Ok(message.executable);
        }
    }
    Ok(None)
}

/// Runs `command` and returns what it printed.
pub(crate) fn read(mut command: Command) -> anyhow::Result<String> {
    let name = command_line(&command);
    let output = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("`{name}` could not be started"))?;
    if !output.status.success() {
        return Err(Refusal::refused(format!("`{name}` failed: {}", output.status)).into());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{name}` printed something else than UTF-8"))
}

/// Runs `command` to its end; a failure names the command, so that it can be repeated alone.
pub(crate) fn succeed(mut command: Command) -> anyhow::Result<()> {
    let name = command_line(&command);
    let status = command.status().with_context(|| format!("`{name}` could not be started"))?;
    if status.success() {
        return Ok(());
    }
    Err(Refusal::refused(format!("`{name}` failed: {status}")).into())
}

/// The command as a person would type it.
pub(crate) fn command_line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy();
    let arguments = command.get_args().map(OsStr::to_string_lossy);
    std::iter::once(program).chain(arguments).collect::<Vec<_>>().join(" ")
}

/// The cargo that started us, else the one on the path.
fn cargo_program() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// What cargo tells the programs that it runs of their package.
const OF_PACKAGE: [&str; 2] = ["CARGO_PKG_", "CARGO_MANIFEST_"];

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{Workspace, program_in};

    #[test]
    fn what_cargo_calls_this_package_is_not_passed_on() {
        assert!(std::env::var_os("CARGO_PKG_NAME").is_some(), "run it by cargo");
        let command = Workspace::find().unwrap().cargo(["--version"]);
        let of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        let taken: Vec<_> = command.get_envs().filter(|(_, value)| value.is_none()).collect();
        assert!(taken.iter().any(|(name, _)| *name == "CARGO_MANIFEST_DIR"), "{taken:?}");
        assert!(taken.iter().all(|(name, _)| of_package(name.to_str().unwrap())), "{taken:?}");
    }

    #[test]
    fn the_program_is_found_among_cargos_messages() {
        let others = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"server","kind":["lib"]},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"clerestory-agent","kind":["bin"]},"executable":"/t/clerestory-agent"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(program_in(others, "clerestory").unwrap(), None);
        let with = format!(
            "{}\n{others}",
            r#"{"reason":"compiler-artifact","target":{"name":"clerestory"},"executable":"/t/clerestory"}"#
        );
        assert_eq!(program_in(&with, "clerestory").unwrap(), Some(PathBuf::from("/t/clerestory")));
        assert!(program_in("not JSON", "clerestory").is_err());
    }
}
