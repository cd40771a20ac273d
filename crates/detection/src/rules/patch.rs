//! From one version of a file to another, by lines: which of the old ones stay, and the new ones, compressed with
//! those that go as their dictionary. `docs/formats/rules.md` has the bytes.
//!
//! There is no header: what a patch leads from and to is pinned by the release that names it.

use imara_diff::{Algorithm, Diff, Hunk, InternedInput};
use stdx::Digest;
use zstd::zstd_safe::{CCtx, CParameter, DCtx, compress_bound, find_frame_compressed_size, get_frame_content_size};

use super::index::Pin;
use super::settings::BUNDLE_BYTES_MAX;

/// Longest patch worth fetching: a whole bundle compresses to a quarter.
pub const PATCH_BYTES_MAX: u64 = BUNDLE_BYTES_MAX / 4;
/// What is compressed is only what changed, and a release has eleven patches, each on its way to canaries.
const LEVEL: i32 = 15;
/// Three numbers for each place that changed, each of one byte at least; more is no patch worth fetching.
const SCRIPT_BYTES_MAX: u64 = PATCH_BYTES_MAX;
/// What is repeated over a longer distance is not found; two files have at most 2^27 bytes.
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

/// Bytes of the old file that stay, of those that go, and of those that come in their place.
#[derive(Clone, Copy, Debug)]
struct Change {
    keep: usize,
    drop: usize,
    insert: usize,
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
        let (changes, inserted) = difference(old, new);
        let mut script = Vec::new();
        for change in &changes {
            [change.keep, change.drop, change.insert].into_iter().for_each(|number| put_number(&mut script, number));
        }
        let mut bytes = compress(&script, &[])?;
        bytes.extend(compress(&inserted, &dropped(old, &changes)?)?);
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
        let first = find_frame_compressed_size(&self.bytes).map_err(broken)?;
        let (first, second) = self.bytes.split_at_checked(first).ok_or_else(cut_off)?;
        if find_frame_compressed_size(second).map_err(broken)? != second.len() {
            return Err(PatchError::Broken("it has more than two frames".to_owned()));
        }
        let changes = changes(&decompress(first, SCRIPT_BYTES_MAX, &[])?)?;
        let inserted = decompress(second, self.to.size, &dropped(old, &changes)?)?;
        let new = apply(old, &changes, &inserted, size)?;
        if self.to.is_of(&new) {
            Ok(new)
        } else {
            Err(PatchError::End { expected: self.to.digest, got: Digest::of(&new) })
        }
    }
}

/// By lines. Where both begin and end alike nothing is looked at twice.
fn difference(old: &[u8], new: &[u8]) -> (Vec<Change>, Vec<u8>) {
    let alike = old.iter().zip(new).take_while(|(one, other)| one == other).count();
    // Up to the end of a line.
    let before = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let start = new.get(..alike).map_or(0, before);
    let (old, new) = (old.get(start..).unwrap_or_default(), new.get(start..).unwrap_or_default());
    let alike = old.iter().rev().zip(new.iter().rev()).take_while(|(one, other)| one == other).count();
    let tail = new.get(new.len() - alike..).unwrap_or_default();
    let tail = tail.iter().position(|byte| *byte == b'\n').map_or(0, |at| tail.len() - at - 1);
    let middle = |bytes: &[u8]| bytes.len() - tail;
    let (old_middle, new_middle) = (middle(old), middle(new));
    let (old, new) = (old.get(..old_middle).unwrap_or_default(), new.get(..new_middle).unwrap_or_default());
    let input = InternedInput::new(old, new);
    let length = |tokens: &[imara_diff::Token]| tokens.iter().map(|token| input.interner[*token].len()).sum::<usize>();
    let (mut changes, mut inserted, mut at) = (Vec::new(), Vec::new(), 0);
    for Hunk { before, after } in Diff::compute(Algorithm::Histogram, &input).hunks() {
        let part = |from: u32, to: u32| input.before.get(from as usize..to as usize).unwrap_or_default();
        let coming = input.after.get(after.start as usize..after.end as usize).unwrap_or_default();
        let skipped = if changes.is_empty() { start } else { 0 };
        let keep = skipped + length(part(at, before.start));
        changes.push(Change { keep, drop: length(part(before.start, before.end)), insert: length(coming) });
        coming.iter().for_each(|token| inserted.extend_from_slice(input.interner[*token]));
        at = before.end;
    }
    (changes, inserted)
}

/// What goes of the old file, one after the other: the dictionary of what comes.
fn dropped(old: &[u8], changes: &[Change]) -> Result<Vec<u8>, PatchError> {
    let (mut dropped, mut rest) = (Vec::new(), old);
    for change in changes {
        rest = rest.get(change.keep..).ok_or_else(beyond)?;
        let (part, after) = rest.split_at_checked(change.drop).ok_or_else(beyond)?;
        dropped.extend_from_slice(part);
        rest = after;
    }
    Ok(dropped)
}

fn apply(mut old: &[u8], changes: &[Change], mut inserted: &[u8], size: usize) -> Result<Vec<u8>, PatchError> {
    let mut new = Vec::with_capacity(size);
    let mut add = |bytes: &[u8]| {
        let fits = bytes.len() <= size - new.len();
        fits.then(|| new.extend_from_slice(bytes)).ok_or_else(|| PatchError::Broken(format!("more than {size} bytes")))
    };
    for change in changes {
        let (keep, rest) = old.split_at_checked(change.keep).ok_or_else(beyond)?;
        old = rest.get(change.drop..).ok_or_else(beyond)?;
        let (insert, rest) = inserted.split_at_checked(change.insert).ok_or_else(beyond)?;
        inserted = rest;
        add(keep)?;
        add(insert)?;
    }
    add(old)?;
    if new.len() == size {
        Ok(new)
    } else {
        Err(PatchError::Broken(format!("it gives {} bytes, not {size}", new.len())))
    }
}

fn changes(mut script: &[u8]) -> Result<Vec<Change>, PatchError> {
    let mut changes = Vec::new();
    while !script.is_empty() {
        let mut number = || take_number(&mut script).ok_or_else(cut_off);
        changes.push(Change { keep: number()?, drop: number()?, insert: number()? });
    }
    Ok(changes)
}

/// Seven bits a byte, the lowest first; all but the last have the eighth (LEB128).
fn put_number(script: &mut Vec<u8>, mut number: usize) {
    loop {
        let [low, ..] = (number & 0x7f).to_le_bytes();
        number >>= 7;
        if number == 0 {
            return script.push(low);
        }
        script.push(low | 0x80);
    }
}

/// Of 28 bits at most: more than any file here has bytes.
fn take_number(script: &mut &[u8]) -> Option<usize> {
    let mut number = 0;
    for shift in [0, 7, 14, 21] {
        let (byte, rest) = script.split_first()?;
        *script = rest;
        number |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn compress(bytes: &[u8], dictionary: &[u8]) -> Result<Vec<u8>, PatchError> {
    let mut context = CCtx::create();
    let reach = bytes.len().saturating_add(dictionary.len()).max(1);
    // The window has to reach from the end of what comes back to the beginning of what went.
    let window_log = (reach.ilog2() + 1).clamp(WINDOW_LOG_MIN, WINDOW_LOG_MAX);
    let parameters = [
        CParameter::CompressionLevel(LEVEL),
        CParameter::WindowLog(window_log),
        CParameter::ContentSizeFlag(true),
        CParameter::ChecksumFlag(false),
    ];
    for parameter in parameters {
        context.set_parameter(parameter).map_err(broken)?;
    }
    context.ref_prefix(dictionary).map_err(broken)?;
    let mut compressed = Vec::with_capacity(compress_bound(bytes.len()));
    context.compress2(&mut compressed, bytes).map_err(broken)?;
    Ok(compressed)
}

/// One frame, which names a size of at most `most`: nothing larger is allocated.
fn decompress(frame: &[u8], most: u64, dictionary: &[u8]) -> Result<Vec<u8>, PatchError> {
    let size = match get_frame_content_size(frame) {
        Ok(Some(size)) => size,
        Ok(None) => return Err(PatchError::Broken("a frame does not name its size".to_owned())),
        Err(_) => return Err(PatchError::Broken("it is no zstd frame".to_owned())),
    };
    if size > most {
        return Err(PatchError::Broken(format!("a frame gives {size} bytes, more than {most}")));
    }
    let room = usize::try_from(size).unwrap_or(usize::MAX);
    let mut context = DCtx::create();
    context.ref_prefix(dictionary).map_err(broken)?;
    let mut bytes = Vec::with_capacity(room);
    context.decompress(&mut bytes, frame).map_err(broken)?;
    Ok(bytes)
}

fn bounded(what: &'static str, size: usize, most: u64) -> Result<(), PatchError> {
    let size = size as u64;
    if size > most { Err(PatchError::TooLarge { what, size, most }) } else { Ok(()) }
}

fn broken(code: usize) -> PatchError {
    PatchError::Broken(zstd::zstd_safe::get_error_name(code).to_owned())
}

fn cut_off() -> PatchError {
    PatchError::Broken("it is cut off".to_owned())
}

fn beyond() -> PatchError {
    PatchError::Broken("it goes beyond the end of the file".to_owned())
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
    fn one_changed_line_is_a_patch_of_a_few_bytes() {
        let old = lines(97);
        let mut new = old.clone();
        let at = new.iter().rposition(|byte| *byte == b'4').unwrap();
        new.splice(at..at, *b"7");
        assert!(Patch::make(Step { old: &old, new: &new }).unwrap().bytes.len() < 64);
    }

    #[test]
    fn files_of_any_shape_come_out_as_they_were() {
        // Few different lines, with and without an end, so that beginnings, ends and middles are alike by chance.
        let parts = ["", "\n", "a", "a\n", "b\n", "a\na\n", "rule\n", "\n\n", "b"];
        let mut state = 7_u64;
        let mut draw = |most: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % most
        };
        for round in 0..3_000 {
            let mut file = || (0..draw(9)).map(|_| parts[draw(parts.len())]).collect::<String>().into_bytes();
            let (old, new) = (file(), file());
            let patch = Patch::make(Step { old: &old, new: &new }).unwrap();
            assert_eq!(patch.apply(&old), Ok(new), "round {round}: {old:?}");
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
