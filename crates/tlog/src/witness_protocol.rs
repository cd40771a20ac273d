//! What is said to a witness and what it answers (C2SP tlog-witness v1.0.0, `add-checkpoint`).
//!
//! `sign-subtree` is not here: Ed25519 cosignatures can't cover subtrees.

use std::{fmt, str};

use stdx::Digest;

use crate::log_proof::parse_hashes;
use crate::note::{check_text, parse_lines};
use crate::text;
use crate::{
    CheckpointError, ConsistencyProof, HashError, NoteError, NoteSignature, NumberError, Origin, ProofError,
    SignedCheckpoint, TreeSize,
};

/// The `Content-Type` of a 409 answer that tells the witness's size. A 409 without it is an alarm.
pub const SIZE_CONTENT_TYPE: &str = "text/x.tlog.size";

/// The largest request: a note, 63 hash lines and the `old` line, which together are far below
/// the note's own limit.
pub const MAX_REQUEST_BYTES: usize = crate::MAX_NOTE_BYTES;

/// Why a message was refused. A witness answers 400, except as stated.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MessageError {
    /// It is too large or no text.
    #[error("the message is not text")]
    Text(#[from] NoteError),
    /// No `old` line, or no empty line.
    #[error("the message is not an `old` line, hashes, an empty line and a checkpoint")]
    Lines,
    /// The old size is no size.
    #[error("the old size is not a size")]
    Old(#[from] NumberError),
    /// The old size is above the checkpoint's.
    #[error("the old size {old} is above the checkpoint's size {size}")]
    OldAboveSize {
        /// The old size.
        old: TreeSize,
        /// The checkpoint's.
        size: TreeSize,
    },
    /// A line is no hash.
    #[error("the consistency proof is damaged")]
    Hash(#[from] HashError),
    /// More than 63 hashes.
    #[error("the consistency proof is unusable")]
    Proof(#[from] ProofError),
    /// The checkpoint is damaged. With [`CheckpointError::EmptyRoot`] a witness answers 422.
    #[error("the checkpoint is unusable")]
    Checkpoint(#[from] CheckpointError),
    /// A 200 answer without signature lines.
    #[error("the witness answered without a signature")]
    NoSignature,
    /// A 409 answer that is not a size and a newline.
    #[error("`{0}` is not a size and a newline")]
    Size(String),
}

/// The body of `POST <submission prefix>/add-checkpoint`.
///
/// Parsing verifies neither signatures nor the proof, so that a witness can first look up the
/// origin (404), the signature (403) and its own size (409).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    old: TreeSize,
    proof: ConsistencyProof,
    checkpoint: SignedCheckpoint,
}

impl AddCheckpoint {
    /// This request.
    ///
    /// # Errors
    /// [`MessageError::OldAboveSize`].
    pub fn new(old: TreeSize, proof: ConsistencyProof, checkpoint: SignedCheckpoint) -> Result<Self, MessageError> {
        let size = checkpoint.checkpoint().size();
        if old > size {
            return Err(MessageError::OldAboveSize { old, size });
        }
        Ok(Self { old, proof, checkpoint })
    }

    /// Reads a request.
    ///
    /// # Errors
    /// Whatever is not the one form that [`Display`](fmt::Display) writes.
    pub fn parse(bytes: impl AsRef<[u8]>) -> Result<Self, MessageError> {
        let whole = check_text(bytes.as_ref())?;
        // The lines before the checkpoint are not empty, so the first empty line ends them.
        let (head, checkpoint) = whole.split_once("\n\n").ok_or(MessageError::Lines)?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old ")).ok_or(MessageError::Lines)?.parse()?;
        let proof = ConsistencyProof::new(parse_hashes(lines)?)?;
        Self::new(old, proof, SignedCheckpoint::parse(checkpoint)?)
    }

    /// The size that the proof starts from: what the sender thinks is the witness's latest.
    #[must_use]
    pub const fn old(&self) -> TreeSize {
        self.old
    }

    /// The proof from there; empty if `old` is zero.
    #[must_use]
    pub const fn proof(&self) -> &ConsistencyProof {
        &self.proof
    }

    /// The checkpoint to be cosigned.
    #[must_use]
    pub const fn checkpoint(&self) -> &SignedCheckpoint {
        &self.checkpoint
    }
}

impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old)?;
        self.proof.hashes().iter().try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

impl str::FromStr for AddCheckpoint {
    type Err = MessageError;

    fn from_str(text: &str) -> Result<Self, MessageError> {
        Self::parse(text)
    }
}

/// The body of a 200 answer: one or more signature lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosignatures(Vec<NoteSignature>);

impl Cosignatures {
    /// An answer with one line.
    #[must_use]
    pub fn one(line: NoteSignature) -> Self {
        Self(vec![line])
    }

    /// Reads an answer; verifies nothing.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn parse(bytes: impl AsRef<[u8]>) -> Result<Self, MessageError> {
        let lines = parse_lines(check_text(bytes.as_ref())?)?;
        if lines.is_empty() { Err(MessageError::NoSignature) } else { Ok(Self(lines)) }
    }

    /// The lines, of which the client ignores those of unknown keys.
    #[must_use]
    pub fn lines(&self) -> &[NoteSignature] {
        &self.0
    }

    /// The lines.
    #[must_use]
    pub fn into_lines(self) -> Vec<NoteSignature> {
        self.0
    }
}

impl fmt::Display for Cosignatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| line.fmt(f))
    }
}

/// The body of a 409 answer of type [`SIZE_CONTENT_TYPE`]: the size of the latest checkpoint that
/// the witness cosigned for this log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatestSize(pub TreeSize);

impl LatestSize {
    /// Reads an answer.
    ///
    /// # Errors
    /// [`MessageError::Size`].
    pub fn parse(bytes: impl AsRef<[u8]>) -> Result<Self, MessageError> {
        let body = check_text(bytes.as_ref())?;
        let size = body.strip_suffix('\n').and_then(|size| size.parse().ok());
        size.map(Self).ok_or_else(|| MessageError::Size(text::excerpt(body)))
    }
}

impl fmt::Display for LatestSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.0)
    }
}

/// What names a log in a witness's monitoring paths, `<origin hash>/checkpoint`.
#[must_use]
pub fn origin_hash(origin: &Origin) -> Digest {
    Digest::of(origin.as_str().as_bytes())
}
