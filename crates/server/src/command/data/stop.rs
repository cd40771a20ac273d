//! `clerestory data stop | resume`: whether custodians open anything.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use attest::{AccessStop, DataClass, RegionId, StatementId};
use clap::Args;
use serde::Serialize;

use super::Logged;
use crate::command::{Output, block_on};
use crate::config::Config;
use crate::supervise::{RegionWord, Supervisor};

/// Arguments of `data stop` and `data resume`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The supervisor's configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The region
    region: RegionId,
    /// This class of data only
    #[arg(long, group = "part")]
    class: Option<DataClass>,
    /// This request only, by its statement
    #[arg(long, group = "part")]
    request: Option<StatementId>,
    /// The workers of this host only, by its enrolment
    #[arg(long, group = "part")]
    worker: Option<StatementId>,
}

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wish {
    Stop,
    Resume,
}

impl Arguments {
    fn stop(&self) -> AccessStop {
        let class = self.class.clone().map(AccessStop::Class);
        let request = self.request.map(AccessStop::Request);
        class.or(request).or(self.worker.map(AccessStop::Worker)).unwrap_or(AccessStop::Region)
    }
}

/// What holds now.
#[derive(Debug, Serialize)]
struct Standing {
    region: RegionId,
    stopped: BTreeSet<AccessStop>,
    #[serde(flatten)]
    logged: Logged,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.stopped.is_empty() {
            writeln!(f, "region `{}`: nothing is stopped", self.region)?;
        }
        for stop in &self.stopped {
            writeln!(f, "region `{}`: stopped: {stop}", self.region)?;
        }
        self.logged.fmt(f)
    }
}

pub(super) fn run(arguments: &Arguments, wish: Wish, output: Output) -> anyhow::Result<()> {
    block_on(async {
        let supervisor = Supervisor::open(&Config::load(&arguments.config)?).await?;
        let word = match wish {
            Wish::Stop => RegionWord::Stop(arguments.stop()),
            Wish::Resume => RegionWord::Resume(arguments.stop()),
        };
        let entry = supervisor.say_region(&arguments.region, &word).await?;
        let stopped = supervisor.stopped(&arguments.region).await?;
        output.print(&Standing { region: arguments.region.clone(), stopped, logged: Logged::of(&entry) })
    })
}
