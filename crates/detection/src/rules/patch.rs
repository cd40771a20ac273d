//! From one version of a file to another: a zstd frame (RFC 8878) with the old file as its prefix.
//!
//! There is no header: what a patch leads from and to is pinned by the release that names it. Any
//! zstd makes and applies the same (`zstd -d --long=27 --patch-from=OLD PATCH`).

use stdx::Digest;
use zstd::zstd_safe::{CCtx, CParameter, DCtx, get_frame_content_size};

use super::index::Pin;
use super::settings::BUNDLE_BYTES_MAX;

/// Longest patch worth fetching: a whole bundle compresses to a quarter.
pub const PATCH_BYTES_MAX: u64 = BUNDLE_BYTES_MAX / 4;
/// Of rules of 7 MB: 0.08 s for 743 bytes from the commit before, and 34 KB from 64 commits before.
/// Level 19 takes 2.1 s for 622 bytes and 26 KB, and a release has eleven patches, each on its way to canaries.
const LEVEL: i32 = 9;
/// What is repeated over a longer distance than 2^27 is not found; both files have at most 2^26 bytes.
const WINDOW_LOG_MAX: u32 = 27;
const WINDOW_LOG_MIN: u32 = 10;

/// A patch that can't be made or does not lead where it should.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PatchError {
    /// A file or the patch is larger than any that is used.
    #[error("the {what} has {size} bytes, more than {most}")]
    TooLarge {
        /// Which.
        what: &'static str,
        /// Its size.
        size: u64,
        /// The most.
        most: u64,
    },
    /// The file at hand is not the one that the patch starts from.
    #[error("the patch starts from {expected}, not from {got}")]
    Start {
        /// What it starts from.
        expected: Digest,
        /// What is at hand.
        got: Digest,
    },
    /// The patch can't be applied, or was not made for this file.
    #[error("the patch can't be applied: {0}")]
    Broken(String),
    /// It leads to something else.
    #[error("the patch leads to {got}, not to {expected}")]
    End {
        /// Where it should lead.
        expected: Digest,
        /// Where it leads.
        got: Digest,
    },
}

/// A way from one file to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// The file that it starts from.
    pub from: Digest,
    /// The file that it leads to.
    pub to: Pin,
    /// The frame.
    pub bytes: Vec<u8>,
}

/// Two versions of a file.
#[derive(Clone, Copy, Debug)]
pub struct Step<'b> {
    /// What it was.
    pub old: &'b [u8],
    /// What it is now.
    pub new: &'b [u8],
}

impl Patch {
    /// Makes the patch of a step.
    ///
    /// # Errors
    /// [`PatchError::TooLarge`]; [`PatchError::Broken`] if zstd fails.
    pub fn make(step: Step<'_>) -> Result<Self, PatchError> {
        let Step { old, new } = step;
        bounded("old file", old.len(), BUNDLE_BYTES_MAX)?;
        bounded("new file", new.len(), BUNDLE_BYTES_MAX)?;
        // The window has to reach from the end of the new file back to the beginning of the old one.
        let reach = old.len().saturating_add(new.len()).max(1);
        let window_log = (reach.ilog2() + 1).clamp(WINDOW_LOG_MIN, WINDOW_LOG_MAX);
        let mut context = CCtx::create();
        let parameters = [
            CParameter::CompressionLevel(LEVEL),
            CParameter::WindowLog(window_log),
            CParameter::EnableLongDistanceMatching(true),
            CParameter::ContentSizeFlag(true),
            CParameter::ChecksumFlag(false),
        ];
        for parameter in parameters {
            context.set_parameter(parameter).map_err(broken)?;
        }
        context.ref_prefix(old).map_err(broken)?;
        let mut bytes = Vec::with_capacity(zstd::zstd_safe::compress_bound(new.len()));
        context.compress2(&mut bytes, new).map_err(broken)?;
        bytes.shrink_to_fit();
        Ok(Self { from: Digest::of(old), to: Pin::of(new), bytes })
    }

    /// The new file, checked. Memory is bounded by the size that `to` names.
    ///
    /// # Errors
    /// [`PatchError`].
    pub fn apply(&self, old: &[u8]) -> Result<Vec<u8>, PatchError> {
        bounded("patch", self.bytes.len(), PATCH_BYTES_MAX)?;
        bounded("old file", old.len(), BUNDLE_BYTES_MAX)?;
        let size = usize::try_from(self.to.size).unwrap_or(usize::MAX);
        bounded("new file", size, BUNDLE_BYTES_MAX)?;
        let got = Digest::of(old);
        if got != self.from {
            return Err(PatchError::Start { expected: self.from, got });
        }
        match get_frame_content_size(&self.bytes) {
            Ok(Some(named)) if named == self.to.size => {}
            Ok(named) => return Err(PatchError::Broken(format!("it gives {named:?} bytes, not {size}"))),
            Err(_) => return Err(PatchError::Broken("it is no zstd frame".to_owned())),
        }
        let mut context = DCtx::create();
        context.ref_prefix(old).map_err(broken)?;
        // The output is its own window: nothing else of this size is allocated.
        let mut new = Vec::with_capacity(size);
        context.decompress(&mut new, &self.bytes).map_err(broken)?;
        if self.to.is_of(&new) {
            Ok(new)
        } else {
            Err(PatchError::End { expected: self.to.digest, got: Digest::of(&new) })
        }
    }
}

fn bounded(what: &'static str, size: usize, most: u64) -> Result<(), PatchError> {
    let size = size as u64;
    if size > most { Err(PatchError::TooLarge { what, size, most }) } else { Ok(()) }
}

fn broken(code: usize) -> PatchError {
    PatchError::Broken(zstd::zstd_safe::get_error_name(code).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(step: usize) -> Vec<u8> {
        (0..5_000).filter(|n| n % step != 0).flat_map(|n| format!("rule r{n} {{ {} }}\n", n * n).into_bytes()).collect()
    }

    #[test]
    fn a_patch_leads_from_one_version_to_the_other() {
        let (old, new) = (lines(97), lines(1_003));
        let patch = Patch::make(Step { old: &old, new: &new }).unwrap();
        assert!(patch.bytes.len() < new.len() / 50, "{} of {}", patch.bytes.len(), new.len());
        assert_eq!(patch.apply(&old).unwrap(), new);
        // And from nothing, and to nothing.
        for (old, new) in [(&[][..], &new[..]), (&old[..], &[][..]), (&[][..], &[][..])] {
            assert_eq!(Patch::make(Step { old, new }).unwrap().apply(old).unwrap(), new);
        }
    }

    #[test]
    fn both_ends_are_pinned() {
        let (old, new) = (lines(97), lines(1_003));
        let patch = Patch::make(Step { old: &old, new: &new }).unwrap();
        assert!(matches!(patch.apply(&new), Err(PatchError::Start { .. })));
        let elsewhere = Patch { to: Pin { digest: Digest::of(b"x"), ..patch.to }, ..patch.clone() };
        assert!(matches!(elsewhere.apply(&old), Err(PatchError::End { .. })));
        // A frame that names another size is not even begun.
        for size in [0, patch.to.size - 1, patch.to.size + 1] {
            let other = Patch { to: Pin { size, ..patch.to }, ..patch.clone() };
            assert!(matches!(other.apply(&old), Err(PatchError::Broken(_))), "{size}");
        }
        let huge = Patch { to: Pin { size: u64::MAX, ..patch.to }, ..patch.clone() };
        assert!(matches!(huge.apply(&old), Err(PatchError::TooLarge { what: "new file", .. })));
    }

    #[test]
    fn a_damaged_patch_is_refused() {
        let (old, new) = (lines(97), lines(1_003));
        let patch = Patch::make(Step { old: &old, new: &new }).unwrap();
        for at in 0..patch.bytes.len() {
            let mut damaged = patch.clone();
            damaged.bytes[at] ^= 0x40;
            // A bit of the frame that has no meaning may change; what comes out may not.
            assert!(damaged.apply(&old).is_ok_and(|got| got == new) || damaged.apply(&old).is_err(), "byte {at}");
            damaged.bytes.truncate(at);
            assert!(damaged.apply(&old).is_err(), "cut at {at}");
        }
        let mut longer = patch.clone();
        longer.bytes.extend_from_slice(&patch.bytes);
        assert!(longer.apply(&old).is_err(), "two frames");
    }
}
