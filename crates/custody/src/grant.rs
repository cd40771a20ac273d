//! Opening shares, and sealing them to the one worker that the log names.

use attest::{OrganisationId, StatementId};
use seal::{BatchId, PrivateKey, SealedShare, Share, Wrapped};
use stdx::{Digest, Entropy, EntropyError};

use crate::ledger::Noted;

/// Why shares were not given out, although they may be.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// The custodian has not, or no longer, the key that an object's share is sealed to.
    #[error("object {0} is sealed to a key that is not here")]
    NoKey(BatchId),
    /// The share was made for another object, region, country, class or policy than the header says.
    #[error("the share of object {0} was made for something else")]
    Share(BatchId),
    /// No randomness.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// The port to a custodian's keys.
///
/// - *Trust*: a key never leaves; what comes out is one share of one data key, which says nothing alone.
/// - *Counting*: whoever keeps keys in hardware counts how often this was called, and compares it with the
///   ledger.
pub trait ShareKeys: Send + Sync {
    /// Opens `share`, if it was made for `info`.
    ///
    /// # Errors
    /// [`KeyFault`].
    fn open(&self, share: &SealedShare, info: &[u8]) -> Result<Share, KeyFault>;

    /// Whether the key with this id is here.
    fn holds(&self, key: &Digest) -> bool;
}

/// Why a share stays closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFault {
    /// The key is not here.
    Missing,
    /// It is, and does not open this for that.
    Closed,
}

/// Keys from files.
pub struct FileKeys(Vec<PrivateKey>);

impl FileKeys {
    /// These.
    #[must_use]
    pub const fn new(keys: Vec<PrivateKey>) -> Self {
        Self(keys)
    }
}

impl ShareKeys for FileKeys {
    fn open(&self, share: &SealedShare, info: &[u8]) -> Result<Share, KeyFault> {
        let key = self.0.iter().find(|key| key.public().id() == share.key).ok_or(KeyFault::Missing)?;
        let wrapped = share.wrapped().ok_or(KeyFault::Closed)?;
        Share::open(&wrapped, key, info).ok_or(KeyFault::Closed)
    }

    fn holds(&self, key: &Digest) -> bool {
        self.0.iter().any(|it| it.public().id() == *key)
    }
}

/// A share, sealed to the worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Of which object.
    pub object: BatchId,
    /// What the worker opens with [`grant_info`].
    pub wrapped: Wrapped,
}

/// HPKE's `info` for a share that a custodian gives out: it opens under this intent, for this object, only.
#[must_use]
pub fn grant_info(intent: StatementId, object: BatchId, custodian: &OrganisationId) -> Vec<u8> {
    format!("clerestory/grant/v1\n{intent}\n{object}\n{custodian}\n").into_bytes()
}

impl Noted {
    /// Opens this custodian's shares and seals each to the worker: all of them, or none.
    ///
    /// # Errors
    /// [`GrantError`]. The intent is used up all the same.
    pub fn open(self, keys: &dyn ShareKeys, entropy: &dyn Entropy) -> Result<Vec<Granted>, GrantError> {
        let admitted = self.admitted;
        let mut granted = Vec::with_capacity(admitted.shares.len());
        for (bound, sealed) in &admitted.shares {
            let object = bound.id;
            let share = keys.open(sealed, &bound.info(&admitted.organisation)).map_err(|fault| match fault {
                KeyFault::Missing => GrantError::NoKey(object),
                KeyFault::Closed => GrantError::Share(object),
            })?;
            let info = grant_info(admitted.intent, object, &admitted.organisation);
            granted.push(Granted { object, wrapped: share.seal(&admitted.worker, &info, entropy)? });
        }
        Ok(granted)
    }
}
