//! `clerestory data`: whose data lies where, who may read it, and what stops them.

mod accesses;
mod approve;
pub(crate) mod ask;
mod compact;
mod enrol;
mod erase;
mod keys;
mod query;
mod redact;
mod regions;
mod report;
mod request;
mod requests;
mod retire;
mod stop;
mod subject;

use std::path::PathBuf;

use attest::BundleEntry;
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::command::Output;

/// Data that nobody opens without an entry.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Ask to read something
    Request(request::Arguments),
    /// Show how requests stand: those that broke the glass first
    Requests(requests::Arguments),
    /// Agree that something is read
    Approve(approve::Arguments),
    /// Read what was asked for and approved
    Query(query::Arguments),
    /// Have what endpoints sealed written anew in columns, sealed as before
    Compact(compact::Arguments),
    /// Show who read what, and what is missing
    Accesses(Box<accesses::Arguments>),
    /// Show who has read what you have sent
    Subject(subject::Arguments),
    /// Delete private parts of access statements, once enough others have agreed
    Redact(redact::Arguments),
    /// Show which country's data lies where, under whose keys until when, and how much of it
    Regions(regions::Arguments),
    /// Make a custodian's next keys for its regions, and print what the policy needs
    Keys(keys::Arguments),
    /// Destroy a custodian's keys whose time is over, after moving what still counts into its own table
    Retire(Common),
    /// Log what a custodian has opened, now
    Report(Common),
    /// Stop a region, or a part of it: no custodian opens anything there any more
    Stop(stop::Arguments),
    /// Lift a stop
    Resume(stop::Arguments),
    /// Erase what its owner wants gone, and give the owner what custodians and log say of it
    Erase(erase::Arguments),
    /// Let a host have workers, after a ceremony
    Enrol(enrol::Arguments),
}

/// Arguments of every subcommand.
#[derive(Debug, Args)]
pub struct Common {
    /// The configuration of the role that does it
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// # Errors
/// Why it did not do what was asked.
pub fn run(command: &Command, output: Output) -> anyhow::Result<()> {
    match command {
        Command::Request(arguments) => request::run(arguments, output),
        Command::Requests(arguments) => requests::run(arguments, output),
        Command::Approve(arguments) => approve::run(arguments, output),
        Command::Query(arguments) => query::run(arguments, output),
        Command::Compact(arguments) => compact::run(arguments, output),
        Command::Accesses(arguments) => accesses::run(arguments, output),
        Command::Subject(arguments) => subject::run(arguments, output),
        Command::Redact(arguments) => redact::run(arguments, output),
        Command::Regions(arguments) => regions::run(arguments, output),
        Command::Keys(arguments) => keys::run(arguments, output),
        Command::Retire(common) => retire::run(common, output),
        Command::Report(common) => report::run(common, output),
        Command::Stop(arguments) => stop::run(arguments, stop::Wish::Stop, output),
        Command::Resume(arguments) => stop::run(arguments, stop::Wish::Resume, output),
        Command::Erase(arguments) => erase::run(arguments, output),
        Command::Enrol(arguments) => enrol::run(arguments, output),
    }
}

/// What was logged.
#[derive(Debug, Serialize)]
struct Logged {
    statement: String,
    index: u64,
}

impl Logged {
    fn of(entry: &BundleEntry) -> Self {
        Self { statement: entry.envelope.id().to_string(), index: entry.proof.index().get() }
    }
}

impl std::fmt::Display for Logged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "statement {}, entry {} of its log", self.statement, self.index)
    }
}
