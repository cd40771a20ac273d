//! Each call to the stores failed once, "not applied" and "applied", in one process that goes on
//! and in one that dies: what was acknowledged stays, nothing is in the log twice, and the log
//! always comes back.

use log::{Class, Limits, Log, Sequencer, Step};

use crate::kit::{Bench, Fault, append, entry, size, submit};

const BEFORE: u64 = 250;
const AFTER: u64 = 260;

/// Steps until there is nothing to do; opens the log again when it has stopped.
async fn settle(bench: &Bench, log: Log, mut sequencer: Sequencer) -> (Log, Sequencer) {
    for _ in 0..10 {
        match sequencer.step().await {
            Ok(Step::Idle) => return (log, sequencer),
            Ok(Step::Published(_)) => {}
            Err(error) if error.class() == Class::Unavailable => {}
            Err(_) => return reopen(bench, (log, sequencer)).await,
        }
    }
    panic!("the log doesn't settle");
}

async fn reopen(bench: &Bench, old: (Log, Sequencer)) -> (Log, Sequencer) {
    drop(old);
    bench.faults.clear();
    let (log, mut sequencer) = bench.open().await.unwrap();
    while sequencer.step().await.unwrap() != Step::Idle {}
    (log, sequencer)
}

/// Gives the calls that were made, so that each can be failed. A batch of so many bytes goes into
/// the lock.
async fn run(locked_bytes: usize, fail: Option<(usize, Fault, bool)>) -> Vec<String> {
    let mut bench = Bench::new().await;
    bench.limits = Limits { locked_bytes, ..bench.limits };
    let (log, mut sequencer) = bench.open().await.unwrap();
    sequencer.step().await.unwrap();
    append(&bench, &log, &mut sequencer, 0..BEFORE).await;
    bench.faults.clear();
    if let Some((number, fault, crash)) = fail {
        bench.faults.fail(number, fault, crash);
    }
    let tickets = submit(&log, BEFORE..AFTER).await;
    let crashed = sequencer.step().await.is_err() && fail.is_some_and(|(_, _, crash)| crash);
    let calls = bench.faults.calls();
    let (log, sequencer) =
        if crashed { reopen(&bench, (log, sequencer)).await } else { settle(&bench, log, sequencer).await };
    bench.faults.clear();
    // What got a receipt before stands where the receipt says.
    let size_now = log.published().unwrap().checkpoint().size().get();
    let entries = bench.check(size_now).await;
    assert!(size_now == BEFORE || size_now == AFTER, "a batch is in the log wholly or not at all");
    drop(sequencer);
    for (ticket, number) in tickets.into_iter().zip(BEFORE..) {
        if let Ok(receipt) = ticket.published().await {
            assert_eq!(entries[usize::try_from(receipt.index().get()).unwrap()], entry(number));
        }
    }
    // Whoever got none sends it again, after yet another restart; it is in the log once.
    let (log, mut sequencer) = bench.open().await.unwrap();
    let tickets = submit(&log, BEFORE..AFTER).await;
    while sequencer.step().await.unwrap() != Step::Idle {}
    for (ticket, number) in tickets.into_iter().zip(BEFORE..) {
        assert_eq!(ticket.published().await.unwrap().index().get(), number);
    }
    bench.check(AFTER).await;
    calls
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_failed_in_every_way() {
    let after_the_swap = ["put_all tile/0/000", "put_all history/", "replace checkpoint", "delete"];
    let with_lock = [&["swap log/"][..], &after_the_swap].concat();
    let as_bundles = [&["put_all staged/", "swap log/"][..], &after_the_swap].concat();
    let mut runs = tokio::task::JoinSet::new();
    for (locked_bytes, expected) in [(usize::MAX, with_lock), (0, as_bundles)] {
        let calls = run(locked_bytes, None).await;
        for call in expected {
            assert!(calls.iter().any(|made| made.starts_with(call)), "{call} is among {calls:#?}");
        }
        for number in 0..calls.len() {
            for fault in [Fault::NotApplied, Fault::Applied] {
                for crash in [true, false] {
                    runs.spawn(run(locked_bytes, Some((number, fault, crash))));
                }
            }
        }
    }
    runs.join_all().await;
}

#[tokio::test]
async fn every_call_of_opening_failed() {
    let bench = Bench::new().await;
    let (log, mut sequencer) = bench.open().await.unwrap();
    sequencer.step().await.unwrap();
    append(&bench, &log, &mut sequencer, 0..BEFORE).await;
    drop((log, sequencer));
    bench.faults.clear();
    bench.open().await.unwrap();
    let calls = bench.faults.calls();
    for (number, call) in calls.iter().enumerate() {
        for fault in [Fault::NotApplied, Fault::Applied] {
            bench.faults.fail(number, fault, true);
            assert!(bench.open().await.is_err(), "opened although {call:?} failed");
            bench.faults.clear();
            let (log, mut sequencer) = bench.open().await.unwrap();
            assert_eq!(sequencer.step().await.unwrap(), Step::Published(size(BEFORE)), "fresh cosignatures");
            assert_eq!(sequencer.step().await.unwrap(), Step::Idle);
            assert_eq!(log.published().unwrap().checkpoint().size(), size(BEFORE));
        }
    }
    bench.check(BEFORE).await;
}
