//! How a command ends that didn't do what was asked: `error:`, `hint:` and an exit code.

use std::fmt;
use std::io::Write as _;
use std::process::ExitCode;

use api::ErrorClass;

/// An error with a hint and a class of its own. It may stand anywhere in an `anyhow` chain, as
/// an error or as context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    message: String,
    hint: Option<String>,
    exit: Exit,
}

/// Exit codes (STYLE 19).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    Class(ErrorClass),
    Usage,
}

impl Failure {
    /// Refused, or not verified: exit code 1.
    #[must_use]
    pub fn refused(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, exit: Exit::Class(ErrorClass::Rejected) }
    }

    /// Not now: exit code 75.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, exit: Exit::Class(ErrorClass::Unavailable) }
    }

    /// The command line or the configuration is wrong: exit code 2.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, exit: Exit::Usage }
    }

    /// The same with what could be done about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// What is known of an error by its type: the one place where classes become exit codes.
fn exit_of(error: &anyhow::Error) -> u8 {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return match failure.exit {
            Exit::Class(class) => class.exit_code(),
            Exit::Usage => 2,
        };
    }
    class_of(error).exit_code()
}

/// No room is left somewhere: that passes, when somebody makes some.
fn is_full(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let by_store = || cause.downcast_ref::<storage::Error>().is_some_and(storage::Error::is_full);
        let by_file = |error: &std::io::Error| error.kind() == std::io::ErrorKind::StorageFull;
        cause.downcast_ref().is_some_and(by_file) || by_store()
    })
}

fn class_of(error: &anyhow::Error) -> ErrorClass {
    if is_full(error) {
        return ErrorClass::Unavailable;
    }
    let known = error.chain().find_map(|cause| {
        let by_log = || cause.downcast_ref::<log::Error>().map(|error| of_log(error.class()));
        let by_source = || cause.downcast_ref::<log::SourceError>().map(|error| of_log(error.class));
        let by_store = || match cause.downcast_ref::<storage::Error>() {
            Some(storage::Error::Service { .. }) => Some(ErrorClass::Unavailable),
            _ => None,
        };
        cause
            .downcast_ref::<api::ClientError>()
            .map(api::ClientError::class)
            .or_else(by_log)
            .or_else(by_store)
            .or_else(by_source)
    });
    known.unwrap_or(ErrorClass::Rejected)
}

const fn of_log(class: log::Class) -> ErrorClass {
    match class {
        log::Class::Rejected => ErrorClass::Rejected,
        log::Class::Unavailable => ErrorClass::Unavailable,
        log::Class::Fatal => ErrorClass::Fatal,
    }
}

fn hint_of(error: &anyhow::Error) -> Option<String> {
    if let Some(hint) = error.downcast_ref::<Failure>().and_then(|failure| failure.hint.clone()) {
        return Some(hint);
    }
    if is_full(error) {
        return Some("the disk is full; nothing was lost: make room and repeat the command".to_owned());
    }
    error.chain().find_map(|cause| {
        if let Some(refusal) = cause.downcast_ref::<verify::Refusal>() {
            return Some(refusal.hint().to_owned());
        }
        if let Some(storage::Error::Setup { hint, .. }) = cause.downcast_ref::<storage::Error>() {
            return Some((*hint).to_owned());
        }
        match cause.downcast_ref::<api::ClientError>() {
            Some(api::ClientError::Status { body, .. }) => body.hint.clone(),
            Some(api::ClientError::Unreachable { .. }) => Some("check that it runs and can be reached".to_owned()),
            _ => None,
        }
    })
}

/// Prints the error with its causes and its hint on standard error, and gives the exit code.
#[must_use]
pub fn report(error: &anyhow::Error) -> ExitCode {
    let mut text = format!("error: {error:#}\n");
    if let Some(hint) = hint_of(error) {
        text.push_str(&format!("hint: {hint}\n"));
    }
    // A closed standard error leaves nobody to tell.
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::from(exit_of(error))
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_failure_is_found_as_error_and_as_context() {
        let error: anyhow::Error = Failure::usage("no").hint("do").into();
        let wrapped = Err::<(), _>(error).context("outer").unwrap_err();
        assert_eq!((exit_of(&wrapped), hint_of(&wrapped)), (2, Some("do".to_owned())));
        let context = Err::<(), _>(std::io::Error::other("x")).context(Failure::unavailable("later")).unwrap_err();
        assert_eq!((exit_of(&context), hint_of(&context)), (75, None));
        assert_eq!(format!("{context:#}"), "later: x");
    }

    #[test]
    fn a_log_that_dies_in_the_middle_of_a_reading_is_worth_another_try() {
        for (class, code) in [(log::Class::Unavailable, 75), (log::Class::Rejected, 1)] {
            let key = "tile/0/000".parse().unwrap();
            let source = log::SourceError { key, reason: "gone".to_owned(), class };
            let error = anyhow::Error::from(log::ReadError::Source(source)).context("reading");
            assert_eq!(exit_of(&error), code);
        }
    }
}
