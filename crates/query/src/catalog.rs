//! Which objects a region has, as the chain of its manifests says.

use std::sync::Arc;

use attest::{CountryCode, DataClass, RegionId};
use seal::BatchId;
use stdx::{Digest, UnixTime};
use tokio::sync::Mutex;
use vault::{Chain, ChainError};

use crate::ciphertext::{Place, Vault, VaultError};

/// An object, where it lies, and what is known of it without opening it.
#[derive(Clone, Debug)]
pub(crate) struct Located {
    pub(crate) id: BatchId,
    pub(crate) country: CountryCode,
    pub(crate) place: Place,
    /// Where in the segment it begins.
    pub(crate) at: u64,
    pub(crate) bytes: u64,
    /// SHA-256 of its header.
    pub(crate) header: Digest,
    pub(crate) taken: Taken,
}

/// When its events were taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) first: UnixTime,
    pub(crate) last: UnixTime,
    pub(crate) form: Form,
}

/// What is inside of the seal: a worker's own output is columnar, and the manifest says so; whatever came from an
/// endpoint is read as lines, whatever it looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Lines,
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
}

impl Catalog {
    pub(crate) fn new(vault: Arc<dyn Vault>, region: RegionId) -> Self {
        let chain = Mutex::new(Chain::new(region.clone()));
        Self { vault, region, chain }
    }

    pub(crate) fn vault(&self) -> &Arc<dyn Vault> {
        &self.vault
    }

    /// All objects of a class from these countries, in the order in which they lie.
    pub(crate) async fn objects(
        &self,
        class: &DataClass,
        countries: &[CountryCode],
    ) -> Result<Vec<Located>, CatalogError> {
        let mut chain = self.chain.lock().await;
        while let Some(manifest) = self.vault.manifest(&self.region, chain.next()).await? {
            chain.read(&manifest)?;
        }
        let mut located = Vec::new();
        for segment in chain.segments().filter(|segment| segment.class == *class) {
            let place = Place { region: self.region.clone(), class: class.clone(), segment: segment.segment };
            let form = if segment.from.is_some() { Form::Columns } else { Form::Lines };
            let taken = Taken { first: segment.from.unwrap_or(segment.until), last: segment.until, form };
            for kept in segment.objects.iter().filter(|kept| countries.contains(&kept.country)) {
                located.push(Located {
                    id: kept.id,
                    country: kept.country,
                    place: place.clone(),
                    at: kept.at,
                    bytes: kept.bytes,
                    header: kept.header,
                    taken,
                });
            }
        }
        Ok(located)
    }
}
