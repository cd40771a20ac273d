//! A whole object: sealed by an endpoint, opened by whoever was given every share.

use attest::{CountryCode, DataClass, OrganisationId};
use stdx::{Digest, Entropy, EntropyError, UnixTime};

use crate::frames::{FRAME_BYTES, Frame, Frames, TAG_BYTES};
use crate::header::{Bound, CUSTODIANS_MAX, Header, SealedShare};
use crate::key::{Kem, KeyError, PublicKey};
use crate::share::{DataKey, Share};

/// An object is sealed and opened in memory: a batch of an endpoint's has at most a few megabytes, a
/// segment 64.
pub const OBJECT_BYTES_MAX: u64 = 256 << 20;

const FRAMES_KEY: &str = "clerestory seal: frames";
const COMMITMENT: &str = "clerestory seal: commitment";

/// One custodian of a region, and the key that it has there now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Custodian {
    /// Who.
    pub organisation: OrganisationId,
    /// Its key for the region.
    pub key: PublicKey,
}

/// All custodians of a region: each is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Custodians(Vec<Custodian>);

/// Why nothing is sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// One organisation alone could open what is sealed, or none.
    #[error("{0} custodians; a region has 2 to {CUSTODIANS_MAX}")]
    Count(usize),
    /// One organisation, or one key, twice.
    #[error("custodian `{0}` stands twice, or has another's key")]
    Twice(OrganisationId),
    /// Whoever keeps the bytes could open them all once quantum computers come.
    #[error("no custodian has an `x-wing` key")]
    NotHybrid,
    /// The policy assigns the country to no region.
    #[error("the policy assigns `{country}` to no region as of {at}")]
    Unassigned {
        /// The country.
        country: CountryCode,
        /// When.
        at: UnixTime,
    },
    /// The policy has no such kind of data.
    #[error("the policy has no class of data `{0}`")]
    Class(DataClass),
    /// A custodian has no key for the time.
    #[error(transparent)]
    NoKey(#[from] policy::NoKey),
    /// A custodian's key that is none.
    #[error("custodian `{0}`")]
    Key(OrganisationId, #[source] KeyError),
    /// More than one object holds.
    #[error("{0} bytes; an object holds {OBJECT_BYTES_MAX}")]
    TooLong(u64),
    /// No randomness.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

impl Custodians {
    /// These, in any order.
    ///
    /// # Errors
    /// [`SealError::Count`], [`SealError::Twice`], [`SealError::NotHybrid`].
    pub fn new(mut custodians: Vec<Custodian>) -> Result<Self, SealError> {
        if !(2..=CUSTODIANS_MAX).contains(&custodians.len()) {
            return Err(SealError::Count(custodians.len()));
        }
        custodians.sort_by(|left, right| left.organisation.cmp(&right.organisation));
        for (at, custodian) in custodians.iter().enumerate() {
            let mut others = custodians.iter().take(at);
            if others.any(|other| other.organisation == custodian.organisation || other.key == custodian.key) {
                return Err(SealError::Twice(custodian.organisation.clone()));
            }
        }
        if custodians.iter().all(|custodian| custodian.key.kem() != Kem::XWing) {
            return Err(SealError::NotHybrid);
        }
        Ok(Self(custodians))
    }

    /// Seals `plaintext` for all of them: header, then frames. The key is forgotten.
    ///
    /// # Errors
    /// [`SealError::TooLong`], [`SealError::Entropy`].
    pub fn seal(&self, bound: Bound, plaintext: &[u8], entropy: &dyn Entropy) -> Result<Vec<u8>, SealError> {
        let bytes = plaintext.len() as u64;
        if bytes > OBJECT_BYTES_MAX {
            return Err(SealError::TooLong(bytes));
        }
        let mut shares = Vec::new();
        let mut sealed = Vec::new();
        for Custodian { organisation, key } in &self.0 {
            let share = Share::draw(entropy)?;
            let wrapped = share.seal(key, &bound.info(organisation), entropy)?;
            sealed.push(SealedShare::new(organisation.clone(), key.kem(), key.id(), &wrapped));
            shares.push(share);
        }
        let key = DataKey::join(&shares);
        let header = Header::new(bound.clone(), bytes, commitment(&key, &bound), sealed).to_bytes();
        let frames = frames(&key, &bound, &header);
        let of = Frame::count(bytes);
        let tags = usize::try_from(of).unwrap_or(usize::MAX).saturating_mul(TAG_BYTES);
        let mut object = Vec::with_capacity(4 + header.len() + plaintext.len() + tags);
        let length = u32::try_from(header.len()).expect("a header of eight shares has 20 KB");
        object.extend_from_slice(&length.to_be_bytes());
        object.extend_from_slice(&header);
        let mut rest = plaintext;
        for number in 0..of {
            let (part, after) = rest.split_at(rest.len().min(FRAME_BYTES));
            rest = after;
            frames.close(Frame { number, of }, part, &mut object);
        }
        Ok(object)
    }
}

/// Why an object stays closed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No header, or another encoding of one.
    #[error("the sealed object's header {0}")]
    Header(String),
    /// Fewer or more bytes than the header says.
    #[error("the sealed object has {found} bytes of frames; its header says {expected}")]
    Length {
        /// As the header says.
        expected: u64,
        /// As they are.
        found: u64,
    },
    /// Shares are missing, or not this object's.
    #[error("the shares are not those of object {0}")]
    Shares(crate::BatchId),
    /// A frame that isn't what was sealed there.
    #[error("frame {0} is not what was sealed")]
    Frame(u64),
}

/// An object whose key is at hand: any frame of it can be read.
pub struct Sealed {
    header: Header,
    /// Where they begin.
    start: usize,
    frames: Frames,
}

impl Sealed {
    /// The object that begins with `object`, of which there may be less than the whole.
    ///
    /// # Errors
    /// [`OpenError::Header`], [`OpenError::Shares`].
    pub fn open(object: &[u8], key: &DataKey) -> Result<Self, OpenError> {
        let (header, start) = Header::parse(object)?;
        if commitment(key, &header.bound) != header.commitment {
            return Err(OpenError::Shares(header.bound.id));
        }
        let frames = frames(key, &header.bound, object.get(4..start).unwrap_or_default());
        Ok(Self { header, start, frames })
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Decrypts a frame, whose bytes [`Header::place`] tells, to the end of `plaintext`.
    ///
    /// # Errors
    /// [`OpenError::Frame`]; nothing is appended then.
    pub fn frame(&self, number: u64, bytes: &[u8], plaintext: &mut Vec<u8>) -> Result<(), OpenError> {
        let frame = Frame { number, of: self.header.frames() };
        let place = self.header.place(number);
        let fits = place.is_some_and(|place| place.end - place.start == bytes.len() as u64);
        if fits && self.frames.open(frame, bytes, plaintext) { Ok(()) } else { Err(OpenError::Frame(number)) }
    }

    /// Decrypts a whole object.
    ///
    /// # Errors
    /// Any [`OpenError`].
    pub fn read(object: &[u8], key: &DataKey) -> Result<Vec<u8>, OpenError> {
        let sealed = Self::open(object, key)?;
        let frames = object.get(sealed.start..).unwrap_or_default();
        let (expected, found) = (sealed.header.frames_bytes(), frames.len() as u64);
        if expected != found {
            return Err(OpenError::Length { expected, found });
        }
        let mut plaintext = Vec::with_capacity(frames.len());
        for (number, bytes) in (0..).zip(frames.chunks(FRAME_BYTES + TAG_BYTES)) {
            sealed.frame(number, bytes, &mut plaintext)?;
        }
        Ok(plaintext)
    }
}

fn frames(key: &DataKey, bound: &Bound, header: &[u8]) -> Frames {
    Frames::new(&key.derive(bound.salt().as_bytes(), FRAMES_KEY), Digest::of(header))
}

/// AES-GCM alone would let one ciphertext open under two keys.
fn commitment(key: &DataKey, bound: &Bound) -> Digest {
    Digest::from_bytes(*key.derive(bound.salt().as_bytes(), COMMITMENT))
}
