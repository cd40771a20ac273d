//! `clerestory-agent scan`: the scanner's own front end, with the rules in use.

use std::io::{BufRead as _, BufReader, PipeReader};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use agent::{Body, Config, Endpoint, Findings, Ports};
use anyhow::Context as _;
use rustix::io::{FdFlags, fcntl_setfd};
use serde::Deserialize;
use stdx::Digest;

use crate::cli::Arguments;
use crate::sharing;

/// Has the scanner look at files with the rules in use; what it says and how it ends are the answer.
pub(crate) fn scan(arguments: &Arguments, config: &Config, ports: Ports<'_>, paths: &[PathBuf]) -> anyhow::Result<u8> {
    let endpoint = Endpoint::read(config, ports)?;
    let rules = endpoint.rules()?;
    let mut command = Command::new(detection::beside_this_program()?);
    if arguments.json {
        command.arg("--json");
    }
    command.arg("--rules").arg(rules);
    if let Some(set) = endpoint.set_file()? {
        command.arg("--set").arg(set);
    }
    if !sharing::shares_detections(config, ports)? {
        // What a file is called is never an option.
        return Err(command.arg("--").args(paths).exec()).context("clerestory-scan");
    }
    let (reader, writer) = std::io::pipe()?;
    // The scanner gets the other end, by its number.
    fcntl_setfd(&writer, FdFlags::empty())?;
    command.arg("--json-to").arg(format!("/dev/fd/{}", writer.as_raw_fd())).arg("--").args(paths);
    let mut child = command.spawn().context("clerestory-scan")?;
    drop(writer);
    let read = detections(reader);
    let ended = child.wait()?;
    // What was found was said; what it comes to does not hang on sharing.
    if let Err(error) = read.and_then(|mut findings| Ok(sharing::record(config, ports, &mut findings)?)) {
        eprintln!("error: not shared: {error:#}\nhint: scan again, or look at the journal");
    }
    let code = ended.code().and_then(|code| u8::try_from(code).ok());
    code.with_context(|| format!("clerestory-scan did not end by itself ({ended})"))
}

/// What matters of a file's line.
#[derive(Deserialize)]
struct Line {
    bytes: u64,
    sha256: Option<Digest>,
    matches: Vec<Match>,
}

#[derive(Deserialize)]
struct Match {
    rule: String,
}

fn detections(reader: PipeReader) -> anyhow::Result<Findings> {
    let mut findings = Findings::default();
    for line in BufReader::new(reader).lines() {
        let line: Line = serde_json::from_str(&line?).context("clerestory-scan says what this can't read")?;
        if let Some(sha256) = line.sha256 {
            let rules = line.matches.iter().map(|one| one.rule.as_str());
            Body::detections(sha256, line.bytes, rules).into_iter().for_each(|one| findings.push(one));
        }
    }
    Ok(findings)
}
