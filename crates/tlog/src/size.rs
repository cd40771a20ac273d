//! How many entries a tree has, and where one of them stands.

use std::{fmt, str};

use serde::{Deserialize, Serialize};

use crate::text;

/// A text that is not a decimal below 2^64 without leading zeroes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a decimal below 2^64 without leading zeroes")]
pub struct NumberError(String);

/// The number of entries in a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TreeSize(u64);

impl TreeSize {
    /// The size of the tree without entries.
    pub const ZERO: Self = Self(0);

    /// This size.
    #[must_use]
    pub const fn new(size: u64) -> Self {
        Self(size)
    }

    /// The number of entries.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Whether the tree has no entry.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

/// The position of an entry in its log, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EntryIndex(u64);

impl EntryIndex {
    /// This index.
    #[must_use]
    pub const fn new(index: u64) -> Self {
        Self(index)
    }

    /// The number of entries before this one.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for TreeSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl str::FromStr for TreeSize {
    type Err = NumberError;

    fn from_str(text: &str) -> Result<Self, NumberError> {
        text::decimal(text).map(Self).ok_or_else(|| NumberError(text::excerpt(text)))
    }
}

impl fmt::Display for EntryIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl str::FromStr for EntryIndex {
    type Err = NumberError;

    fn from_str(text: &str) -> Result<Self, NumberError> {
        text::decimal(text).map(Self).ok_or_else(|| NumberError(text::excerpt(text)))
    }
}
