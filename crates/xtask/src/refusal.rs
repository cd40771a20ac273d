//! Why a command ended without doing its work, and what its caller can do about it.

use std::fmt;

/// An error with an exit code and a hint.
#[derive(Debug)]
pub(crate) struct Refusal {
    code: u8,
    what: String,
    hint: Option<String>,
}

impl Refusal {
    /// The work was done and its result is "no".
    pub(crate) fn refused(what: impl fmt::Display) -> Self {
        Self { code: 1, what: what.to_string(), hint: None }
    }

    /// This machine lacks something.
    pub(crate) fn missing(what: impl fmt::Display) -> Self {
        Self { code: 2, what: what.to_string(), hint: None }
    }

    /// The same command may work later.
    pub(crate) fn unavailable(what: impl fmt::Display) -> Self {
        Self { code: 75, what: what.to_string(), hint: None }
    }

    pub(crate) fn with_hint(self, hint: impl fmt::Display) -> Self {
        Self { hint: Some(hint.to_string()), ..self }
    }

    pub(crate) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    pub(crate) fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.what)
    }
}

impl std::error::Error for Refusal {}
