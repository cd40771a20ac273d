//! One child process, from its start to its end.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::error::WorkerError;
use super::limits::Limits;
use super::messages::{Answer, Isolation, Request};
use super::wire::{Connection, Received, WireError};

/// Confinement takes a few milliseconds; a machine that needs this long is not working.
const START_TIME_MAX: Duration = Duration::from_secs(30);

/// A child reads what it is sent at once.
const SEND_TIME_MAX: Duration = Duration::from_secs(30);

/// A child that is ready. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    connection: Connection,
    pub(super) isolation: Isolation,
}

impl Running {
    pub(super) fn start(program: &Path, limits: &Limits) -> Result<Self, WorkerError> {
        let failed =
            |error: std::io::Error| WorkerError::Program { path: program.to_owned(), problem: error.to_string() };
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        ours.set_write_timeout(Some(SEND_TIME_MAX)).map_err(failed)?;
        let child = Command::new(program)
            .arg("worker")
            .env_clear()
            // With arenas of their own, glibc's threads open a file of /proc to see whether they may
            // give memory back: which ends the confined child.
            .env("MALLOC_ARENA_MAX", "1")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let isolation = Isolation { landlock_abi: 0, seccomp: stdx::Digest::of(b"") };
        let mut running = Self { child, connection: Connection::new(ours), isolation };
        let asked = running.connection.send(&Request::Start(limits.clone()), &[], None);
        match asked.and_then(|()| running.connection.receive_within::<Answer>(START_TIME_MAX)) {
            Ok(Received { message: Answer::Ready(isolation), .. }) => {
                running.isolation = isolation;
                Ok(running)
            }
            Ok(Received { message: Answer::Unready { problem, hint }, .. }) => {
                Err(WorkerError::Isolation { problem, hint })
            }
            Ok(_) => Err(WorkerError::Nonsense { during: "starting" }),
            Err(error) => Err(WorkerError::Ended { during: "starting", problem: running.end(&error) }),
        }
    }

    pub(super) fn process(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn send(&self, request: &Request, file: Option<&File>) -> Result<(), WireError> {
        self.connection.send(request, &[], file.map(File::as_fd))
    }

    pub(super) fn receive(&self, wait: Duration) -> Result<Received<Answer>, WireError> {
        self.connection.receive_within(wait)
    }

    pub(super) fn ask(
        &self,
        request: &Request,
        file: Option<&File>,
        wait: Duration,
    ) -> Result<Received<Answer>, WireError> {
        self.send(request, file)?;
        self.receive(wait)
    }

    /// Ends the child, and says how it had ended by itself, or else `error`.
    pub(super) fn end(&mut self, error: &WireError) -> String {
        // A process that has died keeps its status, also if it is killed after that.
        let ended = self.child.kill().and_then(|()| self.child.wait());
        match (error, ended) {
            (WireError::Gone, Ok(status)) => how(status),
            _ => error.to_string(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a child that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a process ended, in words.
fn how(status: ExitStatus) -> String {
    match status.signal() {
        // SIGABRT: Rust's answer to memory that can't be had, and to a stack that is full.
        Some(6) => "it ran out of memory or stack (signal 6)".to_owned(),
        Some(9) => "it was killed (signal 9)".to_owned(),
        Some(11) => "it touched memory that is not its own (signal 11)".to_owned(),
        // SIGSYS.
        Some(31) => "it made a system call that it is not allowed (signal 31)".to_owned(),
        Some(signal) => format!("it was ended by signal {signal}"),
        None => format!("it ended by itself ({status})"),
    }
}
