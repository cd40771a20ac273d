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
    #[command(subcommand)]
    command: Command,
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
    let client = Client::new(&store, &Everything, Limits::default());
    if let Command::Init { root } = &arguments.command {
        let bytes = std::fs::read(root).with_context(|| format!("reading {}", root.display()))?;
        return Ok(client.create(&bytes)?);
    }
    let url = arguments.metadata_url.as_deref().context("--metadata-url is missing")?;
    let http = Http::new(url, arguments.target_base_url.as_deref());
    let trusted = client.refresh(&http, SystemClock::new().now())?;
    if let Command::Download = arguments.command {
        let folder = arguments.target_dir.as_deref().context("--target-dir is missing")?;
        if arguments.target_name.is_empty() {
            bail!("--target-name is missing");
        }
        for path in &arguments.target_name {
            download(&trusted, path, folder).with_context(|| format!("target {path}"))?;
        }
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
