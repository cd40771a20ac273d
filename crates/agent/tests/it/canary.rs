//! A host that goes first: what it signs, what it says, and that no number is said twice.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use agent::{Canary, Endpoint, Offer, RealDisk, Report, Told};
use attest::{Agreement, Envelope, Health, Outcome, Ring, Statement, StatementId};
use stdx::{Digest, SystemEntropy};
use testkit::RULES_PRODUCT;

use crate::crash::{Dying, Last};
use crate::rules::{Rules, rules};
use crate::scene::copy_tree;

/// What a supervisor gets; it answers with what it is told to.
struct Supervisor {
    url: String,
    bodies: Receiver<Vec<u8>>,
    status: Arc<AtomicU16>,
}

impl Supervisor {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (send, bodies) = channel();
        let status = Arc::new(AtomicU16::new(200));
        let answer = Arc::clone(&status);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut length = 0;
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    let line = line.trim().to_lowercase();
                    if let Some(value) = line.strip_prefix("content-length: ") {
                        length = value.parse().unwrap();
                    }
                    if line.is_empty() {
                        break;
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                let status = answer.load(Ordering::SeqCst);
                if status == 200 {
                    send.send(body).unwrap();
                }
                write!(stream, "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: 4\r\n\r\nnull").unwrap();
            }
        });
        Self { url, bodies, status }
    }

    /// What came since the last look.
    fn reports(&self) -> Vec<(Statement<Health>, Envelope)> {
        let read = |body: Vec<u8>| {
            let envelope = Envelope::parse(&body).unwrap();
            (Statement::<Health>::decode(envelope.payload()).unwrap(), envelope)
        };
        self.bodies.try_iter().map(read).collect()
    }
}

fn enrolment() -> StatementId {
    "ab".repeat(32).parse().unwrap()
}

/// A scene whose owner has agreed, and which is enrolled.
fn agreed() -> (Rules, Supervisor) {
    let supervisor = Supervisor::new();
    let mut rules = Rules::new();
    let more = format!(
        "[[product]]\nid = \"{RULES_PRODUCT}\"\nring = \"canary\"\n[scan]\nrules = \"{RULES_PRODUCT}\"\n\
         [canary]\nsupervisor = \"{}\"\n",
        supervisor.url
    );
    rules.scene.reconfigure(&more);
    let canary = Canary::new(&rules.scene.config, rules.scene.ports(&RealDisk));
    let offer = Offer { host: "host1".parse().unwrap(), days: 30 };
    canary.agree(&rules.scene.config, &offer, &SystemEntropy).unwrap();
    canary.enrolled(enrolment()).unwrap();
    (rules, supervisor)
}

/// What happened is counted, what is new is taken, and then it is told.
fn round(rules: &Rules, told: Told) -> Report {
    let mut endpoint = Endpoint::open(&rules.scene.config, rules.scene.ports(&RealDisk)).unwrap();
    endpoint.count(told).unwrap();
    endpoint.update().unwrap();
    endpoint.report_health().unwrap()
}

#[test]
fn the_owner_agrees_and_leaves() {
    let (rules, _supervisor) = agreed();
    let canary = Canary::new(&rules.scene.config, rules.scene.ports(&RealDisk));
    let status = canary.status().unwrap();
    let key = rules.scene.config.state.join("canary/key");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let envelope = Envelope::parse(&std::fs::read(&status.file).unwrap()).unwrap();
    assert!(envelope.signed_by(&status.key).unwrap());
    let agreement = Statement::<Agreement>::decode(envelope.payload()).unwrap();
    assert_eq!(agreement.subject, [Agreement::subject()]);
    assert_eq!(agreement.predicate.host.as_str(), "host1");
    // Agreeing twice would make two keys.
    let offer = Offer { host: "host2".parse().unwrap(), days: 30 };
    assert_eq!(canary.agree(&rules.scene.config, &offer, &SystemEntropy).unwrap_err().code, "canary");
    canary.leave().unwrap();
    assert!(!key.exists() && canary.status().is_err() && canary.leave().is_err());
}

#[test]
fn a_report_says_how_rules_fare_and_nothing_else() {
    let (mut rules, supervisor) = agreed();
    let first = rules.release(&self::rules(0));
    assert!(round(&rules, Told::default()).failures.is_empty());
    let reports = supervisor.reports();
    let [(statement, envelope)] = &reports[..] else { panic!("{reports:?}") };
    let canary = Canary::new(&rules.scene.config, rules.scene.ports(&RealDisk));
    assert!(envelope.signed_by(&canary.status().unwrap().key).unwrap());
    assert_eq!(statement.subject[0].sha256(), Digest::of(&self::rules(0)));
    let says = &statement.predicate;
    assert_eq!((says.enrolment, says.release, says.ring), (enrolment(), first.release.id(), Ring::Canary));
    assert_eq!((says.outcome, says.crashes, says.detections), (Outcome::Active, 0, 0));

    // Nothing new is nothing to tell; what is new, is, in all.
    round(&rules, Told::default());
    assert!(supervisor.reports().is_empty());
    round(&rules, Told { crashes: 0, detections: 3 });
    round(&rules, Told { crashes: 1, detections: 4 });
    let told: Vec<_> =
        supervisor.reports().iter().map(|(it, _)| (it.predicate.crashes, it.predicate.detections)).collect();
    assert_eq!(told, [(0, 3), (1, 7)]);

    // Rules that don't compile are told of, and the ones before stay.
    let bad = rules.release(b"rule a { condition: b }");
    round(&rules, Told::default());
    let reports = supervisor.reports();
    assert_eq!(reports.len(), 1);
    assert_eq!(
        (reports[0].0.predicate.release, reports[0].0.predicate.outcome),
        (bad.release.id(), Outcome::NotCompiled)
    );

    // Crashes count for the rules that were in use, also when they are given up.
    let third = rules.release(&self::rules(2));
    round(&rules, Told::default());
    supervisor.reports();
    let mut endpoint = Endpoint::open(&rules.scene.config, rules.scene.ports(&RealDisk)).unwrap();
    endpoint.count(Told { crashes: 3, detections: 1 }).unwrap();
    let product = rules.scene.config.scanned().unwrap().clone();
    endpoint.engine_ended(&product, 3).unwrap();
    endpoint.report_health().unwrap();
    let reports = supervisor.reports();
    let told = reports.iter().map(|(it, _)| &it.predicate).find(|it| it.release == third.release.id()).unwrap();
    assert_eq!((told.outcome, told.crashes, told.detections), (Outcome::RolledBack, 3, 1));
}

#[test]
fn a_supervisor_that_refuses_is_not_asked_again_and_one_that_is_away_is() {
    let (mut rules, supervisor) = agreed();
    rules.release(&self::rules(0));
    supervisor.status.store(503, Ordering::SeqCst);
    assert_eq!(round(&rules, Told::default()).exit_code(), 75);
    supervisor.status.store(200, Ordering::SeqCst);
    round(&rules, Told::default());
    assert_eq!(supervisor.reports()[0].0.predicate.sequence, 2);
    supervisor.status.store(422, Ordering::SeqCst);
    assert!(round(&rules, Told { crashes: 0, detections: 1 }).has("report"));
    assert!(round(&rules, Told::default()).failures.is_empty());
}

#[test]
fn no_number_is_used_twice_wherever_it_dies() {
    let (mut rules, supervisor) = agreed();
    rules.release(&self::rules(0));
    rules.scene.update();
    let saved = rules.scene.folder.path().join("saved");
    copy_tree(&rules.scene.config.state, &saved);
    let mut steps_seen = 0;
    for steps in 1..50 {
        let mut ended = false;
        for last in [Last::Undone, Last::Done] {
            let disk = Dying::new(steps, last);
            let done = Endpoint::open(&rules.scene.config, rules.scene.ports(&disk)).and_then(|mut endpoint| {
                endpoint.count(Told { crashes: 0, detections: 1 })?;
                endpoint.report_health()
            });
            ended = done.is_ok();
            round(&rules, Told { crashes: 0, detections: 1 });
            let reports = supervisor.reports();
            let numbers: BTreeSet<u64> = reports.iter().map(|(it, _)| it.predicate.sequence).collect();
            assert!(!reports.is_empty() && numbers.len() == reports.len(), "{steps} {last:?}: {numbers:?}");
            std::fs::remove_dir_all(&rules.scene.config.state).unwrap();
            copy_tree(&saved, &rules.scene.config.state);
        }
        steps_seen = steps;
        if ended {
            break;
        }
    }
    assert!((4..50).contains(&steps_seen), "{steps_seen} steps");
}
