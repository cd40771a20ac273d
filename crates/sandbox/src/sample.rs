//! What all processes of the namespace use, read from its own `/proc`.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::sys::resource::Usage;
use nix::sys::time::TimeValLike;
use rustix::fs::{Mode, OFlags};

use crate::job::ByteSize;

#[derive(Debug, Default)]
pub(crate) struct Sample {
    /// Processes and threads, without the first process.
    pub(crate) tasks: u64,
    pub(crate) memory: ByteSize,
    /// Of those that live, with the children they have waited for.
    pub(crate) cpu: Duration,
    /// Of those that live, each without its children, by process id and start time.
    pub(crate) own_cpu: BTreeMap<(String, String), Duration>,
}

/// The processor time of all processes seen so far, whether or not anybody waited for them.
///
/// A program may ignore the end of its children; the kernel then counts their time for nobody.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    gone: Duration,
    living: BTreeMap<(String, String), Duration>,
}

impl Seen {
    /// At least so much was used, with this sample.
    pub(crate) fn with(&mut self, sample: &mut Sample) -> Duration {
        let now = std::mem::take(&mut sample.own_cpu);
        let gone = self.living.iter().filter(|(process, _)| !now.contains_key(*process));
        self.gone += gone.map(|(_, cpu)| *cpu).sum::<Duration>();
        self.living = now;
        self.gone + self.living.values().sum::<Duration>()
    }
}

/// Processor time and the largest process of a usage.
pub(crate) fn sum_of(used: &Usage) -> (Duration, ByteSize) {
    let microseconds = (used.user_time() + used.system_time()).num_microseconds();
    let kibibytes = u64::try_from(used.max_rss()).unwrap_or(0);
    (Duration::from_micros(u64::try_from(microseconds).unwrap_or(0)), ByteSize(kibibytes.saturating_mul(1024)))
}

/// An open `/proc` of the namespace.
pub(crate) struct Processes {
    folder: OwnedFd,
}

impl Processes {
    pub(crate) fn open() -> std::io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { folder: rustix::fs::open("/proc", flags, Mode::empty())? })
    }

    pub(crate) fn sample(&self) -> Sample {
        let mut sum = Sample::default();
        for name in self.names() {
            let Some(stat) = self.read(&format!("{name}/stat")) else { continue };
            if name == "1" {
                continue;
            }
            let fields = fields_after_name(&stat);
            // proc_pid_stat(5): state is field 3 and the first here; utime, stime, cutime, cstime
            // are 14 to 17, num_threads is 20, starttime is 22.
            let field =
                |number: usize| -> u64 { fields.get(number - 3).and_then(|text| text.parse().ok()).unwrap_or(0) };
            sum.tasks += field(20);
            let time = |ticks: u64| Duration::from_millis(ticks.saturating_mul(1000 / TICKS_A_SECOND));
            sum.cpu += time((14..=17).map(field).sum());
            let started = fields.get(22 - 3).map_or_else(String::new, |text| (*text).to_owned());
            sum.own_cpu.insert((name.clone(), started), time(field(14) + field(15)));
            if let Some(statm) = self.read(&format!("{name}/statm")) {
                let mut pages = statm.split(' ').skip(1).map(|text| text.parse().unwrap_or(0u64));
                let (resident, shared) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
                let anonymous = resident.saturating_sub(shared).saturating_mul(page_bytes());
                sum.memory = ByteSize(sum.memory.0.saturating_add(anonymous));
            }
        }
        sum
    }

    fn names(&self) -> Vec<String> {
        let Ok(folder) = rustix::fs::Dir::read_from(self.folder.as_fd()) else { return Vec::new() };
        folder
            .flatten()
            .filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned))
            .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
            .collect()
    }

    fn read(&self, path: &str) -> Option<String> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.folder.as_fd(), path, flags, Mode::empty()).ok()?;
        // One line of numbers; a process's name, which is hostile, has at most 16 bytes.
        let mut bytes = [0; 1024];
        let count = rustix::io::read(file, &mut bytes).ok()?;
        Some(String::from_utf8_lossy(bytes.get(..count)?).into_owned())
    }
}

/// `USER_HZ`, the unit of times in `/proc`, on every Linux with a stable interface.
const TICKS_A_SECOND: u64 = 100;

fn page_bytes() -> u64 {
    u64::try_from(rustix::param::page_size()).unwrap_or(4096)
}

/// A process may put `)` and spaces into its name, so everything up to the last `)` is skipped.
fn fields_after_name(stat: &str) -> Vec<&str> {
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_ascii_whitespace().collect()
}

#[cfg(test)]
mod tests {
    use super::fields_after_name;

    #[test]
    fn a_name_cannot_forge_fields() {
        let fields = fields_after_name("7 (a) R 0 0 (b) S 1 2 3\n");
        assert_eq!(fields, ["S", "1", "2", "3"]);
    }
}
