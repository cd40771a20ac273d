//! Every bit of every kind of object counts.

use log::{Step, fsck};
use tlog::{Checkpoint, Hash, SignedCheckpoint, TreeHead, TreeSize};

use crate::kit::{Bench, Fault, append, submit};

/// A log with full and partial tiles on three levels, several published sizes, and a batch that
/// is signed but not applied.
async fn large() -> Bench {
    large_from(0).await
}

/// The same, with entries from this number on.
async fn large_from(first: u64) -> Bench {
    let (bench, log, mut sequencer) = Bench::opened().await;
    for range in [0..1, 1..255, 255..256, 256..600, 600..602] {
        append(&bench, &log, &mut sequencer, first + range.start..first + range.end).await;
    }
    bench
}

fn put(bench: &Bench, key: &str, bytes: &bytes::Bytes) {
    bench.memory.0.lock().unwrap().insert(key.to_owned(), bytes.clone());
}

/// What is named.
async fn damaged(bench: &Bench) -> Vec<String> {
    let report = fsck(&bench.fsck_parts()).await.unwrap();
    report.damages.iter().map(|damage| damage.key.to_string()).collect()
}

#[tokio::test]
async fn every_flipped_bit_is_found_by_its_object() {
    let bench = large().await;
    bench.check(602).await;
    let kinds = bench.keys();
    for kind in ["checkpoint", "history/600", "tile/0/000", "tile/0/002.p/90", "tile/1/000.p/2", "tile/entries/001"] {
        assert!(kinds.iter().any(|key| key == kind), "{kind} is among {kinds:?}");
    }
    for key in kinds {
        let bits = bench.object(&key).unwrap().len() * 8;
        // A prime step: over all objects, every place in a byte and every kind of field.
        for bit in (0..bits).step_by(if bits > 10_000 { 2477 } else { 61 }).chain([bits - 1]) {
            bench.flip(&key, bit);
            let report = fsck(&bench.fsck_parts()).await.unwrap();
            assert!(report.damages.iter().any(|damage| damage.key.as_str() == key), "{key} {bit}: {report:?}");
            bench.flip(&key, bit);
        }
    }
    bench.check(602).await;
}

#[tokio::test]
async fn only_the_damaged_object_is_blamed() {
    let bench = large().await;
    for key in [
        "tile/0/000",
        "tile/0/001",
        "tile/0/002.p/90",
        "tile/entries/000",
        "tile/entries/001",
        "tile/entries/002.p/90",
        "history/600",
    ] {
        bench.flip(key, 777);
        assert_eq!(damaged(&bench).await, [key]);
        bench.flip(key, 777);
    }
}

#[tokio::test]
async fn missing_and_superfluous_objects_are_found() {
    let bench = large().await;
    for key in bench.keys() {
        // Checkpoints of the past are not numbered, so one that is gone can't be missed, and neither
        // can a partial tile that only those before the tile at the edge needed.
        let unnumbered = key.starts_with("history/") && key != "history/602" || key == "tile/1/000.p/1";
        if key == "checkpoint" || unnumbered {
            continue;
        }
        let bytes = bench.memory.0.lock().unwrap().remove(&key).unwrap();
        let report = fsck(&bench.fsck_parts()).await.unwrap();
        assert!(report.damages.iter().any(|damage| damage.key.as_str() == key), "{key}: {report:?}");
        bench.memory.0.lock().unwrap().insert(key, bytes);
    }
    for key in [
        "tile/0/003",
        "tile/0/002.p/91",
        "tile/2/000.p/1",
        "tile/0/004.p/1",
        "tile/entries/003",
        "other",
        "history/x000/001",
    ] {
        bench.memory.0.lock().unwrap().insert(key.to_owned(), bytes::Bytes::from(vec![1; 32]));
        let report = fsck(&bench.fsck_parts()).await.unwrap();
        assert!(report.damages.iter().any(|damage| damage.key.as_str() == key), "{key}: {report:?}");
        bench.memory.0.lock().unwrap().remove(key);
    }
    bench.check(602).await;
}

#[tokio::test]
async fn the_lock_is_checked_as_well() {
    let bench = large().await;
    let (name, (version, bytes)) = bench.locks.0.lock().unwrap().pop_first().unwrap();
    for bit in (0..bytes.len() * 8).step_by(37) {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        bench.locks.0.lock().unwrap().insert(name.clone(), (version, flipped.into()));
        let report = fsck(&bench.fsck_parts()).await.unwrap();
        assert!(report.damages.iter().any(|damage| damage.key.as_str() == name), "{bit}: {report:?}");
    }
    // The size before is not signed, but a tree can't have shrunk.
    let mut shrunk = bytes.to_vec();
    shrunk["clerestory-log/2\nold 60".len()] = b'3';
    assert!(shrunk.starts_with(b"clerestory-log/2\nold 603 "));
    bench.locks.0.lock().unwrap().insert(name.clone(), (version, shrunk.into()));
    let report = fsck(&bench.fsck_parts()).await.unwrap();
    assert!(report.damages.iter().any(|damage| damage.problem == "has a tree that shrinks"), "{report:?}");
    bench.locks.0.lock().unwrap().clear();
    let report = fsck(&bench.fsck_parts()).await.unwrap();
    assert_eq!(report.damages.len(), 1, "{report:?}");
}

/// A log that died right after it signed the entries 250 to 259.
async fn died_after_the_swap(locked_bytes: usize) -> Bench {
    let mut swap = None;
    loop {
        let (mut bench, log, mut sequencer) = Bench::opened().await;
        append(&bench, &log, &mut sequencer, 0..250).await;
        drop((log, sequencer));
        bench.limits.locked_bytes = locked_bytes;
        let (log, mut sequencer) = bench.open().await.unwrap();
        while sequencer.step().await.unwrap() != Step::Idle {}
        bench.faults.clear();
        if let Some(swap) = swap {
            bench.faults.fail(swap + 1, Fault::NotApplied, true);
        }
        let _tickets = submit(&log, 250..260).await;
        let outcome = sequencer.step().await;
        if swap.is_some() {
            outcome.unwrap_err();
            bench.faults.clear();
            return bench;
        }
        swap = bench.faults.calls().iter().position(|call| call.starts_with("swap "));
    }
}

#[tokio::test]
async fn a_batch_in_the_lock_is_no_damage_unless_it_is_damaged() {
    let bench = died_after_the_swap(usize::MAX).await;
    bench.check(250).await;
    let (name, (version, bytes)) = bench.locks.0.lock().unwrap().pop_first().unwrap();
    for bit in (0..bytes.len() * 8).step_by(41) {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        bench.locks.0.lock().unwrap().insert(name.clone(), (version, flipped.into()));
        let report = fsck(&bench.fsck_parts()).await.unwrap();
        assert!(report.damages.iter().any(|damage| damage.key.as_str() == name), "{bit}: {report:?}");
        assert!(bench.open().await.is_err(), "{bit}");
    }
    bench.locks.0.lock().unwrap().insert(name, (version + 1, bytes));
    let (_log, mut sequencer) = bench.open().await.unwrap();
    sequencer.step().await.unwrap();
    bench.check(260).await;
}

#[tokio::test]
async fn a_staged_batch_is_no_damage_unless_it_is_damaged() {
    let bench = died_after_the_swap(0).await;
    bench.check(250).await;
    let before = bench.backup();
    let staged: Vec<_> = bench.keys().into_iter().filter(|key| key.starts_with("staged/")).collect();
    assert_eq!(staged.len(), 2, "the end of one bundle, and the beginning of the next");
    for key in &staged {
        for bit in (0..bench.object(key).unwrap().len() * 8).step_by(997) {
            bench.flip(key, bit);
            let report = fsck(&bench.fsck_parts()).await.unwrap();
            assert!(report.damages.iter().any(|damage| key.starts_with(damage.key.as_str())), "{bit}: {report:?}");
            assert!(bench.open().await.is_err(), "{bit}");
            bench.flip(key, bit);
        }
        let bytes = bench.memory.0.lock().unwrap().remove(key).unwrap();
        let report = fsck(&bench.fsck_parts()).await.unwrap();
        assert!(report.damages.iter().any(|damage| damage.key.as_str() == key), "{report:?}");
        assert!(bench.open().await.is_err());
        bench.memory.0.lock().unwrap().insert(key.clone(), bytes);
    }
    let (log, mut sequencer) = bench.open().await.unwrap();
    sequencer.step().await.unwrap();
    bench.check(260).await;
    // What is on its way counts as written only for as long as the lock says so.
    append(&bench, &log, &mut sequencer, 260..261).await;
    staged.iter().for_each(|key| put(&bench, key, &before.0[key]));
    bench.check(261).await;
    bench.memory.0.lock().unwrap().remove("tile/0/000");
    assert_eq!(damaged(&bench).await, ["tile/0/000"]);
}

/// Objects that are as somebody wrote them, and not where they belong.
#[tokio::test]
async fn good_objects_in_wrong_places_are_found() {
    let bench = large().await;
    let (other, keys) = (large_from(1000).await, bench.keys());
    for (at, key) in keys.iter().enumerate() {
        let good = bench.object(key).unwrap();
        let next = &keys[(at + 1) % keys.len()];
        let (neighbour, foreign) = (bench.object(next).unwrap(), other.object(key).unwrap());
        // Twice, and of another log with the same sizes.
        for wrong in [&neighbour, &foreign] {
            assert!(*wrong != good, "{key}");
            put(&bench, key, wrong);
            assert!(damaged(&bench).await.contains(key), "{key}");
        }
        // In each other's place.
        put(&bench, next, &good);
        put(&bench, key, &neighbour);
        let found = damaged(&bench).await;
        assert!(found.contains(key) && found.contains(next), "{key} and {next}: {found:?}");
        put(&bench, next, &neighbour);
        // The same in other words: a line more, another end of lines, something behind it.
        let crlf = good.iter().flat_map(|byte| if *byte == b'\n' { vec![b'\r', b'\n'] } else { vec![*byte] });
        for wrong in [[&good[..], b"\n"].concat(), crlf.collect(), [&good[..], &[0; 32]].concat()] {
            if wrong != good {
                put(&bench, key, &wrong.into());
                assert!(damaged(&bench).await.contains(key), "{key}");
            }
        }
        put(&bench, key, &good);
    }
    bench.check(602).await;
}

/// A checkpoint that the log's key did sign, and that its history can't have.
#[tokio::test]
async fn a_signed_lie_is_found() {
    let bench = large().await;
    let sign = |size: u64, root: Hash| {
        let head = TreeHead { size: TreeSize::new(size), root };
        let checkpoint = Checkpoint::new(crate::kit::ORIGIN.parse().unwrap(), head).unwrap();
        bytes::Bytes::from(SignedCheckpoint::sign(checkpoint, &bench.signer).unwrap().to_string())
    };
    let another = Hash::from_bytes([7; 32]);
    let lies = [
        // Another tree of that size.
        ("history/256", sign(256, another)),
        // The right tree, of another size than the name says.
        ("history/256", bench.object("history/600").unwrap()),
        // With more signatures than the log made by itself.
        ("history/602", bench.object("checkpoint").unwrap()),
        // Newer than anything that was signed.
        ("history/603", sign(603, another)),
    ];
    for (key, lie) in lies {
        let good = bench.object(key);
        put(&bench, key, &lie);
        assert_eq!(damaged(&bench).await, [key], "{lie:?}");
        match good {
            Some(good) => put(&bench, key, &good),
            None => drop(bench.memory.0.lock().unwrap().remove(key)),
        }
    }
    bench.check(602).await;
}

/// An older copy of the lock contradicts what was signed after it. An older checkpoint is what a
/// crash before publication leaves, so it is nothing that fsck can know: the next start publishes
/// what the lock says, and whoever saw more meanwhile says that the log has shrunk.
#[tokio::test]
async fn what_was_rolled_back_is_found_or_goes_on() {
    let (bench, log, mut sequencer) = Bench::opened().await;
    append(&bench, &log, &mut sequencer, 0..300).await;
    let old = bench.backup();
    append(&bench, &log, &mut sequencer, 300..310).await;
    drop((log, sequencer));
    let new = bench.backup();
    *bench.locks.0.lock().unwrap() = old.1;
    assert!(damaged(&bench).await.contains(&"history/310".to_owned()));
    bench.restore(&new);
    put(&bench, "checkpoint", &old.0["checkpoint"]);
    assert_eq!(damaged(&bench).await, Vec::<String>::new());
    let (_log, mut sequencer) = bench.open().await.unwrap();
    sequencer.step().await.unwrap();
    bench.check(310).await;
}
