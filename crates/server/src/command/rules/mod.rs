//! `clerestory rules`: detection rules, and the hosts that get them first.

mod canary;

use clap::Subcommand;

use crate::command::Output;

/// What rules and canaries go through.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sign the agreement that a host of yours goes first, with the host's key
    Agree(canary::AgreeArguments),
    /// Enrol a host whose owner has agreed, as the supervisor
    Enrol(canary::EnrolArguments),
    /// End a host's enrolment, as the supervisor
    Dismiss(canary::DismissArguments),
    /// Show the hosts that are enrolled, as the supervisor
    Hosts(canary::Common),
}

/// Runs the command.
///
/// # Errors
/// Why it did not do what was asked.
pub fn run(command: &Command, output: Output) -> anyhow::Result<()> {
    match command {
        Command::Agree(arguments) => canary::agree(arguments, output),
        Command::Enrol(arguments) => canary::enrol(arguments, output),
        Command::Dismiss(arguments) => canary::dismiss(arguments, output),
        Command::Hosts(common) => canary::hosts(common, output),
    }
}
