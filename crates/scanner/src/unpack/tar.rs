//! Tar: ustar, pax, GNU and what came before them.

use detection::NoteCode;

use super::fields::{Fields, index};
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
    let mut archive = ::tar::Archive::new(bytes);
    let entries = match archive.entries() {
        Ok(entries) => entries,
        Err(error) => {
            walk.note(error.into());
            return Ok(());
        }
    };
    for entry in entries {
        walk.tick()?;
        let mut entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                walk.note(fault(&error));
                return Ok(());
            }
        };
        let name = entry.path_bytes().into_owned();
        let kind = entry.header().entry_type();
        if kind.is_gnu_sparse() {
            // Holes come out as zeros, and count like everything that comes out.
            walk.note_of(&name, Fault::new(NoteCode::Unsupported, "it has holes, which are read as zeros"));
            walk.decoded(&name, &mut entry)?;
            continue;
        }
        let size = index(entry.size());
        if size == 0 && !kind.is_file() {
            continue;
        }
        let Some(mut data) = Fields::at(bytes, index(entry.raw_file_position())) else {
            walk.note_of(&name, Fault::new(NoteCode::Truncated, "the archive ends before it"));
            return Ok(());
        };
        let holes = has_pax_holes(&mut entry);
        let data = data.take_most(size);
        walk.stored(&name, data)?;
        if data.len() < size {
            walk.note_of(&name, Fault::new(NoteCode::Truncated, "the archive ends before its end"));
            return Ok(());
        }
        if holes {
            walk.note_of(&name, Fault::new(NoteCode::Unsupported, "it has holes, which are left out"));
        }
    }
    Ok(())
}

/// Sparse files as pax writes them (`GNU.sparse.*`): the map of the holes is in front of the data or in the
/// header, and the data follow without holes.
fn has_pax_holes(entry: &mut ::tar::Entry<'_, &[u8]>) -> bool {
    let Ok(Some(extensions)) = entry.pax_extensions() else {
        return false;
    };
    extensions.flatten().any(|extension| extension.key_bytes().starts_with(b"GNU.sparse."))
}

/// The crate has one kind of error for all that it finds wrong.
fn fault(error: &std::io::Error) -> Fault {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Fault::new(NoteCode::Truncated, "the archive ends in a header"),
        _ => Fault::malformed("a header isn't one of tar's"),
    }
}
