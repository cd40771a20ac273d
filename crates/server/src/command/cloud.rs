//! `clerestory cloud`: the verdicts of a vendor's threat cloud, why, and what was not believed.

use std::fmt;
use std::path::PathBuf;

use anyhow::Context as _;
use attest::DataClass;
use clap::{Args, Subcommand};
use reputation::{Judged, Standing};
use serde::Serialize;
use stdx::Digest;

use crate::cloud::{Verdicts, query_of, verdicts_path};
use crate::command::{Output, read_limited, write_line};
use crate::config::Config;
use crate::failure::Failure;

/// A million files, each with some reasons.
const VERDICTS_BYTES_MAX: usize = 1 << 30;
/// What of a long list people are shown; `--json` has all.
const SHOWN_MAX: usize = 50;

/// What is made of what endpoints share.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show verdicts, what each rests on, and what was reported and not believed
    Verdicts(VerdictsArguments),
    /// Print the query by which a class is read: what a standing request is about
    Query(QueryArguments),
}

/// Arguments of `cloud verdicts`.
#[derive(Debug, Args)]
pub struct VerdictsArguments {
    /// The vendor's configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// One file alone
    sha256: Option<Digest>,
}

/// Arguments of `cloud query`.
#[derive(Debug, Args)]
pub struct QueryArguments {
    /// `detections` or `verdicts`
    class: DataClass,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Shown(Verdicts);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdicts { time, files, judged, ignored, release } = &self.0;
        let count = |standing| judged.iter().filter(|it| it.standing == standing).count();
        let counts = [Standing::Malicious, Standing::Held, Standing::Clean, Standing::Unknown];
        let counts = counts.map(|standing| format!("{} {}", count(standing), standing.as_str()));
        writeln!(f, "{time}: {files} files spoken of; of {}: {}", judged.len(), counts.join(", "))?;
        if let Some(release) = release {
            writeln!(f, "release {} at {}", release.version, release.time)?;
            release.refused.iter().try_for_each(|it| writeln!(f, "  refused: {}: {}", it.code, it.detail))?;
        }
        writeln!(
            f,
            "ignored: {} malformed events, {} groups beyond what one batch takes, {} seconds not read, {} objects not readable, {} files forgotten",
            ignored.malformed, ignored.beyond, ignored.unread, ignored.unreadable, ignored.forgotten
        )?;
        let mut sorted: Vec<&Judged> = judged.iter().collect();
        sorted.sort_by_key(|it| it.standing);
        for it in sorted.iter().take(SHOWN_MAX) {
            let Judged { sha256, standing, first, last, events, reasons, ignored } = it;
            writeln!(f, "{sha256} {}: {events} events, {first} to {last}", standing.as_str())?;
            reasons.iter().try_for_each(|why| writeln!(f, "  because {why}"))?;
            ignored.iter().try_for_each(|why| writeln!(f, "  ignored: {why}"))?;
        }
        match judged.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => writeln!(f, "and {more} more (--json shows them)"),
        }
    }
}

pub(crate) fn run(command: &Command, output: Output) -> anyhow::Result<()> {
    match command {
        Command::Verdicts(arguments) => verdicts(arguments, output),
        Command::Query(arguments) => {
            let query = query_of(&arguments.class).ok_or_else(|| {
                Failure::usage(format!("the threat cloud does not read `{}`", arguments.class))
                    .hint("it reads `detections` and `verdicts`")
            })?;
            write_line(query.trim_end())
        }
    }
}

fn verdicts(arguments: &VerdictsArguments, output: Output) -> anyhow::Result<()> {
    let config = Config::load(&arguments.config)?;
    let section = match &config {
        Config::Vendor(vendor) => vendor.cloud.as_ref(),
        _ => None,
    };
    let section = section.ok_or_else(|| {
        Failure::usage("the configuration has no threat cloud").hint("it is `[cloud]` of a vendor's configuration")
    })?;
    let path = verdicts_path(&section.folder);
    let bytes = read_limited(&path, VERDICTS_BYTES_MAX)
        .with_context(|| Failure::unavailable("there are no verdicts yet").hint("is the vendor's server running?"))?;
    let mut verdicts: Verdicts =
        serde_json::from_slice(&bytes).with_context(|| format!("`{}` is damaged", path.display()))?;
    if let Some(sha256) = &arguments.sha256 {
        verdicts.judged.retain(|it| it.sha256 == *sha256);
    }
    output.print(&Shown(verdicts))
}
