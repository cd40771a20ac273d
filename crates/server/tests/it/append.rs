//! Appending over HTTP: receipts that verify, refusals that say why, and no fail-open.

use api::Appended;
use attest::Envelope;
use tlog::{LogProof, leaf_hash};

use crate::raw;
use crate::statement::{Place, heartbeat};
use crate::system::System;

fn proof(response: &raw::Response) -> LogProof {
    assert_eq!(response.status, 200, "{}", response.text());
    let appended: Appended = serde_json::from_slice(&response.body).unwrap();
    let proof = LogProof::parse(&appended.proof).unwrap();
    assert_eq!(proof.index(), appended.index);
    proof
}

#[test]
fn a_receipt_verifies_and_the_same_bytes_keep_their_place() {
    let mut system = System::running();
    let policy = system.policy();
    let recorder = system.key("vendor", "recorder");
    let (place, mut entries) = (Place::vendor(), Vec::<Envelope>::new());
    for index in 0..3 {
        let place = entries.last().map_or(place.clone(), |last| Place { sequence: index, ..place.after(last) });
        let envelope = heartbeat(&place, &recorder);
        let proof = proof(&system.append(&place, &envelope));
        assert_eq!(proof.index().get(), index);
        let cosigned = proof.verify(&leaf_hash(&envelope.to_bytes()), policy.witnessing()).unwrap();
        assert!(cosigned.by.len() >= 3);
        entries.push(envelope);
    }
    let again = proof(&system.append(&place, &entries[1]));
    assert_eq!(again.index().get(), 1);
    again.verify(&leaf_hash(&entries[1].to_bytes()), policy.witnessing()).unwrap();

    // A restart loses nothing and goes on where it was.
    assert_eq!(system.vendor.stop().code, 0);
    system.vendor.start();
    let envelope = heartbeat(&Place { sequence: 3, ..place.after(&entries[2]) }, &recorder);
    assert_eq!(proof(&system.append(&place, &envelope)).index().get(), 3);
    // So does a power cut.
    system.vendor.kill();
    system.vendor.start();
    assert_eq!(proof(&system.append(&place, &entries[2])).index().get(), 2);
}

#[test]
fn what_an_auditor_would_report_is_not_taken_in() {
    let system = System::running();
    let (place, recorder) = (Place::vendor(), system.key("vendor", "recorder"));
    let good = heartbeat(&place, &recorder);
    let spaced = String::from_utf8(good.to_bytes()).unwrap().replace("\",\"", "\", \"");
    let other_log = heartbeat(&Place { log: "supervisor.example/log", ..place.clone() }, &recorder);
    let other_stream = heartbeat(&Place { stream: "test/other", ..place.clone() }, &recorder);
    let supervisor = heartbeat(&place, &system.key("supervisor", "recorder"));
    let stranger = heartbeat(&place, &system.key("w1", "witness"));
    let no_position = Envelope::sign(b"{\"predicateType\":\"x\"}".to_vec(), &[&recorder]).unwrap();
    let cases: [(&str, Vec<u8>); 9] = [
        ("empty", Vec::new()),
        ("no JSON", b"entry".to_vec()),
        ("other encoding", spaced.into_bytes()),
        ("too long", vec![b' '; 65_536]),
        ("no position", no_position.to_bytes()),
        ("another log", other_log.to_bytes()),
        ("a closed stream", other_stream.to_bytes()),
        ("another organisation", supervisor.to_bytes()),
        ("a stranger", stranger.to_bytes()),
    ];
    let answers: Vec<String> = cases
        .iter()
        .map(|(name, body)| format!("{name}: {}", raw::post(system.vendor.address(), "/v1/entries", body).error()))
        .collect();
    insta::assert_snapshot!(answers.join("\n"), @r"
    empty: 422 entry-form: not a canonical envelope
    no JSON: 422 entry-form: not a canonical envelope
    other encoding: 422 entry-form: not a canonical envelope
    too long: 413 too-long: Failed to buffer the request body: length limit exceeded
    no position: 422 entry-form: its statement has no position
    another log: 422 entry-log: stream `test/vendor`: made for log `supervisor.example/log`
    a closed stream: 403 entry-stream: stream `test/other`: the policy does not open it
    another organisation: 403 entry-signer: stream `test/vendor`: no key of `vendor` has signed it
    a stranger: 403 entry-signer: stream `test/vendor`: no key of `vendor` has signed it
    ");

    // A forged signature under a right name.
    let mut forged = String::from_utf8(good.to_bytes()).unwrap();
    let at = forged.rfind("\"sig\":\"").unwrap() + 7;
    let other = if forged[at..].starts_with('A') { "B" } else { "A" };
    forged.replace_range(at..=at, other);
    let refused = raw::post(system.vendor.address(), "/v1/entries", forged.as_bytes());
    insta::assert_snapshot!(refused.error(), @"403 entry-signer: stream `test/vendor`: no key of `vendor` has signed it");

    // None of these left anything behind.
    assert_eq!(proof(&system.append(&place, &good)).index().get(), 0);
}

#[test]
fn without_a_quorum_nothing_is_published_and_the_entry_keeps_its_place() {
    let mut system = System::running();
    let first = system.beat(&Place::vendor());
    let published = raw::get(system.vendor.address(), "/checkpoint").text();
    for witness in &mut system.witnesses[..2] {
        witness.kill();
    }
    let place = Place::vendor().after(&first);
    let envelope = heartbeat(&place, &system.key("vendor", "recorder"));
    let refused = system.append(&place, &envelope);
    insta::assert_snapshot!(refused.error(), @"503 not-witnessed: the entry was taken in, but too few witnesses have cosigned yet");
    assert_eq!(refused.header("retry-after"), Some("5"));
    assert_eq!(raw::get(system.vendor.address(), "/checkpoint").text(), published);

    for witness in &mut system.witnesses[..2] {
        witness.start();
    }
    let mut answer = system.append(&place, &envelope);
    for _ in 0..20 {
        if answer.status != 503 {
            break;
        }
        // Each of these waits for the witnesses.
        answer = system.append(&place, &envelope);
    }
    assert_eq!(proof(&answer).index().get(), 1);
}
