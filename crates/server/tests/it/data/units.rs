//! A custodian and a worker that are run by their units' command lines: they do nothing, under strace, that the units
//! forbid.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::gateway::Desk;
use super::scene::{Scene, folder};
use super::through::{code, installed, program, taken};
use crate::process::Server;
use crate::units::{check, ended, traced, unit, values};

/// A unit's own command line, under strace, with the paths of this machine.
fn by(name: &str, program: &Path, at: (&str, &Path), trace: &Path) -> Command {
    let line = values(&unit(name), "ExecStart").concat().replace(at.0, at.1.to_str().unwrap());
    let mut command = traced(trace);
    command.arg(program).args(line.split(' ').skip(1));
    command
}

#[test]
fn a_custodian_and_a_worker_do_nothing_that_their_units_forbid() {
    let mut found: Option<(Server, PathBuf)> = None;
    let mut desk = Desk::of(Scene::made(), &code(), |scene| {
        let (mut worker, trace) = (installed(scene), scene.system.file("worker.trace"));
        let at = scene.system.file("worker").canonicalize().unwrap();
        worker.start_as(by("clerestory-worker.service", &program(), ("/etc/clerestory/worker", &at), &trace));
        let url = worker.url();
        found = Some((worker, trace));
        url
    });
    let (mut worker, worker_trace) = found.unwrap();
    let custodian = &mut desk.scene.custodians[1];
    assert_eq!(custodian.stop().code, 0);
    let state = desk.scene.system.file(&folder("member")).canonicalize().unwrap();
    let custodian_trace = desk.scene.system.file("custodian.trace");
    let clerestory = Path::new(env!("CARGO_BIN_EXE_clerestory"));
    let at = ("/var/lib/clerestory/custodian", state.as_path());
    custodian.start_as(by("clerestory-custodian.service", clerestory, at, &custodian_trace));
    taken(&mut desk);
    let request = desk.request();
    desk.approve(&request);
    let read = desk.data("query", "reader", &[&request, "--format", "csv"]).ok();
    assert_eq!(read.stdout.lines().count(), 3, "{}", read.stdout);
    assert_eq!(desk.scene.custodians[1].stop().code, 0);
    worker.terminate();
    assert_eq!(worker.wait().code, 0);
    check("custodian", &unit("clerestory-custodian.service"), &ended(&custodian_trace), &state);
    // A worker writes nowhere.
    check("worker", &unit("clerestory-worker.service"), &ended(&worker_trace), Path::new("/nowhere"));
}
