//! The command line.

use std::num::NonZeroU16;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

/// Look for what detection rules describe, in files and in what they contain
#[derive(Debug, Parser)]
#[command(
    name = "clerestory-scan",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Exit codes: 0 nothing found, 1 something found, 2 wrong usage or rules that don't load, \
                  75 nothing found, but not everything could be looked at."
)]
pub(crate) struct Arguments {
    /// Files and folders, with all below them; `-` is standard input
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// The rules: YARA source. By default those that the agent keeps up to date
    #[arg(long, value_name = "FILE", default_value = "/opt/clerestory/rules/current/rules.yar")]
    pub(crate) rules: PathBuf,
    /// A set of known-bad files (`hashes.fuse`): contents that it may have are LISTED
    #[arg(long, value_name = "FILE")]
    pub(crate) set: Option<PathBuf>,
    /// How many files are looked at at the same time; by default one for each processor
    #[arg(long, value_name = "NUMBER")]
    pub(crate) threads: Option<NonZeroU16>,
    /// Enter other file systems that are mounted below a folder
    #[arg(long)]
    pub(crate) other_file_systems: bool,
    /// Print one JSON object a line: each file of which there is something to say, and a summary
    #[arg(long)]
    pub(crate) json: bool,
    /// Append the objects of files to this file, whatever is printed
    #[arg(long, value_name = "FILE")]
    pub(crate) json_to: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve requests on standard input: what this program starts to have files looked at
    #[command(hide = true)]
    Worker,
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
