//! What documents carry inside: packages, compressed objects and macros of old Office, RTF, and TNEF.

use std::io::{self, Read};

use detection::NoteCode;
use flate2::bufread::ZlibDecoder;
use memchr::memmem;

use super::fields::{Fields, index};
use super::note::Fault;
use super::walk::{Step, Walk};

/// What a stream of a compound file has inside beyond its bytes.
pub(super) fn open_stream(walk: &mut Walk<'_>, name: &str, bytes: &[u8]) -> Step {
    if name.ends_with("\u{1}Ole10Native") {
        // The size of it all.
        open_package(walk, bytes.get(4..).unwrap_or_default())?;
    }
    if name.ends_with("PowerPoint Document") {
        open_powerpoint(walk, bytes)?;
    }
    open_macros(walk, bytes)
}

/// A file that was dropped into a document: the Packager's fields in native data (MS-OLEDS 2.3.6).
fn open_package(walk: &mut Walk<'_>, bytes: &[u8]) -> Step {
    let package = || {
        let mut fields = Fields::new(bytes);
        fields.take(2)?;
        let _label = fields.text()?;
        let name = fields.text()?;
        fields.take(4)?;
        let temporary_bytes = fields.u32()?;
        fields.take(index(temporary_bytes))?;
        let data_bytes = fields.u32()?;
        Some((name, fields.take_most(index(data_bytes))))
    };
    match package() {
        Some((name, data)) => walk.stored(name, data),
        // Other servers put other things there, which the visitor has seen already.
        None => Ok(()),
    }
}

const RECORD_BYTES: usize = 8;
const EXTERNAL_OBJECT: u16 = 0x1011;

/// Records of PowerPoint (MS-PPT 2.3.1); embedded objects are compressed compound files (2.10.34).
fn open_powerpoint(walk: &mut Walk<'_>, bytes: &[u8]) -> Step {
    let mut fields = Fields::new(bytes);
    let mut number: u64 = 0;
    while let (Some(version), Some(kind), Some(length)) = (fields.u16(), fields.u16(), fields.u32()) {
        walk.tick()?;
        // What is in a container follows its header.
        if version & 0x0f == 0x0f {
            continue;
        }
        let mut data = Fields::new(fields.take_most(index(length)));
        if kind == EXTERNAL_OBJECT && version >> 4 == 1 && data.take(4).is_some() {
            number += 1;
            walk.decoded(format!("object-{number}").as_bytes(), &mut ZlibDecoder::new(data.rest()))?;
        }
    }
    debug_assert!(fields.rest().len() < RECORD_BYTES, "every whole record has been read");
    Ok(())
}

/// Source of VBA (MS-OVBA 2.4.1): each module's begins with an attribute, in letters that the first
/// chunk has uncompressed.
fn open_macros(walk: &mut Walk<'_>, bytes: &[u8]) -> Step {
    for found in memmem::find_iter(bytes, b"\0Attribut") {
        let container = found.checked_sub(3).and_then(|start| bytes.get(start..));
        if let Some([1, rest @ ..]) = container {
            walk.decoded(b"macro", &mut Chunks { fields: Fields::new(rest), chunk: Vec::new(), at: 0 })?;
        }
    }
    Ok(())
}

/// Chunks of up to 4 KiB, each with a window of its own.
struct Chunks<'a> {
    fields: Fields<'a>,
    chunk: Vec<u8>,
    at: usize,
}

const CHUNK_BYTES: usize = 4096;

impl Chunks<'_> {
    /// `false` at the end.
    fn next(&mut self) -> bool {
        let Some(header) = self.fields.u16().filter(|header| header & 0x7000 == 0x3000) else {
            return false;
        };
        let data = self.fields.take_most(usize::from(header & 0x0fff) + 1);
        self.at = 0;
        self.chunk = if header & 0x8000 == 0 { data.to_vec() } else { ovba_chunk(data) };
        !self.chunk.is_empty()
    }
}

/// Literals and copies, eight to a byte of flags; how many bits a copy has for its distance depends on how
/// far the chunk has come (MS-OVBA 2.4.1.3.19.1).
fn ovba_chunk(data: &[u8]) -> Vec<u8> {
    let mut fields = Fields::new(data);
    let mut chunk: Vec<u8> = Vec::with_capacity(CHUNK_BYTES);
    'flags: while let Some(flags) = fields.u8() {
        for bit in 0..8 {
            if flags >> bit & 1 == 0 {
                let Some(literal) = fields.u8() else { break 'flags };
                chunk.push(literal);
                continue;
            }
            let Some(token) = fields.u16() else { break 'flags };
            let bits = chunk.len().next_power_of_two().trailing_zeros().clamp(4, 12);
            let (length, distance) = (usize::from(token & (0xffff >> bits)) + 3, usize::from(token >> (16 - bits)) + 1);
            for _ in 0..length.min(CHUNK_BYTES.saturating_sub(chunk.len())) {
                let Some(byte) = chunk.len().checked_sub(distance).and_then(|from| chunk.get(from)) else {
                    break 'flags;
                };
                chunk.push(*byte);
            }
        }
    }
    chunk.truncate(CHUNK_BYTES);
    chunk
}

impl Read for Chunks<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at >= self.chunk.len() {
            if !self.next() {
                return Ok(0);
            }
        }
        let count = self.chunk.get(self.at..).unwrap_or_default().read(buffer)?;
        self.at += count;
        Ok(count)
    }
}

const OBJECT_DATA: &[u8] = b"\\objdata";

pub(super) fn is_rtf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"{\\rt") && memmem::find(bytes, OBJECT_DATA).is_some()
}

/// Objects in RTF are hexadecimal digits, between which anything may stand.
pub(super) fn open_rtf(walk: &mut Walk<'_>, bytes: &[u8]) -> Step {
    for (number, found) in (1u64..).zip(memmem::find_iter(bytes, OBJECT_DATA)) {
        let rest = bytes.get(found + OBJECT_DATA.len()..).unwrap_or_default();
        let decoded = walk.decode(&mut Hex { rest, depth: 0 })?;
        let stops = decoded.stops();
        let name = format!("object-{number}");
        let (data, is_package) = embedded(&decoded.bytes);
        let entered = walk.stored(name.as_bytes(), data);
        let entered = if is_package { entered.and_then(|()| open_package(walk, data)) } else { entered };
        walk.forget(decoded);
        entered.and(stops)?;
    }
    Ok(())
}

/// The native data of an embedded object (MS-OLEDS 2.2.5), and whether the Packager made it.
fn embedded(bytes: &[u8]) -> (&[u8], bool) {
    let native = || {
        let mut fields = Fields::new(bytes);
        fields.take(4 + 4)?;
        let mut texts = [&[] as &[u8]; 3];
        for text in &mut texts {
            let length = fields.u32()?;
            *text = fields.take(index(length))?;
        }
        let length = fields.u32()?;
        let [class, ..] = texts;
        Some((fields.take_most(index(length)), class.starts_with(b"Package")))
    };
    native().unwrap_or((bytes, false))
}

struct Hex<'a> {
    rest: &'a [u8],
    /// Groups that were opened since.
    depth: u32,
}

impl Hex<'_> {
    fn digit(&mut self) -> Option<u8> {
        loop {
            let (first, rest) = self.rest.split_first()?;
            self.rest = rest;
            match first {
                b'0'..=b'9' => return Some(first - b'0'),
                b'a'..=b'f' => return Some(first - b'a' + 10),
                b'A'..=b'F' => return Some(first - b'A' + 10),
                b'{' => self.depth += 1,
                b'}' => self.depth = self.depth.checked_sub(1)?,
                b'\\' => {
                    // A control word, its number, and the space that ends it.
                    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-' || *byte == b'*';
                    let end = rest.iter().position(|byte| !is_word(byte)).unwrap_or(rest.len());
                    self.rest = rest.get(end..).unwrap_or_default();
                }
                _ => {}
            }
        }
    }
}

impl Read for Hex<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut count = 0;
        for slot in buffer {
            let (Some(high), Some(low)) = (self.digit(), self.digit()) else {
                break;
            };
            *slot = high << 4 | low;
            count += 1;
        }
        Ok(count)
    }
}

/// Outlook's `winmail.dat` (MS-OXTNEF): attributes, of which some are attachments.
pub(super) fn open_tnef(walk: &mut Walk<'_>, bytes: &[u8]) -> Step {
    const TITLE: u32 = 0x0001_8010;
    const DATA: u32 = 0x0006_800f;
    let mut fields = Fields::new(bytes.get(6..).unwrap_or_default());
    let mut waiting: Option<&[u8]> = None;
    while let (Some(1 | 2), Some(id), Some(length)) = (fields.u8(), fields.u32(), fields.u32()) {
        walk.tick()?;
        let data = fields.take_most(index(length));
        match id {
            DATA => {
                if let Some(data) = waiting.replace(data) {
                    walk.stored(b"attachment", data)?;
                }
            }
            // The title stands behind the data.
            TITLE => {
                if let Some(found) = waiting.take() {
                    walk.stored(data.strip_suffix(b"\0").unwrap_or(data), found)?;
                }
            }
            _ => {}
        }
        if data.len() < index(length) {
            walk.note(Fault::new(NoteCode::Truncated, "an attribute ends early"));
        }
        fields.take_most(2);
    }
    waiting.map_or(Ok(()), |data| walk.stored(b"attachment", data))
}
