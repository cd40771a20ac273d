//! Containers that were cut short or altered.

use detection::Unpacking;
use proptest::prelude::{Strategy, any, prop};
use proptest::test_runner::{Config, TestRunner};

use super::samples::{CONTENT, samples};
use super::{take_apart, take_apart_within};

/// Cut anywhere, a container gives its content, or says that something is missing, or is none any more.
#[test]
fn cut_at_every_length() {
    for sample in samples() {
        let step = sample.bytes.len().div_ceil(500);
        for length in (0..sample.bytes.len()).step_by(step) {
            let seen = take_apart(&sample.bytes[..length]);
            if !sample.is_exact || seen.place_of(CONTENT).is_some() || seen.members.is_empty() {
                continue;
            }
            assert!(!seen.notes.is_empty(), "{} cut at {length} says nothing: {seen:?}", sample.name);
        }
    }
}

/// The same of ClamAV's files, for the formats that nobody makes here.
#[test]
fn foreign_files_cut_and_altered() {
    let names =
        ["clam.7z", "clam.arj", "clam.cab", "clam.d64.zip", "clam.exe.binhex", "clam.bin-be.cpio", "clam.bin-le.cpio"];
    for name in names {
        let bytes = std::fs::read(format!("/usr/share/clamav-testfiles/{name}")).unwrap();
        for length in 0..bytes.len() {
            take_apart(&bytes[..length]);
            let mut altered = bytes.clone();
            for mask in [1, 0x80, 0xff] {
                altered[length] ^= mask;
                take_apart(&altered);
            }
        }
    }
    for name in ["clam.ole.doc", "clam.ppt", "clam.exe.rtf", "clam.tnef", "clam.pdf"] {
        let bytes = std::fs::read(format!("/usr/share/clamav-testfiles/{name}")).unwrap();
        for place in (0..bytes.len()).step_by(bytes.len() / 50) {
            take_apart(&bytes[..place]);
            let mut altered = bytes.clone();
            altered[place] ^= 0xff;
            take_apart(&altered);
        }
    }
}

/// Altered bytes anywhere, mostly in headers: no panic, and every bound holds.
#[test]
fn altered_bytes() {
    let limits =
        Unpacking { depth: 6, members: 500, member_bytes: 1 << 20, free_bytes: 4 << 20, ..Unpacking::default() };
    let samples = samples();
    let edits = prop::collection::vec((any::<u32>(), any::<u8>()), 1..8);
    let strategy = (0..samples.len(), edits).prop_map(|(sample, edits)| {
        let mut bytes = samples[sample].bytes.clone();
        for (place, byte) in edits {
            let length = bytes.len() as u32;
            // Half of them among the first bytes, where headers are.
            let place = if place % 2 == 0 { place / 2 % length.min(64) } else { place / 2 % length };
            bytes[place as usize] = byte;
        }
        bytes
    });
    let mut runner = TestRunner::new(Config { cases: 1_000, failure_persistence: None, ..Config::default() });
    runner
        .run(&strategy, |bytes| {
            let seen = take_apart_within(&bytes, &limits);
            assert!(seen.totals.members <= limits.members && seen.totals.depth <= limits.depth);
            Ok(())
        })
        .unwrap();
}
