//! Who signs metadata.

use ed25519_dalek::{Signer as _, SigningKey};
use stdx::{Entropy, EntropyError};

use crate::key::{Ed25519Sha256, KeyId, PublicKey, Suite};

/// Something that holds a private key: a file, an HSM, another organisation's service.
pub trait Signer: Send + Sync {
    /// The public half.
    fn public_key(&self) -> &PublicKey;

    /// The suite that verifies what this signs.
    fn suite(&self) -> &dyn Suite {
        &Ed25519Sha256
    }

    /// Signs `message` as the key's scheme says.
    ///
    /// # Errors
    /// [`SignError::Unavailable`] if the key can't be used now.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError>;
}

/// Why metadata could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The key can't be used now.
    #[error("key {key} can't sign: {reason}")]
    Unavailable {
        /// Which key.
        key: KeyId,
        /// Why.
        reason: String,
    },
    /// The signer's signature doesn't verify under its own public key.
    #[error("key {0} made a signature that does not verify")]
    Wrong(KeyId),
    /// The content can't be written so that it reads back.
    #[error("metadata that does not read back: {0}")]
    Unwritable(String),
}

/// An Ed25519 key in memory, wiped when it goes.
pub struct Ed25519Signer {
    secret: SigningKey,
    public: PublicKey,
}

impl Ed25519Signer {
    /// The key with this seed (RFC 8032's 32-byte private key).
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let secret = SigningKey::from_bytes(seed);
        let public = PublicKey::ed25519(secret.verifying_key().as_bytes());
        Self { secret, public }
    }

    /// A new key.
    ///
    /// # Errors
    /// [`EntropyError`] if there is no randomness.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        let mut seed = zeroize::Zeroizing::new([0; 32]);
        entropy.fill(seed.as_mut())?;
        Ok(Self::from_seed(&seed))
    }

    /// The seed, for whoever stores the key.
    #[must_use]
    pub fn seed(&self) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(self.secret.to_bytes())
    }
}

impl std::fmt::Debug for Ed25519Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ed25519Signer({})", self.public.id())
    }
}

impl Signer for Ed25519Signer {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        Ok(self.secret.sign(message).to_bytes().to_vec())
    }
}
