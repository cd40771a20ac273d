//! What the vendor's server does by itself after the supervisor has spoken of rules: it drafts the
//! promotion that a bake allows, and carries a new status into the channel at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use api::{Baked, BaseUrl, BodyLimit, Change, path};
use attest::{BUNDLE_BYTES_MAX, Bundle, Lane, Ring};
use channel::layout;
use stdx::Digest;

use crate::config::Config;
use crate::domain::Domain;
use crate::duty::OnDuty;
use crate::http::Stop;
use crate::http::tree::CHANNEL;
use crate::line::Line;
use crate::publish;

/// How often the supervisor is asked: three small requests.
const ASK: Duration = Duration::from_secs(1);
/// After something failed.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// 64 releases in two rings, each with a bundle of one statement.
const BAKES_BYTES_MAX: BodyLimit = BodyLimit(4 << 20);

/// What was done already.
#[derive(Default)]
struct Done {
    bakes: BTreeSet<Digest>,
    status: BTreeMap<Lane, Digest>,
}

/// Follows the supervisor, while this process is on duty, until told to stop.
///
/// # Errors
/// When a key is missing; what fails later is told and tried again.
pub async fn follow(config: Arc<Config>, domain: Domain, duty: OnDuty, mut stop: Stop) -> anyhow::Result<()> {
    let line = Line::of(&config, domain)?;
    let mut done = Done::default();
    loop {
        let mut wait = ASK;
        if duty.borrow().is_here()
            && let Err(error) = look(&config, &line, &mut done).await
        {
            tracing::warn!("what the supervisor says of rules can't be followed: {error:#}");
            wait = ASK_AGAIN;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stop.changed() => return Ok(()),
        }
    }
}

async fn look(config: &Config, line: &Line, done: &mut Done) -> anyhow::Result<()> {
    let domain = line.domain();
    carry_status(domain, line.supervisor(), done)?;
    let url = line.supervisor().join(path::BAKES);
    let baked: Vec<Baked> = tokio::task::block_in_place(|| domain.client.get_json(&url, BAKES_BYTES_MAX))?;
    // One that can't be promoted keeps no other back.
    let mut first = Ok(());
    for baked in baked {
        let id = Digest::of(baked.bundle.as_bytes());
        if done.bakes.contains(&id) {
            continue;
        }
        match promote(config, line, &baked).await {
            Ok(()) => drop(done.bakes.insert(id)),
            Err(error) => {
                let error = error.context(format!("`{}` {}", baked.product, baked.version));
                first = first.and(Err(error));
            }
        }
    }
    first
}

async fn promote(config: &Config, line: &Line, baked: &Baked) -> anyhow::Result<()> {
    let Baked { product, version, ring, bundle } = baked;
    // It names a folder here, and another organisation has written it.
    version.parse::<assembly::Version>().map_err(|why| anyhow::anyhow!("the supervisor names a version: {why}"))?;
    let next = match ring {
        Ring::Canary => Ring::Early,
        Ring::Early | Ring::All => Ring::All,
    };
    if line.ring_of(product, version)?.is_none_or(|ring| ring >= next) {
        return Ok(());
    }
    let bake = Bundle::parse(bundle.as_bytes()).context("the supervisor's bake")?;
    let publication = line.promote_with(product, version, next, &bake).await?;
    tokio::task::block_in_place(|| publish::publish(config, line.domain(), &publication))?;
    tracing::info!(%product, version, ring = %next, "promoted");
    Ok(())
}

/// A "no" of the supervisor's reaches whoever asks this channel with the next look. Rules may have come
/// through either lane, and the status of that lane speaks of them.
fn carry_status(domain: &Domain, supervisor: &BaseUrl, done: &mut Done) -> anyhow::Result<()> {
    let mut first = Ok(());
    for lane in domain.policy.policy().lanes.iter().map(|it| it.lane) {
        match tokio::task::block_in_place(|| carry(domain, supervisor, lane, done.status.get(&lane))) {
            Ok(Some(carried)) => drop(done.status.insert(lane, carried)),
            Ok(None) => {}
            // One that can't be had keeps no other back.
            Err(error) => first = first.and(Err(error.context(format!("the status of lane `{lane}`")))),
        }
    }
    first
}

/// Gives what is carried now, if that is another status than before.
fn carry(domain: &Domain, supervisor: &BaseUrl, lane: Lane, known: Option<&Digest>) -> anyhow::Result<Option<Digest>> {
    let url = supervisor.join(&format!("{CHANNEL}/{}", layout::status(lane)));
    let limit = BodyLimit(BUNDLE_BYTES_MAX as u64);
    let Change::Body(bytes) = domain.client.get_changed(&url, known, limit)? else { return Ok(None) };
    publish::publish_status(domain, lane, &bytes)?;
    tracing::info!(%lane, "the status is carried");
    Ok(Some(Digest::of(&bytes)))
}

#[cfg(test)]
mod tests {
    use assembly::Version;

    #[test]
    fn a_version_leads_nowhere_else() {
        for good in ["2.0.1", "2026-11-22_1", "1..2"] {
            assert!(good.parse::<Version>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "../other", "a/b", "/a", "a/", "a/.", "./a"] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }
}
