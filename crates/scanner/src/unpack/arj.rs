//! ARJ and LHA, which share their compression.

use std::io::{self, Read};

use delharc::decode::{Decoder, DecoderAny, Lh7Decoder};
use delharc::{CompressionMethod, LhaError, LhaHeader};
use detection::NoteCode;

use super::fields::{Fields, index};
use super::note::Fault;
use super::walk::{Step, Walk};

/// One header of ARJ (basic header without the leading size).
struct ArjEntry<'a> {
    flags: u8,
    method: u8,
    kind: u8,
    compressed: usize,
    size: u32,
    name: &'a [u8],
}

const ARJ_ENCRYPTED: u8 = 0x01;
/// The kind of the header that stands for the archive itself.
const ARJ_ARCHIVE: u8 = 2;

pub(super) fn open(walk: &mut Walk<'_>, bytes: &[u8]) -> Step {
    let mut fields = Fields::new(bytes);
    loop {
        walk.tick()?;
        match arj_header(&mut fields) {
            Some(Some(entry)) if entry.kind == ARJ_ARCHIVE => {}
            Some(Some(entry)) => {
                let data = fields.take_most(entry.compressed);
                arj_member(walk, &entry, data)?;
                if data.len() < entry.compressed {
                    walk.note_of(entry.name, Fault::new(NoteCode::Truncated, "the archive ends before its end"));
                    return Ok(());
                }
            }
            Some(None) => return Ok(()),
            None => {
                // Two bytes of magic are little: other files begin like this, too.
                if fields.rest().len() < bytes.len() {
                    walk.note(Fault::malformed("a header isn't one of ARJ's"));
                }
                return Ok(());
            }
        }
    }
}

/// `Some(None)` is the end of the archive.
fn arj_header<'a>(fields: &mut Fields<'a>) -> Option<Option<ArjEntry<'a>>> {
    const BASIC_BYTES_MAX: u16 = 2600;
    let mut ahead = *fields;
    (ahead.u16()? == 0xea60).then_some(())?;
    let basic_bytes = ahead.u16().filter(|length| *length <= BASIC_BYTES_MAX)?;
    if basic_bytes == 0 {
        return Some(None);
    }
    let basic = ahead.take(basic_bytes.into())?;
    let mut header = Fields::new(basic);
    let first_bytes = header.u8()?;
    // Version, version to extract, system.
    header.take(3)?;
    let (flags, method, kind) = (header.u8()?, header.u8()?, header.u8()?);
    header.take(1 + 4)?;
    let (compressed, size) = (header.u32()?, header.u32()?);
    let name = Fields::at(basic, first_bytes.into())?.text()?;
    ahead.take(4)?;
    // Extended headers: length, bytes, checksum; none has ever been used.
    loop {
        match ahead.u16()? {
            0 => break,
            length => ahead.take(usize::from(length) + 4)?,
        };
    }
    *fields = ahead;
    // The archive's own header has times where the sizes are.
    let compressed = if kind == ARJ_ARCHIVE { 0 } else { index(compressed) };
    Some(Some(ArjEntry { flags, method, kind, compressed, size, name }))
}

fn arj_member(walk: &mut Walk<'_>, entry: &ArjEntry<'_>, data: &[u8]) -> Step {
    if entry.flags & ARJ_ENCRYPTED != 0 {
        walk.note_of(entry.name, Fault::new(NoteCode::Encrypted, "it takes a password"));
        return Ok(());
    }
    match entry.method {
        0 => walk.stored(entry.name, data),
        // The same codes as `-lh7-`, with a smaller window.
        1..=3 => walk.decoded(entry.name, &mut Claimed { decoder: Lh7Decoder::new(data), left: entry.size.into() }),
        _ => {
            walk.note_of(entry.name, Fault::new(NoteCode::Unsupported, "an ARJ method other than 0 to 3"));
            Ok(())
        }
    }
}

/// `-lh5-` and its like at the place where every LHA header has it, and a level that exists.
pub(super) fn is_lha(bytes: &[u8]) -> bool {
    let is_method = |method: &[u8]| matches!(method, [b'-', b'l', b'h' | b'z', _, b'-'] | [b'-', b'p', b'm', _, b'-']);
    bytes.get(2..7).is_some_and(is_method) && bytes.get(20).is_some_and(|level| *level <= 3)
}

pub(super) fn open_lha(walk: &mut Walk<'_>, bytes: &[u8]) -> Step {
    let mut rest = bytes;
    loop {
        walk.tick()?;
        let header = match LhaHeader::read(&mut rest) {
            Ok(Some(header)) => header,
            Ok(None) => return Ok(()),
            Err(_) => {
                walk.note(Fault::malformed("a header isn't one of LHA's"));
                return Ok(());
            }
        };
        let name = header.parse_pathname_to_str().into_bytes();
        let mut fields = Fields::new(rest);
        let claimed = index(header.compressed_size);
        let data = fields.take_most(claimed);
        rest = fields.rest();
        lha_member(walk, &header, &name, data)?;
        if data.len() < claimed {
            walk.note_of(&name, Fault::new(NoteCode::Truncated, "the archive ends before its end"));
            return Ok(());
        }
    }
}

fn lha_member(walk: &mut Walk<'_>, header: &LhaHeader, name: &[u8], data: &[u8]) -> Step {
    let Ok(method) = header.compression_method() else {
        walk.note_of(name, Fault::new(NoteCode::Unsupported, "an unknown method of LHA"));
        return Ok(());
    };
    if method.is_directory() {
        return Ok(());
    }
    if method == CompressionMethod::Lh0 || method == CompressionMethod::Lz4 || method == CompressionMethod::Pm0 {
        return walk.stored(name, data);
    }
    let decoder = DecoderAny::new_from_compression(method, data);
    if !decoder.is_supported() {
        walk.note_of(name, Fault::new(NoteCode::Unsupported, "an unknown method of LHA"));
        return Ok(());
    }
    walk.decoded(name, &mut Claimed { decoder, left: header.original_size })
}

/// These decoders know no end of their own, so the claimed size is it. They fill what they are given or fail
/// without a word on how far they came, so they are given little.
struct Claimed<D> {
    decoder: D,
    left: u64,
}

/// What is lost, at most, where the data end early.
const PIECE_BYTES: usize = 32;

impl<'a, D: Decoder<&'a [u8], Error = io::Error>> Read for Claimed<D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = index(self.left).min(buffer.len());
        let mut done = 0;
        for piece in buffer.get_mut(..most).unwrap_or_default().chunks_mut(PIECE_BYTES) {
            match self.decoder.fill_buffer(piece) {
                Ok(()) => done += piece.len(),
                // What came before it is handed out first; a decoder that failed goes on failing.
                Err(_) if done > 0 => break,
                Err(LhaError::Io(error)) => return Err(error),
                Err(_) => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        self.left = self.left.saturating_sub(done.try_into().unwrap_or(u64::MAX));
        Ok(done)
    }
}
