//! The executable: parses, calls the endpoint, prints.

mod cli;
mod progress;
mod scan;
mod sharing;

use std::fs::File;
use std::io::{BufReader, Read as _, Write as _};
use std::num::NonZeroU16;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use agent::{
    Ahead, Canary, Config, Endpoint, Failure, Findings, Gate, Genesis, Guard, Offer, Ports, RealDisk, Report, Told,
    Watch,
};
use anyhow::Context as _;
use api::Client;
use clap::{CommandFactory as _, Parser as _};
use stdx::{Clock as _, Entropy as _, SystemClock, SystemEntropy};

use crate::cli::{Arguments, CanaryCommand, Command};
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
    let gate = Gate::new(detection::Limits::new(threads()));
    let ports = Ports { clock: &clock, disk: &RealDisk, progress: &bar, client: &client, rules: &gate };
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
        Command::Scan { paths } => scan::scan(arguments, &config, ports, paths),
        Command::Rule { name } => {
            let origin = Endpoint::read(&config, ports)?.rule_origin(name)?;
            let text = origin.to_string();
            print(arguments, &serde_json::to_value(&origin)?, text.trim_end())
        }
        Command::Canary(command) => canary(arguments, &config, ports, command),
        Command::Run => keep_running(arguments, &config, ports),
        Command::Completions { .. } | Command::Man { .. } => Ok(0),
    }
}

/// As many files are scanned at a time as there are processors.
fn threads() -> NonZeroU16 {
    let all = std::thread::available_parallelism().ok().and_then(|count| NonZeroU16::try_from(count).ok());
    all.unwrap_or(NonZeroU16::MIN)
}

/// Updates, checks and scans for ever. A failure is reported and tried again; what is installed stays.
fn keep_running(arguments: &Arguments, config: &Config, ports: Ports<'_>) -> anyhow::Result<u8> {
    // What can't ever work ends at once.
    Endpoint::read(config, ports)?;
    let mut guard = Guard::start(config)?;
    let mut told = Told::default();
    let watch = Watch::start(config, ports.client)?;
    let mut news: Option<Ahead> = None;
    let clock = SystemClock::new();
    loop {
        let ahead = news.take().map(|files| ports.client.ahead(files));
        let known = Ports { client: ahead.as_ref().unwrap_or(ports.client), ..ports };
        let done = match agent::round(config, known, guard.as_mut(), told) {
            Ok(report) => {
                told = Told::default();
                show(arguments, &report)?;
                report.failures.is_empty()
            }
            // What was told is taken down next time.
            Err(failure) => {
                eprintln!("error: {failure}\nhint: {}", failure.hint);
                false
            }
        };
        if let Err(failure) = sharing::send_in_passing(config, ports) {
            eprintln!("error: {failure}\nhint: {}", failure.hint);
        }
        // What came meanwhile leads on from something else than what the round has found.
        news = watch.as_ref().and_then(|watch| watch.wait(Duration::ZERO)).map(|_| Ahead::new());
        // News are told once: what could not be done with them is tried once more.
        let pause = if done || ahead.is_none() { pause(config)? } else { AGAIN };
        let until = clock.monotonic().saturating_add(pause);
        let mut hand_on = |findings: &mut Findings| {
            if let Err(failure) = sharing::record(config, ports, findings) {
                eprintln!("error: {failure}\nhint: {}", failure.hint);
            }
        };
        loop {
            let left = until.saturating_sub(clock.monotonic());
            let (slice, before) = (left.min(LOOK), clock.monotonic());
            match (&guard, &watch) {
                (Some(guard), watch) => {
                    told = told.and(guard.wait(slice, &mut hand_on));
                    news = news.or_else(|| watch.as_ref()?.wait(Duration::ZERO));
                }
                (None, Some(watch)) => news = news.or_else(|| watch.wait(slice)),
                (None, None) => std::thread::sleep(slice),
            }
            // The engine has ended, or it is time.
            if told.crashes > 0 || news.is_some() || left <= LOOK || clock.monotonic().saturating_sub(before) < slice {
                break;
            }
            if sharing::waits(config)
                && let Err(failure) = sharing::send_in_passing(config, ports)
            {
                eprintln!("error: {failure}\nhint: {}", failure.hint);
            }
        }
    }
}

/// What waits to be shared is sent so soon, and beside a guard so soon it is seen that there is news.
const LOOK: Duration = Duration::from_secs(1);

/// After news that came to nothing.
const AGAIN: Duration = Duration::from_secs(5);

/// Up to a quarter less than configured, so that not all endpoints ask at the same time.
fn pause(config: &Config) -> anyhow::Result<Duration> {
    let mut random = [0];
    SystemEntropy.fill(&mut random)?;
    let [random] = random;
    let most = Duration::from_secs(config.interval_s);
    Ok(most - most / 4 / 255 * u32::from(random))
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

fn canary(arguments: &Arguments, config: &Config, ports: Ports<'_>, command: &CanaryCommand) -> anyhow::Result<u8> {
    let canary = Canary::new(config, ports);
    let status = match command {
        CanaryCommand::Agree { host, days } => {
            eprint!("{}", attest::Agreement::text());
            canary.agree(config, &Offer { host: host.clone(), days: *days }, &SystemEntropy)?
        }
        CanaryCommand::Enrolled { statement } => canary.enrolled(*statement)?,
        CanaryCommand::Status => canary.status()?,
        CanaryCommand::Leave => {
            canary.leave()?;
            let text =
                "the key is destroyed and nothing is reported any more; tell the supervisor, which dismisses the host";
            return print(arguments, &serde_json::json!({"left": true}), text);
        }
    };
    let text = status.to_string();
    print(arguments, &serde_json::to_value(&status)?, text.trim_end())
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
