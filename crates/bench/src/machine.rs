//! The machine: what it is, and how long its disk takes.

use std::fs::File;
use std::io::Write as _;

use anyhow::Context as _;
use stdx::durable;

use crate::bench::Bench;
use crate::row::{Figure, Row};
use crate::samples::Samples;

/// Cores, processor, memory, kernel and load, in one line.
pub(crate) fn describe() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let field = |text: &str, name: &str| -> String {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let processor = field(&read("/proc/cpuinfo"), "model name");
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    format!(
        "{cores} cores ({processor}), {memory} memory, Linux {}, load {} at the start",
        kernel.trim(),
        load.split(' ').next().unwrap_or("unknown")
    )
}

/// Appends 4 KiB and waits for the disk: what each durable append costs at least.
pub(crate) fn append(bench: &mut Bench) -> anyhow::Result<()> {
    let path = bench.folder().join("append");
    let mut file = File::create(&path).with_context(|| format!("can't make `{}`", path.display()))?;
    let block = [7; 4096];
    let mut times = Vec::new();
    for _ in 0..bench.scale().of(1000, 10) {
        let (seconds, ()) = bench.time(|| {
            file.write_all(&block)?;
            Ok(file.sync_data()?)
        })?;
        times.push(seconds * 1e3);
    }
    bench.row(Row::new("machine/append", "ms", Figure::Median, &Samples::new(times)?));
    Ok(())
}

/// Makes a 4 KiB file that survives a crash: written, synced, renamed, its folder synced.
pub(crate) fn create(bench: &mut Bench) -> anyhow::Result<()> {
    let path = bench.folder().join("file");
    let block = [7; 4096];
    let mut times = Vec::new();
    for _ in 0..bench.scale().of(300, 5) {
        let (seconds, ()) = bench.time(|| Ok(durable::write(&path, &block)?))?;
        times.push(seconds * 1e3);
    }
    bench.row(Row::new("machine/create", "ms", Figure::Median, &Samples::new(times)?));
    Ok(())
}
