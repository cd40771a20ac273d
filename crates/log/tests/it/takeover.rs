//! Two processes have one log open: the last to open it signs, and the other learns that it lost.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use log::{Error, Log, LogParts, Step};
use storage::{Error as StoreError, Key, LockStore, Swap, Version, Versioned};
use tokio::sync::Semaphore;

use crate::kit::{Bench, append, is_fatal, submit};

fn lost(outcome: Result<Step, Error>) -> bool {
    matches!(outcome, Err(Error::Stopped(reason)) if matches!(*reason, Error::LockLost))
}

#[tokio::test]
async fn the_last_to_open_it_signs() {
    let (bench, first, mut first_sequencer) = Bench::opened().await;
    append(&bench, &first, &mut first_sequencer, 0..300).await;
    let (second, mut second_sequencer) = bench.open().await.unwrap();
    append(&bench, &second, &mut second_sequencer, 300..700).await;

    // The first finds a published checkpoint ahead of its own, and witnesses that know more than it.
    // That is no damage.
    let tickets = submit(&first, 300..301).await;
    assert!(lost(first_sequencer.step().await));
    for ticket in tickets {
        assert!(matches!(ticket.published().await, Err(Error::Stopped(_))));
    }
    assert!(is_fatal(&first.append(crate::kit::entry(301)).await.unwrap_err()));
    append(&bench, &second, &mut second_sequencer, 700..701).await;
    bench.check(701).await;
}

/// Lets a swap through when the test says so, as if the process had been asleep before it.
struct Asleep {
    inner: Arc<dyn LockStore>,
    arrived: Arc<Semaphore>,
    awake: Arc<Semaphore>,
}

#[async_trait]
impl LockStore for Asleep {
    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        self.inner.get(key).await
    }

    async fn compare_and_swap(&self, key: &Key, expected: Option<&Version>, bytes: Bytes) -> Result<Swap, StoreError> {
        self.arrived.add_permits(1);
        self.awake.acquire().await.unwrap().forget();
        self.inner.compare_and_swap(key, expected, bytes).await
    }
}

#[tokio::test]
async fn nothing_is_deleted_from_under_a_batch_that_gets_signed() {
    let (mut bench, log, mut sequencer) = Bench::opened().await;
    bench.limits.locked_bytes = 0;
    append(&bench, &log, &mut sequencer, 0..10).await;
    drop((log, sequencer));
    let (arrived, awake) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(1)));
    let parts = bench.parts();
    let asleep = Asleep { inner: parts.locks, arrived: Arc::clone(&arrived), awake: Arc::clone(&awake) };
    let (early, mut early_sequencer) = Log::open(LogParts { locks: Arc::new(asleep), ..parts }).await.unwrap();
    while early_sequencer.step().await.unwrap() != Step::Idle {}
    arrived.forget_permits(1);

    let tickets = submit(&early, 10..20).await;
    let asleep = tokio::spawn(async move { early_sequencer.step().await });
    // It has staged its batch and is about to swap.
    arrived.acquire().await.unwrap().forget();
    let staged = || bench.memory.0.lock().unwrap().keys().filter(|key| key.starts_with("staged/")).count();
    assert_eq!(staged(), 1);

    let (log, mut sequencer) = bench.open().await.unwrap();
    assert_eq!(staged(), 0, "what is staged and not signed goes");
    awake.add_permits(1);
    assert!(lost(asleep.await.unwrap()));
    for ticket in tickets {
        assert!(matches!(ticket.published().await, Err(Error::Stopped(_))));
    }
    append(&bench, &log, &mut sequencer, 10..30).await;
    bench.check(30).await;
}

/// The lock's value as the version before wrote it.
fn as_before(bench: &Bench) {
    let mut locks = bench.locks.0.lock().unwrap();
    let (_, bytes) = locks.values_mut().next().unwrap();
    let text = String::from_utf8_lossy(bytes).into_owned();
    let checkpoint = &text[text.find(crate::kit::ORIGIN).unwrap()..];
    let end = checkpoint.find("\u{2014} ").unwrap();
    let end = end + checkpoint[end..].find('\n').unwrap() + 1;
    *bytes = format!("clerestory-log/1\nold 7\n{}", &checkpoint[..end]).into();
}

#[tokio::test]
async fn a_log_of_the_version_before_goes_on() {
    let (bench, log, sequencer) = Bench::opened().await;
    as_before(&bench);
    drop((log, sequencer));
    let (log, mut sequencer) = bench.open().await.unwrap();
    append(&bench, &log, &mut sequencer, 0..300).await;
    as_before(&bench);
    drop((log, sequencer));
    let left = "staged/299-300-0000000000000000000000000000000000000000000000000000000000000000".to_owned();
    bench.memory.0.lock().unwrap().insert(left.clone(), bytes::Bytes::from_static(b"clerestory-staged/1\n"));
    bench.check(300).await;
    // A batch that it signed and did not finish is lost to nobody: it can still be finished there.
    let tile = bench.memory.0.lock().unwrap().remove("tile/0/001.p/44").unwrap();
    assert!(bench.open().await.is_err());
    assert!(bench.object(&left).is_some());
    bench.memory.0.lock().unwrap().insert("tile/0/001.p/44".to_owned(), tile);
    let (log, mut sequencer) = bench.open().await.unwrap();
    append(&bench, &log, &mut sequencer, 300..310).await;
    assert!(bench.object(&left).is_none());
    bench.check(310).await;
}
