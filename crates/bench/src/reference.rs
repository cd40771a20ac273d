//! Reference processes: only what the measured one can't do without, and nothing of ours in it; and one that
//! says what another one took.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;

use anyhow::Context as _;
use stdx::Digest;

mod bare;
mod cost;
mod scan;

pub(crate) use cost::Cost;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Reads and hashes files
    Hash { files: Vec<PathBuf> },
    /// Gets paths over one connection, as plain as HTTP allows, into a file that is synced if there
    /// is one
    Get {
        #[arg(long)]
        to: Option<PathBuf>,
        address: String,
        paths: Vec<String>,
    },
    /// Runs a sandbox's job without the sandbox
    Bare { job: PathBuf },
    /// Runs a program and prints what it took
    Cost(cost::Arguments),
    /// Scans the files that standard input names, one a line, with the bare engine
    Scan { rules: PathBuf },
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.what {
        What::Hash { files } => {
            for file in files {
                println!("{}", Digest::of(&std::fs::read(file).with_context(|| format!("`{}`", file.display()))?));
            }
            Ok(())
        }
        What::Get { to, address, paths } => {
            let bytes = get(address, paths)?;
            let Some(to) = to else { return Ok(()) };
            let mut file = File::create(to)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            let folder = to.parent().context("a file lies in a folder")?;
            Ok(File::open(folder)?.sync_all()?)
        }
        What::Bare { job } => bare::run(job),
        What::Cost(arguments) => cost::run(arguments),
        What::Scan { rules } => scan::run(rules),
    }
}

/// The largest head of an answer that is read.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// The bodies, one after the other.
fn get(address: &str, paths: &[String]) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut bytes = Vec::new();
    let mut buffer = Vec::new();
    for path in paths {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())?;
        let head = loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break buffer.drain(..end + 4).collect::<Vec<u8>>();
            }
            anyhow::ensure!(buffer.len() <= HEAD_BYTES_MAX, "`{path}`: the answer's head does not end");
            more(&mut stream, &mut buffer)?;
        };
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        anyhow::ensure!(head.starts_with("http/1.1 200"), "`{path}`: {head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize =
            length.with_context(|| format!("`{path}`: the answer's length is not said"))?.trim().parse()?;
        while buffer.len() < length {
            more(&mut stream, &mut buffer)?;
        }
        bytes.extend(buffer.drain(..length));
    }
    Ok(bytes)
}

fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<()> {
    let mut chunk = [0; 64 << 10];
    let count = stream.read(&mut chunk)?;
    anyhow::ensure!(count > 0, "the connection ended");
    buffer.extend_from_slice(chunk.get(..count).unwrap_or_default());
    Ok(())
}
