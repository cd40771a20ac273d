//! Many seeds, on several threads: each simulation is one thread's alone.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::{Broken, Violation, plan_of, run};

/// How many threads simulate; CI has two cores.
const THREADS: usize = 2;

/// A seed that broke a promise.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The promise.
    pub violation: Violation,
}

/// What came of many seeds.
#[derive(Debug, Default)]
pub struct Summary {
    /// How many were run.
    pub seeds: u64,
    /// How often what happened, in all of them.
    pub counts: BTreeMap<&'static str, u64>,
    /// How much time passed in them.
    pub simulated: Duration,
    /// Those that broke a promise, in the order of their seeds.
    pub failures: Vec<Failure>,
}

/// Runs every seed with its own plan.
#[must_use]
pub fn run_all(seeds: Range<u64>) -> Summary {
    let (next, summary) = (AtomicU64::new(seeds.start), Mutex::new(Summary::default()));
    std::thread::scope(|threads| {
        for _ in 0..THREADS {
            threads.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= seeds.end {
                        break;
                    }
                    let outcome = run(seed, &plan_of(seed), Broken::Nothing);
                    let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
                    summary.seeds += 1;
                    summary.simulated += outcome.simulated;
                    for (what, count) in outcome.counts {
                        *summary.counts.entry(what).or_default() += count;
                    }
                    if let Some(violation) = outcome.violation {
                        eprintln!("seed {seed}: {violation}");
                        summary.failures.push(Failure { seed, violation });
                    }
                }
            });
        }
    });
    let mut summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary.failures.sort_by_key(|failure| failure.seed);
    summary
}
