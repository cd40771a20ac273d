//! `clerestory` as a process.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

pub(crate) use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// A finished command.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Done {
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:#?}");
        self
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clerestory"));
    command.env_clear().stdin(Stdio::null());
    command
}

/// A command that goes on; its standard output is read as it comes.
pub(crate) fn spawn(folder: &Path, arguments: &[&str]) -> Child {
    program().current_dir(folder).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

pub(crate) fn run(folder: &Path, arguments: &[&str]) -> Done {
    program().current_dir(folder).args(arguments).output().unwrap().into()
}

/// The same with further variables in its environment.
pub(crate) fn run_with(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Done {
    program().current_dir(folder).args(arguments).envs(environment.iter().copied()).output().unwrap().into()
}

/// A role with a socket of its own, which outlives restarts: nobody can take its port.
pub(crate) struct Server {
    config: PathBuf,
    listener: TcpListener,
    child: Option<Child>,
    environment: Vec<(&'static str, String)>,
}

impl Server {
    /// Opens the socket; the process is started later.
    pub(crate) fn bound(config: PathBuf) -> Self {
        Self::bound_at(config, Ipv4Addr::LOCALHOST)
    }

    /// The same, at another address of this network.
    pub(crate) fn bound_at(config: PathBuf, address: Ipv4Addr) -> Self {
        Self { config, listener: TcpListener::bind((address, 0)).unwrap(), child: None, environment: Vec::new() }
    }

    /// It reaches all others through this proxy.
    pub(crate) fn set_proxy(&mut self, url: &str) {
        self.set_env("ALL_PROXY", url);
    }

    /// It is started with this variable in its environment.
    pub(crate) fn set_env(&mut self, name: &'static str, value: &str) {
        self.environment.push((name, value.to_owned()));
    }

    /// It finds programs of this machine: a rebuilder compiles a library of its own.
    pub(crate) fn set_path(&mut self) {
        self.environment.push(("PATH", "/usr/local/bin:/usr/bin:/bin".to_owned()));
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    pub(crate) fn config(&self) -> &str {
        self.config.to_str().unwrap()
    }

    /// Connections queue from now on; there is nothing to wait for.
    pub(crate) fn start(&mut self) {
        let mut command = program();
        command.args(["serve", "--config", self.config()]);
        self.start_as(command);
    }

    /// Its socket, of which the process has a copy.
    pub(crate) const fn listener(&self) -> &TcpListener {
        &self.listener
    }

    /// Hangs up on whoever waits to be served: with a machine goes what was on its way to it.
    pub(crate) fn hang_up(&self) {
        self.listener.set_nonblocking(true).unwrap();
        while self.listener.accept().is_ok() {}
        self.listener.set_nonblocking(false).unwrap();
    }

    /// Its process, which from now on is the caller's to end.
    pub(crate) fn take(&mut self) -> Child {
        self.child.take().unwrap()
    }

    /// Starts another program in its place, on its socket.
    pub(crate) fn start_as(&mut self, mut command: Command) {
        assert!(self.child.is_none());
        let socket = OwnedFd::from(self.listener.try_clone().unwrap());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.child = Some(command.stdin(Stdio::from(socket)).stderr(Stdio::piped()).spawn().unwrap());
    }

    /// What it says from now on; whoever takes this must read it.
    pub(crate) fn stderr(&mut self) -> std::process::ChildStderr {
        self.child.as_mut().unwrap().stderr.take().unwrap()
    }

    /// Reads what it says from now on, so that it can go on saying it; the lines come to the end of `said`.
    pub(crate) fn listen(&mut self, said: &Arc<Mutex<Vec<String>>>) {
        let (said, lines) = (Arc::clone(said), BufReader::new(self.stderr()).lines());
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| said.lock().unwrap().push(line)));
    }

    /// Ends it as a service manager does.
    pub(crate) fn stop(&mut self) -> Done {
        // It must have come up, or the signal would find it before its handler is there.
        assert_eq!(crate::raw::get(self.address(), "/healthz").status, 200);
        self.terminate();
        self.wait()
    }

    /// Asks it to end, whatever it is doing; [`wait`](Self::wait) for it.
    pub(crate) fn terminate(&self) {
        kill(Pid::from_raw(self.child.as_ref().unwrap().id() as i32), Signal::SIGTERM).unwrap();
    }

    /// Its process.
    pub(crate) fn process(&self) -> Pid {
        Pid::from_raw(self.child.as_ref().unwrap().id() as i32)
    }

    /// Ends it as a power cut does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some())
    }

    /// Whether it was started and not ended.
    pub(crate) const fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Puts it to sleep where it stands (SIGSTOP), or wakes it up again (SIGCONT).
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.as_ref().unwrap().id() as i32), signal).unwrap();
    }

    /// Waits for it to end by itself.
    pub(crate) fn wait(&mut self) -> Done {
        self.child.take().unwrap().wait_with_output().unwrap().into()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = child.kill();
        let mut stderr = String::new();
        if let Some(mut pipe) = child.stderr.take() {
            let _ = pipe.read_to_string(&mut stderr);
        }
        let _ = child.wait();
        if std::thread::panicking() {
            eprintln!("{}:\n{stderr}", self.config.display());
        }
    }
}
