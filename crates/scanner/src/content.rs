//! Bytes to be scanned, and where they are from.

use std::time::Duration;

use detection::{Note, NoteCode};
use stdx::{Clock as _, SystemClock};

/// Bytes to be scanned: a file, or a member of a container.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content<'a> {
    /// The path of the file, as it was given.
    pub(crate) path: &'a str,
    /// The members that lead here, from the outermost; none for the file itself.
    pub(crate) inside: &'a [String],
    /// What is to be scanned.
    pub(crate) bytes: &'a [u8],
}

impl<'a> Content<'a> {
    /// What rules get to know as the name: that of the innermost member, or of the file.
    pub(crate) fn full_name(&self) -> &'a str {
        self.inside.last().map_or(self.path, String::as_str)
    }

    /// A note about this.
    pub(crate) fn note(&self, code: NoteCode, message: impl Into<String>) -> Note {
        Note { inside: self.inside.to_vec(), code, message: message.into() }
    }
}

/// When everything about one file must be done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    clock: SystemClock,
    at: Duration,
}

impl Deadline {
    pub(crate) fn after(time: Duration) -> Self {
        let clock = SystemClock::new();
        Self { clock, at: clock.monotonic() + time }
    }

    /// What is left; none once it is over.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.at.checked_sub(self.clock.monotonic()).filter(|left| !left.is_zero())
    }
}
