//! What a hostile file can cost, and that it is told.

use std::cell::Cell;
use std::io::Write as _;

use detection::{NoteCode, Unpacking};
use scanner::{Visitor, unpack};

use super::samples::{self, CONTENT, Member, gzip, tar, with_directory, zip};
use super::{Seen, take_apart, take_apart_within};

const MIB: u64 = 1 << 20;

/// Small, so that reaching them takes milliseconds.
fn narrow() -> Unpacking {
    Unpacking {
        depth: 8,
        members: 1_000,
        member_bytes: MIB,
        bytes: 16 * MIB,
        held_bytes: 4 * MIB,
        ratio: 20,
        free_bytes: 2 * MIB,
        ..Unpacking::default()
    }
}

fn zeros(mib: u64) -> Vec<u8> {
    vec![0; (mib * MIB) as usize]
}

fn check_bounded(name: &str, seen: &Seen, bytes: &[u8], limits: &Unpacking) {
    let largest = seen.members.iter().map(|(_, bytes)| bytes.len() as u64).max().unwrap_or(0);
    assert!(largest <= limits.member_bytes, "{name}: a member of {largest} bytes");
    let all: u64 = seen.members.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let most = limits.bytes.min(limits.free_bytes + limits.ratio * bytes.len() as u64);
    assert!(all <= most, "{name}: {all} bytes of at most {most}");
    assert!(seen.members.len() as u64 <= limits.members, "{name}: {} members", seen.members.len());
    assert!(seen.totals.depth <= limits.depth, "{name}: depth {}", seen.totals.depth);
}

#[test]
fn a_bomb_of_one_stream_is_cut_and_told() {
    let content = zeros(3);
    let limits = Unpacking { member_bytes: 16 * MIB, ..narrow() };
    let bombs = [
        ("zip", zip(&[Member::deflated("zeros", &content)])),
        ("gzip", gzip(&content)),
        ("xz", samples::xz(&content)),
        ("lzma", samples::lzma(&content)),
        ("zstd", samples::zstd(&content)),
        ("bzip2", samples::bzip2(&content)),
    ];
    for (name, bomb) in bombs {
        let seen = take_apart_within(&bomb, &limits);
        assert_eq!(seen.codes(), [NoteCode::Bomb], "{name}");
        check_bounded(name, &seen, &bomb, &limits);
        // What had come out by then is still looked at.
        assert!(seen.members[0].1.len() as u64 >= limits.free_bytes, "{name}");
    }
}

#[test]
fn a_member_that_is_too_large_is_cut_and_the_next_one_is_looked_at() {
    let bytes = zip(&[Member::deflated("large", &zeros(2)), Member::stored("next", CONTENT)]);
    let seen = take_apart_within(&bytes, &narrow());
    assert_eq!(seen.names(), ["large", "next"]);
    assert_eq!(seen.members[0].1.len() as u64, narrow().member_bytes);
    assert_eq!(seen.codes_at("large"), [NoteCode::TooLarge]);

    let bytes = tar(&[("large", &zeros(2)), ("next", CONTENT)]);
    let seen = take_apart_within(&bytes, &narrow());
    assert_eq!(seen.names(), ["large", "next"]);
    assert_eq!(seen.codes_at("large"), [NoteCode::TooLarge]);
}

/// A compressed tar need not be in memory to be opened: what lies behind the bound is found, too.
#[test]
fn a_tar_larger_than_a_member_is_read_member_by_member() {
    let part = zeros(1);
    let archive = tar(&[("one", &part[1..]), ("two", &part), ("three", &zeros(2)), ("last", CONTENT)]);
    let limits = Unpacking { free_bytes: 16 * MIB, ..narrow() };
    let seen = take_apart_within(&gzip(&archive), &limits);
    assert_eq!(seen.names(), ["content!one", "content!two", "content!three", "content!last"]);
    assert_eq!(seen.place_of(CONTENT), Some("content!last"));
    assert_eq!(seen.codes_at("content"), [NoteCode::TooLarge]);
    assert_eq!(seen.codes_at("content!three"), [NoteCode::TooLarge]);

    // What is skipped counts against the bomb, too.
    let seen = take_apart_within(&gzip(&archive), &narrow());
    assert_eq!(seen.codes().last(), Some(&NoteCode::Bomb));
}

/// 16 archives in each of 16 archives, as `42.zip` has them: each layer is small.
#[test]
fn nested_bombs_end() {
    let limits = narrow();
    let mut bomb = zip(&[Member::deflated("zeros", &zeros(1))]);
    for _ in 0..5 {
        let members: Vec<_> = (0..16).map(|number| Member::deflated(&format!("{number}.zip"), &bomb)).collect();
        bomb = zip(&members);
    }
    let seen = take_apart_within(&bomb, &limits);
    assert_eq!(seen.codes(), [NoteCode::Bomb]);
    check_bounded("nested", &seen, &bomb, &limits);
}

/// Many entries, one kernel of data: every local header is the start of the next one's data, too.
#[test]
fn overlapping_members_are_told_and_end() {
    let limits = narrow();
    let kernel = Member::deflated("0", &zeros(1));
    let bytes = kernel.local();
    let bomb = with_directory(bytes, &vec![(&kernel, 0); 200]);
    let seen = take_apart_within(&bomb, &limits);
    assert_eq!(seen.codes().last(), Some(&NoteCode::Bomb));
    check_bounded("overlapping", &seen, &bomb, &limits);

    let small = Member::stored("0", CONTENT);
    let bytes = small.local();
    let seen = take_apart(&with_directory(bytes, &[(&small, 0), (&small, 0)]));
    assert_eq!(seen.codes(), [NoteCode::Mismatch]);
}

#[test]
fn a_hundred_levels_end_at_the_last_that_is_allowed() {
    let mut bytes = CONTENT.to_vec();
    for _ in 0..100 {
        bytes = zip(&[Member::stored("inner.zip", &bytes)]);
    }
    let seen = take_apart(&bytes);
    assert_eq!(seen.totals.depth, Unpacking::default().depth);
    assert_eq!(seen.codes(), [NoteCode::TooDeep]);
    assert!(seen.place_of(CONTENT).is_none());

    // One level less than allowed is opened to the end.
    let mut bytes = CONTENT.to_vec();
    for _ in 0..Unpacking::default().depth {
        bytes = gzip(&bytes);
    }
    let seen = take_apart(&bytes);
    assert_eq!(seen.codes(), []);
    assert!(seen.place_of(CONTENT).is_some());
}

/// A zip whose one member is the whole file: a quine needs no compression where a directory may say anything.
#[test]
fn a_file_that_holds_itself_ends() {
    // The directory says that the member is the file from its data on, which has a directory again.
    let inner = Member::stored("again", &[]);
    let local = inner.local().len();
    let mut member = inner.clone();
    for _ in 0..8 {
        // The member's size is that of the file behind the local header, and it does not change it.
        let length = with_directory(inner.local(), &[(&member, 0)]).len() - local;
        member.size = length as u32;
        member.data = vec![0; length];
    }
    let mut header = inner.clone();
    header.size = member.size;
    let bytes = with_directory(header.local(), &[(&member, 0)]);
    let seen = take_apart_within(&bytes, &narrow());
    check_bounded("quine", &seen, &bytes, &narrow());
    assert!(!seen.notes.is_empty());
}

#[test]
fn too_many_members_end_the_walk() {
    let limits = Unpacking { members: 100, ..narrow() };
    let many: Vec<_> = (0..1_000).map(|_| ("inner", CONTENT)).collect();
    let seen = take_apart_within(&tar(&many), &limits);
    assert_eq!(seen.members.len(), 100);
    assert_eq!(seen.codes(), [NoteCode::TooMany]);
}

#[test]
fn notes_are_counted_but_not_all_handed_out() {
    let limits = Unpacking { notes: 3, ..narrow() };
    let mut encrypted = Member::stored("secret", CONTENT);
    encrypted.flags = 1;
    let seen = take_apart_within(&zip(&vec![encrypted; 10]), &limits);
    assert_eq!(seen.codes(), [NoteCode::Encrypted; 3]);
    assert_eq!(seen.totals.notes, 10);
}

/// Time is asked for while one member comes out, and between members.
#[test]
fn the_end_of_time_ends_the_walk() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    (0..8).for_each(|_| encoder.write_all(&zeros(1)).unwrap());
    let bytes = encoder.finish().unwrap();
    for (asked, bytes) in [(3, bytes), (5, tar(&[("inner", CONTENT); 100]))] {
        let asks = Cell::new(0);
        let is_late = || {
            asks.set(asks.get() + 1);
            asks.get() > asked
        };
        let mut seen = Seen::default();
        unpack("file", &bytes, &Unpacking::default(), &is_late, &mut seen);
        assert_eq!(seen.codes(), [NoteCode::Timeout]);
        assert!(!seen.members.is_empty(), "what had come out is looked at");
        assert!(asks.get() <= asked + 2, "it went on after the end");
    }
}

#[test]
fn a_visitor_that_has_seen_enough_ends_the_walk() {
    struct First(u32);
    impl Visitor for First {
        fn member(&mut self, _: &[String], _: &[u8]) -> std::ops::ControlFlow<()> {
            self.0 += 1;
            std::ops::ControlFlow::Break(())
        }
        fn note(&mut self, _: detection::Note) {}
    }
    let mut first = First(0);
    unpack("file", &tar(&[("inner", CONTENT); 100]), &Unpacking::default(), &|| false, &mut first);
    assert_eq!(first.0, 1);
}

/// Headers that claim what isn't there cost nothing, because memory grows with what comes out.
#[test]
fn lying_sizes_are_told() {
    let mut bytes = tar(&[("inner", CONTENT)]);
    let header = tar::Header::from_byte_slice(&bytes[..512]).clone();
    let mut header = header;
    header.set_size(8 << 30);
    header.set_cksum();
    bytes[..512].copy_from_slice(header.as_bytes());
    let seen = take_apart(&bytes);
    assert_eq!(seen.codes_at("inner"), [NoteCode::Truncated]);
    assert!(seen.members[0].1.starts_with(CONTENT));

    let mut member = Member::stored("inner", CONTENT);
    member.size = u32::MAX - 1;
    let seen = take_apart(&zip(&[member]));
    assert_eq!(seen.place_of(CONTENT), Some("inner"));

    // A window of 2 GiB for a few bytes.
    let mut bytes = samples::lzma(CONTENT);
    bytes[1..5].copy_from_slice(&(1u32 << 31).to_le_bytes());
    let seen = take_apart(&bytes);
    assert_eq!(seen.codes(), [NoteCode::TooLarge]);
}
