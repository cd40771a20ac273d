//! The headers of zip (APPNOTE 6.3.10, sections 4.3.7 to 4.3.16), with the 64-bit fields where they count.

use super::super::fields::{Fields, index};

const CENTRAL: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const END_64: &[u8] = b"PK\x06\x06";
const LOCATOR_64: &[u8] = b"PK\x06\x07";

/// One member, as its central or its local header describes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    pub(super) flags: u16,
    pub(super) method: u16,
    pub(super) compressed: u64,
    pub(super) size: u64,
    /// Of the local header, from where the archive begins; 0 in a local header.
    pub(super) offset: u64,
}

const FLAG_ENCRYPTED: u16 = 1;
const FLAG_DESCRIPTOR: u16 = 1 << 3;

impl<'a> Entry<'a> {
    /// The local header at `at`, and where its data begin.
    pub(super) fn local(bytes: &'a [u8], at: usize) -> Option<(Self, usize)> {
        let mut fields = Fields::at(bytes, at)?;
        (fields.take(4)? == super::LOCAL).then_some(())?;
        fields.take(2)?;
        let (flags, method) = (fields.u16()?, fields.u16()?);
        fields.take(4 + 4)?;
        let (compressed, size) = (fields.u32()?.into(), fields.u32()?.into());
        let (name_bytes, extra_bytes) = (fields.u16()?, fields.u16()?);
        let (name, extra) = (fields.take(name_bytes.into())?, fields.take(extra_bytes.into())?);
        let mut entry = Self { name, flags, method, compressed, size, offset: 0 };
        entry.widen(extra);
        Some((entry, bytes.len() - fields.rest().len()))
    }

    fn central(fields: &mut Fields<'a>) -> Option<Self> {
        (fields.take(4)? == CENTRAL).then_some(())?;
        fields.take(4)?;
        let (flags, method) = (fields.u16()?, fields.u16()?);
        fields.take(4 + 4)?;
        let (compressed, size) = (fields.u32()?.into(), fields.u32()?.into());
        let (name_bytes, extra_bytes, comment_bytes) = (fields.u16()?, fields.u16()?, fields.u16()?);
        fields.take(2 + 2 + 4)?;
        let offset = fields.u32()?.into();
        let (name, extra) = (fields.take(name_bytes.into())?, fields.take_most(extra_bytes.into()));
        fields.take_most(comment_bytes.into());
        let mut entry = Self { name, flags, method, compressed, size, offset };
        entry.widen(extra);
        Some(entry)
    }

    /// The extra field 1 has, in this order, those of the numbers that did not fit.
    fn widen(&mut self, extra: &[u8]) {
        const TOO_SMALL: u64 = 0xffff_ffff;
        let mut fields = Fields::new(extra);
        while let (Some(id), Some(length)) = (fields.u16(), fields.u16()) {
            let mut field = Fields::new(fields.take_most(length.into()));
            if id != 1 {
                continue;
            }
            for number in [&mut self.size, &mut self.compressed, &mut self.offset] {
                if *number == TOO_SMALL {
                    *number = field.u64().unwrap_or(TOO_SMALL);
                }
            }
        }
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.flags & FLAG_ENCRYPTED != 0
    }

    /// The sizes stand behind the data, and may be zero in the local header.
    pub(super) fn has_descriptor(&self) -> bool {
        self.flags & FLAG_DESCRIPTOR != 0
    }

    /// The four bytes of a local header also occur by chance.
    pub(super) fn is_plausible(&self) -> bool {
        const NAME_BYTES_MAX: usize = 4096;
        matches!(self.method, 0..=20 | 93..=99) && (1..=NAME_BYTES_MAX).contains(&self.name.len())
    }

    /// Whether two programs, of which each believes one of the headers, see different things.
    pub(super) fn disagrees(&self, local: &Self) -> bool {
        self.name != local.name || self.is_encrypted() != local.is_encrypted() || self.is_other_data(local)
    }

    pub(super) fn is_other_data(&self, local: &Self) -> bool {
        let sizes = (local.compressed, local.size) != (self.compressed, self.size);
        self.method != local.method || (sizes && !(local.has_descriptor() && local.compressed == 0))
    }
}

/// The central directory.
pub(super) struct Directory<'a> {
    headers: Fields<'a>,
    /// Where it begins in the file, and where its last record ends.
    pub(super) start: usize,
    pub(super) end: usize,
    /// Where the archive begins in the file, from which its offsets count.
    pub(super) base: usize,
    /// How many entries it says it has, if it says so in a field that can hold it.
    pub(super) count: Option<u64>,
}

/// The end record and the longest comment.
const TAIL_BYTES_MAX: usize = 22 + 65_535;
/// End records that are tried; more than one is a polyglot's trick or a comment with a signature.
const END_RECORDS_MAX: usize = 8;

impl<'a> Directory<'a> {
    /// The last one whose end record fits in with the file.
    pub(super) fn find(bytes: &'a [u8]) -> Option<Self> {
        let tail_start = bytes.len().saturating_sub(TAIL_BYTES_MAX);
        let tail = bytes.get(tail_start..)?;
        memchr::memmem::rfind_iter(tail, END)
            .take(END_RECORDS_MAX)
            .find_map(|found| Self::at(bytes, tail_start + found))
    }

    fn at(bytes: &'a [u8], end_record: usize) -> Option<Self> {
        let mut fields = Fields::at(bytes, end_record)?;
        fields.take(4 + 2 + 2 + 2)?;
        let count = u64::from(fields.u16()?);
        let (length, offset) = (u64::from(fields.u32()?), u64::from(fields.u32()?));
        let comment = fields.u16()?;
        fields.take_most(comment.into());
        let end = bytes.len() - fields.rest().len();
        let (length, offset, before) = match end_64(bytes, end_record) {
            Some((length, offset, at)) => (length, offset, at),
            None => (length, offset, end_record),
        };
        // The directory stands right before its end record, whatever stands before the archive; unless
        // somebody put something between them, and then the offset is right.
        let (length, offset) = (index(length), index(offset));
        let close = before.checked_sub(length);
        let starts = |start: &usize| bytes.get(*start..).is_some_and(|rest| rest.starts_with(CENTRAL));
        let start = close.filter(starts).or(Some(offset).filter(|start| *start < before && starts(start)));
        let start = match start {
            Some(start) => start,
            // An archive without members.
            None if length == 0 && offset <= before => before,
            None => return None,
        };
        let headers = Fields::new(bytes.get(start..before)?);
        let count = (count != 0xffff).then_some(count);
        Some(Self { headers, start, end, base: start.saturating_sub(offset), count })
    }

    /// All of them, by signature and not by their number.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry<'a>> {
        let mut headers = self.headers;
        std::iter::from_fn(move || Entry::central(&mut headers))
    }
}

/// Length and offset of the directory, and where its 64-bit end record is.
fn end_64(bytes: &[u8], end_record: usize) -> Option<(u64, u64, usize)> {
    const LOCATOR_BYTES: usize = 20;
    const RECORD_BYTES: usize = 56;
    let locator_at = end_record.checked_sub(LOCATOR_BYTES)?;
    let mut locator = Fields::at(bytes, locator_at)?;
    (locator.take(4)? == LOCATOR_64).then_some(())?;
    locator.take(4)?;
    let told = index(locator.u64()?);
    // Behind a prefix it is not where the locator says, but still right before it.
    let at = [told, locator_at.saturating_sub(RECORD_BYTES)]
        .into_iter()
        .find(|at| bytes.get(*at..).is_some_and(|rest| rest.starts_with(END_64)))?;
    let mut record = Fields::at(bytes, at)?;
    record.take(4 + 8 + 2 + 2 + 4 + 4 + 8 + 8)?;
    let (length, offset) = (record.u64()?, record.u64()?);
    Some((length, offset, at))
}
