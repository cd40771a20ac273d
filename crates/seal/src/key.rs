//! Custodians' keys, each with one text: `KEM:BASE64`.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hpke::kem::XWing;
use hpke::{Deserializable as _, Kem as _, Serializable as _};
use serde::{Deserialize, Serialize};
use stdx::{Digest, Entropy, EntropyError};
use zeroize::Zeroizing;

use crate::agreed;
use crate::curve::{self, Point};
use crate::share::Drawn;

/// How a share is sealed to its custodian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kem {
    /// DHKEM(P-256, HKDF-SHA256), RFC 9180 section 7.1: the one that HSMs hold.
    P256,
    /// X-Wing (ML-KEM-768 with X25519, draft-ietf-hpke-pq): safe if either of the two is.
    XWing,
}

impl Kem {
    const fn as_str(self) -> &'static str {
        match self {
            Self::P256 => "p256",
            Self::XWing => "x-wing",
        }
    }
}

impl fmt::Display for Kem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not `p256:BASE64` or `x-wing:BASE64` of the right length.
    #[error("not a custodian's key: it reads `p256:` or `x-wing:` and the key in base64")]
    Form,
    /// A point that is not on the curve, or the like.
    #[error("not a valid `{0}` key")]
    Invalid(Kem),
}

/// What shares are sealed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(pub(crate) Public);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Public {
    P256(Point),
    XWing(Box<<XWing as hpke::Kem>::PublicKey>),
}

impl PublicKey {
    /// How shares are sealed to it.
    #[must_use]
    pub const fn kem(&self) -> Kem {
        match self.0 {
            Public::P256(_) => Kem::P256,
            Public::XWing(_) => Kem::XWing,
        }
    }

    /// Its point, uncompressed, if it is on P-256.
    #[must_use]
    pub fn point(&self) -> Option<Vec<u8>> {
        match &self.0 {
            Public::P256(point) => Some(point.as_bytes().to_vec()),
            Public::XWing(_) => None,
        }
    }

    /// The P-256 key with this point, uncompressed.
    ///
    /// # Errors
    /// [`KeyError::Invalid`] if it is not on the curve.
    pub fn of_point(point: &[u8]) -> Result<Self, KeyError> {
        Point::from_bytes(point).map(|point| Self(Public::P256(point))).ok_or(KeyError::Invalid(Kem::P256))
    }

    /// SHA-256 of its text: what a sealed share names.
    #[must_use]
    pub fn id(&self) -> Digest {
        Digest::of(self.to_string().as_bytes())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encoded = match &self.0 {
            Public::P256(point) => STANDARD.encode(point.as_bytes()),
            Public::XWing(key) => STANDARD.encode(key.to_bytes()),
        };
        write!(f, "{}:{encoded}", self.kem())
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (kem, bytes) = parse(text)?;
        let key = match kem {
            Kem::P256 => Self::of_point(&bytes)?,
            Kem::XWing => {
                let key = <XWing as hpke::Kem>::PublicKey::from_bytes(&bytes).map_err(|_| KeyError::Invalid(kem))?;
                Self(Public::XWing(Box::new(key)))
            }
        };
        // One spelling, as everywhere.
        if key.to_string() == text { Ok(key) } else { Err(KeyError::Form) }
    }
}

impl TryFrom<String> for PublicKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

/// What a custodian opens its shares with, kept in a file. It is wiped when it is dropped, and never
/// printed.
pub struct PrivateKey {
    pub(crate) secret: Secret,
    public: PublicKey,
}

pub(crate) enum Secret {
    /// And its point.
    P256(curve::Secret, Point),
    XWing(Box<<XWing as hpke::Kem>::PrivateKey>),
}

impl PrivateKey {
    /// A fresh key.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn generate(kem: Kem, entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        match kem {
            Kem::P256 => agreed::generate(entropy).map(|(secret, point)| Self::of_point(secret, point)),
            Kem::XWing => {
                let mut drawn = Drawn::new(entropy);
                let (secret, public) = XWing::gen_keypair_with_rng(&mut drawn);
                drawn.finish()?;
                Ok(Self { secret: Secret::XWing(Box::new(secret)), public: PublicKey(Public::XWing(Box::new(public))) })
            }
        }
    }

    fn of_point(secret: curve::Secret, point: Point) -> Self {
        Self { public: PublicKey(Public::P256(point.clone())), secret: Secret::P256(secret, point) }
    }

    /// Reads what [`to_text`](Self::to_text) gave.
    ///
    /// # Errors
    /// [`KeyError`]; nothing of the text is repeated.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        let (kem, bytes) = parse(text.trim_end())?;
        let invalid = || KeyError::Invalid(kem);
        Ok(match kem {
            Kem::P256 => {
                let secret = Zeroizing::new(bytes.as_slice().try_into().map_err(|_| invalid())?);
                let point = Point::of(&secret).ok_or_else(invalid)?;
                Self::of_point(secret, point)
            }
            Kem::XWing => {
                let secret = <XWing as hpke::Kem>::PrivateKey::from_bytes(&bytes).map_err(|_| invalid())?;
                let public = PublicKey(Public::XWing(Box::new(XWing::sk_to_pk(&secret))));
                Self { secret: Secret::XWing(Box::new(secret)), public }
            }
        })
    }

    /// The key's text, for a file that only its owner reads.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let encoded = match &self.secret {
            Secret::P256(secret, _) => Zeroizing::new(STANDARD.encode(secret.as_slice())),
            Secret::XWing(key) => Zeroizing::new(STANDARD.encode(key.to_bytes())),
        };
        Zeroizing::new(format!("{}:{}", self.public.kem(), *encoded))
    }

    /// What is sealed to it.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.public.id())
    }
}

fn parse(text: &str) -> Result<(Kem, Zeroizing<Vec<u8>>), KeyError> {
    let (kem, encoded) = text.split_once(':').ok_or(KeyError::Form)?;
    let kem = [Kem::P256, Kem::XWing].into_iter().find(|it| it.as_str() == kem).ok_or(KeyError::Form)?;
    Ok((kem, Zeroizing::new(STANDARD.decode(encoded).map_err(|_| KeyError::Form)?)))
}
