//! Small formats that hold their members as they are: ar, cpio, rpm, and ISO 9660 discs.

use detection::NoteCode;

use super::fields::{Fields, index};
use super::note::Fault;
use super::walk::{Step, Walk};

const TRUNCATED: Fault = Fault::new(NoteCode::Truncated, "the archive ends early");

/// A member with as many of its bytes as there are. `Ok(false)` if they are not all there.
fn part(walk: &mut Walk<'_>, name: &[u8], fields: &mut Fields<'_>, size: usize) -> Step<bool> {
    let data = fields.take_most(size);
    walk.stored(name, data)?;
    if data.len() < size {
        walk.note_of(name, TRUNCATED);
    }
    Ok(data.len() == size)
}

/// A number in letters, as old headers have it.
fn number(field: &[u8], radix: u32) -> Option<usize> {
    usize::from_str_radix(std::str::from_utf8(field).ok()?.trim_matches([' ', '\0']), radix).ok()
}

/// `ar`: Debian packages and static libraries, with the long names of GNU and of BSD.
pub(super) fn open_ar(walk: &mut Walk<'_>, bytes: &[u8]) -> Step {
    const HEADER: usize = 60;
    let mut names: &[u8] = &[];
    let mut fields = Fields::new(bytes.get(8..).unwrap_or_default());
    while !fields.rest().is_empty() {
        walk.tick()?;
        let Some(mut header) = fields.take(HEADER).map(Fields::new) else {
            walk.note(TRUNCATED);
            return Ok(());
        };
        let (name, size) = (header.take(16), header.take(32).and_then(|_| header.take(10)));
        let (Some(name), Some(size), Some(b"`\n")) = (name, size.and_then(|size| number(size, 10)), header.take(2))
        else {
            walk.note(Fault::malformed("a header isn't one of ar's"));
            return Ok(());
        };
        let name = name.trim_ascii_end();
        let long = |prefix: &[u8]| name.strip_prefix(prefix).and_then(|digits| number(digits, 10));
        let (name, size) = if name == b"//" {
            names = fields.rest().get(..size).unwrap_or_default();
            (name, size)
        } else if let Some(length) = long(b"#1/") {
            (fields.take_most(length.min(size)), size.saturating_sub(length))
        } else if let Some(name) = long(b"/").and_then(|offset| names.get(offset..)) {
            (name.split(|byte| b"/\n".contains(byte)).next().unwrap_or_default(), size)
        } else {
            (name.strip_suffix(b"/").unwrap_or(name), size)
        };
        if !part(walk, name, &mut fields, size)? {
            return Ok(());
        }
        fields.take_most(size % 2);
    }
    Ok(())
}

/// One header of cpio: the length of the name, that of the data, and what both are rounded up to.
struct CpioHeader {
    name: usize,
    data: usize,
    header: usize,
    round: usize,
}

/// The four kinds: old binary in both orders, old ASCII (`odc`), new ASCII with and without checksum.
fn cpio_header(fields: &mut Fields<'_>) -> Option<CpioHeader> {
    let rest = *fields;
    let letters = |fields: &mut Fields<'_>, count, radix| number(fields.take(count)?, radix);
    if rest.rest().starts_with(b"07070") {
        let magic = fields.take(6)?;
        if magic == b"070707" {
            // Six fields of six octal digits, time, length of the name, length of the data.
            fields.take(7 * 6 + 11)?;
            let (name, data) = (letters(fields, 6, 8)?, letters(fields, 11, 8)?);
            return Some(CpioHeader { name, data, header: 76, round: 1 });
        }
        // Inode, mode, user, group, links, time; size; two devices; length of the name; checksum.
        fields.take(6 * 8)?;
        let data = letters(fields, 8, 16)?;
        fields.take(4 * 8)?;
        let name = letters(fields, 8, 16)?;
        fields.take(8)?;
        return Some(CpioHeader { name, data, header: 110, round: 4 });
    }
    let is_little = fields.u16()? == 0o070707;
    let half = |fields: &mut Fields<'_>| if is_little { fields.u16() } else { fields.u16_be() };
    fields.take(7 * 2 + 4)?;
    let name = half(fields)?;
    let (high, low) = (half(fields)?, half(fields)?);
    let data = index(u32::from(high) << 16 | u32::from(low));
    Some(CpioHeader { name: name.into(), data, header: 26, round: 2 })
}

pub(super) fn open_cpio(walk: &mut Walk<'_>, bytes: &[u8]) -> Step {
    let magic = bytes.get(..2).unwrap_or_default();
    let mut fields = Fields::new(bytes);
    while !fields.rest().is_empty() {
        walk.tick()?;
        if !fields.rest().starts_with(magic) {
            walk.note(Fault::malformed("a header isn't one of cpio's"));
            return Ok(());
        }
        let Some(header) = cpio_header(&mut fields) else {
            walk.note(TRUNCATED);
            return Ok(());
        };
        let pad = |length: usize| length.next_multiple_of(header.round) - length;
        let name = fields.take_most(header.name);
        let name = name.strip_suffix(b"\0").unwrap_or(name);
        fields.take_most(pad(header.header.saturating_add(name.len() + 1)));
        if name == b"TRAILER!!!" {
            return Ok(());
        }
        if header.data > 0 && !part(walk, name, &mut fields, header.data)? {
            return Ok(());
        }
        fields.take_most(pad(header.data.min(bytes.len())));
    }
    walk.note(Fault::new(NoteCode::Truncated, "there is no trailer"));
    Ok(())
}

/// `rpm`: a lead, two headers, and a compressed cpio behind them.
pub(super) fn open_rpm(walk: &mut Walk<'_>, bytes: &[u8]) -> Step {
    const LEAD: usize = 96;
    let mut at = LEAD;
    for is_signature in [true, false] {
        let Some(length) = rpm_header_bytes(bytes, at) else {
            walk.note(Fault::malformed("a header isn't one of rpm's"));
            return Ok(());
        };
        at = at.saturating_add(if is_signature { length.next_multiple_of(8) } else { length });
    }
    match bytes.get(at..) {
        Some(payload) if !payload.is_empty() => walk.stored(b"payload", payload),
        _ => {
            walk.note(TRUNCATED);
            Ok(())
        }
    }
}

/// Magic, four reserved bytes, entries of 16 bytes, and their values.
fn rpm_header_bytes(bytes: &[u8], at: usize) -> Option<usize> {
    let mut fields = Fields::at(bytes, at)?;
    (fields.take(4)? == b"\x8e\xad\xe8\x01").then_some(())?;
    fields.take(4)?;
    let (entries, values) = (fields.u32_be()?, fields.u32_be()?);
    index(entries).checked_mul(16)?.checked_add(index(values))?.checked_add(16).filter(|length| *length <= bytes.len())
}

const SECTOR: usize = 2048;

pub(super) fn is_iso(bytes: &[u8]) -> bool {
    bytes.get(16 * SECTOR + 1..).is_some_and(|rest| rest.starts_with(b"CD001"))
}

/// ISO 9660, the first volume's tree. Joliet and Rock Ridge only give other names to the same files.
pub(super) fn open_iso(walk: &mut Walk<'_>, bytes: &[u8]) -> Step {
    // Directories once each, however they point at each other; there are no more than sectors.
    let mut waiting = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    if let Some(root) = iso_record(bytes, 16 * SECTOR + 156) {
        waiting.push((Vec::new(), root.start, root.bytes));
    }
    while let Some((path, start, length)) = waiting.pop() {
        if !seen.insert(start) {
            continue;
        }
        let end = start.saturating_add(length).min(bytes.len());
        let mut at = start;
        while at < end {
            walk.tick()?;
            let Some(record) = iso_record(bytes, at) else {
                // Records don't cross sectors: the rest of this one is empty.
                at = (at + 1).next_multiple_of(SECTOR);
                continue;
            };
            at += record.length;
            // The first two are the directory itself and the one above it.
            if matches!(record.name, b"\0" | b"\x01") {
                continue;
            }
            let mut name: Vec<u8> = path.clone();
            name.extend_from_slice(record.name.strip_suffix(b";1").unwrap_or(record.name));
            if record.is_directory {
                // Foreign trees may be deeper than the eight levels of the standard, but not without end.
                if name.len() < 4096 {
                    name.push(b'/');
                    waiting.push((name, record.start, record.bytes));
                }
                continue;
            }
            match Fields::at(bytes, record.start) {
                Some(mut fields) => {
                    part(walk, &name, &mut fields, record.bytes)?;
                }
                None => walk.note_of(&name, TRUNCATED),
            }
        }
    }
    Ok(())
}

struct IsoRecord<'a> {
    length: usize,
    start: usize,
    bytes: usize,
    is_directory: bool,
    name: &'a [u8],
}

fn iso_record(bytes: &[u8], at: usize) -> Option<IsoRecord<'_>> {
    let mut fields = Fields::at(bytes, at)?;
    let length = fields.u8().filter(|length| *length >= 34)?;
    fields.take(1)?;
    let start = index(fields.u32()?).checked_mul(SECTOR)?;
    fields.take(4)?;
    let bytes = index(fields.u32()?);
    fields.take(4 + 7)?;
    let flags = fields.u8()?;
    fields.take(2 + 4)?;
    let name_bytes = fields.u8()?;
    let name = fields.take(name_bytes.into())?;
    Some(IsoRecord { length: length.into(), start, bytes, is_directory: flags & 2 != 0, name })
}
