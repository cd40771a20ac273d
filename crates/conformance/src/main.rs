//! The command line that the public TUF conformance suite drives, on the client of `tuf`.
//!
//! # In scope
//! The suite's three commands, HTTP, and the algorithms that the suite uses and our endpoint
//! doesn't have: RSASSA-PSS, ECDSA and SHA-512 live only here.
//!
//! # Out of scope
//! Everything a user would want: the endpoint is `clerestory-agent`.
//!
//! # Invariants
//! The client is the endpoint's own; only the suite of algorithms differs.

mod http;
mod suite;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use stdx::{Clock as _, SystemClock, durable};
use tuf::{Client, FolderStore, Limits, TargetPath, Trusted};

use crate::http::Http;
use crate::suite::Everything;

/// A TUF client under test.
#[derive(Debug, Parser)]
#[command(name = "clerestory-tuf-conformance", version)]
struct Arguments {
    /// Where trusted metadata is kept
    #[arg(long, value_name = "DIR")]
    metadata_dir: PathBuf,
    /// Base URL of the repository's metadata
    #[arg(long, value_name = "URL")]
    metadata_url: Option<String>,
    /// Path of a target; may be given several times
    #[arg(long, value_name = "PATH")]
    target_name: Vec<TargetPath>,
    /// Base URL of the repository's targets
    #[arg(long, value_name = "URL")]
    target_base_url: Option<String>,
    /// Where downloaded targets go
    #[arg(long, value_name = "DIR")]
    target_dir: Option<PathBuf>,
    /// Another limit than the endpoint's; may be given several times
    #[arg(long, value_name = "NAME=NUMBER")]
    limit: Vec<Limit>,
    #[command(subcommand)]
    command: Command,
}

/// A limit of the client by its name, so that a test reaches it with little.
#[derive(Clone, Copy, Debug)]
enum Limit {
    Roots(u32),
    RootBytes(u64),
    TimestampBytes(u64),
    SnapshotBytes(u64),
    TargetsBytes(u64),
    VisitedRoles(usize),
}

impl std::str::FromStr for Limit {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, number) = text.split_once('=').context("not NAME=NUMBER")?;
        Ok(match name {
            "roots" => Self::Roots(number.parse()?),
            "root-bytes" => Self::RootBytes(number.parse()?),
            "timestamp-bytes" => Self::TimestampBytes(number.parse()?),
            "snapshot-bytes" => Self::SnapshotBytes(number.parse()?),
            "targets-bytes" => Self::TargetsBytes(number.parse()?),
            "visited-roles" => Self::VisitedRoles(number.parse()?),
            _ => bail!("no limit is called `{name}`"),
        })
    }
}

impl Limit {
    fn within(self, limits: Limits) -> Limits {
        match self {
            Self::Roots(roots) => Limits { roots, ..limits },
            Self::RootBytes(root_bytes) => Limits { root_bytes, ..limits },
            Self::TimestampBytes(timestamp_bytes) => Limits { timestamp_bytes, ..limits },
            Self::SnapshotBytes(snapshot_bytes) => Limits { snapshot_bytes, ..limits },
            Self::TargetsBytes(targets_bytes) => Limits { targets_bytes, ..limits },
            Self::VisitedRoles(visited_roles) => Limits { visited_roles, ..limits },
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sets up trusted metadata with a first root
    Init {
        /// The trusted root.json
        root: PathBuf,
    },
    /// Updates the top-level metadata
    Refresh,
    /// Updates the metadata, then downloads the named targets in order
    Download,
    /// Updates the metadata, then prints what it says of each named target, or `null`
    Find,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let store = FolderStore::open(&arguments.metadata_dir)
        .with_context(|| format!("opening {}", arguments.metadata_dir.display()))?;
    let limits = arguments.limit.iter().fold(Limits::default(), |limits, limit| limit.within(limits));
    let client = Client::new(&store, &Everything, limits);
    if let Command::Init { root } = &arguments.command {
        let bytes = std::fs::read(root).with_context(|| format!("reading {}", root.display()))?;
        return Ok(client.create(&bytes)?);
    }
    let url = arguments.metadata_url.as_deref().context("--metadata-url is missing")?;
    let http = Http::new(url, arguments.target_base_url.as_deref());
    let trusted = client.refresh(&http, SystemClock::new().now())?;
    if matches!(arguments.command, Command::Refresh) {
        return Ok(());
    }
    if arguments.target_name.is_empty() {
        bail!("--target-name is missing");
    }
    for path in &arguments.target_name {
        let done = if matches!(arguments.command, Command::Find) {
            find(&trusted, path)
        } else {
            let folder = arguments.target_dir.as_deref().context("--target-dir is missing")?;
            download(&trusted, path, folder)
        };
        done.with_context(|| format!("target {path}"))?;
    }
    Ok(())
}

/// Prints a target's description as the metadata has it, on a line.
fn find(trusted: &Trusted<'_>, path: &TargetPath) -> anyhow::Result<()> {
    match trusted.find(path) {
        Ok(target) => println!("{}", serde_json::to_string(target.file())?),
        Err(tuf::Error::UnknownTarget(_)) => println!("null"),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Downloads one target, unless the folder has it.
fn download(trusted: &Trusted<'_>, path: &TargetPath, folder: &Path) -> anyhow::Result<()> {
    let target = trusted.find(path)?;
    // A target path may hold anything; its encoded form is one plain file name.
    let name: String = path.as_str().bytes().map(file_name_part).collect();
    let file = folder.join(name);
    if std::fs::read(&file).is_ok_and(|bytes| trusted.matches(&target, &bytes)) {
        return Ok(());
    }
    let bytes = trusted.fetch(&target)?;
    durable::write(&file, &bytes).with_context(|| format!("writing {}", file.display()))
}

fn file_name_part(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}
