//! What a worker says of rules and files.

use detection::{Limits, SelfTest, StringHit, Worker, WorkerError};
use reputation::ReputationSet;
use stdx::Digest;

use crate::place::{Place, RULES, eicar, limits, program, rules, scan, worker};

#[test]
fn files_are_scanned_in_a_confined_child() {
    let place = Place::new();
    let mut worker = worker(limits(2));
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.process())).unwrap();
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000"] {
        assert!(status.contains(line), "{line} in {status}");
    }
    let items = vec![
        place.item("a", b"please find me, find me"),
        place.item("b", b"nothing"),
        place.item("c.com", eicar().as_bytes()),
        place.item("named.txt", b""),
    ];
    let reports = scan(&mut worker, items);
    let found: Vec<_> = reports.iter().map(rules).collect();
    assert_eq!(found, [vec!["marked"], vec![], vec!["eicar_file"], vec!["by_name"]]);
    assert_eq!(reports[0].matches[0].tags, ["tag", "another"]);
    let hit = |offset| StringHit { name: "mark".to_owned(), offset, length: 7 };
    assert_eq!(reports[0].matches[0].strings, [hit(7), hit(16)]);
    assert!(reports.iter().all(|report| report.notes.is_empty()), "{reports:?}");
    let hashes: Vec<_> = reports.iter().map(|report| report.sha256).collect();
    let of = |bytes: &[u8]| Some(Digest::of(bytes));
    assert_eq!(hashes, [of(b"please find me, find me"), None, of(eicar().as_bytes()), of(b"")], "of what was found");
}

#[test]
fn of_what_is_not_read_as_a_whole_nobody_says_the_hash() {
    let place = Place::new();
    let mut worker = worker(Limits { file_bytes: 16, ..limits(1) });
    let report = worker.scan_one(place.item("long", b"find me in a file that goes on")).unwrap();
    assert_eq!((rules(&report), report.sha256), (vec!["marked"], None));
}

#[test]
fn contents_are_compared_with_a_set_wherever_they_lie() {
    let place = Place::new();
    let mut worker = worker(Limits { file_bytes: 400, ..limits(2) });
    let set = |contents: &[&[u8]]| {
        ReputationSet::build(contents.iter().map(|bytes| Digest::of(bytes)).collect()).unwrap().to_bytes()
    };
    let long = [b'x'; 400];
    worker.know(Some(&set(&[b"bad", b"", &long]))).unwrap();
    let mut archive = ar::Builder::new(Vec::new());
    archive.append(&ar::Header::new(b"inner".to_vec(), 3), &b"bad"[..]).unwrap();
    let archive = archive.into_inner().unwrap();
    let ask = |worker: &mut Worker| {
        let items = vec![
            place.item("a", b"bad"),
            place.item("b", b"bad, and find me"),
            place.item("c", b""),
            place.item("d", &archive),
            place.item("e", &[b'x'; 401]),
        ];
        let reports = scan(worker, items);
        assert_eq!(rules(&reports[1]), ["marked"]);
        let listed = |report: &detection::FileReport| {
            report.listed.iter().map(|one| (one.inside.join("!"), one.sha256)).collect::<Vec<_>>()
        };
        reports.iter().map(listed).collect::<Vec<_>>()
    };
    let of = |inside: &str| vec![(inside.to_owned(), Digest::of(b"bad"))];
    let found = [of(""), vec![], vec![], of("inner"), vec![]];
    assert_eq!(ask(&mut worker), found);
    // What is no set changes nothing, and a new child knows what the one before knew.
    let error = worker.know(Some(b"clerestory-fuse 2\n")).unwrap_err();
    assert!(error.to_string().contains("a set of hashes: does not begin with"), "{error}");
    assert_eq!(ask(&mut worker), found);
    let process = rustix::process::Pid::from_raw(worker.process().try_into().unwrap()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    assert_eq!(ask(&mut worker), found);
    worker.know(None).unwrap();
    assert_eq!(ask(&mut worker), [vec![], vec![], vec![], vec![], vec![]]);
}

#[test]
fn rules_say_who_made_them_and_what_they_collect() {
    let mut worker = Worker::start(program(), limits(1)).unwrap();
    assert_eq!(worker.describe("greedy").unwrap(), None, "no rules are loaded");
    let meta = "author = \"A. Nobody\" collects = \"documents\" severity = 3 tested = false";
    let rules = format!("rule plain {{ condition: false }} rule greedy : a b {{ meta: {meta} condition: false }}");
    worker.load(rules.as_bytes()).unwrap();
    let greedy = worker.describe("greedy").unwrap().unwrap();
    assert_eq!((greedy.collects(), greedy.text("author")), (Some("documents"), Some("A. Nobody")));
    assert_eq!((greedy.tags, greedy.meta.len()), (vec!["a".to_owned(), "b".to_owned()], 4));
    assert_eq!(worker.describe("plain").unwrap().unwrap().collects(), None);
    assert_eq!(worker.describe("none").unwrap(), None);
}

#[test]
fn rules_are_tested_before_they_are_used() {
    let mut worker = Worker::start(program(), limits(1)).unwrap();
    let loaded = worker.load(RULES.as_bytes()).unwrap();
    let found = vec!["eicar_file".to_owned()];
    assert_eq!((loaded.rules, loaded.self_test), (3, SelfTest { found, harmless: Vec::new() }));

    let broad = worker.load(b"rule any { condition: true }").unwrap();
    assert!(!broad.self_test.is_passed());
    assert_eq!(broad.self_test, SelfTest { found: vec!["any".to_owned()], harmless: vec!["any".to_owned()] });

    for bad in ["rule", "rule a { condition: b }", "include \"/etc/passwd\"", "\u{0}"] {
        let error = worker.load(bad.as_bytes()).unwrap_err();
        assert!(matches!(error, WorkerError::Rules { .. }), "{bad}: {error}");
    }
}
