//! A custodian whose disk fails at a call, or that dies there: no share without its note, and none twice. And a log
//! whose disk is full: no share without an entry.

use testkit::{Breadth, Call, Fault, SmallDisk, Strace, figure};

use super::full::{end, start};
use super::trial::{Outcome, copy_tree, request_traced};
use crate::data::gateway::Desk;
use crate::data::scene::{CUSTODIANS, Scene};
use crate::raw;

const WHO: &str = "member";

fn post(ask: &api::GrantRequest) -> Vec<u8> {
    let body = serde_json::to_vec(ask).unwrap();
    let head = "POST /v1/custody/grants HTTP/1.1\r\nHost: test\r\nConnection: close\r\n";
    [format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat()
}

/// Whether shares came. When the disk fails, "later" may be said, and nothing else.
fn granted(outcome: &Outcome, what: &str) -> bool {
    let said = format!("{what}: {outcome:?}");
    assert!(!outcome.end.stderr.contains("panicked"), "{said}");
    match &outcome.answer {
        Some((200, _)) => true,
        Some((500 | 503, _)) | None => false,
        Some((status, _)) => panic!("{status} {said}"),
    }
}

#[test]
fn no_share_is_given_without_its_note_whichever_call_fails() {
    let mut scene = Scene::running();
    scene.custodian(WHO).kill();
    let folder = scene.system.file("custodian-member");
    let saved = tempfile::tempdir().unwrap();
    copy_tree(&folder, saved.path());
    let out = saved.path().with_extension("strace");
    let run = |scene: &mut Scene, strace: &Strace| -> (Outcome, api::GrantRequest) {
        scene.custodian(WHO).kill();
        std::fs::remove_dir_all(&folder).unwrap();
        copy_tree(saved.path(), &folder);
        // An intent is good for minutes, so each trial has its own.
        let ask = scene.ask(&scene.make());
        (request_traced(scene.custodian(WHO), strace, post(&ask)), ask)
    };
    let watch = Strace::watch(&out);
    let (outcome, _) = run(&mut scene, &watch);
    assert!(granted(&outcome, "nothing failed") && outcome.end.code == 0, "{outcome:?}");
    let calls = watch.calls(&scene.system.file("custodian-member"));
    assert!(calls.iter().filter(|call| call.changes).count() > 5, "{calls:#?}");
    let all = calls.iter().flat_map(|call| call.faults().into_iter().map(move |fault| (call, fault)));
    let cases: Vec<(&Call, Fault)> = Breadth::of_this_run().of(all.collect(), 23);
    let mut happened = 0;
    for (call, fault) in &cases {
        let (strace, what) = (Strace::inject(&out, call, *fault), format!("{call} {fault}"));
        let (outcome, ask) = run(&mut scene, &strace);
        let was_granted = granted(&outcome, &what);
        happened += usize::from(strace.hits() > 0);
        // With a sound disk: what was given stands in the ledger, and what stands there is given to nobody.
        scene.custodian(WHO).start();
        let uses = scene.state(WHO).uses;
        assert!(uses <= 1 && (!was_granted || uses == 1), "{what}: {uses} uses, {outcome:?}");
        let again = scene.grant(WHO, &ask);
        assert!(!(was_granted && again.status == 200), "{what}: given twice");
        assert!(again.status == 200 || [403].contains(&again.status), "{what}: {}", again.text());
        let (after, open) = (scene.state(WHO).uses, scene.state(WHO).open.len());
        assert_eq!(
            (after, open),
            (uses.max(u64::from(again.status == 200)), usize::try_from(after).unwrap()),
            "{what}"
        );
        assert_eq!(scene.grant(WHO, &ask).status, 403, "{what}");
    }
    figure("custodian", format!("{} calls, {} faults, {happened} of them happened", calls.len(), cases.len()));
    assert!(cases.len() - happened <= 1 + cases.len() / 5, "{happened} of {}", cases.len());
}

#[test]
fn without_room_for_the_entry_no_share_is_given() {
    let mut desk = Desk::running();
    let request = desk.request();
    desk.approve(&request);
    assert_eq!(desk.scene.system.supervisor.stop().code, 0);
    let disk = SmallDisk::over(&desk.scene.system.file("supervisor/log"), 4096);
    start(&mut desk.scene.system.supervisor, &disk);
    disk.fill(0);
    let failed = desk.query(&request);
    assert!(failed.code == 75 || failed.code == 1, "{failed:?}");
    for who in CUSTODIANS {
        assert_eq!((desk.scene.state(who).uses, desk.scene.state(who).opened), (0, 0));
    }
    disk.clear();
    end(&mut desk.scene.system.supervisor);
    start(&mut desk.scene.system.supervisor, &disk);
    assert_eq!(raw::get(desk.scene.system.supervisor.address(), "/healthz").status, 200);
    // It was announced or it wasn't: another reading needs another request if it was, and each has its outcome.
    let request = desk.request();
    desk.approve(&request);
    desk.query(&request).ok();
    desk.settled();
    let used: Vec<u64> = CUSTODIANS.iter().map(|who| desk.scene.state(who).uses).collect();
    assert_eq!(used, [1, 1]);
    assert_eq!(desk.scene.system.supervisor.stop().code, 0);
}
