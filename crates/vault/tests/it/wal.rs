//! The write-ahead log, cut off and damaged at every byte.

use bytes::Bytes;
use stdx::durable;
use vault::{Closed, Wal, WalError};

fn objects(group: u8) -> Vec<Bytes> {
    (0..group).map(|number| Bytes::from(vec![group * 16 + number; 3 + usize::from(number)])).collect()
}

/// A file with groups of one, two and three objects; where each group ends, and its bytes.
fn written(folder: &std::path::Path) -> (Vec<u64>, Vec<u8>) {
    let (mut wal, left) = Wal::open(folder).unwrap();
    assert!(left.is_empty());
    let mark = 17;
    let mut ends = vec![mark];
    for group in 1..=3 {
        wal.append(&objects(group)).unwrap();
        ends.push(mark + wal.bytes());
    }
    let file = folder.join("0000000000000000.wal");
    (ends, std::fs::read(file).unwrap())
}

fn read(bytes: &[u8]) -> Result<Vec<Bytes>, WalError> {
    let folder = tempfile::tempdir().unwrap();
    durable::write(&folder.path().join("0000000000000007.wal"), bytes).unwrap();
    let (_, left) = Wal::open(folder.path()).unwrap();
    let [closed]: [Closed; 1] = left.try_into().unwrap();
    closed.objects()
}

#[test]
fn whatever_a_power_cut_leaves_is_a_beginning_of_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let (ends, bytes) = written(folder.path());
    assert_eq!(*ends.last().unwrap(), bytes.len() as u64);
    for length in 0..=bytes.len() {
        let groups = ends.iter().skip(1).filter(|end| **end <= length as u64).count() as u8;
        let expected: Vec<Bytes> = (1..=groups).flat_map(objects).collect();
        assert_eq!(read(&bytes[..length]).unwrap(), expected, "{length} bytes");
        // Some file systems give room before they give bytes.
        let zeros = [&bytes[..length], &[0; 100]].concat();
        if ends.contains(&(length as u64)) {
            assert_eq!(read(&zeros).unwrap(), expected, "{length} bytes and zeros");
        }
    }
}

#[test]
fn a_flipped_bit_in_what_was_acknowledged_is_damage_and_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let (ends, bytes) = written(folder.path());
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let outcome = read(&flipped);
        assert!(matches!(outcome, Err(WalError::Damaged { .. })), "byte {at}: {outcome:?}");
    }
    // Nor does a head that is gone hide what was acknowledged after it.
    let mut gone = bytes.clone();
    gone[ends[1] as usize..][..44].fill(0);
    assert!(matches!(read(&gone), Err(WalError::Damaged { .. })));
}

#[test]
fn sectors_of_the_last_group_that_were_never_written_are_an_end_and_no_damage() {
    let folder = tempfile::tempdir().unwrap();
    let (mut wal, _) = Wal::open(folder.path()).unwrap();
    let first = objects(3);
    wal.append(&first).unwrap();
    let end = 17 + wal.bytes() as usize;
    wal.append(&[Bytes::from(vec![7; 3000])]).unwrap();
    let bytes = std::fs::read(folder.path().join("0000000000000000.wal")).unwrap();
    assert_eq!(read(&bytes).unwrap().len(), 4);
    for sector in (512..bytes.len()).step_by(512) {
        let mut lost = bytes.clone();
        let until = bytes.len().min(sector + 512);
        lost[sector..until].fill(0);
        assert_eq!(read(&lost).unwrap(), first, "{sector}");
    }
    // All of it, its head too.
    let mut lost = bytes;
    lost[end..].fill(0);
    assert_eq!(read(&lost).unwrap(), first);
}

#[test]
fn one_process_writes_and_files_go_when_they_are_done_with() {
    let folder = tempfile::tempdir().unwrap();
    let (mut wal, _) = Wal::open(folder.path()).unwrap();
    assert!(matches!(Wal::open(folder.path()), Err(WalError::Busy(_))));
    wal.append(&objects(2)).unwrap();
    let closed = wal.turn().unwrap();
    assert_eq!((wal.bytes(), closed.objects().unwrap()), (0, objects(2)));
    closed.remove().unwrap();
    drop(wal);
    let (_, left) = Wal::open(folder.path()).unwrap();
    assert!(left.iter().all(|closed| closed.objects().unwrap().is_empty()));
}
