//! Which objects a region has, as the chain of its manifests says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use attest::{CountryCode, DataClass, RegionId};
use futures::future::try_join_all;
use seal::BatchId;
use stdx::{Digest, UnixTime};
use tokio::sync::{Mutex, MutexGuard};
use vault::{Chain, ChainError, Kept, MANIFESTS_AT_ONCE_MAX, Segment};

use crate::choose::{TooLarge, Wish, choose};
use crate::ciphertext::{Place, Vault, VaultError};

/// An object, where it lies, and what is known of it without opening it.
#[derive(Clone, Debug)]
pub struct Located {
    /// Its name.
    pub id: BatchId,
    /// Whence it came.
    pub country: CountryCode,
    /// The segment that it is in.
    pub place: Place,
    /// Where in the segment it begins.
    pub at: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Bytes of the whole segment.
    pub segment_bytes: u64,
    /// SHA-256 of its header.
    pub header: Digest,
    /// When its events were taken.
    pub taken: Taken,
}

/// When its events were taken.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// The first of them,
    pub first: UnixTime,
    /// the last of them,
    pub last: UnixTime,
    /// and how they are written.
    pub form: Form,
}

/// What is inside of the seal: a worker's own output is columnar, and the manifest says so; whatever came from an
/// endpoint is read as lines, whatever it looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One event a line, of JSON.
    Lines,
    /// Parquet.
    Columns,
}

/// The objects of one region.
pub(crate) struct Catalog {
    vault: Arc<dyn Vault>,
    region: RegionId,
    chain: Mutex<Chain>,
}

/// Why it is not known which objects there are.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The vault failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// Its manifests are no chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// What is to be written anew can't be.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

impl Catalog {
    pub(crate) fn new(vault: Arc<dyn Vault>, region: RegionId) -> Self {
        let chain = Mutex::new(Chain::new(region.clone()));
        Self { vault, region, chain }
    }

    pub(crate) fn vault(&self) -> &Arc<dyn Vault> {
        &self.vault
    }

    /// The chain as it is now.
    async fn newest(&self) -> Result<MutexGuard<'_, Chain>, CatalogError> {
        let mut chain = self.chain.lock().await;
        let mut at_once = 1;
        loop {
            let (next, region) = (chain.next(), &self.region);
            let asked = (next..next.saturating_add(at_once)).map(|number| self.vault.manifest(region, number));
            for manifest in try_join_all(asked).await? {
                let Some(manifest) = manifest else { return Ok(chain) };
                chain.read(&manifest)?;
            }
            at_once = (at_once * 2).min(MANIFESTS_AT_ONCE_MAX);
        }
    }

    /// Reads what has come since.
    pub(crate) async fn catch_up(&self) -> Result<(), CatalogError> {
        self.newest().await.map(drop)
    }

    /// All objects of a class from these countries, in the order in which they lie.
    pub(crate) async fn objects(
        &self,
        class: &DataClass,
        countries: &[CountryCode],
    ) -> Result<Vec<Located>, CatalogError> {
        let chain = self.newest().await?;
        let segments = chain.segments().filter(|segment| segment.class == *class);
        let located = segments.flat_map(|segment| self.located(segment));
        // What was erased no custodian opens, and all else with it neither.
        Ok(located.filter(|it| countries.contains(&it.country) && !chain.is_erased(&it.id)).collect())
    }

    /// All objects of the segments that are to be written anew next. Those that have objects which no custodian opens any
    /// more the vault itself writes anew first.
    pub(crate) async fn to_rewrite(&self, wish: &Wish<'_>) -> Result<Vec<Located>, CatalogError> {
        let chain = self.newest().await?;
        let opens = |segment: &&Segment| segment.objects.iter().all(|kept| !chain.is_erased(&kept.id));
        let chosen = choose(chain.segments().filter(opens), chain.unclean(), wish)?;
        Ok(chosen.into_iter().flat_map(|segment| self.located(segment)).collect())
    }

    /// What is to be erased of what these segments were made of, each with what shows it.
    pub(crate) async fn erased_in(
        &self,
        segments: &BTreeSet<Digest>,
    ) -> Result<BTreeMap<BatchId, Digest>, CatalogError> {
        let chain = self.newest().await?;
        Ok(segments.iter().flat_map(|segment| chain.erased_in(segment)).collect())
    }

    fn located(&self, segment: &Segment) -> Vec<Located> {
        let place = Place { region: self.region.clone(), class: segment.class.clone(), segment: segment.segment };
        let (first, last) = (segment.from.unwrap_or(segment.until), segment.until);
        let segment_bytes = segment.objects.iter().map(|kept| kept.at.saturating_add(kept.bytes)).max().unwrap_or(0);
        let object = |kept: &Kept| {
            let taken = if segment.has_lines(&kept.id) {
                Taken { first: last, last, form: Form::Lines }
            } else {
                Taken { first, last, form: Form::Columns }
            };
            Located {
                id: kept.id,
                country: kept.country,
                place: place.clone(),
                at: kept.at,
                bytes: kept.bytes,
                segment_bytes,
                header: kept.header,
                taken,
            }
        };
        segment.objects.iter().map(object).collect()
    }
}
