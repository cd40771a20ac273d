//! `compare`: a seeded difference of each cause is named rightly, whatever it is packed in.

use std::time::Duration;

use assembly::compare::{
    Builds, Cause, CompareError, Difference, Limits, Output, Outputs, Remark, Role, Stop, Summary, Verdict, compare,
};
use stdx::{Digest, SystemClock};

use crate::compare_pack::{Entry, ar, deb, gzip, tar, wheel, xz, zip, zstd};

pub(crate) fn outputs(name: &str, bytes: &[u8]) -> Outputs {
    let mut outputs = Outputs::default();
    outputs.add(name, Output::Bytes(bytes.to_vec())).unwrap();
    outputs
}

pub(crate) fn verdict(name: &str, left: &[u8], right: &[u8], limits: &Limits) -> Verdict {
    let (left, right) = (outputs(name, left), outputs(name, right));
    compare(&Builds { left: &left, right: &right }, limits, &SystemClock::new()).unwrap()
}

#[track_caller]
pub(crate) fn differ(name: &str, left: &[u8], right: &[u8]) -> Difference {
    match verdict(name, left, right, &Limits::default()) {
        Verdict::Different(difference) => *difference,
        Verdict::Identical(_) => panic!("{name} should differ"),
    }
}

/// Both ways round, and packed in everything: the causes stay the same.
#[track_caller]
pub(crate) fn named(name: &str, left: &[u8], right: &[u8], causes: &[Cause]) {
    assert_eq!(differ(name, left, right).causes(), causes, "{}", differ(name, left, right));
    assert_eq!(differ(name, right, left).causes(), causes, "{}", differ(name, right, left));
    type Pack = fn(&str, &[u8]) -> Vec<u8>;
    let packs: [(&str, Pack); 5] = [
        ("a.tar.gz", |name, bytes| gzip(&tar(&[Entry::new(name, bytes)]), 1, 6)),
        ("a.tar.xz", |name, bytes| xz(&tar(&[Entry::new(name, bytes)]), 6)),
        ("a.tar.zst", |name, bytes| zstd(&tar(&[Entry::new(name, bytes)]), 3)),
        ("a.whl", |name, bytes| zip(&[Entry::new(name, bytes)], 6)),
        ("a.deb", |name, bytes| deb(&[Entry::new(name, bytes)], 1)),
    ];
    for (outer, pack) in packs {
        let difference = differ(outer, &pack(name, left), &pack(name, right));
        assert_eq!(difference.causes(), causes, "in {outer}\n{difference}");
    }
}

fn hello(text: &str) -> [Entry; 2] {
    [Entry::new("usr/bin/hello", text.as_bytes()), Entry::new("usr/share/doc/README", b"A greeting.\n")]
}

#[test]
fn equal_bytes_are_identical_and_measured() {
    let packed = deb(&hello("hi\n"), 7);
    let Verdict::Identical(identical) = verdict("a.deb", &packed, &packed, &Limits::default()) else { panic!() };
    let (name, measured) = identical.outputs().iter().next().unwrap();
    assert_eq!((name.as_str(), measured.sha256, measured.size), ("a.deb", Digest::of(&packed), packed.len() as u64));
}

#[test]
fn files_and_bytes_are_compared_alike() {
    let folder = tempfile::tempdir().unwrap();
    let (large, link) = (folder.path().join("large"), folder.path().join("link"));
    let mut bytes = vec![7; 300_000];
    stdx::durable::write(&large, &bytes).unwrap();
    std::os::unix::fs::symlink(&large, &link).unwrap();
    let mut left = Outputs::default();
    left.add("x", Output::File(large)).unwrap();
    let pair = |right: &Outputs| compare(&Builds { left: &left, right }, &Limits::default(), &SystemClock::new());
    assert!(matches!(pair(&outputs("x", &bytes)), Ok(Verdict::Identical(_))));
    *bytes.last_mut().unwrap() = 8;
    assert!(matches!(pair(&outputs("x", &bytes)), Ok(Verdict::Different(_))));
    bytes.pop();
    assert!(matches!(pair(&outputs("x", &bytes)), Ok(Verdict::Different(_))));
    let mut linked = Outputs::default();
    linked.add("x", Output::File(link)).unwrap();
    assert!(matches!(pair(&linked), Err(CompareError::NotAFile { .. })));
    let mut absent = Outputs::default();
    absent.add("x", Output::File(folder.path().join("absent"))).unwrap();
    assert!(matches!(pair(&absent), Err(CompareError::Read { .. })));
}

#[test]
fn nothing_and_odd_names_are_refused() {
    let none = Outputs::default();
    let nothing = compare(&Builds { left: &none, right: &none }, &Limits::default(), &SystemClock::new());
    assert!(matches!(nothing, Err(CompareError::NoOutputs)));
    let mut outputs = outputs("x", b"");
    assert!(matches!(outputs.add("x", Output::Bytes(vec![])), Err(CompareError::Duplicate { .. })));
    assert!(matches!(outputs.add("", Output::Bytes(vec![])), Err(CompareError::Name { .. })));
    assert!(matches!(outputs.add("a\u{1b}[2J", Output::Bytes(vec![])), Err(CompareError::Name { .. })));
    assert!(matches!(outputs.add(&"a".repeat(513), Output::Bytes(vec![])), Err(CompareError::Name { .. })));
}

#[test]
fn an_output_that_one_side_lacks() {
    let (mut left, right) = (outputs("a", b"1"), outputs("a", b"1"));
    left.add("b", Output::Bytes(b"2".to_vec())).unwrap();
    for builds in [Builds { left: &left, right: &right }, Builds { left: &right, right: &left }] {
        let Verdict::Different(difference) = compare(&builds, &Limits::default(), &SystemClock::new()).unwrap() else {
            panic!()
        };
        assert_eq!(difference.causes(), [Cause::FileSet]);
        assert_eq!(difference.findings()[0].member.to_string(), "b");
    }
}

#[test]
fn time_in_every_header() {
    let files = hello("hi\n");
    let later = files.clone().map(|entry| Entry { mtime: entry.mtime + 86_400, ..entry });
    named("a.tar", &tar(&files), &tar(&later), &[Cause::Time]);
    named("a.gz", &gzip(b"hi", 1, 6), &gzip(b"hi", 2, 6), &[Cause::Time]);
    named("a.zip", &zip(&files, 6), &zip(&later, 6), &[Cause::Time]);
    named("a.a", &ar(&files), &ar(&later), &[Cause::Time]);
    named("a.deb", &deb(&files, 1), &deb(&files, 2), &[Cause::Time]);
    named("a.deb", &deb(&files, 1), &deb(&later, 1), &[Cause::Time]);
}

#[test]
fn time_in_text_and_data() {
    named("version.txt", b"built\n2026-11-22 03:49\n", b"built\n2026-11-23 04:00\n", &[Cause::Time]);
    named("data", b"\0\x01built Nov 22 2026\0\x02", b"\0\x01built Dec  1 2027\0\x02", &[Cause::Time]);
    let pyc = |time: u8| [b"\xcb\x0d\x0d\x0a\0\0\0\0\0\0\0".as_slice(), &[time], b"\x09\0\0\0\xe3\0"].concat();
    named("a.pyc", &pyc(1), &pyc(2), &[Cause::Time]);
}

#[test]
fn order_of_members_and_lines() {
    let files = hello("hi\n");
    let [first, second] = files.clone();
    let swapped = [second, first];
    named("a.tar", &tar(&files), &tar(&swapped), &[Cause::Order]);
    named("a.zip", &zip(&files, 6), &zip(&swapped, 6), &[Cause::Order]);
    named("a.a", &ar(&files), &ar(&swapped), &[Cause::Order]);
    named("list", b"a\nb\nc\n", b"c\na\nb\n", &[Cause::Order]);
}

#[test]
fn paths_in_text_and_data() {
    named("a.pc", b"prefix=/build/one/usr\n", b"prefix=/tmp/another/usr\n", &[Cause::Path]);
    named("data", b"\0\x01/build/one/main.c\0\x02", b"\0\x01/tmp/another/main.c\0\0\x02", &[Cause::Path]);
}

#[test]
fn compression_level_and_method() {
    let text: Vec<u8> = (0..20_000_u32).flat_map(|n| format!("{}\n", n * n % 977).into_bytes()).collect();
    let files = hello(str::from_utf8(&text).unwrap());
    let packed = tar(&files);
    named("a.gz", &gzip(&text, 1, 1), &gzip(&text, 1, 9), &[Cause::Compression]);
    named("a.zst", &zstd(&text, 1), &zstd(&text, 19), &[Cause::Compression]);
    named("a.xz", &xz(&text, 0), &xz(&text, 6), &[Cause::Compression]);
    named("a.zip", &zip(&files, 1), &zip(&files, 9), &[Cause::Compression]);
    named("a.zip", &zip(&files, 0), &zip(&files, 9), &[Cause::Compression]);
    named("blob", &xz(&packed, 6), &zstd(&packed, 3), &[Cause::Compression]);
    named("blob", &packed, &zstd(&packed, 3), &[Cause::Compression]);
    let (left, right) = ([Entry::new("data.tar.xz", &xz(&packed, 6))], [Entry::new("data.tar.zst", &zstd(&packed, 3))]);
    named("a.deb", &ar(&left), &ar(&right), &[Cause::Compression]);
}

#[test]
fn version_strings() {
    named("WHEEL", b"Generator: bdist_wheel (0.41.2)\n", b"Generator: bdist_wheel (0.42.0)\n", &[Cause::VersionString]);
    named("a", b"made by tool version 1.95\n", b"made by tool version 1.96\n", &[Cause::VersionString]);
}

#[test]
fn members_added_renamed_and_doubled() {
    let files = hello("hi\n");
    named("a.tar", &tar(&files), &tar(&files[..1]), &[Cause::FileSet]);
    named("a.zip", &zip(&files, 6), &zip(&files[1..], 6), &[Cause::FileSet]);
    named("a.a", &ar(&files), &ar(&files[..1]), &[Cause::FileSet]);
    let twice = [files[0].clone(), files[1].clone(), files[0].clone()];
    named("a.tar", &tar(&files), &tar(&twice), &[Cause::FileSet]);
    let mut shadowed = twice.clone();
    shadowed[2].bytes = b"evil\n".to_vec();
    named("a.tar", &tar(&twice), &tar(&shadowed), &[Cause::Content]);
}

#[test]
fn modes_owners_and_links() {
    let files = hello("hi\n");
    let with = |change: fn(&mut Entry)| {
        let mut files = files.clone();
        change(&mut files[0]);
        files
    };
    let (mode, owner) = (with(|entry| entry.mode = 0o4755), with(|entry| entry.uid = 1000));
    for changed in [&mode, &owner] {
        named("a.tar", &tar(&files), &tar(changed), &[Cause::Metadata]);
        named("a.a", &ar(&files), &ar(changed), &[Cause::Metadata]);
    }
    named("a.zip", &zip(&files, 6), &zip(&mode, 6), &[Cause::Metadata]);
    let (one, other) = (with(|entry| entry.link = Some("a.so.1")), with(|entry| entry.link = Some("a.so.2")));
    named("a.tar", &tar(&one), &tar(&other), &[Cause::Content]);
    // A new set-uid bit is never called incidental.
    assert_eq!(differ("a.tar", &tar(&files), &tar(&mode)).remark(), Remark::ContentDiffers);
}

#[test]
fn content_and_what_follows_from_it() {
    named("a.py", b"return True\n", b"return False\n", &[Cause::Content]);
    named("data", &[0, 1, 2, 3], &[0, 1, 2, 4], &[Cause::Content]);
    named("empty", b"", b"x", &[Cause::Content]);
    named("text", b"last line", b"last line\n", &[Cause::Content]);
    // The digests in RECORD follow from the member; alone, they are content.
    let left = wheel("pkg/a.py", b"built = '2026-11-22'\n", 1);
    let right = wheel("pkg/a.py", b"built = '2026-11-23'\n", 2);
    let difference = differ("a.whl", &left, &right);
    assert_eq!(difference.causes(), [Cause::Time], "{difference}");
    assert!(difference.findings().iter().any(|finding| finding.role == Role::Consequence));
    assert_eq!(difference.remark(), Remark::IncidentalOnly);
    let same = b"built = '2026-11-22'\n";
    named("a.whl", &wheel("pkg/a.py", same, 1), &wheel("pkg/a.py", same, 2), &[Cause::Content]);
}

#[test]
fn what_hides_outside_of_members_is_content() {
    let files = hello("hi\n");
    let with_tail = |mut bytes: Vec<u8>, tail: &[u8]| {
        bytes.extend_from_slice(tail);
        bytes
    };
    named("a.tar", &tar(&files), &with_tail(tar(&files), b"payload"), &[Cause::Content]);
    named("a.tar", &tar(&files), &with_tail(tar(&files), &[0; 512]), &[Cause::Metadata]);
    let prefixed = |tail: &[u8]| with_tail(zip(&files, 6), tail);
    assert!(!differ("a.zip", &prefixed(b""), &prefixed(b"payload")).causes().is_empty());
}

#[test]
fn several_causes_are_all_named() {
    let left = deb(&hello("built 2026-11-22 in /build/a\n"), 1);
    let right = deb(&hello("built 2026-11-23 in /build/b\n"), 2);
    assert_eq!(differ("a.deb", &left, &right).causes(), [Cause::Time, Cause::Path]);
}

/// Two packages with several differences, one of which a terminal would obey.
fn packages() -> Difference {
    let mut files = hello("built 2026-11-22 in /build/a\n");
    let left = deb(&files, 1);
    files[0].bytes = b"built 2026-11-23 in /tmp/\x1b[2Jb\n".to_vec();
    files[1].mode = 0o600;
    differ("hello_1_amd64.deb", &left, &deb(&files, 2))
}

#[test]
fn the_tree_is_for_people() {
    let difference = packages();
    insta::assert_snapshot!(difference.to_string(), @r##"
    different: time, path, metadata
    (what was built differs)
    hello_1_amd64.deb
      ▸ control.tar.xz
        ▸ md5sums
          follows: line 1
            - cbae634d2182cba9b85122754611a6df  usr/bin/hello\n
            + 41820ecdd1b689314cbdafb22bfb058d  usr/bin/hello\n
      ▸ data.tar.xz
        ▸ usr/bin/hello
          time: line 1
            - built 2026-11-22 in /build/a\n
            + built 2026-11-23 in /tmp/\u{1b}[2Jb\n
          path: line 1
            - built 2026-11-22 in /build/a\n
            + built 2026-11-23 in /tmp/\u{1b}[2Jb\n
        ▸ usr/share/doc/README
          metadata: mode
            - 0644
            + 0600
      ▸ debian-binary
        time: mtime (and 2 more like it)
          - 1
          + 2
    "##);
}

#[test]
fn the_summary_is_for_machines() {
    let difference = packages();
    insta::assert_snapshot!(serde_json::to_string_pretty(&difference.summary()).unwrap(), @r##"
    {
      "causes": [
        "time",
        "path",
        "metadata"
      ],
      "remark": "content-differs",
      "findings": [
        {
          "member": "hello_1_amd64.deb ▸ data.tar.xz ▸ usr/bin/hello",
          "cause": "time",
          "what": "line 1",
          "left": "built 2026-11-22 in /build/a\\n",
          "right": "built 2026-11-23 in /tmp/\\u{1b}[2Jb\\n"
        },
        {
          "member": "hello_1_amd64.deb ▸ data.tar.xz ▸ usr/bin/hello",
          "cause": "path",
          "what": "line 1",
          "left": "built 2026-11-22 in /build/a\\n",
          "right": "built 2026-11-23 in /tmp/\\u{1b}[2Jb\\n"
        },
        {
          "member": "hello_1_amd64.deb ▸ data.tar.xz ▸ usr/share/doc/README",
          "cause": "metadata",
          "what": "mode",
          "left": "0644",
          "right": "0600"
        },
        {
          "member": "hello_1_amd64.deb ▸ debian-binary",
          "cause": "time",
          "what": "mtime",
          "left": "1",
          "right": "2"
        }
      ],
      "left_out": 1
    }
    "##);
}

#[test]
fn a_match_lists_digests() {
    let packed = verdict("x", b"1", b"1", &Limits::default());
    insta::assert_snapshot!(packed.to_string(), @r##"
    identical: 1 outputs, byte for byte
      6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b            1 x
    "##);
    insta::assert_snapshot!(serde_json::to_string(&packed).unwrap(), @r#"{"verdict":"identical","outputs":{"x":{"sha256":"6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b","size":1}}}"#);
}

#[test]
fn a_summary_is_small_and_comes_back() {
    let noise = |seed: u32| -> Vec<Entry> {
        let text = |n: u32| format!("{}\n", (n * seed) % 7_919).into_bytes();
        (0..500).map(|n| Entry::new(&format!("a/very/long/name/of/a/folder/number/{n}/ü.txt"), &text(n))).collect()
    };
    let difference = differ("a.tar.gz", &gzip(&tar(&noise(31)), 1, 6), &gzip(&tar(&noise(37)), 2, 6));
    let bytes = serde_json::to_vec(&difference.summary()).unwrap();
    assert!(bytes.len() <= Summary::MAX_BYTES && bytes.len() > 3_000, "{}", bytes.len());
    let summary = Summary::parse(&bytes).unwrap();
    assert_eq!(summary, difference.summary());
    assert_eq!(summary.causes, [Cause::Time, Cause::Content]);
    let all = difference.findings().len() as u64 + difference.left_out();
    assert_eq!(summary.findings.len() as u64 + summary.left_out, all);
    assert!(Summary::parse(&[b' '; 5_000]).is_err());
    assert!(Summary::parse(br#"{"causes":[],"remark":"incidental-only","findings":[],"left_out":0}"#).is_err());
    assert!(
        Summary::parse(br#"{"causes":["time"],"remark":"incidental-only","findings":[],"left_out":0,"x":1}"#).is_err()
    );
}

#[test]
fn limits_stop_the_diagnosis_and_stay_a_difference() {
    let mut deep = (b"a".to_vec(), b"b".to_vec());
    for _ in 0..12 {
        deep = (gzip(&deep.0, 1, 6), gzip(&deep.1, 1, 6));
    }
    let bomb = |last: u8| {
        let mut bytes = vec![0; 40 << 20];
        bytes.push(last);
        gzip(&bytes, 1, 6)
    };
    let many = |end: &str| tar(&(0..50).map(|n| Entry::new(&format!("{n}{end}"), b"")).collect::<Vec<_>>());
    let cases = [
        (Stop::Depth, deep, Limits::default()),
        (Stop::Bytes, (bomb(1), bomb(2)), Limits { bytes: 1 << 20, ..Limits::default() }),
        (Stop::Bytes, (vec![1; 2_000], vec![2; 2_000]), Limits { bytes: 1_000, ..Limits::default() }),
        (Stop::Members, (many("a"), many("b")), Limits { members: 40, ..Limits::default() }),
        (Stop::Findings, (many("a"), many("b")), Limits { findings: 5, ..Limits::default() }),
        (Stop::Time, (many("a"), many("b")), Limits { time: Duration::ZERO, ..Limits::default() }),
    ];
    for (stop, (left, right), limits) in cases {
        let Verdict::Different(difference) = verdict("x", &left, &right, &limits) else { panic!("{stop:?}") };
        assert_eq!(difference.stops(), [stop], "{difference}");
        assert_eq!(difference.remark(), Remark::Undetermined);
        assert!(!difference.causes().is_empty());
    }
}

#[test]
fn the_documented_example_is_one() {
    let document = include_str!("../../../../docs/formats/compare.md");
    let example = document.split("```json\n").nth(1).unwrap().split("\n```").next().unwrap();
    let summary = Summary::parse(example.as_bytes()).unwrap();
    assert_eq!(serde_json::to_string(&summary).unwrap(), example);
    // Every cause is documented under its name.
    for cause in
        ["time", "order", "path", "compression", "build-id", "version-string", "file-set", "metadata", "content"]
    {
        let parsed: Cause = serde_json::from_value(cause.into()).unwrap();
        assert_eq!(parsed.name(), cause);
        assert!(document.contains(&format!("| `{cause}` |")), "{cause}");
    }
}
