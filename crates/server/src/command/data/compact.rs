//! `clerestory data compact`: what endpoints sealed in lines becomes columns, sealed as before.

use attest::StatementId;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use policy::Role;
use serde::Serialize;

use super::ask::{Asker, Common};
use crate::command::Output;
use crate::compaction::{Compacted, Compactor};
use crate::config::Config;

/// Arguments of `data compact`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    /// The request, which stands for the worker's program
    request: StatementId,
    /// Stop after so many accesses
    #[arg(long, value_name = "NUMBER", default_value_t = u64::MAX, hide_default_value = true)]
    rounds: u64,
}

/// Each access, and what it has changed.
#[derive(Serialize)]
#[serde(transparent)]
struct Done(Vec<Compacted>);

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return writeln!(f, "there is nothing to do");
        }
        self.0.iter().try_for_each(|it| it.fmt(f))
    }
}

pub(super) fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let config = Config::load(&arguments.common.config)?;
    let compactor = Compactor::open(&config, Asker::open(&arguments.common, Role::Reader)?, arguments.request)?;
    let progress = ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {msg}")?);
    progress.enable_steady_tick(std::time::Duration::from_millis(120));
    let mut done = Vec::new();
    while (done.len() as u64) < arguments.rounds {
        progress.set_message(format!("writing anew, access {}", done.len() + 1));
        match compactor.round()? {
            Some(compacted) => done.push(compacted),
            None => break,
        }
    }
    progress.finish_and_clear();
    output.print(&Done(done))
}
