//! `clerestory release`: approve, publish, promote.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use attest::{Bundle, ProductId, Ring};
use channel::{Channel, ExportRequest, write_export};
use clap::{Args, Subcommand};
use serde::Serialize;
use stdx::SystemClock;

use crate::command::{Output, block_on};
use crate::config::Config;
use crate::domain::{Domain, channel_folder};
use crate::kept::Kept;
use crate::line::{ApprovalOf, Line, Publication, approve, read_bundle, write};
use crate::stores::{self, State};
use crate::{key_file, publish};

/// What a release goes through.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the vendor's channel, and print the SHA-256 of its root for the policy
    CreateChannel(Common),
    /// Sign and log a person's approval of a result
    Approve(ApproveArguments),
    /// Release what was rebuilt and approved, and publish it in the channel
    Publish(PublishArguments),
    /// Widen the ring of a release
    Promote(PublishArguments),
    /// Renew the channel's timestamp and carry the supervisor's status into it, now
    Freshen(Common),
    /// Write the newest releases and all their evidence into one file, for machines without a network
    Export(ExportArguments),
    /// Show what a bundle says
    Show {
        /// The bundle
        file: PathBuf,
    },
}

/// Arguments of every subcommand.
#[derive(Debug, Args)]
pub struct Common {
    /// The configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Arguments of `release approve`.
#[derive(Debug, Args)]
pub struct ApproveArguments {
    #[command(flatten)]
    common: Common,
    /// The approver's key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// A bundle with the result
    #[arg(long, value_name = "FILE")]
    result: PathBuf,
    /// What the approver has to say
    #[arg(long, default_value = "")]
    comment: String,
    /// Where the approval goes: for the vendor, `builds/PRODUCT/VERSION/approvals/`
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Arguments of `release export`.
#[derive(Debug, Args)]
pub struct ExportArguments {
    #[command(flatten)]
    common: Common,
    /// The products
    #[arg(required = true)]
    products: Vec<ProductId>,
    /// The ring of the machines that it is for: canary, early or all
    #[arg(long, default_value_t = Ring::All)]
    ring: Ring,
    /// Where it goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Arguments of `release publish` and `release promote`.
#[derive(Debug, Args)]
pub struct PublishArguments {
    #[command(flatten)]
    common: Common,
    /// The product
    product: ProductId,
    /// Its version
    #[arg(value_name = "VERSION")]
    of_version: String,
    /// The widest ring that gets it: canary, early or all
    #[arg(long, default_value_t = Ring::All)]
    ring: Ring,
}

#[derive(Debug, Serialize)]
struct Made {
    statement: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    file: PathBuf,
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "statement {}", self.statement)?;
        if let Some(index) = self.index {
            write!(f, ", entry {index} of its log")?;
        }
        writeln!(f, ", in {}", self.file.display())
    }
}

#[derive(Debug, Serialize)]
struct ReleasedReport {
    product: String,
    version: String,
    number: u64,
    ring: String,
    statement: String,
    evidence_time: String,
    bundle_bytes: usize,
}

impl fmt::Display for ReleasedReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {} is release #{} for ring `{}`", self.product, self.version, self.number, self.ring)?;
        writeln!(
            f,
            "  statement {}, witnessed {}, {} bytes of evidence",
            self.statement, self.evidence_time, self.bundle_bytes
        )
    }
}

/// Runs the command.
///
/// # Errors
/// Why it did not do what was asked.
pub fn run(command: &Command, output: Output) -> anyhow::Result<()> {
    match command {
        Command::CreateChannel(common) => {
            let config = Config::load(&common.config)?;
            let digest = block_on(async {
                let kept = kept(&config).await?;
                tokio::task::block_in_place(|| publish::create(&config, &SystemClock::new(), kept))
            })?;
            output.print(&digest)
        }
        Command::Approve(arguments) => block_on(self::approve_one(arguments, output)),
        Command::Publish(arguments) | Command::Promote(arguments) => block_on(async {
            let config = Config::load(&arguments.common.config)?;
            let line = Line::open(&config).await?;
            let PublishArguments { product, of_version: version, ring, .. } = arguments;
            let publication = match command {
                Command::Publish(_) => line.release(product, version, *ring).await?,
                _ => line.promote(product, version, *ring).await?,
            };
            tokio::task::block_in_place(|| publish::publish(&config, line.domain(), &publication))?;
            tokio::task::block_in_place(|| publish::freshen(&config, line.domain()))?;
            output.print(&report(&publication))
        }),
        Command::Freshen(common) => block_on(async {
            let config = Config::load(&common.config)?;
            let domain = Domain::open(&config).await?;
            tokio::task::block_in_place(|| publish::freshen(&config, &domain))
        }),
        Command::Export(arguments) => block_on(async { export(arguments, output).await }),
        Command::Show { file } => show(file, output),
    }
}

fn report(publication: &Publication) -> ReleasedReport {
    let release = publication.approved.release();
    ReleasedReport {
        product: release.product.to_string(),
        version: release.version.clone(),
        number: release.number.get(),
        ring: publication.approved.ring().to_string(),
        statement: publication.approved.id().to_string(),
        evidence_time: publication.approved.evidence_time().to_string(),
        bundle_bytes: publication.bundle.to_bytes().len(),
    }
}

async fn approve_one(arguments: &ApproveArguments, output: Output) -> anyhow::Result<()> {
    let config = Config::load(&arguments.common.config)?;
    let domain = Domain::open(&config).await?;
    let key = key_file::load(&arguments.key)?;
    let result = bundle(&arguments.result)?;
    let of = ApprovalOf { result: &result, comment: arguments.comment.clone() };
    let approval = approve(&domain, &key, &of).await?;
    if let Some(folder) = arguments.out.parent() {
        stdx::durable::create_folder(folder).with_context(|| format!("can't make `{}`", folder.display()))?;
    }
    write(&arguments.out, &approval.to_bytes())?;
    let entry = approval.entries().first().context("an approval is one entry")?;
    let index = Some(entry.proof.index().get());
    output.print(&Made { statement: entry.envelope.id().to_string(), index, file: arguments.out.clone() })
}

fn bundle(path: &Path) -> anyhow::Result<Bundle> {
    read_bundle(path)?.with_context(|| format!("there is no `{}`", path.display()))
}

#[derive(Debug, Serialize)]
struct Exported {
    file: PathBuf,
    members: Vec<channel::Member>,
}

impl fmt::Display for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for member in &self.members {
            writeln!(f, "{:>10} bytes  {}", member.size, member.path)?;
        }
        writeln!(f, "in {}", self.file.display())
    }
}

/// Without the policy, which a channel comes before.
async fn kept(config: &Config) -> anyhow::Result<Option<Kept>> {
    match config.shared() {
        None => Ok(None),
        Some(_) => stores::kept(config, &State::open(config).await?).await,
    }
}

async fn export(arguments: &ExportArguments, output: Output) -> anyhow::Result<()> {
    let config = Config::load(&arguments.common.config)?;
    let folder = channel_folder(&config.data(), kept(&config).await?)?;
    folder.pull()?;
    let channel = Channel::open(folder.path())?;
    let request = ExportRequest { products: &arguments.products, ring: arguments.ring };
    let mut bytes = Vec::new();
    let members = write_export(&channel, &request, &mut bytes)?;
    write(&arguments.out, &bytes)?;
    output.print(&Exported { file: arguments.out.clone(), members })
}

#[derive(Debug, Serialize)]
struct Shown {
    entries: Vec<serde_json::Value>,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for entry in &self.entries {
            writeln!(f, "{}", serde_json::to_string_pretty(entry).map_err(|_| fmt::Error)?)?;
        }
        Ok(())
    }
}

/// For reading only: nothing is verified, and the output says so.
fn show(file: &Path, output: Output) -> anyhow::Result<()> {
    let entries = bundle(file)?
        .entries()
        .iter()
        .map(|entry| {
            let checkpoint = entry.proof.checkpoint().checkpoint();
            Ok(serde_json::json!({
                "verified": false,
                "statement": entry.envelope.id().to_string(),
                "log": checkpoint.origin().to_string(),
                "size": checkpoint.size().get(),
                "index": entry.proof.index().get(),
                "signers": entry.envelope.signatures().iter().map(|it| it.key.to_string()).collect::<Vec<_>>(),
                "payload": serde_json::from_slice::<serde_json::Value>(entry.envelope.payload())?,
            }))
        })
        .collect::<anyhow::Result<_>>()?;
    output.print(&Shown { entries })
}
