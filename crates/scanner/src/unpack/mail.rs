//! Mail: messages with MIME parts, and mailboxes of them.

use mail_parser::{MessageParser, MimeHeaders as _, PartType};

use super::fields::index;
use super::walk::{Step, Walk};

/// A file of mail begins with one of these; programs add any number of others.
const FIRST_NAMES: &[&[u8]] = &[
    b"arc-",
    b"authentication-results",
    b"bcc",
    b"cc",
    b"content-",
    b"date",
    b"delivered-to",
    b"dkim-",
    b"from",
    b"list-",
    b"message-id",
    b"mime-version",
    b"organization",
    b"received",
    b"reply-to",
    b"return-path",
    b"sender",
    b"subject",
    b"to",
    b"x-",
];

/// Headers of real mail are at most some ten KiB.
const HEADER_BYTES_MAX: usize = 64 << 10;

/// A mailbox, or headers up to an empty line of which the first is one of mail's own.
pub(super) fn is_mail(bytes: &[u8]) -> bool {
    if bytes.starts_with(b"From ") {
        return true;
    }
    let first = bytes.split(|byte| *byte == b':').next().unwrap_or_default();
    let is_first = |name: &&[u8]| first.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    if first.len() > 64 || !FIRST_NAMES.iter().any(is_first) {
        return false;
    }
    let head = bytes.get(..HEADER_BYTES_MAX).unwrap_or(bytes);
    let mut headers: usize = 0;
    for line in head.split(|byte| *byte == b'\n') {
        match line.strip_suffix(b"\r").unwrap_or(line) {
            [] => break,
            [b' ' | b'\t', ..] if headers > 0 => {}
            line if is_header(line) => headers += 1,
            _ => return false,
        }
    }
    // `To: do` alone begins many a text.
    headers >= 2
}

fn is_header(line: &[u8]) -> bool {
    let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
    !name.is_empty() && name.len() < line.len() && name.iter().all(|byte| byte.is_ascii_graphic())
}

pub(super) fn open(walk: &mut Walk<'_>, bytes: &[u8]) -> Step {
    if !bytes.starts_with(b"From ") {
        return message(walk, bytes);
    }
    let mut rest = bytes;
    for number in 1u64.. {
        walk.tick()?;
        let end = memchr::memmem::find(rest, b"\nFrom ").map_or(rest.len(), |end| end + 1);
        let (one, others) = rest.split_at(end);
        // Without the line that separates it.
        let body = memchr::memchr(b'\n', one).and_then(|end| one.get(end + 1..)).unwrap_or_default();
        if !body.is_empty() {
            walk.stored(format!("message-{number}").as_bytes(), body)?;
        }
        if others.is_empty() {
            break;
        }
        rest = others;
    }
    Ok(())
}

fn message(walk: &mut Walk<'_>, bytes: &[u8]) -> Step {
    let Some(message) = MessageParser::default().parse(bytes) else {
        return Ok(());
    };
    for (number, part) in message.parts.iter().enumerate() {
        walk.tick()?;
        let name = part.attachment_name().map_or_else(|| format!("part-{number}"), str::to_owned);
        match &part.body {
            PartType::Multipart(_) => {}
            // As it stands there, so that its own parts are found at the next depth.
            PartType::Message(inner) if !inner.raw_message.is_empty() => {
                walk.stored(name.as_bytes(), &inner.raw_message)?;
            }
            PartType::Message(_) => {
                let range = index(part.offset_body)..index(part.offset_end);
                walk.stored(name.as_bytes(), bytes.get(range).unwrap_or_default())?;
            }
            _ => walk.stored(name.as_bytes(), part.contents())?,
        }
    }
    Ok(())
}
