//! The system calls that the command cannot make (seccomp).
//!
//! A list of what is refused, not of what is allowed: builds run anything that a distribution
//! ships, and the same list must hold on every builder, whatever its kernel.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};
use stdx::Digest;

use crate::error::{SandboxError, isolation};

/// Refused with EPERM, as if the privilege were missing.
const REFUSED: &[i64] = &[
    // Mounts and roots.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    SYS_OPEN_TREE_ATTR,
    SYS_STATMOUNT,
    SYS_LISTMOUNT,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    // Namespaces.
    libc::SYS_unshare,
    libc::SYS_setns,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    // The kernel and the machine.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    libc::SYS_userfaultfd,
    libc::SYS_fanotify_init,
    libc::SYS_open_by_handle_at,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    SYS_LSM_SET_SELF_ATTR,
    // Keys are shared beyond the sandbox.
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
];

/// Refused with ENOSYS, so that programs take their other way.
const ABSENT: &[i64] = &[
    // Its flags lie in memory, where no filter sees them; `clone` is the other way.
    libc::SYS_clone3,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Memory that belongs to no process and no bounded disk.
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_shmget,
];

#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[i64] = &[
    libc::SYS_kexec_file_load,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS__sysctl,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[i64] = &[libc::SYS_kexec_file_load];

// Newer than the constants of the libc crate; the same numbers on every architecture.
const SYS_STATMOUNT: i64 = 457;
const SYS_LISTMOUNT: i64 = 458;
const SYS_LSM_SET_SELF_ATTR: i64 = 460;
const SYS_OPEN_TREE_ATTR: i64 = 467;

/// Installs the filters for this process and all its descendants; gives their digest.
pub(crate) fn restrict_calls() -> Result<Digest, SandboxError> {
    let (absent, refused) = programs()?;
    install(&[absent, refused])
}

/// Installs filters, each of which must let a call pass; gives their digest.
pub(crate) fn install(programs: &[BpfProgram]) -> Result<Digest, SandboxError> {
    let failed = || isolation("seccomp");
    let mut bytes = Vec::new();
    for program in programs {
        for step in program {
            bytes.extend(step.code.to_le_bytes());
            bytes.extend([step.jt, step.jf]);
            bytes.extend(step.k.to_le_bytes());
        }
        seccompiler::apply_filter(program).map_err(failed())?;
    }
    Ok(Digest::of(&bytes))
}

fn programs() -> Result<(BpfProgram, BpfProgram), SandboxError> {
    let absent = ABSENT.iter().map(|number| (*number, Vec::new())).collect();
    let mut absent = compile(absent, SeccompAction::Allow, errno(libc::ENOSYS))?;
    if cfg!(target_arch = "x86_64") {
        absent.splice(0..0, refuse_x32());
    }
    let numbers = REFUSED.iter().chain(REFUSED_HERE);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = numbers.map(|number| (*number, Vec::new())).collect();
    rules.insert(libc::SYS_clone, new_namespaces()?);
    rules.insert(libc::SYS_ioctl, terminal_injection()?);
    rules.insert(libc::SYS_socket, foreign_sockets()?);
    // On itself any process may; on the first process, which has our user, it must not.
    let another = condition(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, 0)?;
    rules.insert(libc::SYS_prlimit64, vec![rule(vec![another])?]);
    Ok((absent, compile(rules, SeccompAction::Allow, errno(libc::EPERM))?))
}

/// A program that does `matching` for calls that meet a rule, and `other` for all others.
pub(crate) fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    other: SeccompAction,
    matching: SeccompAction,
) -> Result<BpfProgram, SandboxError> {
    let failed = || isolation("seccomp");
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(failed())?;
    // Another architecture's calls have other numbers: the generated head kills for those.
    let filter = SeccompFilter::new(rules, other, matching, arch).map_err(failed())?;
    filter.try_into().map_err(failed())
}

pub(crate) fn errno(error: libc::c_int) -> SeccompAction {
    SeccompAction::Errno(error.unsigned_abs())
}

/// `clone` with any flag of a new namespace.
fn new_namespaces() -> Result<Vec<SeccompRule>, SandboxError> {
    let flags = [
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWCGROUP,
        CLONE_NEWTIME,
    ];
    flags
        .iter()
        .map(|flag| {
            let flag = u64::from(flag.unsigned_abs());
            let masked = SeccompCmpOp::MaskedEq(flag);
            rule(vec![condition(0, SeccompCmpArgLen::Qword, masked, flag)?])
        })
        .collect()
}

/// Shares its bit with `CSIGNAL`, where no signal has it.
const CLONE_NEWTIME: libc::c_int = 0x80;

/// Typing into the caller's terminal, and what else terminals have been abused for.
fn terminal_injection() -> Result<Vec<SeccompRule>, SandboxError> {
    let requests = [libc::TIOCSTI, libc::TIOCLINUX, libc::TIOCSETD, libc::TIOCCONS];
    requests
        .iter()
        // The kernel looks at the lower half only, and so must we.
        .map(|request| rule(vec![equals(1, *request)?]))
        .collect()
}

/// Unix and Internet sockets are of use within the sandbox; everything else is attack surface.
fn foreign_sockets() -> Result<Vec<SeccompRule>, SandboxError> {
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];
    let differs = |family: &libc::c_int| {
        let family = u64::from(family.unsigned_abs());
        condition(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family)
    };
    Ok(vec![rule(families.iter().map(differs).collect::<Result<_, _>>()?)?])
}

pub(crate) fn equals(argument: u8, value: u64) -> Result<SeccompCondition, SandboxError> {
    condition(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

pub(crate) fn condition(
    argument: u8,
    length: SeccompCmpArgLen,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, SandboxError> {
    SeccompCondition::new(argument, length, operator, value).map_err(isolation("seccomp"))
}

pub(crate) fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, SandboxError> {
    SeccompRule::new(conditions).map_err(isolation("seccomp"))
}

/// x32 calls pass for x86-64 ones, with bit 30 set in their number, and would pass the lists.
pub(crate) fn refuse_x32() -> [sock_filter; 3] {
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    [
        // BPF_LD|BPF_W|BPF_ABS: the number, at offset 0 of struct seccomp_data.
        step(0x20, 0, 0, 0),
        // BPF_JMP|BPF_JGE|BPF_K; x86-64 has no calls that high.
        step(0x35, 0, 1, 0x4000_0000),
        // BPF_RET|BPF_K: SECCOMP_RET_ERRNO and ENOSYS.
        step(0x06, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs()),
    ]
}
