//! One file for a subcommand.

pub mod assembly;
pub mod audit;
pub mod backup;
pub mod check_config;
pub mod cloud;
pub mod data;
pub mod demo;
pub mod fsck;
pub mod init;
pub mod key;
pub mod log;
pub mod policy;
pub mod release;
pub mod rules;
pub mod serve;
pub mod shell;
pub mod status;
pub mod trust;
pub mod witness;

use std::fmt::Display;
use std::future::Future;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use crate::cli::{Cli, Command, LogFormat, OutputArguments};
use crate::failure::Failure;

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
        Command::Policy(arguments) => policy::run(&arguments, output),
        Command::Log(arguments) => log::run(&arguments, output),
        Command::Backup(command) => backup::run(&command, output),
        Command::Fsck(arguments) => fsck::run(&arguments, output),
        Command::Audit(arguments) => audit::run(&arguments, output),
        Command::Assembly(command) => assembly::run(&command, output),
        Command::Release(command) => release::run(&command, output),
        Command::Rules(command) => rules::run(&command, output),
        Command::Status(command) => status::run(&command, output),
        Command::Data(command) => data::run(&command, output),
        Command::Cloud(command) => cloud::run(&command, output),
        Command::Witness(command) => witness::run(&command, output),
        Command::Demo(arguments) => demo::run(&arguments, output),
        Command::Completions(arguments) => shell::completions(&arguments),
        Command::Man(arguments) => shell::man(&arguments),
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

/// Reads a file that is at most so long.
///
/// # Errors
/// When it can't be read, or is longer.
pub(crate) fn read_limited(path: &Path, limit: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(limit as u64 + 1).read_to_end(&mut bytes));
    read.with_context(|| format!("can't read `{}`", path.display()))?;
    if bytes.len() > limit {
        return Err(Failure::refused(format!("`{}` is longer than {limit} bytes", path.display())).into());
    }
    Ok(bytes)
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
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal());
    // A second start (in tests) changes nothing.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
