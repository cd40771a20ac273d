//! Zip, read as a scanner has to: the central directory that programs follow, the local headers that other
//! programs follow, and what neither of them admits.

mod headers;
mod implode;
mod method;

use detection::NoteCode;
use headers::{Directory, Entry};
use method::Body;

use super::fields::index;
use super::note::Fault;
use super::walk::{Step, Walk};

const LOCAL: &[u8] = b"PK\x03\x04";
const SPANNED: &[u8] = b"PK\x07\x08PK\x03\x04";

/// It begins like one, or has a directory at its end: then anything may stand before it.
pub(super) fn is_zip(bytes: &[u8]) -> bool {
    bytes.starts_with(LOCAL) || bytes.starts_with(SPANNED) || Directory::find(bytes).is_some()
}

pub(super) fn open(walk: &mut Walk<'_>, bytes: &[u8]) -> Step {
    let mut known = Known::default();
    match Directory::find(bytes) {
        Some(directory) => follow(walk, bytes, &directory, &mut known)?,
        None => walk.note(Fault::new(NoteCode::Truncated, "there is no central directory")),
    }
    search(walk, bytes, known)
}

/// The parts of a file that have been looked at, as they come.
#[derive(Default)]
struct Known {
    parts: Vec<(usize, usize)>,
}

impl Known {
    fn add(&mut self, start: usize, end: usize) {
        self.parts.push((start, end));
    }

    /// What is left between them, in order; and whether parts overlap.
    fn gaps(mut self, length: usize) -> (Vec<(usize, usize)>, bool) {
        self.parts.sort_unstable();
        let (mut gaps, mut at, mut overlaps) = (Vec::new(), 0, false);
        for (start, end) in self.parts {
            if start > at {
                gaps.push((at, start));
            }
            overlaps |= start < at && start < end;
            at = at.max(end);
        }
        if at < length {
            gaps.push((at, length));
        }
        (gaps, overlaps)
    }
}

/// What the central directory names.
fn follow(walk: &mut Walk<'_>, bytes: &[u8], directory: &Directory<'_>, known: &mut Known) -> Step {
    known.add(directory.start, directory.end);
    let mut found: u64 = 0;
    for entry in directory.entries() {
        walk.tick()?;
        found += 1;
        let at = directory.base.saturating_add(index(entry.offset));
        let Some((local, start)) = Entry::local(bytes, at) else {
            walk.note_of(entry.name, Fault::malformed("there is no local header where the directory says"));
            continue;
        };
        let rest = bytes.get(start..).unwrap_or_default();
        let claimed = index(entry.compressed);
        let data = rest.get(..claimed).unwrap_or(rest);
        known.add(at, start.saturating_add(data.len()));
        member(walk, &entry, data)?;
        if data.len() < claimed {
            walk.note_of(entry.name, Fault::new(NoteCode::Truncated, "the archive ends before its end"));
        }
        if entry.disagrees(&local) {
            walk.note_of(entry.name, Fault::new(NoteCode::Mismatch, "its two headers say different things"));
            if entry.is_other_data(&local) {
                let claimed = index(local.compressed);
                member(walk, &local, rest.get(..claimed).unwrap_or(rest))?;
            }
        }
    }
    if directory.count.is_some_and(|count| count != found) {
        walk.note(Fault::new(NoteCode::Mismatch, "the directory has another number of entries than it says"));
    }
    Ok(())
}

/// What the central directory does not name, but who reads from the start would find.
fn search(walk: &mut Walk<'_>, bytes: &[u8], known: Known) -> Step {
    let (gaps, overlaps) = known.gaps(bytes.len());
    if overlaps {
        walk.note(Fault::new(NoteCode::Mismatch, "members overlap"));
    }
    let is_whole = gaps == [(0, bytes.len())];
    for (start, end) in gaps {
        let mut at = start;
        while let Some(next) = bytes.get(at..end).and_then(|gap| memchr::memmem::find(gap, LOCAL)) {
            walk.tick()?;
            at += next;
            let Some((local, start)) = Entry::local(bytes, at).filter(|(local, _)| local.is_plausible()) else {
                at += LOCAL.len();
                continue;
            };
            let rest = bytes.get(start..end).unwrap_or_default();
            let used = hidden(walk, &local, rest, is_whole)?;
            at = start.saturating_add(used).max(at + LOCAL.len());
        }
    }
    Ok(())
}

/// A member that only has a local header. How many bytes of `rest` it took.
fn hidden(walk: &mut Walk<'_>, local: &Entry<'_>, rest: &[u8], is_whole: bool) -> Step<usize> {
    let used = if local.compressed > 0 || !local.has_descriptor() {
        let claimed = index(local.compressed);
        member(walk, local, rest.get(..claimed).unwrap_or(rest))?;
        if rest.len() < claimed {
            walk.note_of(local.name, Fault::new(NoteCode::Truncated, "the archive ends before its end"));
        }
        claimed.min(rest.len())
    } else {
        // The sizes follow the data: only what the decoder takes tells where that is.
        match Body::new(local, rest) {
            Ok(Body::Deflated) => {
                let mut decoder = flate2::bufread::DeflateDecoder::new(walk.timed(rest));
                walk.decoded(local.name, &mut decoder)?;
                rest.len().saturating_sub(decoder.get_ref().rest.len())
            }
            _ => {
                // Up to the next signature; what has none of its own ends there.
                let end = memchr::memmem::find(rest, b"PK\x07\x08").unwrap_or(rest.len());
                member(walk, local, rest.get(..end).unwrap_or(rest))?;
                end
            }
        }
    };
    if !is_whole && used > 0 {
        walk.note_of(local.name, Fault::new(NoteCode::Mismatch, "the central directory does not name it"));
    }
    Ok(used)
}

fn member(walk: &mut Walk<'_>, entry: &Entry<'_>, data: &[u8]) -> Step {
    if data.is_empty() && entry.name.ends_with(b"/") {
        return Ok(());
    }
    match Body::new(entry, data) {
        Ok(Body::Stored) => walk.stored(entry.name, data),
        Ok(body) => match body.reader(entry, walk.timed(data), walk.window_bytes_max()) {
            Ok(mut reader) => walk.decoded(entry.name, &mut reader),
            Err(error) => {
                walk.note_of(entry.name, error.into());
                Ok(())
            }
        },
        Err(fault) => {
            walk.note_of(entry.name, fault);
            Ok(())
        }
    }
}
