//! gzip, xz and zstd: one content, compressed; and the raw deflate of zip members.

use std::io::{self, Read};

use flate2::bufread::{DeflateDecoder, GzDecoder, ZlibDecoder};

use super::Cause;
use super::budget::{Budget, Stop};
use super::members::{self, Fact};
use super::walk::{Format, Note, Pair, Walk};

/// Why bytes can't be unpacked.
pub(super) enum Broken {
    Stream(String),
    Stop(Stop),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Stream(error.to_string())
    }
}

impl From<Stop> for Broken {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl From<&str> for Broken {
    fn from(why: &str) -> Self {
        Self::Stream(why.to_owned())
    }
}

/// A file's content and what its header says.
#[derive(Default)]
struct Unpacked {
    content: Vec<u8>,
    facts: Vec<Fact>,
    /// The compressed bytes without header fields that facts cover.
    payload: Vec<u8>,
}

pub(super) fn compare(walk: &mut Walk<'_>, pair: Pair<'_>, formats: (Format, Format)) -> Result<(), Stop> {
    let (left, right) = (unpack(pair.left, formats.0, &walk.budget), unpack(pair.right, formats.1, &walk.budget));
    let (left, right) = match (left, right) {
        (Ok(left), Ok(right)) => (left, right),
        (Err(Broken::Stop(stop)), _) | (_, Err(Broken::Stop(stop))) => return Err(stop),
        (Err(Broken::Stream(why)), _) => return walk.unreadable(pair, formats.0, &why),
        (_, Err(Broken::Stream(why))) => return walk.unreadable(pair, formats.1, &why),
    };
    if formats.0 == formats.1 {
        for (cause, what, left, right) in members::differing_facts(&left.facts, &right.facts) {
            walk.note(Note::new(cause, what).excerpts(left.as_bytes(), right.as_bytes()));
        }
    } else {
        let names = (formats.0.name(), formats.1.name());
        walk.note(Note::new(Cause::Compression, "format").excerpts(names.0.as_bytes(), names.1.as_bytes()));
    }
    if left.content != right.content {
        walk.differ(Pair { left: &left.content, right: &right.content });
    } else if formats.0 == formats.1 && left.payload != right.payload {
        let sizes = (format!("{} bytes", pair.left.len()), format!("{} bytes", pair.right.len()));
        let note = Note::new(Cause::Compression, "the same content, compressed otherwise");
        walk.note(note.excerpts(sizes.0.as_bytes(), sizes.1.as_bytes()));
    }
    Ok(())
}

fn unpack(bytes: &[u8], format: Format, budget: &Budget<'_>) -> Result<Unpacked, Broken> {
    match format {
        Format::Gzip => gunzip(bytes, budget),
        Format::Xz => {
            budget.take_bytes(bytes.len())?;
            Ok(Unpacked { content: unxz(bytes, budget)?, facts: Vec::new(), payload: bytes.to_vec() })
        }
        Format::Zstd => {
            budget.take_bytes(bytes.len())?;
            Ok(Unpacked { content: unzstd(bytes, budget)?, facts: Vec::new(), payload: bytes.to_vec() })
        }
        _ => {
            budget.take_bytes(bytes.len())?;
            Ok(Unpacked { content: bytes.to_vec(), ..Unpacked::default() })
        }
    }
}

/// Raw deflate (RFC 1951), as zip has it.
pub(super) fn inflate(bytes: &[u8], budget: &Budget<'_>) -> Result<Vec<u8>, Broken> {
    let mut content = Vec::new();
    drain(&mut DeflateDecoder::new(bytes), budget, &mut content)?;
    Ok(content)
}

/// zlib (RFC 1950), as compressed ELF sections have it.
pub(super) fn unzlib(bytes: &[u8], budget: &Budget<'_>) -> Result<Vec<u8>, Broken> {
    let mut content = Vec::new();
    drain(&mut ZlibDecoder::new(bytes), budget, &mut content)?;
    Ok(content)
}

/// gzip (RFC 1952), every member of it.
fn gunzip(mut bytes: &[u8], budget: &Budget<'_>) -> Result<Unpacked, Broken> {
    let mut unpacked = Unpacked::default();
    loop {
        budget.take_members(1)?;
        // The fixed part of the header: magic, method, flags, time, extra flags, system.
        let Some(&[_, _, _, flags, _, _, _, _, level, system]) = bytes.get(..10) else {
            return Err("a header is cut off".into());
        };
        let start = bytes;
        let mut decoder = GzDecoder::new(bytes);
        drain(&mut decoder, budget, &mut unpacked.content)?;
        let header = decoder.header().ok_or("no header")?;
        let lossy = |field: Option<&[u8]>| String::from_utf8_lossy(field.unwrap_or_default()).into_owned();
        // Only the first member's fields are facts; those of others stay in the payload.
        let first = unpacked.facts.is_empty();
        if first {
            unpacked.facts = vec![
                Fact::new("mtime", Cause::Time, header.mtime()),
                Fact::new("flags", Cause::Metadata, flags),
                Fact::new("compression level", Cause::Compression, level),
                Fact::new("system", Cause::Metadata, system),
                Fact::new("name", Cause::Metadata, lossy(header.filename())),
                Fact::new("comment", Cause::Metadata, lossy(header.comment())),
                Fact::new("extra field", Cause::Metadata, lossy(header.extra())),
            ];
        }
        let covered = [header.filename(), header.comment()].into_iter().flatten().map(|field| field.len() + 1);
        let length = 10 + covered.sum::<usize>() + header.extra().map_or(0, |field| field.len() + 2);
        bytes = decoder.into_inner();
        let used = start.len().saturating_sub(bytes.len());
        let payload = start.get(if first { length } else { 0 }..used).unwrap_or_default();
        budget.take_bytes(payload.len())?;
        unpacked.payload.extend_from_slice(payload);
        if !bytes.starts_with(&[0x1f, 0x8b]) {
            break;
        }
    }
    if bytes.iter().any(|byte| *byte != 0) {
        return Err("bytes after the end".into());
    }
    unpacked.payload.extend_from_slice(bytes);
    Ok(unpacked)
}

/// Base-2 logarithm of the largest zstd window: 128 MiB, what `zstd --long` and dpkg stay within.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// zstd (RFC 8878), every frame of it.
pub(super) fn unzstd(bytes: &[u8], budget: &Budget<'_>) -> Result<Vec<u8>, Broken> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    let mut content = Vec::new();
    drain(&mut decoder, budget, &mut content)?;
    Ok(content)
}

/// Bytes of the largest xz dictionary: 64 MiB, that of `xz -9`. A header may ask for 4 GiB.
const XZ_DICTIONARY_MAX: u32 = 64 << 20;

/// xz (format 1.2.1), every stream and block of it.
///
/// The container is read here, since `lzma-rust2` gives a block the dictionary that its header asks for and
/// recurses for each empty stream. Checks are skipped, not verified: the bytes outside were compared already.
fn unxz(mut bytes: &[u8], budget: &Budget<'_>) -> Result<Vec<u8>, Broken> {
    let mut content = Vec::new();
    while !bytes.is_empty() {
        budget.take_members(1)?;
        let header = take(&mut bytes, 12)?;
        if !header.starts_with(b"\xfd7zXZ\0") {
            return Err("a stream has no mark".into());
        }
        let check = match header.get(7) {
            Some(0) => 0,
            Some(1) => 4,
            Some(4) => 8,
            Some(10) => 32,
            _ => return Err("an unknown check".into()),
        };
        while bytes.first() != Some(&0) {
            budget.take_members(1)?;
            block(&mut bytes, check, budget, &mut content)?;
        }
        let before = bytes.len();
        take(&mut bytes, 1)?;
        let records = varint(&mut bytes)?;
        for _ in 0..records {
            varint(&mut bytes)?;
            varint(&mut bytes)?;
        }
        let padding = (4 - (before - bytes.len()) % 4) % 4;
        // Padding, the index's checksum, the footer.
        take(&mut bytes, padding + 4 + 12)?;
        while bytes.starts_with(&[0; 4]) {
            take(&mut bytes, 4)?;
        }
    }
    Ok(content)
}

/// One block: a header with a single LZMA2 filter, the data, padding, the check.
fn block(bytes: &mut &[u8], check: usize, budget: &Budget<'_>, content: &mut Vec<u8>) -> Result<(), Broken> {
    let words = usize::from(*bytes.first().ok_or("a block is cut off")?);
    let mut header = take(bytes, (words + 1) * 4)?;
    take(&mut header, 1)?;
    let flags = take(&mut header, 1)?.first().copied().unwrap_or_default();
    for bit in [0x40, 0x80] {
        if flags & bit != 0 {
            varint(&mut header)?;
        }
    }
    // One filter (the low bits count from zero), LZMA2 by its id, with one byte of properties.
    let (filter, properties) = (varint(&mut header)?, varint(&mut header)?);
    if flags & 3 != 0 || filter != 0x21 || properties != 1 {
        return Err("filters other than LZMA2 are not read here".into());
    }
    let size = u32::from(take(&mut header, 1)?.first().copied().unwrap_or_default());
    let dictionary = (2 | (size & 1)).checked_shl(size / 2 + 11).filter(|_| size < 40).unwrap_or(u32::MAX);
    if dictionary > XZ_DICTIONARY_MAX {
        return Err("the dictionary is larger than 64 MiB".into());
    }
    let before = bytes.len();
    let mut decoder = lzma_rust2::Lzma2Reader::new(*bytes, dictionary, None);
    drain(&mut decoder, budget, content)?;
    *bytes = decoder.into_inner();
    let padding = (4 - (before - bytes.len()) % 4) % 4;
    take(bytes, padding + check)?;
    Ok(())
}

fn take<'b>(bytes: &mut &'b [u8], count: usize) -> Result<&'b [u8], Broken> {
    let (taken, rest) = bytes.split_at_checked(count).ok_or("it is cut off")?;
    *bytes = rest;
    Ok(taken)
}

/// A number in groups of seven bits, at most nine of them.
fn varint(bytes: &mut &[u8]) -> Result<u64, Broken> {
    let mut value = 0_u64;
    for shift in (0..63).step_by(7) {
        let byte = take(bytes, 1)?.first().copied().unwrap_or_default();
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number is too long".into())
}

/// Reads to the end within the budget.
fn drain(reader: &mut dyn Read, budget: &Budget<'_>, content: &mut Vec<u8>) -> Result<(), Broken> {
    let mut block = vec![0; 1 << 16];
    loop {
        let count = reader.read(&mut block)?;
        if count == 0 {
            return Ok(());
        }
        budget.take_bytes(count)?;
        content.extend_from_slice(block.get(..count).unwrap_or_default());
    }
}
