//! Offline proofs that an entry was logged (C2SP tlog-proof, `c2sp.org/tlog-proof@v1`).

use std::{fmt, str};

use crate::note::check_text;
use crate::text;
use crate::{
    CheckpointError, Cosigned, EntryIndex, Hash, HashError, InclusionProof, LogPolicy, MAX_NOTE_BYTES, NoteError,
    NumberError, PolicyError, ProofError, SignedCheckpoint,
};

/// Extra data is context, not content.
pub const MAX_EXTRA_BYTES: usize = 65_535;

/// A note, 63 hashes of 45 bytes, and extra data in base64 (4 for 3), rounded up: what
/// [`LogProof::parse`] reads at most.
pub const MAX_LOG_PROOF_BYTES: usize = MAX_NOTE_BYTES;

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";

/// Why a proof was refused.
#[derive(Debug, thiserror::Error)]
pub enum LogProofError {
    /// It is too large or no text.
    #[error("the proof is not text")]
    Text(#[from] NoteError),
    /// The first line is another.
    #[error("the proof does not begin with `{FIRST_LINE}`")]
    Version,
    /// Lines are missing or in another order.
    #[error("the proof has no `index` line, or no empty line before the checkpoint")]
    Lines,
    /// Extra data is damaged, or more than [`MAX_EXTRA_BYTES`].
    #[error("the proof's extra data is not base64 of at most {MAX_EXTRA_BYTES} bytes")]
    Extra,
    /// The index is no number.
    #[error("the proof's index is not an index")]
    Index(#[from] NumberError),
    /// A line is no hash.
    #[error("the proof's path is damaged")]
    Hash(#[from] HashError),
    /// The path is too long, or does not lead to the root.
    #[error("the entry is not proven to be in the tree")]
    Path(#[from] ProofError),
    /// The checkpoint is damaged.
    #[error("the proof's checkpoint is unusable")]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint is not signed and cosigned as the policy demands.
    #[error("the proof's checkpoint is not accepted by the policy")]
    Policy(#[from] PolicyError),
}

/// That an entry stands at an index of a log, and who saw the log in that state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogProof {
    extra: Option<Vec<u8>>,
    index: EntryIndex,
    path: InclusionProof,
    checkpoint: SignedCheckpoint,
}

impl LogProof {
    /// This proof, without extra data.
    #[must_use]
    pub const fn new(index: EntryIndex, path: InclusionProof, checkpoint: SignedCheckpoint) -> Self {
        Self { extra: None, index, path, checkpoint }
    }

    /// The same proof with extra data, which nothing authenticates.
    ///
    /// # Errors
    /// [`LogProofError::Extra`] for more than [`MAX_EXTRA_BYTES`].
    pub fn with_extra(mut self, extra: Vec<u8>) -> Result<Self, LogProofError> {
        if extra.len() > MAX_EXTRA_BYTES {
            return Err(LogProofError::Extra);
        }
        self.extra = Some(extra);
        Ok(self)
    }

    /// Reads a proof; verifies nothing.
    ///
    /// # Errors
    /// Whatever is not the one form that [`Display`](fmt::Display) writes.
    pub fn parse(bytes: impl AsRef<[u8]>) -> Result<Self, LogProofError> {
        let whole = check_text(bytes.as_ref())?;
        let rest = whole.strip_prefix(FIRST_LINE).and_then(|rest| rest.strip_prefix('\n'));
        let rest = rest.ok_or(LogProofError::Version)?;
        // The lines before the checkpoint are not empty, so the first empty line ends them.
        let (head, checkpoint) = rest.split_once("\n\n").ok_or(LogProofError::Lines)?;
        let mut lines = head.split('\n').peekable();
        let extra = match lines.peek().and_then(|line| line.strip_prefix("extra ")) {
            Some(extra) => {
                lines.next();
                let extra = text::base64_decode(extra).ok_or(LogProofError::Extra)?;
                Some(if extra.len() > MAX_EXTRA_BYTES { return Err(LogProofError::Extra) } else { extra })
            }
            None => None,
        };
        let index = lines.next().and_then(|line| line.strip_prefix("index ")).ok_or(LogProofError::Lines)?.parse()?;
        let path = InclusionProof::new(parse_hashes(lines)?)?;
        Ok(Self { extra, index, path, checkpoint: SignedCheckpoint::parse(checkpoint)? })
    }

    /// Checks everything but the leaf's meaning: that the checkpoint is one that `policy`
    /// accepts, and that the entry with this leaf hash is in it. Says who cosigned, and the
    /// evidence time; how old that may be is the caller's to decide.
    ///
    /// # Errors
    /// [`LogProofError::Policy`], [`LogProofError::Path`].
    pub fn verify(&self, leaf: &Hash, policy: &LogPolicy) -> Result<Cosigned, LogProofError> {
        let cosigned = policy.verify_checkpoint(&self.checkpoint)?;
        self.path.verify(self.index, leaf, self.checkpoint.checkpoint().head())?;
        Ok(cosigned)
    }

    /// Data of the application's; not authenticated.
    #[must_use]
    pub fn extra(&self) -> Option<&[u8]> {
        self.extra.as_deref()
    }

    /// Where the entry stands.
    #[must_use]
    pub const fn index(&self) -> EntryIndex {
        self.index
    }

    /// The way to the root.
    #[must_use]
    pub const fn path(&self) -> &InclusionProof {
        &self.path
    }

    /// The log's state.
    #[must_use]
    pub const fn checkpoint(&self) -> &SignedCheckpoint {
        &self.checkpoint
    }
}

/// Reads hash lines; one more than any proof may have is enough to refuse it.
pub(crate) fn parse_hashes<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Vec<Hash>, HashError> {
    lines.take(crate::MAX_PROOF_HASHES + 1).map(str::parse).collect()
}

impl fmt::Display for LogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", text::base64_encode(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        self.path.hashes().iter().try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

impl str::FromStr for LogProof {
    type Err = LogProofError;

    fn from_str(text: &str) -> Result<Self, LogProofError> {
        Self::parse(text)
    }
}
