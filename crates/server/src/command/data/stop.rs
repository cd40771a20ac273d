//! `clerestory data stop | resume`: whether custodians open anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use api::{BaseUrl, BodyLimit, Client, StatusNote, path};
use attest::{AccessStop, Bundle, BundleEntry, DataClass, OrganisationId, RegionId, StatementId};
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

/// What each custodian answered.
type Told = BTreeMap<OrganisationId, Option<String>>;

/// A custodian checks a few signatures, and waits for its disk.
const TELL_TIME_MAX: Duration = Duration::from_secs(10);
/// Nothing but "yes".
const NOTE_BYTES_MAX: BodyLimit = BodyLimit(4096);

/// What holds now.
#[derive(Debug, Serialize)]
struct Standing {
    region: RegionId,
    stopped: BTreeSet<AccessStop>,
    #[serde(flatten)]
    logged: Logged,
    /// What each custodian answered that the configuration names: nothing, if it has noted the status.
    custodians: Told,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.stopped.is_empty() {
            writeln!(f, "region `{}`: nothing is stopped", self.region)?;
        }
        for stop in &self.stopped {
            writeln!(f, "region `{}`: stopped: {stop}", self.region)?;
        }
        for (custodian, problem) in &self.custodians {
            match problem {
                None => writeln!(f, "custodian `{custodian}` goes by it from now on")?,
                Some(problem) => writeln!(f, "custodian `{custodian}` will hear of it when it is asked: {problem}")?,
            }
        }
        self.logged.fmt(f)
    }
}

pub(super) fn run(arguments: &Arguments, wish: Wish, output: Output) -> anyhow::Result<()> {
    block_on(async {
        let config = Config::load(&arguments.config)?;
        let supervisor = Supervisor::open(&config).await?;
        let word = match wish {
            Wish::Stop => RegionWord::Stop(arguments.stop()),
            Wish::Resume => RegionWord::Resume(arguments.stop()),
        };
        let entry = supervisor.say_region(&arguments.region, &word).await?;
        let stopped = supervisor.stopped(&arguments.region).await?;
        let custodians = tell(&config, &supervisor.domain().client, &arguments.region, &entry)?;
        output.print(&Standing { region: arguments.region.clone(), stopped, logged: Logged::of(&entry), custodians })
    })
}

/// Brings the status to the custodians, past the server that they would get it from.
fn tell(config: &Config, client: &Client, region: &RegionId, entry: &BundleEntry) -> anyhow::Result<Told> {
    let Config::Supervisor(section) = config else { return Ok(Told::new()) };
    let Some(access) = &section.access else { return Ok(Told::new()) };
    let status = String::from_utf8(Bundle::new(vec![entry.clone()])?.to_bytes())?;
    let note = StatusNote { region: region.clone(), status };
    let client = client.with_timeout(TELL_TIME_MAX);
    let tell = |(custodian, url): (&OrganisationId, &BaseUrl)| {
        let url = url.join(path::STATUSES);
        let told = tokio::task::block_in_place(|| client.post_json::<()>(&url, &note, NOTE_BYTES_MAX));
        (custodian.clone(), told.err().map(|error| error.to_string()))
    };
    Ok(access.custodians.iter().map(tell).collect())
}
