//! Whose an object is: of whoever knows what its name was made of.

use std::str::FromStr;

use attest::{BatchId, RegionId, TYPE_BASE};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use stdx::{Digest, Entropy, EntropyError};
use zeroize::Zeroizing;

/// 32 random bytes, of one object, that its endpoint keeps: the object's name is made of them. Who shows them may
/// have it erased; nothing else follows from them.
pub struct OwnerSecret(Zeroizing<[u8; 32]>);

/// A text that is none.
#[derive(Debug, thiserror::Error)]
#[error("not what an object's name was made of: 64 lower-case hexadecimal digits")]
pub struct OwnerSecretError;

impl OwnerSecret {
    /// A fresh one.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn draw(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        let mut bytes = Zeroizing::new([0; 32]);
        entropy.fill(&mut *bytes)?;
        Ok(Self(bytes))
    }

    /// These.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The object's name: the first 16 bytes of the SHA-256 of `clerestory/owner/v1`, a line feed, and the secret.
    #[must_use]
    pub fn name(&self) -> BatchId {
        let digest = Sha256::new().chain_update(b"clerestory/owner/v1\n").chain_update(*self.0).finalize();
        let mut name = [0; 16];
        name.iter_mut().zip(digest.iter()).for_each(|(to, from)| *to = *from);
        BatchId::from_bytes(name)
    }

    /// As it is shown: written like a digest.
    #[must_use]
    pub fn to_digest(&self) -> Digest {
        Digest::from_bytes(*self.0)
    }

    /// 64 hexadecimal digits.
    #[must_use]
    pub fn to_text(&self) -> String {
        self.to_digest().to_string()
    }
}

impl FromStr for OwnerSecret {
    type Err = OwnerSecretError;

    fn from_str(text: &str) -> Result<Self, OwnerSecretError> {
        let digest: Digest = text.parse().map_err(|_| OwnerSecretError)?;
        Ok(Self::from_bytes(*digest.as_bytes()))
    }
}

const TYPE: &str = "erasure-file/v1";

/// A million objects' secrets take 67 MB; a request has fewer.
const FILE_BYTES_MAX: usize = 1 << 20;

/// What an owner brings to have objects erased: for each what its name was made of.
pub struct ErasureFile {
    /// The region that keeps them, as their receipts say.
    pub region: RegionId,
    /// One for each object.
    pub owners: Vec<OwnerSecret>,
}

/// A file that is none.
#[derive(Debug, thiserror::Error)]
#[error("no request to erase: {0}")]
pub struct ErasureFileError(String);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(rename = "type")]
    file_type: String,
    region: RegionId,
    owners: Vec<String>,
}

impl ErasureFile {
    /// Reads what [`to_bytes`](Self::to_bytes) gave.
    ///
    /// # Errors
    /// [`ErasureFileError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ErasureFileError> {
        let bad = |why: &dyn std::fmt::Display| ErasureFileError(why.to_string());
        if bytes.len() > FILE_BYTES_MAX {
            return Err(bad(&"it is too long"));
        }
        let written: Written = serde_json::from_slice(bytes).map_err(|error| bad(&error))?;
        if written.file_type != format!("{TYPE_BASE}{TYPE}") {
            return Err(bad(&"it is of another type"));
        }
        let owners = written.owners.iter().map(|text| text.parse::<OwnerSecret>());
        let owners = owners.collect::<Result<_, _>>().map_err(|error| bad(&error))?;
        Ok(Self { region: written.region, owners })
    }

    /// JSON.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (file_type, region) = (format!("{TYPE_BASE}{TYPE}"), self.region.clone());
        let owners = self.owners.iter().map(OwnerSecret::to_text).collect();
        serde_json::to_vec(&Written { file_type, region, owners }).expect("strings are always JSON")
    }
}
