//! The methods of zip (APPNOTE 6.3.10, section 4.4.5).

use std::io::{self, Read};

use detection::NoteCode;
use lzma_rust2::LzmaReader;

use super::super::codecs::Codec;
use super::super::fields::Fields;
use super::super::note::Fault;
use super::super::timed::Timed;
use super::headers::Entry;
use super::implode::Imploded;

/// How a member's bytes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    Stored,
    Deflated,
    Coded(Codec),
    Lzma,
    Imploded,
}

impl Body {
    pub(super) fn new(entry: &Entry<'_>, _data: &[u8]) -> Result<Self, Fault> {
        if entry.is_encrypted() {
            return Err(Fault::new(NoteCode::Encrypted, "it takes a password"));
        }
        Ok(match entry.method {
            0 => Self::Stored,
            6 => Self::Imploded,
            8 => Self::Deflated,
            9 => Self::Coded(Codec::Deflate64),
            12 => Self::Coded(Codec::Bzip2),
            14 => Self::Lzma,
            20 | 93 => Self::Coded(Codec::Zstd),
            95 => Self::Coded(Codec::Xz),
            99 => return Err(Fault::new(NoteCode::Encrypted, "it takes a password")),
            1 => return Err(Fault::new(NoteCode::Unsupported, "zip's method 1, shrunk")),
            2..=5 => return Err(Fault::new(NoteCode::Unsupported, "zip's methods 2 to 5, reduced")),
            98 => return Err(Fault::new(NoteCode::Unsupported, "zip's method 98, PPMd")),
            _ => return Err(Fault::new(NoteCode::Unsupported, "a method that zip's format doesn't list")),
        })
    }

    pub(super) fn reader<'a>(self, entry: &Entry<'_>, data: Timed<'a>, window: u32) -> io::Result<Box<dyn Read + 'a>> {
        match self {
            Self::Stored => Ok(Box::new(data)),
            Self::Deflated => Codec::Deflate.reader(data, window),
            Self::Coded(codec) => codec.reader(data, window),
            Self::Imploded => {
                let body = Imploded::new(entry.flags, entry.size, data.rest);
                Ok(Box::new(body.ok_or(io::ErrorKind::InvalidData)?))
            }
            Self::Lzma => Ok(Box::new(lzma(entry, data, window).ok_or(io::ErrorKind::InvalidData)??)),
        }
    }
}

/// Version, length of the properties, properties, stream (section 5.8.8).
fn lzma<'a>(entry: &Entry<'_>, data: Timed<'a>, window_bytes_max: u32) -> Option<io::Result<LzmaReader<Timed<'a>>>> {
    const FLAG_END_MARKER: u16 = 1 << 1;
    let mut fields = Fields::new(data.rest);
    fields.take(2)?;
    let property_bytes = fields.u16()?;
    let mut properties = Fields::new(fields.take(property_bytes.into())?);
    let (first, window) = (properties.u8()?, properties.u32()?);
    if window > window_bytes_max {
        return Some(Err(io::ErrorKind::OutOfMemory.into()));
    }
    let mut stream = data;
    stream.rest = fields.rest();
    let size = if entry.flags & FLAG_END_MARKER != 0 { u64::MAX } else { entry.size };
    Some(LzmaReader::new_with_props(stream, size, first, window, None))
}
