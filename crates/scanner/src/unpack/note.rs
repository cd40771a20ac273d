//! What is told of a container that was not opened to its end, or not in the usual way.

use std::borrow::Cow;
use std::io;

use detection::NoteCode;

/// A [`Note`](detection::Note) that has no place yet.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) code: NoteCode,
    pub(super) detail: Cow<'static, str>,
}

impl Fault {
    pub(super) const fn new(code: NoteCode, detail: &'static str) -> Self {
        Self { code, detail: Cow::Borrowed(detail) }
    }

    pub(super) fn malformed(detail: &'static str) -> Self {
        Self::new(NoteCode::Malformed, detail)
    }
}

/// Decoders tell in the kind of the error what happened; the rest is no more than that something is wrong.
impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::new(NoteCode::Truncated, "the data ends early"),
            io::ErrorKind::OutOfMemory => Self::new(NoteCode::TooLarge, "it takes a larger window than allowed"),
            io::ErrorKind::Unsupported => Self::new(NoteCode::Unsupported, "its decoder knows no such method"),
            io::ErrorKind::TimedOut => Self::new(NoteCode::Timeout, "the time is over"),
            io::ErrorKind::QuotaExceeded => Self::new(NoteCode::Bomb, "more bytes than the file's size explains"),
            _ => Self::malformed("the data can't be decoded"),
        }
    }
}
