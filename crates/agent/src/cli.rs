//! The command line.

use std::path::PathBuf;

use attest::{HostId, StatementId};
use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::sharing::ShareCommand;

/// Keep this machine's products up to date, as far as the evidence allows
#[derive(Debug, Parser)]
#[command(
    name = "clerestory-agent",
    version,
    after_help = "Exit codes: 0 done, 1 refused or switched off, 2 wrong usage, 75 try again."
)]
pub(crate) struct Arguments {
    /// The owner's configuration
    #[arg(long, global = true, value_name = "FILE", default_value = "/etc/clerestory/agent.toml")]
    pub(crate) config: PathBuf,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// `clerestory-agent canary`.
#[derive(Debug, Subcommand)]
pub(crate) enum CanaryCommand {
    /// Agree that this host goes first, and sign that with a key of its own
    Agree {
        /// What the host is to be called
        host: HostId,
        /// For how many days
        #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=3650))]
        days: u64,
    },
    /// Take down the statement by which the supervisor has enrolled this host
    Enrolled {
        /// What `clerestory rules enrol` printed
        statement: StatementId,
    },
    /// Go first no more: the key is destroyed
    Leave,
    /// Show the agreement
    Status,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Set this machine up to trust the policy with this hash
    Init {
        /// SHA-256 that identifies the genesis policy; get it from another channel than the policy
        #[arg(long, value_name = "HASH")]
        policy_hash: StatementId,
        /// The genesis policy's envelope
        #[arg(long, value_name = "FILE")]
        policy: PathBuf,
    },
    /// Take in what is new, once
    Update,
    /// Show what is installed, and how fresh the evidence is
    Status,
    /// See whether products work; put the previous release back after a crash loop
    Check,
    /// Update from a file, without a network
    Import {
        /// The export of a channel
        file: PathBuf,
    },
    /// Say what is known of a file
    Lookup {
        /// A file, or a SHA-256
        #[arg(value_name = "FILE|SHA256")]
        target: String,
    },
    /// Share what you agree to, and see every byte of it
    #[command(subcommand)]
    Share(ShareCommand),
    /// Look into files with the rules in use; the exit codes are those of clerestory-scan
    Scan {
        /// Files and folders, with all below them; `-` is standard input
        #[arg(value_name = "PATH", required = true)]
        paths: Vec<PathBuf>,
    },
    /// Say who wrote a rule that is in use, what it collects, and which logged release brought it
    Rule {
        /// Its name
        name: String,
    },
    /// Go first with new rules, and report how they fare
    #[command(subcommand)]
    Canary(CanaryCommand),
    /// Update, check, and scan what changes, again and again
    Run,
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Write man pages
    Man {
        /// Where to
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}
