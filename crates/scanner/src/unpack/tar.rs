//! Tar: ustar, pax, GNU and what came before them.

use std::io::{self, Read};

use detection::NoteCode;

use super::fields::{Fields, count, index};
use super::note::Fault;
use super::walk::{Step, Walk};

const BLOCK: usize = 512;

/// A first header whose checksum is right; so old archives without a magic are recognised, too.
pub(super) fn is_tar(bytes: &[u8]) -> bool {
    let Some(header) = bytes.get(..BLOCK) else {
        return false;
    };
    let (Some(name), Some(field)) = (header.first(), header.get(148..156)) else {
        return false;
    };
    let digits = field.iter().copied().filter(u8::is_ascii_digit).collect::<Vec<_>>();
    let stored = std::str::from_utf8(&digits).ok().and_then(|digits| u32::from_str_radix(digits, 8).ok());
    let outside: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    let inside: u32 = field.iter().map(|byte| u32::from(*byte)).sum();
    *name != 0 && stored == Some(outside - inside + 8 * u32::from(b' '))
}

pub(super) fn open(walk: &mut Walk<'_>, bytes: &[u8]) -> Step {
    entries(walk, bytes, Some(bytes))
}

/// An archive that is too large to be in memory, as it comes out of its decoder.
pub(super) fn open_stream(walk: &mut Walk<'_>, reader: impl Read) -> Step {
    walk.note(Fault::new(NoteCode::TooLarge, "the archive itself was not looked at, only its members"));
    let left = walk.bytes_left();
    entries(walk, Skipped { reader, left }, None)
}

/// Members that are too large are skipped by reading, which counts as well.
struct Skipped<R> {
    reader: R,
    left: u64,
}

impl<R: Read> Read for Skipped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        let left = self.left.checked_sub(read.try_into().unwrap_or(u64::MAX));
        self.left = left.ok_or(io::ErrorKind::QuotaExceeded)?;
        Ok(read)
    }
}

/// `whole` is the archive, if it is in memory.
fn entries(walk: &mut Walk<'_>, reader: impl Read, whole: Option<&[u8]>) -> Step {
    let mut archive = ::tar::Archive::new(reader);
    let entries = match archive.entries() {
        Ok(entries) => entries,
        Err(error) => {
            walk.note(fault(&error));
            return Ok(());
        }
    };
    for entry in entries {
        walk.tick()?;
        let is_whole = match entry {
            Ok(mut entry) => member(walk, &mut entry, whole)?,
            Err(error) => {
                walk.note(fault(&error));
                false
            }
        };
        if !is_whole {
            break;
        }
    }
    Ok(())
}

/// `false` if the archive ends before the member's end.
fn member<R: Read>(walk: &mut Walk<'_>, entry: &mut ::tar::Entry<'_, R>, whole: Option<&[u8]>) -> Step<bool> {
    const TRUNCATED: Fault = Fault::new(NoteCode::Truncated, "the archive ends before its end");
    let name = entry.path_bytes().into_owned();
    let (kind, size) = (entry.header().entry_type(), entry.size());
    if kind.is_gnu_sparse() {
        // Holes come out as zeros, and count like everything that comes out.
        walk.note_of(&name, Fault::new(NoteCode::Unsupported, "it has holes, which are read as zeros"));
        walk.decoded(&name, entry)?;
        return Ok(true);
    }
    if size == 0 && !kind.is_file() {
        return Ok(true);
    }
    if has_pax_holes(entry) {
        walk.note_of(&name, Fault::new(NoteCode::Unsupported, "it has holes, which are left out"));
    }
    let Some(whole) = whole else {
        let decoded = walk.decode(entry)?;
        let is_short = count(&decoded.bytes) < size && decoded.fault.is_none();
        walk.member(&name, decoded.or_fault(is_short.then_some(TRUNCATED)))?;
        return Ok(!is_short);
    };
    let mut data = Fields::at(whole, index(entry.raw_file_position())).unwrap_or(Fields::new(&[]));
    let data = data.take_most(index(size));
    walk.stored(&name, data)?;
    let is_short = count(data) < size;
    if is_short {
        walk.note_of(&name, TRUNCATED);
    }
    Ok(!is_short)
}

/// Sparse files as pax writes them (`GNU.sparse.*`): the map of the holes is in front of the data or in the
/// header, and the data follow without holes.
fn has_pax_holes<R: Read>(entry: &mut ::tar::Entry<'_, R>) -> bool {
    let Ok(Some(extensions)) = entry.pax_extensions() else {
        return false;
    };
    extensions.flatten().any(|extension| extension.key_bytes().starts_with(b"GNU.sparse."))
}

/// The crate has one kind of error for all that it finds wrong.
fn fault(error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Fault::new(NoteCode::Truncated, "the archive ends in a header"),
        io::ErrorKind::TimedOut | io::ErrorKind::QuotaExceeded => io::Error::from(error.kind()).into(),
        _ => Fault::malformed("a header isn't one of tar's"),
    }
}
