//! A bounded pool: what doesn't fit is told to come back.

use bytes::Bytes;
use log::{Class, Error, Limits, Step};

use crate::kit::{Bench, entry, size};

#[tokio::test]
async fn a_full_pool_says_when_to_come_back() {
    let mut bench = Bench::new().await;
    bench.limits = Limits { pool_entries: 10, batch_entries: 4, ..bench.limits };
    let (log, mut sequencer) = bench.open().await.unwrap();
    sequencer.step().await.unwrap();
    bench.witnesses.iter().for_each(|witness| witness.set_silent(true));
    let mut tickets = Vec::new();
    for number in 0..10 {
        tickets.push(log.submit(entry(number)).await.unwrap());
        sequencer.step().await.unwrap_err();
    }
    let error = log.submit(entry(10)).await.unwrap_err();
    assert_eq!(error.class(), Class::Unavailable);
    assert!(matches!(error, Error::Full { retry_after } if retry_after == bench.limits.retry_after), "{error}");
    // What waits already still finds its place.
    log.submit(entry(3)).await.unwrap();
    bench.witnesses.iter().for_each(|witness| witness.set_silent(false));
    // The first batch was taken when it had one entry; the others are full.
    for published in [1, 5, 9, 10] {
        assert_eq!(sequencer.step().await.unwrap(), Step::Published(size(published)));
        bench.check(published).await;
    }
    for (ticket, number) in tickets.into_iter().zip(0..) {
        assert_eq!(ticket.published().await.unwrap().index().get(), number);
    }
    log.submit(entry(10)).await.unwrap();
}

#[tokio::test]
async fn bytes_count_too() {
    let mut bench = Bench::new().await;
    bench.limits = Limits { pool_bytes: 1000, batch_bytes: 600, ..bench.limits };
    let (log, mut sequencer) = bench.open().await.unwrap();
    sequencer.step().await.unwrap();
    for number in 0..3 {
        log.submit(Bytes::from(vec![number; 300])).await.unwrap();
    }
    let large = Bytes::from(vec![9; 101]);
    assert!(matches!(log.submit(large.clone()).await, Err(Error::Full { .. })));
    log.submit(Bytes::from(vec![9; 100])).await.unwrap();
    assert_eq!(sequencer.step().await.unwrap(), Step::Published(size(2)));
    log.submit(large).await.unwrap();
    assert_eq!(sequencer.step().await.unwrap(), Step::Published(size(5)));
    bench.check(5).await;
}
