//! `clerestory-query`: a worker, and what its ceremony needs to know.

use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use attest::{Bundle, DataClass};
use clap::{Parser, Subcommand};
use query::{Config, Host, HttpVault, Listen, Memory, Ports, Worker, confine, program_digest, router};
use stdx::{SystemClock, SystemEntropy};
use tlog::SignerKey;
use tokio::signal::unix::{SignalKind, signal};

/// Reads sealed data for queries that a log already has
#[derive(Parser)]
#[command(name = "clerestory-query", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answers a gateway until it is told to stop
    Serve {
        /// The worker's configuration
        #[arg(long)]
        config: PathBuf,
        /// Only reads it
        #[arg(long)]
        check_config: bool,
    },
    /// Prints the SHA-256 of this program, which an enrolment names
    Code,
    /// Prints the SHA-256 of what comes out of a query without values, which a standing request names
    Schema {
        /// The class that it reads
        #[arg(long)]
        class: DataClass,
        /// The query
        query: PathBuf,
    },
}

/// Two queries at once, each with as much memory as is configured.
const RUNS: u64 = 2;

fn main() -> ExitCode {
    // What a panic says may repeat what was read.
    std::panic::set_hook(Box::new(|panic| match panic.location() {
        Some(place) => eprintln!("error: panic at {}:{}", place.file(), place.line()),
        None => eprintln!("error: panic"),
    }));
    let done = match Arguments::parse().command {
        Command::Serve { config, check_config } => serve(&config, check_config),
        Command::Schema { class, query } => schema(&class, &query),
        Command::Code => program_digest().map(|digest| println!("{digest}")).map_err(Into::into),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            let hint = "docs/operators.md has a worker's configuration, and how a host is enrolled";
            eprintln!("hint: {hint}");
            ExitCode::from(if error.is::<query::ConfigError>() { 2 } else { 1 })
        }
    }
}

fn schema(class: &DataClass, path: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("can't read `{}`", path.display()))?;
    println!("{}", query::schema(class, text)?);
    Ok(())
}

fn serve(path: &Path, check_only: bool) -> anyhow::Result<()> {
    let config = Config::load(path)?;
    if check_only {
        return Ok(());
    }
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    // The link to the program can't be read any more once the process is confined.
    let code = program_digest().context("can't read this program")?;
    let memory = config.memory_mb << 20;
    confine(memory.saturating_mul(RUNS)).context("can't confine this process")?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("can't start the runtime")?;
    let done = runtime.block_on(work(&config, code, Memory(usize::try_from(memory)?)));
    runtime.shutdown_background();
    done
}

async fn work(config: &Config, code: stdx::Digest, memory: Memory) -> anyhow::Result<()> {
    let listener = bind(config)?;
    let text = std::fs::read_to_string(&config.host_key)
        .with_context(|| format!("can't read `{}`", config.host_key.display()))?;
    let key: SignerKey =
        text.trim_end().parse().with_context(|| format!("`{}` holds no signer key", config.host_key.display()))?;
    let bytes =
        std::fs::read(&config.enrolment).with_context(|| format!("can't read `{}`", config.enrolment.display()))?;
    let enrolment = Bundle::parse(&bytes).with_context(|| format!("`{}`", config.enrolment.display()))?;
    let host = Host { key, enrolment, region: config.region.clone(), code };
    let vault = Arc::new(HttpVault::new(config.vault.clone())?);
    let ports = Ports { clock: Arc::new(SystemClock::new()), entropy: Arc::new(SystemEntropy), vault };
    let worker = Worker::new(host, &config.policies, &config.genesis, memory, ports)?;
    tracing::info!(address = %listener.local_addr()?, "serving");
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stopped = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let worker = Arc::new(worker);
    let reading = Arc::clone(&worker);
    tokio::spawn(async move { reading.catch_up().await });
    axum::serve(listener, router(worker)).with_graceful_shutdown(stopped).await?;
    Ok(())
}

fn bind(config: &Config) -> anyhow::Result<tokio::net::TcpListener> {
    let listener = match config.listen().map_err(anyhow::Error::msg)? {
        Listen::Address(address) => TcpListener::bind(address).with_context(|| format!("can't listen on {address}"))?,
        Listen::Stdin => {
            let socket = std::io::stdin().as_fd().try_clone_to_owned().context("can't take over standard input")?;
            let listener = TcpListener::from(socket);
            listener.local_addr().context("standard input is no listening socket")?;
            listener
        }
    };
    listener.set_nonblocking(true)?;
    Ok(tokio::net::TcpListener::from_std(listener)?)
}
