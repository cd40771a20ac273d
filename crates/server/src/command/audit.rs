//! `clerestory audit`: watches the logs of a policy, or verifies a proof of misbehaviour.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use log::{MAX_MISBEHAVIOUR_BYTES, Misbehaviour};
use serde::Serialize;
use stdx::SystemClock;
use tlog::VerifierKey;
use verify::TrustedPolicy;

use crate::audit::{AuditState, audit};
use crate::command::trust::TrustArguments;
use crate::command::{Output, block_on, read_limited};
use crate::failure::Failure;

/// Audit the logs of a policy, or verify a proof of misbehaviour
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    trust: TrustArguments,
    /// Where the last checkpoint of each log is kept; without it nothing is compared with before
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Where proofs of misbehaviour go
    #[arg(long, value_name = "DIR", default_value = ".")]
    proofs: PathBuf,
    /// Audit again and again, until something is found
    #[arg(long)]
    continuous: bool,
    /// Seconds from one audit to the next
    #[arg(long, default_value_t = 60, requires = "continuous", value_parser = clap::value_parser!(u64).range(1..))]
    interval_s: u64,
    /// Verify this proof of misbehaviour instead; nothing is fetched
    #[arg(long, value_name = "FILE", conflicts_with_all = ["state", "continuous"])]
    proof: Option<PathBuf>,
    /// The key of the log that a proof is about, if not a policy's
    #[arg(long, value_name = "VKEY", requires = "proof")]
    log_key: Option<VerifierKey>,
}

/// # Errors
/// When something is wrong with a log (exit code 1), or a log can't be reached (75).
pub fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    if let Some(file) = &arguments.proof {
        return verify_proof(file, arguments, output);
    }
    let policy = arguments.trust.load()?;
    block_on(async {
        loop {
            once(&policy, arguments, output).await?;
            if !arguments.continuous {
                return Ok(());
            }
            tokio::select! {
                stopped = tokio::signal::ctrl_c() => return Ok(stopped?),
                () = tokio::time::sleep(Duration::from_secs(arguments.interval_s)) => {}
            }
        }
    })
}

async fn once(policy: &TrustedPolicy, arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let mut state = arguments.state.as_deref().map(AuditState::load).transpose()?.unwrap_or_default();
    let audited = audit(policy, &mut state, &arguments.proofs, &SystemClock::new()).await;
    let report = match audited {
        // A log that is away now may be back at the next round, which says so if it is not.
        Err(error) if arguments.continuous => {
            tracing::warn!("{error:#}");
            return Ok(());
        }
        audited => audited?,
    };
    if let Some(path) = &arguments.state {
        state.save(path)?;
    }
    output.print(&report)?;
    match report.count() {
        0 => Ok(()),
        count => Err(Failure::refused(format!("{count} findings"))
            .hint("publish the proofs; anybody can check them with `clerestory audit --proof FILE --log-key VKEY`")
            .into()),
    }
}

/// A proof that holds.
#[derive(Debug, Serialize)]
struct Proven {
    origin: String,
    sizes: [u64; 2],
    roots: [String; 2],
}

impl fmt::Display for Proven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([one, other], [first, second]) = (&self.sizes, &self.roots);
        writeln!(f, "proven: `{}` signed two checkpoints that can't both be true", self.origin)?;
        writeln!(f, "  {one} entries, root {first}")?;
        write!(f, "  {other} entries, root {second}")
    }
}

fn verify_proof(file: &Path, arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let bytes = read_limited(file, MAX_MISBEHAVIOUR_BYTES)?;
    let proof = Misbehaviour::parse(&bytes).with_context(|| format!("`{}`", file.display()))?;
    let [first, second] = proof.checkpoints();
    let origin = first.checkpoint().origin().clone();
    let key = match &arguments.log_key {
        Some(key) => key.clone(),
        None => {
            let policy =
                arguments.trust.load().context("a proof needs the log's key (`--log-key VKEY`) or a policy")?;
            let log = policy.witnessing().logs().iter().find(|log| origin.is(log.key.name()));
            log.ok_or_else(|| Failure::refused(format!("the policy has no log `{origin}`")))?.key.clone()
        }
    };
    proof.verify(&key).with_context(|| format!("`{}` proves nothing", file.display()))?;
    output.print(&Proven {
        origin: origin.to_string(),
        sizes: [first, second].map(|signed| signed.checkpoint().size().get()),
        roots: [first, second].map(|signed| signed.checkpoint().root().to_string()),
    })
}
