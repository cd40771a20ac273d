//! The end of a region's key: a week after its time, what lies in the vault moves into the custodian's own table.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use api::{BaseUrl, BodyLimit, path};
use attest::RegionId;
use custody::{ClosedShare, Live, retire};
use seal::{HEADER_BYTES_MAX, Header, PublicKey};
use serde::Serialize;
use stdx::{Digest, SystemEntropy, UnixTime};
use vault::{Chain, MANIFEST_BYTES_MAX};

use super::Desk;
use super::erase::KeyTime;
use crate::failure::Failure;
use crate::http;

/// Endpoints that were away bring what they sealed so much later. What comes later still is lost: its key is gone.
pub(super) const LATE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How often keys whose time is over are looked for.
pub(super) const LOOK: Duration = Duration::from_secs(24 * 60 * 60);

/// Of two custodians, with an x-wing share and a p256 one: most headers end before this.
const HEAD_BYTES: u64 = 4 << 10;

/// A key that is no more.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Destroyed {
    /// The region.
    pub(crate) region: RegionId,
    /// SHA-256 of the key, as text.
    pub(crate) key: Digest,
    /// Its time was over then.
    pub(crate) until: UnixTime,
    /// Shares that were moved into the table.
    pub(crate) moved: usize,
    /// Objects in the vault whose share was made for something else than it says.
    pub(crate) false_ones: usize,
}

impl Desk {
    /// Moves and destroys, for every key whose time is over.
    ///
    /// # Errors
    /// When the vault, the table or the ledger fails; the key is still there then.
    pub(crate) async fn retire(&self) -> anyhow::Result<Vec<Destroyed>> {
        let vault = self.config.vault.clone().ok_or_else(|| {
            Failure::refused("nobody says where the sealed objects are")
                .hint("set `vault` in the configuration to the vendor's URL")
        })?;
        let here = tokio::task::block_in_place(|| self.keys.all())?;
        let mut destroyed = Vec::new();
        for (region, (ledger, _)) in &self.regions {
            let over = self.keys_over(region)?;
            let over: Vec<_> = over.into_iter().filter(|(key, _)| here.contains(key)).collect();
            if over.is_empty() {
                continue;
            }
            let seen = ledger.vault().await?;
            let (manifest, closed) = tokio::task::block_in_place(|| self.live(&vault, region, seen))?;
            let live = Live { manifest, closed: &closed };
            for (key, until) in over {
                let keys = (&*self.keys as &dyn custody::ShareKeys, self.keys.table());
                let retired = retire(ledger, keys, &key, live, &SystemEntropy).await?;
                tokio::task::block_in_place(|| self.keys.destroy(&key))?;
                let (moved, false_ones) = (retired.moved, retired.false_ones);
                destroyed.push(Destroyed { region: region.clone(), key, until, moved, false_ones });
            }
        }
        Ok(destroyed)
    }

    /// Retires keys once a day, until told to stop.
    ///
    /// # Errors
    /// Never; what fails is tried again.
    pub(crate) async fn keep_retiring(self: Arc<Self>, mut stop: http::Stop) -> anyhow::Result<()> {
        loop {
            if self.config.vault.is_some() {
                match self.retire().await {
                    Err(error) => tracing::error!("keys whose time is over could not be destroyed: {error:#}"),
                    Ok(destroyed) => {
                        for it in destroyed {
                            tracing::info!(region = %it.region, key = %it.key, moved = it.moved, "a key is destroyed");
                        }
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _ = stop.changed() => return Ok(()),
            }
        }
    }

    /// This custodian's keys of a region whose time is long over.
    fn keys_over(&self, region: &RegionId) -> anyhow::Result<Vec<(Digest, UnixTime)>> {
        let now = self.domain.clock.now();
        let times = self.times(region)?.into_iter().map(|(key, time)| (key, time.until));
        Ok(times.filter(|(_, until)| until.after(LATE) < now).collect())
    }

    /// Whether a key's time is so long over that it may have been destroyed. What can't be told is not.
    pub(super) fn is_over(&self, region: &RegionId, key: &Digest) -> bool {
        let over = self.keys_over(region).inspect_err(|error| tracing::error!("{error:#}"));
        over.is_ok_and(|over| over.iter().any(|(it, _)| it == key))
    }

    /// This custodian's keys of a region, as any version of the policy has them: the longest time counts.
    pub(super) fn times(&self, region: &RegionId) -> anyhow::Result<BTreeMap<Digest, KeyTime>> {
        let genesis = self.config.policy.genesis.context("the configuration names no genesis policy")?;
        let mut times: BTreeMap<Digest, KeyTime> = BTreeMap::new();
        for policy in crate::policy_folder::versions(&self.config.policy.folder, &genesis)? {
            let region = policy.policy().residency.as_ref().and_then(|it| it.region(region));
            let custodians = region.into_iter().flat_map(|it| &it.custodians);
            let ours = custodians.filter(|it| it.organisation == self.domain.organisation);
            for timed in ours.flat_map(|it| &it.keys) {
                let id = timed.key.as_str().parse::<PublicKey>()?.id();
                let (from, until) = (timed.from, timed.until);
                let time = times.entry(id).or_insert(KeyTime { from, until });
                *time = KeyTime { from: time.from.min(from), until: time.until.max(until) };
            }
        }
        Ok(times)
    }

    /// What the region's vault has, and its last manifest. A vault that lacks what was seen is another: nothing is destroyed
    /// because somebody answers 404.
    pub(super) fn chain(
        &self,
        vault: &BaseUrl,
        region: &RegionId,
        seen: Option<(u64, Digest)>,
    ) -> anyhow::Result<(Option<(u64, Digest)>, Chain)> {
        let mut chain = Chain::new(region.clone());
        let (mut last, mut has_seen) = (None, seen.is_none());
        loop {
            let url = vault.join(&format!("{}/{region}/manifests/{}", path::VAULT, chain.next()));
            let Some(bytes) = self.domain.client.find(&url, BodyLimit(MANIFEST_BYTES_MAX as u64))? else { break };
            let manifest = (chain.next(), Digest::of(&bytes));
            chain.read(&bytes)?;
            has_seen |= seen == Some(manifest);
            last = Some(manifest);
        }
        if has_seen { Ok((last, chain)) } else { Err(other(vault, region).into()) }
    }

    /// This custodian's share of each object that the region's vault has, and its last manifest.
    fn live(
        &self,
        vault: &BaseUrl,
        region: &RegionId,
        seen: Option<(u64, Digest)>,
    ) -> anyhow::Result<((u64, Digest), Vec<ClosedShare>)> {
        let (last, chain) = self.chain(vault, region, seen)?;
        let last = last.ok_or_else(|| other(vault, region))?;
        let mut closed = Vec::new();
        for segment in chain.segments() {
            let url = vault.join(&format!("{}/{region}/segments/{}/{}", path::VAULT, segment.class, segment.segment));
            for kept in &segment.objects {
                let head = |bytes: u64| {
                    let end = kept.at.saturating_add(bytes.min(kept.bytes));
                    self.domain.client.get_piece(&url, kept.at..end)
                };
                let header = match Header::parse(&head(HEAD_BYTES)?) {
                    Ok((header, _)) => Ok(header),
                    Err(_) => Header::parse(&head(HEADER_BYTES_MAX as u64 + 4)?).map(|(header, _)| header),
                };
                let header = header.with_context(|| format!("object {} in {url}", kept.id))?;
                closed.extend(ClosedShare::of(&header, &self.domain.organisation));
            }
        }
        Ok((last, closed))
    }
}

fn other(vault: &BaseUrl, region: &RegionId) -> Failure {
    Failure::refused(format!("{vault} is not the vault of region `{region}` that was seen before, or is empty"))
        .hint("nothing was destroyed; compare `vault` in the configuration with the vendor's URL")
}
