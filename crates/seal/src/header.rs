//! What stands before the frames, for everybody to read.

use attest::{BatchId, CountryCode, DataClass, OrganisationId, RegionId, StatementId, TYPE_BASE};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use stdx::Digest;

use crate::frames::{FRAME_BYTES, Frame, TAG_BYTES};
use crate::key::Kem;
use crate::object::{OBJECT_BYTES_MAX, OpenError};
use crate::share::Wrapped;

const TYPE: &str = "sealed/v1";

/// A region with more custodians than this is slower, not safer.
pub const CUSTODIANS_MAX: usize = 8;

/// Eight shares of 1.9 KB each (X-Wing's encapsulated key has 1,120 bytes, in base64), and the rest.
pub const HEADER_BYTES_MAX: usize = 20 << 10;

/// What an object's key is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bound {
    /// The object.
    pub id: BatchId,
    /// Where it is stored and processed, and nowhere else.
    pub region: RegionId,
    /// The country of whoever it came from, which the policy assigns to the region.
    pub country: CountryCode,
    /// What kind of data it is.
    pub class: DataClass,
    /// The policy that assigned the region.
    pub policy: StatementId,
}

impl Bound {
    /// HPKE's `info` for a custodian's share.
    #[must_use]
    pub fn info(&self, custodian: &OrganisationId) -> Vec<u8> {
        format!("{}{custodian}\n", self.text()).into_bytes()
    }

    /// The salt of the keys that are derived.
    pub(crate) fn salt(&self) -> Digest {
        Digest::of(self.text().as_bytes())
    }

    fn text(&self) -> String {
        let Self { id, region, country, class, policy } = self;
        format!("clerestory/share/v1\n{id}\n{region}\n{country}\n{class}\n{policy}\n")
    }
}

/// A share, sealed to its custodian.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedShare {
    /// The custodian.
    pub custodian: OrganisationId,
    /// How.
    pub kem: Kem,
    /// SHA-256 of the key that opens it, as text.
    pub key: Digest,
    encapsulated: String,
    sealed: String,
}

impl SealedShare {
    pub(crate) fn new(custodian: OrganisationId, kem: Kem, key: Digest, wrapped: &Wrapped) -> Self {
        let (encapsulated, sealed) = (STANDARD.encode(&wrapped.encapsulated), STANDARD.encode(&wrapped.sealed));
        Self { custodian, kem, key, encapsulated, sealed }
    }

    /// What the custodian opens.
    #[must_use]
    pub fn wrapped(&self) -> Option<Wrapped> {
        let decode = |text: &String| STANDARD.decode(text).ok();
        Some(Wrapped { encapsulated: decode(&self.encapsulated)?, sealed: decode(&self.sealed)? })
    }
}

/// What stands before an object's frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    #[serde(rename = "type")]
    header_type: String,
    /// What the key is bound to.
    pub bound: Bound,
    /// Bytes of plaintext.
    pub bytes: u64,
    /// What the right key, and no other, derives.
    pub commitment: Digest,
    /// One for each custodian of the region, ascending by its name.
    pub shares: Vec<SealedShare>,
}

impl Header {
    pub(crate) fn new(bound: Bound, bytes: u64, commitment: Digest, shares: Vec<SealedShare>) -> Self {
        Self { header_type: format!("{TYPE_BASE}{TYPE}"), bound, bytes, commitment, shares }
    }

    /// The canonical encoding.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and integers are always JSON")
    }

    /// Reads the header at the beginning of `object`, of which there may be less than the whole; gives
    /// where the frames begin too.
    ///
    /// # Errors
    /// [`OpenError::Header`].
    pub fn parse(object: &[u8]) -> Result<(Self, usize), OpenError> {
        let refuse = |why: &str| OpenError::Header(why.to_owned());
        let (length, rest) = object.split_first_chunk::<4>().ok_or_else(|| refuse("is cut off"))?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| refuse("is too long"))?;
        if length > HEADER_BYTES_MAX {
            return Err(refuse("is too long"));
        }
        let bytes = rest.get(..length).ok_or_else(|| refuse("is cut off"))?;
        Ok((Self::decode(bytes)?, 4 + length))
    }

    /// Reads what [`to_bytes`](Self::to_bytes) gave.
    ///
    /// # Errors
    /// [`OpenError::Header`].
    pub fn decode(bytes: &[u8]) -> Result<Self, OpenError> {
        let refuse = |why: &str| OpenError::Header(why.to_owned());
        if bytes.len() > HEADER_BYTES_MAX {
            return Err(refuse("is too long"));
        }
        let header: Self = serde_json::from_slice(bytes).map_err(|error| OpenError::Header(error.to_string()))?;
        if header.header_type != format!("{TYPE_BASE}{TYPE}") || header.to_bytes() != bytes {
            return Err(refuse("is not in canonical form"));
        }
        let ascending = header.shares.is_sorted_by(|left, right| left.custodian < right.custodian);
        if !ascending || !(2..=CUSTODIANS_MAX).contains(&header.shares.len()) {
            return Err(refuse("has too few shares, too many, or two of one custodian"));
        }
        if header.shares.iter().all(|share| share.kem != Kem::XWing) {
            return Err(refuse("has no share for an `x-wing` key"));
        }
        if header.bytes > OBJECT_BYTES_MAX {
            return Err(refuse("claims more bytes than an object has"));
        }
        Ok(header)
    }

    /// How many frames follow.
    #[must_use]
    pub const fn frames(&self) -> u64 {
        Frame::count(self.bytes)
    }

    /// Bytes of all frames.
    #[must_use]
    pub const fn frames_bytes(&self) -> u64 {
        self.bytes + self.frames() * TAG_BYTES as u64
    }

    /// Where in the frames the one with this number lies, if there is one.
    #[must_use]
    pub fn place(&self, number: u64) -> Option<std::ops::Range<u64>> {
        let whole = (FRAME_BYTES + TAG_BYTES) as u64;
        let start = number.checked_mul(whole)?;
        (number < self.frames()).then(|| start..(start + whole).min(self.frames_bytes()))
    }
}
