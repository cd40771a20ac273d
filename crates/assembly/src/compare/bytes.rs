//! Bytes of no known format: the texts in them, and the rest.

use super::budget::Stop;
use super::strings::Pieces;
use super::walk::{Note, Pair, Walk};
use super::{Cause, Excerpt};

/// Shorter runs of letters are chance, not text.
const STRING_MIN: usize = 4;

pub(super) fn compare(walk: &mut Walk<'_>, pair: Pair<'_>) -> Result<(), Stop> {
    walk.budget.in_time()?;
    if let Some((left, right)) = pyc_times(walk.place(), pair) {
        let (left, right) = (left.to_string(), right.to_string());
        walk.note(Note::new(Cause::Time, "source time in the header").excerpts(left.as_bytes(), right.as_bytes()));
        return Ok(());
    }
    let (left, right) = (Split::of(pair.left, walk)?, Split::of(pair.right, walk)?);
    if left.rest != right.rest {
        note_bytes(walk, pair);
    }
    let pieces = Pieces { left: left.strings, right: right.strings, what: "string", always: None, is_manifest: false };
    let before = walk.found();
    pieces.compare(walk)?;
    if walk.found() == before {
        // The same texts and bytes, but in other places.
        note_bytes(walk, pair);
    }
    Ok(())
}

/// The first differing bytes.
pub(super) fn note_bytes(walk: &mut Walk<'_>, pair: Pair<'_>) {
    let at = pair.left.iter().zip(pair.right).take_while(|(left, right)| left == right).count();
    let what = if pair.left.len() == pair.right.len() {
        format!("bytes, from {at}")
    } else {
        format!("bytes, from {at} ({} and {} in all)", pair.left.len(), pair.right.len())
    };
    let hex = |bytes: &[u8]| Some(Excerpt::hex(bytes.get(at..).unwrap_or_default()));
    walk.note(Note { left: hex(pair.left), right: hex(pair.right), ..Note::new(Cause::Content, what) });
}

/// Bytes as texts and what lies between.
struct Split<'b> {
    strings: Vec<&'b [u8]>,
    /// Without the zeroes that align texts and end them.
    rest: Vec<u8>,
}

impl<'b> Split<'b> {
    fn of(bytes: &'b [u8], walk: &Walk<'_>) -> Result<Self, Stop> {
        let mut split = Self { strings: Vec::new(), rest: Vec::new() };
        for run in bytes.chunk_by(|a, b| is_printable(*a) == is_printable(*b)) {
            if run.len() >= STRING_MIN && run.first().copied().is_some_and(is_printable) {
                walk.budget.take_members(1)?;
                split.strings.push(run);
            } else {
                split.rest.extend(run.iter().filter(|byte| **byte != 0));
            }
        }
        Ok(split)
    }
}

const fn is_printable(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\t')
}

/// The source times of two compiled Python files that differ in nothing else (PEP 552: flags 0, then the time).
fn pyc_times(name: &str, pair: Pair<'_>) -> Option<(u32, u32)> {
    let (left, right) = (pair.left.split_at_checked(8)?, pair.right.split_at_checked(8)?);
    let (left_time, right_time) = (left.1.split_first_chunk::<4>()?, right.1.split_first_chunk::<4>()?);
    let timed = name.ends_with(".pyc") && left.0 == right.0 && left.0.ends_with(&[0; 4]);
    (timed && left_time.1 == right_time.1)
        .then(|| (u32::from_le_bytes(*left_time.0), u32::from_le_bytes(*right_time.0)))
}
