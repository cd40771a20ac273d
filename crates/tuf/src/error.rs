//! Why a client refuses.

use stdx::UnixTime;

use crate::metadata::Signed;
use crate::name::{RoleName, TargetPath};
use crate::ports::{FetchError, StoreError};
use crate::roles::Version;

/// Why an update, a search or a download ended. What was trusted before still is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no trusted root: the client was never set up.
    #[error("no trusted root metadata in the store")]
    NoRoot,
    /// There is a trusted root already.
    #[error("the store holds a trusted root already")]
    RootExists,
    /// The file is not metadata of its kind.
    #[error("{file} is malformed: {reason}")]
    Malformed {
        /// Which file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// Too few of the right keys signed the file: an arbitrary software attack, or a mistake.
    #[error("{file} has {} of {} signatures that it needs", signed.valid, signed.threshold)]
    Unsigned {
        /// Which file.
        file: String,
        /// How many it has and needs.
        signed: Signed,
    },
    /// A file older than the one seen before: a rollback attack.
    #[error("{file} was rolled back from version {trusted} to {got}")]
    Rollback {
        /// Which file.
        file: String,
        /// The version seen before.
        trusted: Version,
        /// The version offered.
        got: Version,
    },
    /// A file that isn't the version asked for: a mix-and-match attack.
    #[error("{file} should be version {expected}, but is {got}")]
    OtherVersion {
        /// Which file.
        file: String,
        /// The version that its referrer names.
        expected: Version,
        /// The version it has.
        got: Version,
    },
    /// A snapshot that doesn't list what it must: the file is gone, or was never there.
    #[error("the snapshot does not list {0}")]
    Unlisted(String),
    /// A file that has expired: a freeze attack, or a repository asleep.
    #[error("{file} expired at {expires}, and it is {now}")]
    Expired {
        /// Which file.
        file: String,
        /// When it expired.
        expires: UnixTime,
        /// The time given.
        now: UnixTime,
    },
    /// A file without the length and hashes that its referrer names.
    #[error("{0} does not have the length and hashes that were signed for it")]
    OtherContent(String),
    /// More bytes than the limit allows: an endless-data attack.
    #[error("{file} is longer than {max} bytes")]
    TooLong {
        /// Which file.
        file: String,
        /// The limit.
        max: u64,
    },
    /// No trusted role describes the target.
    #[error("no trusted role describes the target `{0}`")]
    UnknownTarget(TargetPath),
    /// A delegated role's metadata could not be had, which ends the search (5.6.7).
    #[error("the search for a target ended at the role `{role}`")]
    Search {
        /// Which role.
        role: RoleName,
        /// Why.
        source: Box<Error>,
    },
    /// The repository didn't give the file.
    #[error("{file} could not be fetched")]
    Fetch {
        /// Which file.
        file: String,
        /// Why.
        source: FetchError,
    },
    /// The client's store failed.
    #[error("{file} could not be read from or written to the store")]
    Store {
        /// Which file.
        file: String,
        /// Why.
        source: StoreError,
    },
    /// A verified target could not be written where the caller wanted it.
    #[error("the target `{path}` could not be written")]
    Output {
        /// Which target.
        path: TargetPath,
        /// Why.
        source: std::io::Error,
    },
}

impl Error {
    /// Whether the same call may succeed later although nobody changes what is published.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Fetch { .. } => true,
            Self::Search { source, .. } => source.is_temporary(),
            _ => false,
        }
    }
}
