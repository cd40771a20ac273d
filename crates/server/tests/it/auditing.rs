//! `audit`: an honest log passes; a fork, a gap and too many silent witnesses do not.

use std::io::{BufRead as _, BufReader};

use stdx::durable;
use tlog::{Checkpoint, Hash, SignedCheckpoint, TreeHead, TreeSize};

use crate::process::{Done, spawn};
use crate::statement::{Place, heartbeat};
use crate::system::System;

fn audit(system: &System) -> Done {
    let config = "vendor/clerestory.toml";
    system.run(&["--json", "audit", "--config", config, "--state", "audit.json", "--proofs", "proofs"])
}

/// What the auditor saw the last time, put there by hand: the log's own signature on another tree.
fn pretend(system: &System, size: u64) {
    let root = Hash::from_bytes([7; 32]);
    let head = TreeHead { size: TreeSize::new(size), root };
    let checkpoint = Checkpoint::new("vendor.example/log".parse().unwrap(), head).unwrap();
    let signed = SignedCheckpoint::sign(checkpoint, &system.key("vendor", "log")).unwrap();
    let state = serde_json::json!({ "checkpoints": { "vendor.example/log": signed.to_string() } });
    durable::write(&system.file("audit.json"), state.to_string().as_bytes()).unwrap();
}

#[test]
fn an_honest_log_passes_again_and_again() {
    let system = System::running();
    system.beat(&Place::supervisor());
    let first = system.beat(&Place::vendor());
    let report = audit(&system).ok().json();
    assert_eq!(report["logs"][0]["size"], 1);
    system.beat(&Place::vendor().after(&first));
    let report = audit(&system).ok().json();
    assert_eq!((&report["logs"][0]["size"], &report["logs"][1]["size"]), (&2.into(), &1.into()));
    let state = std::fs::read_to_string(system.file("audit.json")).unwrap();
    assert!(state.contains("vendor.example/log\\n2\\n"), "{state}");
}

#[test]
fn a_fork_is_proven_to_strangers() {
    let system = System::running();
    system.beat(&Place::supervisor());
    let first = system.beat(&Place::vendor());
    let second = system.beat(&Place::vendor().after(&first));
    system.beat(&Place { sequence: 2, ..Place::vendor().after(&second) });
    for size in [1, 2, 3] {
        pretend(&system, size);
        let done = audit(&system);
        assert_eq!(done.code, 1, "{done:?}");
        let report = done.json();
        let finding = report["logs"][0]["findings"].as_array().unwrap().iter().find(|it| it["kind"] == "misbehaviour");
        let proof = finding.unwrap_or_else(|| panic!("{report}"))["proof"].as_str().unwrap().to_owned();

        // Offline, by the log's key alone.
        let key = system.vkey("vendor", "log");
        let proven = system.run(&["audit", "--proof", &proof, "--log-key", &key]).ok();
        assert!(proven.stdout.starts_with("proven: `vendor.example/log` signed two"), "{proven:?}");
        let other = system.vkey("supervisor", "log");
        assert_eq!(system.run(&["audit", "--proof", &proof, "--log-key", &other]).code, 1);
        let text = std::fs::read_to_string(system.file(&proof)).unwrap();
        let bent = text.replacen("vendor.example/log\n", "vendor.example/lag\n", 1);
        durable::write(&system.file("bent.proof"), bent.as_bytes()).unwrap();
        assert_eq!(system.run(&["audit", "--proof", "bent.proof", "--log-key", &key]).code, 1);

        // What is remembered stays what contradicts: the next audit finds it again.
        assert_eq!(audit(&system).code, 1);
    }
}

#[test]
fn a_shrunken_log_is_found() {
    let system = System::running();
    system.beat(&Place::supervisor());
    system.beat(&Place::vendor());
    pretend(&system, 9);
    let done = audit(&system);
    assert_eq!(done.code, 1);
    assert!(done.stdout.contains("showed 9 entries before, now 1"), "{done:?}");
}

#[test]
fn a_gap_and_a_double_are_found() {
    let mut system = System::running();
    system.beat(&Place::supervisor());
    let first = system.beat(&Place::vendor());
    let (second, recorder) = (Place::vendor().after(&first), system.key("vendor", "recorder"));
    let gap = heartbeat(&Place { sequence: 5, ..second.clone() }, &recorder);
    let double = heartbeat(&Place { sequence: 5, ..second.after(&gap) }, &recorder);
    system.smuggle(&[&gap, &double]);
    let done = audit(&system);
    assert_eq!(done.code, 1);
    let report = done.json();
    let kinds: Vec<_> = report["logs"][0]["streams"].as_array().unwrap().iter().map(|it| &it["kind"]).collect();
    assert_eq!(kinds, ["missing", "doubled"], "{report}");
    // The tree is one tree all the same, so it is remembered.
    assert!(system.file("audit.json").exists());
    assert!(std::fs::read_to_string(system.file("audit.json")).unwrap().contains("vendor.example/log\\n3\\n"));
}

#[test]
fn a_continuous_audit_ends_when_something_is_found() {
    let mut system = System::running();
    system.beat(&Place::supervisor());
    let first = system.beat(&Place::vendor());
    let arguments = ["--json", "audit", "--config", "vendor/clerestory.toml", "--continuous", "--interval-s", "1"];
    let mut child = spawn(system.path(), &arguments);
    let mut reports = BufReader::new(child.stdout.take().unwrap()).lines();
    let report: serde_json::Value = serde_json::from_str(&reports.next().unwrap().unwrap()).unwrap();
    assert_eq!(report["logs"][0]["streams"], serde_json::json!([]));
    let gap = heartbeat(&Place { sequence: 7, ..Place::vendor().after(&first) }, &system.key("vendor", "recorder"));
    system.smuggle(&[&gap]);
    let last: serde_json::Value = serde_json::from_str(&reports.map(Result::unwrap).last().unwrap()).unwrap();
    assert_eq!(last["logs"][0]["streams"][0]["kind"], "missing");
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn one_silent_witness_is_a_warning_and_two_are_a_finding() {
    let mut system = System::running();
    system.beat(&Place::supervisor());
    system.beat(&Place::vendor());
    // Nobody answers on a port that was given back.
    system.witnesses.truncate(3);
    let report = audit(&system).ok().json();
    assert!(report["logs"][0]["warnings"][0].as_str().unwrap().contains("w4.example/witness"), "{report}");
    system.witnesses.truncate(2);
    let done = audit(&system);
    assert_eq!(done.code, 1);
    assert_eq!(done.json()["logs"][0]["findings"][0]["kind"], "silent");
}

#[test]
fn a_log_that_is_away_is_a_matter_of_trying_again() {
    let mut system = System::running();
    system.vendor.kill();
    let policy = system.file("vendor/policy");
    // The socket goes with the server, so that nobody answers at all.
    drop(std::mem::replace(&mut system.vendor, crate::process::Server::bound("none".into())));
    let genesis = system.genesis.to_string();
    let done = system.run(&["audit", "--policy", policy.to_str().unwrap(), "--genesis", &genesis]);
    assert_eq!(done.code, 75, "{done:?}");
    assert!(done.stderr.starts_with("error: `vendor.example/log` at http://"), "{done:?}");
}

#[test]
fn a_refused_entry_is_no_part_of_the_log() {
    let system = System::running();
    let stray = heartbeat(&Place::vendor(), &system.key("supervisor", "recorder"));
    assert_eq!(system.append(&Place::vendor(), &stray).status, 403);
    system.beat(&Place::supervisor());
    system.beat(&Place::vendor());
    audit(&system).ok();
}
