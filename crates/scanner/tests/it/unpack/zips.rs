//! Zip's many truths: two headers for each member, any bytes before and after, names that are paths.

use detection::NoteCode;

use super::samples::{CONTENT, Member, gzip, tar, with_directory, zip};
use super::take_apart;

#[test]
fn behind_a_program_and_before_more() {
    let archive = zip(&[Member::deflated("inner", CONTENT)]);
    let program = [b"MZ and the rest of a program ".as_slice(), &archive].concat();
    assert_eq!(take_apart(&program).place_of(CONTENT), Some("inner"));

    // Offsets that count from the file's start instead of the archive's.
    let member = Member::stored("inner", CONTENT);
    let prefix = b"#!/bin/sh\nexit\n".to_vec();
    let offset = prefix.len();
    let bytes = with_directory([prefix, member.local()].concat(), &[(&member, offset)]);
    assert_eq!(take_apart(&bytes).place_of(CONTENT), Some("inner"));

    let seen = take_apart(&[archive.as_slice(), &[b'x'; 1000]].concat());
    assert_eq!(seen.place_of(CONTENT), Some("inner"));
}

/// A file that is two things at once is opened as both.
#[test]
fn polyglots() {
    let archive = zip(&[Member::deflated("in zip", CONTENT)]);
    let seen = take_apart(&[gzip(b"in gzip"), archive.clone()].concat());
    assert_eq!(seen.place_of(b"in gzip"), Some("content"));
    assert_eq!(seen.place_of(CONTENT), Some("in zip"));

    let seen = take_apart(&[tar(&[("in tar", b"other")]), archive.clone()].concat());
    assert_eq!(seen.place_of(b"other"), Some("in tar"));
    assert_eq!(seen.place_of(CONTENT), Some("in zip"));

    // Two archives in one file: only the last has a directory that programs find.
    let first = zip(&[Member::deflated("first", b"in the first")]);
    let seen = take_apart(&[first, archive].concat());
    assert_eq!(seen.place_of(CONTENT), Some("in zip"));
    assert_eq!(seen.place_of(b"in the first"), Some("first"));
    assert_eq!(seen.codes_at("first"), [NoteCode::Mismatch]);
}

#[test]
fn headers_that_disagree_are_both_believed() {
    let mut member = Member::deflated("inner", CONTENT);
    member.local_method = Some(0);
    let seen = take_apart(&zip(&[member.clone()]));
    assert_eq!(seen.codes(), [NoteCode::Mismatch]);
    assert_eq!(seen.members.len(), 2);
    assert_eq!(seen.members[0].1, CONTENT);
    assert_eq!(seen.members[1].1, member.data);

    let mut member = Member::stored("harmless.txt", CONTENT);
    member.local_name = Some(b"harmful.exe".to_vec());
    assert_eq!(take_apart(&zip(&[member])).codes(), [NoteCode::Mismatch]);
}

#[test]
fn what_the_directory_leaves_out_is_found() {
    let (named, hidden) = (Member::stored("named", b"harmless"), Member::deflated("hidden", CONTENT));
    let bytes = [hidden.local(), named.local()].concat();
    let seen = take_apart(&with_directory(bytes, &[(&named, hidden.local().len())]));
    assert_eq!(seen.names(), ["named", "hidden"]);
    assert_eq!(seen.place_of(CONTENT), Some("hidden"));
    assert_eq!(seen.codes_at("hidden"), [NoteCode::Mismatch]);
}

#[test]
fn without_a_directory_the_local_headers_are_followed() {
    let mut streamed = Member::deflated("streamed", CONTENT);
    streamed.flags = 8;
    let mut local = streamed.local();
    // The sizes follow the data.
    local[18..26].fill(0);
    let descriptor = [b"PK\x07\x08".as_slice(), &[0; 12]].concat();
    let bytes = [local, descriptor, Member::stored("last", b"and this").local()].concat();
    let seen = take_apart(&bytes);
    assert_eq!(seen.place_of(CONTENT), Some("streamed"));
    assert_eq!(seen.place_of(b"and this"), Some("last"));
    assert_eq!(seen.codes(), [NoteCode::Truncated]);
}

#[test]
fn encrypted_and_unknown_methods_are_told() {
    let mut encrypted = Member::stored("secret", CONTENT);
    encrypted.flags = 1;
    let aes = Member::coded("aes", 99, CONTENT.to_vec());
    let unknown = Member::coded("wavpack", 97, CONTENT.to_vec());
    let seen = take_apart(&zip(&[encrypted, aes, unknown, Member::stored("open", CONTENT)]));
    assert_eq!(seen.names(), ["open"]);
    assert_eq!(seen.codes(), [NoteCode::Encrypted, NoteCode::Encrypted, NoteCode::Unsupported]);
}

/// Names are labels: whatever they say, they are shown on one line, and separate nothing.
#[test]
fn names_are_labels() {
    let names = ["/etc/passwd", "../../escape", "a!b", "line\nbreak\u{202e}exe.txt", "100%", "größe.exe"];
    let members: Vec<_> = names.iter().map(|name| Member::stored(name, b"x")).collect();
    let seen = take_apart(&zip(&members));
    let shown = ["/etc/passwd", "../../escape", "a%21b", "line%0Abreak%E2%80%AEexe.txt", "100%25", "größe.exe"];
    assert_eq!(seen.names(), shown);

    let seen = take_apart(&tar(&[("../../escape", b"x"), ("/etc/passwd", b"y")]));
    assert_eq!(seen.names(), ["../../escape", "/etc/passwd"]);

    let seen = take_apart(&zip(&[Member::stored("\0", b"x"), Member::stored(&"n".repeat(5_000), b"y")]));
    assert_eq!(seen.names()[0], "%00");
    assert_eq!(seen.names()[1].chars().count(), 256);
}

#[test]
fn an_archive_without_members_is_one() {
    let seen = take_apart(&zip(&[]));
    assert_eq!((seen.names(), seen.codes()), (vec![], vec![]));
}
