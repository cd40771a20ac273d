//! The next batch is staged while one is published: whatever fails in between, what is signed is
//! in order, and nothing is lost or in the log twice.

use log::{Class, Error, Limits, Log, Sequencer, Step, WitnessError};

use crate::kit::{Bench, Fault, entry, size, submit};

const BATCH: u64 = 4;
/// Two full batches and what is left of a third.
const ENTRIES: u64 = 10;

async fn opened() -> (Bench, Log, Sequencer) {
    let mut bench = Bench::new().await;
    bench.limits = Limits { batch_entries: BATCH as usize, locked_bytes: 0, ..bench.limits };
    let (log, mut sequencer) = bench.open().await.unwrap();
    assert_eq!(sequencer.step().await.unwrap(), Step::Published(size(0)));
    bench.faults.clear();
    (bench, log, sequencer)
}

fn staged(bench: &Bench) -> Vec<String> {
    bench.keys().into_iter().filter(|key| key.starts_with("staged/")).collect()
}

#[tokio::test]
async fn a_full_batch_is_staged_while_the_one_before_is_published() {
    let (bench, log, mut sequencer) = opened().await;
    let tickets = submit(&log, 0..ENTRIES).await;
    assert_eq!(sequencer.step().await.unwrap(), Step::Published(size(BATCH)));
    // One is ahead, and it is only staged: nothing of it is in the tree, in the history or signed.
    assert_eq!(staged(&bench).len(), 1);
    assert!(staged(&bench)[0].starts_with("staged/4-8-"));
    assert!(bench.object("history/008").is_none() && bench.object("tile/0/000.p/8").is_none());
    bench.check(BATCH).await;
    let calls = bench.faults.calls();
    let at = |start: &str| calls.iter().position(|call| call.starts_with(start)).unwrap();
    assert!(at("put_all staged/4-8-") < at("replace checkpoint"), "{calls:#?}");
    assert_eq!(sequencer.step().await.unwrap(), Step::Published(size(2 * BATCH)));
    // The third is not full, and may still grow.
    assert_eq!(staged(&bench), Vec::<String>::new());
    let late = log.submit(entry(ENTRIES)).await.unwrap();
    assert_eq!(sequencer.step().await.unwrap(), Step::Published(size(ENTRIES + 1)));
    for (ticket, number) in tickets.into_iter().chain([late]).zip(0..) {
        assert_eq!(ticket.published().await.unwrap().index().get(), number);
    }
    bench.check(ENTRIES + 1).await;
}

#[tokio::test]
async fn a_batch_ahead_waits_for_the_quorum_of_the_one_before() {
    let (bench, log, mut sequencer) = opened().await;
    let mut tickets = submit(&log, 0..ENTRIES).await;
    for witness in &bench.witnesses[..2] {
        witness.scripted.lock().unwrap().extend((0..3).map(|_| WitnessError::Refused("no".to_owned())));
    }
    for _ in 0..3 {
        let error = sequencer.step().await.unwrap_err();
        assert!(matches!(error, Error::NoQuorum { cosigned: 2, .. }), "{error}");
        assert!(bench.object("history/008").is_none(), "nothing is signed on top of what is not published");
        bench.check(0).await;
    }
    assert_eq!(tickets[3].sequenced().await.unwrap().get(), 3);
    // A crash loses what was only staged; its writers come back.
    drop((log, sequencer));
    assert!(tickets.pop().unwrap().published().await.is_err());
    let (log, mut sequencer) = bench.open().await.unwrap();
    assert_eq!(staged(&bench), Vec::<String>::new(), "what the lock names is in its place");
    assert_eq!(sequencer.step().await.unwrap(), Step::Published(size(BATCH)));
    let tickets = submit(&log, 0..ENTRIES).await;
    while sequencer.step().await.unwrap() != Step::Idle {}
    for (ticket, number) in tickets.into_iter().zip(0..) {
        assert_eq!(ticket.published().await.unwrap().index().get(), number);
    }
    bench.check(ENTRIES).await;
}

/// Steps until all is published; opens the log again when it has stopped.
async fn settle(bench: &Bench, mut log: Log, mut sequencer: Sequencer) -> (Log, Sequencer) {
    for _ in 0..20 {
        match sequencer.step().await {
            Ok(Step::Idle) => return (log, sequencer),
            Ok(Step::Published(_)) => {}
            Err(error) if error.class() == Class::Unavailable => {}
            Err(_) => {
                drop((log, sequencer));
                bench.faults.clear();
                (log, sequencer) = bench.open().await.unwrap();
            }
        }
    }
    panic!("the log doesn't settle");
}

async fn run(fail: Option<(usize, Fault, bool)>) -> usize {
    let (bench, log, mut sequencer) = opened().await;
    if let Some((number, fault, crash)) = fail {
        bench.faults.fail(number, fault, crash);
    }
    let tickets = submit(&log, 0..ENTRIES).await;
    // All three batches, or as far as the fault lets them come.
    for _ in 0..3 {
        if sequencer.step().await.is_err() {
            break;
        }
    }
    let calls = bench.faults.calls().len();
    let (log, sequencer) = if fail.is_some_and(|(_, _, crash)| crash) {
        drop((log, sequencer));
        bench.faults.clear();
        let (log, sequencer) = bench.open().await.unwrap();
        settle(&bench, log, sequencer).await
    } else {
        settle(&bench, log, sequencer).await
    };
    bench.faults.clear();
    let published = log.published().unwrap().checkpoint().size().get();
    let entries = bench.check(published).await;
    assert!(published.is_multiple_of(BATCH) || published == ENTRIES, "whole batches: {published}");
    drop(sequencer);
    for (ticket, number) in tickets.into_iter().zip(0..) {
        if let Ok(receipt) = ticket.published().await {
            assert_eq!(entries[usize::try_from(receipt.index().get()).unwrap()], entry(number));
        }
    }
    let (log, sequencer) = bench.open().await.unwrap();
    let tickets = submit(&log, published..ENTRIES).await;
    let (_log, _sequencer) = settle(&bench, log, sequencer).await;
    for (ticket, number) in tickets.into_iter().zip(published..) {
        assert_eq!(ticket.published().await.unwrap().index().get(), number);
    }
    bench.check(ENTRIES).await;
    assert_eq!(staged(&bench), Vec::<String>::new());
    calls
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_failed_with_a_batch_ahead() {
    let calls = run(None).await;
    let mut runs = tokio::task::JoinSet::new();
    for number in 0..calls {
        for fault in [Fault::NotApplied, Fault::Applied] {
            for crash in [true, false] {
                runs.spawn(run(Some((number, fault, crash))));
            }
        }
    }
    runs.join_all().await;
}
