//! Text, line by line.

use super::budget::Stop;
use super::strings::Pieces;
use super::walk::{Pair, Walk};

/// UTF-8 without NUL; an empty file is text.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    !bytes.contains(&0) && str::from_utf8(bytes).is_ok()
}

pub(super) fn compare(walk: &mut Walk<'_>, pair: Pair<'_>) -> Result<(), Stop> {
    // Before a list of lines is made, which takes 16 bytes for each.
    let count = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
    walk.budget.take_members(count(pair.left).saturating_add(count(pair.right)))?;
    let is_manifest = is_manifest(walk.place());
    let pieces = Pieces { left: lines(pair.left), right: lines(pair.right), what: "line", always: None, is_manifest };
    pieces.compare(walk)
}

/// Lines with their ends, so that a missing last newline is a difference too.
fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n').collect()
}

/// Files that list digests and sizes of what lies beside them: there such a difference is a consequence.
fn is_manifest(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or_default();
    matches!(file, "md5sums" | "RECORD" | "SHA256SUMS" | "sha256sums" | "MANIFEST.MF")
        || [".buildinfo", ".changes", ".dsc"].iter().any(|end| file.ends_with(end))
}
