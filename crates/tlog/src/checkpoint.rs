//! Checkpoints (C2SP tlog-checkpoint v1.0.0), without extension lines.

use std::{fmt, str};

use crate::{
    Hash, HashError, KeyKind, KeyName, NameError, Note, NoteError, NoteSignature, NumberError, Origin, SignerKey,
    TreeHead, TreeSize, VerifierKey, empty_root,
};

/// Why a checkpoint was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CheckpointError {
    /// It is no signed note, or its signatures are wrong.
    #[error("the checkpoint is not a good note")]
    Note(#[from] NoteError),
    /// Not exactly three lines, each ended by a newline.
    #[error("a checkpoint's text has three lines (extension lines are refused)")]
    Lines,
    /// The first line is no origin.
    #[error("the checkpoint's origin is unusable")]
    Origin(#[from] NameError),
    /// The second line is no size.
    #[error("the checkpoint's size is not a size")]
    Size(#[from] NumberError),
    /// The third line is no hash.
    #[error("the checkpoint's root is not a hash")]
    Root(#[from] HashError),
    /// Size 0 with a root that is not the empty tree's.
    #[error("the checkpoint of `{0}` has size 0 and a root other than the empty tree's")]
    EmptyRoot(Origin),
    /// The key that should sign for this log is named otherwise, or is no log's key.
    #[error("key `{key}` can't sign for the log `{origin}`")]
    NotTheLogsKey {
        /// The log.
        origin: Origin,
        /// The key's name.
        key: KeyName,
    },
}

/// A log's state: its name, how many entries it has, and their root.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Checkpoint {
    origin: Origin,
    head: TreeHead,
}

impl Checkpoint {
    /// This state of this log.
    ///
    /// # Errors
    /// [`CheckpointError::EmptyRoot`].
    pub fn new(origin: Origin, head: TreeHead) -> Result<Self, CheckpointError> {
        if head.size.is_zero() && head.root != empty_root() {
            return Err(CheckpointError::EmptyRoot(origin));
        }
        Ok(Self { origin, head })
    }

    /// Reads a note's text: origin, size, root, each ended by a newline.
    ///
    /// # Errors
    /// Whatever is not the one form that [`to_text`](Self::to_text) writes.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let body = text.strip_suffix('\n').ok_or(CheckpointError::Lines)?;
        let mut lines = body.split('\n');
        let (Some(origin), Some(size), Some(root), None) = (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(CheckpointError::Lines);
        };
        Self::new(origin.parse()?, TreeHead { size: size.parse()?, root: root.parse()? })
    }

    /// The note's text.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.head.size, self.head.root)
    }

    /// The log.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// How many entries.
    #[must_use]
    pub const fn size(&self) -> TreeSize {
        self.head.size
    }

    /// Their root.
    #[must_use]
    pub const fn root(&self) -> &Hash {
        &self.head.root
    }

    /// Size and root together, as proofs take them.
    #[must_use]
    pub const fn head(&self) -> &TreeHead {
        &self.head
    }
}

/// A checkpoint with its signature lines. None of them is verified by parsing it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    note: Note,
}

impl SignedCheckpoint {
    /// Reads a checkpoint with at least one signature line; verifies nothing.
    ///
    /// # Errors
    /// Whatever is not the one form that [`Display`](fmt::Display) writes.
    pub fn parse(bytes: impl AsRef<[u8]>) -> Result<Self, CheckpointError> {
        let note = Note::parse(bytes)?;
        let checkpoint = Checkpoint::parse(note.text())?;
        Ok(Self { checkpoint, note })
    }

    /// Reads a checkpoint that the log's `key` signed.
    ///
    /// # Errors
    /// As [`parse`](Self::parse) and [`verify_log`](Self::verify_log).
    pub fn open(bytes: impl AsRef<[u8]>, key: &VerifierKey) -> Result<Self, CheckpointError> {
        let signed = Self::parse(bytes)?;
        signed.verify_log(key)?;
        Ok(signed)
    }

    /// Signs `checkpoint` with its log's key.
    ///
    /// # Errors
    /// [`CheckpointError::NotTheLogsKey`].
    pub fn sign(checkpoint: Checkpoint, key: &SignerKey) -> Result<Self, CheckpointError> {
        check_role(&checkpoint.origin, key.verifier())?;
        let mut note = Note::new(checkpoint.to_text())?;
        note.sign(key)?;
        Ok(Self { checkpoint, note })
    }

    /// Checks that the log's `key` (type 0x01, named like the origin) signed this.
    ///
    /// # Errors
    /// [`CheckpointError::NotTheLogsKey`]; [`CheckpointError::Note`] with
    /// [`NoteError::NoTrustedSignature`] or [`NoteError::WrongSignature`].
    pub fn verify_log(&self, key: &VerifierKey) -> Result<(), CheckpointError> {
        check_role(&self.checkpoint.origin, key)?;
        self.note.verified_by(std::slice::from_ref(key))?;
        Ok(())
    }

    /// The same checkpoint with only those lines that `keys` made, so that nothing unverified is
    /// stored or passed on.
    ///
    /// # Errors
    /// As [`Note::verified_by`].
    pub fn only_verified(&self, keys: &[VerifierKey]) -> Result<Self, CheckpointError> {
        let verified = self.note.verified_by(keys)?;
        let note = self.note.with_signatures(verified.iter().map(|signature| signature.line.clone()))?;
        Ok(Self { checkpoint: self.checkpoint.clone(), note })
    }

    /// Adds lines (cosignatures that the caller verified); those that are there already are
    /// skipped.
    ///
    /// # Errors
    /// [`NoteError::TooManySignatures`]; the checkpoint is then unchanged.
    pub fn merge(&mut self, lines: impl IntoIterator<Item = NoteSignature>) -> Result<(), CheckpointError> {
        let mut note = self.note.clone();
        for line in lines {
            match note.add(line) {
                Ok(()) | Err(NoteError::Duplicate { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.note = note;
        Ok(())
    }

    /// What was signed.
    #[must_use]
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The note around it.
    #[must_use]
    pub const fn note(&self) -> &Note {
        &self.note
    }

    /// All lines: the log's and the cosigners', verified or not.
    #[must_use]
    pub fn signatures(&self) -> &[NoteSignature] {
        self.note.signatures()
    }
}

/// A log's own key is of type 0x01 and named like its origin.
fn check_role(origin: &Origin, key: &VerifierKey) -> Result<(), CheckpointError> {
    if key.kind() == KeyKind::Ed25519 && origin.is(key.name()) {
        return Ok(());
    }
    Err(CheckpointError::NotTheLogsKey { origin: origin.clone(), key: key.name().clone() })
}

impl fmt::Display for SignedCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.note.fmt(f)
    }
}

impl str::FromStr for SignedCheckpoint {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        Self::parse(text)
    }
}
