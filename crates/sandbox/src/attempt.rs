//! `clerestory-sandbox attempt WHAT`: confines itself and then tries what it must not be able to
//! do. Whoever doubts a machine's isolation sees it there, and so do the tests.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::Command;

use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};

use crate::error::{SandboxError, lost};
use crate::itself::{Confinement, confine_self};
use crate::job::ByteSize;

/// Room for this program, and little more.
const CONFINEMENT: Confinement = Confinement { memory: ByteSize::mebibytes(256), open_files: 8 };

/// What can be tried; the first three are allowed, and the last has bounds.
pub(crate) const ATTEMPTS: [&str; 15] = [
    "compute",
    "wait",
    "nothing",
    "read",
    "write",
    "memory-file",
    "list",
    "tcp",
    "udp",
    "unix",
    "execute",
    "trace",
    "signal",
    "unconfine",
    "grow",
];

/// Confines this process, says so, tries, and says what came of it, if it still can.
pub(crate) fn attempt(what: &str) -> Result<(), SandboxError> {
    let parent = getppid();
    confine_self(&CONFINEMENT)?;
    say("confined")?;
    say(&format!("{what}: {}", outcome(what, parent)))
}

fn say(line: &str) -> Result<(), SandboxError> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(lost("standard output"))
}

fn outcome(what: &str, parent: Pid) -> String {
    match what {
        "compute" => {
            let threads: Vec<_> = (0..4u64).map(|number| std::thread::spawn(move || vec![number; 1 << 16])).collect();
            let sum = threads.into_iter().filter_map(|it| it.join().ok()).flatten().sum::<u64>();
            format!("{sum}")
        }
        "wait" => format!("{:?}", std::io::stdin().read(&mut [0])),
        "read" => told(std::fs::read("/etc/passwd")),
        "write" => told(std::fs::File::create("/tmp/clerestory-attempt")),
        "memory-file" => told(std::fs::File::open("/proc/self/mem")),
        "list" => told(std::fs::read_dir("/")),
        "tcp" => told(TcpStream::connect("127.0.0.1:9")),
        "udp" => told(UdpSocket::bind("127.0.0.1:0")),
        "unix" => told(UnixStream::pair()),
        "execute" => told(Command::new("/bin/true").status()),
        "trace" => told(ptrace::attach(parent)),
        "signal" => told(kill(parent, Signal::SIGWINCH)),
        "unconfine" => told(confine_self(&CONFINEMENT)),
        "grow" => format!("{} bytes", vec![1u8; 1 << 30].len()),
        _ => "nothing is tried".to_owned(),
    }
}

fn told<T, E: std::fmt::Debug>(result: Result<T, E>) -> String {
    result.map_or_else(|error| format!("{error:?}"), |_| "it worked".to_owned())
}
