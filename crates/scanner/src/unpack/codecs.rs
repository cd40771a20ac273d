//! Decoders of compressed streams, all of them in Rust.

use std::io::{self, BufRead, Read};

use flate2::bufread::{DeflateDecoder, GzDecoder};
use lzma_rust2::{LzipReader, LzmaReader, XzReader};
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use super::timed::Timed;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Gzip,
    Deflate,
    Deflate64,
    Bzip2,
    Xz,
    LzmaAlone,
    Lzip,
    Zstd,
}

/// In the unit of `lzma-rust2` and `sevenz-rust2`, with a MiB for tables.
pub(super) const fn kib(window_bytes_max: u32) -> u32 {
    (window_bytes_max >> 10).saturating_add(1024)
}

impl Codec {
    /// What comes out of `bytes`. Several streams one behind the other are one, where the format says so.
    /// Windows are as large as what came out at most, and never larger than `window_bytes_max`.
    pub(super) fn reader<'a>(self, bytes: Timed<'a>, window_bytes_max: u32) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::Gzip => Box::new(GzipMembers { member: GzDecoder::new(bytes) }),
            Self::Deflate => Box::new(DeflateDecoder::new(bytes)),
            Self::Deflate64 => Box::new(deflate64::Deflate64Decoder::with_buffer(bytes)),
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(bytes)),
            Self::Xz => Box::new(XzReader::new_mem_limit(bytes, true, kib(window_bytes_max))),
            Self::LzmaAlone => Box::new(LzmaReader::new_mem_limit(bytes, kib(window_bytes_max), None)?),
            // Its windows have at most 512 MiB, and grow with what comes out.
            Self::Lzip => Box::new(LzipReader::new(bytes)),
            Self::Zstd => Box::new(ZstdFrames { input: bytes, frame: None, window_bytes_max }),
        })
    }
}

/// The members of a gzip file. What follows the last one and is no member is not its content.
struct GzipMembers<'a> {
    member: GzDecoder<Timed<'a>>,
}

impl Read for GzipMembers<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.member.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let input = *self.member.get_ref();
            if !input.rest.starts_with(b"\x1f\x8b") {
                return Ok(0);
            }
            self.member = GzDecoder::new(input);
        }
    }
}

/// Zstandard frames, with those that are to be skipped between them.
struct ZstdFrames<'a> {
    input: Timed<'a>,
    frame: Option<StreamingDecoder<Timed<'a>, FrameDecoder>>,
    window_bytes_max: u32,
}

impl Read for ZstdFrames<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(frame) = &mut self.frame {
                let read = frame.read(buffer)?;
                if read > 0 || buffer.is_empty() {
                    return Ok(read);
                }
                self.input = *frame.get_ref();
                self.frame = None;
            }
            if self.input.fill_buf()?.is_empty() {
                return Ok(0);
            }
            match StreamingDecoder::new_with_max_window_size(self.input, self.window_bytes_max.into()) {
                Ok(frame) => self.frame = Some(frame),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let length = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(8);
                    self.input.rest = self.input.rest.get(length..).ok_or(io::ErrorKind::UnexpectedEof)?;
                }
                Err(FrameDecoderError::WindowSizeTooBig { .. }) => return Err(io::ErrorKind::OutOfMemory.into()),
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}
