//! Whoever dies first, everything inside ends.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use sandbox::{Cancel, Cgroups, Sandbox, Status, Stream};

use crate::place::{Place, orphaned_groups};

#[test]
fn daemons_end_with_the_command() {
    let place = Place::new();
    // `run` checks that nobody is left in the namespaces.
    place.every_way(&place.hostile(&["daemon"]), |way, outcome| {
        assert_eq!(outcome.status, Status::Exited(0), "{way:?}: {outcome:#?}");
    });
    let job = place.script("(setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 1; done' &) ; exit 7");
    place.every_way(&job, |way, outcome| {
        assert_eq!(outcome.status, Status::Exited(7), "{way:?}: {outcome:#?}");
    });
}

#[test]
fn signals_are_told() {
    let place = Place::new();
    place.every_way(&place.script("kill -SEGV $$"), |way, outcome| {
        assert_eq!(outcome.status, Status::Signalled(11), "{way:?}");
    });
}

#[test]
fn progress_comes_while_it_runs_and_cancel_ends_it() {
    let place = Place::new();
    let job = place.script("echo begun; echo trouble >&2; while :; do sleep 1; done");
    let cancel = Cancel::default();
    let mut seen = String::new();
    let mut both = 0;
    let outcome = Sandbox::new(place.program()).run(&job, &cancel, &mut |chunk| {
        seen.push_str(&String::from_utf8_lossy(chunk.bytes));
        both |= if chunk.stream == Stream::Stdout { 1 } else { 2 };
        if both == 3 {
            cancel.cancel();
        }
    });
    let outcome = outcome.unwrap();
    assert_eq!(outcome.status, Status::Cancelled);
    assert!(seen.contains("begun\n") && seen.contains("trouble\n"));
    crate::place::assert_nothing_left(&outcome);
}

/// Starts a job through the program, waits until the command runs, gives the whole chain of
/// processes: the program, the supervisor, the one that unshared, the first inside, the command.
fn started(place: &Place, cgroups: Cgroups) -> (std::process::Child, Vec<Pid>) {
    let mut job = place.script("echo begun; while :; do sleep 1000; done");
    job.cgroups = cgroups;
    let path = place.make_file("job.json", &serde_json::to_string(&job).unwrap());
    let mut child = Command::new(place.program())
        .arg("run")
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut begun = [0; 6];
    child.stderr.as_mut().unwrap().read_exact(&mut begun).unwrap();
    assert_eq!(&begun, b"begun\n");
    let mut chain = vec![child.id()];
    while chain.len() < 5 {
        let last = chain[chain.len() - 1];
        let text = fs::read_to_string(format!("/proc/{last}/task/{last}/children")).unwrap();
        chain.push(text.trim().parse().unwrap());
    }
    (child, chain.into_iter().map(|id| Pid::from_raw(id as i32).unwrap()).collect())
}

fn wait_for_end(processes: &[Pid]) {
    for process in processes {
        // If it is gone already, so much the better.
        if let Ok(descriptor) = pidfd_open(*process, PidfdFlags::empty()) {
            poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], None).unwrap();
        }
    }
}

#[test]
fn killing_any_of_the_chain_ends_the_rest() {
    let _alone = crate::place::KILLING.write().unwrap_or_else(std::sync::PoisonError::into_inner);
    let place = Place::new();
    for cgroups in [Cgroups::Auto, Cgroups::Without] {
        for victim in 0..4 {
            let (mut child, chain) = started(&place, cgroups);
            // Opened before, so that no other process can take a number meanwhile.
            let open: Vec<_> =
                chain[1..].iter().map(|process| pidfd_open(*process, PidfdFlags::empty()).unwrap()).collect();
            kill_process(chain[victim], Signal::KILL).unwrap();
            for descriptor in &open {
                poll(&mut [PollFd::new(descriptor, PollFlags::IN)], None).unwrap();
            }
            wait_for_end(&chain[1..]);
            assert!(!child.wait().unwrap().success());
        }
    }
    // A killed supervisor cannot remove its groups; the next one does.
    let sweeping = place.script("true");
    let outcome = Sandbox::new(place.program()).run(&sweeping, &Cancel::default(), &mut |_| {}).unwrap();
    assert_eq!(outcome.status, Status::Exited(0));
    assert_eq!(orphaned_groups(), Vec::<PathBuf>::new());
}

#[test]
fn a_writable_mount_keeps_what_was_written() {
    let place = Place::new();
    place.make_folder("shared");
    fs::set_permissions(place.path("shared"), fs::Permissions::from_mode(0o777)).unwrap();
    let mut job = place.script("echo x >> /shared/x && wc -l < /shared/x");
    job.mounts.push(sandbox::Mount {
        source: place.path("shared"),
        target: "/shared".into(),
        access: sandbox::Access::Writable,
    });
    place.every_way(&job, |way, outcome| {
        assert_eq!(outcome.status, Status::Exited(0), "{way:?}: {outcome:#?}");
    });
    assert_eq!(fs::read_to_string(place.path("shared/x")).unwrap(), "x\nx\nx\n");
}
