//! The data key and its shares: the key is the XOR of all of them, so any that is missing hides it.

use std::convert::Infallible;
use std::fmt;

use hkdf::Hkdf;
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{Deserializable as _, OpModeR, OpModeS, Serializable as _, single_shot_open, single_shot_seal_with_rng};
use sha2::Sha256;
use stdx::{Entropy, EntropyError};
use zeroize::{Zeroize as _, Zeroizing};

use crate::agreed::{self, AgreedSecret};
use crate::curve::Point;
use crate::key::{PrivateKey, Public, PublicKey, Secret};

pub(crate) const KEY_BYTES: usize = 32;

/// What one custodian holds of a data key; alone it says nothing.
pub struct Share(Zeroizing<[u8; KEY_BYTES]>);

impl Share {
    pub(crate) fn draw(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        entropy.fill(&mut *bytes)?;
        Ok(Self(bytes))
    }

    pub(crate) const fn from_bytes(bytes: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// Seals it to `to`, bound to `info`.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn seal(&self, to: &PublicKey, info: &[u8], entropy: &dyn Entropy) -> Result<Wrapped, EntropyError> {
        Wrapped::seal(&*self.0, to, info, entropy)
    }

    /// Opens what was sealed to `key`, if it was bound to `info`; `None` if it wasn't.
    #[must_use]
    pub fn open(wrapped: &Wrapped, key: &PrivateKey, info: &[u8]) -> Option<Self> {
        Self::of(&wrapped.open(key, info)?)
    }

    /// Opens what was sealed to `key`, a P-256 one, if it was bound to `info`; `None` if it wasn't. `agreed` is what the
    /// key's owner and `wrapped.encapsulated` come to.
    #[must_use]
    pub fn open_agreed(wrapped: &Wrapped, key: &PublicKey, info: &[u8], agreed: &AgreedSecret) -> Option<Self> {
        let Public::P256(key) = &key.0 else { return None };
        // Whoever has agreed may not have looked.
        Point::from_bytes(&wrapped.encapsulated)?;
        Self::of(&agreed::open(wrapped, key, info, agreed)?)
    }

    fn of(opened: &[u8]) -> Option<Self> {
        Some(Self(Zeroizing::new(opened.try_into().ok()?)))
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Share")
    }
}

/// A share as it travels: HPKE's encapsulated key and ciphertext.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrapped {
    /// HPKE's `enc`.
    pub encapsulated: Vec<u8>,
    /// The share, encrypted.
    pub sealed: Vec<u8>,
}

impl Wrapped {
    /// Seals a message of a few kilobytes to `to`, bound to `info`.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn seal(message: &[u8], to: &PublicKey, info: &[u8], entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        match &to.0 {
            Public::P256(point) => agreed::seal(message, point, info, entropy),
            Public::XWing(key) => {
                let mut drawn = Drawn::new(entropy);
                let wrapped = seal(key, info, message, &mut drawn);
                drawn.finish()?;
                Ok(wrapped)
            }
        }
    }

    /// Opens it, if it was sealed to `key` and bound to `info`.
    #[must_use]
    pub fn open(&self, key: &PrivateKey, info: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        match &key.secret {
            Secret::P256(secret, point) => {
                let agreed = Point::from_bytes(&self.encapsulated)?.agree(secret)?;
                agreed::open(self, point, info, &agreed)
            }
            Secret::XWing(key) => open(self, key, info),
        }
    }
}

fn seal(key: &<XWing as hpke::Kem>::PublicKey, info: &[u8], message: &[u8], drawn: &mut Drawn<'_>) -> Wrapped {
    let sealed =
        single_shot_seal_with_rng::<AesGcm256, HkdfSha256, XWing>(&OpModeS::Base, key, info, message, b"", drawn);
    // HPKE fails on a message of more than 64 GB, or an invalid key, which was refused when it was read.
    let (encapsulated, sealed) = sealed.expect("a message in memory, to a key that was validated");
    Wrapped { encapsulated: encapsulated.to_bytes().to_vec(), sealed }
}

fn open(wrapped: &Wrapped, key: &<XWing as hpke::Kem>::PrivateKey, info: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let encapsulated = <XWing as hpke::Kem>::EncappedKey::from_bytes(&wrapped.encapsulated).ok()?;
    let opened = single_shot_open::<AesGcm256, HkdfSha256, XWing>(
        &OpModeR::Base,
        key,
        &encapsulated,
        info,
        &wrapped.sealed,
        b"",
    );
    opened.ok().map(Zeroizing::new)
}

/// The key of one object, while it is needed.
pub struct DataKey(Zeroizing<[u8; KEY_BYTES]>);

impl DataKey {
    /// Joins shares, in any order. Whether they are the right ones, the object's commitment tells.
    #[must_use]
    pub fn join<'a>(shares: impl IntoIterator<Item = &'a Share>) -> Self {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        for share in shares {
            for (byte, other) in key.iter_mut().zip(share.0.iter()) {
                *byte ^= other;
            }
        }
        Self(key)
    }

    /// HKDF-SHA256 (RFC 5869): a key for each purpose, none of which tells another.
    pub(crate) fn derive(&self, salt: &[u8], purpose: &str) -> Zeroizing<[u8; KEY_BYTES]> {
        let mut derived = Zeroizing::new([0; KEY_BYTES]);
        let hkdf = Hkdf::<Sha256>::new(Some(salt), &*self.0);
        hkdf.expand(purpose.as_bytes(), &mut *derived).expect("32 bytes are fewer than 255 hashes");
        derived
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey")
    }
}

/// Our randomness as HPKE's crate asks for it: without a way to fail. So a failure is remembered, and
/// whatever was made meanwhile is thrown away.
pub(crate) struct Drawn<'a> {
    entropy: &'a dyn Entropy,
    failed: Option<EntropyError>,
}

impl<'a> Drawn<'a> {
    pub(crate) fn new(entropy: &'a dyn Entropy) -> Self {
        Self { entropy, failed: None }
    }

    /// Fails if any draw did.
    pub(crate) fn finish(self) -> Result<(), EntropyError> {
        self.failed.map_or(Ok(()), Err)
    }

    fn fill(&mut self, buffer: &mut [u8]) {
        if let Err(error) = self.entropy.fill(buffer) {
            // Something that every key generation accepts, so that none asks again for ever.
            buffer.fill(1);
            self.failed = Some(error);
        }
    }
}

impl TryRng for Drawn<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.fill(&mut bytes);
        let number = u32::from_le_bytes(bytes);
        bytes.zeroize();
        Ok(number)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        let number = u64::from_le_bytes(bytes);
        bytes.zeroize();
        Ok(number)
    }

    fn try_fill_bytes(&mut self, buffer: &mut [u8]) -> Result<(), Infallible> {
        self.fill(buffer);
        Ok(())
    }
}

impl TryCryptoRng for Drawn<'_> {}
