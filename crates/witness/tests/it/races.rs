//! Many requests at once.

use std::sync::Arc;

use tlog::Growth;
use tokio::task::JoinSet;

use crate::kit::Bench;

/// Requests from size 1 to many sizes, and to a fork: the cosigned checkpoints are one chain.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_cosigned_is_one_chain() {
    let bench = Arc::new(Bench::new().await);
    bench.add(&bench.log.request(0, 1)).await.unwrap();
    let mut racers = JoinSet::new();
    for racer in 0..32_usize {
        let bench = Arc::clone(&bench);
        racers.spawn(async move {
            let fork = bench.log.fork(200);
            let log = if racer % 2 == 0 { &bench.log } else { &fork };
            let mut cosigned = Vec::new();
            for step in 0..4 {
                let new = 2 + (racer * 7 + step * 31) % 190;
                let old = bench.size().await.unwrap() as usize;
                if old <= new && bench.add(&log.request(old, new)).await.is_ok() {
                    cosigned.push((new, racer % 2 == 0));
                }
            }
            cosigned
        });
    }
    let mut sizes: Vec<_> = racers.join_all().await.into_iter().flatten().collect();
    sizes.sort_unstable();
    assert!(!sizes.is_empty());
    assert!(sizes.iter().all(|(_, honest)| *honest), "the fork shares no entry with what was cosigned first");
    for pair in sizes.windows(2) {
        let (old, new) = (bench.log.checkpoint(pair[0].0), bench.log.checkpoint(pair[1].0));
        let growth = Growth { old: old.checkpoint().head(), new: new.checkpoint().head() };
        bench.log.proof(pair[0].0, pair[1].0).verify(growth).unwrap();
    }
    assert_eq!(bench.size().await, sizes.last().map(|(size, _)| *size as u64));
}
