//! PDF: its compressed streams, which hold scripts and attached files. What isn't compressed lies open.

use detection::NoteCode;
use flate2::bufread::ZlibDecoder;
use memchr::memmem;

use super::note::Fault;
use super::walk::{Step, Walk};

/// Readers look for the mark in the first KiB.
pub(super) fn is_pdf(bytes: &[u8]) -> bool {
    const START_BYTES: usize = 1024;
    memmem::find(bytes.get(..START_BYTES).unwrap_or(bytes), b"%PDF-").is_some()
}

const STREAM: &[u8] = b"stream";
const END_STREAM: &[u8] = b"endstream";

/// Every stream, referred to or not; a table of objects is not believed.
pub(super) fn open(walk: &mut Walk<'_>, bytes: &[u8]) -> Step {
    let mut number: u64 = 0;
    let mut at = 0;
    while let Some(found) = bytes.get(at..).and_then(|rest| memmem::find(rest, STREAM)) {
        walk.tick()?;
        at += found + STREAM.len();
        let rest = bytes.get(at..).unwrap_or_default();
        let is_end = bytes.get(..at).is_some_and(|before| before.ends_with(END_STREAM));
        let data = rest.strip_prefix(b"\r\n").or(rest.strip_prefix(b"\n")).or(rest.strip_prefix(b"\r"));
        let Some(data) = data.filter(|_| !is_end) else {
            continue;
        };
        if !is_zlib(data) {
            if is_attachment(bytes.get(..at).unwrap_or_default()) {
                number += 1;
                let end = memmem::find(data, END_STREAM).unwrap_or(data.len());
                walk.stored(format!("stream-{number}").as_bytes(), line_before(data, end))?;
            }
            continue;
        }
        number += 1;
        let mut decoder = ZlibDecoder::new(walk.timed(data));
        walk.decoded(format!("stream-{number}").as_bytes(), &mut decoder)?;
        at = bytes.len().saturating_sub(decoder.get_ref().rest.len());
    }
    if memmem::find(bytes, b"/Encrypt ").is_some() {
        walk.note(Fault::new(NoteCode::Encrypted, "its streams and texts take a password"));
    }
    Ok(())
}

/// A file that is attached as it is: what its dictionary says, right before its data.
fn is_attachment(before: &[u8]) -> bool {
    const DICTIONARY_BYTES: usize = 512;
    let start = before.len().saturating_sub(DICTIONARY_BYTES);
    let dictionary = before.get(start..).unwrap_or_default();
    let own = memmem::rfind(dictionary, b" obj").and_then(|own| dictionary.get(own..)).unwrap_or(dictionary);
    memmem::find(own, b"/EmbeddedFile").is_some()
}

/// Without the end of line that stands before `endstream`.
fn line_before(data: &[u8], end: usize) -> &[u8] {
    let data = data.get(..end).unwrap_or(data);
    let data = data.strip_suffix(b"\n").unwrap_or(data);
    data.strip_suffix(b"\r").unwrap_or(data)
}

/// RFC 1950, section 2.2: deflate, and the check of the two header bytes.
fn is_zlib(data: &[u8]) -> bool {
    matches!(data, [method, flags, ..] if method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]) % 31 == 0)
}
