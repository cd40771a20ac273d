//! `clerestory data enrol`: a host may have workers, after a ceremony.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use attest::{Bundle, HostId, RegionId};
use clap::Args;
use serde::Serialize;
use stdx::{Clock as _, Digest, SystemClock, UnixTime, durable};
use tlog::VerifierKey;

use super::Logged;
use crate::command::{Output, block_on};
use crate::config::Config;
use crate::supervise::{EnrolledHost, Supervisor};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Arguments of `data enrol`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The configuration of the gateway's organisation
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// What the host is to be called
    host: HostId,
    /// Its key, as the host itself shows it to you
    #[arg(long, value_name = "VKEY")]
    key: VerifierKey,
    /// SHA-256 of the program that it runs, as its release says
    #[arg(long, value_name = "SHA256")]
    code: Digest,
    /// Where it is; you have seen it there
    #[arg(long)]
    region: RegionId,
    /// Where the entry with its proof goes, for the host: workers show it to whoever asks
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// For how many days
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=365))]
    days: u32,
}

/// What was signed.
#[derive(Debug, Serialize)]
struct Enrolled {
    host: HostId,
    key: VerifierKey,
    code: Digest,
    region: RegionId,
    until: UnixTime,
    #[serde(flatten)]
    logged: Logged,
}

impl fmt::Display for Enrolled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "signed: workers of host `{}` may read data of region `{}`", self.host, self.region)?;
        writeln!(f, "key     {}", self.key)?;
        writeln!(f, "code    {}", self.code)?;
        writeln!(f, "until   {}", self.until)?;
        self.logged.fmt(f)?;
        writeln!(f, "Read key and code aloud to whoever stands before the host. If one is not what it shows:")?;
        writeln!(f, "clerestory data stop {} --worker {}", self.region, self.logged.statement)
    }
}

pub(super) fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let until = SystemClock::new().now().after(DAY * arguments.days);
    let Arguments { host, key, code, region, .. } = arguments;
    let (host, key, code, region) = (host.clone(), key.clone(), *code, region.clone());
    let enrolled = EnrolledHost { host, key, code, region, until };
    let entry = block_on(async {
        let supervisor = Supervisor::open(&Config::load(&arguments.config)?).await?;
        supervisor.enrol_worker(&enrolled).await
    })?;
    if let Some(out) = &arguments.out {
        let bundle = Bundle::new(vec![entry.clone()])?;
        durable::write(out, &bundle.to_bytes()).with_context(|| format!("can't write `{}`", out.display()))?;
    }
    let EnrolledHost { host, key, code, region, until } = enrolled;
    output.print(&Enrolled { host, key, code, region, until, logged: Logged::of(&entry) })
}
