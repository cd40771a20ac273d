//! Opening shares, and sealing each to the one worker whose slice its object is in, as the log says.

use attest::{OrganisationId, StatementId};
use seal::{BatchId, Header, PrivateKey, SealedShare, Share, Wrapped};
use stdx::{Digest, Entropy, EntropyError};

use crate::ledger::Noted;

/// Why shares were not given out, although they may be.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// The custodian has not the key that an object's share is sealed to, although its time is not long over.
    #[error("object {0} is sealed to a key that is not here")]
    NoKey(BatchId),
    /// Its owner had it erased.
    #[error("object {0} was erased")]
    Erased(BatchId),
    /// The keys can't be asked.
    #[error("the keys can't be asked: {0}")]
    Keys(String),
    /// No randomness.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// Why one share stays closed, while others are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// It is none, or was made for another object, region, country, class or policy than the header says.
    False,
    /// The key that it is sealed to is not here.
    NoKey,
}

/// A share as an endpoint sealed it, and what it must have been bound to.
#[derive(Clone, Debug)]
pub struct ClosedShare {
    /// Of which object.
    pub object: BatchId,
    /// As it stands in the object's header.
    pub share: SealedShare,
    /// HPKE's `info`.
    pub info: Vec<u8>,
}

impl ClosedShare {
    /// This custodian's share in `header`, if it has one.
    #[must_use]
    pub fn of(header: &Header, custodian: &OrganisationId) -> Option<Self> {
        let share = header.shares.iter().find(|share| share.custodian == *custodian)?.clone();
        Some(Self { object: header.bound.id, share, info: header.bound.info(custodian) })
    }

    /// The share, with the key that it is sealed to.
    ///
    /// # Errors
    /// [`Closed::False`].
    pub fn open(&self, key: &PrivateKey) -> Result<Share, Closed> {
        self.share.wrapped().and_then(|wrapped| Share::open(&wrapped, key, &self.info)).ok_or(Closed::False)
    }

    /// What it is called in a custodian's table: the digest of all of it.
    pub(crate) fn name(&self) -> Digest {
        let mut bytes = serde_json::to_vec(&self.share).expect("strings are always JSON");
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.info);
        Digest::of(&bytes)
    }
}

/// The port to a custodian's keys.
///
/// - *Trust*: a key never leaves; what comes out are shares of data keys, each of which says nothing alone.
/// - *Counting*: whoever keeps keys in hardware counts each share before it is opened, and the custodian compares
///   that with its ledger.
pub trait ShareKeys: Send + Sync {
    /// Opens each that was made for its `info`, in this order.
    ///
    /// # Errors
    /// [`GrantError::Erased`] of the first that was, and [`GrantError::Keys`]: none is opened then.
    fn open(&self, closed: &[ClosedShare]) -> Result<Vec<Result<Share, Closed>>, GrantError>;

    /// Whether the key with this id is here.
    fn holds(&self, key: &Digest) -> bool;
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
    fn open(&self, closed: &[ClosedShare]) -> Result<Vec<Result<Share, Closed>>, GrantError> {
        let open = |it: &ClosedShare| {
            let key = self.0.iter().find(|key| key.public().id() == it.share.key).ok_or(Closed::NoKey)?;
            it.open(key)
        };
        Ok(closed.iter().map(open).collect())
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

/// What a custodian gives for an intent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Its shares, in the order of the objects.
    pub granted: Vec<Granted>,
    /// Objects whose shares nobody can open any more, or never could: whoever writes into a vault may write nonsense, and
    /// must not keep others' objects from being read.
    pub closed: Vec<BatchId>,
}

impl Noted {
    /// Opens this custodian's shares and seals each to its worker. `is_over` says whether a key's time is so long over that
    /// it may be destroyed: another that is missing is this custodian's own failure.
    ///
    /// # Errors
    /// [`GrantError`]: nothing is given then. The intent is used up all the same.
    pub fn open(
        self,
        keys: &dyn ShareKeys,
        is_over: &dyn Fn(&Digest) -> bool,
        entropy: &dyn Entropy,
    ) -> Result<Grant, GrantError> {
        let admitted = self.admitted;
        let custodian = &admitted.organisation;
        let closed = admitted.shares.into_iter().map(|(bound, share, worker)| {
            let info = bound.info(custodian);
            (ClosedShare { object: bound.id, share, info }, worker)
        });
        let (closed, workers): (Vec<ClosedShare>, Vec<_>) = closed.unzip();
        let shares = keys.open(&closed)?;
        if shares.len() != closed.len() {
            return Err(GrantError::Keys(format!("{} shares for {}", shares.len(), closed.len())));
        }
        let mut grant = Grant::default();
        for ((it, worker), share) in closed.iter().zip(workers).zip(&shares) {
            let object = it.object;
            match share {
                Ok(share) => {
                    let info = grant_info(admitted.intent, object, custodian);
                    grant.granted.push(Granted { object, wrapped: share.seal(&worker, &info, entropy)? });
                }
                Err(Closed::NoKey) if !is_over(&it.share.key) => return Err(GrantError::NoKey(object)),
                Err(Closed::False | Closed::NoKey) => grant.closed.push(object),
            }
        }
        Ok(grant)
    }
}
