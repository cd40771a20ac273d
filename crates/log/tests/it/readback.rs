//! What is stored is read again before the next checkpoint is signed.

use log::Step;

use crate::kit::{Bench, Fault, append, entry, is_fatal, size, submit};

/// What a log of five entries has that its next checkpoint stands on.
#[tokio::test]
async fn a_flipped_bit_is_refused_before_signing() {
    for object in ["tile/0/000.p/5", "tile/entries/000.p/5", "history/005", "checkpoint"] {
        for bit in [0, 8 * 30 + 3, 8 * 44 + 7] {
            let (bench, log, mut sequencer) = Bench::opened().await;
            append(&bench, &log, &mut sequencer, 0..5).await;
            bench.flip(object, bit);
            let ticket = log.submit(entry(5)).await.unwrap();
            let error = sequencer.step().await.unwrap_err();
            assert!(is_fatal(&error), "{object} {bit}: {error}");
            assert!(ticket.published().await.is_err());
            assert!(bench.object("history/006").is_none(), "{object} {bit}");
            drop((log, sequencer));
            assert!(is_fatal(&bench.open().await.err().unwrap()), "{object} {bit}");
            // The operator puts the object back, and the log goes on.
            bench.flip(object, bit);
            let (log, mut sequencer) = bench.open().await.unwrap();
            append(&bench, &log, &mut sequencer, 5..6).await;
            bench.check(6).await;
        }
    }
}

#[tokio::test]
async fn missing_objects_are_refused_too() {
    for object in ["tile/0/000.p/5", "tile/entries/000.p/5", "checkpoint"] {
        let (bench, log, mut sequencer) = Bench::opened().await;
        append(&bench, &log, &mut sequencer, 0..5).await;
        bench.memory.0.lock().unwrap().remove(object);
        log.submit(entry(5)).await.unwrap();
        assert!(is_fatal(&sequencer.step().await.unwrap_err()), "{object}");
        assert!(bench.object("history/006").is_none());
    }
}

/// A tile that is damaged on its way to the disk is signed for, but never published.
#[tokio::test]
async fn a_bit_that_flips_while_being_written_is_never_published() {
    for object in ["tile/0/000", "tile/entries/000", "tile/0/001.p/4", "tile/1/000.p/1", "tile/entries/001.p/4"] {
        let (bench, log, mut sequencer) = Bench::opened().await;
        append(&bench, &log, &mut sequencer, 0..250).await;
        let tickets = submit(&log, 250..260).await;
        // The last call before the objects are read back: the history's object.
        bench.faults.clear();
        let calls = {
            let (other, other_log, mut other_sequencer) = Bench::opened().await;
            append(&other, &other_log, &mut other_sequencer, 0..250).await;
            other.faults.clear();
            append(&other, &other_log, &mut other_sequencer, 250..260).await;
            other.faults.calls()
        };
        let at = calls.iter().position(|call| call.starts_with("put_all history/")).unwrap();
        bench.faults.fail(at, Fault::Applied, false);
        sequencer.step().await.unwrap_err();
        bench.faults.clear();
        bench.flip(object, 13);
        let error = sequencer.step().await.unwrap_err();
        assert!(is_fatal(&error), "{object}: {error}");
        assert_eq!(log.published().unwrap().checkpoint().size(), size(250));
        for ticket in tickets {
            assert!(ticket.published().await.is_err());
        }
        // It was signed, so it must be mended: the staged batch still has the right bytes.
        drop((log, sequencer));
        assert!(is_fatal(&bench.open().await.err().unwrap()), "{object}");
        bench.memory.0.lock().unwrap().remove(object);
        let (_log, mut sequencer) = bench.open().await.unwrap();
        assert_eq!(sequencer.step().await.unwrap(), Step::Published(size(260)));
        bench.check(260).await;
    }
}
