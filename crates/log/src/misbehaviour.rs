//! Proof that a log's key signed two checkpoints that can't both be true, for anyone to check.
//!
//! ```text
//! clerestory-misbehaviour/1
//! prefix HASH              the root that the second tree has at the first one's size
//! HASH …                   consistency proof from there to the second checkpoint
//!                          (an empty line)
//! the first checkpoint, as signed
//! ====
//!                          (an empty line)
//! the second checkpoint, as signed
//! ```
//!
//! For two checkpoints of one size there is no `prefix` line and no hash: the roots differ, and
//! that is all. Otherwise the hashes show that every tree with the second root begins with the
//! prefix, which is not the first root.

use std::{fmt, str};

use tlog::{
    CheckpointError, ConsistencyProof, Growth, Hash, HashError, MAX_NOTE_BYTES, ProofError, SignedCheckpoint, TreeHead,
    TreeSize, VerifierKey,
};

/// Two notes, and at most 64 hashes of 45 bytes.
pub const MAX_MISBEHAVIOUR_BYTES: usize = 2 * MAX_NOTE_BYTES + 4096;

const FIRST_LINE: &str = "clerestory-misbehaviour/1\n";
const BETWEEN: &str = "\n====\n\n";

/// Why a text proves nothing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MisbehaviourError {
    /// Not in the one form that it is written in.
    #[error("this is not a proof of misbehaviour")]
    Form,
    /// A line is no hash.
    #[error("a hash is damaged")]
    Hash(#[from] HashError),
    /// A checkpoint is damaged, or not signed by the log.
    #[error("a checkpoint is damaged or not signed by the log")]
    Checkpoint(#[from] CheckpointError),
    /// The hashes don't lead from the prefix to the second checkpoint.
    #[error("the prefix is not shown to be one of the second checkpoint")]
    Proof(#[from] ProofError),
    /// The first checkpoint is larger, or there is a prefix where none belongs.
    #[error("checkpoints of size {first} and {second} are not in the form for them")]
    Sizes {
        /// The first one's size.
        first: TreeSize,
        /// The second one's.
        second: TreeSize,
    },
    /// Both checkpoints can be true.
    #[error("the two checkpoints don't contradict each other")]
    NoContradiction,
}

/// Two signed checkpoints that can't both be true, with what it takes to see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misbehaviour {
    first: SignedCheckpoint,
    second: SignedCheckpoint,
    prefix: Option<(Hash, ConsistencyProof)>,
}

impl Misbehaviour {
    /// Two checkpoints of one size with different roots.
    ///
    /// # Errors
    /// As [`verify`](Self::verify).
    pub fn same_size(pair: [SignedCheckpoint; 2], key: &VerifierKey) -> Result<Self, MisbehaviourError> {
        let [first, second] = pair;
        Self { first, second, prefix: None }.verified(key)
    }

    /// Two checkpoints of growing size, where the larger tree had `prefix` as its root at the
    /// size of the first, as the proof shows.
    ///
    /// # Errors
    /// As [`verify`](Self::verify).
    pub fn not_grown(
        pair: [SignedCheckpoint; 2],
        prefix: (Hash, ConsistencyProof),
        key: &VerifierKey,
    ) -> Result<Self, MisbehaviourError> {
        let [first, second] = pair;
        Self { first, second, prefix: Some(prefix) }.verified(key)
    }

    fn verified(self, key: &VerifierKey) -> Result<Self, MisbehaviourError> {
        self.verify(key).map(|()| self)
    }

    /// Checks that the owner of `key` (the log's, by its origin) signed two checkpoints that
    /// can't both be true. Nothing else is needed or trusted.
    ///
    /// # Errors
    /// [`MisbehaviourError`] saying why this proves nothing.
    pub fn verify(&self, key: &VerifierKey) -> Result<(), MisbehaviourError> {
        // Both have the key's name as their origin.
        self.first.verify_log(key)?;
        self.second.verify_log(key)?;
        let (first, second) = (*self.first.checkpoint().head(), *self.second.checkpoint().head());
        let contradicts = match &self.prefix {
            None if first.size == second.size => first.root != second.root,
            Some((root, proof)) if first.size < second.size => {
                let old = TreeHead { size: first.size, root: *root };
                proof.verify(Growth { old: &old, new: &second })?;
                first.root != *root
            }
            _ => return Err(MisbehaviourError::Sizes { first: first.size, second: second.size }),
        };
        if contradicts { Ok(()) } else { Err(MisbehaviourError::NoContradiction) }
    }

    /// The two checkpoints, the smaller one first.
    #[must_use]
    pub const fn checkpoints(&self) -> [&SignedCheckpoint; 2] {
        [&self.first, &self.second]
    }

    /// Reads a proof; verifies nothing.
    ///
    /// # Errors
    /// Whatever is not the one form that [`Display`](fmt::Display) writes.
    pub fn parse(bytes: &[u8]) -> Result<Self, MisbehaviourError> {
        if bytes.len() > MAX_MISBEHAVIOUR_BYTES {
            return Err(MisbehaviourError::Form);
        }
        let text = str::from_utf8(bytes).map_err(|_| MisbehaviourError::Form)?;
        let rest = text.strip_prefix(FIRST_LINE).ok_or(MisbehaviourError::Form)?;
        let (prefix, rest) = match rest.strip_prefix("prefix ") {
            Some(rest) => {
                let (lines, rest) = rest.split_once("\n\n").ok_or(MisbehaviourError::Form)?;
                let mut hashes = lines.split('\n').map(str::parse);
                let root: Hash = hashes.next().ok_or(MisbehaviourError::Form)??;
                (Some((root, ConsistencyProof::new(hashes.collect::<Result<_, _>>()?)?)), rest)
            }
            None => (None, rest.strip_prefix('\n').ok_or(MisbehaviourError::Form)?),
        };
        // In a note, no line but the first of its three consists of `=`, and no empty line
        // follows that.
        let (first, second) = rest.split_once(BETWEEN).ok_or(MisbehaviourError::Form)?;
        Ok(Self { first: SignedCheckpoint::parse(first)?, second: SignedCheckpoint::parse(second)?, prefix })
    }
}

impl fmt::Display for Misbehaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FIRST_LINE)?;
        if let Some((root, proof)) = &self.prefix {
            writeln!(f, "prefix {root}")?;
            proof.hashes().iter().try_for_each(|hash| writeln!(f, "{hash}"))?;
        }
        write!(f, "\n{}{BETWEEN}{}", self.first, self.second)
    }
}
