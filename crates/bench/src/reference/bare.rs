//! A sandbox's job without the sandbox.
//!
//! The same program sees the same root file system, folders, variables and user, in the same kind
//! of memory file system. A user and a mount namespace make that possible without touching the
//! tree; there is nothing else: no filter of system calls, no landlock, no control group, no limits,
//! no other namespace, nobody who supervises, and no outputs copied.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chroot, getgid, getuid};
use sandbox::Job;

/// Where the root is put together; what the host has there is hidden from this process only.
const WORKSHOP: &str = "/mnt";

/// Becomes the job's program.
pub(super) fn run(file: &Path) -> anyhow::Result<()> {
    let job: Job = serde_json::from_slice(&fs::read(file)?).with_context(|| format!("`{}`", file.display()))?;
    // As the sandbox does: the kernel shares the processors out among sessions, so that on a busy
    // machine the one that stayed in ours would get another share.
    nix::unistd::setsid().context("a session of its own")?;
    own_namespaces(&job)?;
    let root = Path::new(WORKSHOP);
    mount(Some("bare"), root, Some("tmpfs"), MsFlags::empty(), Some("size=75%")).context("a memory file system")?;
    for entry in fs::read_dir(&job.root.tree)? {
        let entry = entry?;
        let (kind, to) = (entry.file_type()?, root.join(entry.file_name()));
        let own = ["proc", "dev", "tmp"].iter().any(|name| entry.file_name() == *name);
        if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, &to)?;
        } else if kind.is_dir() && !own {
            show(&entry.path(), &to)?;
            keep(&to)?;
        }
    }
    show(Path::new("/proc"), &root.join("proc"))?;
    show(Path::new("/dev"), &root.join("dev"))?;
    for shown in &job.mounts {
        let to = inside(root, &shown.target);
        show(&shown.source, &to)?;
        keep(&to)?;
    }
    let output = job.output.iter().map(|output| &output.inside);
    for folder in job.scratch.iter().chain(output).chain([&PathBuf::from("/tmp")]) {
        fs::create_dir_all(inside(root, folder))?;
    }
    chroot(root).context("chroot")?;
    std::env::set_current_dir(&job.folder)?;
    umask(Mode::from_bits_truncate(u32::from(job.umask.0)));
    let mut command = std::process::Command::new(&job.program);
    let error = command.args(&job.arguments).env_clear().envs(&job.environment).exec();
    Err(error).with_context(|| format!("`{}` could not be started", job.program.display()))
}

/// This process becomes the job's user, who may mount until the program runs.
fn own_namespaces(job: &Job) -> anyhow::Result<()> {
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).context("user and mount namespace")?;
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{} {uid} 1", job.user.uid)),
        ("gid_map", format!("{} {gid} 1", job.user.gid)),
    ] {
        let file = Path::new("/proc/self").join(file);
        // A kernel interface, not a file.
        let mut open = fs::OpenOptions::new().write(true).open(&file)?;
        std::io::Write::write_all(&mut open, text.as_bytes()).with_context(|| format!("`{}`", file.display()))?;
    }
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("private mounts")
}

fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn show(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(from), to, None::<&str>, flags, None::<&str>).with_context(|| format!("showing `{}`", from.display()))
}

/// Nothing may be written there: the tree is somebody's environment, and as such is checked.
fn keep(shown: &Path) -> anyhow::Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(None::<&str>, shown, None::<&str>, flags, None::<&str>).with_context(|| format!("`{}`", shown.display()))
}
