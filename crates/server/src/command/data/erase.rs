//! `clerestory data erase`: what an owner wants gone is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use api::{BaseUrl, BodyLimit, Client, ErasureAnswer, ErasureNote, VaultErased, VaultErasure, path};
use attest::{BUNDLE_BYTES_MAX, BatchId, Bundle, Erasure, OrganisationId, RegionId, Statement};
use clap::Args;
use custody::ERASED_MAX;
use seal::{ErasureFile, OwnerSecret};
use serde::Serialize;
use stdx::{Clock as _, SystemClock, UnixTime, durable};

use super::Logged;
use crate::command::{Output, block_on};
use crate::config::Config;
use crate::failure::Failure;
use crate::supervise::Supervisor;

/// A vault rewrites segments of 64 MiB; a custodian its table.
const TIME_MAX: Duration = Duration::from_secs(300);
const ANSWER_BYTES_MAX: BodyLimit = BodyLimit(2 * BUNDLE_BYTES_MAX as u64);

/// Arguments of `data erase`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The configuration of the supervisor whose gateway it is
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where the region's vault is: the vendor's URL
    #[arg(long, value_name = "URL")]
    vault: BaseUrl,
    /// For the owner: the logged request, and each custodian's logged word
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// When no vault may have it any more: so many days from now
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=90))]
    days: u32,
    /// What the owner brings: `clerestory-agent share erase` writes it
    request: PathBuf,
}

/// What was done.
#[derive(Debug, Serialize)]
struct Done {
    region: RegionId,
    objects: usize,
    /// Objects that the vault has deleted now.
    erased: usize,
    /// Segments that a worker must make anew.
    made_of_them: Vec<stdx::Digest>,
    /// Until when each custodian could still open its share, with what it had before.
    custodians: BTreeMap<OrganisationId, UnixTime>,
    /// Until when everything that was copied before could still be opened.
    horizon: UnixTime,
    #[serde(flatten)]
    logged: Logged,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} objects of region `{}`: nobody opens them any more", self.objects, self.region)?;
        writeln!(f, "{} of them were in the vault, and are not any more", self.erased)?;
        for segment in &self.made_of_them {
            writeln!(f, "segment {segment} was made of some of them; a worker must make it anew")?;
        }
        for (custodian, until) in &self.custodians {
            writeln!(f, "custodian `{custodian}` has no key for them from {until} on")?;
        }
        writeln!(f, "horizon {}: until then, copies from before could still open, with all custodians", self.horizon)?;
        self.logged.fmt(f)
    }
}

pub(super) fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let file = &arguments.request;
    let text = std::fs::read(file).with_context(|| format!("can't read `{}`", file.display()))?;
    let request = ErasureFile::parse(&text).map_err(|error| {
        Failure::refused(format!("`{}`: {error}", file.display()))
            .hint("`clerestory-agent share erase` writes such files, for who sent the objects")
    })?;
    let objects: BTreeSet<BatchId> = request.owners.iter().map(OwnerSecret::name).collect();
    let objects: Vec<BatchId> = objects.into_iter().collect();
    if objects.is_empty() || objects.len() > ERASED_MAX {
        let message = format!("{} objects; a request has 1 to {ERASED_MAX}", objects.len());
        return Err(Failure::refused(message).hint("let the owner make several files (`--batch`)").into());
    }
    let done = block_on(async {
        let config = Config::load(&arguments.config)?;
        let supervisor = Supervisor::open(&config).await?;
        let access = match &config {
            Config::Supervisor(section) => section.access.clone(),
            _ => None,
        };
        let access = access.ok_or_else(|| {
            Failure::usage("only the gateway's supervisor can do this").hint("it has a section `[access]`")
        })?;
        let deadline = SystemClock::new().now().after(Duration::from_secs(u64::from(arguments.days) * 86_400));
        let entry = supervisor.request_erasure(&request.region, &objects, deadline).await?;
        let client = supervisor.domain().client.with_timeout(TIME_MAX);
        let evidence = String::from_utf8(Bundle::new(vec![entry.clone()])?.to_bytes())?;
        let mut receipts = Bundle::new(vec![entry.clone()])?;
        let mut custodians = BTreeMap::new();
        for (custodian, url) in &access.custodians {
            let owners = request.owners.iter().map(OwnerSecret::to_text).collect();
            let note = ErasureNote { region: request.region.clone(), evidence: evidence.clone(), owners };
            let (receipt, until) = ask_custodian(&client, url, &note)
                .with_context(|| format!("custodian `{custodian}` has not erased it yet; repeat the command"))?;
            receipts = receipts.with(&receipt)?;
            custodians.insert(custodian.clone(), until);
        }
        let url = arguments.vault.join(path::VAULT_ERASURES);
        let vault = VaultErasure { evidence };
        let vault: VaultErased = tokio::task::block_in_place(|| client.post_json(&url, &vault, ANSWER_BYTES_MAX))
            .context("custodians open it no more, but the vault still has it; repeat the command")?;
        durable::write(&arguments.out, &receipts.to_bytes())
            .with_context(|| format!("can't write `{}`", arguments.out.display()))?;
        let horizon = custodians.values().max().copied().context("the gateway knows no custodians")?;
        let VaultErased { erased, made_of_them } = vault;
        let (region, objects) = (request.region.clone(), objects.len());
        anyhow::Ok(Done { region, objects, erased, made_of_them, custodians, horizon, logged: Logged::of(&entry) })
    })?;
    output.print(&done)?;
    if done.made_of_them.is_empty() {
        return Ok(());
    }
    let message =
        format!("rows of these objects are also in {} segments that a worker has made", done.made_of_them.len());
    const HINT: &str = "nothing makes these anew without them yet: they go when the class's `retention_s` is over";
    Err(Failure::refused(message).hint(HINT).into())
}

fn ask_custodian(client: &Client, url: &BaseUrl, note: &ErasureNote) -> anyhow::Result<(Bundle, UnixTime)> {
    let url = url.join(path::ERASURES);
    let answer: ErasureAnswer = tokio::task::block_in_place(|| client.post_json(&url, note, ANSWER_BYTES_MAX))?;
    let receipt = Bundle::parse(answer.receipt.as_bytes())?;
    let entry = receipt.entries().first().context("it has given no receipt")?;
    let says = Statement::<Erasure>::decode(entry.envelope.payload())?.predicate;
    Ok((receipt, says.horizon))
}
