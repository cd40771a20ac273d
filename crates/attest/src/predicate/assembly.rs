//! What the assembly line says: source, result, mismatch, refusal, heartbeat.

use serde::{Deserialize, Serialize};
use stdx::Digest;

use super::in_stream;
use crate::{Lane, Position, ProductId, StatementId, Subject};

/// "This is the source": its subject is the manifest of the canonical tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Where this stands.
    pub position: Position,
    /// What is built from it.
    pub product: ProductId,
    /// Its version, for people.
    pub version: String,
    /// Files in the tree.
    pub files: u64,
    /// Bytes in the tree.
    pub bytes: u64,
    /// The git commit it was taken from, if it was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub revision: Option<Revision>,
}

/// A git commit and its tree, by their own ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revision {
    /// The commit's id.
    pub commit: String,
    /// The tree's id.
    pub tree: String,
}

/// Where a build's root file system came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EnvironmentKind {
    /// Pinned packages, resolved by each builder for itself.
    Pinned,
    /// A copy of some host. It may be compared, and never releases.
    Captured,
}

/// "From this source, with these inputs, in this environment, these outputs": its subjects are
/// the outputs. Every builder signs the same payload, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildResult {
    /// Where this stands.
    pub position: Position,
    /// What was built.
    pub product: ProductId,
    /// Its version, for people.
    pub version: String,
    /// The logged `source` statement.
    pub source: StatementId,
    /// SHA-256 of the recipe.
    pub recipe: Digest,
    /// Digest of the list of inputs, each by its own digest (`docs/formats/build.md`).
    pub inputs: Digest,
    /// Digest of the environment's canonical tree.
    pub environment: Digest,
    /// Where the environment came from.
    pub environment_kind: EnvironmentKind,
    /// SHA-256 of the CycloneDX document derived from the inputs; of rules, of their index.
    pub sbom: Digest,
    /// The lane that both builders found it fit for; absent: the slow one. Without `fast` here, what
    /// was built needs people's approvals, whoever's keys sign the release.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lane: Option<Lane>,
}

/// The causes that a diagnosis can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// A time stamp.
    Time,
    /// The same members in another order.
    Order,
    /// A path of the machine that built.
    Path,
    /// The same content, compressed otherwise.
    Compression,
    /// Nothing but the ELF build-id.
    BuildId,
    /// A version string, such as a compiler's.
    VersionString,
    /// Files that only one side has.
    FileSet,
    /// Owner, group or mode.
    Metadata,
    /// Anything else: the code or data itself.
    Content,
    /// The inputs that the rebuilder resolved are not those that the vendor used.
    Inputs,
    /// The rebuild failed.
    BuildFailed,
}

/// "I rebuilt it and it is not the same": the supervisor's word, permanent. Its subjects are the
/// outputs that were claimed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mismatch {
    /// Where this stands.
    pub position: Position,
    /// What was built.
    pub product: ProductId,
    /// Its version, for people.
    pub version: String,
    /// The logged `source` statement.
    pub source: StatementId,
    /// SHA-256 of the recipe.
    pub recipe: Digest,
    /// What the rebuild gave; empty when it failed.
    pub rebuilt: Vec<Subject>,
    /// Why they differ, most telling first.
    pub causes: Vec<Cause>,
    /// SHA-256 of the full diagnosis, kept beside the log.
    pub diagnosis: Digest,
    /// One line for people.
    pub summary: String,
}

/// Why rules are not fit for the fast lane (`docs/formats/rules.md` lists the codes).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// Stable.
    pub code: String,
    /// The rule, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<String>,
    /// The file, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file: Option<String>,
    /// In words.
    pub detail: String,
}

/// "These rules need people's approval": the supervisor's word, permanent. Its subject is the
/// source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// Where this stands.
    pub position: Position,
    /// What was to be released.
    pub product: ProductId,
    /// Its version, for people.
    pub version: String,
    /// The logged `source` statement.
    pub source: StatementId,
    /// The first of them; the report has all.
    pub reasons: Vec<Reason>,
    /// SHA-256 of what the supervisor's own assembly reported, kept beside the log.
    pub report: Digest,
}

/// "I am here and have nothing else to say": makes silence visible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// Where this stands.
    pub position: Position,
    /// The next entry of the stream comes within this many seconds.
    pub interval_s: u64,
}

in_stream! {
    Source => "source/v1",
    BuildResult => "result/v1",
    Mismatch => "mismatch/v1",
    Refused => "refusal/v1",
    Heartbeat => "heartbeat/v1",
}
