//! `tar`, in the forms that the `tar` crate reads (v7, ustar, GNU, pax). Nothing is unpacked to disk.

use std::borrow::Cow;

use tar::EntryType;

use super::Cause;
use super::budget::Budget;
use super::members::{Archive, Body, Fact, Member, Unreadable};

const BLOCK: usize = 512;

/// Whether the first block is a header: only its checksum tells, since v7 has no mark.
pub(super) fn is_tar(bytes: &[u8]) -> bool {
    let Some(block) = bytes.get(..BLOCK) else { return false };
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { u32::from(b' ') } else { u32::from(*byte) })
        .sum();
    tar::Header::from_byte_slice(<&[u8; BLOCK]>::try_from(block).unwrap_or(&[0; BLOCK]))
        .cksum()
        .is_ok_and(|expected| expected == sum && block.first() != Some(&0))
}

pub(super) fn read<'b>(bytes: &'b [u8], budget: &Budget<'_>) -> Result<Archive<'b>, Unreadable> {
    let broken = |error: std::io::Error| Unreadable::Broken(Cow::Owned(error.to_string()));
    let mut archive = tar::Archive::new(bytes);
    let mut members = Vec::new();
    let mut end = 0;
    for entry in archive.entries().map_err(broken)? {
        budget.take_members(1)?;
        let mut entry = entry.map_err(broken)?;
        let start = usize::try_from(entry.raw_file_position()).map_err(|_| "a position is too large")?;
        // A sparse file's holes take no room here: its map lies in the header, its data follows.
        let stored = if entry.header().entry_type() == EntryType::GNUSparse {
            entry.header().entry_size().map_err(broken)?
        } else {
            entry.size()
        };
        let length = usize::try_from(stored).map_err(|_| "a size is too large")?;
        let stop = start.checked_add(length).ok_or("a size is too large")?;
        let body = bytes.get(start..stop).ok_or("a member is cut off")?;
        let header = bytes.get(end..start).ok_or("members overlap")?;
        members.push(Member {
            name: Cow::Owned(entry.path_bytes().into_owned()),
            facts: facts(&mut entry)?,
            body: Body::Plain(body),
            header: Cow::Borrowed(header),
        });
        end = stop.checked_next_multiple_of(BLOCK).ok_or("a size is too large")?;
    }
    Ok(Archive { members, rest: Cow::Borrowed(bytes.get(end..).unwrap_or_default()) })
}

fn facts(entry: &mut tar::Entry<'_, impl std::io::Read>) -> Result<Vec<Fact>, Unreadable> {
    let broken = |error: std::io::Error| Unreadable::Broken(Cow::Owned(error.to_string()));
    let header = entry.header();
    let lossy = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
    let mut facts = vec![
        Fact::new("mtime", Cause::Time, header.mtime().map_err(broken)?),
        Fact::new("mode", Cause::Metadata, format!("{:04o}", header.mode().map_err(broken)?)),
        Fact::new("uid", Cause::Metadata, header.uid().map_err(broken)?),
        Fact::new("gid", Cause::Metadata, header.gid().map_err(broken)?),
        Fact::new("owner", Cause::Metadata, lossy(header.username_bytes())),
        Fact::new("group", Cause::Metadata, lossy(header.groupname_bytes())),
        Fact::new("type", Cause::Metadata, char::from(header.entry_type().as_byte())),
    ];
    if let Some(target) = entry.link_name_bytes() {
        facts.push(Fact::new("link target", Cause::Content, lossy(Some(&target))));
    }
    if let Some(extensions) = entry.pax_extensions().map_err(broken)? {
        let (mut times, mut others) = (String::new(), String::new());
        for extension in extensions {
            let extension = extension.map_err(broken)?;
            let key = String::from_utf8_lossy(extension.key_bytes());
            let is_time = matches!(&*key, "mtime" | "atime" | "ctime") || key.starts_with("LIBARCHIVE.creationtime");
            let list = if is_time { &mut times } else { &mut others };
            *list += &format!("{key}={} ", lossy(Some(extension.value_bytes())));
        }
        facts.push(Fact::new("pax times", Cause::Time, times.trim_end()));
        facts.push(Fact::new("pax fields", Cause::Metadata, others.trim_end()));
    }
    Ok(facts)
}
