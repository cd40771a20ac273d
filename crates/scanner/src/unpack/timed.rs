//! Input that ends with the time.

use std::io::{self, BufRead, Read, Seek, SeekFrom};

/// What is still to be decoded. A decoder may take much of it without giving anything (empty streams one
/// behind the other, members that are skipped), and nobody looks at the clock meanwhile: so it is asked here.
#[derive(Clone, Copy)]
pub(super) struct Timed<'a> {
    pub(super) rest: &'a [u8],
    whole: &'a [u8],
    is_late: &'a dyn Fn() -> bool,
    /// Until the next look at the clock.
    reads: u8,
}

/// Reads between two looks at the clock: many decoders ask for single bytes.
const READS: u8 = 32;

/// For one read. LZMA makes up to 7,000 times as much of it: 32 such reads are some seconds.
const READ_BYTES: usize = 4 << 10;

impl<'a> Timed<'a> {
    pub(super) fn new(bytes: &'a [u8], is_late: &'a dyn Fn() -> bool) -> Self {
        Self { rest: bytes, whole: bytes, is_late, reads: 0 }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Timed<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.reads == 0 && (self.is_late)() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.reads = self.reads.checked_sub(1).unwrap_or(READS);
        Ok(self.rest.get(..READ_BYTES).unwrap_or(self.rest))
    }

    fn consume(&mut self, count: usize) {
        self.rest = self.rest.get(count..).unwrap_or_default();
    }
}

impl Seek for Timed<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let mut cursor = io::Cursor::new(self.whole);
        cursor.set_position(u64::try_from(self.whole.len() - self.rest.len()).unwrap_or(u64::MAX));
        let place = cursor.seek(to)?;
        self.rest = usize::try_from(place).ok().and_then(|place| self.whole.get(place..)).unwrap_or_default();
        // What is behind the end is the end.
        Ok(place)
    }
}
