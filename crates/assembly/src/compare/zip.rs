//! `zip`: wheels and jars (PKWARE APPNOTE 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16).
//!
//! Read here and not by the `zip` crate: that one merges members of the same name and reserves room for as many
//! members as the file claims. zip64 is not read: outputs are below [`super::Limits::bytes`].

use std::borrow::Cow;

use super::Cause;
use super::budget::Budget;
use super::members::{Archive, Body, Fact, Member, Unreadable};

const END: usize = 22;
const CENTRAL: usize = 46;
const LOCAL: usize = 30;
/// A comment's length has 16 bits.
const END_SEARCH: usize = END + 65_535;

pub(super) fn read<'b>(bytes: &'b [u8], budget: &Budget<'_>) -> Result<Archive<'b>, Unreadable> {
    let end = end_record(bytes).ok_or("no end record")?;
    let record = bytes.get(end..).unwrap_or_default();
    let (count, start) = (u16_at(record, 10)?, offset_at(record, 16)?);
    if count == u16::MAX || start == 0xffff_ffff {
        return Err("zip64 is not read here".into());
    }
    let mut at = start;
    let mut members = Vec::new();
    let mut covered = Vec::new();
    for _ in 0..count {
        budget.take_members(1)?;
        let central = Central::read(bytes.get(at..).unwrap_or_default())?;
        at += central.record.len();
        let (member, range) = central.member(bytes)?;
        // Headers may overlap: 65,535 members with one header of 128 KiB. Facts show a field in hexadecimal.
        budget.take_bytes(member.header.len().saturating_mul(4))?;
        covered.push(range);
        members.push(member);
    }
    covered.push((start, at));
    // The comment after the end record stays in the rest; the record itself only counts and points.
    covered.push((end, end + END - 2));
    Ok(Archive { members, rest: Cow::Owned(uncovered(bytes, covered)) })
}

/// Where the last end record starts whose comment reaches to the end.
fn end_record(bytes: &[u8]) -> Option<usize> {
    let first = bytes.len().saturating_sub(END_SEARCH);
    let last = bytes.len().checked_sub(END)?;
    (first..=last).rev().find(|at| {
        let record = bytes.get(*at..).unwrap_or_default();
        record.starts_with(b"PK\x05\x06")
            && u16_at(record, 20).is_ok_and(|comment| usize::from(comment) == record.len() - END)
    })
}

/// The bytes in none of the ranges.
fn uncovered(bytes: &[u8], mut covered: Vec<(usize, usize)>) -> Vec<u8> {
    covered.sort_unstable();
    let mut rest = Vec::new();
    let mut at = 0;
    for (start, end) in covered {
        rest.extend_from_slice(bytes.get(at..start).unwrap_or_default());
        at = at.max(end);
    }
    rest.extend_from_slice(bytes.get(at..).unwrap_or_default());
    rest
}

/// A record of the central directory.
struct Central<'b> {
    record: &'b [u8],
    name: &'b [u8],
    extra: &'b [u8],
    comment: &'b [u8],
}

impl<'b> Central<'b> {
    fn read(bytes: &'b [u8]) -> Result<Self, Unreadable> {
        if !bytes.starts_with(b"PK\x01\x02") {
            return Err("a directory record has no mark".into());
        }
        let lengths = [u16_at(bytes, 28)?, u16_at(bytes, 30)?, u16_at(bytes, 32)?].map(usize::from);
        let total = CENTRAL + lengths.iter().sum::<usize>();
        let record = bytes.get(..total).ok_or("a directory record is cut off")?;
        let [name, extra, _] = lengths;
        let tail = record.get(CENTRAL..).unwrap_or_default();
        let (name, tail) = tail.split_at_checked(name).ok_or("a name is cut off")?;
        let (extra, comment) = tail.split_at_checked(extra).ok_or("an extra field is cut off")?;
        Ok(Self { record, name, extra, comment })
    }

    /// The member, and the range that its local header, data and data descriptor take.
    fn member(&self, bytes: &'b [u8]) -> Result<(Member<'b>, (usize, usize)), Unreadable> {
        let (flags, method) = (u16_at(self.record, 8)?, u16_at(self.record, 10)?);
        let (size, start) = (offset_at(self.record, 20)?, offset_at(self.record, 42)?);
        let local = bytes.get(start..).unwrap_or_default();
        if !local.starts_with(b"PK\x03\x04") {
            return Err("a local header has no mark".into());
        }
        let header = LOCAL + usize::from(u16_at(local, 26)?) + usize::from(u16_at(local, 28)?);
        let (header, rest) = local.split_at_checked(header).ok_or("a local header is cut off")?;
        let (data, rest) = rest.split_at_checked(size).ok_or("a member is cut off")?;
        let descriptor = match (flags & 8, rest.starts_with(b"PK\x07\x08")) {
            (0, _) => 0,
            (_, true) => 16,
            (_, false) => 12,
        };
        let body = match method {
            0 => Body::Plain(data),
            8 => Body::Deflated(data),
            other => Body::Opaque(other, data),
        };
        let end = start + header.len() + data.len() + descriptor.min(rest.len());
        let whole: Vec<u8> = header.iter().chain(self.record.get(..42).unwrap_or_default()).copied().collect();
        let member =
            Member { name: Cow::Borrowed(self.name), body, facts: self.facts(header)?, header: Cow::Owned(whole) };
        Ok((member, (start, end)))
    }

    fn facts(&self, header: &[u8]) -> Result<Vec<Fact>, Unreadable> {
        let flags = u16_at(self.record, 8)?;
        let local_extra = header.get(LOCAL + self.name.len()..).unwrap_or_default();
        let (time, date) = (u16_at(self.record, 12)?, u16_at(self.record, 14)?);
        let attributes = offset_at(self.record, 38)?;
        let mut facts = vec![
            Fact::new("mtime", Cause::Time, dos_time(date, time)),
            Fact::new("local mtime", Cause::Time, dos_time(u16_at(header, 12)?, u16_at(header, 10)?)),
            Fact::new("mode", Cause::Metadata, format!("{:06o}", attributes >> 16)),
            Fact::new("DOS attributes", Cause::Metadata, attributes & 0xffff),
            // The low byte, a version, follows from the method.
            Fact::new("made on system", Cause::Metadata, u16_at(self.record, 4)? >> 8),
            Fact::new("internal attributes", Cause::Metadata, u16_at(self.record, 36)?),
            // Bits 1 and 2 tell how hard deflate tried.
            Fact::new("compression level", Cause::Compression, (flags >> 1) & 3),
            Fact::new("flags", Cause::Metadata, flags & !6),
            Fact::new("comment", Cause::Metadata, String::from_utf8_lossy(self.comment)),
        ];
        facts.extend(extra_facts(self.extra, ["extended time", "NTFS time", "owner", "extra fields"]));
        facts.extend(extra_facts(
            local_extra,
            ["local extended time", "local NTFS time", "local owner", "local extra fields"],
        ));
        Ok(facts)
    }
}

/// Extra fields: times (`UT`, NTFS), owners (`ux`), and the others together; each fact has one of the four names.
fn extra_facts(mut extra: &[u8], names: [&'static str; 4]) -> Vec<Fact> {
    let [mut unix, mut ntfs, mut owner, mut others] = [const { String::new() }; 4];
    while let (Ok(id), Ok(size)) = (u16_at(extra, 0), u16_at(extra, 2)) {
        let Some((value, rest)) = extra.get(4..).and_then(|tail| tail.split_at_checked(usize::from(size))) else {
            break;
        };
        let shown: String = value.iter().take(64).map(|byte| format!("{byte:02x}")).collect();
        match id {
            0x5455 => unix += &shown,
            0x000a => ntfs += &shown,
            0x7875 | 0x7855 | 0x5855 => owner += &shown,
            _ => others += &format!("{id:04x}:{shown} "),
        }
        extra = rest;
    }
    let causes = [Cause::Time, Cause::Time, Cause::Metadata, Cause::Metadata];
    let values = [unix, ntfs, owner, others];
    names.into_iter().zip(causes).zip(values).map(|((what, cause), value)| Fact::new(what, cause, value)).collect()
}

fn dos_time(date: u16, time: u16) -> String {
    let (year, month, day) = (1980 + (date >> 9), (date >> 5) & 15, date & 31);
    format!("{year}-{month:02}-{day:02} {:02}:{:02}:{:02}", time >> 11, (time >> 5) & 63, (time & 31) * 2)
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Unreadable> {
    match bytes.get(at..at.saturating_add(2)) {
        Some(&[low, high]) => Ok(u16::from_le_bytes([low, high])),
        _ => Err("a record is cut off".into()),
    }
}

fn offset_at(bytes: &[u8], at: usize) -> Result<usize, Unreadable> {
    let (low, high) = (u16_at(bytes, at)?, u16_at(bytes, at.saturating_add(2))?);
    Ok(usize::from(low) | usize::from(high) << 16)
}
