//! Why something was not done, as people and machines read it.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use api::{ClientError, ErrorClass};
use channel::ExportError;
use serde::Serialize;
use verify::Refusal;

/// Messages hold foreign text; more of it helps nobody.
const MESSAGE_CHARS_MAX: usize = 600;

/// A stable code, a message that names the object, and what could be done.
#[derive(Clone, Debug, thiserror::Error, Serialize)]
#[error("{message}")]
pub struct Failure {
    /// Stable; listed in `docs/errors.md`.
    pub code: &'static str,
    /// Names the object.
    pub message: String,
    /// What could be done.
    pub hint: &'static str,
    /// What the caller can do about it.
    #[serde(skip)]
    pub class: ErrorClass,
}

impl Failure {
    pub(crate) fn rejected(code: &'static str, message: impl Into<String>, hint: &'static str) -> Self {
        Self { code, message: shortened(message.into()), hint, class: ErrorClass::Rejected }
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        let hint = "check the network and the channel's mirrors; what is installed stays in use";
        Self { code: "unavailable", message: shortened(message.into()), hint, class: ErrorClass::Unavailable }
    }

    /// The agent's own files failed.
    pub(crate) fn file(path: &Path, error: &io::Error) -> Self {
        let hint = "look at the disk and at the folder's owner; the same command goes on where it stopped";
        Self {
            code: "file",
            message: format!("{}: {error}", path.display()),
            hint,
            class: if error.kind() == io::ErrorKind::StorageFull { ErrorClass::Unavailable } else { ErrorClass::Fatal },
        }
    }

    /// The agent's own state says something that it never wrote.
    pub(crate) fn state(path: &Path, error: impl std::fmt::Display) -> Self {
        Self {
            code: "state",
            message: format!("{}: {error}", path.display()),
            hint: "restore the file from a backup made by this machine, or set up anew with `clerestory-agent init`",
            class: ErrorClass::Fatal,
        }
    }

    /// The state is of a later version of this program.
    pub(crate) fn newer(state: &Path, found: u32) -> Self {
        Self {
            code: "state-newer",
            message: format!("{}: the state has format {found}, and this version knows only 1", state.display()),
            hint: "use the version that wrote it, or a later one; nothing was changed",
            class: ErrorClass::Rejected,
        }
    }

    /// The same failure, saying where it happened.
    pub(crate) fn within(mut self, place: &str) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }
}

fn shortened(message: String) -> String {
    if message.chars().count() <= MESSAGE_CHARS_MAX {
        return message;
    }
    let mut short: String = message.chars().take(MESSAGE_CHARS_MAX).collect();
    short.push('…');
    short
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::rejected(refusal.code(), refusal.to_string(), refusal.hint())
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error.class() {
            ErrorClass::Unavailable | ErrorClass::Fatal => Self::unavailable(error.to_string()),
            ErrorClass::Rejected => Self::rejected("channel-answer", error.to_string(), "try another mirror"),
        }
    }
}

impl From<tuf::Error> for Failure {
    fn from(error: tuf::Error) -> Self {
        let mut message = error.to_string();
        let (mut source, mut is_full) = (error.source(), false);
        while let Some(cause) = source {
            let said = cause.to_string();
            if !message.ends_with(&said) {
                let _ = write!(message, ": {said}");
            }
            let of_disk = cause.downcast_ref::<io::Error>();
            is_full |= of_disk.is_some_and(|error| error.kind() == io::ErrorKind::StorageFull);
            source = cause.source();
        }
        let hint = "the channel or a mirror shows something wrong; try another mirror, and report it if it stays";
        let mut inner = &error;
        while let tuf::Error::Search { source, .. } = inner {
            inner = source;
        }
        let code = match inner {
            _ if error.is_temporary() => return Self::unavailable(message),
            tuf::Error::Rollback { .. } => "channel-rollback",
            tuf::Error::Expired { .. } => "channel-expired",
            tuf::Error::Unsigned { .. } => "channel-unsigned",
            tuf::Error::TooLong { .. } => "channel-too-long",
            tuf::Error::OtherVersion { .. } | tuf::Error::OtherContent(_) | tuf::Error::Unlisted(_) => "channel-mixed",
            tuf::Error::UnknownTarget(_) => "channel-lacks",
            tuf::Error::Store { .. } | tuf::Error::Output { .. } => {
                let class = if is_full { ErrorClass::Unavailable } else { ErrorClass::Fatal };
                let hint = "look at the disk; the same command goes on where it stopped";
                return Self { class, ..Self::rejected("file", message, hint) };
            }
            _ => "channel-metadata",
        };
        Self::rejected(code, message, hint)
    }
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        Self::rejected("export", error.to_string(), "copy the export again; if it stays so, have it made again")
    }
}
