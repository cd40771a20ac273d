//! Control groups, version 1 or 2, where this process may make them. They only help: without
//! them the first process inside and rlimits keep the same bounds.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::job::{ByteSize, Limits};

/// Prefix of our groups' names; the supervisor's process id follows.
const PREFIX: &str = "clerestory-sandbox-";

/// The groups of one sandbox, at most one for each controller.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Group {
    folder: PathBuf,
    controller: Controller,
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Controller {
    Memory,
    Pids,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl Groups {
    /// Groups for memory and processes, as far as they can be had.
    pub(crate) fn create(limits: &Limits) -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut groups = Vec::new();
        for controller in [Controller::Memory, Controller::Pids] {
            for version in [Version::V2, Version::V1] {
                let Some(parent) = own_folder(&mounts, &own, controller, version) else { continue };
                if let Some(group) = Group::create(&parent, controller, version, limits) {
                    groups.push(group);
                    break;
                }
            }
        }
        Self { groups }
    }

    pub(crate) fn add(&self, process: u32) -> io::Result<()> {
        for group in &self.groups {
            group.write("cgroup.procs", &process.to_string())?;
        }
        Ok(())
    }

    pub(crate) fn names(&self) -> BTreeMap<String, String> {
        let name = |group: &Group| {
            let version = if group.version == Version::V1 { "v1" } else { "v2" };
            (group.controller.name().to_owned(), version.to_owned())
        };
        self.groups.iter().map(name).collect()
    }

    /// Whether the kernel has killed a process for memory.
    pub(crate) fn out_of_memory(&self) -> bool {
        self.with(Controller::Memory, |group| match group.version {
            Version::V1 => group.number_after("memory.oom_control", "oom_kill "),
            Version::V2 => group.number_after("memory.events", "oom_kill "),
        })
        .is_some_and(|count| count > 0)
    }

    /// Whether a fork was refused.
    pub(crate) fn too_many_processes(&self) -> bool {
        self.with(Controller::Pids, |group| group.number_after("pids.events", "max ")).is_some_and(|count| count > 0)
    }

    pub(crate) fn anonymous_memory(&self) -> ByteSize {
        let bytes = self.with(Controller::Memory, |group| match group.version {
            Version::V1 => group.number_after("memory.stat", "total_rss "),
            Version::V2 => group.number_after("memory.stat", "anon "),
        });
        ByteSize(bytes.unwrap_or(0))
    }

    pub(crate) fn kill(&self) {
        for group in &self.groups {
            if group.version == Version::V2 {
                // Faster than signals; the end of the first process ends the rest anyway.
                let _ = group.write("cgroup.kill", "1");
            }
        }
    }

    /// Removes the groups, which are empty by now or in the next moments.
    pub(crate) fn remove(&mut self) {
        for group in self.groups.drain(..) {
            remove(&group.folder);
        }
    }

    fn with<T>(&self, controller: Controller, f: impl Fn(&Group) -> Option<T>) -> Option<T> {
        self.groups.iter().find(|group| group.controller == controller).and_then(f)
    }
}

impl Controller {
    const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }
}

impl Group {
    fn create(parent: &Path, controller: Controller, version: Version, limits: &Limits) -> Option<Self> {
        sweep(parent);
        let name = format!("{PREFIX}{}-{}", std::process::id(), controller.name());
        let folder = parent.join(name);
        fs::create_dir(&folder).ok()?;
        let group = Self { folder, controller, version };
        if group.limit(limits).is_err() {
            remove(&group.folder);
            return None;
        }
        Some(group)
    }

    fn limit(&self, limits: &Limits) -> io::Result<()> {
        // The bounded disk lies in memory and is accounted here too, so the hard bound is the sum.
        // The supervisor compares anonymous memory alone with `limits.memory`.
        let memory = limits.memory.0.saturating_add(limits.disk.0).to_string();
        // Our two or three processes inside come on top.
        let processes = limits.processes.saturating_add(3).to_string();
        match (self.controller, self.version) {
            (Controller::Memory, Version::V1) => {
                self.write("memory.limit_in_bytes", &memory)?;
                // Absent where the kernel does not account swap.
                let _ = self.write("memory.memsw.limit_in_bytes", &memory);
                Ok(())
            }
            (Controller::Memory, Version::V2) => {
                self.write("memory.max", &memory)?;
                let _ = self.write("memory.swap.max", "0");
                Ok(())
            }
            (Controller::Pids, _) => self.write("pids.max", &processes),
        }
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        // Never creates: these files exist or the controller does not.
        let mut file = fs::OpenOptions::new().write(true).open(self.folder.join(file))?;
        file.write_all(text.as_bytes())
    }

    fn number_after(&self, file: &str, label: &str) -> Option<u64> {
        let text = fs::read_to_string(self.folder.join(file)).ok()?;
        text.lines().find_map(|line| line.strip_prefix(label)?.trim().parse().ok())
    }
}

/// The folder of this process's own group, under which it may make others.
fn own_folder(mounts: &str, own: &str, controller: Controller, version: Version) -> Option<PathBuf> {
    let group = own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let ours = match version {
            Version::V1 => controllers.split(',').any(|name| name == controller.name()),
            Version::V2 => controllers.is_empty(),
        };
        ours.then_some(path)
    })?;
    // See proc_pid_mountinfo(5): id, parent, device, root, mount point, ... - type, source, options
    let (root, point) = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (root, point) = (before.next()?, before.next()?);
        let mut after = after.split(' ');
        let (kind, options) = (after.next()?, after.nth(1)?);
        let ours = match version {
            Version::V1 => kind == "cgroup" && options.split(',').any(|name| name == controller.name()),
            Version::V2 => kind == "cgroup2",
        };
        ours.then_some((root, point))
    })?;
    let below = group.strip_prefix(root.trim_end_matches('/')).unwrap_or(group);
    Some(Path::new(point).join(below.trim_start_matches('/')))
}

/// Removes groups of supervisors that were killed; the kernel refuses it while one is in use.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if let Some(owner) = owner
            && !Path::new("/proc").join(owner).exists()
        {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// How often and how long to wait for the kernel to let go of a group: 500 times 2 ms is a second.
const REMOVALS_MAX: u32 = 500;

fn remove(folder: &Path) {
    for _ in 0..REMOVALS_MAX {
        match fs::remove_dir(folder) {
            Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            _ => return,
        }
    }
}
