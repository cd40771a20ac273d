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
