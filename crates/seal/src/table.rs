//! A custodian's own table of shares, whose key it can throw away: then what was in it is gone.

use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce};
use stdx::{Digest, Entropy, EntropyError};
use zeroize::Zeroizing;

use crate::key::KeyError;
use crate::share::{KEY_BYTES, Share};

/// A share in a row: encrypted, with its tag.
pub const TABLE_ROW_BYTES: usize = KEY_BYTES + 16;

/// The key of one table, which is written once: a row's number is its nonce.
pub struct TableKey(Zeroizing<[u8; KEY_BYTES]>);

impl TableKey {
    /// A fresh key.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        entropy.fill(&mut *bytes)?;
        Ok(Self(bytes))
    }

    /// Reads what [`to_text`](Self::to_text) gave.
    ///
    /// # Errors
    /// [`KeyError::Form`].
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        let digest: Digest = text.trim_end().parse().map_err(|_| KeyError::Form)?;
        Ok(Self(Zeroizing::new(*digest.as_bytes())))
    }

    /// 64 hexadecimal digits, for a file that only its owner reads.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(Digest::from_bytes(*self.0).to_string())
    }

    /// Closes a share for the row with this number, bound to `name`.
    #[must_use]
    pub fn close(&self, share: &Share, row: u64, name: &Digest) -> [u8; TABLE_ROW_BYTES] {
        let mut buffer = Vec::with_capacity(TABLE_ROW_BYTES);
        buffer.extend_from_slice(share.bytes());
        let closed = self.cipher().encrypt_in_place(&nonce(row), name.as_bytes(), &mut buffer);
        closed.expect("32 bytes are far below AES-GCM's limit");
        buffer.try_into().expect("a share and its tag")
    }

    /// Opens what was closed for this row and name; `None` if it is something else.
    #[must_use]
    pub fn open(&self, closed: &[u8; TABLE_ROW_BYTES], row: u64, name: &Digest) -> Option<Share> {
        let mut buffer = Zeroizing::new(closed.to_vec());
        self.cipher().decrypt_in_place(&nonce(row), name.as_bytes(), &mut *buffer).ok()?;
        Some(Share::from_bytes(Zeroizing::new(<[u8; KEY_BYTES]>::try_from(buffer.as_slice()).ok()?)))
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new((&*self.0).into())
    }
}

fn nonce(row: u64) -> Nonce<aes_gcm::aead::consts::U12> {
    let mut nonce = [0; 12];
    for (byte, digit) in nonce.iter_mut().zip(row.to_be_bytes()) {
        *byte = digit;
    }
    nonce.into()
}
