//! `ar`: static libraries and Debian packages.
//!
//! Read here and not by the `ar` crate: that one allocates what a header claims (up to 10 GB) before it reads.
//! The format is System V's with GNU's `//` and `/123` names and BSD's `#1/len`; see deb(5) and ar(5).

use std::borrow::Cow;

use super::Cause;
use super::budget::Budget;
use super::members::{Archive, Body, Fact, Member, Unreadable};

const MAGIC: usize = 8;
const HEADER: usize = 60;

pub(super) fn read<'b>(bytes: &'b [u8], budget: &Budget<'_>) -> Result<Archive<'b>, Unreadable> {
    let mut rest = bytes.get(MAGIC..).unwrap_or_default();
    let mut names: &[u8] = &[];
    let mut members = Vec::new();
    while rest.len() >= HEADER {
        budget.take_members(1)?;
        let (header, after) = rest.split_at_checked(HEADER).ok_or("a header is cut off")?;
        if header.get(58..60) != Some(b"`\n") {
            return Err("a header has no end mark".into());
        }
        let size = decimal(field(header, 48, 10)).ok_or("a size is not a number")?;
        let (body, after) = after.split_at_checked(size).ok_or("a member is cut off")?;
        rest = match after.split_first() {
            // The padding byte stays part of what is compared: a newline, or it is outside the format.
            Some((b'\n', after)) if size % 2 == 1 => after,
            _ => after,
        };
        let (name, body) = name(field(header, 0, 16), body, names)?;
        if &*name == b"//" {
            names = body;
        }
        let is_index = matches!(&*name, b"/" | b"/SYM64/" | b"//") || name.starts_with(b"__.SYMDEF");
        let body = if is_index { Body::Derived(body) } else { Body::Plain(body) };
        members.push(Member {
            name,
            body,
            facts: facts(header),
            header: Cow::Borrowed(header.get(..48).unwrap_or_default()),
        });
    }
    Ok(Archive { members, rest: Cow::Borrowed(rest) })
}

fn facts(header: &[u8]) -> Vec<Fact> {
    let text = |from, length| String::from_utf8_lossy(field(header, from, length)).into_owned();
    vec![
        Fact::new("mtime", Cause::Time, text(16, 12)),
        Fact::new("uid", Cause::Metadata, text(28, 6)),
        Fact::new("gid", Cause::Metadata, text(34, 6)),
        Fact::new("mode", Cause::Metadata, text(40, 8)),
    ]
}

/// A field without the blanks that fill it.
fn field(header: &[u8], from: usize, length: usize) -> &[u8] {
    header.get(from..from + length).unwrap_or_default().trim_ascii_end()
}

fn decimal(field: &[u8]) -> Option<usize> {
    str::from_utf8(field).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

/// The member's name, and its content without a name stored in front of it.
fn name<'b>(field: &'b [u8], body: &'b [u8], names: &'b [u8]) -> Result<(Cow<'b, [u8]>, &'b [u8]), Unreadable> {
    if let Some(length) = field.strip_prefix(b"#1/").and_then(decimal) {
        let (name, body) = body.split_at_checked(length).ok_or("a long name is cut off")?;
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        return Ok((Cow::Borrowed(name.get(..end).unwrap_or_default()), body));
    }
    if let Some(at) = field.strip_prefix(b"/").and_then(|digits| decimal(digits).filter(|_| !digits.is_empty())) {
        let tail = names.get(at..).ok_or("a long name is not in the table")?;
        let end = tail.iter().position(|byte| *byte == b'\n').unwrap_or(tail.len());
        let name = tail.get(..end).unwrap_or_default();
        return Ok((Cow::Borrowed(name.strip_suffix(b"/").unwrap_or(name)), body));
    }
    let plain = field.strip_suffix(b"/").filter(|name| !name.is_empty() && !name.starts_with(b"/"));
    Ok((Cow::Borrowed(plain.unwrap_or(field)), body))
}
