//! `clerestory`: parse, run, print the error and its hint, exit.

use std::process::ExitCode;

use clap::Parser as _;
use server::cli::Cli;
use server::{command, failure};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match command::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}
