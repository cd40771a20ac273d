//! A gateway whose disk fails at a call, or that dies there, while somebody reads: nothing is opened without its entry,
//! nothing twice, and whatever was announced has its outcome.

use std::time::Duration;

use api::{DataQuery, ResultFormat, ResultPiece, ResultReader};
use attest::{AccessCall, AccessIntent, AccessRequest, Ended, Statement};
use stdx::{Clock as _, Digest, Entropy as _, SystemClock, SystemEntropy};
use testkit::{Breadth, Call, Fault, Strace, figure};

use super::trial::{Outcome, copy_tree, fsck, request_traced};
use crate::data::gateway::Desk;
use crate::data::scene::{CUSTODIANS, folder, signed};
use crate::process::Server;

const FOLDERS: [&str; 8] = ["vendor", "supervisor", "w1", "w2", "w3", "w4", "custodian-supervisor", "custodian-member"];

/// Everything runs but the gateway, as it was saved.
fn restore(desk: &mut Desk, saved: &std::path::Path) {
    let scene = &mut desk.scene;
    scene.system.supervisor.kill();
    for server in scene.system.witnesses.iter_mut().chain(&mut scene.custodians) {
        server.kill();
    }
    for name in FOLDERS {
        let folder = scene.system.file(name);
        std::fs::remove_dir_all(&folder).unwrap();
        copy_tree(&saved.join(name), &folder);
    }
    scene.system.witnesses.iter_mut().chain(&mut scene.custodians).for_each(Server::start);
}

/// The gateway is started with the call at hand, and takes none that was made before.
const STARTING: Duration = Duration::from_secs(30);

/// A call by whoever has asked, as it goes over the wire.
fn post(desk: &Desk, id: &str, request: &Statement<AccessRequest>) -> Vec<u8> {
    let mut nonce = [0; 32];
    SystemEntropy.fill(&mut nonce).unwrap();
    let predicate = AccessCall {
        request: id.parse().unwrap(),
        reader: request.predicate.reader,
        parameters: None,
        time: SystemClock::new().now().after(STARTING),
        nonce: Digest::from_bytes(nonce),
    };
    let call = Statement { subject: request.subject.clone(), predicate };
    let call = signed(call, &desk.scene.system.key("vendor", "reader"));
    let call = String::from_utf8(call.to_bytes()).unwrap();
    let query = DataQuery { call, openings: Vec::new(), format: ResultFormat::Json };
    let body = serde_json::to_vec(&query).unwrap();
    // HTTP/1.0 has no chunks: what comes is the body.
    let head = "POST /v1/data/queries HTTP/1.0\r\nHost: test\r\n";
    [format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat()
}

/// Whether a whole result came, which says that the log has its outcome. When the disk fails, "later" may be said, or
/// that what came is not whole.
fn was_read(outcome: &Outcome, what: &str) -> bool {
    let said = format!("{what}: {outcome:?}");
    assert!(!outcome.end.stderr.contains("panicked"), "{said}");
    let Some((200, body)) = &outcome.answer else {
        let status = outcome.answer.as_ref().map(|it| it.0);
        // A custodian that could not have the region's status from this very process has refused.
        assert!(matches!(status, None | Some(403 | 500 | 503)), "{said}");
        return false;
    };
    let mut reader = ResultReader::new(&body[..]);
    loop {
        match reader.piece() {
            Ok(ResultPiece::Bytes(_)) => {}
            Ok(ResultPiece::End(end)) => return end.failed.is_none(),
            Err(_) => return false,
        }
    }
}

/// With a sound disk again: one intent at most, its outcome, and no use of a key without it.
fn check_after(desk: &mut Desk, id: &str, was_read: bool, what: &str) {
    desk.scene.system.supervisor.start();
    desk.settled();
    let (intents, outcomes) = (desk.logged::<AccessIntent>().len(), desk.outcomes());
    let uses: Vec<u64> = CUSTODIANS.iter().map(|who| desk.scene.state(who).uses).collect();
    assert!(intents <= 1 && uses.iter().all(|it| *it <= intents as u64), "{what}: {intents} intents, uses {uses:?}");
    assert!(!was_read || outcomes.iter().all(|it| it.0 == Ended::Done) && intents == 1, "{what}: {outcomes:?}");
    let again = desk.query(id);
    if uses.iter().any(|it| *it > 0) {
        assert!(again.code == 1 && again.stdout.is_empty(), "{what}: read twice: {again:?}");
    } else {
        again.ok();
    }
    desk.settled();
    assert_eq!(desk.scene.system.supervisor.stop().code, 0, "{what}");
    let checked = fsck(&desk.scene.system, "supervisor");
    assert_eq!(checked.code, 0, "{what}: {checked:?}");
}

#[test]
fn nothing_is_read_without_its_entry_and_its_outcome_whichever_call_of_the_gateway_fails() {
    let mut desk = Desk::running();
    let id = desk.request();
    desk.approve(&id);
    let request = desk.logged::<AccessRequest>().remove(0).1;
    desk.scene.system.vendor.kill();
    assert_eq!(desk.scene.system.supervisor.stop().code, 0);
    desk.scene.system.witnesses.iter_mut().chain(&mut desk.scene.custodians).for_each(Server::kill);
    let saved = tempfile::tempdir().unwrap();
    for name in FOLDERS {
        copy_tree(&desk.scene.system.file(name), &saved.path().join(name));
    }
    assert!(CUSTODIANS.iter().all(|who| FOLDERS.contains(&folder(who).as_str())));
    let out = saved.path().with_extension("strace");
    let run = |desk: &mut Desk, strace: &Strace| {
        restore(desk, saved.path());
        let body = post(desk, &id, &request);
        request_traced(&mut desk.scene.system.supervisor, strace, body)
    };
    let watch = Strace::watch(&out);
    let outcome = run(&mut desk, &watch);
    assert!(was_read(&outcome, "nothing failed") && outcome.end.code == 0, "{outcome:?}");
    let calls = watch.calls(&desk.scene.system.file("supervisor"));
    assert!(calls.iter().filter(|call| call.changes).count() > 20, "{calls:#?}");
    check_after(&mut desk, &id, true, "nothing failed");
    let all = calls.iter().flat_map(|call| call.faults().into_iter().map(move |fault| (call, fault)));
    let cases: Vec<(&Call, Fault)> = Breadth::of_this_run().of(all.collect(), 61);
    let mut happened = 0;
    for (call, fault) in &cases {
        let (strace, what) = (Strace::inject(&out, call, *fault), format!("{call} {fault}"));
        let outcome = run(&mut desk, &strace);
        happened += usize::from(strace.hits() > 0);
        check_after(&mut desk, &id, was_read(&outcome, &what), &what);
    }
    figure("gateway", format!("{} calls, {} faults, {happened} of them happened", calls.len(), cases.len()));
    assert!(happened * 2 >= cases.len(), "{happened} of {}", cases.len());
}
