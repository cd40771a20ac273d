//! The caller's side: starts the supervisor, reads its streams, waits for its report.

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::{collections::VecDeque, net::Shutdown};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{SandboxError, lost};
use crate::job::{ByteSize, Job};
use crate::outcome::{Captured, Outcome, Status};
use crate::wire::{self, Report};

/// The sandbox's program on this machine.
#[derive(Clone, Debug)]
pub struct Sandbox {
    program: PathBuf,
}

impl Sandbox {
    /// The sandbox whose program `clerestory-sandbox` is at this path.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into() }
    }

    /// The sandbox whose program lies beside the executable that is running.
    ///
    /// # Errors
    /// [`SandboxError::Program`] if there is none.
    pub fn beside_this_program() -> Result<Self, SandboxError> {
        let own = std::env::current_exe().unwrap_or_default();
        let path = own.with_file_name("clerestory-sandbox");
        if path.is_file() {
            return Ok(Self { program: path });
        }
        Err(SandboxError::Program { path, problem: "no such file".to_owned() })
    }

    /// Runs `job` to its end, passing what it prints to `progress` as it comes.
    ///
    /// It blocks the calling thread: call it on a blocking thread in asynchronous code. Everything
    /// it started has ended when it returns; if this process dies, everything is ended too.
    ///
    /// # Errors
    /// When the command could not be run at all, or its output not be written. What the command
    /// does, limits included, is the outcome's [`Status`].
    pub fn run(
        &self,
        job: &Job,
        cancel: &Cancel,
        progress: &mut dyn FnMut(Chunk<'_>),
    ) -> Result<Outcome, SandboxError> {
        job.validate()?;
        let mut session = self.start(job)?;
        let mut stopped = None;
        while session.is_open() {
            let ready = session.wait(cancel, stopped.is_some())?;
            if ready.cancelled && stopped.is_none() {
                stopped = Some(Status::Cancelled);
                session.stop();
            }
            for stream in [Stream::Stdout, Stream::Stderr] {
                session.read(stream, &ready, progress)?;
            }
            if session.printed() > job.limits.all_output.0 && stopped.is_none() {
                stopped = Some(Status::OutputLimit);
                session.stop();
            }
            if ready.report {
                session.receive()?;
            }
        }
        session.finish(stopped)
    }

    fn start(&self, job: &Job) -> Result<Session, SandboxError> {
        let failed =
            |error: io::Error| SandboxError::Program { path: self.program.clone(), problem: error.to_string() };
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let (stdout, child_stdout) = io::pipe().map_err(failed)?;
        let (stderr, child_stderr) = io::pipe().map_err(failed)?;
        let child = Command::new(&self.program)
            .arg("supervise")
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(child_stdout)
            .stderr(child_stderr)
            .spawn()
            .map_err(failed)?;
        let session = Session {
            child,
            control: Some(ours),
            stdout: Kept::new(stdout, job.limits.kept_output),
            stderr: Kept::new(stderr, job.limits.kept_output),
            report: None,
        };
        if let Some(control) = &session.control {
            wire::send(control, job).map_err(lost("the supervisor takes no job"))?;
        }
        Ok(session)
    }
}

/// Ends a running job from another thread.
#[derive(Clone, Debug)]
pub struct Cancel {
    /// Readable once cancelled: the other end is shut.
    watched: Option<Arc<(UnixStream, UnixStream)>>,
}

impl Default for Cancel {
    fn default() -> Self {
        // Without descriptors nothing can be started either, so `run` tells the cause.
        Self { watched: UnixStream::pair().ok().map(Arc::new) }
    }
}

impl Cancel {
    /// Ends every job that was, is, or will be run with this.
    pub fn cancel(&self) {
        if let Some(pair) = &self.watched {
            // It fails only if it was shut already.
            let _ = pair.1.shutdown(Shutdown::Both);
        }
    }
}

/// Which stream something was printed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of what the command printed, as it came.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// Where.
    pub stream: Stream,
    /// What; it may begin and end within a line or a character.
    pub bytes: &'a [u8],
}

struct Session {
    child: Child,
    control: Option<UnixStream>,
    stdout: Kept,
    stderr: Kept,
    report: Option<Result<Report, SandboxError>>,
}

#[derive(Default)]
struct Ready {
    report: bool,
    stdout: bool,
    stderr: bool,
    cancelled: bool,
}

impl Session {
    fn is_open(&self) -> bool {
        self.control.is_some() || self.stdout.pipe.is_some() || self.stderr.pipe.is_some()
    }

    fn wait(&self, cancel: &Cancel, already_stopped: bool) -> Result<Ready, SandboxError> {
        let cancelled = cancel.watched.as_ref().filter(|_| !already_stopped);
        let sources = [
            self.control.as_ref().map(AsFd::as_fd),
            self.stdout.pipe.as_ref().map(AsFd::as_fd),
            self.stderr.pipe.as_ref().map(AsFd::as_fd),
            cancelled.map(|pair| pair.0.as_fd()),
        ];
        let mut polled: Vec<PollFd<'_>> =
            sources.iter().flatten().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(lost("poll")(error)),
        }
        let mut answers = polled.iter().map(|fd| fd.any().unwrap_or_default());
        let mut next = |source: Option<_>| source.is_some() && answers.next().unwrap_or_default();
        let [report, stdout, stderr, cancelled] = sources;
        Ok(Ready { report: next(report), stdout: next(stdout), stderr: next(stderr), cancelled: next(cancelled) })
    }

    fn read(&mut self, stream: Stream, ready: &Ready, progress: &mut dyn FnMut(Chunk<'_>)) -> Result<(), SandboxError> {
        let (kept, ready) = match stream {
            Stream::Stdout => (&mut self.stdout, ready.stdout),
            Stream::Stderr => (&mut self.stderr, ready.stderr),
        };
        if !ready {
            return Ok(());
        }
        let bytes = kept.read().map_err(lost("reading what was printed"))?;
        if !bytes.is_empty() {
            progress(Chunk { stream, bytes: &bytes });
        }
        Ok(())
    }

    fn printed(&self) -> u64 {
        self.stdout.total.saturating_add(self.stderr.total)
    }

    /// Tells the supervisor to end everything; it still reports.
    fn stop(&self) {
        if let Some(control) = &self.control {
            // It fails only if the supervisor is gone, which the next read tells.
            let _ = control.shutdown(Shutdown::Write);
        }
    }

    fn receive(&mut self) -> Result<(), SandboxError> {
        if let Some(control) = &self.control {
            match wire::receive(control).map_err(lost("reading the report"))? {
                Some(report) => self.report = Some(report),
                None => self.control = None,
            }
        }
        Ok(())
    }

    fn finish(mut self, stopped: Option<Status>) -> Result<Outcome, SandboxError> {
        let exit = self.child.wait().map_err(lost("waiting for the supervisor"))?;
        let stderr = std::mem::take(&mut self.stderr.captured);
        let stdout = std::mem::take(&mut self.stdout.captured);
        let (stdout, stderr) = (stdout.finish(), stderr.finish());
        let Some(report) = self.report.take() else {
            let said = stderr.to_text();
            return Err(SandboxError::Lost { problem: format!("{exit}; {}", said.trim()) });
        };
        let report = report?;
        let status = match (report.ended.status, stopped) {
            (Status::Cancelled, Some(reason)) => reason,
            // It ended by itself just before it could be stopped, and yet had printed too much.
            (Status::Exited(_), Some(Status::OutputLimit)) => Status::OutputLimit,
            (status, _) => status,
        };
        Ok(Outcome {
            status,
            wall: report.wall,
            cpu: report.ended.cpu,
            peak_memory: report.ended.peak_memory,
            stdout,
            stderr,
            output: report.output,
            evidence: report.evidence,
        })
    }
}

impl Drop for Session {
    /// Nothing may stay behind when `progress` panics: the supervisor sees its caller gone.
    fn drop(&mut self) {
        self.control = None;
        self.stdout.pipe = None;
        self.stderr.pipe = None;
        // After `finish` this returns at once.
        let _ = self.child.wait();
    }
}

/// One read of a full pipe.
const READ_BYTES: usize = 64 << 10;

struct Kept {
    pipe: Option<PipeReader>,
    captured: Ring,
    total: u64,
}

impl Kept {
    fn new(pipe: PipeReader, bound: ByteSize) -> Self {
        let bound = usize::try_from(bound.0).unwrap_or(usize::MAX);
        Self { pipe: Some(pipe), captured: Ring { bound, ..Ring::default() }, total: 0 }
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        let Some(pipe) = &mut self.pipe else { return Ok(Vec::new()) };
        let mut buffer = vec![0; READ_BYTES];
        let count = match pipe.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        buffer.truncate(count);
        if count == 0 {
            self.pipe = None;
        }
        self.total = self.total.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        self.captured.push(&buffer);
        Ok(buffer)
    }
}

/// The first and the last `bound` bytes of a stream.
#[derive(Default)]
struct Ring {
    bound: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    dropped: u64,
}

impl Ring {
    fn push(&mut self, bytes: &[u8]) {
        let room = self.bound.saturating_sub(self.head.len()).min(bytes.len());
        let (first, rest) = bytes.split_at(room);
        self.head.extend_from_slice(first);
        self.tail.extend(rest);
        let excess = self.tail.len().saturating_sub(self.bound);
        self.tail.drain(..excess);
        self.dropped = self.dropped.saturating_add(u64::try_from(excess).unwrap_or(u64::MAX));
    }

    fn finish(self) -> Captured {
        Captured { head: self.head, tail: self.tail.into(), dropped: self.dropped }
    }
}
