//! Full disks: what can't be kept is not acknowledged, the message says why, and it goes on as soon
//! as there is room.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use testkit::{Breadth, SmallDisk, figure};

use super::append::{index, post};
use super::trial::{audit, exchange};
use crate::process::{Done, Server};
use crate::raw;
use crate::statement::{Place, heartbeat};
use crate::system::System;

/// `clerestory` where the disk is small.
fn there(disk: &SmallDisk, arguments: &[&str]) -> Command {
    let prefix: Vec<OsString> = disk.prefix();
    let mut command = Command::new(Path::new("/usr/bin").join(&prefix[0]));
    command.args(&prefix[1..]).arg(env!("CARGO_BIN_EXE_clerestory")).args(arguments);
    command.env_clear().stdin(Stdio::null());
    command
}

pub(super) fn run(disk: &SmallDisk, arguments: &[&str]) -> Done {
    there(disk, arguments).output().unwrap().into()
}

pub(super) fn start(server: &mut Server, disk: &SmallDisk) {
    let config = server.config().to_owned();
    server.start_as(there(disk, &["serve", "--config", &config]));
    assert_eq!(raw::get(server.address(), "/healthz").status, 200);
}

/// How much room is left, in bytes: from none to more than is needed.
fn rooms() -> Vec<usize> {
    Breadth::of_this_run().of((0..30).map(|pages| pages * 4096).collect(), 11)
}

/// The end of a role that may have stopped by itself: then it has said why.
pub(super) fn end(server: &mut Server) {
    if server.has_ended() {
        let done = server.wait();
        assert!(done.code == 1 || done.code == 75, "{done:?}");
        assert!(done.stderr.contains("error: ") && done.stderr.contains("full"), "{done:?}");
    } else {
        assert_eq!(server.stop().code, 0);
    }
}

#[test]
fn a_log_on_a_full_disk_goes_on_when_there_is_room() {
    let mut system = System::running();
    system.beat(&Place::supervisor());
    let mut last = system.beat(&Place::vendor());
    let mut place = Place::vendor().after(&last);
    assert_eq!(system.vendor.stop().code, 0);
    let disk = SmallDisk::over(&system.file("vendor"), 4096);
    audit_with(&mut system, &disk);
    let mut refused = 0;
    for left in rooms() {
        start(&mut system.vendor, &disk);
        disk.fill(left);
        let entry = heartbeat(&place, &system.key("vendor", "recorder"));
        let stream = std::net::TcpStream::connect(system.vendor.address()).unwrap();
        let acknowledged = match exchange(stream, &post(&entry)) {
            Some((200, body)) => Some(index(&body)),
            Some((500 | 503, _)) | None => None,
            Some((status, body)) => panic!("{status} {}", String::from_utf8_lossy(&body)),
        };
        refused += usize::from(acknowledged.is_none());
        disk.clear();
        end(&mut system.vendor);
        // With room it starts, and the entry gets in or is in.
        start(&mut system.vendor, &disk);
        let answer = (0..1000).map(|_| system.append(&place, &entry)).find(|answer| answer.status == 200);
        let found = index(&answer.expect("the entry gets in").body);
        assert!(acknowledged.is_none_or(|index| index == found), "{left}");
        (last, place) = (entry.clone(), place.after(&entry));
        assert_eq!(system.vendor.stop().code, 0);
        let config = system.vendor.config().to_owned();
        run(&disk, &["fsck", "--config", &config]).ok();
    }
    drop(last);
    assert!(refused > 0, "some rooms are too small");
    audit_with(&mut system, &disk);
    figure("full disk of a log", format!("{} amounts of room, {refused} too small", rooms().len()));
}

/// With the vendor's log served from the small disk.
fn audit_with(system: &mut System, disk: &SmallDisk) {
    start(&mut system.vendor, disk);
    audit(system).ok();
    assert_eq!(system.vendor.stop().code, 0);
}

#[test]
fn a_witness_on_a_full_disk_goes_on_when_there_is_room() {
    let mut system = System::running();
    let mut last = system.beat(&Place::vendor());
    let mut place = Place::vendor().after(&last);
    // Without the fourth, the first is needed for a quorum.
    system.witnesses[3].kill();
    assert_eq!(system.witnesses[0].stop().code, 0);
    let disk = SmallDisk::over(&system.file("w1"), 512);
    let mut refused = 0;
    for left in rooms().into_iter().take(12) {
        start(&mut system.witnesses[0], &disk);
        disk.fill(left);
        let entry = heartbeat(&place, &system.key("vendor", "recorder"));
        refused += usize::from(system.append(&place, &entry).status != 200);
        disk.clear();
        let answer = (0..1000).map(|_| system.append(&place, &entry)).find(|answer| answer.status == 200);
        answer.expect("the witness cosigns as soon as there is room, without a restart");
        (last, place) = (entry.clone(), place.after(&entry));
        assert_eq!(system.witnesses[0].stop().code, 0);
        let config = system.witnesses[0].config().to_owned();
        run(&disk, &["fsck", "--config", &config]).ok();
    }
    drop(last);
    assert!(refused > 0, "some rooms are too small");
}

#[test]
fn commands_on_a_full_disk_say_so_and_can_be_repeated() {
    let mut system = System::with_releases();
    system.approved_build("1.0", b"content");
    for role in ["vendor", "supervisor"] {
        let config = system.file(&format!("{role}/clerestory.toml")).display().to_string();
        let server = if role == "vendor" { &mut system.vendor } else { &mut system.supervisor };
        assert_eq!(server.stop().code, 0);
        let disk = SmallDisk::over(&system.file(role), 4096);
        let server = if role == "vendor" { &mut system.vendor } else { &mut system.supervisor };
        start(server, &disk);
        let arguments = if role == "vendor" {
            ["release", "publish", "--config", &config, "libexample", "1.0"].to_vec()
        } else {
            ["status", "stop", "--config", &config, "--product", "libexample", "--reason", "full"].to_vec()
        };
        disk.fill(0);
        let done = run(&disk, &arguments);
        assert_eq!(done.code, 75, "{done:?}");
        assert!(done.stderr.contains("error: ") && done.stderr.contains("hint: the disk is full"), "{done:?}");
        disk.clear();
        let server = if role == "vendor" { &mut system.vendor } else { &mut system.supervisor };
        end(server);
        start(server, &disk);
        run(&disk, &arguments).ok();
        assert_eq!(server.stop().code, 0);
        run(&disk, &["fsck", "--config", &config]).ok();
    }
}
