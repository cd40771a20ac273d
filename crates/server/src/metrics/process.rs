//! What the kernel says of this process and its disk.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// The unit of times in `/proc`: 1/100 s on every Linux that we run on.
const TICKS_PER_S: f64 = 100.0;

#[derive(Default)]
pub(super) struct Numbers {
    cpu: Counter<f64, AtomicU64>,
    memory: Gauge,
    files: Gauge,
    disk_free: Gauge,
    disk: Gauge,
}

impl Numbers {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register_with_unit("process_cpu", "Processor time used", Unit::Seconds, self.cpu.clone());
        registry.register_with_unit("process_memory", "Resident memory", Unit::Bytes, self.memory.clone());
        registry.register("process_open_files", "Open descriptors", self.files.clone());
        registry.register_with_unit("disk_free", "Free where the data lies", Unit::Bytes, self.disk_free.clone());
        registry.register_with_unit("disk_size", "Size of that file system", Unit::Bytes, self.disk.clone());
    }

    /// What can't be read stays as it was: a number less is no reason to fail.
    pub(super) fn look(&self, data: &Path) {
        if let Some(seconds) = cpu_seconds() {
            // Positive floating-point numbers have the order of their bits; a counter only grows.
            self.cpu.inner().fetch_max(seconds.to_bits(), Ordering::Relaxed);
        }
        if let Some(kilobytes) = resident() {
            self.memory.set(i64::try_from(kilobytes * 1024).unwrap_or(i64::MAX));
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            self.files.set(i64::try_from(entries.count()).unwrap_or(i64::MAX));
        }
        if let Ok(disk) = rustix::fs::statvfs(data) {
            self.disk_free.set(i64::try_from(disk.f_bavail * disk.f_frsize).unwrap_or(i64::MAX));
            self.disk.set(i64::try_from(disk.f_blocks * disk.f_frsize).unwrap_or(i64::MAX));
        }
    }
}

fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// User and system time, behind the name in parentheses, which may hold anything.
fn cpu_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some((f64::from(user) + f64::from(system)) / TICKS_PER_S)
}
