//! What people approve.

use serde::{Deserialize, Serialize};

use super::in_stream;
use crate::{Position, ProductId, StatementId};

/// "This result may be released": signed by a person's approver key. Its subjects are the
/// result's, so that the approval names bytes and not only a statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Where this stands.
    pub position: Position,
    /// What is approved.
    pub product: ProductId,
    /// Its version, for people.
    pub version: String,
    /// The `result` statement that is approved.
    pub result: StatementId,
    /// What the approver has to say.
    pub comment: String,
}

in_stream! { Approval => "approval/v1" }
