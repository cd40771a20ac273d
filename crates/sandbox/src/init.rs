//! The first process inside: sets everything up, starts the runner, reaps, watches, ends all.
//! And the runner: confines itself and becomes the command.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, setresgid, setresuid};
use stdx::{Clock, SystemClock};

use crate::error::{SandboxError, isolation, lost};
use crate::job::{ByteSize, Job, Limits, Network, User};
use crate::outcome::{Evidence, Status};
use crate::root::{Sources, assemble};
use crate::sample::{Processes, Seen, sum_of};
use crate::supervise::TICK;
use crate::wire::{self, Confined, Ended, Message, Order};
use crate::{calls, confine, descriptors};

/// Runs as process 1 of the PID namespace until the command ended or a limit is reached. When it
/// ends, the kernel ends everything else inside.
pub(crate) fn init() -> Result<(), SandboxError> {
    let control = descriptors::control().map_err(lost("control"))?;
    let message = match prepare_and_watch(&control) {
        Ok(ended) => Message::Ended(ended),
        Err(error) => Message::Failed(error),
    };
    wire::send(&control, &message).map_err(lost("telling the end"))
}

fn prepare_and_watch(control: &UnixStream) -> Result<Ended, SandboxError> {
    die_with_parent()?;
    let Some(Order::Run(job, host)) = wire::receive(control).map_err(lost("reading the job"))? else {
        return Err(SandboxError::Lost { problem: "the supervisor is gone".to_owned() });
    };
    // While still the caller's user, who may look where the command may not.
    let sources = Sources::open(&job)?;
    become_user(job.user)?;
    die_with_parent()?;
    // Before the old root is gone, since this program and its loader are found there.
    let (runner, process) = start_runner(&job, host)?;
    let assembled = assemble(&job, sources)?;
    nix::unistd::sethostname(job.hostname.as_str()).map_err(isolation("host name"))?;
    rustix::system::setdomainname(b"(none)").map_err(isolation("domain name"))?;
    if job.network == Network::Loopback {
        raise_loopback().map_err(isolation("loopback"))?;
    }
    let pid_max = assembled.enter(&job)?;
    wire::send(control, &Message::Scratch).map_err(lost("supervisor"))?;
    descriptors::send_folder(control, assembled.scratch.as_fd()).map_err(lost("supervisor"))?;
    drop(assembled);
    let mut evidence = evidence(&job, host, pid_max)?;
    let watch = Watch::new(process, &job.limits)?;
    wire::send(&runner, &Order::Execute).map_err(lost("runner"))?;
    loop {
        match wire::receive(&runner).map_err(lost("runner"))? {
            Some(Confined::Done { landlock_abi, seccomp }) => {
                evidence.landlock_abi = landlock_abi;
                evidence.seccomp = seccomp;
            }
            Some(Confined::Failed(error)) => return Err(error),
            Some(Confined::Ready) => return Err(SandboxError::Lost { problem: "the runner began again".to_owned() }),
            // Closed by `exec`: the runner is the command now.
            None => break,
        }
    }
    if evidence.landlock_abi == 0 {
        return Err(SandboxError::Lost { problem: "the runner died".to_owned() });
    }
    wire::send(control, &Message::Started(evidence)).map_err(lost("supervisor"))?;
    watch.until_end(control)
}

fn die_with_parent() -> Result<(), SandboxError> {
    // Changing the user clears it, so it is set again after that.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(isolation("death signal"))?;
    // Our own descriptors and memory are not for the command to look at.
    prctl::set_dumpable(false).map_err(isolation("hiding the first process"))
}

fn become_user(user: User) -> Result<(), SandboxError> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    setresgid(gid, gid, gid).map_err(isolation("group"))?;
    setresuid(uid, uid, uid).map_err(isolation("user"))
}

fn start_runner(job: &Job, host: User) -> Result<(UnixStream, Pid), SandboxError> {
    let (runner, theirs) = UnixStream::pair().map_err(lost("runner"))?;
    let child = Command::new("/proc/self/exe")
        .arg("confine")
        .env_clear()
        .stdin(OwnedFd::from(theirs))
        .spawn()
        .map_err(lost("starting the runner"))?;
    let run = Order::Run(Box::new(job.clone()), host);
    wire::send(&runner, &run).map_err(lost("the runner takes no job"))?;
    // It has been executed, but its loader may still look for libraries. Those of the new root are
    // not ours, and would run in it before it is confined.
    match wire::receive(&runner).map_err(lost("runner"))? {
        Some(Confined::Ready) => {}
        Some(Confined::Failed(error)) => return Err(error),
        Some(Confined::Done { .. }) | None => {
            return Err(SandboxError::Lost { problem: "the runner did not start".to_owned() });
        }
    }
    let process = i32::try_from(child.id()).map_err(lost("runner"))?;
    Ok((runner, Pid::from_raw(process)))
}

fn evidence(job: &Job, host: User, pid_max: Option<u32>) -> Result<Evidence, SandboxError> {
    let failed = || isolation("reading the evidence");
    let mut namespaces = BTreeMap::new();
    for name in ["user", "mnt", "pid", "net", "uts", "ipc", "cgroup"] {
        let metadata = std::fs::metadata(format!("/proc/self/ns/{name}")).map_err(failed())?;
        namespaces.insert(name.to_owned(), metadata.ino());
    }
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    Ok(Evidence {
        landlock_abi: 0,
        seccomp: stdx::Digest::of(b""),
        namespaces,
        user: job.user,
        host_user: host,
        hostname: job.hostname.clone(),
        network: job.network,
        layout: job.layout,
        limits: job.limits,
        cgroups: BTreeMap::new(),
        pid_max,
        kernel,
    })
}

/// Sets the loopback interface up, by one message of rtnetlink(7).
fn raise_loopback() -> std::io::Result<()> {
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType};
    // No protocol means NETLINK_ROUTE, which is 0.
    let socket = rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    let mut request = Vec::new();
    // struct nlmsghdr: length, RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, sequence, port.
    request.extend(32u32.to_ne_bytes());
    request.extend(16u16.to_ne_bytes());
    request.extend(5u16.to_ne_bytes());
    request.extend(1u32.to_ne_bytes());
    request.extend(0u32.to_ne_bytes());
    // struct ifinfomsg: family and type unspecified, interface 1 (always loopback), IFF_UP, mask.
    request.extend([0, 0, 0, 0]);
    request.extend(1i32.to_ne_bytes());
    request.extend(1u32.to_ne_bytes());
    request.extend(1u32.to_ne_bytes());
    rustix::net::send(&socket, &request, SendFlags::empty())?;
    let mut answer = [0; 128];
    let (count, _) = rustix::net::recv(&socket, &mut answer, RecvFlags::empty())?;
    // struct nlmsgerr follows the header of 16 bytes: a negative error number, or 0.
    let code = answer.get(16..20).filter(|_| count >= 20).and_then(|code| code.try_into().ok());
    match code.map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(code) => Err(std::io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(std::io::Error::other("no answer from rtnetlink")),
    }
}

struct Watch {
    process: Pid,
    limits: Limits,
    processes: Processes,
    children: SignalFd,
    seen: Seen,
    cpu: Duration,
    peak: ByteSize,
}

impl Watch {
    fn new(process: Pid, limits: &Limits) -> Result<Self, SandboxError> {
        let processes = Processes::open().map_err(isolation("watching processes"))?;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        // The runner was started before, so it does not inherit the mask.
        mask.thread_block().map_err(isolation("watching processes"))?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let children = SignalFd::with_flags(&mask, flags).map_err(isolation("watching processes"))?;
        Ok(Self {
            process,
            limits: *limits,
            processes,
            children,
            seen: Seen::default(),
            cpu: Duration::ZERO,
            peak: ByteSize(0),
        })
    }

    fn until_end(mut self, control: &UnixStream) -> Result<Ended, SandboxError> {
        let clock = SystemClock::default();
        let mut next_look = clock.monotonic();
        let status = loop {
            if let Some(status) = reap(self.process) {
                break status;
            }
            let now = clock.monotonic();
            if now >= next_look {
                if let Some(status) = self.look() {
                    break status;
                }
                let took = clock.monotonic().saturating_sub(now);
                // Looking at a thousand processes takes a while; it gets at most a fifth of the time.
                next_look = clock.monotonic() + TICK.max(took.saturating_mul(4));
            }
            if self.wait(control)? {
                break Status::Cancelled;
            }
        };
        // Everything else inside ends now, so that all its processor time is counted.
        let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
        while waitpid(None, None) != Err(Errno::ECHILD) {}
        let used = getrusage(UsageWho::RUSAGE_CHILDREN).map_err(lost("rusage"))?;
        let (cpu, largest) = sum_of(&used);
        let peak_memory = if self.peak.0 == 0 { largest } else { self.peak };
        Ok(Ended { status, cpu: cpu.max(self.cpu), peak_memory })
    }

    /// Waits for a child's end or the next look; whether the supervisor is gone.
    fn wait(&self, control: &UnixStream) -> Result<bool, SandboxError> {
        let mut polled =
            [PollFd::new(control.as_fd(), PollFlags::POLLIN), PollFd::new(self.children.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(TICK).unwrap_or(PollTimeout::ZERO);
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(lost("poll")(error)),
        }
        let [control, children] = polled.map(|fd| fd.any().unwrap_or_default());
        if children {
            while let Ok(Some(_)) = self.children.read_signal() {}
        }
        Ok(control)
    }

    fn look(&mut self) -> Option<Status> {
        let mut sample = self.processes.sample();
        self.peak = self.peak.max(sample.memory);
        let waited = getrusage(UsageWho::RUSAGE_CHILDREN);
        let waited = waited.map_or(Duration::ZERO, |used| sum_of(&used).0);
        self.cpu = self.cpu.max(sample.cpu + waited).max(self.seen.with(&mut sample));
        if sample.memory > self.limits.memory {
            return Some(Status::MemoryLimit);
        }
        if sample.tasks >= u64::from(self.limits.processes) {
            return Some(Status::ProcessLimit);
        }
        (self.cpu > self.limits.cpu).then_some(Status::CpuLimit)
    }
}

/// Takes every ended child; the status of `process`, if it is among them.
fn reap(process: Pid) -> Option<Status> {
    loop {
        let (ended, status) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(ended, code)) => (ended, exited(code)),
            Ok(WaitStatus::Signaled(ended, signal, _)) => (ended, signalled(signal)),
            Ok(WaitStatus::StillAlive) | Err(_) => return None,
            Ok(_) => continue,
        };
        if ended == process {
            return Some(status);
        }
    }
}

/// What a shell gives for a child ended by SIGXFSZ (25) or SIGXCPU (24).
const SHELL_FILE_SIZE: i32 = 128 + 25;
const SHELL_CPU: i32 = 128 + 24;

fn exited(code: i32) -> Status {
    match code {
        SHELL_FILE_SIZE => Status::DiskLimit,
        SHELL_CPU => Status::CpuLimit,
        code => Status::Exited(u8::try_from(code).unwrap_or(u8::MAX)),
    }
}

fn signalled(signal: Signal) -> Status {
    match signal {
        Signal::SIGXFSZ => Status::DiskLimit,
        Signal::SIGXCPU => Status::CpuLimit,
        signal => Status::Signalled(u8::try_from(signal as i32).unwrap_or(u8::MAX)),
    }
}

/// The runner: waits until the root is ready, confines itself, becomes the command.
pub(crate) fn confine_and_execute() -> Result<(), SandboxError> {
    let control = descriptors::control().map_err(lost("control"))?;
    match confine_self(&control) {
        Ok(()) => Ok(()),
        Err(error) => wire::send(&control, &Confined::Failed(error)).map_err(lost("telling a failure")),
    }
}

fn confine_self(control: &UnixStream) -> Result<(), SandboxError> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(isolation("death signal"))?;
    let gone = || SandboxError::Lost { problem: "the first process is gone".to_owned() };
    let Some(Order::Run(job, _)) = wire::receive(control).map_err(lost("job"))? else {
        return Err(gone());
    };
    wire::send(control, &Confined::Ready).map_err(lost("first process"))?;
    let Some(Order::Execute) = wire::receive(control).map_err(lost("order"))? else {
        return Err(gone());
    };
    let command_failed =
        |error: std::io::Error| SandboxError::Command { path: job.program.clone(), problem: error.to_string() };
    std::env::set_current_dir(&job.folder)
        .map_err(|error| SandboxError::Target { path: job.folder.clone(), problem: error.to_string() })?;
    umask(Mode::from_bits_truncate(u32::from(job.umask.0)));
    // A session of its own has no terminal.
    nix::unistd::setsid().map_err(isolation("session"))?;
    let mut command = Command::new(&job.program);
    command.args(&job.arguments).env_clear().envs(&job.environment).stdin(Stdio::null());
    confine::shape(&job)?;
    confine::drop_capabilities()?;
    prctl::set_no_new_privs().map_err(isolation("no new privileges"))?;
    let landlock_abi = confine::restrict_files(&job)?;
    confine::limit(&job.limits)?;
    let seccomp = calls::restrict_calls()?;
    let done = Confined::Done { landlock_abi, seccomp };
    wire::send(control, &done).map_err(lost("first process"))?;
    Err(command_failed(command.exec()))
}
