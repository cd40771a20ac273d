//! What a witness keeps of each log: the last cosigned checkpoint, and evidence.

use bytes::Bytes;
use stdx::{Digest, UnixTime};
use storage::{Key, Version};
use tlog::{CheckpointError, Origin, SignedCheckpoint, TreeHead, VerifierKey};

/// The last checkpoint cosigned for a log: with the log's signature and our cosignature, as
/// monitors get it. There is nothing else to keep: the time is in the cosignature.
#[derive(Debug)]
pub(crate) struct Cosigned {
    pub(crate) checkpoint: SignedCheckpoint,
    pub(crate) time: UnixTime,
    pub(crate) version: Version,
}

impl Cosigned {
    /// Reads what was stored, and trusts nothing in it that `keys` (the log's) and `own` didn't sign.
    pub(crate) fn open(
        stored: storage::Versioned,
        keys: &[VerifierKey],
        own: &VerifierKey,
    ) -> Result<Self, CheckpointError> {
        let checkpoint = SignedCheckpoint::parse(&stored.bytes)?;
        checkpoint.only_verified(keys)?;
        let own = std::slice::from_ref(own);
        let time = checkpoint.note().verified_by(own)?.iter().filter_map(|signature| signature.time).max();
        let time = time.ok_or(tlog::NoteError::NoTrustedSignature)?;
        Ok(Self { checkpoint, time, version: stored.version })
    }
}

/// What a request is compared with.
pub(crate) fn latest(state: Option<&Cosigned>) -> TreeHead {
    state.map_or(TreeHead::EMPTY, |state| *state.checkpoint.checkpoint().head())
}

/// Two checkpoints that one log signed, of one size and with different roots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The one that this witness cosigned, with its cosignature.
    pub cosigned: SignedCheckpoint,
    /// The other.
    pub other: SignedCheckpoint,
}

/// Stands between the two notes. A note has no line without a text or a signature in it but
/// empty ones.
const BETWEEN: &str = "\n====\n\n";

impl Evidence {
    pub(crate) fn to_bytes(&self) -> Bytes {
        format!("{}{BETWEEN}{}", self.cosigned, self.other).into()
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let text = std::str::from_utf8(bytes).map_err(|_| CheckpointError::Lines)?;
        let (cosigned, other) = text.split_once(BETWEEN).ok_or(CheckpointError::Lines)?;
        Ok(Self { cosigned: cosigned.parse()?, other: other.parse()? })
    }
}

/// Where the state of a log is kept.
pub(crate) fn state_key(origin: &Origin) -> Key {
    key("witness", origin)
}

/// Where the first evidence against a log is kept.
pub(crate) fn evidence_key(origin: &Origin) -> Key {
    key("evidence", origin)
}

fn key(folder: &str, origin: &Origin) -> Key {
    let hash = Digest::of(origin.as_str().as_bytes());
    format!("{folder}/{hash}").parse().expect("a word, a slash and hexadecimal digits are a key")
}
