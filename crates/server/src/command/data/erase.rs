//! `clerestory data erase`: what an owner wants gone is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use api::BaseUrl;
use attest::{BatchId, OrganisationId, RegionId};
use clap::Args;
use custody::ERASED_MAX;
use seal::{ErasureFile, OwnerSecret};
use serde::Serialize;
use stdx::{Clock as _, SystemClock, UnixTime, durable};

use super::Logged;
use crate::command::{Output, block_on};
use crate::config::Config;
use crate::failure::Failure;
use crate::supervise::{Erasing, Supervisor, Wanted};

/// Arguments of `data erase`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The configuration of the supervisor whose gateway it is
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where the region's vault is: the vendor's URL
    #[arg(long, value_name = "URL", required_unless_present = "status")]
    vault: Option<BaseUrl>,
    /// For the owner: the logged requests, and each custodian's logged word
    #[arg(long, value_name = "FILE", required_unless_present = "status")]
    out: Option<PathBuf>,
    /// When no vault may have it any more: so many days from now
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=90))]
    days: u32,
    /// How erasures stand; nothing else is done
    #[arg(long, conflicts_with_all = ["vault", "out", "request"])]
    status: bool,
    /// What the owner brings: `clerestory-agent share erase` writes it
    #[arg(required_unless_present = "status")]
    request: Option<PathBuf>,
}

/// What was done.
#[derive(Debug, Serialize)]
struct Done {
    region: RegionId,
    objects: usize,
    /// Objects that the vault has deleted now.
    erased: usize,
    #[serde(flatten)]
    stands: Stands,
    #[serde(flatten)]
    logged: Logged,
}

/// How it stands.
#[derive(Debug, Serialize)]
struct Stands {
    /// What workers had made of them, and custodians have erased.
    columns: usize,
    /// Objects that have events of them, and that a worker must make anew.
    left: BTreeSet<BatchId>,
    is_over: bool,
    /// What workers had made of them, and was gone before.
    unnamed: usize,
    deadline: UnixTime,
    /// Until when each custodian could still open its share, with what it had before.
    custodians: BTreeMap<OrganisationId, UnixTime>,
    /// Until when everything that was copied before could still be opened.
    horizon: Option<UnixTime>,
}

/// Every erasure that there was.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct All(Vec<One>);

#[derive(Debug, Serialize)]
struct One {
    region: RegionId,
    objects: usize,
    late: bool,
    #[serde(flatten)]
    stands: Stands,
}

impl Stands {
    fn of(erasing: &Erasing) -> Self {
        Self {
            columns: erasing.columns.len(),
            left: erasing.left.clone(),
            is_over: erasing.is_over(),
            unnamed: erasing.unnamed.len(),
            deadline: erasing.deadline,
            custodians: erasing.custodians.clone(),
            horizon: erasing.horizon(),
        }
    }
}

impl fmt::Display for Stands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.columns > 0 {
            writeln!(f, "{} objects that workers had made of them: nobody opens them any more", self.columns)?;
        }
        for object in &self.left {
            writeln!(f, "object {object} has events of them; a worker must make it anew by {}", self.deadline)?;
        }
        if self.unnamed > 0 {
            writeln!(
                f,
                "{} objects that workers had made of them were gone before, and can't be erased",
                self.unnamed
            )?;
        }
        for (custodian, until) in &self.custodians {
            writeln!(f, "custodian `{custodian}` has no key for what is erased from {until} on")?;
        }
        match self.horizon {
            Some(horizon) => {
                writeln!(f, "horizon {horizon}: until then, copies from before could still open, with all custodians")
            }
            None => writeln!(f, "no horizon: copies of what is left, or was gone before, can be opened"),
        }
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} objects of region `{}`: nobody opens them any more", self.objects, self.region)?;
        writeln!(f, "{} of them were in the vault, and are not any more", self.erased)?;
        write!(f, "{}{}", self.stands, self.logged)
    }
}

impl fmt::Display for All {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            writeln!(f, "nothing was erased")?;
        }
        for One { region, objects, late, stands } in &self.0 {
            let how = match (stands.is_over, late) {
                (true, _) => "over",
                (false, false) => "under way",
                (false, true) => "LATE",
            };
            write!(f, "{objects} objects of region `{region}`, by {}: {how}\n{stands}", stands.deadline)?;
        }
        Ok(())
    }
}

pub(super) fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let config = Config::load(&arguments.config)?;
    let (Some(vault), Some(out), Some(file)) = (&arguments.vault, &arguments.out, &arguments.request) else {
        return status(&config, output);
    };
    let request = requested(file)?;
    let now = SystemClock::new().now();
    let wanted = Wanted {
        region: request.region,
        owners: request.owners,
        vault: vault.clone(),
        deadline: now.after(Duration::from_secs(u64::from(arguments.days) * 86_400)),
    };
    let done = block_on(async {
        let supervisor = Supervisor::open(&config).await?;
        let (erasing, erased) = supervisor.erase(&wanted).await?;
        durable::write(out, &erasing.receipt()?.to_bytes())
            .with_context(|| format!("can't write `{}`", out.display()))?;
        let (region, objects) = (wanted.region.clone(), erasing.objects.len());
        let logged = Logged::of(&erasing.request()?);
        anyhow::Ok(Done { region, objects, erased, stands: Stands::of(&erasing), logged })
    })?;
    output.print(&done)?;
    if done.stands.left.is_empty() {
        return Ok(());
    }
    let message = format!("events of these objects are also in {} that workers have made", done.stands.left.len());
    const HINT: &str = "the vendor's compaction makes these anew; the server goes on then, or repeat the command";
    Err(Failure::unavailable(message).hint(HINT).into())
}

/// What the owner brings.
fn requested(file: &Path) -> anyhow::Result<ErasureFile> {
    let text = std::fs::read(file).with_context(|| format!("can't read `{}`", file.display()))?;
    let request = ErasureFile::parse(&text).map_err(|error| {
        Failure::refused(format!("`{}`: {error}", file.display()))
            .hint("`clerestory-agent share erase` writes such files, for who sent the objects")
    })?;
    let objects: BTreeSet<BatchId> = request.owners.iter().map(OwnerSecret::name).collect();
    if objects.is_empty() || objects.len() > ERASED_MAX {
        let message = format!("{} objects; a request has 1 to {ERASED_MAX}", objects.len());
        return Err(Failure::refused(message).hint("let the owner make several files (`--batch`)").into());
    }
    Ok(request)
}

fn status(config: &Config, output: Output) -> anyhow::Result<()> {
    let erasures = block_on(async { Supervisor::open(config).await?.erasures().await })?;
    let now = SystemClock::new().now();
    let one = |it: &Erasing| One {
        region: it.region.clone(),
        objects: it.objects.len(),
        late: !it.is_over() && it.deadline < now,
        stands: Stands::of(it),
    };
    let all = All(erasures.iter().map(one).collect());
    output.print(&all)?;
    match all.0.iter().filter(|it| it.late).count() {
        0 => Ok(()),
        count => Err(Failure::refused(format!("{count} erasures are not over, and were to be"))
            .hint("see whether the vendor's `[compaction]` runs; its log says why not")
            .into()),
    }
}
