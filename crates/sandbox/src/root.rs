//! The root file system of the command: cloned from the host, attached, then pivoted into.
//!
//! Everything is attached by descriptor, component by component without following links, because
//! the tree may be hostile and the host's root is still there while it is put together.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::libc;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change,
    mount_remount, move_mount, open_tree, unmount,
};

use crate::confine::DEVICES;
use crate::error::{SandboxError, isolation};
use crate::job::{Access, Job, Writing};

/// Where the root is put together, in a mount namespace of our own. Every Linux has this folder;
/// what the host has there was cloned before.
const WORKSHOP: &str = "/tmp";

/// More entries directly below `/` than any distribution has.
const TOP_ENTRIES_MAX: usize = 1_000;

/// Detached copies of what the host gives, taken while this process still may look for them.
pub(crate) struct Sources {
    tree: Tree,
    mounts: Vec<OwnedFd>,
    devices: Vec<OwnedFd>,
}

enum Tree {
    Overlay(OwnedFd),
    /// Each entry by itself, below a root that is ours, so that mount points can be added.
    Entries(Vec<(PathBuf, Entry)>),
}

enum Entry {
    Mounted(OwnedFd),
    Link(PathBuf),
}

impl Sources {
    pub(crate) fn open(job: &Job) -> Result<Self, SandboxError> {
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).map_err(isolation("private mounts"))?;
        let tree = match job.root.writing {
            Writing::Overlay => Tree::Overlay(source(&job.root.tree)?),
            Writing::Refused => Tree::Entries(entries(&job.root.tree)?),
        };
        let mounts = job.mounts.iter().map(|mount| source(&mount.source)).collect::<Result<_, _>>();
        let device = |name: &&str| source(&Path::new("/dev").join(name));
        let devices = DEVICES.iter().map(device).collect::<Result<_, _>>();
        Ok(Self { tree, mounts: mounts?, devices: devices? })
    }
}

fn source(path: &Path) -> Result<OwnedFd, SandboxError> {
    clone(CWD, path)
        .map_err(|error| SandboxError::Source { path: path.to_owned(), problem: io::Error::from(error).to_string() })
}

fn entries(tree: &Path) -> Result<Vec<(PathBuf, Entry)>, SandboxError> {
    let failed = |error: io::Error| SandboxError::Source { path: tree.to_owned(), problem: error.to_string() };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(tree).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        let name = PathBuf::from(entry.file_name());
        if kind.is_symlink() {
            let target = std::fs::read_link(entry.path()).map_err(failed)?;
            found.push((name, Entry::Link(target)));
        } else if (kind.is_dir() || kind.is_file()) && !OURS.contains(&name.to_str().unwrap_or("")) {
            found.push((name, Entry::Mounted(source(&entry.path())?)));
        }
        if found.len() > TOP_ENTRIES_MAX {
            return Err(failed(io::Error::other("too many entries")));
        }
    }
    Ok(found)
}

/// Folders directly below `/` that every sandbox has of its own.
const OURS: [&str; 3] = ["proc", "dev", "tmp"];

/// The finished root, not yet entered.
pub(crate) struct Assembled {
    root: Folder,
    /// Holds everything that the command writes; lives as long as somebody holds it.
    pub(crate) scratch: OwnedFd,
}

/// Puts the root together.
pub(crate) fn assemble(job: &Job, sources: Sources) -> Result<Assembled, SandboxError> {
    let what = "root file system";
    attach(&memory("1m", "4096").map_err(isolation(what))?, CWD, WORKSHOP).map_err(isolation(what))?;
    let workshop = Path::new(WORKSHOP);
    for name in ["root", "lower", "scratch"] {
        std::fs::create_dir(workshop.join(name)).map_err(isolation(what))?;
    }
    let bytes = job.limits.disk.0.to_string();
    let disk = memory(&bytes, &job.limits.inodes.to_string()).map_err(isolation(what))?;
    attach(&disk, CWD, workshop.join("scratch")).map_err(isolation(what))?;
    for name in ["upper", "work", "tmp", "shm", "output", "folders"] {
        std::fs::create_dir(workshop.join("scratch").join(name)).map_err(isolation(what))?;
    }
    for name in ["tmp", "shm"] {
        // As everywhere: anyone may make files there, and remove only their own.
        let mode = Mode::from_raw_mode(0o1777);
        rustix::fs::chmod(workshop.join("scratch").join(name), mode).map_err(isolation(what))?;
    }
    let root = lower_root(sources.tree)?;
    devices(&root, sources.devices)?;
    attach_inside(&root, Path::new("/tmp"), &scratch("tmp")?)?;
    for (number, path) in job.scratch.iter().enumerate() {
        let name = format!("folders/{number}");
        std::fs::create_dir(workshop.join("scratch").join(&name)).map_err(isolation(what))?;
        attach_inside(&root, path, &scratch(&name)?)?;
    }
    if let Some(output) = &job.output {
        attach_inside(&root, &output.inside, &scratch("output")?)?;
    }
    for (mount, source) in job.mounts.iter().zip(&sources.mounts) {
        attach_inside(&root, &mount.target, source)?;
        let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
        if mount.access == Access::ReadOnly {
            flags |= MountFlags::RDONLY;
        }
        let point = root.find(&mount.target).map_err(target(&mount.target))?;
        remount(&point, flags).map_err(target(&mount.target))?;
    }
    Ok(Assembled { root, scratch: disk })
}

impl Assembled {
    /// Mounts `/proc` for this process's PID namespace, sets what is set through it, closes it,
    /// and makes everything the root; of the host's root nothing remains. Gives `pid_max`.
    pub(crate) fn enter(&self, job: &Job) -> Result<Option<u32>, SandboxError> {
        let failed = || isolation("/proc");
        let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed())?;
        fsconfig_create(context.as_fd()).map_err(failed())?;
        let attributes =
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let proc = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes);
        attach_inside(&self.root, Path::new("/proc"), &proc.map_err(failed())?)?;
        let pid_max = kernel_settings(job, &Path::new(WORKSHOP).join("root/proc/sys"))?;
        self.close_proc().map_err(failed())?;
        if job.root.writing == Writing::Refused {
            remount(&self.root.0, MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV)
                .map_err(isolation("read-only root"))?;
        }
        let failed = || isolation("pivot_root");
        rustix::process::fchdir(&self.root.0).map_err(failed())?;
        // With both paths equal the old root comes to lie over the new one, until it is unmounted.
        rustix::process::pivot_root(".", ".").map_err(failed())?;
        unmount(".", UnmountFlags::DETACH).map_err(failed())?;
        std::env::set_current_dir("/").map_err(isolation("pivot_root"))?;
        Ok(pid_max)
    }

    fn close_proc(&self) -> Result<(), Errno> {
        let null = self.root.find(Path::new("/dev/null"))?;
        for name in ["sys", "sysrq-trigger", "irq", "bus", "fs", "driver", "mtrr"] {
            let path = Path::new("/proc").join(name);
            let Ok(found) = self.root.find(&path) else { continue };
            attach(&clone(&found, "")?, &found, "")?;
            remount(&self.root.find(&path)?, MountFlags::RDONLY | PROC_FLAGS)?;
        }
        for name in [
            "kcore",
            "keys",
            "key-users",
            "kmsg",
            "timer_list",
            "latency_stats",
            "sched_debug",
            "kpagecount",
            "kpageflags",
            "kpagecgroup",
            "vmallocinfo",
            "kallsyms",
            "acpi",
            "scsi",
            "asound",
            "interrupts",
        ] {
            let path = Path::new("/proc").join(name);
            let Ok(found) = self.root.find(&path) else { continue };
            if FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) == FileType::Directory {
                attach(&memory("0", "2")?, &found, "")?;
                remount(&self.root.find(&path)?, MountFlags::RDONLY | PROC_FLAGS)?;
            } else {
                attach(&clone(&null, "")?, &found, "")?;
            }
        }
        Ok(())
    }
}

const PROC_FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// Nested user namespaces are forbidden; process ids are bounded where the kernel can.
fn kernel_settings(job: &Job, settings: &Path) -> Result<Option<u32>, SandboxError> {
    let set = |name: &str, value: u32| -> io::Result<()> {
        let file = std::fs::OpenOptions::new().write(true).open(settings.join(name))?;
        io::Write::write_all(&mut { file }, value.to_string().as_bytes())
    };
    set("user/max_user_namespaces", 0).map_err(isolation("no nested user namespaces"))?;
    // The kernel takes no less than 301 (RESERVED_PIDS is 300). Process 1 and the runner are ours,
    // and an id is free again only when its process has been waited for.
    let wanted = job.limits.processes.saturating_add(8).max(301);
    // Before Linux 6.14 the setting is the whole machine's, and refuses us.
    Ok(set("kernel/pid_max", wanted).is_ok().then_some(wanted))
}

fn lower_root(tree: Tree) -> Result<Folder, SandboxError> {
    let failed = || isolation("root file system");
    let workshop = Path::new(WORKSHOP);
    let point = workshop.join("root");
    match tree {
        Tree::Overlay(tree) => {
            let lower = workshop.join("lower");
            attach(&tree, CWD, &lower).map_err(failed())?;
            let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed())?;
            let scratch = workshop.join("scratch");
            let layers = [("lowerdir", lower), ("upperdir", scratch.join("upper")), ("workdir", scratch.join("work"))];
            for (name, path) in layers {
                fsconfig_set_string(context.as_fd(), name, path).map_err(failed())?;
            }
            fsconfig_set_flag(context.as_fd(), "userxattr").map_err(failed())?;
            fsconfig_create(context.as_fd()).map_err(failed())?;
            let mounted = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, STRICT);
            attach(&mounted.map_err(failed())?, CWD, &point).map_err(failed())?;
            Folder::open(&point).map_err(failed())
        }
        Tree::Entries(entries) => {
            attach(&memory("1m", "4096").map_err(failed())?, CWD, &point).map_err(failed())?;
            let root = Folder::open(&point).map_err(failed())?;
            for (name, entry) in entries {
                let inside = Path::new("/").join(&name);
                match entry {
                    Entry::Link(to) => {
                        rustix::fs::symlinkat(&to, &root.0, &name).map_err(target(&inside))?;
                    }
                    Entry::Mounted(tree) => {
                        attach_inside(&root, &inside, &tree)?;
                        let mounted = root.find(&inside).map_err(target(&inside))?;
                        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
                        remount(&mounted, flags).map_err(target(&inside))?;
                    }
                }
            }
            Ok(root)
        }
    }
}

fn devices(root: &Folder, sources: Vec<OwnedFd>) -> Result<(), SandboxError> {
    let failed = || isolation("/dev");
    // Without NODEV: the nodes below are mounts of their own, which keep the host's flags.
    attach_inside(root, Path::new("/dev"), &memory("64k", "64").map_err(failed())?)?;
    for (name, source) in DEVICES.iter().zip(sources) {
        attach_inside(root, &Path::new("/dev").join(name), &source)?;
    }
    attach_inside(root, Path::new("/dev/shm"), &scratch("shm")?)?;
    let dev = root.find(Path::new("/dev")).map_err(failed())?;
    let links = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ];
    for (name, to) in links {
        rustix::fs::symlinkat(to, &dev, name).map_err(failed())?;
    }
    remount(&dev, MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NOEXEC).map_err(failed())
}

/// A folder of the bounded disk, as a mount of its own.
fn scratch(name: &str) -> Result<OwnedFd, SandboxError> {
    let path = Path::new(WORKSHOP).join("scratch").join(name);
    clone(CWD, path).map_err(isolation("bounded disk"))
}

const STRICT: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// A memory file system with these bounds, not attached yet.
fn memory(size: &str, inodes: &str) -> Result<OwnedFd, Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // A size of 0 would mean none at all.
    let options = [("size", if size == "0" { "4k" } else { size }), ("nr_inodes", inodes), ("mode", "755")];
    for (name, value) in options {
        fsconfig_set_string(context.as_fd(), name, value)?;
    }
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, STRICT)
}

/// A detached copy of the mount at `path`, from there downwards. What is mounted below is not
/// copied: the kernel refuses to uncover it, and so do we.
fn clone(at: impl AsFd, path: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(at, path, flags)
}

fn attach(mount: &OwnedFd, at: impl AsFd, path: impl rustix::path::Arg) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", at, path, flags)
}

fn attach_inside(root: &Folder, path: &Path, mount: &OwnedFd) -> Result<(), SandboxError> {
    let kind = FileType::from_raw_mode(rustix::fs::fstat(mount).map_err(target(path))?.st_mode);
    let point = root.make(path, kind).map_err(target(path))?;
    attach(mount, &point, "").map_err(target(path))
}

fn target(path: &Path) -> impl FnOnce(Errno) -> SandboxError {
    let path = path.to_owned();
    move |error| {
        let problem = match error {
            Errno::LOOP | Errno::NOTDIR => "a part of it is a symbolic link or no folder".to_owned(),
            error => io::Error::from(error).to_string(),
        };
        SandboxError::Target { path, problem }
    }
}

/// Changes the flags of one mount, keeping those that the host has set and that the kernel locks.
fn remount(mount: &OwnedFd, flags: MountFlags) -> Result<(), Errno> {
    let host = rustix::fs::fstatvfs(mount)?.f_flag;
    let mut kept = flags | MountFlags::BIND;
    for (number, flag) in [
        (libc::ST_RDONLY, MountFlags::RDONLY),
        (libc::ST_NOSUID, MountFlags::NOSUID),
        (libc::ST_NODEV, MountFlags::NODEV),
        (libc::ST_NOEXEC, MountFlags::NOEXEC),
        (libc::ST_NOATIME, MountFlags::NOATIME),
        (libc::ST_NODIRATIME, MountFlags::NODIRATIME),
        (libc::ST_RELATIME, MountFlags::RELATIME),
    ] {
        if host.bits() & number != 0 {
            kept |= flag;
        }
    }
    mount_remount(format!("/proc/self/fd/{}", mount.as_raw_fd()), kept, "")
}

/// An open folder below which paths are walked without ever following a link.
struct Folder(OwnedFd);

const WALK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Folder {
    fn open(path: &Path) -> Result<Self, Errno> {
        Ok(Self(rustix::fs::open(path, WALK | OFlags::DIRECTORY, Mode::empty())?))
    }

    fn find(&self, path: &Path) -> Result<OwnedFd, Errno> {
        self.walk(path, |_, _, _| Err(Errno::NOENT))
    }

    /// Finds `path`, making what is missing: folders, and at the end one of `kind`.
    fn make(&self, path: &Path, kind: FileType) -> Result<OwnedFd, Errno> {
        let found = self.walk(path, |at, name, last| {
            if last && kind != FileType::Directory {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                rustix::fs::openat(at, name, flags, Mode::from_raw_mode(0o644)).map(drop)
            } else {
                rustix::fs::mkdirat(at, name, Mode::from_raw_mode(0o755))
            }
        })?;
        let there = FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
        if (there == FileType::Directory) == (kind == FileType::Directory) {
            return Ok(found);
        }
        Err(Errno::NOTDIR)
    }

    fn walk(
        &self,
        path: &Path,
        missing: impl Fn(&OwnedFd, &OsStr, bool) -> Result<(), Errno>,
    ) -> Result<OwnedFd, Errno> {
        let mut here = rustix::io::fcntl_dupfd_cloexec(&self.0, 3)?;
        let mut parts = path.components().skip(1).peekable();
        while let Some(part) = parts.next() {
            let name = part.as_os_str();
            let last = parts.peek().is_none();
            let flags = if last { WALK } else { WALK | OFlags::DIRECTORY };
            let mut next = rustix::fs::openat(&here, name, flags, Mode::empty());
            if next.as_ref().err() == Some(&Errno::NOENT) {
                missing(&here, name, last)?;
                next = rustix::fs::openat(&here, name, flags, Mode::empty());
            }
            here = next?;
        }
        let found = rustix::fs::statat(&here, "", AtFlags::EMPTY_PATH)?;
        if FileType::from_raw_mode(found.st_mode) == FileType::Symlink {
            return Err(Errno::LOOP);
        }
        Ok(here)
    }
}
