//! Errors as responses: the one place where an error becomes a status.

use std::time::Duration;

use api::{ErrorBody, ErrorClass, TOO_MUCH, TOO_MUCH_HINT};
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

/// Every code of this server's own [`ErrorBody`]s; each is listed in `docs/errors.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Nothing is served here.
    NotFound,
    /// Something is served here, but not with this method.
    Method,
    /// The body is longer than is read.
    TooLong,
    /// The body ended early or can't be read.
    Body,
    /// More requests at once than are worked on.
    Busy,
    /// The request took too long.
    Timeout,
    /// The entry is no canonical envelope with a position.
    EntryForm,
    /// The entry was made for another log.
    EntryLog,
    /// The policy doesn't open the entry's stream in this log.
    EntryStream,
    /// No key of the stream's organisation has signed the entry, or somebody unknown has too.
    EntrySigner,
    /// The entry is not the next of its stream.
    EntryPosition,
    /// More entries wait than the log takes in.
    PoolFull,
    /// The entry was taken in and is not yet witnessed.
    NotWitnessed,
    /// No process of the domain sequences its log just now.
    NoSequencer,
    /// The log has stopped.
    LogStopped,
    /// An object is damaged.
    Damaged,
    /// A store failed.
    Storage,
    /// A witness refuses a checkpoint; the status says why.
    Witness,
    /// A request that is not what it must be.
    Request,
    /// The supervisor does not sign this.
    NotSigned,
    /// A host's health report does not count.
    Report,
    /// The gateway of look-ups gives no answer.
    Gateway,
    /// The intake has as many bytes as it may.
    IntakeFull,
    /// A custodian opens nothing for this.
    Grant,
    /// More waits for the intake's disk than may.
    IntakeBusy,
    /// The intake has stopped, and will open again.
    IntakeStopped,
    /// An object that the policy in force does not let endpoints seal for a region that is kept here.
    Sealed,
    /// A range of bytes that there is not.
    Range,
    /// What was written anew takes nobody's place.
    Rewriting,
    /// The gateway of data lets nobody ask, approve or read this.
    Access,
    /// More than may be opened or given out at once.
    TooMuch,
    /// A call is too old, or was made before, or by another than it says.
    Call,
    /// A worker or a custodian can't be reached.
    Peer,
}

impl Code {
    /// All of them, for the test that compares `docs/errors.md`.
    pub const ALL: [Self; 33] = [
        Self::NotFound,
        Self::Method,
        Self::TooLong,
        Self::Body,
        Self::Busy,
        Self::Timeout,
        Self::EntryForm,
        Self::EntryLog,
        Self::EntryStream,
        Self::EntrySigner,
        Self::EntryPosition,
        Self::PoolFull,
        Self::NotWitnessed,
        Self::NoSequencer,
        Self::LogStopped,
        Self::Damaged,
        Self::Storage,
        Self::Witness,
        Self::Request,
        Self::NotSigned,
        Self::Report,
        Self::Gateway,
        Self::IntakeFull,
        Self::Grant,
        Self::IntakeBusy,
        Self::IntakeStopped,
        Self::Sealed,
        Self::Range,
        Self::Rewriting,
        Self::Access,
        Self::TooMuch,
        Self::Call,
        Self::Peer,
    ];

    /// The stable code.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::Method => "method",
            Self::TooLong => "too-long",
            Self::Body => "body",
            Self::Busy => "busy",
            Self::Timeout => "timeout",
            Self::EntryForm => "entry-form",
            Self::EntryLog => "entry-log",
            Self::EntryStream => "entry-stream",
            Self::EntrySigner => "entry-signer",
            Self::EntryPosition => "entry-position",
            Self::PoolFull => "pool-full",
            Self::NotWitnessed => "not-witnessed",
            Self::NoSequencer => "no-sequencer",
            Self::LogStopped => "log-stopped",
            Self::Damaged => "damaged",
            Self::Storage => "storage",
            Self::Witness => "witness",
            Self::Request => "request",
            Self::NotSigned => "not-signed",
            Self::Report => "report",
            Self::Gateway => "gateway",
            Self::IntakeFull => "intake-full",
            Self::Grant => "grant",
            Self::IntakeBusy => "intake-busy",
            Self::IntakeStopped => "intake-stopped",
            Self::Sealed => "sealed",
            Self::Range => "range",
            Self::Rewriting => "rewriting",
            Self::Access => "access",
            Self::TooMuch => TOO_MUCH,
            Self::Call => "call",
            Self::Peer => "peer",
        }
    }

    /// What the caller can do.
    #[must_use]
    pub const fn class(self) -> ErrorClass {
        match self {
            Self::NotFound
            | Self::Method
            | Self::TooLong
            | Self::Body
            | Self::EntryForm
            | Self::EntryLog
            | Self::EntryStream
            | Self::EntrySigner
            | Self::EntryPosition
            | Self::Witness
            | Self::Request
            | Self::NotSigned
            | Self::Report
            | Self::Grant
            | Self::Sealed
            | Self::Range
            | Self::Rewriting
            | Self::Access
            | Self::TooMuch
            | Self::Call => ErrorClass::Rejected,
            Self::Busy
            | Self::Timeout
            | Self::PoolFull
            | Self::NotWitnessed
            | Self::NoSequencer
            | Self::Storage
            | Self::Gateway
            | Self::IntakeFull
            | Self::IntakeBusy
            | Self::IntakeStopped
            | Self::Peer => ErrorClass::Unavailable,
            Self::LogStopped | Self::Damaged => ErrorClass::Fatal,
        }
    }

    /// The status: the class's, but where HTTP has a better one of the same class.
    const fn status(self) -> u16 {
        match self {
            Self::NotFound => 404,
            Self::Method => 405,
            Self::TooLong => 413,
            Self::Body => 400,
            Self::EntryStream | Self::EntrySigner | Self::NotSigned | Self::Grant | Self::Access | Self::Call => 403,
            Self::Range => 416,
            _ => self.class().status(),
        }
    }

    const fn hint(self) -> Option<&'static str> {
        Some(match self {
            Self::NotFound | Self::Method => return None,
            Self::TooLong => "send less; docs/errors.md names the limits",
            Self::Body => "send the whole body, with its length",
            Self::Busy | Self::Timeout | Self::Storage | Self::Gateway => "try again later",
            Self::Grant => "the message names what is missing; nothing was opened (docs/formats/custody.md)",
            Self::IntakeFull | Self::IntakeBusy => "keep it, and try again later; nothing was taken in",
            Self::IntakeStopped => "keep it, and try again later; what was taken in is not lost",
            Self::Sealed => "seal it anew under the policy in force (`clerestory-agent update` fetches it)",
            Self::Range => "ask for one range that lies within the object",
            Self::Rewriting => "have it written anew once more; nothing has changed (docs/formats/vault.md)",
            Self::EntryForm => "an entry is one DSSE envelope in canonical form (docs/formats/statements.md)",
            Self::EntryLog => "append it to the log that its position names",
            Self::EntryStream => "the policy must open the stream for this log first",
            Self::EntrySigner => {
                "sign with a key of the organisation that the policy names for the stream; \
                 every further signature must be by a key of the policy"
            }
            Self::EntryPosition => "read the stream's end in the log, and sign the place after it",
            Self::PoolFull => "try again later; nothing was taken in",
            Self::NotWitnessed => "append the same bytes again later: they keep their place",
            Self::NoSequencer => "send the same again in some seconds: another process takes over",
            Self::LogStopped => "the operator must look at the log (`clerestory fsck`)",
            Self::Damaged => "the operator must look at the store (`clerestory fsck`)",
            Self::Witness => "C2SP tlog-witness says what the status means",
            Self::Request => "docs/errors.md names the form of each request",
            Self::NotSigned => "the message names what is missing; nothing was signed",
            Self::Access => "the message names what is missing; `clerestory data requests` shows whose approval",
            Self::TooMuch => TOO_MUCH_HINT,
            Self::Call => "make the call again; both clocks must be right to a minute",
            Self::Peer => "nothing was read; try again later, or ask the gateway's operator",
            Self::Report => "ask the supervisor's operator whether this host is enrolled (`clerestory rules hosts`)",
        })
    }
}

/// An error response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpError {
    code: Code,
    status: u16,
    message: String,
    retry_after: Option<Duration>,
}

impl HttpError {
    /// The response for `code`; `message` names the object.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let retry_after = (code.class() == ErrorClass::Unavailable).then_some(Duration::from_secs(1));
        Self { code, status: code.status(), message: message.into(), retry_after }
    }

    /// The same with a `Retry-After` of its own.
    #[must_use]
    pub const fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// The same with the status that a specification demands.
    #[must_use]
    pub const fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Nothing is served at this path.
    #[must_use]
    pub fn not_found(path: &str) -> Self {
        Self::new(Code::NotFound, format!("nothing is served at `{}`", excerpt(path)))
    }
}

/// A hostile path may be long; a message shows its beginning.
fn excerpt(text: &str) -> String {
    text.chars().take(200).collect()
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            tracing::warn!(http.status = self.status, error.code = self.code.as_str(), "{}", self.message);
        }
        let body = ErrorBody {
            code: self.code.as_str().to_owned(),
            message: self.message,
            hint: self.code.hint().map(str::to_owned),
        };
        let mut response = (status, Json(body)).into_response();
        if let Some(after) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_the_class_of_its_code() {
        for code in Code::ALL {
            assert_eq!(ErrorClass::of_status(code.status()), Some(code.class()), "{code:?}");
        }
    }
}
