//! An append through the vendor's log server.

use api::Appended;
use attest::Envelope;
use testkit::Strace;

use super::trial::{Outcome, Trial, audit, fsck, request_traced};
use crate::process::Server;
use crate::statement::{Place, heartbeat};
use crate::system::System;

pub(super) fn post(envelope: &Envelope) -> Vec<u8> {
    let body = envelope.to_bytes();
    let head = "POST /v1/entries HTTP/1.1\r\nHost: test\r\nConnection: close\r\n";
    [format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat()
}

pub(super) fn index(body: &[u8]) -> u64 {
    serde_json::from_slice::<Appended>(body).unwrap().index.get()
}

/// What may be said when the disk fails, and nothing else.
fn check_outcome(outcome: &Outcome, what: &str) -> Option<u64> {
    let said = format!("{what}: {outcome:?}");
    assert!(!outcome.end.stderr.contains("panicked"), "{said}");
    match &outcome.answer {
        Some((200, body)) => Some(index(body)),
        Some((500 | 503, _)) | None => None,
        Some((status, _)) => panic!("{status} {said}"),
    }
}

/// Each asks once more whether the entry is published, a millisecond or so.
const TRIES_MAX: usize = 50_000;

/// With everything sound again: the entry gets in, or is in; what was in is still there.
fn check_after(system: &mut System, known: &[(&Envelope, Option<u64>)], what: &str) {
    system.vendor.start();
    for (envelope, expected) in known {
        let mut answer = system.append(&Place::vendor(), envelope);
        // What was signed and not yet published is published first, and this may be asked for before.
        for _ in 0..TRIES_MAX {
            if answer.status != 503 {
                break;
            }
            answer = system.append(&Place::vendor(), envelope);
        }
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        let found = index(&answer.body);
        assert!(expected.is_none_or(|expected| expected == found), "{what}: {expected:?} {found}");
    }
    system.supervisor.start();
    let audited = audit(system);
    assert_eq!(audited.code, 0, "{what}: {audited:?}");
    assert_eq!(system.vendor.stop().code, 0, "{what}");
    let checked = fsck(system, "vendor");
    assert_eq!(checked.code, 0, "{what}: {checked:?}");
    assert_eq!(std::fs::read_dir(system.file("vendor/log/incoming")).unwrap().count(), 0, "{what}");
}

#[test]
fn an_append_survives_each_failed_call() {
    let system = System::running();
    let place = Place::vendor();
    system.beat(&Place::supervisor());
    let first = system.beat(&place);
    let recorder = system.key("vendor", "recorder");
    let second = heartbeat(&place.after(&first), &recorder);
    let mut trial = Trial::of(system);
    let request = post(&second);
    let append = |system: &mut System, strace: &Strace| {
        system.witnesses.iter_mut().for_each(Server::start);
        request_traced(&mut system.vendor, strace, request.clone())
    };
    let calls = trial.calls("vendor", |system, strace| {
        let outcome = append(system, strace);
        assert_eq!(check_outcome(&outcome, "nothing failed"), Some(1), "{outcome:?}");
        assert_eq!(outcome.end.code, 0, "{outcome:?}");
    });
    assert!(calls.iter().filter(|call| call.changes).count() > 40, "{calls:#?}");
    trial.each("append", &calls, 97, |system, strace, what| {
        let outcome = append(system, strace);
        let acknowledged = check_outcome(&outcome, what);
        check_after(system, &[(&first, Some(0)), (&second, acknowledged)], what);
    });
}
