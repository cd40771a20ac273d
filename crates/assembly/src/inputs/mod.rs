//! Inputs by digest: asked of upstream's index, compared with the lock, fetched, stored by content.
//!
//! Each organisation has its own [`Depot`] and asks by itself. A shared transport cache may save
//! bytes on the wire: what comes from it counts only if it has the digest that this organisation's
//! own question got.

mod cargo;
mod debian;
mod depot;
mod fetch;
mod pin;
mod pypi;
mod resolve;

#[cfg(fuzzing)]
pub(crate) use debian::apt_answer;
pub use depot::{Depot, Transport};
pub use fetch::{Checkout, Fetched, Sdist};
pub use pin::{Pinned, pin};
pub use resolve::{Asking, Kind, Resolved, ResolvedItem};

use std::io;
use std::path::PathBuf;

use stdx::Digest;

use crate::archive::ArchiveError;
use crate::content::ContentError;
use crate::lock::LockError;
use crate::recipe::RecipeError;
use crate::source::SourceError;
use crate::tool::ToolError;

/// Inputs that cannot be had, or are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum InputsError {
    /// Upstream's index has another digest than the lock.
    #[error(
        "{item}: the lock says SHA-256 {locked}, upstream's index says {upstream}: \
         one of the two is poisoned, or upstream replaced it under the same version"
    )]
    Differs {
        /// Which.
        item: String,
        /// In the lock.
        locked: Digest,
        /// In the index.
        upstream: Digest,
    },
    /// Upstream has it no longer.
    #[error("{item} is no longer in upstream's index; run `assembly pin` to resolve again, visibly, into a new lock")]
    Superseded {
        /// Which.
        item: String,
    },
    /// The lock lacks something that the recipe asks for.
    #[error("the lock lacks {item}; run `assembly pin`")]
    Unlocked {
        /// What.
        item: String,
    },
    /// Nothing was recorded for this lock, and upstream was not to be asked.
    #[error("this lock was never resolved here; resolve it while upstream can be reached")]
    NeverResolved,
    /// The client brought something else than was asked for.
    #[error("{item} was fetched without an error, but is not there")]
    NotFetched {
        /// What.
        item: String,
    },
    /// A package client.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The content store; also: a fetched file with another digest.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// An archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A recipe.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// A file operation failed.
    #[error("cannot use {path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

pub(crate) fn io_at(path: &std::path::Path) -> impl FnOnce(io::Error) -> InputsError + '_ {
    move |source| InputsError::Io { path: path.to_owned(), source }
}
