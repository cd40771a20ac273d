//! Randomness as an argument.

/// The operating system gave no randomness; nothing secret may be made.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gave no randomness: {0}")]
pub struct EntropyError(String);

impl EntropyError {
    /// An error that says `why`, for sources other than the operating system's.
    #[must_use]
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// Where randomness comes from.
pub trait Entropy: Send + Sync {
    /// Fills `buffer` with bytes that nobody can predict.
    ///
    /// # Errors
    /// [`EntropyError`] when the source fails; the buffer's content is then meaningless.
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError>;
}

/// The operating system's generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    #[expect(clippy::disallowed_methods, reason = "the one place that draws randomness")]
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        getrandom::fill(buffer).map_err(|error| EntropyError(error.to_string()))
    }
}
