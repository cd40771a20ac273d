//! A store that fails: no cosignature leaves, and nothing is remembered that isn't on disk.

use witness::Error;

use crate::kit::{Bench, Fault};

#[tokio::test]
async fn a_failed_write_gives_no_cosignature_and_no_memory() {
    let mut bench = Bench::new().await;
    bench.add(&bench.log.request(0, 3)).await.unwrap();

    bench.store.next(Fault::NotApplied);
    let error = bench.add(&bench.log.request(3, 5)).await.unwrap_err();
    assert!(matches!(error, Error::Store(_)), "{error}");
    assert_eq!(error.status(), 500);
    assert_eq!(bench.size().await, Some(3));
    bench.add(&bench.log.request(3, 4)).await.unwrap();

    bench.store.next(Fault::Applied);
    bench.add(&bench.log.request(4, 6)).await.unwrap_err();
    assert_eq!(bench.size().await, Some(6), "the write had happened");
    let error = bench.add(&bench.log.request(4, 6)).await.unwrap_err();
    assert!(matches!(error, Error::Stale { latest } if latest.get() == 6), "{error}");
    bench.restart();
    bench.add(&bench.log.request(6, 7)).await.unwrap();
}

#[tokio::test]
async fn who_loses_a_race_looks_again() {
    let bench = Bench::new().await;
    bench.store.next(Fault::LostToAnother);
    let error = bench.add(&bench.log.request(0, 3)).await.unwrap_err();
    assert!(matches!(error, Error::Stale { latest } if latest.get() == 3), "{error}");
    bench.store.next(Fault::LostToAnother);
    bench.add(&bench.log.request(3, 3)).await.unwrap();
    bench.store.next(Fault::None);
}

#[tokio::test]
async fn damaged_state_signs_nothing() {
    use bytes::Bytes;
    use storage::LockStore as _;
    let bench = Bench::new().await;
    bench.add(&bench.log.request(0, 3)).await.unwrap();
    let hash = tlog::witness_protocol::origin_hash(&bench.log.origin());
    let key = format!("witness/{hash}").parse().unwrap();
    let stored = bench.store.get(&key).await.unwrap().unwrap();
    let mut version = stored.version;
    // Another size under the same signatures; and the log's signature alone.
    let text = String::from_utf8(stored.bytes.to_vec()).unwrap();
    for damaged in [text.replacen("\n3\n", "\n2\n", 1), bench.log.checkpoint(3).to_string(), String::new()] {
        let storage::Swap::Won(next) =
            bench.store.compare_and_swap(&key, Some(&version), Bytes::from(damaged)).await.unwrap()
        else {
            panic!("nobody else is there");
        };
        version = next;
        for (old, new) in [(2, 4), (3, 4), (0, 4)] {
            let error = bench.add(&bench.log.request(old, new)).await.unwrap_err();
            assert!(matches!(error, Error::Damaged { .. }), "{error}");
        }
    }
}
