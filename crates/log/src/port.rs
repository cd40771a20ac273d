//! The log's view of a witness.

use std::time::Duration;

use async_trait::async_trait;
use tlog::witness_protocol::AddCheckpoint;
use tlog::{NoteSignature, Origin, SignedCheckpoint, TreeSize, VerifierKey};

/// Why a witness gave no cosignature.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// 409 with a size: the request must start from there. The size is a hint, not evidence.
    #[error("the witness starts from size {latest}")]
    Stale {
        /// The size that the witness says it cosigned last.
        latest: TreeSize,
    },
    /// 409 without a size, or 422: the witness says that this log contradicts itself.
    #[error("the witness refuses the checkpoint as inconsistent")]
    Inconsistent,
    /// Any other refusal, in words.
    #[error("the witness refuses: {0}")]
    Refused(String),
    /// No answer, or none that could be read.
    #[error("the witness gives no answer: {0}")]
    Silent(String),
}

/// How long a witness may take for one answer; a later one counts as none. Ten times the slowest
/// round trip around the world.
pub const WITNESS_TIMEOUT: Duration = Duration::from_secs(5);

/// One witness, wherever it runs.
///
/// - *Trust*: none. The log verifies what it gives, and takes nothing that isn't signed.
/// - *Concurrency*: calls may overlap; the log makes one `add_checkpoint` at a time.
/// - *Retry*: every call may be repeated. A call that was given up may still have its effect.
#[async_trait]
pub trait Witness: Send + Sync {
    /// The key of the witness, as the policy names it.
    fn key(&self) -> &VerifierKey;

    /// `add-checkpoint`: the lines that the witness answers with, unverified.
    async fn add_checkpoint(&self, request: &AddCheckpoint) -> Result<Vec<NoteSignature>, WitnessError>;

    /// The latest checkpoint of this log that the witness cosigned, unverified; `None` if it
    /// says that there is none.
    async fn checkpoint(&self, origin: &Origin) -> Result<Option<SignedCheckpoint>, WitnessError>;
}
