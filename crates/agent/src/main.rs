//! The executable: parses, calls the endpoint, prints.

mod cli;
mod progress;
mod sharing;

use std::fs::File;
use std::io::{BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use agent::{Config, Endpoint, Failure, Genesis, Ports, RealDisk, Report};
use anyhow::Context as _;
use api::Client;
use clap::{CommandFactory as _, Parser as _};
use stdx::SystemClock;

use crate::cli::{Arguments, Command};
use crate::progress::Bar;

/// A policy's envelope is a log entry.
const POLICY_BYTES_MAX: u64 = attest::ENVELOPE_BYTES_MAX as u64 + 1;

/// The configuration's own limit lies below this.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            match error.downcast_ref::<Failure>() {
                Some(failure) => {
                    eprintln!("hint: {}", failure.hint);
                    ExitCode::from(failure.class.exit_code())
                }
                None => {
                    eprintln!("hint: correct the file or value named above");
                    ExitCode::FAILURE
                }
            }
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    match &arguments.command {
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Arguments::command(), "clerestory-agent", &mut std::io::stdout());
            return Ok(0);
        }
        Command::Man { folder } => {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
            clap_mangen::generate_to(Arguments::command(), folder)?;
            return Ok(0);
        }
        _ => {}
    }
    let config = load(&arguments.config)?;
    let (clock, bar) = (SystemClock::new(), Bar::default());
    let client = Client::new(Duration::from_secs(config.network.timeout_s));
    let ports = Ports { clock: &clock, disk: &RealDisk, progress: &bar, client: &client };
    match &arguments.command {
        Command::Init { policy_hash, policy } => {
            let envelope = read(policy, POLICY_BYTES_MAX)?;
            Endpoint::init(&config, ports, Genesis { id: policy_hash, envelope: &envelope })?;
            print(arguments, &serde_json::json!({"initialised": policy_hash}), "this machine trusts the policy now")
        }
        Command::Update => show(arguments, &Endpoint::open(&config, ports)?.update()?),
        Command::Check => show(arguments, &Endpoint::open(&config, ports)?.check()?),
        Command::Import { file } => {
            let input = File::open(file).with_context(|| file.display().to_string())?;
            show(arguments, &Endpoint::open(&config, ports)?.import(BufReader::new(input))?)
        }
        Command::Status => {
            let status = Endpoint::read(&config, ports)?.status()?;
            let text = status.to_string();
            print(arguments, &serde_json::to_value(&status)?, text.trim_end())?;
            Ok(status.exit_code())
        }
        Command::Lookup { target } => sharing::lookup(arguments, &config, ports, target),
        Command::Share(command) => sharing::share(arguments, &config, ports, command),
        Command::Run => keep_running(arguments, &config, ports),
        Command::Completions { .. } | Command::Man { .. } => Ok(0),
    }
}

/// Updates and checks for ever. A failure is reported and tried again; what is installed stays.
fn keep_running(arguments: &Arguments, config: &Config, ports: Ports<'_>) -> anyhow::Result<u8> {
    // What can't ever work ends at once.
    Endpoint::read(config, ports)?;
    loop {
        let done = Endpoint::open(config, ports).and_then(|mut endpoint| {
            let mut report = endpoint.update()?;
            let checked = endpoint.check()?;
            report.changes.extend(checked.changes);
            report.failures.extend(checked.failures);
            Ok(report)
        });
        match done {
            Ok(report) => drop(show(arguments, &report)?),
            Err(failure) => eprintln!("error: {failure}\nhint: {}", failure.hint),
        }
        if let Err(failure) = sharing::send_in_passing(config, ports) {
            eprintln!("error: {failure}\nhint: {}", failure.hint);
        }
        std::thread::sleep(Duration::from_secs(config.interval_s));
    }
}

fn show(arguments: &Arguments, report: &Report) -> anyhow::Result<u8> {
    let mut lines: Vec<String> = report.changes.iter().map(ToString::to_string).collect();
    if lines.is_empty() && report.failures.is_empty() {
        lines.push("nothing new".to_owned());
    }
    print(arguments, &serde_json::to_value(report)?, &lines.join("\n"))?;
    for failure in &report.failures {
        eprintln!("error: {}: {failure}\nhint: {}", failure.code, failure.hint);
    }
    Ok(report.exit_code())
}

fn print(arguments: &Arguments, json: &serde_json::Value, text: &str) -> anyhow::Result<u8> {
    let mut stdout = std::io::stdout().lock();
    match (arguments.json, text) {
        (true, _) => writeln!(stdout, "{json}")?,
        (false, "") => {}
        (false, text) => writeln!(stdout, "{text}")?,
    }
    stdout.flush()?;
    Ok(0)
}

fn load(path: &Path) -> anyhow::Result<Config> {
    let text = String::from_utf8(read(path, CONFIG_BYTES_MAX)?).with_context(|| path.display().to_string())?;
    Config::parse(&text).with_context(|| path.display().to_string())
}

fn read(path: &Path, limit: u64) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    read.with_context(|| path.display().to_string())?;
    Ok(bytes)
}
