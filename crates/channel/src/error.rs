//! Why nothing was published.

use std::io;
use std::path::PathBuf;

use attest::StatementId;
use stdx::Digest;

use crate::releases::ReleasesError;

/// Why nothing was published. What was published before still is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the tree, or an artifact, could not be read or written.
    #[error("{path}: {error}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// There is no channel in the folder.
    #[error("{path} holds no channel: metadata/1.root.json is missing", path = .0.display())]
    Absent(PathBuf),
    /// The folder is not empty.
    #[error("{path} is not empty; a new channel needs a folder of its own", path = .0.display())]
    Exists(PathBuf),
    /// The bundle is not the evidence of what is to be published.
    #[error("the bundle does not hold statement {0}, or holds more than it should")]
    OtherBundle(StatementId),
    /// An artifact was not given and is not there yet.
    #[error("artifact `{name}` (SHA-256 {content}) was not given")]
    NoArtifact {
        /// Its name.
        name: String,
        /// Its content.
        content: Digest,
    },
    /// An artifact's file has other bytes than the release names.
    #[error("{path}: SHA-256 {found}, {size} bytes; the release names {expected}, {expected_size} bytes", path = path.display())]
    OtherContent {
        /// The file.
        path: PathBuf,
        /// The SHA-256 that was named.
        expected: Digest,
        /// The size that was named.
        expected_size: u64,
        /// The SHA-256 that it has.
        found: Digest,
        /// The size that it has.
        size: u64,
    },
    /// A list of releases that can't be read.
    #[error("{path}: {error}")]
    Releases {
        /// Which target.
        path: String,
        /// Why.
        error: ReleasesError,
    },
    /// The channel's own metadata is refused by our own client.
    #[error("the channel's metadata is refused")]
    Metadata(#[from] tuf::Error),
    /// The new metadata could not be made.
    #[error("the metadata could not be published")]
    Publish(#[from] tuf::PublishError),
    /// A signer failed.
    #[error("metadata could not be signed")]
    Sign(#[from] tuf::SignError),
    /// The last version that can be written was reached.
    #[error("role `{0}` has no version left")]
    LastVersion(String),
    /// The product has no release that was asked for.
    #[error("the channel offers no release of `{0}` for this ring")]
    NoRelease(String),
}
