//! The supervisor: outside of the namespaces, it watches time, disk and its caller, ends
//! everything, copies the output and cleans up.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::wait::waitpid;
use stdx::{Clock, SystemClock};

use crate::cgroup::Groups;
use crate::collect;
use crate::descriptors;
use crate::error::{SandboxError, isolation, lost};
use crate::job::{ByteSize, Cgroups, HostUser, Job, User, Writing};
use crate::outcome::{Evidence, Status};
use crate::sample::sum_of;
use crate::unshare::write_maps;
use crate::wire::{self, Ended, Identity, Mapper, Message, Order, Report};

/// How often disk, memory and time are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(20);

/// Setting up takes about 10 ms; a machine that needs this long is not working.
const SETUP_MAX: Duration = Duration::from_secs(60);

/// Runs the job that the caller sends, and reports.
pub(crate) fn supervise() -> Result<(), SandboxError> {
    descriptors::close_inherited().map_err(lost("closing inherited descriptors"))?;
    let caller = descriptors::control().map_err(lost("control"))?;
    // A signal to the caller's terminal must not end us before we have cleaned up.
    nix::unistd::setsid().map_err(lost("setsid"))?;
    let Some(job) = wire::receive::<Job>(&caller).map_err(lost("reading the job"))? else {
        return Ok(());
    };
    let report = Supervision::start(&job, &caller).and_then(Supervision::finish);
    match wire::send(&caller, &report) {
        // The caller is gone; there is nobody to tell.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        sent => sent.map_err(lost("reporting")),
    }
}

struct Supervision<'a> {
    job: &'a Job,
    caller: &'a UnixStream,
    clock: SystemClock,
    inside: Inside,
    scratch: Option<OwnedFd>,
    evidence: Option<Evidence>,
    ended: Option<Ended>,
    started: Duration,
}

/// The processes and control groups of the sandbox. Dropping it ends and removes all of them.
struct Inside {
    child: Child,
    control: UnixStream,
    groups: Groups,
}

impl<'a> Supervision<'a> {
    fn start(job: &'a Job, caller: &'a UnixStream) -> Result<Self, SandboxError> {
        job.validate()?;
        let identity = identity(job)?;
        check_owner(job, identity.host)?;
        // The first process inside becomes ours when its parent dies, so that we can wait for it:
        // the kernel lets it be reaped only after everything in its namespace is gone.
        prctl::set_child_subreaper(true).map_err(isolation("child subreaper"))?;
        let groups = match job.cgroups {
            Cgroups::Auto => Groups::create(&job.limits),
            Cgroups::Without => Groups::default(),
        };
        let (control, theirs) = UnixStream::pair().map_err(lost("control"))?;
        let child = Command::new("/proc/self/exe")
            .arg("unshare")
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .spawn()
            .map_err(lost("starting a stage"))?;
        let inside = Inside { child, control, groups };
        inside.groups.add(inside.child.id()).map_err(isolation("entering a control group"))?;
        wire::send(&inside.control, &identity).map_err(lost("the stage takes no identity"))?;
        match wire::receive(&inside.control).map_err(lost("unsharing"))? {
            Some(Message::Unshared) => {}
            Some(Message::Failed(error)) => return Err(error),
            _ => return Err(SandboxError::Lost { problem: "unsharing".to_owned() }),
        }
        if identity.mapper == Mapper::Supervisor {
            let process = format!("/proc/{}", inside.child.id());
            write_maps(&process, &identity).map_err(isolation("user namespace maps"))?;
        }
        wire::send(&inside.control, &Order::Mapped).map_err(lost("mapping"))?;
        let run = Order::Run(Box::new(job.clone()), identity.host);
        wire::send(&inside.control, &run).map_err(lost("the first process takes no job"))?;
        let clock = SystemClock::default();
        let started = clock.monotonic();
        Ok(Self { job, caller, clock, inside, scratch: None, evidence: None, ended: None, started })
    }

    /// Watches until the command ended or has to be ended; then cleans up and copies.
    fn finish(mut self) -> Result<Report, SandboxError> {
        let verdict = self.watch()?;
        let wall = self.clock.monotonic().saturating_sub(self.started);
        // What it had filled or exceeded at its very end is known only now.
        let verdict = verdict.or_else(|| self.exceeded(&self.ended));
        let Self { job, mut inside, scratch, evidence, ended, .. } = self;
        inside.end();
        let killed_for_memory = inside.groups.out_of_memory();
        drop(inside);
        let mut ended = ended.unwrap_or_else(used_by_children);
        ended.status = match (verdict, ended.status) {
            (Some(verdict), _) => verdict,
            (None, Status::Exited(0)) => Status::Exited(0),
            (None, _) if killed_for_memory => Status::MemoryLimit,
            (None, status) => status,
        };
        let mut output = None;
        if let (Status::Exited(0), Some(wanted), Some(scratch)) = (&ended.status, &job.output, scratch) {
            match collect::copy(scratch.as_fd(), wanted, &job.limits)? {
                Ok(copied) => output = Some(copied),
                Err(bad) => ended.status = bad,
            }
        }
        let evidence = evidence
            .ok_or_else(|| SandboxError::Lost { problem: "it was ended before the command was started".to_owned() })?;
        Ok(Report { ended, wall, output, evidence })
    }

    /// The status for which everything has to be ended, or none if the command ended by itself.
    fn watch(&mut self) -> Result<Option<Status>, SandboxError> {
        loop {
            let (caller, inside) = self.wait()?;
            if inside {
                match wire::receive(&self.inside.control).map_err(lost("first process"))? {
                    Some(Message::Scratch) => {
                        let folder = descriptors::receive_folder(&self.inside.control);
                        self.scratch = Some(folder.map_err(lost("scratch folder"))?);
                    }
                    Some(Message::Started(mut evidence)) => {
                        evidence.cgroups = self.inside.groups.names();
                        self.evidence = Some(evidence);
                        self.started = self.clock.monotonic();
                    }
                    Some(Message::Ended(ended)) => {
                        self.ended = Some(ended);
                        return Ok(None);
                    }
                    Some(Message::Failed(error)) => return Err(error),
                    Some(Message::Unshared) => {}
                    // The kernel's own OOM killer may take the first process too.
                    None if self.inside.groups.out_of_memory() => {
                        return Ok(Some(Status::MemoryLimit));
                    }
                    None => {
                        let problem = "the first process inside vanished".to_owned();
                        return Err(SandboxError::Lost { problem });
                    }
                }
            }
            // The caller never sends again: it has shut its end, or died. Setting up takes
            // milliseconds and is let to its end, so that there is always evidence of what ran.
            if caller && self.evidence.is_some() {
                return Ok(Some(Status::Cancelled));
            }
            let elapsed = self.clock.monotonic().saturating_sub(self.started);
            if self.evidence.is_none() && elapsed > SETUP_MAX {
                return Err(SandboxError::Lost { problem: "setting up takes too long".to_owned() });
            }
            if self.evidence.is_some() && elapsed > self.job.limits.wall {
                return Ok(Some(Status::TimeLimit));
            }
            if self.evidence.is_some()
                && let Some(status) = self.exceeded(&None)
            {
                return Ok(Some(status));
            }
        }
    }

    fn wait(&self) -> Result<(bool, bool), SandboxError> {
        let mut polled = [
            PollFd::new(self.caller.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.inside.control.as_fd(), PollFlags::POLLIN),
        ];
        let timeout = PollTimeout::try_from(TICK).unwrap_or(PollTimeout::ZERO);
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(lost("poll")(error)),
        }
        let [caller, inside] = polled.map(|fd| fd.any().unwrap_or_default());
        Ok((caller, inside))
    }

    /// Limits that are seen from outside. A command that succeeded may have filled its disk.
    fn exceeded(&self, ended: &Option<Ended>) -> Option<Status> {
        if matches!(ended, Some(Ended { status: Status::Exited(0), .. })) {
            return None;
        }
        let full = self.scratch.as_ref().and_then(|scratch| rustix::fs::fstatvfs(scratch).ok());
        // A disk of memory is full when no page or no inode is left.
        if full.is_some_and(|disk| disk.f_bavail == 0 || disk.f_favail == 0) {
            return Some(Status::DiskLimit);
        }
        if self.inside.groups.anonymous_memory() > self.job.limits.memory {
            return Some(Status::MemoryLimit);
        }
        if self.inside.groups.too_many_processes() {
            return Some(Status::ProcessLimit);
        }
        memory_is_short().then_some(Status::MemoryLimit)
    }
}

impl Inside {
    /// Kills everything and waits until the kernel says that nothing is left.
    fn end(&mut self) {
        // The first process inside dies with its parent; an end of file tells it the same.
        let _ = self.control.shutdown(std::net::Shutdown::Both);
        let _ = self.child.kill();
        self.groups.kill();
        // `waitpid` fails with ECHILD once no child, ours or adopted, is left.
        while waitpid(None, None) != Err(Errno::ECHILD) {}
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.end();
        self.groups.remove();
    }
}

/// Below this the whole machine is in danger. Memory that no limit counts (socket buffers, page
/// tables) ends here at the latest.
const AVAILABLE_MEMORY_MIN: ByteSize = ByteSize::mebibytes(48);

fn memory_is_short() -> bool {
    let Ok(text) = std::fs::read_to_string("/proc/meminfo") else { return false };
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kibibytes.is_some_and(|kibibytes| kibibytes.saturating_mul(1024) < AVAILABLE_MEMORY_MIN.0)
}

/// What everything used that was ended here, our own stages with it.
fn used_by_children() -> Ended {
    let (cpu, peak_memory) =
        getrusage(UsageWho::RUSAGE_CHILDREN).map_or_else(|_| (Duration::ZERO, ByteSize(0)), |used| sum_of(&used));
    Ended { status: Status::Cancelled, cpu, peak_memory }
}

/// What belongs to nobody inside cannot be copied up, and would fail in the middle of a build.
fn check_owner(job: &Job, host: User) -> Result<(), SandboxError> {
    let path = job.root.tree.clone();
    if job.root.writing == Writing::Refused {
        return Ok(());
    }
    let problem = match std::fs::metadata(&path) {
        Ok(metadata) if metadata.uid() == host.uid => return Ok(()),
        Ok(metadata) => format!("it belongs to user {}, and an overlay needs one of user {}", metadata.uid(), host.uid),
        Err(error) => error.to_string(),
    };
    Err(SandboxError::Source { path, problem })
}

fn identity(job: &Job) -> Result<Identity, SandboxError> {
    let own = User { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() };
    let refused = |problem: &str| SandboxError::Job { field: "host_user".to_owned(), problem: problem.to_owned() };
    let (host, mapper) = match (job.host_user, own.uid) {
        (HostUser::Automatic, 0) => (User { uid: 65_534, gid: 65_534 }, Mapper::Supervisor),
        (HostUser::Automatic, _) => (own, Mapper::Itself),
        (HostUser::Chosen { uid, gid }, 0) => (User { uid, gid }, Mapper::Supervisor),
        (HostUser::Chosen { uid, gid }, _) if own == User { uid, gid } => (own, Mapper::Itself),
        (HostUser::Chosen { .. }, _) => return Err(refused("only root may choose another user")),
    };
    if host.uid == 0 || host.gid == 0 {
        return Err(refused("the command may not be root on the host"));
    }
    Ok(Identity { inside: job.user, host, mapper })
}
