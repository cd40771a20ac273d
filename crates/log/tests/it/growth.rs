//! Growing: batches of every size, across tile boundaries, with duplicates and restarts.

use bytes::Bytes;
use log::{Error, Log, Step};
use tlog::{EntryIndex, leaf_hash};

use crate::kit::{Bench, append, entry, size, submit};

#[tokio::test]
async fn every_receipt_verifies_under_the_policy() {
    let (bench, log, mut sequencer) = Bench::opened().await;
    let mut next = 0;
    for step in [1, 2, 250, 1, 1, 1, 1, 255, 256, 257, 512, 3] {
        append(&bench, &log, &mut sequencer, next..next + step).await;
        next += step;
        let entries = bench.check(next).await;
        assert!(entries.iter().zip(0..).all(|(found, number)| *found == entry(number)));
    }
    assert_eq!(sequencer.step().await.unwrap(), Step::Idle);
    for index in [0, 1, 255, 256, next - 1] {
        let proof = log.proof(EntryIndex::new(index)).await.unwrap();
        proof.verify(&leaf_hash(&entry(index)), &bench.policy).unwrap();
    }
    assert!(log.proof(EntryIndex::new(next)).await.is_err());
}

#[tokio::test]
async fn across_two_levels_of_tiles() {
    let (bench, log, mut sequencer) = Bench::opened().await;
    let mut next = 0;
    for step in [16_000, 16_000, 16_000, 16_000, 1535, 1, 1, 300] {
        let tickets = submit(&log, next..next + step).await;
        assert_eq!(sequencer.step().await.unwrap(), Step::Published(size(next + step)));
        for (ticket, number) in tickets.into_iter().zip(next..).step_by(97) {
            ticket.published().await.unwrap().proof().verify(&leaf_hash(&entry(number)), &bench.policy).unwrap();
        }
        next += step;
    }
    bench.check(65_837).await;
    assert!(bench.object("tile/2/000.p/1").is_some());
    drop(sequencer);
    let (log, mut sequencer) = bench.open().await.unwrap();
    append(&bench, &log, &mut sequencer, next..next + 5).await;
    let again = log.append(entry(12_345)).await.unwrap();
    assert_eq!(again.index().get(), 12_345);
    bench.check(next + 5).await;
}

#[tokio::test]
async fn a_restart_goes_on_where_the_log_stood() {
    let (bench, mut log, mut sequencer) = Bench::opened().await;
    let mut next = 0;
    for step in [1, 254, 1, 1, 255, 1, 700] {
        append(&bench, &log, &mut sequencer, next..next + step).await;
        next += step;
        drop((log, sequencer));
        (log, sequencer) = bench.open().await.unwrap();
        assert_eq!(log.published().unwrap().checkpoint().size(), size(next));
        bench.check(next).await;
        assert_eq!(sequencer.step().await.unwrap(), Step::Published(size(next)), "fresh cosignatures");
        assert_eq!(sequencer.step().await.unwrap(), Step::Idle, "all was finished");
        bench.check(next).await;
    }
}

#[tokio::test]
async fn an_entry_is_in_the_log_once() {
    let (bench, log, mut sequencer) = Bench::opened().await;
    // Twice in the pool.
    let (one, two) = (log.submit(entry(1)).await.unwrap(), log.submit(entry(1)).await.unwrap());
    sequencer.step().await.unwrap();
    assert_eq!(one.published().await.unwrap().index(), two.published().await.unwrap().index());
    bench.check(1).await;
    // Published, in this process and after a restart.
    append(&bench, &log, &mut sequencer, 2..400).await;
    let receipt = log.append(entry(1)).await.unwrap();
    assert_eq!(receipt.index().get(), 0);
    receipt.proof().verify(&leaf_hash(&entry(1)), &bench.policy).unwrap();
    drop((log, sequencer));
    let (log, mut sequencer) = bench.open().await.unwrap();
    assert_eq!(log.append(entry(399)).await.unwrap().index().get(), 398);
    assert_eq!(sequencer.step().await.unwrap(), Step::Published(size(399)), "fresh cosignatures");
    assert_eq!(sequencer.step().await.unwrap(), Step::Idle);
    bench.check(399).await;
}

#[tokio::test]
async fn entries_have_their_limits() {
    let (bench, log, mut sequencer) = Bench::opened().await;
    for bytes in [0, 65_536] {
        let error = log.append(Bytes::from(vec![7; bytes])).await.unwrap_err();
        assert!(matches!(error, Error::EntrySize(found) if found == bytes), "{error}");
    }
    let tickets = [log.submit(Bytes::from(vec![7; 65_535])).await.unwrap(), log.submit(entry(1)).await.unwrap()];
    sequencer.step().await.unwrap();
    for ticket in tickets {
        ticket.published().await.unwrap();
    }
    bench.check(2).await;
}

#[tokio::test]
async fn partial_tiles_are_collected_once_the_full_one_is_published() {
    let (bench, log, mut sequencer) = Bench::opened().await;
    let partial = |bench: &Bench| bench.keys().into_iter().filter(|key| key.contains(".p/")).collect::<Vec<_>>();
    for number in 0..5 {
        append(&bench, &log, &mut sequencer, number..number + 1).await;
    }
    assert_eq!(partial(&bench).len(), 10, "each published size keeps its tile and bundle");
    append(&bench, &log, &mut sequencer, 5..255).await;
    append(&bench, &log, &mut sequencer, 255..256).await;
    assert_eq!(partial(&bench), ["tile/1/000.p/1"]);
    append(&bench, &log, &mut sequencer, 256..300).await;
    assert_eq!(partial(&bench), ["tile/0/001.p/44", "tile/1/000.p/1", "tile/entries/001.p/44"]);
    assert!(!bench.keys().iter().any(|key| key.starts_with("staged/")));
    bench.check(300).await;
}

#[tokio::test]
async fn history_before_the_tile_at_the_edge_is_collected() {
    let (bench, log, mut sequencer) = Bench::opened().await;
    let history =
        |bench: &Bench| bench.keys().into_iter().filter(|key| key.starts_with("history/")).collect::<Vec<_>>();
    for number in 0..4 {
        append(&bench, &log, &mut sequencer, number..number + 1).await;
    }
    assert_eq!(history(&bench).len(), 5, "as long as there are partial tiles of their sizes");
    append(&bench, &log, &mut sequencer, 4..256).await;
    assert_eq!(history(&bench), ["history/256"]);
    append(&bench, &log, &mut sequencer, 256..300).await;
    append(&bench, &log, &mut sequencer, 300..1200).await;
    assert_eq!(history(&bench), ["history/x001/200"]);
    // What a crash, or a version that kept them all, has left goes with the next full tile.
    bench.memory.0.lock().unwrap().insert("history/300".to_owned(), bytes::Bytes::new());
    drop((log, sequencer));
    let (log, mut sequencer) = bench.open().await.unwrap();
    append(&bench, &log, &mut sequencer, 1200..1201).await;
    assert_eq!(history(&bench), ["history/x001/200", "history/x001/201"]);
    bench.check(1201).await;
}

#[tokio::test]
async fn a_log_is_made_once_and_never_implicitly() {
    let bench = Bench::new().await;
    assert!(matches!(Log::create(&bench.parts()).await, Err(Error::Existence { .. })));
    let empty = Bench { memory: Default::default(), locks: Default::default(), ..Bench::new().await };
    assert!(matches!(empty.open().await, Err(Error::Existence { .. })));
    // Objects without a lock are a lock store that was lost, not a new log.
    let (lost, log, mut sequencer) = Bench::opened().await;
    append(&lost, &log, &mut sequencer, 0..3).await;
    lost.locks.0.lock().unwrap().clear();
    assert!(matches!(Log::create(&lost.parts()).await, Err(Error::Existence { .. })));
    assert!(matches!(lost.open().await, Err(Error::Existence { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_and_a_running_sequencer() {
    let (bench, log, sequencer) = Bench::opened().await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(sequencer.run(async move {
        let _ = stopped.await;
    }));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..64_u64 {
        let (log, policy) = (log.clone(), bench.policy.clone());
        writers.spawn(async move {
            for number in 0..8 {
                // Every entry is sent by two writers.
                let text = entry(writer / 2 * 8 + number);
                let receipt = log.append(text.clone()).await.unwrap();
                receipt.proof().verify(&leaf_hash(&text), &policy).unwrap();
            }
        });
    }
    writers.join_all().await;
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
    assert!(matches!(log.append(entry(99_999)).await, Err(Error::Stopped(_) | Error::Closed)));
    let mut entries = bench.check(256).await;
    entries.sort();
    entries.dedup();
    assert_eq!(entries.len(), 256);
}
