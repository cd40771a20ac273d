//! `clerestory witness`: what a witness knows besides what it serves.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use log::Misbehaviour;
use serde::Serialize;
use tlog::{SignedCheckpoint, VerifierKey};
use witness::{Evidence, Witness};

use crate::audit::keep;
use crate::command::{Output, block_on, check_config};
use crate::config::Config;
use crate::failure::Failure;
use crate::serve;
use crate::stores::State;

/// What a witness knows.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show whether a log signed two trees of one size, and write the proof that strangers can verify
    Evidence(EvidenceArguments),
}

/// Arguments of `witness evidence`.
#[derive(Debug, Args)]
pub struct EvidenceArguments {
    /// The witness's configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where proofs of misbehaviour go
    #[arg(long, value_name = "DIR", default_value = ".")]
    proofs: PathBuf,
}

/// What is known of every log.
#[derive(Debug, Serialize)]
struct Report {
    /// How many logs are witnessed.
    logs: usize,
    /// Those that forked.
    forks: Vec<Fork>,
}

#[derive(Debug, Serialize)]
struct Fork {
    origin: String,
    size: u64,
    /// The one that this witness cosigned first.
    roots: [String; 2],
    /// Both checkpoints as they were signed, cosignature included.
    checkpoints: [String; 2],
    proof: PathBuf,
    /// The key that signed both, which a stranger needs.
    log_key: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fork in &self.forks {
            let (Fork { origin, size, proof, log_key, .. }, [cosigned, other]) = (fork, &fork.roots);
            writeln!(f, "{origin}: signed two trees of {size} entries")?;
            writeln!(f, "  cosigned  root {cosigned}")?;
            writeln!(f, "  refused   root {other}")?;
            writeln!(f, "  proof     clerestory audit --proof {} --log-key {log_key}", proof.display())?;
        }
        write!(f, "{} logs witnessed, {} signed two trees of one size", self.logs, self.forks.len())
    }
}

/// Runs the command. It may run beside the server.
///
/// # Errors
/// When a log has forked (exit code 1), or the store can't be read.
pub fn run(command: &Command, output: Output) -> anyhow::Result<()> {
    let Command::Evidence(arguments) = command;
    let config = check_config::load(&arguments.config)?;
    let report = block_on(evidence(&config, &arguments.proofs))?;
    output.print(&report)?;
    match report.forks.len() {
        0 => Ok(()),
        count => Err(Failure::refused(format!("{count} logs forked"))
            .hint("publish the proofs; that log's key is finished: stop its lane, then a new log and a new policy")
            .into()),
    }
}

async fn evidence(config: &Config, proofs: &Path) -> anyhow::Result<Report> {
    let Config::Witness(section) = config else {
        return Err(Failure::usage(format!("a {} is no witness", config.role())).into());
    };
    let state = State::open(config).await?;
    let witness = Witness::new(serve::witness_parts(section, state.locks())?)?;
    let mut report = Report { logs: 0, forks: Vec::new() };
    for origin in witness.origins() {
        report.logs += 1;
        if let Some(found) = witness.evidence(origin).await? {
            let keys = section.logs.iter().filter(|key| origin.is(key.name()));
            report.forks.push(fork(&found, keys, proofs)?);
        }
    }
    state.close().await;
    Ok(report)
}

/// One key must have signed both: two of a log's keys that disagree are no proof to a stranger.
fn fork<'a>(
    evidence: &Evidence,
    mut keys: impl Iterator<Item = &'a VerifierKey>,
    proofs: &Path,
) -> anyhow::Result<Fork> {
    let pair = [&evidence.cosigned, &evidence.other];
    let checkpoint = evidence.cosigned.checkpoint();
    let proven = keys.find_map(|key| Some((key, Misbehaviour::same_size(pair.map(Clone::clone), key).ok()?)));
    let (key, proof) = proven.with_context(|| {
        format!("what is kept against `{}` proves nothing: no key of that log signed both trees", checkpoint.origin())
    })?;
    Ok(Fork {
        origin: checkpoint.origin().to_string(),
        size: checkpoint.size().get(),
        roots: pair.map(|signed| signed.checkpoint().root().to_string()),
        checkpoints: pair.map(SignedCheckpoint::to_string),
        proof: keep(proofs, &proof.to_string())?,
        log_key: key.to_string(),
    })
}
