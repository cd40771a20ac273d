//! One fault at a time, each from the same saved state.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use testkit::{Breadth, Call, Fault, Strace, figure};

use crate::process::{Done, Server};
use crate::system::System;

const ROLES: [&str; 6] = ["vendor", "supervisor", "w1", "w2", "w3", "w4"];

/// A system at rest, to which each trial returns.
pub(super) struct Trial {
    pub(super) system: System,
    saved: TempDir,
    strace: PathBuf,
}

impl Trial {
    /// Stops everything and saves it, with what an auditor has seen.
    pub(super) fn of(mut system: System) -> Self {
        audit(&system).ok();
        for server in servers(&mut system) {
            assert_eq!(server.stop().code, 0);
        }
        Self::at_rest(system)
    }

    /// Saves what does not run.
    pub(super) fn at_rest(system: System) -> Self {
        let saved = tempfile::tempdir().unwrap();
        copy_tree(system.path(), saved.path());
        let strace = saved.path().with_extension("strace");
        Self { system, saved, strace }
    }

    /// Everything as it was saved, and nothing runs.
    pub(super) fn restore(&mut self) {
        for server in servers(&mut self.system) {
            server.kill();
        }
        for role in ROLES {
            let folder = self.system.file(role);
            std::fs::remove_dir_all(&folder).unwrap();
            copy_tree(&self.saved.path().join(role), &folder);
        }
        let audited = self.saved.path().join("audit.json");
        if audited.exists() {
            std::fs::copy(audited, self.system.file("audit.json")).unwrap();
        }
    }

    /// The calls below `role`'s folder that `run` makes, undisturbed.
    pub(super) fn calls(&mut self, role: &str, run: impl FnOnce(&mut System, &Strace)) -> Vec<Call> {
        self.restore();
        let strace = Strace::watch(&self.strace);
        run(&mut self.system, &strace);
        strace.calls(&self.system.file(role))
    }

    /// Runs `one` for each fault at each call (or a sample), and reports as `what`.
    pub(super) fn each(
        &mut self,
        what: &str,
        calls: &[Call],
        step: usize,
        mut one: impl FnMut(&mut System, &Strace, &str),
    ) {
        let cases = calls.iter().flat_map(|call| call.faults().into_iter().map(move |fault| (call, fault))).collect();
        let cases: Vec<(&Call, Fault)> = Breadth::of_this_run().of(cases, step);
        let mut missed = Vec::new();
        for (at, (call, fault)) in cases.iter().enumerate() {
            let _named = Named(format!("{what}: fault {} of {}: {call} {fault}", at + 1, cases.len()));
            self.restore();
            let strace = Strace::inject(&self.strace, call, *fault);
            one(&mut self.system, &strace, &format!("{call} {fault}"));
            if strace.hits() == 0 {
                missed.push(format!("{call} {fault}"));
            }
        }
        let happened = cases.len() - missed.len();
        figure(what, format!("{} calls, {} faults, {happened} of them happened", calls.len(), cases.len()));
        // Threads take turns differently from run to run; few calls depend on it, but one may in a small sample.
        assert!(missed.len() <= 1 + cases.len() / 5, "these did not happen: {missed:#?}");
    }
}

/// Says at which fault a test failed, wherever in it.
struct Named(String);

impl Drop for Named {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}

fn servers(system: &mut System) -> impl Iterator<Item = &mut Server> {
    [&mut system.vendor, &mut system.supervisor].into_iter().chain(system.witnesses.iter_mut())
}

pub(super) fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The auditor compares with what it has seen before.
pub(super) fn audit(system: &System) -> Done {
    system.run(&["audit", "--config", "supervisor/clerestory.toml", "--state", "audit.json", "--proofs", "proofs"])
}

pub(super) fn fsck(system: &System, role: &str) -> Done {
    system.run(&["fsck", "--config", &format!("{role}/clerestory.toml")])
}

/// The same command again, as its exit code says when a machine is too busy for the witnesses to
/// have answered in time.
pub(super) fn again(system: &System, arguments: &[&str]) -> Done {
    let mut done = system.run(arguments);
    for _ in 0..20 {
        if done.code == 75 {
            done = system.run(arguments);
        }
    }
    done
}

/// `clerestory` under strace. One thread works on what is async, so that runs are alike.
pub(super) fn traced(strace: &Strace, arguments: &[&str]) -> Command {
    let prefix: &[OsString] = strace.prefix();
    let mut command = Command::new(Path::new("/usr/bin").join(&prefix[0]));
    command.args(&prefix[1..]).arg(env!("CARGO_BIN_EXE_clerestory")).args(arguments);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("TOKIO_WORKER_THREADS", "1").stdin(Stdio::null());
    command
}

/// A command under strace, to its end. Who was killed gives the code of the programs around it.
pub(super) fn run_traced(system: &System, strace: &Strace, arguments: &[&str]) -> Done {
    traced(strace, arguments).current_dir(system.path()).output().unwrap().into()
}

/// What came of a request to a server under strace.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The answer, if it lived to give one.
    pub(super) answer: Option<(u16, Vec<u8>)>,
    /// How it ended.
    pub(super) end: Done,
}

enum Event {
    Answered(Option<(u16, Vec<u8>)>),
    Ended(Done),
}

/// Starts `server` under strace and sends it a request; whoever is still there then is asked to end.
pub(super) fn request_traced(server: &mut Server, strace: &Strace, request: Vec<u8>) -> Outcome {
    let config = server.config().to_owned();
    server.start_as(traced(strace, &["serve", "--config", &config]));
    // Queued before anything can end.
    let stream = TcpStream::connect(server.address()).unwrap();
    let child = server.take();
    let strace_id = child.id();
    let (send, events) = mpsc::channel();
    let answered = send.clone();
    thread::spawn(move || answered.send(Event::Answered(exchange(stream, &request))));
    thread::spawn(move || send.send(Event::Ended(child.wait_with_output().unwrap().into())));
    let (mut answer, mut end) = (None, None);
    let (mut waits_for_answer, mut is_asked) = (true, false);
    while waits_for_answer || end.is_none() {
        match events.recv().unwrap() {
            Event::Answered(found) => {
                (answer, waits_for_answer) = (found, false);
                if end.is_none() && !is_asked {
                    is_asked = true;
                    terminate(strace_id);
                }
            }
            Event::Ended(done) => {
                end = Some(done);
                hang_up(server);
            }
        }
    }
    Outcome { answer, end: end.unwrap() }
}

/// Starts `server` under strace, runs `run`, and ends it, if it has not ended by itself: then nobody waits for it.
pub(super) fn while_traced<T>(server: &mut Server, strace: &Strace, run: impl FnOnce() -> T) -> (T, Done) {
    let config = server.config().to_owned();
    server.start_as(traced(strace, &["serve", "--config", &config]));
    let (child, is_over, address) = (server.take(), AtomicBool::new(false), server.address());
    let strace_id = child.id();
    thread::scope(|scope| {
        let ended = scope.spawn(|| {
            let end = child.wait_with_output().unwrap();
            while !is_over.load(Ordering::SeqCst) {
                drop(server.listener().accept());
            }
            end.into()
        });
        let done = run();
        is_over.store(true, Ordering::SeqCst);
        // Whoever hangs up sees it.
        drop(TcpStream::connect(address));
        terminate(strace_id);
        (done, ended.join().unwrap())
    })
}

pub(super) fn exchange(mut stream: TcpStream, request: &[u8]) -> Option<(u16, Vec<u8>)> {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut answer = Vec::new();
    let _ = stream.write_all(request);
    let _ = stream.read_to_end(&mut answer);
    let split = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let status = String::from_utf8_lossy(&answer[..split]).split(' ').nth(1)?.parse().ok()?;
    Some((status, answer[split + 4..].to_vec()))
}

/// SIGTERM to the program, which is the grandchild of strace.
fn terminate(strace: u32) {
    let child_of = |id: u32| -> Option<u32> {
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    };
    // It may just have ended by itself.
    if let Some(program) = child_of(strace).and_then(child_of) {
        let _ = kill(Pid::from_raw(program as i32), Signal::SIGTERM);
    }
}

/// Nobody listens any more: what waits in the queue is told so.
fn hang_up(server: &Server) {
    server.listener().set_nonblocking(true).unwrap();
    while server.listener().accept().is_ok() {}
    server.listener().set_nonblocking(false).unwrap();
}
