//! The protocol's steps, in the specification's order.

use std::collections::BTreeMap;
use std::sync::Arc;

use stdx::{Clock, Digest};
use storage::{LockStore, Swap};
use tlog::witness_protocol::{AddCheckpoint, Cosignatures, MessageError, origin_hash};
use tlog::{CheckpointError, Growth, KeyKind, Origin, SignedCheckpoint, SignerKey, TreeHead, VerifierKey, cosign};

use crate::state::{Cosigned, Evidence, evidence_key, latest, state_key};
use crate::{ConfigError, Error};

/// How often a request starts again because another changed the log's state meanwhile. The
/// second round mostly ends in [`Error::Stale`]; only equal requests can go round more often.
const ROUNDS_MAX: usize = 16;

/// What a witness is made of.
pub struct WitnessParts {
    /// Where the state lives. It must be this witness's alone.
    pub locks: Arc<dyn LockStore>,
    /// Gives the time of cosignatures.
    pub clock: Arc<dyn Clock>,
    /// The witness's key, of type 0x04.
    pub signer: SignerKey,
    /// The keys of the logs to be witnessed; each key's name is the log's origin. A log may have
    /// several.
    pub logs: Vec<VerifierKey>,
}

/// A witness.
pub struct Witness {
    locks: Arc<dyn LockStore>,
    clock: Arc<dyn Clock>,
    signer: SignerKey,
    logs: BTreeMap<Digest, Log>,
}

struct Log {
    origin: Origin,
    keys: Vec<VerifierKey>,
}

impl Witness {
    /// A witness of these parts.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(parts: WitnessParts) -> Result<Self, ConfigError> {
        let WitnessParts { locks, clock, signer, logs: keys } = parts;
        let own = signer.verifier();
        if own.kind() != KeyKind::Cosignature {
            return Err(ConfigError::NotACosigner(own.name().clone()));
        }
        let mut logs: BTreeMap<Digest, Log> = BTreeMap::new();
        for key in keys {
            if key.name() == own.name() || key.public_key() == own.public_key() {
                return Err(ConfigError::Shared(key.name().clone()));
            }
            let origin: Option<Origin> = key.name().as_str().parse().ok();
            let Some(origin) = origin.filter(|_| key.kind() == KeyKind::Ed25519) else {
                return Err(ConfigError::NotALog(key.name().clone()));
            };
            let log = logs.entry(origin_hash(&origin)).or_insert_with(|| Log { origin, keys: Vec::new() });
            if !log.keys.contains(&key) {
                log.keys.push(key);
            }
        }
        Ok(Self { locks, clock, signer, logs })
    }

    /// The key that logs and policies know this witness by.
    #[must_use]
    pub const fn key(&self) -> &VerifierKey {
        self.signer.verifier()
    }

    /// The logs that are witnessed.
    pub fn origins(&self) -> impl Iterator<Item = &Origin> {
        self.logs.values().map(|log| &log.origin)
    }

    /// Takes the body of an `add-checkpoint` request, and gives the cosignature lines.
    ///
    /// # Errors
    /// [`Error`]; each variant names its status.
    pub async fn add_checkpoint(&self, body: &[u8]) -> Result<Cosignatures, Error> {
        let request = AddCheckpoint::parse(body).map_err(|error| self.malformed(error))?;
        let checkpoint = request.checkpoint().checkpoint();
        let origin = checkpoint.origin();
        let log = self.logs.get(&origin_hash(origin)).ok_or_else(|| Error::UnknownOrigin(origin.clone()))?;
        // Only verified lines go any further: a line that only claims to be ours is never stored.
        let signed = request
            .checkpoint()
            .only_verified(&log.keys)
            .map_err(|source| Error::NotSigned { origin: origin.clone(), source })?;
        for _ in 0..ROUNDS_MAX {
            let state = self.state(log).await?;
            self.compare(&request, &signed, state.as_ref()).await?;
            if let Some(lines) = self.cosign(log, &signed, state).await? {
                return Ok(lines);
            }
        }
        Err(Error::Contended(origin.clone()))
    }

    /// The latest checkpoint cosigned for the log with this origin hash, signed by the log and
    /// cosigned by this witness (the monitor retrieval mechanism).
    ///
    /// # Errors
    /// [`Error::NothingCosigned`]; [`Error::Damaged`]; errors of the store.
    pub async fn checkpoint(&self, origin_hash: &Digest) -> Result<SignedCheckpoint, Error> {
        let nothing = || Error::NothingCosigned(*origin_hash);
        let log = self.logs.get(origin_hash).ok_or_else(nothing)?;
        Ok(self.state(log).await?.ok_or_else(nothing)?.checkpoint)
    }

    /// The first evidence seen against a log, if there is any.
    ///
    /// # Errors
    /// [`Error::Damaged`]; errors of the store.
    pub async fn evidence(&self, origin: &Origin) -> Result<Option<Evidence>, Error> {
        let Some(stored) = self.locks.get(&evidence_key(origin)).await? else { return Ok(None) };
        let damaged = |source| Error::Damaged { origin: origin.clone(), source };
        Evidence::parse(&stored.bytes).map(Some).map_err(damaged)
    }

    /// A wrong empty root is a reason of its own, but only for a log that is known.
    fn malformed(&self, error: MessageError) -> Error {
        match error {
            MessageError::Checkpoint(CheckpointError::EmptyRoot(origin)) => {
                if self.logs.contains_key(&origin_hash(&origin)) {
                    Error::EmptyRoot(origin)
                } else {
                    Error::UnknownOrigin(origin)
                }
            }
            error => Error::Malformed(error),
        }
    }

    async fn state(&self, log: &Log) -> Result<Option<Cosigned>, Error> {
        let Some(stored) = self.locks.get(&state_key(&log.origin)).await? else { return Ok(None) };
        let damaged = |source| Error::Damaged { origin: log.origin.clone(), source };
        Cosigned::open(stored, &log.keys, self.key()).map(Some).map_err(damaged)
    }

    async fn compare(
        &self,
        request: &AddCheckpoint,
        signed: &SignedCheckpoint,
        state: Option<&Cosigned>,
    ) -> Result<(), Error> {
        let (old, new): (TreeHead, &TreeHead) = (latest(state), signed.checkpoint().head());
        let forked = old.size == new.size && old.root != new.root;
        if let (true, Some(state)) = (forked, state) {
            self.keep_evidence(&state.checkpoint, signed).await?;
        }
        if request.old() != old.size {
            return Err(Error::Stale { latest: old.size });
        }
        if forked {
            return Err(Error::Fork { origin: signed.checkpoint().origin().clone(), size: new.size });
        }
        Ok(request.proof().verify(Growth { old: &old, new })?)
    }

    /// Keeps the new checkpoint and then gives its cosignature; nothing if the state changed.
    async fn cosign(
        &self,
        log: &Log,
        signed: &SignedCheckpoint,
        state: Option<Cosigned>,
    ) -> Result<Option<Cosignatures>, Error> {
        // A clock that was set back must not make this log's evidence time go back.
        let time = state.as_ref().map_or(self.clock.now(), |state| state.time.max(self.clock.now()));
        let line = cosign(signed.checkpoint(), &self.signer, time)?;
        let mut cosigned = signed.clone();
        let damaged = |source| Error::Damaged { origin: log.origin.clone(), source };
        cosigned.merge([line.clone()]).map_err(damaged)?;
        let expected = state.map(|state| state.version);
        let bytes = cosigned.to_string().into();
        match self.locks.compare_and_swap(&state_key(&log.origin), expected.as_ref(), bytes).await? {
            Swap::Won(_) => {
                let size = signed.checkpoint().size().get();
                tracing::debug!(log.origin = %log.origin, log.size = size, "checkpoint cosigned");
                Ok(Some(Cosignatures::one(line)))
            }
            Swap::Lost => Ok(None),
        }
    }

    /// Two roots for one size under the log's own signature: whoever sees both knows. The first
    /// pair is enough, so a log can't fill the store with more.
    async fn keep_evidence(&self, cosigned: &SignedCheckpoint, other: &SignedCheckpoint) -> Result<(), Error> {
        let origin = other.checkpoint().origin();
        let evidence = Evidence { cosigned: cosigned.clone(), other: other.clone() };
        if let Swap::Won(_) = self.locks.compare_and_swap(&evidence_key(origin), None, evidence.to_bytes()).await? {
            let size = other.checkpoint().size().get();
            tracing::error!(log.origin = %origin, log.size = size, "the log signed two roots for one size");
        }
        Ok(())
    }
}
