//! `clerestory rules agree | enrol | dismiss | hosts`: who goes first.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use attest::{Agreement, BundleEntry, ENVELOPE_BYTES_MAX, Envelope, HostId, Statement};
use clap::Args;
use serde::Serialize;
use stdx::{Clock as _, SystemClock};

use crate::command::{Output, block_on, read_limited};
use crate::config::Config;
use crate::key_file;
use crate::line::write;
use crate::supervise::{Host, Supervisor};

/// Arguments of what the supervisor does.
#[derive(Debug, Args)]
pub struct Common {
    /// The supervisor's configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Arguments of `rules agree`.
#[derive(Debug, Args)]
pub struct AgreeArguments {
    /// The host's key (`clerestory key generate`); it signs the host's reports, too
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// For how many days
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=3650))]
    days: u64,
    /// Where the agreement goes, for the supervisor
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// What the host is to be called
    host: HostId,
}

/// Arguments of `rules enrol`.
#[derive(Debug, Args)]
pub struct EnrolArguments {
    #[command(flatten)]
    common: Common,
    /// The agreement that the host's owner signed
    agreement: PathBuf,
}

/// Arguments of `rules dismiss`.
#[derive(Debug, Args)]
pub struct DismissArguments {
    #[command(flatten)]
    common: Common,
    /// The host
    host: HostId,
    /// Why
    #[arg(long)]
    reason: String,
}

#[derive(Serialize)]
struct Agreed {
    statement: String,
    file: PathBuf,
    text: &'static str,
}

impl fmt::Display for Agreed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.text)?;
        writeln!(f, "agreed: statement {}, in {}", self.statement, self.file.display())
    }
}

#[derive(Serialize)]
struct Logged {
    statement: String,
    index: u64,
}

impl Logged {
    fn of(entry: &BundleEntry) -> Self {
        Self { statement: entry.envelope.id().to_string(), index: entry.proof.index().get() }
    }
}

impl fmt::Display for Logged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "statement {}, entry {} of its log", self.statement, self.index)
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Hosts(BTreeMap<HostId, Host>);

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(host, it)| writeln!(f, "{host}  until {}  enrolment {}", it.until, it.enrolment))
    }
}

pub(super) fn agree(arguments: &AgreeArguments, output: Output) -> anyhow::Result<()> {
    let key = key_file::load(&arguments.key)?;
    let time = SystemClock::new().now();
    let until = time.after(Duration::from_secs(arguments.days * 24 * 60 * 60));
    let (host, vkey) = (arguments.host.clone(), key.verifier().clone());
    let predicate = Agreement { host, key: vkey, time, until };
    let envelope = Envelope::sign(Statement { subject: vec![Agreement::subject()], predicate }.encode()?, &[&key])?;
    write(&arguments.out, &envelope.to_bytes())?;
    let (statement, file) = (envelope.id().to_string(), arguments.out.clone());
    output.print(&Agreed { statement, file, text: Agreement::text() })
}

pub(super) fn enrol(arguments: &EnrolArguments, output: Output) -> anyhow::Result<()> {
    let agreement = Envelope::parse(&read_limited(&arguments.agreement, ENVELOPE_BYTES_MAX)?)?;
    block_on(async {
        let supervisor = Supervisor::open(&Config::load(&arguments.common.config)?).await?;
        output.print(&Logged::of(&supervisor.enrol(&agreement).await?))
    })
}

pub(super) fn dismiss(arguments: &DismissArguments, output: Output) -> anyhow::Result<()> {
    block_on(async {
        let supervisor = Supervisor::open(&Config::load(&arguments.common.config)?).await?;
        output.print(&Logged::of(&supervisor.dismiss(&arguments.host, &arguments.reason).await?))
    })
}

pub(super) fn hosts(common: &Common, output: Output) -> anyhow::Result<()> {
    block_on(async {
        let supervisor = Supervisor::open(&Config::load(&common.config)?).await?;
        output.print(&Hosts(supervisor.hosts().await?))
    })
}
