//! Verifier keys and signer keys (C2SP signed-note, "Signatures" and "Verifier keys").

use std::hash::{Hash as StdHash, Hasher};
use std::{cmp, fmt, str};

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};
use stdx::{Entropy, EntropyError};
use zeroize::Zeroizing;

use crate::text;
use crate::{KeyId, KeyName, NameError};

/// What a key signs: the signature type identifier byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyKind {
    /// 0x01: Ed25519 over the note's text.
    Ed25519 = 0x01,
    /// 0x04: timestamped Ed25519 over a checkpoint (C2SP tlog-cosignature).
    Cosignature = 0x04,
}

impl KeyKind {
    /// The identifier byte.
    #[must_use]
    pub const fn byte(self) -> u8 {
        self as u8
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0x01 => Some(Self::Ed25519),
            0x04 => Some(Self::Cosignature),
            _ => None,
        }
    }
}

/// Why a key was refused or could not be made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not `name+id+base64`, or with a damaged part.
    #[error("`{0}` is not a verifier key like example.com/foo+530d903a+Ae…")]
    Malformed(String),
    /// A signer key that is not `PRIVATE+KEY+name+id+base64`; its text is not repeated.
    #[error("the signer key is not of the form PRIVATE+KEY+name+id+base64")]
    MalformedSigner,
    /// The name can't be a key's.
    #[error("the key's name is unusable")]
    Name(#[from] NameError),
    /// The type byte is none that we verify.
    #[error("key `{name}` has signature type {kind:#04x}; only 0x01 and 0x04 are supported")]
    Kind {
        /// The key's name.
        name: KeyName,
        /// The type byte found.
        kind: u8,
    },
    /// The id is not the hash of name, type and key.
    #[error("key `{name}` has id {found}, but its content gives {expected}")]
    Id {
        /// The key's name.
        name: KeyName,
        /// The id its content gives.
        expected: KeyId,
        /// The id found.
        found: KeyId,
    },
    /// The public key is no point of the curve, or one of small order, or not in canonical form.
    #[error("key `{0}` is not a usable Ed25519 public key")]
    Weak(KeyName),
    /// No randomness for a new key.
    #[error("no key could be made")]
    Entropy(#[from] EntropyError),
}

/// A signature that a key did not make.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the signature was not made by key `{name}` ({id}) over this message")]
pub struct SignatureError {
    /// The key's name.
    pub name: KeyName,
    /// The key's id.
    pub id: KeyId,
}

/// An Ed25519 signature; written as padded standard base64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature([u8; 64]);

impl Signature {
    /// The signature with these bytes (RFC 8032).
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// The 64 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::base64_encode(&self.0))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A public key with its name: what a `vkey` text holds.
///
/// A value of this type has an id that its content gives, and a public key that is neither weak
/// (of small order) nor encoded in a second way.
#[derive(Clone)]
pub struct VerifierKey {
    name: KeyName,
    id: KeyId,
    kind: KeyKind,
    point: VerifyingKey,
}

impl VerifierKey {
    /// The key of this name, kind and material (32 bytes, RFC 8032).
    ///
    /// # Errors
    /// [`KeyError::Weak`].
    pub fn new(name: KeyName, kind: KeyKind, public_key: &[u8; 32]) -> Result<Self, KeyError> {
        let Ok(point) = VerifyingKey::from_bytes(public_key) else {
            return Err(KeyError::Weak(name));
        };
        // dalek keeps the bytes as given; encoding the point again shows a non-canonical y.
        if point.is_weak() || point.to_edwards().compress().as_bytes() != public_key {
            return Err(KeyError::Weak(name));
        }
        let id = key_id(&name, kind, public_key);
        Ok(Self { name, id, kind, point })
    }

    /// The key's name.
    #[must_use]
    pub const fn name(&self) -> &KeyName {
        &self.name
    }

    /// The key's id.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// What the key signs.
    #[must_use]
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The 32 bytes of the public key.
    #[must_use]
    pub fn public_key(&self) -> &[u8; 32] {
        self.point.as_bytes()
    }

    /// Checks a bare Ed25519 signature over `message`, strictly: no malleable form passes.
    ///
    /// # Errors
    /// [`SignatureError`] when this key did not make it.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), SignatureError> {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        self.point
            .verify_strict(message, &signature)
            .map_err(|_| SignatureError { name: self.name.clone(), id: self.id })
    }

    fn order(&self) -> (&KeyName, KeyKind, &[u8; 32]) {
        (&self.name, self.kind, self.public_key())
    }
}

/// key ID = SHA-256(key name ‖ 0x0A ‖ signature type ‖ public key)[:4]
fn key_id(name: &KeyName, kind: KeyKind, public_key: &[u8; 32]) -> KeyId {
    let hash: [u8; 32] = Sha256::new()
        .chain_update(name.as_str())
        .chain_update([b'\n', kind.byte()])
        .chain_update(public_key)
        .finalize()
        .into();
    let [a, b, c, d, ..] = hash;
    KeyId::from_bytes([a, b, c, d])
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut material = [self.kind.byte(); 33];
        let (_, public_key) = material.split_at_mut(1);
        public_key.copy_from_slice(self.public_key());
        write!(f, "{}+{}+{}", self.name, self.id, text::base64_encode(&material))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl str::FromStr for VerifierKey {
    type Err = KeyError;

    fn from_str(vkey: &str) -> Result<Self, KeyError> {
        let refuse = || KeyError::Malformed(text::excerpt(vkey));
        // The base64 may contain a plus, the first two parts can't.
        let mut parts = vkey.splitn(3, '+');
        let (Some(name), Some(id), Some(material)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(refuse());
        };
        let name: KeyName = name.parse()?;
        let found: KeyId = id.parse().map_err(|_| refuse())?;
        let material = text::base64_decode(material).ok_or_else(refuse)?;
        let (&byte, public_key) = material.split_first().ok_or_else(refuse)?;
        let Some(kind) = KeyKind::from_byte(byte) else {
            return Err(KeyError::Kind { name, kind: byte });
        };
        let public_key: &[u8; 32] = public_key.try_into().map_err(|_| refuse())?;
        let key = Self::new(name, kind, public_key)?;
        if key.id != found {
            return Err(KeyError::Id { name: key.name, expected: key.id, found });
        }
        Ok(key)
    }
}

impl PartialEq for VerifierKey {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for VerifierKey {}

impl PartialOrd for VerifierKey {
    fn partial_cmp(&self, other: &Self) -> Option<cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for VerifierKey {
    fn cmp(&self, other: &Self) -> cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

impl StdHash for VerifierKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.order().hash(state);
    }
}

impl Serialize for VerifierKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for VerifierKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A private key with its name. The secret is wiped from memory when this is dropped, and never
/// shown by `Debug`.
pub struct SignerKey {
    secret: SigningKey,
    verifier: VerifierKey,
}

impl SignerKey {
    /// A new key.
    ///
    /// # Errors
    /// [`KeyError::Entropy`].
    pub fn generate(name: KeyName, kind: KeyKind, entropy: &dyn Entropy) -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        entropy.fill(&mut *seed)?;
        Self::from_seed(name, kind, &seed)
    }

    fn from_seed(name: KeyName, kind: KeyKind, seed: &[u8; 32]) -> Result<Self, KeyError> {
        let secret = SigningKey::from_bytes(seed);
        let verifier = VerifierKey::new(name, kind, secret.verifying_key().as_bytes())?;
        Ok(Self { secret, verifier })
    }

    /// The public half.
    #[must_use]
    pub const fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// Signs `message` and checks the result: a damaged signature could reveal the secret, so it
    /// never leaves.
    ///
    /// # Panics
    /// When the machine computed a wrong signature; nothing may be signed by it.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        let signature = Signature(self.secret.sign(message).to_bytes());
        assert!(
            self.verifier.verify(message, &signature).is_ok(),
            "key `{}` made a signature that does not verify",
            self.verifier.name
        );
        signature
    }

    /// The secret as text, `PRIVATE+KEY+name+id+base64(type ‖ seed)`, as Go's note package has it.
    #[must_use]
    pub fn to_secret_text(&self) -> Zeroizing<String> {
        let mut material = Zeroizing::new([self.verifier.kind.byte(); 33]);
        let (_, seed) = material.split_at_mut(1);
        seed.copy_from_slice(self.secret.as_bytes());
        let material = Zeroizing::new(text::base64_encode(&*material));
        // One allocation of the right size: growing would leave copies behind.
        let mut text = Zeroizing::new(String::with_capacity(80 + MAX_SECRET_NAME));
        for part in ["PRIVATE+KEY+", self.verifier.name.as_str(), "+"] {
            text.push_str(part);
        }
        text.push_str(&self.verifier.id.to_string());
        text.push('+');
        text.push_str(&material);
        text
    }
}

/// Room for the longest name.
const MAX_SECRET_NAME: usize = crate::MAX_NAME_BYTES;

impl fmt::Debug for SignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignerKey({})", self.verifier)
    }
}

impl str::FromStr for SignerKey {
    type Err = KeyError;

    fn from_str(secret: &str) -> Result<Self, KeyError> {
        let body = secret.strip_prefix("PRIVATE+KEY+").ok_or(KeyError::MalformedSigner)?;
        let mut parts = body.splitn(3, '+');
        let (Some(name), Some(id), Some(material)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(KeyError::MalformedSigner);
        };
        let name: KeyName = name.parse()?;
        let found: KeyId = id.parse().map_err(|_| KeyError::MalformedSigner)?;
        let material = Zeroizing::new(text::base64_decode(material).ok_or(KeyError::MalformedSigner)?);
        let (&byte, seed) = material.split_first().ok_or(KeyError::MalformedSigner)?;
        let Some(kind) = KeyKind::from_byte(byte) else {
            return Err(KeyError::Kind { name, kind: byte });
        };
        let seed: &[u8; 32] = seed.try_into().map_err(|_| KeyError::MalformedSigner)?;
        let key = Self::from_seed(name, kind, seed)?;
        if key.verifier.id != found {
            return Err(KeyError::Id { name: key.verifier.name.clone(), expected: key.verifier.id, found });
        }
        Ok(key)
    }
}
