//! One file for a subcommand.

pub mod check_config;
pub mod init;
pub mod key;
pub mod serve;

use std::fmt::Display;
use std::future::Future;
use std::io::Write as _;

use anyhow::Context as _;
use serde::Serialize;

use crate::cli::{Cli, Command, LogFormat, OutputArguments};

/// Runs a command line to its end.
///
/// # Errors
/// Why it did not do what was asked; `failure::report` prints it.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    start_tracing(cli.output.log_format);
    let output = Output::of(cli.output);
    match cli.command {
        Command::Init(arguments) => init::run(&arguments, output),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::CheckConfig(arguments) => check_config::run(&arguments, output),
        Command::Key(arguments) => key::run(&arguments, output),
    }
}

/// Prints data on standard output.
#[derive(Clone, Copy, Debug)]
pub enum Output {
    /// For people.
    Text,
    /// For machines.
    Json,
}

impl Output {
    const fn of(arguments: OutputArguments) -> Self {
        if arguments.json { Self::Json } else { Self::Text }
    }

    /// Prints `data` and a newline.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn print<T: Serialize + Display>(self, data: &T) -> anyhow::Result<()> {
        let text = match self {
            Self::Text => data.to_string(),
            Self::Json => serde_json::to_string(data)?,
        };
        write_line(text.trim_end_matches('\n'))
    }
}

/// Prints a line on standard output.
pub(crate) fn write_line(line: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).context("can't write to standard output")
}

/// Runs `work` on a runtime of its own.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("can't start the runtime")?.block_on(work)
}

/// Log lines go to standard error; `RUST_LOG` chooses which.
fn start_tracing(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(tracing_subscriber::filter::LevelFilter::INFO.into())
        .from_env_lossy();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second start (in tests) changes nothing.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
