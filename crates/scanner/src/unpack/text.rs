//! Files that are written in letters inside of texts: uuencode, BinHex 4.0, and `data:` addresses.

use std::io::{self, Read};

use detection::NoteCode;
use memchr::memmem;

use super::fields::Fields;
use super::note::Fault;
use super::walk::{Step, Walk};

const BEGIN: &[u8] = b"begin ";
const BINHEX: &[u8] = b"(This file must be converted with BinHex";
const BASE64: &[u8] = b";base64,";

/// A text that has one of the marks. Only the start is looked at to see that it is a text.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    const START_BYTES: usize = 512;
    let start = bytes.get(..START_BYTES).unwrap_or(bytes);
    let is_text = start.iter().all(|byte| !byte.is_ascii_control() || byte.is_ascii_whitespace());
    is_text && (has_uu(bytes) || [BINHEX, BASE64].iter().any(|mark| memmem::find(bytes, mark).is_some()))
}

fn has_uu(bytes: &[u8]) -> bool {
    bytes.starts_with(BEGIN) || memmem::find(bytes, b"\nbegin ").is_some()
}

pub(super) fn open(walk: &mut Walk<'_>, bytes: &[u8]) -> Step {
    open_uu(walk, bytes)?;
    if let Some(found) = memmem::find(bytes, BINHEX) {
        open_binhex(walk, bytes.get(found..).unwrap_or_default())?;
    }
    for (number, found) in (1u64..).zip(memmem::find_iter(bytes, BASE64)) {
        let rest = bytes.get(found + BASE64.len()..).unwrap_or_default();
        let mut letters = Letters { rest, alphabet: Alphabet::Base64, bits: 0, have: 0 };
        walk.decoded(format!("data-{number}").as_bytes(), &mut letters)?;
    }
    Ok(())
}

/// Everything that begins with `begin MODE NAME`.
fn open_uu(walk: &mut Walk<'_>, bytes: &[u8]) -> Step {
    let mut at = 0;
    loop {
        walk.tick()?;
        let rest = bytes.get(at..).unwrap_or_default();
        let start = if at == 0 && rest.starts_with(BEGIN) {
            0
        } else if let Some(found) = memmem::find(rest, b"\nbegin ") {
            at += found + 1;
            at
        } else {
            return Ok(());
        };
        let mut lines = bytes.get(start..).unwrap_or_default();
        let head = line(&mut lines).unwrap_or_default();
        at = bytes.len() - lines.len() - 1;
        let Some((mode, name)) = head.get(BEGIN.len()..).and_then(|rest| rest.split_at_checked(4)) else {
            continue;
        };
        if !matches!(mode, [b'0'..=b'7', b'0'..=b'7', b'0'..=b'7', b' ']) {
            continue;
        }
        walk.decoded(name, &mut Uu { lines, piece: Vec::new(), has_ended: false })?;
    }
}

/// The next line, without its end.
fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    if rest.is_empty() {
        return None;
    }
    let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
    let (line, more) = rest.split_at(end);
    *rest = more.get(1..).unwrap_or_default();
    Some(line.strip_suffix(b"\r").unwrap_or(line))
}

struct Uu<'a> {
    lines: &'a [u8],
    /// What the line gave that has not been read yet, the last byte first.
    piece: Vec<u8>,
    has_ended: bool,
}

impl Read for Uu<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut count = 0;
        for slot in buffer {
            while self.piece.is_empty() {
                if self.has_ended {
                    return Ok(count);
                }
                let letters = match line(&mut self.lines) {
                    Some(b"end" | b"`" | b" " | b"") => {
                        self.has_ended = true;
                        return Ok(count);
                    }
                    Some(letters) => letters,
                    // There is no `end`.
                    None if count == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    None => return Ok(count),
                };
                self.piece = uu_line(letters).ok_or(io::ErrorKind::InvalidData)?;
                self.piece.reverse();
            }
            if let Some(byte) = self.piece.pop() {
                *slot = byte;
                count += 1;
            }
        }
        Ok(count)
    }
}

/// The first letter is the number of bytes; missing letters at the end are spaces that a program cut off.
fn uu_line(letters: &[u8]) -> Option<Vec<u8>> {
    let value = |letter: u8| (b' '..=b'`').contains(&letter).then(|| letter.wrapping_sub(b' ') & 63);
    let (first, letters) = letters.split_first()?;
    let length = usize::from(value(*first)?);
    let mut bytes = Vec::with_capacity(length + 2);
    for group in letters.chunks(4) {
        let mut four = [0; 4];
        for (place, letter) in four.iter_mut().zip(group) {
            *place = value(*letter)?;
        }
        let [a, b, c, d] = four;
        bytes.extend([a << 2 | b >> 4, b << 4 | c >> 2, c << 6 | d]);
    }
    bytes.resize(length, 0);
    Some(bytes)
}

#[derive(Clone, Copy)]
enum Alphabet {
    Base64,
    BinHex,
}

/// Six bits a letter. White space is left out, and what is no letter ends it.
struct Letters<'a> {
    rest: &'a [u8],
    alphabet: Alphabet,
    bits: u32,
    have: u32,
}

impl Letters<'_> {
    fn value(&self, letter: u8) -> Option<u8> {
        const BINHEX: &[u8; 64] = b"!\"#$%&'()*+,-012345689@ABCDEFGHIJKLMNPQRSTUVXYZ[`abcdefhijklmpqr";
        match self.alphabet {
            Alphabet::BinHex => u8::try_from(memchr::memchr(letter, BINHEX)?).ok(),
            Alphabet::Base64 => Some(match letter {
                b'A'..=b'Z' => letter - b'A',
                b'a'..=b'z' => letter - b'a' + 26,
                b'0'..=b'9' => letter - b'0' + 52,
                b'+' | b'-' => 62,
                b'/' | b'_' => 63,
                _ => return None,
            }),
        }
    }

    fn next(&mut self) -> Option<u8> {
        while self.have < 8 {
            let (letter, rest) = self.rest.split_first()?;
            if !letter.is_ascii_whitespace() {
                self.bits = self.bits << 6 | u32::from(self.value(*letter)?);
                self.have += 6;
            }
            self.rest = rest;
        }
        self.have -= 8;
        u8::try_from(self.bits >> self.have & 0xff).ok()
    }
}

impl Read for Letters<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut count = 0;
        for (slot, byte) in buffer.iter_mut().zip(std::iter::from_fn(|| self.next())) {
            *slot = byte;
            count += 1;
        }
        Ok(count)
    }
}

/// BinHex: six bits a letter between two colons, runs as `byte 0x90 count`, a header, two forks.
fn open_binhex(walk: &mut Walk<'_>, bytes: &[u8]) -> Step {
    let Some(start) = memchr::memchr(b':', bytes) else {
        return Ok(());
    };
    let letters =
        Letters { rest: bytes.get(start + 1..).unwrap_or_default(), alphabet: Alphabet::BinHex, bits: 0, have: 0 };
    let decoded = walk.decode(&mut Runs { letters, last: 0, left: 0 })?;
    let forks = binhex_forks(&decoded.bytes);
    let done = match &forks {
        Some((name, data, resource)) => walk.stored(name, data).and_then(|()| match resource {
            [] => Ok(()),
            _ => walk.stored(&[name, b"/rsrc".as_slice()].concat(), resource),
        }),
        None => {
            walk.note(Fault::new(NoteCode::Truncated, "the BinHex header ends early"));
            Ok(())
        }
    };
    let fault = decoded.stops();
    walk.forget(decoded);
    done.and(fault)
}

fn binhex_forks(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let mut fields = Fields::new(bytes);
    let name_bytes = fields.u8()?;
    let name = fields.take(name_bytes.into())?;
    // Version, type, creator, flags.
    fields.take(1 + 4 + 4 + 2)?;
    let (data, resource) = (fields.u32_be()?, fields.u32_be()?);
    fields.take(2)?;
    let data = fields.take_most(super::fields::index(data));
    fields.take_most(2);
    Some((name, data, fields.take_most(super::fields::index(resource))))
}

struct Runs<'a> {
    letters: Letters<'a>,
    last: u8,
    left: u8,
}

impl Runs<'_> {
    fn next(&mut self) -> Option<u8> {
        const RUN: u8 = 0x90;
        loop {
            if self.left > 0 {
                self.left -= 1;
                return Some(self.last);
            }
            self.last = match self.letters.next()? {
                RUN => match self.letters.next()? {
                    0 => RUN,
                    // The first of them has been given already.
                    count => {
                        self.left = count - 1;
                        continue;
                    }
                },
                byte => byte,
            };
            return Some(self.last);
        }
    }
}

impl Read for Runs<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut count = 0;
        for (slot, byte) in buffer.iter_mut().zip(std::iter::from_fn(|| self.next())) {
            *slot = byte;
            count += 1;
        }
        Ok(count)
    }
}
