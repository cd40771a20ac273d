//! What the runner takes from itself just before it becomes the command: rlimits, capabilities,
//! files (landlock), system calls (seccomp).

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::personality::{self, Persona};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::Pid;
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits,
};

use crate::error::{SandboxError, isolation};
use crate::job::{Access, Job, Layout, Limits, Network, Writing};

/// Files that a build opens for writing although they are no files: everything else in `/dev` that
/// is there can only be read.
pub(crate) const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

/// Sets the bounds that each process has by itself.
pub(crate) fn limit(limits: &Limits) -> Result<(), SandboxError> {
    let set = |resource: Resource, value: u64| setrlimit(resource, value, value).map_err(isolation("rlimits"));
    // A shell turns a full second too much into a signal; the sum over processes ends it earlier.
    let seconds = limits.cpu.as_secs().saturating_add(2);
    setrlimit(Resource::RLIMIT_CPU, seconds, seconds + 2).map_err(isolation("rlimits"))?;
    // Programs reserve far more addresses than they use. The supervisor watches what they use;
    // this bounds what one can take between two looks.
    let addresses = limits.memory.0.saturating_mul(2).saturating_add(ADDRESSES_FREE);
    set(Resource::RLIMIT_AS, addresses)?;
    set(Resource::RLIMIT_NPROC, u64::from(limits.processes).saturating_add(3))?;
    set(Resource::RLIMIT_NOFILE, limits.open_files)?;
    set(Resource::RLIMIT_FSIZE, limits.file_size.0)?;
    set(Resource::RLIMIT_CORE, 0)?;
    set(Resource::RLIMIT_MEMLOCK, LOCKED_BYTES_MAX)?;
    // Kernel memory that nobody else accounts.
    set(Resource::RLIMIT_MSGQUEUE, 0)?;
    set(Resource::RLIMIT_SIGPENDING, 4096)
}

/// What runtimes with large reservations take beyond twice their memory.
const ADDRESSES_FREE: u64 = 1 << 30;

/// The kernel's own default, 8 MiB.
const LOCKED_BYTES_MAX: u64 = 8 << 20;

/// Pins to the first `count` processors and fixes addresses, if the job says so.
pub(crate) fn shape(job: &Job) -> Result<(), SandboxError> {
    if let Some(count) = job.processors {
        let failed = || isolation("processors");
        let usable = sched_getaffinity(Pid::from_raw(0)).map_err(failed())?;
        let mut wanted = CpuSet::new();
        let numbers = (0..CpuSet::count()).filter(|number| usable.is_set(*number) == Ok(true));
        for number in numbers.take(usize::from(count.get())) {
            wanted.set(number).map_err(failed())?;
        }
        sched_setaffinity(Pid::from_raw(0), &wanted).map_err(failed())?;
    }
    if job.layout == Layout::Fixed {
        let failed = || isolation("fixed address layout");
        let persona = personality::get().map_err(failed())?;
        personality::set(persona | Persona::ADDR_NO_RANDOMIZE).map_err(failed())?;
    }
    Ok(())
}

/// Gives up every capability, for good: also a root inside would get none back by `exec`.
pub(crate) fn drop_capabilities() -> Result<(), SandboxError> {
    let failed = || isolation("dropping capabilities");
    clear_ambient_capability_set().map_err(failed())?;
    let bits = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    set_capabilities_secure_bits(bits).map_err(failed())?;
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The kernel knows no further ones.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(failed()(error)),
        }
    }
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, sets).map_err(failed())
}

/// Linux 6.2: the first that also bounds truncation. What later ones add (TCP, abstract sockets,
/// signals) is bounded by the namespaces already, and taken beside that where it is there.
const LANDLOCK_ABI_MIN: ABI = ABI::V3;

/// Bounds what files, ports and processes can be reached; gives the ABI in force.
pub(crate) fn restrict_files(job: &Job) -> Result<u32, SandboxError> {
    let abi = abi_of_kernel()?;
    let failed = || isolation("landlock");
    let reached = if job.network == Network::Empty { Reached::Nothing } else { Reached::Ports };
    let mut created = bounded(abi, reached).map_err(failed())?.create().map_err(failed())?;
    created = allow(created, Path::new("/"), AccessFs::from_read(abi))?;
    let nodes = AccessFs::MakeChar | AccessFs::MakeBlock | IOCTL;
    let all = AccessFs::from_all(abi) & !nodes;
    for path in writable(job)? {
        created = allow(created, &path, all)?;
    }
    for device in DEVICES {
        let rights = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate;
        created = allow(created, &Path::new("/dev").join(device), rights)?;
    }
    enforced(&created.restrict_self().map_err(failed())?)
}

/// Which ports a ruleset leaves open.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reached {
    Nothing,
    Ports,
}

/// Everything that `abi` can bound, so far without an exception.
pub(crate) fn bounded(abi: ABI, reached: Reached) -> Result<Ruleset, landlock::RulesetError> {
    let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    ruleset = ruleset.handle_access(AccessFs::from_all(abi))?;
    if abi >= ABI::V4 && reached == Reached::Nothing {
        ruleset = ruleset.handle_access(AccessNet::from_all(abi))?;
    }
    if abi >= ABI::V6 {
        ruleset = ruleset.scope(Scope::from_all(abi))?;
    }
    Ok(ruleset)
}

/// The ABI in force, if all of the ruleset is.
pub(crate) fn enforced(status: &RestrictionStatus) -> Result<u32, SandboxError> {
    match (&status.ruleset, &status.landlock) {
        (RulesetStatus::FullyEnforced, LandlockStatus::Available { effective_abi, .. }) => Ok(*effective_abi as u32),
        (status, landlock) => Err(isolation("landlock")(format!("only {status:?} under {landlock:?}"))),
    }
}

/// A program has no business with a device's own commands.
const IOCTL: AccessFs = AccessFs::IoctlDev;

fn allow(
    ruleset: RulesetCreated,
    path: &Path,
    rights: landlock::BitFlags<AccessFs>,
) -> Result<RulesetCreated, SandboxError> {
    // The kernel refuses rights of folders on what is none.
    let rights = if path.is_dir() { rights } else { rights & AccessFs::from_file(ABI::V5) };
    let opened = PathFd::new(path).map_err(isolation("landlock"))?;
    ruleset.add_rule(PathBeneath::new(opened, rights)).map_err(isolation("landlock"))
}

fn writable(job: &Job) -> Result<Vec<PathBuf>, SandboxError> {
    let mut paths = vec![PathBuf::from("/tmp"), PathBuf::from("/dev/shm")];
    paths.extend(job.scratch.iter().cloned());
    paths.extend(job.output.iter().map(|output| output.inside.clone()));
    let mounts = job.mounts.iter().filter(|mount| mount.access == Access::Writable);
    paths.extend(mounts.map(|mount| mount.target.clone()));
    if job.root.writing == Writing::Overlay {
        // Landlock only adds rights downwards, so `/` itself stays closed for the sake of `/proc`.
        for entry in std::fs::read_dir("/").map_err(isolation("landlock"))? {
            let entry = entry.map_err(isolation("landlock"))?;
            let folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if folder && !matches!(entry.file_name().to_str(), Some("proc" | "sys" | "dev")) {
                paths.push(entry.path());
            }
        }
    }
    Ok(paths)
}

/// The newest ABI that the kernel has and the crate knows, which the crate tells only by
/// enforcing: this probe restricts nothing, for it handles nothing but what ABI 1 has and then
/// is thrown away unenforced.
pub(crate) fn abi_of_kernel() -> Result<ABI, SandboxError> {
    let candidates = [ABI::V7, ABI::V6, ABI::V5, ABI::V4, LANDLOCK_ABI_MIN];
    for abi in candidates {
        if supports(abi) {
            return Ok(abi);
        }
    }
    Err(SandboxError::Isolation {
        isolation: "landlock".to_owned(),
        problem: "the kernel lacks it, or has an ABI below 3".to_owned(),
    })
}

fn supports(abi: ABI) -> bool {
    bounded(abi, Reached::Nothing).and_then(Ruleset::create).is_ok()
}
