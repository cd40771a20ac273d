//! `clerestory rules`: detection rules, and the hosts that get them first.

mod canary;
mod tree;

use clap::Subcommand;

use crate::command::Output;

/// What rules and canaries go through.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Assemble a tree here, and say which lane it may take
    Check(tree::CheckArguments),
    /// Have both assemble a tree, and release what is fit for the fast lane to the canaries
    Push(tree::PushArguments),
    /// Show what changes from one tree to another, by rule and by behaviour
    Diff(tree::DiffArguments),
    /// Try a tree on the corpora that its settings name
    Test(tree::TestArguments),
    /// Print the digest of a folder of samples, for rules.toml
    Corpus(tree::CorpusArguments),
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
        Command::Check(arguments) => tree::check(arguments, output),
        Command::Push(arguments) => tree::push(arguments, output),
        Command::Diff(arguments) => tree::differ(arguments, output),
        Command::Test(arguments) => tree::test(arguments, output),
        Command::Corpus(arguments) => tree::corpus(arguments, output),
        Command::Agree(arguments) => canary::agree(arguments, output),
        Command::Enrol(arguments) => canary::enrol(arguments, output),
        Command::Dismiss(arguments) => canary::dismiss(arguments, output),
        Command::Hosts(common) => canary::hosts(common, output),
    }
}
