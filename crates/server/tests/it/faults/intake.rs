//! The intake of what endpoints share, when its disk fails at a call, when it dies there, and when it is full.

use std::io::{BufRead as _, BufReader};

use testkit::{SmallDisk, Strace};

use super::full::{end, run, start};
use super::trial::{Outcome, Trial, exchange, fsck, request_traced};
use crate::process::Server;
use crate::system::System;
use crate::vault::{made, read, receipt, sealed};

fn post(object: &[u8]) -> Vec<u8> {
    let head = "POST /v1/events HTTP/1.1\r\nHost: test\r\nConnection: close\r\n";
    [format!("{head}Content-Length: {}\r\n\r\n", object.len()).as_bytes(), object].concat()
}

/// Whether it was acknowledged. When the disk fails, "later" may be said, and nothing else.
fn acknowledged(outcome: &Outcome, what: &str) -> bool {
    let said = format!("{what}: {outcome:?}");
    assert!(!outcome.end.stderr.contains("panicked"), "{said}");
    match &outcome.answer {
        Some((200, _)) => true,
        Some((500 | 503, _)) | None => false,
        Some((status, _)) => panic!("{status} {said}"),
    }
}

/// With everything sound again: what was acknowledged is there, what was not gets in, and each is there once.
fn check_after(system: &mut System, objects: &[Vec<u8>; 2], was_acknowledged: bool, what: &str) {
    system.vendor.start();
    let kept = read(system);
    let second = b"second".to_vec();
    assert!(kept.contains(&b"first".to_vec()), "{what}: {kept:?}");
    assert!(!was_acknowledged || kept.contains(&second), "{what}: {kept:?}");
    for object in objects {
        receipt(system, object);
    }
    assert_eq!(system.vendor.stop().code, 0, "{what}");
    system.vendor.start();
    assert_eq!(read(system), [b"first".to_vec(), b"second".to_vec()], "{what}");
    assert_eq!(system.vendor.stop().code, 0, "{what}");
    let checked = fsck(system, "vendor");
    assert_eq!(checked.code, 0, "{what}: {checked:?}");
}

#[test]
fn an_intake_survives_each_failed_call() {
    let mut system = made();
    system.witnesses.iter_mut().for_each(Server::start);
    system.vendor.start();
    let objects = [b"first", &b"second"[..]].map(|text| sealed(&system, text));
    receipt(&system, &objects[0]);
    // The first lies in the write-ahead log: the next start makes a segment and a manifest of it.
    system.vendor.kill();
    system.witnesses.iter_mut().for_each(Server::kill);
    let mut trial = Trial::at_rest(system);
    let request = post(&objects[1]);
    let take = |system: &mut System, strace: &Strace| {
        system.witnesses.iter_mut().for_each(Server::start);
        request_traced(&mut system.vendor, strace, request.clone())
    };
    let calls = trial.calls("vendor/intake", |system, strace| {
        let outcome = take(system, strace);
        assert!(acknowledged(&outcome, "nothing failed"), "{outcome:?}");
        assert_eq!(outcome.end.code, 0, "{outcome:?}");
    });
    assert!(calls.iter().filter(|call| call.changes).count() > 15, "{calls:#?}");
    trial.each("intake", &calls, 29, |system, strace, what| {
        let outcome = take(system, strace);
        let was_acknowledged = acknowledged(&outcome, what);
        check_after(system, &objects, was_acknowledged, what);
    });
}

#[test]
fn an_intake_on_a_full_disk_goes_on_when_there_is_room_and_the_log_beside_it_does_not_stop() {
    let mut system = made();
    system.witnesses.iter_mut().for_each(Server::start);
    system.vendor.start();
    let first = sealed(&system, b"first");
    receipt(&system, &first);
    assert_eq!(system.vendor.stop().code, 0);
    let disk = SmallDisk::over(&system.file("vendor/intake"), 2048);
    start(&mut system.vendor, &disk);
    let large = sealed(&system, &[7; 200_000]);
    disk.fill(60_000);
    let send = |system: &System, object: &[u8]| {
        exchange(std::net::TcpStream::connect(system.vendor.address()).unwrap(), &post(object)).map(|it| it.0)
    };
    assert_eq!(send(&system, &large), Some(503));
    assert_eq!(crate::raw::get(system.vendor.address(), "/readyz").status, 503, "its operator is told");
    system.beat(&crate::statement::Place::vendor());
    disk.clear();
    // It opens again by itself, some seconds later, and says so.
    let mut said = BufReader::new(system.vendor.stderr()).lines();
    assert!(said.by_ref().any(|line| line.unwrap().contains("closed, and opens again")));
    assert!(said.by_ref().any(|line| line.unwrap().contains("the intake is open")), "it goes on without a restart");
    assert_eq!(send(&system, &large), Some(200));
    assert_eq!(crate::raw::get(system.vendor.address(), "/readyz").status, 200);
    end(&mut system.vendor);
    // Until here somebody listened to it.
    drop(said);
    start(&mut system.vendor, &disk);
    assert_eq!(read(&system), [vec![7; 200_000], b"first".to_vec()]);
    assert_eq!(system.vendor.stop().code, 0);
    let config = system.vendor.config().to_owned();
    run(&disk, &["fsck", "--config", &config]).ok();
}
