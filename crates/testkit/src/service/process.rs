//! A child process that does not outlive the test binary.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};

/// The ordinary user (`nobody`) that services run as when tests run as root; PostgreSQL refuses root.
pub(super) const ORDINARY: u32 = 65534;

/// A program, its arguments, and what it has said, in any order, once it is ready.
pub(super) struct Program {
    pub(super) command: Vec<OsString>,
    pub(super) folder: std::path::PathBuf,
    pub(super) ready: &'static [&'static str],
    /// Which signal ends it at once and in order.
    pub(super) end: Signal,
}

/// A running service.
pub(super) struct Process {
    pid: Pid,
    end: Signal,
    stop: Sender<Signal>,
    keeper: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts it and waits until it is ready; `None` when it ended before that, with what it said.
    pub(super) fn start(program: Program) -> Result<Self, String> {
        let (stop, stopped) = channel();
        let (up, started) = channel();
        let end = program.end;
        // The parent-death signal comes when the *thread* ends that started the process.
        let keeper = std::thread::spawn(move || keep(&program, &up, &stopped));
        match started.recv().unwrap() {
            Ok(pid) => Ok(Self { pid: Pid::from_raw(pid as i32).unwrap(), end, stop, keeper: Some(keeper) }),
            Err(said) => {
                keeper.join().unwrap();
                Err(said)
            }
        }
    }

    /// Ends it with a signal of one's own, and waits until it is gone.
    pub(super) fn end_by(mut self, signal: Signal) {
        self.finish(signal);
    }

    /// Sends a signal that does not end it.
    pub(super) fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap();
    }

    fn finish(&mut self, signal: Signal) {
        let Some(keeper) = self.keeper.take() else { return };
        let _ = self.stop.send(signal);
        let _ = keeper.join();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.finish(self.end);
    }
}

fn keep(program: &Program, up: &Sender<Result<u32, String>>, stopped: &Receiver<Signal>) {
    let mut child = spawn(program);
    let mut said = String::new();
    let mut awaited = program.ready.to_vec();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).unwrap_or(0) == 0 {
            let _ = child.wait();
            let _ = up.send(Err(said));
            return;
        }
        said.push_str(&line);
        awaited.retain(|text| !line.contains(text));
        if awaited.is_empty() {
            break;
        }
    }
    up.send(Ok(child.id())).unwrap();
    // What it says from now on goes to nobody, but a full pipe would stop it.
    let drain = std::thread::spawn(move || {
        let mut rest = [0; 4096];
        while lines.read(&mut rest).is_ok_and(|count| count > 0) {}
    });
    let signal = stopped.recv().unwrap_or(Signal::KILL);
    let _ = kill_process(Pid::from_raw(child.id() as i32).unwrap(), signal);
    let _ = child.wait();
    let _ = drain.join();
}

fn spawn(program: &Program) -> Child {
    let mut command = ordinary(&program.command[0], &["--pdeathsig", signal_name(program.end)]);
    command.args(&program.command[1..]).current_dir(&program.folder).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::piped()).spawn().unwrap_or_else(|error| panic!("`setpriv` can't be started: {error}"))
}

fn signal_name(signal: Signal) -> &'static str {
    if signal == Signal::QUIT { "QUIT" } else { "KILL" }
}

/// `program` as an ordinary user, whoever runs the tests.
pub(super) fn ordinary(program: &OsString, flags: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    if rustix::process::geteuid().is_root() {
        command.args([format!("--reuid={ORDINARY}"), format!("--regid={ORDINARY}"), "--clear-groups".to_owned()]);
    }
    command.args(flags).arg("--").arg(program);
    command
}

/// A folder that the ordinary user may write to.
pub(super) fn folder(prefix: &str) -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix(prefix).tempdir().unwrap();
    give(folder.path());
    folder
}

/// Gives a file or folder to the ordinary user.
pub(super) fn give(path: &Path) {
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(path, Some(ORDINARY), Some(ORDINARY)).unwrap();
    }
}

/// The file of a program, or what to do about its absence.
pub(super) fn find(candidates: impl IntoIterator<Item = std::path::PathBuf>, name: &str) -> OsString {
    let found = candidates.into_iter().find(|path| File::open(path).is_ok());
    found.unwrap_or_else(|| panic!("`{name}` is missing: run `cargo xtask setup`")).into_os_string()
}
