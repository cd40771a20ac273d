//! Everything that a command could use up has a bound, with control groups and without.

use std::time::Duration;

use sandbox::{ByteSize, Job, Outcome, Status};

use crate::place::{Place, Way, is_root};

fn ends_with(job: &Job, place: &Place, status: &Status) {
    place.every_way(job, |way, outcome| {
        assert_eq!(&outcome.status, status, "{way:?}: {outcome:#?}");
        assert!(outcome.status.hint().is_some());
        assert!(outcome.wall < job.limits.wall + Duration::from_secs(5), "{way:?}: {outcome:#?}");
        if way == Way::OwnWithout || !is_root() {
            assert!(outcome.evidence.cgroups.is_empty());
        }
    });
}

#[test]
fn fork_bomb() {
    let place = Place::new();
    ends_with(&place.hostile(&["forks"]), &place, &Status::ProcessLimit);
    // Bash tries again when it cannot fork, so this one stays.
    let bomb = place.job("/bin/bash", &["-c", "b() { b | b & }; b; sleep 1000"]);
    ends_with(&bomb, &place, &Status::ProcessLimit);
}

#[test]
fn threads_count_as_processes() {
    let place = Place::new();
    ends_with(&place.hostile(&["threads"]), &place, &Status::ProcessLimit);
}

#[test]
fn a_hundred_gigabytes_of_output() {
    let place = Place::new();
    let dd = place.script("dd if=/dev/zero of=/tmp/big bs=1M count=100000");
    ends_with(&dd, &place, &Status::DiskLimit);
    let mut yes = place.script("yes > /work/big");
    yes.scratch.push("/work".into());
    yes.limits.file_size = ByteSize::mebibytes(200_000);
    ends_with(&yes, &place, &Status::DiskLimit);
    let shm = place.script("cat /dev/zero > /dev/shm/big");
    ends_with(&shm, &place, &Status::DiskLimit);
    ends_with(&place.hostile(&["removes-when-full"]), &place, &Status::DiskLimit);
}

#[test]
fn a_sparse_file() {
    let place = Place::new();
    let sparse = place.script("truncate -s 100G /tmp/big; exit $?");
    ends_with(&sparse, &place, &Status::DiskLimit);
}

#[test]
fn too_many_files() {
    let place = Place::new();
    ends_with(&place.hostile(&["inodes"]), &place, &Status::DiskLimit);
}

#[test]
fn endless_loops() {
    let place = Place::new();
    let mut sleeping = place.script("while :; do sleep 1000; done");
    sleeping.limits.wall = Duration::from_secs(1);
    ends_with(&sleeping, &place, &Status::TimeLimit);
    // One process, two at once, and many short ones: the sum counts.
    for name in ["spin", "spins", "short-children", "ignored-children"] {
        let mut busy = place.hostile(&[name]);
        busy.limits.cpu = Duration::from_secs(1);
        ends_with(&busy, &place, &Status::CpuLimit);
    }
}

#[test]
fn memory() {
    let place = Place::new();
    ends_with(&place.hostile(&["memory"]), &place, &Status::MemoryLimit);
    // Each of these alone stays below the limit.
    ends_with(&place.hostile(&["memories"]), &place, &Status::MemoryLimit);
    for name in ["memfd", "shmget"] {
        place.every_way(&place.hostile(&[name]), |way, outcome| {
            assert_eq!(outcome.status, Status::Exited(0), "{way:?} {name}: {outcome:#?}");
        });
    }
}

#[test]
fn flood_of_standard_output() {
    let place = Place::new();
    for script in ["yes", "yes >&2"] {
        ends_with(&place.script(script), &place, &Status::OutputLimit);
    }
    let most = |outcome: &Outcome| outcome.stdout.head.len() + outcome.stdout.tail.len();
    let long = place.script("echo first; seq 100000; echo last");
    place.every_way(&long, |way, outcome| {
        assert_eq!(outcome.status, Status::Exited(0), "{way:?}: {outcome:#?}");
        assert_eq!(most(outcome), 2 * 4_096);
        assert_eq!(outcome.stdout.total(), 588_895 + 11);
        let text = outcome.stdout.to_text();
        assert!(text.starts_with("first\n1\n") && text.ends_with("100000\nlast\n"), "{text}");
        assert!(text.contains("[... 580714 bytes dropped ...]"), "{text}");
    });
}

#[test]
fn open_files_and_core_dumps() {
    let place = Place::new();
    place.every_way(&place.script("ulimit -n; ulimit -c"), |way, outcome| {
        assert_eq!(outcome.stdout.to_text(), "64\n0\n", "{way:?}");
    });
}

#[test]
fn what_stays_in_bounds_is_not_disturbed() {
    let place = Place::new();
    // Most of the memory, disk and processes at once, for a while.
    let script = "dd if=/dev/zero of=/tmp/x bs=1M count=24 2>/dev/null && \
        for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 0.3 & done; wait; \
        echo done";
    place.every_way(&place.script(script), |way, outcome| {
        assert_eq!(outcome.status, Status::Exited(0), "{way:?}: {outcome:#?}");
        assert_eq!(outcome.stdout.to_text(), "done\n");
    });
}

#[test]
fn starting_is_cheap() {
    let place = Place::new();
    let job = place.job("/bin/true", &[]);
    let best = (0..20).map(|_| {
        let before = stdx::Clock::monotonic(&*CLOCK);
        let outcome = place.run(Way::OwnWithout, &job);
        assert_eq!(outcome.status, Status::Exited(0));
        stdx::Clock::monotonic(&*CLOCK).saturating_sub(before)
    });
    let best = best.min().unwrap();
    println!("fastest of 20 starts: {best:?}");
    // Unoptimised and beside the other tests; alone it takes about a third.
    assert!(best < Duration::from_millis(100), "{best:?}");
}

static CLOCK: std::sync::LazyLock<stdx::SystemClock> = std::sync::LazyLock::new(stdx::SystemClock::default);
