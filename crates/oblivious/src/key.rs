//! The gateway's key, and its configuration as RFC 9458 §3 writes it.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem as _, Serializable as _};
use stdx::{Entropy, EntropyError};
use zeroize::{Zeroize as _, Zeroizing};

/// DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and AES-128-GCM, as IANA numbers them for HPKE.
pub(crate) const KEM: u16 = 0x0020;
pub(crate) const KDF: u16 = 0x0001;
pub(crate) const AEAD: u16 = 0x0001;

/// A key's bytes, secret or public.
pub(crate) const KEY_BYTES: usize = 32;

/// Several suites of four bytes each are more than anyone offers.
const CONFIGURATION_BYTES_MAX: usize = 256;

/// What an endpoint must know of a gateway to ask it: a key's number and the key. As text it is
/// base64 of RFC 9458's bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyConfiguration {
    id: u8,
    public: <X25519HkdfSha256 as hpke::Kem>::PublicKey,
}

/// Why bytes are no configuration that can be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyConfigurationError {
    /// Not of the format.
    #[error("no key configuration of RFC 9458, section 3: {0}")]
    Format(&'static str),
    /// Algorithms that are not in use here.
    #[error("the key configuration offers no X25519, HKDF-SHA256 and AES-128-GCM")]
    Algorithms,
}

impl KeyConfiguration {
    /// Reads one configuration.
    ///
    /// # Errors
    /// [`KeyConfigurationError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyConfigurationError> {
        let format = KeyConfigurationError::Format;
        if bytes.len() > CONFIGURATION_BYTES_MAX {
            return Err(format("too long"));
        }
        let Some(([id, kem0, kem1], rest)) = bytes.split_first_chunk::<3>() else { return Err(format("too short")) };
        if u16::from_be_bytes([*kem0, *kem1]) != KEM {
            return Err(KeyConfigurationError::Algorithms);
        }
        let Some((public, rest)) = rest.split_first_chunk::<KEY_BYTES>() else { return Err(format("too short")) };
        let Some((length, suites)) = rest.split_first_chunk::<2>() else { return Err(format("too short")) };
        if usize::from(u16::from_be_bytes(*length)) != suites.len() || !suites.len().is_multiple_of(4) {
            return Err(format("its list of algorithms has another length"));
        }
        let ours = [KDF.to_be_bytes(), AEAD.to_be_bytes()];
        if !suites.as_chunks::<4>().0.iter().any(|suite| suite == ours.as_flattened()) {
            return Err(KeyConfigurationError::Algorithms);
        }
        let public = <X25519HkdfSha256 as hpke::Kem>::PublicKey::from_bytes(public);
        Ok(Self { id: *id, public: public.map_err(|_| format("its key is none"))? })
    }

    /// The configuration, offering the one suite that is in use.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let suite = [KDF.to_be_bytes(), AEAD.to_be_bytes()];
        let length = 4_u16.to_be_bytes();
        [&[self.id][..], &KEM.to_be_bytes(), &self.public.to_bytes(), &length, suite.as_flattened()].concat()
    }

    pub(crate) const fn id(&self) -> u8 {
        self.id
    }

    pub(crate) const fn public(&self) -> &<X25519HkdfSha256 as hpke::Kem>::PublicKey {
        &self.public
    }
}

impl fmt::Display for KeyConfiguration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.to_bytes()))
    }
}

impl fmt::Debug for KeyConfiguration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyConfiguration({self})")
    }
}

impl FromStr for KeyConfiguration {
    type Err = KeyConfigurationError;

    fn from_str(text: &str) -> Result<Self, KeyConfigurationError> {
        let bytes = STANDARD.decode(text).map_err(|_| KeyConfigurationError::Format("not base64"))?;
        Self::parse(&bytes)
    }
}

/// The gateway's secret key.
pub struct GatewayKey {
    configuration: KeyConfiguration,
    secret: <X25519HkdfSha256 as hpke::Kem>::PrivateKey,
}

/// Why a file holds no gateway's key. It never shows the file's content.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no gateway's key: one line, `clerestory-gateway-key 1`, the key's number, and 32 bytes in base64")]
pub struct GatewayKeyError;

const FILE_WORDS: [&str; 2] = ["clerestory-gateway-key", "1"];

impl GatewayKey {
    /// A new key with the number `id`: another than any that is still in use.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn generate(id: u8, entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        let mut seed = Zeroizing::new([0; KEY_BYTES]);
        entropy.fill(&mut seed[..])?;
        let (secret, public) = X25519HkdfSha256::derive_keypair(&seed[..]);
        Ok(Self { configuration: KeyConfiguration { id, public }, secret })
    }

    /// The key with these bytes.
    ///
    /// # Errors
    /// [`GatewayKeyError`].
    pub fn from_bytes(id: u8, secret: &[u8; KEY_BYTES]) -> Result<Self, GatewayKeyError> {
        let secret = <X25519HkdfSha256 as hpke::Kem>::PrivateKey::from_bytes(secret).map_err(|_| GatewayKeyError)?;
        let public = X25519HkdfSha256::sk_to_pk(&secret);
        Ok(Self { configuration: KeyConfiguration { id, public }, secret })
    }

    /// What endpoints must know of it.
    #[must_use]
    pub const fn configuration(&self) -> &KeyConfiguration {
        &self.configuration
    }

    pub(crate) const fn secret(&self) -> &<X25519HkdfSha256 as hpke::Kem>::PrivateKey {
        &self.secret
    }

    /// The line of its file.
    #[must_use]
    pub fn to_secret_text(&self) -> Zeroizing<String> {
        let mut bytes = self.secret.to_bytes();
        let [name, version] = FILE_WORDS;
        let key = Zeroizing::new(STANDARD.encode(bytes));
        bytes.zeroize();
        Zeroizing::new(format!("{name} {version} {} {}\n", self.configuration.id, *key))
    }
}

impl FromStr for GatewayKey {
    type Err = GatewayKeyError;

    fn from_str(text: &str) -> Result<Self, GatewayKeyError> {
        let words: Vec<&str> = text.trim_end().split(' ').collect();
        let [name, version, id, key] = words[..] else { return Err(GatewayKeyError) };
        if [name, version] != FILE_WORDS {
            return Err(GatewayKeyError);
        }
        let bytes = Zeroizing::new(STANDARD.decode(key).map_err(|_| GatewayKeyError)?);
        let secret = bytes.first_chunk().filter(|_| bytes.len() == KEY_BYTES).ok_or(GatewayKeyError)?;
        Self::from_bytes(id.parse().map_err(|_| GatewayKeyError)?, secret)
    }
}

impl fmt::Debug for GatewayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GatewayKey(secret of {})", self.configuration)
    }
}
