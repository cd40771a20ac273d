//! `clerestory data regions`: which country's data lies where, under whose keys until when, and how much of it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use api::{BaseUrl, BodyLimit, Client, path};
use attest::{CountryCode, OrganisationId, RegionId};
use clap::Args;
use policy::{Region, RegionCustodian, Residency};
use serde::Serialize;
use stdx::{Clock as _, SystemClock, UnixTime};
use vault::{Chain, MANIFEST_BYTES_MAX, Manifests};

use crate::command::{Output, block_on, check_config};
use crate::config::Config;
use crate::failure::Failure;
use crate::serve;
use crate::stores::{self, Access};

const DAY_S: u64 = 24 * 60 * 60;
/// A manifest of 16 MiB over a slow line.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Arguments of `data regions`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The configuration of a role with a policy; a vendor's names its own vault, too
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The server whose vault is looked at, if it is not this one's
    #[arg(long, value_name = "URL")]
    vault: Option<BaseUrl>,
    /// Complain if a custodian's keys end within so many days: people must sign the policy that names the next
    #[arg(long, value_name = "DAYS", default_value_t = 3)]
    days: u64,
}

/// What is kept of a region.
#[derive(Debug, Serialize)]
struct Kept {
    segments: usize,
    objects: usize,
    bytes: u64,
    /// When the oldest segment was taken.
    oldest: Option<UnixTime>,
}

#[derive(Debug, Serialize)]
struct Custodian {
    organisation: OrganisationId,
    /// From now to then something can be sealed to it.
    keys_until: Option<UnixTime>,
}

#[derive(Debug, Serialize)]
struct Row {
    region: RegionId,
    /// Where it is.
    country: CountryCode,
    /// Whose data belongs there now.
    countries: Vec<CountryCode>,
    custodians: Vec<Custodian>,
    /// Nothing if it is not looked at.
    kept: Option<Kept>,
}

#[derive(Debug, Serialize)]
struct Report {
    regions: Vec<Row>,
    alarms: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.regions {
            let countries: Vec<String> = row.countries.iter().map(ToString::to_string).collect();
            writeln!(f, "{} in {}: data of {}", row.region, row.country, countries.join(" "))?;
            for custodian in &row.custodians {
                match custodian.keys_until {
                    Some(until) => writeln!(f, "  custodian {}: keys until {until}", custodian.organisation)?,
                    None => writeln!(f, "  custodian {}: no key now", custodian.organisation)?,
                }
            }
            if let Some(Kept { segments, objects, bytes, oldest }) = &row.kept {
                write!(f, "  {objects} batches, {bytes} bytes in {segments} segments")?;
                oldest.iter().try_for_each(|oldest| write!(f, ", the oldest of {oldest}"))?;
                writeln!(f)?;
            }
        }
        self.alarms.iter().try_for_each(|alarm| writeln!(f, "alarm: {alarm}"))
    }
}

pub(super) fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let config = check_config::load(&arguments.config)?;
    let policy = serve::policy(&config)?;
    let residency = policy.policy().residency.as_ref().ok_or_else(|| {
        Failure::refused("the policy does not say where data lies").hint("it needs a section `[residency]`")
    })?;
    let now = SystemClock::new().now();
    let mut regions = Vec::new();
    for region in &residency.regions {
        regions.push(Row {
            region: region.id.clone(),
            country: region.country,
            countries: countries(residency, region, now),
            custodians: region.custodians.iter().map(|custodian| custodian_at(custodian, now)).collect(),
            kept: kept(arguments, &config, &region.id)?,
        });
    }
    let report = Report { alarms: alarms(&regions, now, arguments.days), regions };
    output.print(&report)?;
    if report.alarms.is_empty() {
        return Ok(());
    }
    Err(Failure::refused(format!("{} of the custodians' keys end soon", report.alarms.len()))
        .hint("`clerestory data keys` makes a custodian's next key; the policy's next version names it")
        .into())
}

/// The countries whose latest assignment that has come is to this region.
fn countries(residency: &Residency, region: &Region, now: UnixTime) -> Vec<CountryCode> {
    let all = residency.assignments.iter().flat_map(|assignment| &assignment.countries).copied();
    let mut countries: Vec<CountryCode> =
        all.filter(|country| residency.region_of(*country, now).is_some_and(|it| it.id == region.id)).collect();
    countries.sort_unstable();
    countries.dedup();
    countries
}

fn custodian_at(custodian: &RegionCustodian, now: UnixTime) -> Custodian {
    let mut end = now;
    // Keys don't overlap: each that holds at the end of the one before leads on.
    while let Some(key) = custodian.keys.iter().find(|key| key.from <= end && end < key.until) {
        end = key.until;
    }
    Custodian { organisation: custodian.organisation.clone(), keys_until: (end > now).then_some(end) }
}

fn alarms(regions: &[Row], now: UnixTime, days: u64) -> Vec<String> {
    let soon = now.after(Duration::from_secs(days.saturating_mul(DAY_S)));
    let mut alarms = Vec::new();
    for row in regions {
        for Custodian { organisation, keys_until } in &row.custodians {
            match keys_until {
                None => {
                    alarms.push(format!("`{organisation}` has no key for `{}`: nothing is sealed for it", row.region))
                }
                Some(until) if *until < soon => {
                    alarms.push(format!("`{organisation}` has no key for `{}` from {until} on", row.region));
                }
                Some(_) => {}
            }
        }
    }
    alarms
}

fn kept(arguments: &Arguments, config: &Config, region: &RegionId) -> anyhow::Result<Option<Kept>> {
    let chain = match (&arguments.vault, config) {
        (Some(url), _) => chain_at(url, region)?,
        (None, Config::Vendor(vendor)) => match &vendor.intake {
            None => return Ok(None),
            Some(folder) => {
                return block_on(async {
                    let objects = stores::intake_objects(config, folder, Access::Read).await?;
                    let manifests = Manifests::open(objects, region.clone()).await?;
                    Ok(Some(count(manifests.chain())))
                });
            }
        },
        (None, _) => return Ok(None),
    };
    Ok(Some(count(&chain)))
}

/// The manifests that a server gives, each checked to follow the one before it.
fn chain_at(url: &BaseUrl, region: &RegionId) -> anyhow::Result<Chain> {
    let (client, mut chain) = (Client::new(REQUEST_TIMEOUT), Chain::new(region.clone()));
    loop {
        let url = url.join(&format!("{}/{region}/manifests/{}", path::VAULT, chain.next()));
        let Some(bytes) = client.find(&url, BodyLimit(MANIFEST_BYTES_MAX as u64))? else { return Ok(chain) };
        chain.read(&bytes).with_context(|| format!("what `{url}` gives"))?;
    }
}

fn count(chain: &Chain) -> Kept {
    Kept {
        segments: chain.segments().count(),
        objects: chain.segments().map(|segment| segment.objects.len()).sum(),
        bytes: chain.bytes(),
        oldest: chain.segments().map(|segment| segment.until).min(),
    }
}
