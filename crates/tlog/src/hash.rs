//! Merkle tree hashes (RFC 6962, section 2.1, with SHA-256).

use std::{fmt, str};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

use crate::text;

/// The hash of a leaf, of a node or of a whole tree; written as padded standard base64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash([u8; 32]);

impl Hash {
    /// The hash with these 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The hash of a log entry: SHA-256 of 0x00 and the entry.
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Hash {
    Hash(Sha256::new().chain_update([0]).chain_update(entry).finalize().into())
}

/// The hash of the node above `left` and `right`: SHA-256 of 0x01 and both.
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "the three parts make 65 bytes")]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    // One buffer, one update: this is what a log spends its time on.
    let mut input = [1; 65];
    let (first, second) = input.split_last_chunk_mut::<32>().expect("65 bytes hold 32");
    second.copy_from_slice(&right.0);
    first.last_chunk_mut::<32>().expect("33 bytes hold 32").copy_from_slice(&left.0);
    Hash(Sha256::digest(input).into())
}

/// The root of the tree without entries: SHA-256 of nothing.
#[must_use]
pub const fn empty_root() -> Hash {
    // The constant saves a hash; a test computes it.
    Hash([
        0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae,
        0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
    ])
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        text::base64_display(&self.0).fmt(f)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A text that is not 32 bytes in canonical padded base64.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not 32 bytes in standard base64")]
pub struct HashError(String);

impl str::FromStr for Hash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        text::base64_decode_array(text).map(Self).ok_or_else(|| HashError(text::excerpt(text)))
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
