//! `clerestory policy diff`: what a policy would change, before anybody signs it.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;
use policy::{Change, Policy};
use serde::Serialize;
use stdx::{Clock as _, SystemClock, UnixTime};

use super::{read_any, read_toml};
use crate::command::Output;

#[derive(Debug, Args)]
pub(super) struct Diff {
    /// The policy in force: TOML, a drafted statement, an envelope or a bundle
    #[arg(value_name = "OLD")]
    old: PathBuf,
    /// The one that would take its place
    #[arg(value_name = "NEW")]
    new: PathBuf,
    /// When it would [default: now]
    #[arg(long)]
    at: Option<UnixTime>,
}

/// What would be different.
#[derive(Debug, Serialize)]
struct Changes {
    at: UnixTime,
    changes: Vec<Change>,
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.changes.is_empty() {
            return writeln!(f, "nothing would change on {}", self.at);
        }
        self.changes.iter().try_for_each(|change| writeln!(f, "{change}"))
    }
}

/// # Errors
/// When one of both is no policy.
pub(super) fn run(arguments: &Diff, output: Output) -> anyhow::Result<()> {
    let at = arguments.at.unwrap_or_else(|| SystemClock::new().now());
    let (old, new) = (read(&arguments.old)?, read(&arguments.new)?);
    output.print(&Changes { at, changes: new.changes_from(&old, at) })
}

fn read(file: &Path) -> anyhow::Result<Policy> {
    if file.extension().is_some_and(|extension| extension == "toml") {
        return read_toml(file);
    }
    Ok(read_any(file)?.0.policy)
}
