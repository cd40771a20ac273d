//! Why something is not asked, approved or read.

use std::sync::Arc;

use api::ClientError;
use attest::StatementId;
use verify::Refusal;

use crate::stream::StreamError;

/// Why something is not asked, approved or read.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// What came can't be read.
    #[error("{0}")]
    Form(String),
    /// What came is not signed by whom it must be.
    #[error(transparent)]
    Evidence(#[from] Refusal),
    /// Policy, rules or approvals don't allow it.
    #[error("{0}")]
    Refused(String),
    /// More than may be opened at once.
    #[error("{0}")]
    TooMuch(String),
    /// Nobody has asked for that.
    #[error("there is no request {0}")]
    NoRequest(StatementId),
    /// Somebody's call is too old, or was made before, or by another than it says.
    #[error("the call {0}")]
    Call(String),
    /// The log took nothing.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// Nor did it take what was written with others.
    #[error("{0}")]
    Log(String),
    /// A store failed.
    #[error(transparent)]
    Store(#[from] storage::Error),
    /// A worker or custodian refused, or can't be reached.
    #[error("{who}: {}", of(source))]
    Peer {
        /// Who.
        who: String,
        /// Why.
        source: ClientError,
    },
    /// This process failed.
    #[error("{0}")]
    Broken(String),
    /// What others were told who waited for the same answer.
    #[error(transparent)]
    Same(Arc<DataError>),
}

/// What a peer says; where it is is nobody's business but the operator's.
fn of(error: &ClientError) -> String {
    match error {
        ClientError::Status { body, .. } => body.message.clone(),
        ClientError::Unreachable { .. } => "no answer".to_owned(),
        ClientError::TooLong { .. } | ClientError::Syntax { .. } => "an answer that can't be read".to_owned(),
    }
}

impl DataError {
    pub(super) fn refused(why: impl Into<String>) -> Self {
        Self::Refused(why.into())
    }

    pub(super) fn broken(error: &dyn std::fmt::Display) -> Self {
        Self::Broken(error.to_string())
    }
}
