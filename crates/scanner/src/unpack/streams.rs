//! Containers of one member: compressed streams.

use std::io::{self, Read};

use detection::NoteCode;
use flate2::bufread::GzDecoder;

use super::codecs::Codec;
use super::fields::Fields;
use super::note::Fault;
use super::tar;
use super::walk::{Step, Walk};

pub(super) fn open(walk: &mut Walk<'_>, codec: Codec, bytes: &[u8]) -> Step {
    let name = (codec == Codec::Gzip).then(|| gzip_name(bytes)).flatten();
    let name = name.unwrap_or_else(|| walk.inner_name());
    let mut reader = match codec.reader(walk.timed(bytes), walk.window_bytes_max()) {
        Ok(reader) => reader,
        Err(error) => {
            walk.note(error.into());
            return Ok(());
        }
    };
    let decoded = walk.decode(&mut reader)?;
    if codec == Codec::LzmaAlone && decoded.bytes.is_empty() && decoded.fault.is_some() {
        // It only looked like it: there is no magic.
        walk.forget(decoded);
        return Ok(());
    }
    if decoded.is_cut() && tar::is_tar(&decoded.bytes) {
        // Larger than a member may be: from the start again, and only its members are in memory.
        walk.forget(decoded);
        if let Ok(reader) = codec.reader(walk.timed(bytes), walk.window_bytes_max()) {
            return walk.within(&name, |walk| tar::open_stream(walk, reader));
        }
        return Ok(());
    }
    walk.member(&name, decoded)
}

/// The name that a gzip member says it had.
fn gzip_name(bytes: &[u8]) -> Option<Vec<u8>> {
    let decoder = GzDecoder::new(bytes);
    decoder.header()?.filename().map(<[u8]>::to_vec).filter(|name| !name.is_empty())
}

/// `COMPRESS.EXE` of DOS (SZDD): LZSS with a window of 4 KiB.
pub(super) fn open_szdd(walk: &mut Walk<'_>, bytes: &[u8]) -> Step {
    let mut fields = Fields::new(bytes);
    // Magic, `A`, the last letter of the name, the size.
    let header = (fields.take(8), fields.u8(), fields.u8(), fields.u32());
    let (Some(_), Some(b'A'), Some(_), Some(size)) = header else {
        walk.note(Fault::new(NoteCode::Truncated, "the header ends early"));
        return Ok(());
    };
    let name = walk.inner_name();
    let reader =
        Lzss { input: fields, window: Box::new([b' '; 4096]), place: 4096 - 16, flags: 0, left: 0, copy: None };
    walk.decoded(&name, &mut reader.take(size.into()))
}

struct Lzss<'a> {
    input: Fields<'a>,
    window: Box<[u8; 4096]>,
    place: usize,
    flags: u8,
    /// Flags that are left.
    left: u8,
    /// From where, and how many.
    copy: Option<(usize, u8)>,
}

impl Lzss<'_> {
    /// `None` at the end.
    fn next(&mut self) -> Option<u8> {
        let byte = if let Some((from, count)) = self.copy {
            self.copy = (count > 1).then(|| (from + 1, count.saturating_sub(1)));
            *self.window.get(from % 4096)?
        } else {
            if self.left == 0 {
                (self.flags, self.left) = (self.input.u8()?, 8);
            }
            let is_literal = self.flags & 1 == 1;
            (self.flags, self.left) = (self.flags >> 1, self.left.saturating_sub(1));
            if is_literal {
                self.input.u8()?
            } else {
                let (low, high) = (self.input.u8()?, self.input.u8()?);
                self.copy = Some((usize::from(low) | usize::from(high & 0xf0) << 4, (high & 0x0f) + 3));
                return self.next();
            }
        };
        *self.window.get_mut(self.place % 4096)? = byte;
        self.place += 1;
        Some(byte)
    }
}

impl Read for Lzss<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut count = 0;
        for slot in buffer {
            let Some(byte) = self.next() else {
                // The size is in the header, and is asked for by who reads.
                return if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(count) };
            };
            *slot = byte;
            count += 1;
        }
        Ok(count)
    }
}
