//! 7z, by the crate `sevenz-rust2`.

use std::io::Read;

use detection::NoteCode;
use sevenz_rust2::{ArchiveEntry, ArchiveReader, EntryDecision, Error, Password};

use super::codecs::kib;
use super::note::Fault;
use super::walk::{Step, Walk};

pub(super) fn open(walk: &mut Walk<'_>, bytes: &[u8]) -> Step {
    let limit = usize::try_from(kib(walk.window_bytes_max())).unwrap_or(usize::MAX);
    let mut archive = match ArchiveReader::new_with_memory_limit(walk.timed(bytes), Password::empty(), limit) {
        Ok(archive) => archive,
        Err(error) => {
            walk.note(fault(&error));
            return Ok(());
        }
    };
    // The worker's threads are its own affair.
    archive.set_thread_count(1);
    let mut ended = Ok(());
    let each = |entry: &ArchiveEntry, reader: &mut dyn Read| {
        if entry.is_directory() {
            return Ok(EntryDecision::Continue);
        }
        ended = walk.tick().and_then(|()| walk.decoded(entry.name().as_bytes(), reader));
        Ok(if ended.is_ok() { EntryDecision::Continue } else { EntryDecision::Stop })
    };
    // Data behind the claimed size of the last member are looked at, too.
    let result = archive.for_each_entries_with_decision_allowing_surplus(each);
    ended?;
    if let Err(error) = result {
        walk.note(fault(&error));
    }
    Ok(())
}

fn fault(error: &Error) -> Fault {
    match error {
        Error::PasswordRequired | Error::MaybeBadPassword(_) => Fault::new(NoteCode::Encrypted, "it takes a password"),
        Error::UnsupportedCompressionMethod(method) if method.contains("AES") => {
            Fault::new(NoteCode::Encrypted, "it takes a password")
        }
        Error::UnsupportedCompressionMethod(_) | Error::Unsupported(_) | Error::UnsupportedVersion { .. } => {
            Fault::new(NoteCode::Unsupported, "a method of 7z that isn't known here")
        }
        Error::ExternalUnsupported => Fault::new(NoteCode::Unsupported, "an external header of 7z"),
        Error::MaxMemLimited { .. } => Fault::new(NoteCode::TooLarge, "it takes a larger window than allowed"),
        Error::Io(error, _) => std::io::Error::from(error.kind()).into(),
        _ => Fault::malformed("the archive's headers or data are wrong"),
    }
}
