//! The set of known-bad files.

use reputation::{BuildError, ReputationSet, SetError, parse_list};
use stdx::Digest;

use crate::hashes;

/// `docs/formats/lookup.md`, the set of the hashes of `a`, `b` and `c`.
const GOLDEN: &str = include_str!("../golden/set.hex");

#[test]
fn the_format_is_these_bytes() {
    let three = || vec![Digest::of(b"a"), Digest::of(b"b"), Digest::of(b"c")];
    let set = ReputationSet::build(three()).unwrap();
    let written: String = set.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let golden: String = GOLDEN.split_whitespace().collect();
    assert_eq!(written, golden);
    assert!(three().iter().all(|hash| set.may_contain(hash)));
}

#[test]
fn two_builders_get_the_same_bytes_and_nothing_is_missed() {
    for count in [1, 2, 3, 4, 5, 7, 100, 1000, 4097, 20_000] {
        let one = hashes(0, count);
        let mut other = one.clone();
        other.reverse();
        other.extend_from_slice(&one);
        let set = ReputationSet::build(one.clone()).unwrap();
        let bytes = set.to_bytes();
        assert!(bytes == ReputationSet::build(other).unwrap().to_bytes(), "{count}");
        let read = ReputationSet::parse(&bytes).unwrap();
        assert!(read.to_bytes() == bytes, "{count}");
        assert_eq!(read.hashes(), count);
        assert!(one.iter().all(|hash| read.may_contain(hash)), "{count}");
    }
}

#[test]
fn one_in_65536_is_in_it_by_accident() {
    let set = ReputationSet::build(hashes(0, 10_000)).unwrap();
    // 200,000 tries at 2^-16 give 3 on average; 30 would be 15 standard deviations away.
    let accidents = hashes(1_000_000, 200_000).iter().filter(|hash| set.may_contain(hash)).count();
    assert!(accidents < 30, "{accidents}");
}

#[test]
fn a_set_of_nothing_is_refused() {
    assert_eq!(ReputationSet::build(Vec::new()).map(drop), Err(BuildError::Empty));
}

#[test]
fn a_file_whose_header_lies_is_refused() {
    let bytes = ReputationSet::build(hashes(0, 100)).unwrap().to_bytes();
    for cut in 0..bytes.len() {
        assert!(ReputationSet::parse(&bytes[..cut]).is_err(), "{cut}");
    }
    let with = |at: usize, byte: u8| {
        let mut changed = bytes.clone();
        changed[at] = byte;
        ReputationSet::parse(&changed).map(drop)
    };
    assert_eq!(with(0, b'C'), Err(SetError::Magic));
    // Hashes, segment length, segments' length, places: each byte of them counts.
    assert_eq!(with(50, 0xff), Err(SetError::Number("hashes")));
    assert_eq!(with(57, 3), Err(SetError::Number("segment length")));
    assert_eq!(with(54, 0x80), Err(SetError::Number("segment length")));
    assert_eq!(with(61, 1), Err(SetError::Number("segments' length")));
    assert_eq!(with(65, 1), Err(SetError::Number("places")));
    let longer = [&bytes[..], b"\0\0"].concat();
    assert_eq!(
        ReputationSet::parse(&longer).map(drop),
        Err(SetError::Length { has: longer.len(), needed: bytes.len() })
    );
}

/// Real malware, where it is at hand.
#[test]
fn a_real_feed_becomes_a_set() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/iocs/eset-malware-sha256.txt");
    let Ok(list) = std::fs::read(path) else { return };
    let hashes = parse_list(&list).unwrap();
    let bytes = ReputationSet::build(hashes.clone()).unwrap().to_bytes();
    let set = ReputationSet::parse(&bytes).unwrap();
    assert_eq!(set.hashes(), 5350);
    assert!(hashes.iter().all(|hash| set.may_contain(hash)));
    assert!(bytes.len() < 3 * hashes.len(), "{} bytes", bytes.len());
}
