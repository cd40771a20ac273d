//! What a log is made of, and within which bounds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use stdx::Clock;
use storage::{LockStore, ObjectStore};
use tlog::{KeyKind, LogPolicy, Origin, SignerKey};

use crate::{ConfigError, Witness};

/// How many witnesses may lie, or be restored from a backup, without harm (f).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faulty(pub usize);

/// The bounds of a log.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries not yet published, at most.
    pub pool_entries: usize,
    /// Their bytes, at most.
    pub pool_bytes: usize,
    /// Entries in one batch, at most.
    pub batch_entries: usize,
    /// Their bytes, at most.
    pub batch_bytes: usize,
    /// A batch of at most so many bytes goes into the lock's own value.
    pub locked_bytes: usize,
    /// When to come back to a full pool, and how long the log waits before it tries again itself.
    pub retry_after: Duration,
    /// An idle log has its checkpoint cosigned again this long after it was published, well
    /// within the 24 hours after which endpoints refuse it; not more often than every 10 s.
    pub refresh: Duration,
}

impl Default for Limits {
    /// 512 writers with 128 entries each fill the pool; one batch is a quarter of it, 64 tiles
    /// and, with entries of 1 KiB, 16 MiB to sync. 32 KiB more in a database's log are written in
    /// a tenth of the time that a new file takes to be on disk, or less.
    fn default() -> Self {
        Self {
            pool_entries: 65_536,
            pool_bytes: 128 << 20,
            batch_entries: 16_384,
            batch_bytes: 32 << 20,
            locked_bytes: 32 << 10,
            retry_after: Duration::from_secs(1),
            refresh: Duration::from_secs(3600),
        }
    }
}

/// What a log is made of.
#[derive(Clone)]
pub struct LogParts {
    /// The log's objects: this log's alone.
    pub objects: Arc<dyn ObjectStore>,
    /// Where the last signed checkpoint is decided.
    pub locks: Arc<dyn LockStore>,
    /// Every witness of the policy.
    pub witnesses: Vec<Arc<dyn Witness>>,
    /// Tells whether the time of a cosignature can be true, and when fresh ones are due.
    pub clock: Arc<dyn Clock>,
    /// The log's key, of type 0x01; its name is the log's origin.
    pub signer: Arc<SignerKey>,
    /// Which cosignatures a published checkpoint must carry.
    pub policy: LogPolicy,
    /// How many witnesses may be faulty.
    pub faulty: Faulty,
    /// The bounds.
    pub limits: Limits,
}

/// k, n and f, of which 2k-n > f and n-k >= f hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quorum {
    /// k: how many must cosign.
    pub(crate) needed: usize,
    /// n-k+1+f: any so many share an honest witness with every earlier quorum. It is at most k,
    /// since 2k-n > f.
    pub(crate) answers: usize,
    /// f: of more than so many, one is honest.
    pub(crate) faulty: usize,
}

impl LogParts {
    pub(crate) fn origin(&self) -> Result<Origin, ConfigError> {
        let key = self.signer.verifier();
        let origin = key.name().as_str().parse().ok().filter(|_| key.kind() == KeyKind::Ed25519);
        origin.ok_or_else(|| ConfigError::NotALog(key.name().clone()))
    }

    /// Checks everything that can be checked before anything is read.
    pub(crate) fn quorum(&self) -> Result<Quorum, ConfigError> {
        let key = self.signer.verifier();
        if !self.policy.logs().iter().any(|log| log.key == *key) {
            return Err(ConfigError::LogNotInPolicy(key.name().clone()));
        }
        let known: BTreeSet<_> = self.policy.witnesses().iter().map(|witness| &witness.key).collect();
        let given: BTreeSet<_> = self.witnesses.iter().map(|witness| witness.key()).collect();
        if let Some(key) = known.symmetric_difference(&given).next() {
            return Err(ConfigError::WitnessMismatch(key.name().clone()));
        }
        // With witnesses outside the quorum's group, n could not be counted by answers.
        let flat = self.policy.flat_quorum().filter(|flat| flat.of == known.len() && flat.of == self.witnesses.len());
        let flat = flat.ok_or(ConfigError::QuorumShape)?;
        let (threshold, witnesses, Faulty(faulty)) = (flat.needed, flat.of, self.faulty);
        let sound = threshold <= witnesses && 2 * threshold > witnesses + faulty && witnesses - threshold >= faulty;
        if !sound {
            return Err(ConfigError::QuorumTooWeak { threshold, witnesses, faulty });
        }
        Ok(Quorum { needed: threshold, answers: witnesses - threshold + 1 + faulty, faulty })
    }
}
