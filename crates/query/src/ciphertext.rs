//! The vault, as a worker sees it: manifests, and ciphertext by ranges. It is a stranger: manifests are checked
//! as a chain, objects by their headers and their frames.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use api::BaseUrl;
use async_trait::async_trait;
use attest::{BUNDLE_BYTES_MAX, DataClass, RegionId};
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt as _;
use stdx::Digest;
use vault::MANIFEST_BYTES_MAX;

/// A range is answered within this time, or not at all.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A segment of a region.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The region.
    pub region: RegionId,
    /// The class of all objects in it.
    pub class: DataClass,
    /// SHA-256 of it, its name.
    pub segment: Digest,
}

/// Why the vault gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// No answer, or not this one.
    #[error("the vault: `{what}`: {why}")]
    Failed {
        /// What was asked for.
        what: String,
        /// Why it did not come.
        why: String,
    },
}

impl VaultError {
    fn new(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self::Failed { what: what.to_string(), why: why.to_string() }
    }
}

/// The port to a vault's ciphertext.
///
/// - *Trust*: none. What it gives is checked by who reads it.
#[async_trait]
pub trait Vault: fmt::Debug + Send + Sync {
    /// A manifest of `region`, if it is there yet.
    async fn manifest(&self, region: &RegionId, number: u64) -> Result<Option<Bytes>, VaultError>;

    /// The bundle of this SHA-256, which shows that objects are to be erased.
    async fn evidence(&self, region: &RegionId, evidence: &Digest) -> Result<Bytes, VaultError>;

    /// These bytes of a segment: as many as were asked for.
    async fn read(&self, place: &Place, range: Range<u64>) -> Result<Bytes, VaultError>;
}

/// A vault over HTTP.
#[derive(Clone, Debug)]
pub struct HttpVault {
    base: BaseUrl,
    client: reqwest::Client,
}

impl HttpVault {
    /// The vault at `base`.
    ///
    /// # Errors
    /// When the client can't be made.
    pub fn new(base: BaseUrl) -> Result<Self, VaultError> {
        let client = reqwest::Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none()).build();
        let client = client.map_err(|error| VaultError::new(&base, error))?;
        Ok(Self { base, client })
    }

    async fn body(url: &str, response: reqwest::Response, limit: u64) -> Result<Bytes, VaultError> {
        let failed = |error: reqwest::Error| VaultError::new(url, error);
        let mut body = BytesMut::with_capacity(usize::try_from(limit.min(1 << 20)).unwrap_or_default());
        let mut stream = response.bytes_stream();
        while let Some(piece) = stream.try_next().await.map_err(failed)? {
            if (body.len() + piece.len()) as u64 > limit {
                return Err(VaultError::new(url, format!("longer than {limit} bytes")));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }
}

#[async_trait]
impl Vault for HttpVault {
    async fn manifest(&self, region: &RegionId, number: u64) -> Result<Option<Bytes>, VaultError> {
        let url = self.base.join(&format!("{}/{region}/manifests/{number}", api::path::VAULT));
        let response = self.client.get(&url).send().await.map_err(|error| VaultError::new(&url, error))?;
        match response.status().as_u16() {
            404 => Ok(None),
            200 => Ok(Some(Self::body(&url, response, MANIFEST_BYTES_MAX as u64).await?)),
            status => Err(VaultError::new(&url, format!("status {status}"))),
        }
    }

    async fn evidence(&self, region: &RegionId, evidence: &Digest) -> Result<Bytes, VaultError> {
        let url = self.base.join(&format!("{}/{region}/erasures/{evidence}", api::path::VAULT));
        let response = self.client.get(&url).send().await.map_err(|error| VaultError::new(&url, error))?;
        match response.status().as_u16() {
            200 => Self::body(&url, response, BUNDLE_BYTES_MAX as u64).await,
            status => Err(VaultError::new(&url, format!("status {status}"))),
        }
    }

    async fn read(&self, place: &Place, range: Range<u64>) -> Result<Bytes, VaultError> {
        let Place { region, class, segment } = place;
        let url = self.base.join(&format!("{}/{region}/segments/{class}/{segment}", api::path::VAULT));
        let (length, last) = (range.end.saturating_sub(range.start), range.end.saturating_sub(1));
        let asked = self.client.get(&url).header("range", format!("bytes={}-{last}", range.start));
        let response = asked.send().await.map_err(|error| VaultError::new(&url, error))?;
        if response.status().as_u16() != 206 {
            return Err(VaultError::new(&url, format!("status {} for a range", response.status())));
        }
        let body = Self::body(&url, response, length).await?;
        if body.len() as u64 == length { Ok(body) } else { Err(VaultError::new(&url, "less than was asked for")) }
    }
}
