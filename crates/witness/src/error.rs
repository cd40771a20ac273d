//! Why a request is refused; each reason has its status in the specification.

use stdx::Digest;
use tlog::witness_protocol::MessageError;
use tlog::{CheckpointError, CosignatureError, KeyName, Origin, ProofError, TreeSize};

/// Why a checkpoint was not cosigned, or none could be shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// 404: no log of this name is witnessed here.
    #[error("the log `{0}` is not witnessed here")]
    UnknownOrigin(Origin),
    /// 404: no log with this origin hash is witnessed here, or nothing of it was cosigned yet.
    #[error("nothing with origin hash {0} was cosigned here")]
    NothingCosigned(Digest),
    /// 403: no signature by a trusted key of the log, or a wrong one.
    #[error("the checkpoint of `{origin}` is not signed by a trusted key")]
    NotSigned {
        /// The log.
        origin: Origin,
        /// What is wrong with the signatures.
        source: CheckpointError,
    },
    /// 400: not a request, or its old size is larger than the checkpoint's.
    #[error("the request is malformed")]
    Malformed(#[from] MessageError),
    /// 409 with the size as `text/x.tlog.size`: the old size is not that of the latest
    /// cosigned checkpoint.
    #[error("the latest cosigned checkpoint has size {latest}")]
    Stale {
        /// The latest cosigned size.
        latest: TreeSize,
    },
    /// 409 without a size: the log signed another root for the size cosigned last. Clients take
    /// it for an alarm. (The specification's main branch says 422; v1.0.0 says 409.)
    #[error("`{origin}` signed two roots for size {size}")]
    Fork {
        /// The log.
        origin: Origin,
        /// The size.
        size: TreeSize,
    },
    /// 422: the proof doesn't lead from the latest cosigned checkpoint to this one.
    #[error("the consistency proof doesn't verify")]
    BadProof(#[from] ProofError),
    /// 422: size 0 with a root that isn't the empty tree's.
    #[error("the checkpoint of `{0}` has size 0 and a root that is not the empty tree's")]
    EmptyRoot(Origin),
    /// 503: others changed the state of this log again and again meanwhile.
    #[error("too many requests for `{0}` at once")]
    Contended(Origin),
    /// 500: the state in storage is not what this witness wrote. Nothing is signed for this log
    /// until it is repaired.
    #[error("the stored state of `{origin}` is damaged")]
    Damaged {
        /// The log.
        origin: Origin,
        /// What is wrong with it.
        source: CheckpointError,
    },
    /// 500: no time to put into a cosignature.
    #[error("can't cosign")]
    Cosign(#[from] CosignatureError),
    /// 500: the store failed; whether the checkpoint was kept is unknown, no cosignature left.
    #[error("the store of the witness failed")]
    Store(#[from] storage::Error),
}

impl Error {
    /// The HTTP status that the specification has for this.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::NotSigned { .. } => 403,
            Self::UnknownOrigin(_) | Self::NothingCosigned(_) => 404,
            Self::Stale { .. } | Self::Fork { .. } => 409,
            Self::BadProof(_) | Self::EmptyRoot(_) => 422,
            Self::Damaged { .. } | Self::Cosign(_) | Self::Store(_) => 500,
            Self::Contended(_) => 503,
        }
    }
}

/// Why no witness can be made of these parts.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// The witness's key is not a cosigner's (type 0x04).
    #[error("key `{0}` is not a cosigner's")]
    NotACosigner(KeyName),
    /// A log's key is not a log's (type 0x01).
    #[error("key `{0}` is not a log's")]
    NotALog(KeyName),
    /// The witness and a log share a name or a key; one key has one role.
    #[error("the witness and the log `{0}` share a name or a key")]
    Shared(KeyName),
}
