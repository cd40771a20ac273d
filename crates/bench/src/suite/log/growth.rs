//! What a log costs as it grows: time, disk and memory for each entry, and to open it. Memory is that
//! of a vendor's process that was started with the log as it is, beyond one with an empty log: a
//! process that has filled a log has a larger heap than the log then needs.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::engine::{EntryBytes, fill};
use super::system::{Streams, System};
use super::{runtime, with_log};
use crate::bench::Bench;
use crate::picture::{Axis, Picture, Scale, Series};
use crate::row::{Figure, Row};
use crate::samples::Samples;

const ENTRY: EntryBytes = EntryBytes(256);
/// The last of these many are measured: at each size the same work.
const MEASURED: usize = 500_000;

/// 256-byte entries, up to ten million.
pub(in super::super) fn growth(bench: &mut Bench) -> anyhow::Result<()> {
    let sizes: &[usize] = match bench.scale() {
        crate::bench::Scale::Full => &[10_000, 1_000_000, 10_000_000],
        crate::bench::Scale::Quick => &[1_000, 2_000],
    };
    let mut system = System::new(bench.folder(), &bench.programs()?.path("clerestory")?, Streams(1))?;
    let mut curves = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    let empty = memory(&mut system)?;
    bench.say(&format!("an empty log's process has {:.1} MiB of memory", empty / MIB));
    let mut size = 0;
    for &target in sizes {
        let begin = target.saturating_sub(MEASURED).max(size);
        let (_, rate) = open_and_fill(&system, size..begin).and_then(|_| open_and_fill(&system, begin..target))?;
        size = target;
        let (seconds, _) = open_and_fill(&system, size..size)?;
        let disk = allocated(&system.store())?;
        let memory = memory(&mut system)?;
        bench.say(&format!("{target} entries: its process has {:.1} MiB of memory", memory / MIB));
        #[expect(clippy::cast_precision_loss, reason = "millions")]
        let entries = target as f64;
        let figures = [
            ("appends", "1/s", rate),
            ("disk", "B/entry", disk / entries),
            ("memory", "B/entry", (memory - empty) / entries),
            ("open", "s", seconds),
        ];
        for ((name, unit, value), curve) in figures.into_iter().zip(&mut curves) {
            bench.say(&format!("{target} entries: {name} {value:.3} {unit}"));
            curve.push((entries, value));
            bench.row(Row::new(format!("log/growth/{name}/{target}"), unit, Figure::Median, &Samples::one(value)));
        }
    }
    let [appends, disk, memory, open] = curves;
    draw(bench, "log-growth-rate", "Appending to a log that grows", "appends/s", vec![("256-byte entries", appends)])?;
    let title = "What an entry of 256 bytes takes on disk";
    draw(bench, "log-growth-disk", title, "bytes an entry", vec![("256-byte entries", disk)])?;
    let title = "What an entry takes in memory";
    draw(bench, "log-growth-memory", title, "bytes an entry", vec![("256-byte entries", memory)])?;
    draw(bench, "log-growth-open", "Opening a log", "seconds", vec![("256-byte entries", open)])
}

fn draw(bench: &Bench, name: &str, title: &str, unit: &str, lines: Vec<(&str, Vec<(f64, f64)>)>) -> anyhow::Result<()> {
    let axis = |label: &str, scale| Axis { label: label.to_owned(), scale };
    let series = lines.into_iter().map(|(name, points)| Series { name: name.to_owned(), points }).collect();
    let (x, y) = (axis("entries in the log", Scale::Log), axis(unit, Scale::Linear));
    bench.picture(name, &Picture { title: title.to_owned(), x, y, series })
}

const MIB: f64 = 1024.0 * 1024.0;
/// Heaps differ from start to start, by more than ten thousand entries need.
const STARTS: usize = 3;

/// Bytes of memory of the vendor's process, once it has read its log: the median of some starts.
fn memory(system: &mut System) -> anyhow::Result<f64> {
    let one = |_| {
        system.start_vendor()?;
        let mut stream = TcpStream::connect(system.vendor.address()?)?;
        // No entry; but what is wrong with it is said only when all entries are read.
        stream.write_all(
            b"POST /v1/entries HTTP/1.1\r\nHost: bench\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
        )?;
        stream.read_to_end(&mut Vec::new())?;
        let bytes = system.vendor.memory();
        system.vendor.kill();
        bytes
    };
    Ok(Samples::new((0..STARTS).map(one).collect::<anyhow::Result<_>>()?)?.median())
}

/// Seconds that opening took, and appends a second.
fn open_and_fill(system: &System, numbers: std::ops::Range<usize>) -> anyhow::Result<(f64, f64)> {
    let clock = stdx::SystemClock::new();
    runtime()?.block_on(with_log(system, |log| async move {
        let seconds = stdx::Clock::monotonic(&clock).as_secs_f64();
        Ok((seconds, fill(log, numbers, ENTRY).await?))
    }))
}

/// Bytes of disk that the files below a folder take, and the folders themselves.
fn allocated(folder: &Path) -> anyhow::Result<f64> {
    let mut bytes = 0.0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        #[expect(clippy::cast_precision_loss, reason = "a file has fewer than 2^53 blocks")]
        let blocks = metadata.blocks() as f64;
        bytes += blocks * 512.0 + if metadata.is_dir() { allocated(&entry.path())? } else { 0.0 };
    }
    Ok(bytes)
}
