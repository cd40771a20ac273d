//! A process that has confined itself, tried from inside, and looked at from outside.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};

use crate::place::{NOBODY, Place};

const SIGABRT: i32 = 6;
const SIGSYS: i32 = 31;

/// As the user that runs the tests, and as one who may do nothing.
fn start(place: &Place, what: &str, user: Option<u32>) -> Child {
    let mut command = Command::new(place.path("bin/clerestory-sandbox"));
    command.args(["attempt", what]).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    // As every such process is started: else a thread's heap that shrinks has the C library open a file.
    command.env("MALLOC_ARENA_MAX", "1");
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    command.spawn().unwrap()
}

fn users() -> Vec<Option<u32>> {
    if nix::unistd::Uid::effective().is_root() { vec![None, Some(NOBODY)] } else { vec![None] }
}

#[test]
fn it_computes_and_everything_else_ends_it() {
    let place = Place::new();
    let forbidden =
        ["read", "write", "memory-file", "list", "tcp", "udp", "unix", "execute", "trace", "signal", "unconfine"];
    let forbidden = forbidden.map(|what| (what, Some(SIGSYS), String::from("confined\n")));
    let allowed = [
        ("compute", None, "confined\ncompute: 393216\n".to_owned()),
        // An allocation that fails aborts.
        ("grow", Some(SIGABRT), "confined\n".to_owned()),
    ];
    for user in users() {
        for (what, signal, said) in forbidden.iter().chain(&allowed) {
            let output = start(&place, what, user).wait_with_output().unwrap();
            let seen = (output.status.signal(), String::from_utf8(output.stdout).unwrap());
            assert_eq!(seen, (*signal, said.clone()), "{what} as {user:?}");
        }
    }
}

#[test]
fn it_has_nothing_around_it() {
    let place = Place::new();
    for user in users() {
        let mut child = start(&place, "wait", user);
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "confined\n", "as {user:?}");
        let of = |name: &str| format!("/proc/{}/{name}", child.id());
        let status = fs::read_to_string(of("status")).unwrap();
        let none = "0000000000000000";
        for (name, value) in
            [("NoNewPrivs", "1"), ("Seccomp", "2"), ("CapEff", none), ("CapBnd", none), ("Threads", "1")]
        {
            assert!(status.contains(&format!("{name}:\t{value}\n")), "{name} {value} in {status}");
        }
        if nix::unistd::Uid::effective().is_root() {
            // A process that nobody may look into shows these to root only.
            for name in ["user", "mnt", "net", "uts", "ipc", "cgroup"] {
                let own = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
                assert_ne!(fs::read_link(of(&format!("ns/{name}"))).unwrap(), own, "{name}");
            }
            assert_eq!(fs::read_dir(of("root")).unwrap().count(), 0, "an empty root");
            let network = fs::read_to_string(of("net/dev")).unwrap();
            assert_eq!(network.lines().skip(2).count(), 1, "{network}");
            let limits = fs::read_to_string(of("limits")).unwrap();
            assert!(limits.lines().any(|line| line.starts_with("Max file size             0 ")), "{limits}");
        }
        drop(child.stdin.take());
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "wait: Ok(0)\n");
        assert!(child.wait().unwrap().success());
    }
}
