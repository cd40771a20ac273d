//! Erasing what owners want gone: custodians and the vault are told, and it is not over before nothing is left of it, also
//! in what workers have made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use api::{BaseUrl, BodyLimit, Client, ErasureAnswer, ErasureNote, VaultErased, VaultErasure, path};
use async_trait::async_trait;
use attest::{
    BUNDLE_BYTES_MAX, BatchId, Bundle, BundleEntry, Envelope, Erasure, ErasureRequest, OrganisationId, RegionId,
    Statement,
};
use custody::{ERASED_MAX, erasure_subject};
use seal::OwnerSecret;
use serde::{Deserialize, Serialize};
use stdx::{Digest, UnixTime};
use storage::{Folder, Listing};
use vault::{Lineage, MANIFEST_BYTES_MAX};

use super::Supervisor;
use super::region::record;
use crate::duty::OnDuty;
use crate::failure::Failure;
use crate::http;
use crate::metrics::{Probe, Reason, metrics};

/// A vault rewrites segments of 64 MiB; a custodian its table.
const TIME_MAX: Duration = Duration::from_secs(300);
const ANSWER_BYTES_MAX: BodyLimit = BodyLimit(2 * BUNDLE_BYTES_MAX as u64);

/// How often what is not over is looked at: the vendor compacts once an hour.
const LOOK: Duration = Duration::from_secs(600);

/// The catalog's tables, by region and by the SHA-256 of the objects' names: logged requests, and erasures.
const REQUESTS: &str = "erasure-request";
const ERASURES: &str = "erasure";

/// What is to be erased, and who has it.
pub(crate) struct Wanted {
    pub(crate) region: RegionId,
    /// For each object what its name was made of.
    pub(crate) owners: Vec<OwnerSecret>,
    /// Where the region's vault is.
    pub(crate) vault: BaseUrl,
    /// When it must be over.
    pub(crate) deadline: UnixTime,
}

/// An erasure, as far as it has come: what the server goes on from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Erasing {
    pub(crate) region: RegionId,
    pub(crate) objects: BTreeSet<BatchId>,
    vault: String,
    pub(crate) deadline: UnixTime,
    /// Whether custodians and vault were told of the objects: only with what their owner has brought can they be.
    told: bool,
    /// What workers had made of them, and custodians have erased.
    pub(crate) columns: BTreeSet<BatchId>,
    /// What has events of them, and is to be made anew; or is one of them, and still there.
    pub(crate) left: BTreeSet<BatchId>,
    /// What workers had made of them, and was gone before anybody said what its name was made of.
    pub(crate) unnamed: BTreeSet<BatchId>,
    /// Until when each custodian could still open its shares, with what it had before.
    pub(crate) custodians: BTreeMap<OrganisationId, UnixTime>,
    /// Bundles: each request, with every custodian's word.
    receipts: Vec<String>,
}

impl Erasing {
    /// Whether nothing is left of it in the vault.
    pub(crate) fn is_over(&self) -> bool {
        self.told && self.left.is_empty()
    }

    /// Until when everything that was copied before could still be opened; unknown as long as something is left, or has
    /// gone without a word on what its name was made of.
    pub(crate) fn horizon(&self) -> Option<UnixTime> {
        self.custodians.values().max().copied().filter(|_| self.is_over() && self.unnamed.is_empty())
    }

    /// For the owner.
    pub(crate) fn receipt(&self) -> anyhow::Result<Bundle> {
        let mut entries = Vec::new();
        for receipt in &self.receipts {
            entries.extend(Bundle::parse(receipt.as_bytes())?.entries().iter().cloned());
        }
        Ok(Bundle::new(entries)?)
    }

    /// The request that the owner's objects are in.
    pub(crate) fn request(&self) -> anyhow::Result<BundleEntry> {
        let first = self.receipts.first().context("nothing was requested yet")?;
        Bundle::parse(first.as_bytes())?.entries().first().cloned().context("a bundle has no entry")
    }

    fn take(&mut self, carried: Carried) -> anyhow::Result<()> {
        for (custodian, until) in carried.custodians {
            let known = self.custodians.entry(custodian).or_insert(until);
            *known = until.max(*known);
        }
        let bundle = String::from_utf8(carried.bundle.to_bytes())?;
        if !self.receipts.contains(&bundle) {
            self.receipts.push(bundle);
        }
        Ok(())
    }
}

/// A request that every custodian has carried out.
struct Carried {
    bundle: Bundle,
    custodians: BTreeMap<OrganisationId, UnixTime>,
}

impl Supervisor {
    /// Has objects erased, as far as that can be done now; what workers have made of them the server goes on with. Safe to
    /// repeat. Gives how many objects the vault has deleted with this.
    ///
    /// # Errors
    /// When a custodian or the vault has not done its part: repeat it.
    pub(crate) async fn erase(&self, wanted: &Wanted) -> anyhow::Result<(Erasing, usize)> {
        let objects: BTreeSet<BatchId> = wanted.owners.iter().map(OwnerSecret::name).collect();
        let key = key_of(&wanted.region, &objects);
        let known = self.domain.catalog().record(&record(ERASURES, &key)?).await?;
        let new = Erasing {
            region: wanted.region.clone(),
            left: objects.clone(),
            objects,
            vault: wanted.vault.to_string(),
            deadline: wanted.deadline,
            told: false,
            columns: BTreeSet::new(),
            unnamed: BTreeSet::new(),
            custodians: BTreeMap::new(),
            receipts: Vec::new(),
        };
        let mut erasing = known.map_or(Ok(new), |bytes| serde_json::from_slice(&bytes))?;
        erasing.vault = wanted.vault.to_string();
        self.keep(&erasing).await?;
        let carried = self.carry_out(&wanted.region, &wanted.owners, wanted.deadline).await?;
        let evidence = String::from_utf8(carried.bundle.to_bytes())?;
        erasing.take(carried)?;
        let url = wanted.vault.join(path::VAULT_ERASURES);
        let (client, note) = (self.domain.client.with_timeout(TIME_MAX), VaultErasure { evidence });
        let erased: VaultErased = tokio::task::block_in_place(|| client.post_json(&url, &note, ANSWER_BYTES_MAX))
            .context("custodians open it no more, but the vault still has it; repeat the command")?;
        erasing.told = true;
        self.go_on(&mut erasing).await?;
        Ok((erasing, erased.erased))
    }

    /// Looks at what the vault has now, and has custodians erase what workers had made of the objects and others have
    /// replaced.
    async fn go_on(&self, erasing: &mut Erasing) -> anyhow::Result<()> {
        let vault: BaseUrl = erasing.vault.parse()?;
        let sought = erasing.objects.clone();
        let mut lineage = Lineage::new(erasing.region.clone(), move |kept| sought.contains(&kept.id));
        tokio::task::block_in_place(|| read_manifests(&self.domain.client, &vault, &mut lineage))?;
        let there = lineage.there();
        let gone = lineage.found().filter(|(id, descent)| descent.is_made && !there.contains(*id));
        let new = gone.map(|(id, _)| *id).filter(|id| !erasing.columns.contains(id));
        let (named, unnamed): (Vec<BatchId>, Vec<BatchId>) = new.partition(|id| lineage.owner(id).is_some());
        for some in named.chunks(ERASED_MAX) {
            let owners = some.iter().filter_map(|id| lineage.owner(id));
            let owners: Vec<_> = owners.map(|owner| OwnerSecret::from_bytes(*owner.as_bytes())).collect();
            erasing.take(self.carry_out(&erasing.region, &owners, erasing.deadline).await?)?;
            erasing.columns.extend(some);
            self.keep(erasing).await?;
        }
        (erasing.left, erasing.unnamed) = (there, unnamed.into_iter().collect());
        self.keep(erasing).await
    }

    /// Logs a request, once for the same objects, and has every custodian carry it out.
    async fn carry_out(
        &self,
        region: &RegionId,
        owners: &[OwnerSecret],
        deadline: UnixTime,
    ) -> anyhow::Result<Carried> {
        let objects: BTreeSet<BatchId> = owners.iter().map(OwnerSecret::name).collect();
        let access = self.config.access.as_ref().ok_or_else(|| {
            Failure::usage("only the gateway's supervisor can do this").hint("it has a section `[access]`")
        })?;
        let key = record(REQUESTS, &key_of(region, &objects))?;
        let request = match self.domain.catalog().record(&key).await? {
            Some(bytes) => Bundle::parse(&bytes)?,
            None => {
                let request = Bundle::new(vec![self.request_erasure(region, objects, deadline).await?])?;
                self.domain.catalog().put(&key, request.to_bytes().into()).await?;
                request
            }
        };
        let client = self.domain.client.with_timeout(TIME_MAX);
        let evidence = String::from_utf8(request.to_bytes())?;
        let mut carried = Carried { bundle: request, custodians: BTreeMap::new() };
        for (custodian, url) in &access.custodians {
            let owners = owners.iter().map(OwnerSecret::to_text).collect();
            let note = ErasureNote { region: region.clone(), evidence: evidence.clone(), owners };
            let (receipt, until) = ask_custodian(&client, url, &note)
                .with_context(|| format!("custodian `{custodian}` has not erased it yet; repeat the command"))?;
            carried.bundle = carried.bundle.with(&receipt)?;
            carried.custodians.insert(custodian.clone(), until);
        }
        anyhow::ensure!(!carried.custodians.is_empty(), "the gateway knows no custodians");
        Ok(carried)
    }

    /// Signs and logs that objects are to be erased, for whoever has shown that they are theirs.
    ///
    /// # Errors
    /// When the log fails.
    pub(crate) async fn request_erasure(
        &self,
        region: &RegionId,
        objects: BTreeSet<BatchId>,
        deadline: UnixTime,
    ) -> anyhow::Result<BundleEntry> {
        let stream = self.domain.stream(&format!("access/{}", self.domain.organisation))?;
        let objects: Vec<BatchId> = objects.into_iter().collect();
        let make = |position| {
            let (region, objects) = (region.clone(), objects.clone());
            let subject = vec![erasure_subject(&objects)];
            let predicate = ErasureRequest { position, region, objects, deadline };
            Ok(Envelope::sign(Statement { subject, predicate }.encode()?, &[&self.recorder])?)
        };
        Ok(stream.write(make).await?)
    }

    async fn keep(&self, erasing: &Erasing) -> anyhow::Result<()> {
        let key = record(ERASURES, &key_of(&erasing.region, &erasing.objects))?;
        Ok(self.domain.catalog().put(&key, serde_json::to_vec(erasing)?.into()).await?)
    }

    /// Every erasure that this supervisor knows of.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn erasures(&self) -> anyhow::Result<Vec<Erasing>> {
        let (table, mut listing) = (ERASURES.parse()?, Listing::of(Folder::Root));
        let mut all = Vec::new();
        loop {
            let page = self.domain.catalog().list(&table, &listing).await?;
            let Some(last) = page.last().map(|it| it.key.clone()) else { return Ok(all) };
            for it in page {
                all.push(serde_json::from_slice(&it.bytes)?);
            }
            listing = listing.after(last);
        }
    }

    /// Goes on with what is not over, while this process is on duty, until told to stop.
    ///
    /// # Errors
    /// Never: what fails is tried again.
    pub async fn keep_erasing(self: Arc<Self>, mut duty: OnDuty, mut stop: http::Stop) -> anyhow::Result<()> {
        loop {
            if duty.borrow_and_update().is_here()
                && let Err(error) = self.go_on_with_all().await
            {
                tracing::error!("an erasure is not over, and is tried again: {error:#}");
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                Ok(()) = duty.changed() => {}
                _ = stop.changed() => return Ok(()),
            }
        }
    }

    async fn go_on_with_all(&self) -> anyhow::Result<()> {
        for mut erasing in self.erasures().await?.into_iter().filter(|it| it.told && !it.is_over()) {
            self.go_on(&mut erasing).await?;
            if erasing.is_over() {
                tracing::info!(region = %erasing.region, horizon = ?erasing.horizon(), "an erasure is over");
            }
        }
        Ok(())
    }
}

/// Nothing may be left of what was to be gone by now.
pub(crate) struct ErasureProbe(pub(crate) Arc<Supervisor>);

#[async_trait]
impl Probe for ErasureProbe {
    async fn look(&self) -> Vec<Reason> {
        let erasures = match self.0.erasures().await {
            Ok(erasures) => erasures,
            Err(error) => return vec![Reason::new("erasure", format!("{error:#}"))],
        };
        let (open, now) = (erasures.iter().filter(|it| !it.is_over()), self.0.domain.clock.now());
        let late: Vec<&Erasing> = open.clone().filter(|it| it.deadline < now).collect();
        metrics().erasures(open.count(), late.len());
        let reason = |it: &&Erasing| {
            let (left, region, deadline) = (it.left.len(), &it.region, it.deadline);
            let problem = format!("{left} objects of region `{region}` were to be gone by {deadline}, and are not");
            Reason::new("erasure", problem)
        };
        late.iter().map(reason).collect()
    }
}

/// All manifests of a region, in their order.
///
/// # Errors
/// When the vault can't be reached, or what it has is no chain.
pub(crate) fn read_manifests(client: &Client, vault: &BaseUrl, lineage: &mut Lineage) -> anyhow::Result<()> {
    let region = lineage.chain().region().clone();
    loop {
        let url = vault.join(&format!("{}/{region}/manifests/{}", path::VAULT, lineage.chain().next()));
        let Some(bytes) = client.find(&url, BodyLimit(MANIFEST_BYTES_MAX as u64))? else { return Ok(()) };
        lineage.read(&bytes)?;
    }
}

fn key_of(region: &RegionId, objects: &BTreeSet<BatchId>) -> String {
    let names: Vec<BatchId> = objects.iter().copied().collect();
    let name: Digest = erasure_subject(&names).sha256();
    format!("{region}/{name}")
}

fn ask_custodian(client: &Client, url: &BaseUrl, note: &ErasureNote) -> anyhow::Result<(Bundle, UnixTime)> {
    let url = url.join(path::ERASURES);
    let answer: ErasureAnswer = tokio::task::block_in_place(|| client.post_json(&url, note, ANSWER_BYTES_MAX))?;
    let receipt = Bundle::parse(answer.receipt.as_bytes())?;
    let entry = receipt.entries().first().context("it has given no receipt")?;
    let says = Statement::<Erasure>::decode(entry.envelope.payload())?.predicate;
    Ok((receipt, says.horizon))
}
