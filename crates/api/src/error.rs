//! Errors as they travel: a class by consequence, a stable code, a message and a hint.

use serde::{Deserialize, Serialize};

/// What the caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorClass {
    /// The request is wrong or refused; the same again gives the same answer.
    Rejected,
    /// Not now; the same again may succeed.
    Unavailable,
    /// The server has stopped trusting its own state; somebody must look.
    Fatal,
}

impl ErrorClass {
    /// The exit code of a command that ends with this (STYLE 19): 1 refused, 75 try again.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Rejected | Self::Fatal => 1,
            Self::Unavailable => 75,
        }
    }

    /// The class of a response with this status, if it is an error.
    #[must_use]
    pub const fn of_status(status: u16) -> Option<Self> {
        match status {
            0..400 => None,
            408 | 429 | 502..=504 => Some(Self::Unavailable),
            400..500 => Some(Self::Rejected),
            _ => Some(Self::Fatal),
        }
    }

    /// The status of a response for an error that has none of its own.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Rejected => 422,
            Self::Unavailable => 503,
            Self::Fatal => 500,
        }
    }
}

/// The body of every error response of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// Stable; listed in `docs/errors.md`.
    pub code: String,
    /// Names the object.
    pub message: String,
    /// What could be done.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
}

/// The code of what is more than may be opened or given out at once: less of it may be read all the same.
pub const TOO_MUCH: &str = "too-much";
/// What can be done about it.
pub const TOO_MUCH_HINT: &str = "ask for fewer countries, or a shorter time with `taken`; or request a larger budget";

impl ErrorBody {
    /// More than may be opened or given out at once.
    #[must_use]
    pub fn too_much(message: impl Into<String>) -> Self {
        Self { code: TOO_MUCH.to_owned(), message: message.into(), hint: Some(TOO_MUCH_HINT.to_owned()) }
    }

    /// A result of which there is not all.
    #[must_use]
    pub fn incomplete(message: impl Into<String>) -> Self {
        let hint = "it counts as read, as the outcome in the log says; asked again, it goes to the workers that answer";
        Self { code: "incomplete".to_owned(), message: message.into(), hint: Some(hint.to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_survives_the_journey() {
        for class in [ErrorClass::Rejected, ErrorClass::Unavailable, ErrorClass::Fatal] {
            assert_eq!(ErrorClass::of_status(class.status()), Some(class));
        }
        assert_eq!(ErrorClass::of_status(200), None);
        assert_eq!(ErrorClass::of_status(304), None);
        assert_eq!(ErrorClass::of_status(404), Some(ErrorClass::Rejected));
    }
}
