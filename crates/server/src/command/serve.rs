//! `clerestory serve`: runs a role until it is told to stop.

use std::path::PathBuf;

use clap::Args;

use crate::command::check_config;

/// Run a role
#[derive(Debug, Args)]
pub struct Arguments {
    /// The configuration
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// # Errors
/// Why it did not start, or stopped by itself.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let config = check_config::load(&arguments.config)?;
    crate::process::run(&config)
}
