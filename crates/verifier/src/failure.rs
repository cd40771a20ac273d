//! Why a file is not verified, as people and machines read it.

use std::fmt;
use std::path::Path;

use attest::Release;
use stdx::Digest;
use verify::{Approved, Refusal};

/// A stable code, a message that names the object, and what could be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Stable; listed in `docs/errors.md`.
    pub code: &'static str,
    /// Names the object.
    pub message: String,
    /// What could be done.
    pub hint: &'static str,
}

impl Failure {
    /// An input that can't be read.
    pub(crate) fn unreadable(path: &Path, error: &dyn fmt::Display) -> Self {
        Self {
            code: "unreadable",
            message: format!("{}: {error}", path.display()),
            hint: "give a file that exists and that you may read",
        }
    }

    /// An input in another form than ours.
    pub(crate) fn malformed(path: &Path, error: &dyn fmt::Display) -> Self {
        Self {
            code: "malformed",
            message: format!("{}: {error}", path.display()),
            hint: "get the file again; no other encoding is accepted",
        }
    }

    /// A file that the approved release does not name.
    pub(crate) fn other_content(path: &Path, content: &Digest, approved: &Approved<Release>) -> Self {
        let Release { product, version, number, .. } = approved.release();
        Self {
            code: "other-content",
            message: format!(
                "{}: its SHA-256 is {content}, which no artifact of `{product}` {version} (release {number}) has",
                path.display()
            ),
            hint: "the file was altered, cut short, or belongs to another release; do not use it",
        }
    }

    /// `refusal`, while looking at `path`.
    pub(crate) fn refused(path: &Path, refusal: &Refusal) -> Self {
        Self { code: refusal.code(), message: format!("{}: {refusal}", path.display()), hint: refusal.hint() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}: {}\nhint: {}", self.code, self.message, self.hint)
    }
}
