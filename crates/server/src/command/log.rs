//! `clerestory log`: make a log, append to it, read it.

use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use api::{Appended, BodyLimit, path};
use attest::Envelope;
use clap::{Args, Subcommand};
use log::{Log, Reader};
use serde::Serialize;
use stdx::durable;
use tlog::{EntryIndex, LogProof, MAX_ENTRY_BYTES, MAX_LOG_PROOF_BYTES, leaf_hash};

use crate::command::trust::{LogArguments, LogAt};
use crate::command::{Output, block_on, check_config, read_limited};
use crate::failure::Failure;
use crate::serve;

/// A proof escaped into JSON, and an index.
const APPENDED_BYTES_MAX: BodyLimit = BodyLimit(2 * MAX_LOG_PROOF_BYTES as u64 + 1024);

/// Entries that are printed at most.
const PRINTED_MAX: u64 = 10_000;

/// Make a log, append to it, read it
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the log of a configuration, once; `serve` opens it
    Create {
        /// A vendor's or supervisor's configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Append an envelope and wait until it is witnessed
    Append {
        #[command(flatten)]
        log: LogArguments,
        /// Where the proof goes (C2SP tlog-proof)
        #[arg(long, value_name = "FILE")]
        proof: Option<PathBuf>,
        /// The envelope, in canonical form
        #[arg(value_name = "ENVELOPE")]
        envelope: PathBuf,
    },
    /// Prove that an entry is in the log, under the published checkpoint (C2SP tlog-proof)
    Proof {
        #[command(flatten)]
        log: LogArguments,
        /// The entry
        #[arg(long)]
        index: EntryIndex,
    },
    /// Show the published checkpoint and who cosigned it
    Checkpoint {
        #[command(flatten)]
        log: LogArguments,
    },
    /// List entries
    Entries {
        #[command(flatten)]
        log: LogArguments,
        /// The first entry
        #[arg(long, default_value = "0", value_name = "INDEX")]
        from: EntryIndex,
        /// How many at most
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=PRINTED_MAX))]
        count: u64,
    },
}

/// # Errors
/// When the log refuses, can't be reached, or is not what the policy says.
pub fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    block_on(async {
        match &arguments.command {
            Command::Create { config } => create(config).await,
            Command::Append { log, proof, envelope } => append(log, proof.as_deref(), envelope, output).await,
            Command::Proof { log, index } => prove(log, *index, output).await,
            Command::Checkpoint { log } => checkpoint(log, output).await,
            Command::Entries { log, from, count } => entries(log, *from, *count, output).await,
        }
    })
}

async fn create(path: &Path) -> anyhow::Result<()> {
    let config = check_config::load(path)?;
    let section = config.log().ok_or_else(|| Failure::usage(format!("a {} keeps no log", config.role())))?;
    let policy = serve::policy(&config)?;
    let parts = serve::log_parts(section, &config, &policy).await?;
    Log::create(&parts).await.context("no log was made")
}

/// An entry's place, and who saw it there.
#[derive(Debug, Serialize)]
struct Recorded {
    index: EntryIndex,
    id: String,
    #[serde(skip)]
    time: String,
    cosigned_by: Vec<String>,
    proof: String,
}

impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry {} ({}), cosigned at {} by {}", self.index, self.id, self.time, self.cosigned_by.join(", "))
    }
}

async fn append(
    arguments: &LogArguments,
    proof_file: Option<&Path>,
    file: &Path,
    output: Output,
) -> anyhow::Result<()> {
    let (policy, log) = arguments.load()?;
    let bytes = read_limited(file, MAX_ENTRY_BYTES)?;
    let envelope = Envelope::parse(&bytes).with_context(|| format!("`{}` is no envelope", file.display()))?;
    let (client, url, body) = (log.client.clone(), log.url.join(path::ENTRIES), bytes.clone());
    let answer = tokio::task::spawn_blocking(move || client.post(&url, &body, APPENDED_BYTES_MAX)).await??;
    let appended: Appended = serde_json::from_slice(&answer).context("the log's answer can't be read")?;
    let proof = LogProof::parse(&appended.proof).context("the log's answer is no proof")?;
    // The log's word counts for nothing: its proof does, under the policy.
    let cosigned = proof.verify(&leaf_hash(&bytes), policy.witnessing()).context("the log's proof does not hold")?;
    if !log.origin.is(&proof.checkpoint().checkpoint().origin().clone().into()) {
        return Err(Failure::refused("the log's proof is another log's").into());
    }
    if let Some(path) = proof_file {
        durable::write(path, appended.proof.as_bytes()).with_context(|| format!("can't write `{}`", path.display()))?;
    }
    output.print(&Recorded {
        index: proof.index(),
        id: envelope.id().to_string(),
        time: cosigned.time.to_string(),
        cosigned_by: cosigned.by.iter().map(ToString::to_string).collect(),
        proof: appended.proof,
    })
}

/// A proof, printed as it is.
#[derive(Debug, Serialize)]
struct Proof {
    proof: String,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.proof)
    }
}

async fn prove(arguments: &LogArguments, index: EntryIndex, output: Output) -> anyhow::Result<()> {
    let (policy, log) = arguments.load()?;
    let checkpoint = log.checkpoint().await?;
    policy.witnessing().verify_checkpoint(&checkpoint).context("the published checkpoint is not enough")?;
    let (_, path) = reader(&log, &checkpoint).inclusion(index).await?;
    output.print(&Proof { proof: LogProof::new(index, path, checkpoint).to_string() })
}

fn reader(log: &LogAt, checkpoint: &tlog::SignedCheckpoint) -> Reader {
    Reader::new(log.source(), *checkpoint.checkpoint().head())
}

/// A published checkpoint.
#[derive(Debug, Serialize)]
struct Published {
    origin: String,
    size: u64,
    root: String,
    time: String,
    cosigned_by: Vec<String>,
    note: String,
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} has {} entries, root {}", self.origin, self.size, self.root)?;
        write!(f, "cosigned at {} by {}", self.time, self.cosigned_by.join(", "))
    }
}

async fn checkpoint(arguments: &LogArguments, output: Output) -> anyhow::Result<()> {
    let (policy, log) = arguments.load()?;
    let signed = log.checkpoint().await?;
    let cosigned = policy.witnessing().verify_checkpoint(&signed).context("the published checkpoint is not enough")?;
    let checkpoint = signed.checkpoint();
    output.print(&Published {
        origin: checkpoint.origin().to_string(),
        size: checkpoint.size().get(),
        root: checkpoint.root().to_string(),
        time: cosigned.time.to_string(),
        cosigned_by: cosigned.by.iter().map(ToString::to_string).collect(),
        note: signed.to_string(),
    })
}

/// Entries, as they claim to be: their signatures are not checked here (`audit` does that).
#[derive(Debug, Serialize)]
struct Listed {
    origin: String,
    size: u64,
    entries: Vec<ListedEntry>,
}

#[derive(Debug, Serialize)]
struct ListedEntry {
    index: u64,
    id: Option<String>,
    #[serde(rename = "type")]
    entry_type: String,
    signers: Vec<String>,
    statement: serde_json::Value,
}

impl ListedEntry {
    fn of(index: EntryIndex, bytes: &[u8]) -> Self {
        let Ok(envelope) = Envelope::parse(bytes) else {
            let statement = serde_json::Value::Null;
            let entry_type = "not an envelope".to_owned();
            return Self { index: index.get(), id: None, entry_type, signers: Vec::new(), statement };
        };
        Self {
            index: index.get(),
            id: Some(envelope.id().to_string()),
            entry_type: envelope.claimed_type().unwrap_or_default(),
            signers: envelope.signatures().iter().map(|signature| signature.key.to_string()).collect(),
            statement: serde_json::from_slice(envelope.payload()).unwrap_or_default(),
        }
    }
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} has {} entries", self.origin, self.size)?;
        for entry in &self.entries {
            let short = entry.entry_type.strip_prefix(attest::TYPE_BASE).unwrap_or(&entry.entry_type);
            let id: String = entry.id.as_deref().unwrap_or("-").chars().take(12).collect();
            writeln!(f, "{:>8}  {id:<12}  {short:<16}  {}", entry.index, entry.signers.join(", "))?;
        }
        Ok(())
    }
}

async fn entries(arguments: &LogArguments, from: EntryIndex, count: u64, output: Output) -> anyhow::Result<()> {
    let (policy, log) = arguments.load()?;
    let checkpoint = log.checkpoint().await?;
    policy.witnessing().verify_checkpoint(&checkpoint).context("the published checkpoint is not enough")?;
    let mut entries = Vec::new();
    let range = from..EntryIndex::new(from.get().saturating_add(count));
    reader(&log, &checkpoint)
        .entries(range, &mut |index, bytes| {
            entries.push(ListedEntry::of(index, bytes));
            ControlFlow::Continue(())
        })
        .await?;
    output.print(&Listed { origin: log.origin.to_string(), size: checkpoint.checkpoint().size().get(), entries })
}
