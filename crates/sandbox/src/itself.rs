//! This very process, confined for good: no new processes, no files, no network, few system calls.

use std::path::Path;

use landlock::RulesetCreated;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_remount, unmount};
use stdx::Digest;

use crate::confine::Reached;
use crate::error::{SandboxError, isolation, lost};
use crate::job::{ByteSize, User};
use crate::unshare::{forbidden, write_maps};
use crate::wire::{Identity, Mapper};
use crate::{computing, confine, descriptors};

/// What a process that confines itself may still use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// Addresses, for all its threads together. Past it, allocations fail.
    pub memory: ByteSize,
    /// Open descriptors.
    pub open_files: u64,
}

/// How a process is confined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confined {
    /// Landlock's ABI in force.
    pub landlock_abi: u32,
    /// SHA-256 of the filters of system calls.
    pub seccomp: Digest,
}

/// Whom root becomes; the same that `clerestory-sandbox` takes for the user that owns nothing.
const NOBODY: u32 = 65_534;

/// Confines this process for good.
///
/// What is left to it are its memory, threads of its own, the clock, and the descriptors 0, 1 and
/// 2, with what is passed to it over them. Everything else (opening, connecting, executing,
/// looking at other processes, memory that can be executed) kills it with SIGSYS.
///
/// It must be called by a process of one thread, before it reads anything that it does not trust;
/// threads that start later are confined as well. It does not end with its parent by itself: a
/// signal would come already when the parent's *thread* ends. It reads a socket of its parent's.
///
/// # Errors
/// If any of it can't be had; the process must end then.
pub fn confine_self(confinement: &Confinement) -> Result<Confined, SandboxError> {
    descriptors::close_inherited().map_err(lost("closing inherited descriptors"))?;
    become_nobody()?;
    enter_namespaces()?;
    empty_root().map_err(isolation("an empty root"))?;
    limit(confinement)?;
    confine::drop_capabilities()?;
    prctl::set_no_new_privs().map_err(isolation("no new privileges"))?;
    // Nobody else with our user may look into us.
    prctl::set_dumpable(false).map_err(isolation("hiding from other processes"))?;
    let landlock_abi = refuse_files()?;
    let seccomp = computing::allow_computing()?;
    Ok(Confined { landlock_abi, seccomp })
}

fn become_nobody() -> Result<(), SandboxError> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    setgroups(&[]).map_err(isolation("dropping groups"))?;
    setresgid(gid, gid, gid).map_err(isolation("group"))?;
    setresuid(uid, uid, uid).map_err(isolation("user"))?;
    // Changing the user hides our own maps from ourselves.
    prctl::set_dumpable(true).map_err(isolation("user"))
}

fn enter_namespaces() -> Result<(), SandboxError> {
    let own = User { uid: Uid::effective().as_raw(), gid: Gid::effective().as_raw() };
    // Alone first, so that its refusal can be told from that of the others.
    unshare(CloneFlags::CLONE_NEWUSER).map_err(forbidden)?;
    let identity = Identity { inside: User { uid: NOBODY, gid: NOBODY }, host: own, mapper: Mapper::Itself };
    write_maps("/proc/self", &identity).map_err(forbidden)?;
    // No PID namespace: a process that has unshared it starts no more threads. What it would keep
    // out of sight (signals, ptrace) the filter refuses.
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(namespaces).map_err(isolation("mount, network, UTS, IPC and cgroup namespaces"))
}

/// An empty folder that can't be written to takes the place of every file of the host.
fn empty_root() -> rustix::io::Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    // A folder that is on every machine, and of which nothing is needed any more.
    let place = Path::new("/proc");
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("none", place, "tmpfs", flags, c"size=4k,nr_inodes=1,mode=0555")?;
    rustix::process::chdir(place)?;
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    mount_remount("/", flags | MountFlags::RDONLY, "")
}

fn limit(confinement: &Confinement) -> Result<(), SandboxError> {
    let set = |resource: Resource, value: u64| setrlimit(resource, value, value).map_err(isolation("rlimits"));
    set(Resource::RLIMIT_AS, confinement.memory.0)?;
    set(Resource::RLIMIT_NOFILE, confinement.open_files)?;
    set(Resource::RLIMIT_FSIZE, 0)?;
    set(Resource::RLIMIT_CORE, 0)?;
    set(Resource::RLIMIT_MEMLOCK, 0)?;
    set(Resource::RLIMIT_MSGQUEUE, 0)
}

/// Landlock without a single exception.
fn refuse_files() -> Result<u32, SandboxError> {
    let failed = || isolation("landlock");
    let ruleset = confine::bounded(confine::abi_of_kernel()?, Reached::Nothing).map_err(failed())?;
    confine::enforced(&ruleset.create().and_then(RulesetCreated::restrict_self).map_err(failed())?)
}
