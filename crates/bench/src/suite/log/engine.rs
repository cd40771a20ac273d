//! The engine with real witnesses, without HTTP in front.

use std::fs::File;
use std::io::Write as _;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use log::{Limits, Log};
use stdx::{Clock as _, SystemClock, durable};
use tlog::leaf_hash;
use tokio::task::JoinSet;

use super::system::{Streams, System};
use super::{runtime, with_log};
use crate::bench::Bench;
use crate::row::{Figure, Row, Target};
use crate::samples::Samples;

/// Entries a second while latency is measured.
const RATE: usize = 500;

/// The bytes of an entry.
#[derive(Clone, Copy)]
pub(super) struct EntryBytes(pub(super) usize);

/// An entry that no other number has.
fn entry(number: usize, EntryBytes(bytes): EntryBytes) -> Bytes {
    let mut entry = format!("{number:020}").into_bytes();
    entry.resize(bytes, b'.');
    entry.into()
}

/// From `append` to a receipt, at a steady rate that doesn't wait for answers; beside it what the
/// disk takes for the writes that must follow each other.
pub(in super::super) fn witnessed(bench: &mut Bench) -> anyhow::Result<()> {
    let system = System::new(bench.folder(), &bench.programs()?.path("clerestory")?, Streams(1))?;
    let runtime = runtime()?;
    let (seconds, rounds) = (bench.scale().of(3, 1), bench.scale().of(5, 1));
    let (mut times, mut floors) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let first = round * seconds * RATE;
        let measured = runtime.block_on(with_log(&system, |log| steadily(log, first..first + seconds * RATE)))?;
        let floor = (0..bench.scale().of(60, 2)).map(|_| path_of_an_append(bench));
        let floor = floor.collect::<anyhow::Result<Vec<f64>>>()?;
        // The first round warms up.
        if round > 0 {
            times.extend(measured);
            floors.extend(floor);
        }
    }
    let (times, floors) = (Samples::new(times)?, Samples::new(floors)?);
    for (name, figure, limit) in [("p50", Figure::Median, 20.0), ("p99", Figure::Percentile(99.0), 100.0)] {
        let row = Row::new(format!("log/witnessed/{name}"), "ms", figure, &times).against(figure, &floors);
        bench.row(row.target(Target::AtMost(limit)));
    }
    Ok(())
}

/// Milliseconds of each append.
async fn steadily(log: Log, numbers: Range<usize>) -> anyhow::Result<Vec<f64>> {
    let begin = tokio::time::Instant::now();
    let mut appends = JoinSet::new();
    for (place, number) in numbers.enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
        let due = begin + Duration::from_secs_f64(place as f64 / RATE as f64);
        tokio::time::sleep_until(due).await;
        let log = log.clone();
        appends.spawn(async move {
            log.append(entry(number, EntryBytes(1024))).await?;
            // From when it was due: a generator that is late hides nothing.
            anyhow::Ok(due.elapsed().as_secs_f64() * 1e3)
        });
    }
    appends.join_all().await.into_iter().collect()
}

/// The writes that follow each other: the lock with the batch in it, a witness's state, and the
/// published checkpoint. (Tiles are written while witnesses cosign.)
fn path_of_an_append(bench: &Bench) -> anyhow::Result<f64> {
    let folder = bench.folder();
    let mut state = File::options().create(true).append(true).open(folder.join("state"))?;
    let (seconds, ()) = bench.time(|| {
        for bytes in [&[7; 16_384][..], &[7; 4096]] {
            state.write_all(bytes)?;
            state.sync_data()?;
        }
        Ok(durable::write(&folder.join("checkpoint"), &[7; 1024])?)
    })?;
    Ok(seconds * 1e3)
}

const WRITERS: usize = 512;
/// Entries that a writer has under way at once: together they fill the pool.
const DEPTH: usize = 128;

/// 512 writers of 1 KiB, beside a loop that hashes the same entries and syncs them in batches as
/// large as the log's.
pub(in super::super) fn appends(bench: &mut Bench) -> anyhow::Result<()> {
    let system = System::new(bench.folder(), &bench.programs()?.path("clerestory")?, Streams(1))?;
    let runtime = runtime()?;
    let count = bench.scale().of(4 * WRITERS * DEPTH, WRITERS);
    let mut first = 0;
    let (ours, bare) = bench.interleaved(
        bench.scale().of(5, 1),
        || {
            let numbers = first..first + count;
            first += count;
            let rate = runtime.block_on(with_log(&system, |log| fill(log, numbers, EntryBytes(1024))))?;
            bench.say(&format!("{rate:.0} appends/s"));
            Ok(rate)
        },
        || {
            let rate = hash_and_sync(bench.folder(), count, EntryBytes(1024))?;
            bench.say(&format!("{rate:.0}/s bare"));
            Ok(rate)
        },
    )?;
    let row = Row::new("log/appends", "1/s", Figure::Median, &ours).against(Figure::Median, &bare);
    bench.row(row.target(Target::AtLeast(100_000.0)).target(Target::RatioAtLeast(0.5)));
    Ok(())
}

/// Appends a second, all published.
pub(super) async fn fill(log: Log, numbers: Range<usize>, bytes: EntryBytes) -> anyhow::Result<f64> {
    let clock = SystemClock::new();
    let next = Arc::new(AtomicUsize::new(numbers.start));
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let (log, next) = (log.clone(), Arc::clone(&next));
        writers.spawn(async move {
            loop {
                let first = next.fetch_add(DEPTH, Ordering::Relaxed);
                if first >= numbers.end {
                    return anyhow::Ok(());
                }
                let mut tickets = Vec::with_capacity(DEPTH);
                for number in first..(first + DEPTH).min(numbers.end) {
                    tickets.push(log.submit(entry(number, bytes)).await?);
                }
                for ticket in tickets {
                    ticket.published().await?;
                }
            }
        });
    }
    writers.join_all().await.into_iter().collect::<anyhow::Result<()>>()?;
    #[expect(clippy::cast_precision_loss, reason = "millions")]
    let rate = numbers.len() as f64 / clock.monotonic().as_secs_f64();
    Ok(rate)
}

fn hash_and_sync(folder: &Path, count: usize, bytes: EntryBytes) -> anyhow::Result<f64> {
    let clock = SystemClock::new();
    let path = folder.join("bare");
    let mut file = File::create(&path).with_context(|| format!("can't make `{}`", path.display()))?;
    let batch = Limits::default().batch_entries;
    let mut buffer = Vec::with_capacity(batch * bytes.0);
    let mut hashes = Vec::with_capacity(count);
    for first in (0..count).step_by(batch) {
        buffer.clear();
        for number in first..(first + batch).min(count) {
            let entry = entry(number, bytes);
            hashes.push(leaf_hash(&entry));
            buffer.extend_from_slice(&entry);
        }
        file.write_all(&buffer)?;
        file.sync_data()?;
    }
    #[expect(clippy::cast_precision_loss, reason = "millions")]
    let rate = hashes.len() as f64 / clock.monotonic().as_secs_f64();
    std::fs::remove_file(&path)?;
    Ok(rate)
}
