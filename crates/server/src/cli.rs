//! The command line: one variant, and one file under `command/`, for a subcommand.

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::command;

/// Proves, instead of promising, what is built and shipped.
///
/// Exit codes: 0 done, 1 refused or not verified, 2 usage, 75 try again later.
#[derive(Debug, Parser)]
#[command(name = "clerestory", version)]
pub struct Cli {
    /// How results are printed.
    #[command(flatten)]
    pub output: OutputArguments,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every subcommand.
#[derive(Clone, Copy, Debug, Args)]
pub struct OutputArguments {
    /// Print data as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// How log lines on standard error look
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the folder of a role: keys, stores and a configuration
    Init(command::init::Arguments),
    /// Run a role
    Serve(command::serve::Arguments),
    /// Check a configuration and the keys and policy that it names
    CheckConfig(command::check_config::Arguments),
    /// Make and show keys
    Key(command::key::Arguments),
    /// Draft, sign, assemble, show and check policies
    Policy(command::policy::Arguments),
    /// Make a log, append to it, read it
    Log(command::log::Arguments),
    /// Copy what may be restored, check copies, restore them
    #[command(subcommand)]
    Backup(command::backup::Command),
    /// Check everything that a role has stored
    Fsck(command::fsck::Arguments),
    /// Audit the logs of a policy, or verify a proof of misbehaviour
    Audit(Box<command::audit::Arguments>),
    /// Build, have rebuilt, compare, pin
    #[command(subcommand)]
    Assembly(command::assembly::Command),
    /// Approve, publish, promote
    #[command(subcommand)]
    Release(command::release::Command),
    /// Detection rules, and the hosts that get them first
    #[command(subcommand)]
    Rules(command::rules::Command),
    /// Revoke and stop, as the supervisor
    #[command(subcommand)]
    Status(command::status::Command),
    /// Regions, custodians, workers, and what is stopped
    #[command(subcommand)]
    Data(command::data::Command),
    /// What is made of what endpoints share
    #[command(subcommand)]
    Cloud(command::cloud::Command),
    /// Show what a witness keeps against a log
    #[command(subcommand)]
    Witness(command::witness::Command),
    /// Show the whole system on this machine, on real third-party source
    Demo(command::demo::Arguments),
    /// Print completions for a shell
    Completions(command::shell::CompletionsArguments),
    /// Write manual pages
    Man(command::shell::ManArguments),
}
