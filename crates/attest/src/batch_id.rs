//! What a sealed object is called.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use stdx::{Entropy, EntropyError};

/// An object's random name. Deduplication knows it and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BatchId([u8; 16]);

/// A text that is no object's name.
#[derive(Debug, thiserror::Error)]
#[error("not the name of a sealed object: 32 lower-case hexadecimal digits")]
pub struct BatchIdError;

impl BatchId {
    /// These bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// A name that nobody has.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn draw(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        let mut bytes = [0; 16];
        entropy.fill(&mut bytes)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for BatchId {
    type Err = BatchIdError;

    fn from_str(text: &str) -> Result<Self, BatchIdError> {
        let mut bytes = [0; 16];
        if text.len() != 32 || !text.is_ascii() {
            return Err(BatchIdError);
        }
        for (at, byte) in bytes.iter_mut().enumerate() {
            let digits = text.get(2 * at..2 * at + 2).ok_or(BatchIdError)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| BatchIdError)?;
        }
        let id = Self(bytes);
        if id.to_string() == text { Ok(id) } else { Err(BatchIdError) }
    }
}

impl TryFrom<String> for BatchId {
    type Error = BatchIdError;

    fn try_from(text: String) -> Result<Self, BatchIdError> {
        text.parse()
    }
}

impl From<BatchId> for String {
    fn from(id: BatchId) -> Self {
        id.to_string()
    }
}
