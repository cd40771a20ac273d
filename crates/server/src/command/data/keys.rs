//! `clerestory data keys`: a custodian's next keys, one a week.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use attest::{OrganisationId, RegionId};
use clap::{Args, ValueEnum};
use policy::{Residency, TimedKey};
use seal::{Kem, PublicKey};
use serde::Serialize;
use stdx::{Clock as _, SystemClock, SystemEntropy, UnixTime};

use crate::command::Output;
use crate::command::check_config::load_policy;
use crate::config::{Config, CustodianConfig};
use crate::custodian::KeyRing;
use crate::failure::Failure;

const WEEK_S: u64 = 7 * 24 * 60 * 60;
/// 1970-01-05, a Monday.
const MONDAY_S: u64 = 4 * 24 * 60 * 60;

/// Arguments of `data keys`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The custodian's configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The region [default: the one whose custodian this is]
    #[arg(long)]
    region: Option<RegionId>,
    /// How shares are sealed to it [default: as to the last one that the policy has]
    #[arg(long, value_enum)]
    kem: Option<KemArgument>,
    /// From when the first key is used [default: when the time of the policy's last one is over]
    #[arg(long, value_name = "TIME")]
    from: Option<UnixTime>,
    /// How many
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=52))]
    weeks: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KemArgument {
    /// The one that hardware holds
    P256,
    /// The one that stays closed for quantum computers, too
    XWing,
}

impl KemArgument {
    const fn kem(self) -> Kem {
        match self {
            Self::P256 => Kem::P256,
            Self::XWing => Kem::XWing,
        }
    }
}

/// What the policy needs.
#[derive(Debug, Serialize)]
struct Made {
    keys: Vec<TimedKey>,
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for TimedKey { key, from, until } in &self.keys {
            writeln!(f, "{{ from = \"{from}\", until = \"{until}\", key = \"{}\" }},", key.as_str())?;
        }
        Ok(())
    }
}

pub(super) fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let config = Config::load(&arguments.config)?;
    let Config::Custodian(section) = &config else {
        return Err(Failure::usage("only a custodian has keys of regions")
            .hint("name the custodian's configuration")
            .into());
    };
    let last = last_key(section, arguments.region.as_ref())?;
    let kem = match (arguments.kem, &last) {
        (Some(kem), _) => kem.kem(),
        (None, Some(last)) => last.key.as_str().parse::<PublicKey>()?.kem(),
        (None, None) => {
            return Err(Failure::usage("the policy has no key of this custodian's yet")
                .hint("say what kind it shall be: `--kem p256` or `--kem x-wing`; a region needs one x-wing key")
                .into());
        }
    };
    // Whoever has no key yet needs one for this week.
    let this_week = |now: UnixTime| UnixTime::from_seconds(now.seconds() - (now.seconds() - MONDAY_S) % WEEK_S);
    let from = arguments.from.or(last.map(|it| it.until)).unwrap_or_else(|| this_week(SystemClock::new().now()));
    let keys_here = KeyRing::open(section)?;
    let mut keys = Vec::new();
    for week in 0..arguments.weeks {
        let from = from.after(Duration::from_secs(week * WEEK_S));
        let key = keys_here.generate(kem, &SystemEntropy)?;
        keys.push(TimedKey { key: key.to_string().parse()?, from, until: from.after(Duration::from_secs(WEEK_S)) });
    }
    output.print(&Made { keys })
}

/// The last key that the policy has of this custodian's; none before there is a policy.
fn last_key(section: &CustodianConfig, region: Option<&RegionId>) -> anyhow::Result<Option<TimedKey>> {
    if section.policy.genesis.is_none() {
        return Ok(None);
    }
    let policy = load_policy(&section.policy)?;
    let ours = policy.policy().residency.iter().flat_map(|it| ours(it, &section.organisation));
    let mut ours = ours.filter(|(it, _)| region.is_none_or(|region| region == *it));
    match (ours.next(), ours.next()) {
        (Some((_, keys)), None) => Ok(keys.last().cloned()),
        (None, _) => Ok(None),
        _ => Err(Failure::usage("this is a custodian of several regions").hint("say which: `--region NAME`").into()),
    }
}

fn ours<'a>(
    residency: &'a Residency,
    organisation: &'a OrganisationId,
) -> impl Iterator<Item = (&'a RegionId, &'a Vec<TimedKey>)> {
    let custodians = residency.regions.iter().flat_map(|it| it.custodians.iter().map(move |who| (&it.id, who)));
    custodians.filter(|(_, who)| who.organisation == *organisation).map(|(region, who)| (region, &who.keys))
}
