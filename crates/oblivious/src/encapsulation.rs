//! RFC 9458 §4.3 and §4.4: requests and responses, encapsulated.

use aes_gcm::aead::Aead as _;
use aes_gcm::{Aes128Gcm, KeyInit as _};
use hkdf::Hkdf;
use hpke::aead::{AeadCtxR, AeadCtxS, AesGcm128};
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem, OpModeR, OpModeS, Serializable as _, setup_receiver, setup_sender_with_rng};
use rand_core::{TryCryptoRng, TryRng};
use sha2::Sha256;
use stdx::{Entropy, EntropyError};
use zeroize::{Zeroize as _, Zeroizing};

use crate::key::{AEAD, GatewayKey, KDF, KEM, KEY_BYTES, KeyConfiguration};
use crate::{REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX};

/// Key number and three algorithms.
const HEADER_BYTES: usize = 7;

const REQUEST_LABEL: &[u8] = b"message/bhttp request";
const RESPONSE_LABEL: &[u8] = b"message/bhttp response";

/// max(Nn, Nk) of AES-128-GCM: the response's nonce, and the secret exported for it.
const NONCE_BYTES: usize = 16;

type Sender = AeadCtxS<AesGcm128, HkdfSha256, X25519HkdfSha256>;
type Receiver = AeadCtxR<AesGcm128, HkdfSha256, X25519HkdfSha256>;

/// Why nothing could be encapsulated.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// No randomness.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// The key gives no secret: only an odd public key does that.
    #[error("nothing can be sealed to this key")]
    Key,
}

/// Why something can't be opened.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OpenError {
    /// Longer than anything of this kind.
    #[error("{0} bytes are too many")]
    TooLong(usize),
    /// Shorter than the least of its kind.
    #[error("{0} bytes are too few")]
    TooShort(usize),
    /// For another key, or by other algorithms.
    #[error("sealed for another key, or by other algorithms")]
    OtherKey,
    /// Damaged, or of somebody else's making.
    #[error("can't be opened with this key")]
    Damaged,
}

/// A question under way: what its answer can be opened with.
pub struct Asked {
    context: Box<Sender>,
    encapsulated: [u8; KEY_BYTES],
}

/// Encapsulates a request for the gateway: what to send to the relay, and what opens the answer.
///
/// # Errors
/// [`SealError`].
pub fn ask(gateway: &KeyConfiguration, request: &[u8], entropy: &dyn Entropy) -> Result<(Vec<u8>, Asked), SealError> {
    let header = header(gateway.id());
    let mut seed = Zeroizing::new([0; KEY_BYTES]);
    entropy.fill(&mut seed[..])?;
    let info = info(&header);
    let (encapsulated, mut context) = setup_sender_with_rng::<AesGcm128, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        gateway.public(),
        &info,
        &mut Drawn { seed: &seed[..] },
    )
    .map_err(|_| SealError::Key)?;
    let encapsulated: [u8; KEY_BYTES] = encapsulated.to_bytes().into();
    let sealed = context.seal(request, &[]).map_err(|_| SealError::Key)?;
    let bytes = [&header[..], &encapsulated, &sealed].concat();
    Ok((bytes, Asked { context: Box::new(context), encapsulated }))
}

impl Asked {
    /// Opens the answer.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(self, response: &[u8]) -> Result<Vec<u8>, OpenError> {
        if response.len() > RESPONSE_BYTES_MAX {
            return Err(OpenError::TooLong(response.len()));
        }
        let Some((nonce, sealed)) = response.split_first_chunk::<NONCE_BYTES>() else {
            return Err(OpenError::TooShort(response.len()));
        };
        let mut secret = Zeroizing::new([0; NONCE_BYTES]);
        self.context.export(RESPONSE_LABEL, &mut secret[..]).map_err(|_| OpenError::Damaged)?;
        let (cipher, iv) = response_key(&secret, &self.encapsulated, nonce);
        cipher.decrypt(&iv.into(), sealed).map_err(|_| OpenError::Damaged)
    }
}

/// What the answer to an opened request is sealed with.
pub struct Reply {
    secret: Zeroizing<[u8; NONCE_BYTES]>,
    encapsulated: [u8; KEY_BYTES],
}

/// Opens a request at the gateway.
///
/// # Errors
/// [`OpenError`].
pub fn open(key: &GatewayKey, request: &[u8]) -> Result<(Vec<u8>, Reply), OpenError> {
    if request.len() > REQUEST_BYTES_MAX {
        return Err(OpenError::TooLong(request.len()));
    }
    let short = OpenError::TooShort(request.len());
    let Some((header, rest)) = request.split_first_chunk::<HEADER_BYTES>() else { return Err(short) };
    let Some((encapsulated, sealed)) = rest.split_first_chunk::<KEY_BYTES>() else { return Err(short) };
    if *header != self::header(key.configuration().id()) {
        return Err(OpenError::OtherKey);
    }
    let damaged = |_| OpenError::Damaged;
    let sender = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated).map_err(damaged)?;
    let mut context: Receiver =
        setup_receiver(&OpModeR::Base, key.secret(), &sender, &info(header)).map_err(damaged)?;
    let opened = context.open(sealed, &[]).map_err(damaged)?;
    let mut secret = Zeroizing::new([0; NONCE_BYTES]);
    context.export(RESPONSE_LABEL, &mut secret[..]).map_err(damaged)?;
    Ok((opened, Reply { secret, encapsulated: *encapsulated }))
}

impl Reply {
    /// Seals the answer.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal(self, response: &[u8], entropy: &dyn Entropy) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_BYTES];
        entropy.fill(&mut nonce)?;
        let (cipher, iv) = response_key(&self.secret, &self.encapsulated, &nonce);
        let sealed = cipher.encrypt(&iv.into(), response).map_err(|_| SealError::Key)?;
        Ok([&nonce[..], &sealed].concat())
    }
}

fn header(id: u8) -> [u8; HEADER_BYTES] {
    let ([kem0, kem1], [kdf0, kdf1], [aead0, aead1]) = (KEM.to_be_bytes(), KDF.to_be_bytes(), AEAD.to_be_bytes());
    [id, kem0, kem1, kdf0, kdf1, aead0, aead1]
}

fn info(header: &[u8; HEADER_BYTES]) -> Vec<u8> {
    [REQUEST_LABEL, &[0], header].concat()
}

/// RFC 9458 §4.4, steps 2 to 5.
fn response_key(
    secret: &[u8; NONCE_BYTES],
    encapsulated: &[u8; KEY_BYTES],
    nonce: &[u8; NONCE_BYTES],
) -> (Aes128Gcm, [u8; 12]) {
    let salt = [&encapsulated[..], nonce].concat();
    let hkdf = Hkdf::<Sha256>::new(Some(&salt), secret);
    let (mut key, mut iv) = (Zeroizing::new([0; 16]), [0; 12]);
    hkdf.expand(b"key", &mut key[..]).expect("16 bytes are fewer than HKDF-SHA256 gives");
    hkdf.expand(b"nonce", &mut iv).expect("12 bytes are fewer than HKDF-SHA256 gives");
    (Aes128Gcm::new((&*key).into()), iv)
}

/// Bytes drawn before, as the generator that HPKE asks for its one ephemeral key.
struct Drawn<'a> {
    seed: &'a [u8],
}

impl TryRng for Drawn<'_> {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes).map(|()| u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes).map(|()| u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, buffer: &mut [u8]) -> Result<(), Self::Error> {
        buffer.zeroize();
        let (drawn, rest) = self.seed.split_at_checked(buffer.len()).expect("X25519 asks once, for its 32 bytes");
        buffer.copy_from_slice(drawn);
        self.seed = rest;
        Ok(())
    }
}

impl TryCryptoRng for Drawn<'_> {}

#[cfg(test)]
mod tests;
