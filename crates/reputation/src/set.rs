//! `hashes.fuse`: the set of known-bad files, as a binary fuse filter (`docs/formats/lookup.md`).

use stdx::{Digest, Hasher};
use xorf::{BinaryFuse16, Descriptor, Filter as _};

/// The first bytes of a file, which say what it is.
const MAGIC: &[u8; 18] = b"clerestory-fuse 1\n";

/// Magic, salt, four numbers of 32 bits and the seed's 64.
const HEADER_BYTES: usize = MAGIC.len() + 32 + 4 * 4 + 8;

/// Four million: years of one feed, in nine megabytes.
pub const HASHES_MAX: usize = 1 << 22;

/// The filter takes 1.125 places for each hash, and for few of them up to three segments more;
/// twice the number of hashes is above both from 2^16 on, and small files are small.
const PLACES_MAX: usize = 2 * HASHES_MAX;

/// No file is longer.
pub const SET_BYTES_MAX: usize = HEADER_BYTES + 2 * PLACES_MAX;

/// `xorf` makes none longer.
const SEGMENT_MAX: u32 = 1 << 18;

/// Why a set can't be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BuildError {
    /// Nothing to make it of.
    #[error("no hashes; a set without any says nothing")]
    Empty,
    /// More than endpoints take.
    #[error("{0} hashes; a set holds at most {HASHES_MAX}")]
    TooMany(usize),
    /// The filter can't be made of these hashes.
    #[error("no filter can be made of these {0} hashes")]
    Construction(usize),
}

/// Why a file is no set.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SetError {
    /// Another format.
    #[error("does not begin with `clerestory-fuse 1`")]
    Magic,
    /// Longer or shorter than its header says.
    #[error("{has} bytes; its header makes it {needed}")]
    Length {
        /// What it has.
        has: usize,
        /// What it should have.
        needed: usize,
    },
    /// A number that no builder writes.
    #[error("`{0}` is no number that a builder writes")]
    Number(&'static str),
}

/// A set of known-bad files.
#[derive(Clone, Debug)]
pub struct ReputationSet {
    salt: Digest,
    hashes: u32,
    filter: BinaryFuse16,
}

impl ReputationSet {
    /// The set of `hashes`, whatever their order and however often each stands there.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn build(mut hashes: Vec<Digest>) -> Result<Self, BuildError> {
        hashes.sort_unstable();
        hashes.dedup();
        if hashes.is_empty() {
            return Err(BuildError::Empty);
        }
        let count = match u32::try_from(hashes.len()) {
            Ok(count) if hashes.len() <= HASHES_MAX => count,
            _ => return Err(BuildError::TooMany(hashes.len())),
        };
        let mut hasher = Hasher::default();
        hashes.iter().for_each(|hash| hasher.update(hash.as_bytes()));
        // Whoever writes a list must not choose where its hashes fall: the salt is of all of them.
        let salt = hasher.finish();
        let mut keys: Vec<u64> = hashes.iter().map(|hash| key(&salt, hash)).collect();
        keys.sort_unstable();
        keys.dedup();
        let filter = BinaryFuse16::try_from(&keys).map_err(|_| BuildError::Construction(hashes.len()))?;
        Ok(Self { salt, hashes: count, filter })
    }

    /// Reads a file; it is not trusted.
    ///
    /// # Errors
    /// [`SetError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, SetError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(SetError::Magic)?;
        let short = SetError::Length { has: bytes.len(), needed: HEADER_BYTES };
        let Some((salt, rest)) = rest.split_first_chunk::<32>() else { return Err(short) };
        let Some((numbers, places)) = rest.split_first_chunk::<24>() else { return Err(short) };
        let mut words = numbers.as_chunks::<4>().0.iter().map(|word| u32::from_be_bytes(*word));
        let mut word = || words.next().unwrap_or(0);
        let (hashes, segment_length, segment_count_length, length) = (word(), word(), word(), word());
        let seed = u64::from(word()) << 32 | u64::from(word());
        if hashes == 0 || hashes as usize > HASHES_MAX {
            return Err(SetError::Number("hashes"));
        }
        if !segment_length.is_power_of_two() || segment_length > SEGMENT_MAX {
            return Err(SetError::Number("segment length"));
        }
        if segment_count_length == 0 || segment_count_length % segment_length != 0 {
            return Err(SetError::Number("segments' length"));
        }
        // Three places of each key lie in three segments one after the other.
        if u64::from(segment_count_length) + 2 * u64::from(segment_length) != u64::from(length)
            || length as usize > PLACES_MAX
        {
            return Err(SetError::Number("places"));
        }
        let needed = HEADER_BYTES + 2 * length as usize;
        if bytes.len() != needed {
            return Err(SetError::Length { has: bytes.len(), needed });
        }
        let fingerprints = places.as_chunks::<2>().0.iter().map(|place| u16::from_be_bytes(*place)).collect();
        let segment_length_mask = segment_length - 1;
        let descriptor = Descriptor { seed, segment_length, segment_length_mask, segment_count_length };
        let filter = BinaryFuse16 { descriptor, fingerprints };
        Ok(Self { salt: Digest::from_bytes(*salt), hashes, filter })
    }

    /// The file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let Descriptor { seed, segment_length, segment_count_length, .. } = &self.filter.descriptor;
        let length = u32::try_from(self.filter.fingerprints.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(HEADER_BYTES + 2 * self.filter.fingerprints.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(self.salt.as_bytes());
        for number in [self.hashes, *segment_length, *segment_count_length, length] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&seed.to_be_bytes());
        for place in &self.filter.fingerprints {
            bytes.extend_from_slice(&place.to_be_bytes());
        }
        bytes
    }

    /// Whether `hash` is of a known-bad file: always if it is, and once in 65,536 times if it isn't.
    #[must_use]
    pub fn may_contain(&self, hash: &Digest) -> bool {
        self.filter.contains(&key(&self.salt, hash))
    }

    /// How many hashes it was made of.
    #[must_use]
    pub const fn hashes(&self) -> u32 {
        self.hashes
    }
}

/// The filter's key for a hash: the first eight bytes of SHA-256 over magic, salt and hash.
fn key(salt: &Digest, hash: &Digest) -> u64 {
    let mut hasher = Hasher::default();
    for part in [&MAGIC[..], salt.as_bytes(), hash.as_bytes()] {
        hasher.update(part);
    }
    let digest = hasher.finish();
    digest.as_bytes().first_chunk().map_or(0, |head| u64::from_be_bytes(*head))
}
