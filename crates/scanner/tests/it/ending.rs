//! Children that die, hang, or eat too much, and bounds that are reached before that.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use detection::{FileReport, Item, Note, NoteCode, Worker, WorkerError};
use rustix::process::{Pid, Signal, kill_process};

use crate::place::{Place, RULES, limits, program, rules, scan, worker};

fn signal(worker: &Worker, signal: Signal) {
    let process = Pid::from_raw(i32::try_from(worker.process()).unwrap()).unwrap();
    kill_process(process, signal).unwrap();
}

fn codes(report: &FileReport) -> Vec<NoteCode> {
    report.notes.iter().map(|note| note.code).collect()
}

/// Scans forty marked files; before the tenth is given, the child gets a signal.
fn scan_with(worker: &mut Worker, sent: Signal) -> Vec<FileReport> {
    let place = Place::new();
    let mut items: Vec<Item> = (0..40).map(|number| place.item(&format!("{number:02}"), b"find me")).collect();
    let process = Pid::from_raw(i32::try_from(worker.process()).unwrap()).unwrap();
    let mut given = 0;
    let mut next = std::iter::from_fn(|| {
        given += 1;
        if given == 10 {
            kill_process(process, sent).unwrap();
        }
        (!items.is_empty()).then(|| items.remove(0))
    });
    let mut reports = Vec::new();
    worker.scan(&mut next, &mut |report| reports.push(report)).unwrap();
    reports
}

#[test]
fn a_child_that_is_killed_loses_no_file() {
    let mut worker = worker(limits(2));
    let first = worker.process();
    let reports = scan_with(&mut worker, Signal::KILL);
    let mut paths: Vec<&PathBuf> = reports.iter().map(|report| &report.path).collect();
    paths.sort();
    paths.dedup();
    assert_eq!((reports.len(), paths.len()), (40, 40));
    assert!(reports.iter().all(|report| rules(report) == ["marked"] && report.notes.is_empty()), "{reports:?}");
    assert_ne!(worker.process(), first);
}

#[test]
fn a_child_that_hangs_is_ended() {
    let mut limits = limits(2);
    limits.file_time = Duration::from_secs(2);
    let mut worker = worker(limits);
    let reports = scan_with(&mut worker, Signal::STOP);
    assert_eq!(reports.len(), 40);
    assert!(reports.iter().all(|report| rules(report) == ["marked"] && report.notes.is_empty()), "{reports:?}");
}

#[test]
fn a_file_that_ends_two_children_is_named_and_left() {
    let place = Place::new();
    let mut limits = limits(2);
    limits.memory = 200 << 20;
    let mut worker = worker(limits);
    let large = place.file("large", b"");
    File::options().write(true).open(&large).unwrap().set_len(250 << 20).unwrap();
    let mut items: Vec<Item> = (0..10).map(|number| place.item(&format!("{number}"), b"find me")).collect();
    items.insert(3, Item { file: File::open(&large).unwrap(), path: large.clone() });
    let reports = scan(&mut worker, items);
    assert_eq!(reports.len(), 11);
    for report in &reports {
        if report.path == large {
            assert_eq!(codes(report), [NoteCode::Ended], "{report:?}");
            assert!(report.notes[0].message.contains("memory"), "{report:?}");
        } else {
            assert_eq!((rules(report), codes(report)), (vec!["marked"], vec![]), "{report:?}");
        }
    }
}

#[test]
fn a_dead_child_is_replaced_whatever_is_asked_of_it() {
    let place = Place::new();
    let mut worker = worker(limits(1));
    signal(&worker, Signal::KILL);
    let error = worker.load(b"rule other { condition: true }").unwrap_err();
    assert!(matches!(error, WorkerError::Ended { .. }), "{error}");
    // The rules from before are in use again.
    let report = worker.scan_one(place.item("a", b"find me")).unwrap();
    assert_eq!(rules(&report), ["marked"]);
    signal(&worker, Signal::KILL);
    let error = worker.assemble(&[]).unwrap_err();
    assert!(matches!(error, WorkerError::Ended { .. }), "{error}");
    // A new child answers: it says what a tree lacks.
    let error = worker.assemble(&[]).unwrap_err();
    assert!(matches!(error, WorkerError::Rules { .. }), "{error}");
}

#[test]
fn what_is_too_long_is_looked_at_in_part() {
    let place = Place::new();
    let mut limits = limits(1);
    limits.file_bytes = 1_000;
    let mut worker = worker(limits);
    let mut bytes = vec![b' '; 2_000];
    bytes[500..507].copy_from_slice(b"find me");
    let reports = scan(&mut worker, vec![place.item("a", &bytes), place.item("b", &bytes[500..1_500])]);
    let seen: Vec<_> = reports.iter().map(|report| (report.bytes, rules(report), codes(report))).collect();
    assert_eq!(seen, [(1_000, vec!["marked"], vec![NoteCode::TooLarge]), (1_000, vec!["marked"], vec![])]);
    bytes.rotate_left(600);
    let report = worker.scan_one(place.item("c", &bytes)).unwrap();
    assert_eq!((rules(&report), codes(&report)), (vec![], vec![NoteCode::TooLarge]));
}

#[test]
fn a_slow_rule_is_stopped_in_time() {
    let place = Place::new();
    let mut limits = limits(1);
    limits.file_time = Duration::from_millis(300);
    let mut worker = Worker::start(program(), limits).unwrap();
    let slow = "rule slow { condition: for all i in (0..1000000000) : (uint8(i % 4) != 255) }";
    let error = worker.load(format!("{RULES}\n{slow}").as_bytes()).unwrap_err();
    assert!(error.to_string().contains("takes longer"), "{error}");
    let slow = "rule slow { condition: filesize > 100 and for all i in (0..1000000000) : (uint8(i % 4) != 255) }";
    worker.load(format!("{RULES}\n{slow}").as_bytes()).unwrap();
    let report = worker.scan_one(place.item("a", &[b'a'; 200])).unwrap();
    assert_eq!(codes(&report), [NoteCode::Timeout], "{report:?}");
    assert!(worker.scan_one(place.item("b", b"short")).unwrap().notes.is_empty());
}

#[test]
fn what_is_no_file_is_refused() {
    let place = Place::new();
    let mut worker = worker(limits(1));
    let (reader, _writer) = std::io::pipe().unwrap();
    let pipe = Item { path: PathBuf::from("pipe"), file: File::from(std::os::fd::OwnedFd::from(reader)) };
    let folder = Item { path: place.0.path().to_owned(), file: File::open(place.0.path()).unwrap() };
    let reports = scan(&mut worker, vec![pipe, folder]);
    for report in reports {
        assert!(matches!(&report.notes[..], [Note { code: NoteCode::Unreadable, .. }]), "{report:?}");
    }
}

#[test]
fn no_rules_no_verdict() {
    let place = Place::new();
    let mut worker = Worker::start(program(), limits(1)).unwrap();
    let report = worker.scan_one(place.item("a", b"find me")).unwrap();
    assert_eq!(codes(&report), [NoteCode::Engine]);
    let missing = Worker::start(&place.0.path().join("missing"), limits(1)).unwrap_err();
    assert!(matches!(missing, WorkerError::Program { .. }), "{missing}");
}
