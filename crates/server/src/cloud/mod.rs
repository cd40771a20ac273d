//! The threat cloud: reads what endpoints share as any reader does, by standing requests with an entry for each
//! batch; judges files; releases what is malicious as a set of hashes, through the fast lane like any rules.
//!
//! It has no way to data of its own, signs nothing that the assembly line does not, and what it says is checked
//! again by both builders. What it believes and what not is written down (`clerestory cloud verdicts`).

mod read;
mod release;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use reputation::{Bounds, Grounds, Standing, judge};
use stdx::Digest;
use vault::manifest_key;

use crate::config::{CloudSection, Config};
use crate::domain::Domain;
use crate::duty::OnDuty;
use crate::http::Stop;
use crate::line::Line;
use crate::stores::{self, Access};

pub(crate) use read::query_of;
pub(crate) use state::{Verdicts, verdicts_path};

use read::{Class, Reader, Rows, Window};
use release::Releasing;
use state::State;

/// How often it is asked whether there is a new segment: one small read of the vault's own store.
const LOOK: Duration = Duration::from_millis(250);
/// After something failed.
const AGAIN: Duration = Duration::from_secs(5);
/// Verdicts end without anybody reporting anything.
const JUDGE_EVERY: Duration = Duration::from_secs(600);
/// Segments of several intakes come in no order; what was taken so shortly before is read again.
const SLACK: Duration = Duration::from_secs(10);

/// The service.
struct Cloud {
    domain: Domain,
    section: CloudSection,
    objects: Arc<dyn storage::ObjectStore>,
    reader: Reader,
    releasing: Releasing,
    state: State,
    good: Good,
}

/// What is known to be good here, and which version of the lists said so.
#[derive(Default)]
struct Good {
    stamp: Option<Digest>,
    files: BTreeMap<Digest, String>,
}

/// Runs while this process is on duty, until told to stop.
///
/// # Errors
/// When a key, a store or the tree is missing; what fails later is told and tried again.
pub(crate) async fn run(
    config: Arc<Config>,
    domain: Domain,
    section: CloudSection,
    duty: OnDuty,
    mut stop: Stop,
) -> anyhow::Result<()> {
    let Config::Vendor(vendor) = &*config else { anyhow::bail!("only a vendor's server has a threat cloud") };
    let intake = vendor.intake.as_deref().context("the threat cloud needs `intake`")?;
    let objects = stores::intake_objects(&config, intake, Access::Read).await?;
    let line = Line::of(&config, domain.clone())?;
    let reader = Reader::open(&config, &section)?;
    let state = State::open(&section.folder)?;
    let releasing = Releasing { config: Arc::clone(&config), line };
    let mut cloud = Cloud { domain, section, objects, reader, releasing, state, good: Good::default() };
    loop {
        let mut wait = LOOK;
        if duty.borrow().is_here()
            && let Err(error) = cloud.step().await
        {
            tracing::warn!("the threat cloud: {error:#}");
            wait = AGAIN;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stop.changed() => return Ok(()),
        }
    }
}

impl Cloud {
    async fn step(&mut self) -> anyhow::Result<()> {
        let now = self.domain.clock.now();
        let due = now.since(self.state.verdicts.time) >= JUDGE_EVERY;
        let news = self.news().await?;
        if news.is_none() && !due && !self.state.wants_release() {
            return Ok(());
        }
        if let Some(news) = news {
            self.read_all()?;
            // Only what was read counts as seen.
            self.state.manifests = news;
        }
        let rules = self.releasing.rules(&self.section.rules).await?;
        self.know_good()?;
        let bounds: &Bounds = &self.section.bounds;
        let history = self.state.all();
        let before = self.state.verdicts.malicious();
        let good = &self.good.files;
        let grounds = Grounds { good, rules: &rules, before: &before, now };
        let judged = judge(&history, grounds, bounds);
        self.state.judged(judged, history.len(), now);
        self.state.forget(now, Duration::from_secs(bounds.lifetime_s));
        self.state.save(&self.section.folder)?;
        let malicious: BTreeSet<Digest> = self.state.verdicts.malicious();
        if self.state.wants_release() {
            let released = self.releasing.release(&self.section, &self.state.verdicts, &malicious).await?;
            self.state.released(malicious, released);
            self.state.save(&self.section.folder)?;
        }
        Ok(())
    }

    /// The number of each region's next manifest, if one of them has come.
    async fn news(&self) -> anyhow::Result<Option<BTreeMap<attest::RegionId, u64>>> {
        let mut next = self.state.manifests.clone();
        let mut news = false;
        for region in self.reader.regions()? {
            let number = next.entry(region.clone()).or_insert(1);
            while self.objects.get(&manifest_key(&region, *number)?).await?.is_some() {
                *number += 1;
                news = true;
            }
        }
        Ok(news.then_some(next))
    }

    /// Reads what was taken since, by each request.
    fn read_all(&mut self) -> anyhow::Result<()> {
        let until = self.domain.clock.now();
        for id in self.section.requests.clone() {
            let after = self.state.settled(&id);
            let read = tokio::task::block_in_place(|| self.reader.read(id, Window { after, until }))?;
            let Rows { class, read } = read;
            let what = match class {
                Class::Detections => "detections",
                Class::Verdicts => "verdicts",
            };
            tracing::info!(data.request = %id, class = what, rows = read.reports.len(), "read by the threat cloud");
            self.state.absorb(id, read, SLACK);
        }
        Ok(())
    }

    /// Lists may change at any time.
    fn know_good(&mut self) -> anyhow::Result<()> {
        let data = self.domain.data.path();
        let refused = &self.state.refused;
        let stamp = crate::rules::known_good_stamp(data)?;
        let stamp = Digest::of(format!("{stamp:?} {refused:?}").as_bytes());
        if self.good.stamp == Some(stamp) {
            return Ok(());
        }
        let mut files: BTreeMap<Digest, String> = BTreeMap::new();
        for (list, hashes) in crate::rules::known_good(data)? {
            files.extend(hashes.into_iter().map(|hash| (hash, list.clone())));
        }
        // What a builder has refused as known to be good is.
        files.extend(refused.clone());
        self.good = Good { stamp: Some(stamp), files };
        Ok(())
    }
}

/// Whether a file goes into the set.
fn is_malicious(standing: Standing) -> bool {
    standing == Standing::Malicious
}
