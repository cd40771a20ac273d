//! Our log and our witness in the eyes of strangers: programs in Python that were written from
//! C2SP's pages (`foreign/`), as reader, as witness and as log, over the wire.

use attest::Envelope;
use stdx::durable;
use testkit::foreign::{python, succeed};

use crate::process::Server;
use crate::raw;
use crate::statement::{Place, heartbeat};
use crate::system::System;

fn policy_text(system: &System) -> String {
    let path = system.file("witnessing.policy");
    durable::write(&path, system.policy_document().witnessing.policy.as_bytes()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_reader_in_python_verifies_the_whole_log_and_a_receipt() {
    let mut system = System::running();
    let recorder = system.key("vendor", "recorder");
    let first = heartbeat(&Place::vendor(), &recorder);
    let receipt: api::Appended = serde_json::from_slice(&system.append(&Place::vendor(), &first).body).unwrap();
    let [earlier, proof, entry] = ["earlier", "proof", "entry"].map(|name| system.file(name));
    durable::write(&earlier, &raw::get(system.vendor.address(), "/checkpoint").body).unwrap();
    durable::write(&proof, receipt.proof.as_bytes()).unwrap();
    durable::write(&entry, &first.to_bytes()).unwrap();
    let policy = policy_text(&system);
    let said = succeed(python("verify_proof.py").args([&proof, &entry]).arg(&policy));
    assert!(said.starts_with("entry 0 of 1, cosigned by w"), "{said}");
    durable::write(&entry, &first.to_bytes()[1..]).unwrap();
    let refused = python("verify_proof.py").args([&proof, &entry]).arg(&policy).output().unwrap();
    assert_eq!(String::from_utf8(refused.stderr).unwrap(), "error: entry 0 is not under the root\n");

    // Two levels of tiles, full and partial ones.
    let mut envelopes = vec![first];
    while envelopes.len() < 600 {
        let last = Place { sequence: envelopes.len() as u64 - 1, ..Place::vendor() };
        envelopes.push(heartbeat(&last.after(envelopes.last().unwrap()), &recorder));
    }
    system.smuggle(&envelopes[1..].iter().collect::<Vec<&Envelope>>());
    let said = succeed(python("read_log.py").args([&system.vendor.url(), &policy]).arg(&earlier));
    let expected =
        "vendor.example/log: 600 entries, 2 levels, 67 inclusion proofs, 1 consistency proofs, cosigned by w";
    assert!(said.starts_with(expected), "{said}");
}

#[test]
fn a_log_in_python_drives_our_witness() {
    let mut system = System::made();
    system.witnesses[0].start();
    let mut log = python("log.py");
    log.args([&system.witnesses[0].url(), &system.vkey("w1", "witness")]).arg(system.file("vendor/keys/log.key"));
    assert_eq!(succeed(&mut log), "59 answers as the specification says\n");
}

/// A witness in Python, in the place of one of ours: with its key, at its address.
fn start_stranger(system: &mut System, number: usize) {
    let mut witness = python("witness.py");
    witness.arg(system.file(&format!("w{number}/keys/witness.key")));
    witness.args([system.vkey("vendor", "log"), system.vkey("supervisor", "log")]);
    system.witnesses[number - 1].start_as(witness);
}

/// From now on this witness answers so.
fn behave(witness: &Server, behaviour: &str) {
    assert_eq!(raw::post(witness.address(), &format!("/behave/{behaviour}"), b"").status, 200, "{behaviour}");
}

/// Whether it has been asked, and answered so.
fn has_answered(witness: &Server, behaviour: &str) -> bool {
    raw::get(witness.address(), &format!("/seen/{behaviour}")).status == 200
}

/// The next heartbeat behind `last`.
fn next(system: &System, last: &Envelope, sequence: u64) -> (Place, Envelope) {
    let place = Place { sequence, previous: Some(last.id()), ..Place::vendor() };
    let envelope = heartbeat(&place, &system.key("vendor", "recorder"));
    (place, envelope)
}

const ODD: [&str; 21] = [
    "extra",
    "foreign",
    "empty",
    "html",
    "wrong",
    "yesterday",
    "timeless",
    "other",
    "larger",
    "untyped",
    "unsized",
    "unprocessable",
    "malformed",
    "forbidden",
    "unknown",
    "broken",
    "busy",
    "moved",
    "nocontent",
    "truncated",
    "slow",
];

#[test]
fn our_log_drives_witnesses_in_python_and_survives_each_odd_one() {
    let mut system = System::made();
    (1..=4).for_each(|number| start_stranger(&mut system, number));
    system.vendor.start();
    let mut last = system.beat(&Place::vendor());
    let mut sequence = 1;
    for odd in ODD {
        behave(&system.witnesses[3], odd);
        // The three others are enough, so an append neither waits for the odd one nor asks it while
        // it is still busy with the one before: append until it was asked.
        for _ in 0..100 {
            let (place, envelope) = next(&system, &last, sequence);
            let answer = system.append(&place, &envelope);
            assert_eq!(answer.status, 200, "{odd}: {}", answer.text());
            (last, sequence) = (envelope, sequence + 1);
            if has_answered(&system.witnesses[3], odd) {
                break;
            }
        }
        assert!(has_answered(&system.witnesses[3], odd), "{odd}");
    }

    // It is none the worse for it: now that another is gone, its cosignature decides.
    system.witnesses[0].kill();
    behave(&system.witnesses[3], "honest");
    let (place, envelope) = next(&system, &last, sequence);
    let answer = append_at_last(&system, &place, &envelope);
    assert_eq!(cosigners(&answer), ["w2", "w3", "w4"]);
    // Lines of strangers around its own are left out; without its own they are nothing.
    behave(&system.witnesses[3], "extra");
    let (place, envelope) = next(&system, &envelope, sequence + 1);
    let answer = append_at_last(&system, &place, &envelope);
    assert_eq!(cosigners(&answer), ["w2", "w3", "w4"]);
    behave(&system.witnesses[3], "foreign");
    let published = raw::get(system.vendor.address(), "/checkpoint").text();
    let (place, envelope) = next(&system, &envelope, sequence + 2);
    let answer = system.append(&place, &envelope);
    assert!(answer.error().starts_with("503 not-witnessed: "), "{}", answer.error());
    assert_eq!(raw::get(system.vendor.address(), "/checkpoint").text(), published);
    behave(&system.witnesses[3], "honest");
    let answer = append_at_last(&system, &place, &envelope);
    assert_eq!(cosigners(&answer), ["w2", "w3", "w4"]);

    // What our log asked was well-formed, signed and proven, or a stranger would have said otherwise.
    for witness in &system.witnesses[1..] {
        let answers = raw::get(witness.address(), "/seen/honest").text();
        assert!(answers.split_whitespace().all(|status| ["200", "409"].contains(&status)), "{answers}");
        assert!(answers.contains("200"), "{answers}");
    }
}

/// Appends as a client does that is told to come back.
fn append_at_last(system: &System, place: &Place, envelope: &Envelope) -> raw::Response {
    // Each of these waits for the witnesses.
    let mut answers = (0..20).map(|_| system.append(place, envelope));
    let answer = answers.find(|answer| answer.status != 503).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer
}

/// The witnesses whose cosignatures the receipt shows.
fn cosigners(receipt: &raw::Response) -> Vec<String> {
    let receipt: api::Appended = serde_json::from_slice(&receipt.body).unwrap();
    let lines = receipt.proof.lines().filter_map(|line| line.strip_prefix("\u{2014} w"));
    let mut names: Vec<String> = lines.map(|line| format!("w{}", line.split('.').next().unwrap())).collect();
    names.sort();
    names
}
