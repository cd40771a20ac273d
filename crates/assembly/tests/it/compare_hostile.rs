//! `compare` on what nobody should feed it: no panic, no match that is none.

use assembly::compare::{Limits, Summary, Verdict};
use proptest::prelude::{ProptestConfig, any, prop, proptest};
use proptest::strategy::Strategy;

use crate::compare::{differ, verdict};
use crate::compare_pack::{Entry, ar, deb, gzip, tar, wheel, xz, zip, zstd};

fn seeds() -> Vec<Vec<u8>> {
    let files = [Entry::new("usr/bin/a", b"hello /build/a\n"), Entry::new("b", &[0, 1, 2, 3])];
    let elf = std::fs::read("/proc/self/exe").unwrap();
    vec![
        tar(&files),
        ar(&files),
        zip(&files, 6),
        zip(&files, 0),
        gzip(&tar(&files), 1, 6),
        xz(&tar(&files), 6),
        zstd(&tar(&files), 3),
        deb(&files, 1),
        wheel("pkg/a.py", b"x = 1\n", 1),
        // The head of a real program: headers without most of what they point to.
        elf[..4_096].to_vec(),
        object_file(),
        b"plain text\nof two lines\n".to_vec(),
    ]
}

/// A small ELF file whose tables are all there.
fn object_file() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.c");
    stdx::durable::write(&path, b"int answer(void) { return 42; }\n").unwrap();
    let status = std::process::Command::new("cc").args(["-c", "-g", "-o", "a.o", "a.c"]).current_dir(&folder).status();
    assert!(status.unwrap().success());
    std::fs::read(folder.path().join("a.o")).unwrap()
}

/// Small bounds, so that a bomb that a mutation makes costs little.
fn small() -> Limits {
    Limits { bytes: 16 << 20, ..Limits::default() }
}

/// Changes to bytes: (place, new byte), a cut, something appended.
fn mutations() -> impl Strategy<Value = (Vec<(usize, u8)>, Option<usize>, Vec<u8>)> {
    (
        prop::collection::vec(any::<(usize, u8)>(), 0..8),
        any::<Option<usize>>(),
        prop::collection::vec(any::<u8>(), 0..4),
    )
}

fn mutate(seed: &[u8], (edits, cut, tail): (Vec<(usize, u8)>, Option<usize>, Vec<u8>)) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for (at, byte) in edits {
        let at = at % bytes.len();
        bytes[at] = byte;
    }
    if let Some(cut) = cut {
        bytes.truncate(cut % seed.len() + 1);
    }
    bytes.extend(tail);
    bytes
}

/// The verdict is what `==` says, and every view of it can be made.
fn agrees(left: &[u8], right: &[u8]) {
    match verdict("x", left, right, &small()) {
        Verdict::Identical(_) => assert_eq!(left, right),
        Verdict::Different(difference) => {
            assert_ne!(left, right);
            assert!(!difference.causes().is_empty() && !difference.findings().is_empty());
            let summary = serde_json::to_vec(&difference.summary()).unwrap();
            assert_eq!(Summary::parse(&summary).unwrap().causes, difference.causes());
            let text = difference.to_string();
            assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(left in prop::collection::vec(any::<u8>(), 0..2_000), right in prop::collection::vec(any::<u8>(), 0..2_000)) {
        agrees(&left, &right);
        agrees(&left, &left);
    }

    #[test]
    fn any_bytes_behind_a_magic(
        magic in prop::sample::select(vec![
            &b"!<arch>\n"[..], b"PK\x03\x04", b"\x1f\x8b\x08", b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4\x46\x02\0", b"\x28\xb5\x2f\xfd", b"\x7fELF\x02\x01\x01",
        ]),
        left in prop::collection::vec(any::<u8>(), 0..500),
        right in prop::collection::vec(any::<u8>(), 0..500),
    ) {
        agrees(&[magic, &left].concat(), &[magic, &right].concat());
    }
}

#[test]
fn mutations_of_archives() {
    use proptest::test_runner::{Config, TestRunner};
    for seed in seeds() {
        let mut runner = TestRunner::new(Config { failure_persistence: None, cases: 100, ..Config::default() });
        let pair = (mutations(), mutations());
        runner
            .run(&pair, |(one, other)| {
                let (one, other) = (mutate(&seed, one), mutate(&seed, other));
                agrees(&seed, &one);
                agrees(&one, &other);
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn every_byte_of_an_archive_counts() {
    for seed in seeds().into_iter().filter(|seed| seed.len() < 1_500) {
        for at in 0..seed.len() {
            let mut changed = seed.clone();
            changed[at] ^= 1;
            agrees(&seed, &changed);
        }
    }
}

/// Headers that ask for more than there is: nothing is reserved before it is read.
#[test]
fn sizes_that_lie() {
    let huge_ar = b"!<arch>\n//                                              9999999999`\nx".to_vec();
    let mut huge_zip = zip(&[Entry::new("a", b"1")], 6);
    let end = huge_zip.len() - 22;
    huge_zip[end + 8..end + 12].copy_from_slice(&[0xfe; 4]);
    let mut huge_xz = xz(b"a", 6);
    // The block header's dictionary: 4 GiB less one.
    huge_xz[12 + 4] = 40;
    let mut huge_tar = tar(&[Entry::new("a", b"1")]);
    huge_tar[124..135].copy_from_slice(b"77777777777");
    for lie in [huge_ar, huge_zip, huge_xz, huge_tar] {
        agrees(&lie, &[lie.as_slice(), b"x"].concat());
        let mut changed = lie.clone();
        *changed.last_mut().unwrap() ^= 1;
        agrees(&lie, &changed);
    }
}

/// Each of these members is nearly nothing; together they would exhaust a stack or an hour.
#[test]
fn many_empty_parts() {
    let streams = xz(b"", 0).repeat(200_000);
    agrees(&streams, &[streams.as_slice(), &[0; 4]].concat());
    let members = gzip(b"", 0, 6).repeat(100_000);
    agrees(&members, &[members.as_slice(), &[0]].concat());
    let lines = |last: &str| format!("{}{last}", "\n".repeat(500_000)).into_bytes();
    assert!(!differ("x", &lines("a"), &lines("b")).causes().is_empty());
}
