//! The port for the few values that several writers contend for.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Error, Key};

/// Stands for one state of one lock. A store never gives the same version to two states, not
/// even when the bytes are equal, so that a swap can't mistake A-B-A for A.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version(String);

impl Version {
    /// The version that a store calls `text`. Only stores make versions.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// What the store calls it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The value of a lock and the version to swap it from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The value.
    pub bytes: Bytes,
    /// Its version.
    pub version: Version,
}

/// How a compare-and-swap ended.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swap {
    /// The value is in place, under this version.
    Won(Version),
    /// The lock had another version than expected; nothing changed.
    Lost,
}

/// Values that change by compare-and-swap only, and are never removed.
///
/// - *Durability*: when it returns [`Swap::Won`], the value is on disk.
/// - *Order*: linearizable for each key, across processes and restarts.
/// - *Concurrency*: of any number of swaps from one version exactly one wins.
/// - *Retry*: after an error the swap may or may not have happened. Read the lock and see;
///   repeating the swap blindly could report a lost race that was won.
#[async_trait]
pub trait LockStore: Send + Sync {
    /// The present value; `None` if there never was one.
    async fn get(&self, key: &Key) -> Result<Option<Versioned>, Error>;

    /// Puts `bytes` in place if the lock still has the version `expected` (`None`: if it has
    /// never had a value).
    async fn compare_and_swap(&self, key: &Key, expected: Option<&Version>, bytes: Bytes) -> Result<Swap, Error>;
}

/// One of several swaps.
#[derive(Clone, Debug)]
pub struct Swapping {
    /// The lock; no two of those that are swapped at once are the same.
    pub key: Key,
    /// What version it has: `None` if it has never had a value.
    pub expected: Option<Version>,
    /// Its next value.
    pub bytes: Bytes,
}

/// A [`LockStore`] that swaps several locks at once: for writers who would wait for the disk once each.
#[async_trait]
pub trait LockBatch: LockStore {
    /// Puts all of these in place if each lock has the version that is expected of it; if one has not, none. Gives
    /// the places in `swaps` of those that had another version: none means that all are on disk.
    ///
    /// *Order*, *Retry*: as of [`LockStore::compare_and_swap`], for all of them together.
    async fn swap_all(&self, swaps: &[Swapping]) -> Result<Vec<usize>, Error>;
}
