//! The system calls of a process that only computes on what it is handed (seccomp).
//!
//! A list of what is allowed, for a program that we know: anything else is an attack or a mistake
//! of ours, and ends the whole process.

use std::collections::BTreeMap;

use nix::libc;
use nix::unistd::getpid;
use seccompiler::{SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompRule};
use stdx::Digest;

use crate::calls::{compile, condition, equals, errno, install, refuse_x32, rule};
use crate::error::SandboxError;

/// Allowed whatever the arguments.
const ALLOWED: &[i64] = &[
    // Descriptors that it has, and more of them over a socket that it has.
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_close,
    // Memory; `mmap` and `mprotect` stand below.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Threads; `clone` stands below.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    // The standard library asks for it at the start of each thread.
    libc::SYS_sched_getaffinity,
    libc::SYS_gettid,
    libc::SYS_getpid,
    // Its own signals: a full stack is told from other faults.
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    // Time and chance.
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// `prctl` names threads and their memory; newer than the constants of the libc crate.
const PR_SET_VMA: u64 = 0x5356_4d41;

/// Flags that make a clone a thread, and nothing else.
const THREAD: libc::c_int = libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_THREAD;

/// Installs the filters for this thread and all that it starts; gives their digest.
pub(crate) fn allow_computing() -> Result<Digest, SandboxError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.iter().map(|number| (*number, Vec::new())).collect();
    // Its flags lie in memory, where no filter sees them. The C library then takes `clone`.
    rules.insert(libc::SYS_clone3, Vec::new());
    let mut absent =
        compile(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), SeccompAction::Allow, errno(libc::ENOSYS))?;
    rules.insert(libc::SYS_clone, vec![masked(0, THREAD, THREAD)?]);
    rules.insert(libc::SYS_mmap, vec![never_executed()?]);
    rules.insert(libc::SYS_mprotect, vec![never_executed()?]);
    let names = [u64::from(libc::PR_SET_NAME.unsigned_abs()), PR_SET_VMA];
    let named = names.iter().map(|name| rule(vec![equals(0, *name)?])).collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_prctl, named);
    // The standard library, unoptimised, looks whether what it closes is open.
    rules.insert(libc::SYS_fcntl, vec![rule(vec![equals(1, u64::from(libc::F_GETFD.unsigned_abs()))?])?]);
    // How it aborts: a signal to itself, and to nobody else.
    rules.insert(libc::SYS_tgkill, vec![rule(vec![equals(0, u64::from(getpid().as_raw().unsigned_abs()))?])?]);
    if cfg!(target_arch = "x86_64") {
        absent.splice(0..0, refuse_x32());
    }
    let allowed = compile(rules, SeccompAction::KillProcess, SeccompAction::Allow)?;
    install(&[absent, allowed])
}

/// Memory that is no code.
fn never_executed() -> Result<SeccompRule, SandboxError> {
    masked(2, libc::PROT_EXEC, 0)
}

fn masked(argument: u8, mask: libc::c_int, value: libc::c_int) -> Result<SeccompRule, SandboxError> {
    let mask = SeccompCmpOp::MaskedEq(u64::from(mask.unsigned_abs()));
    rule(vec![condition(argument, SeccompCmpArgLen::Qword, mask, u64::from(value.unsigned_abs()))?])
}
