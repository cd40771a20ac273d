//! Recipes, locks, trees, archives, records, and the diagnosis that takes any file apart.

use std::path::Path;
use std::time::Duration;

use assembly::compare::{Builds, Limits, Output, Outputs, Summary, Verdict, compare};
use assembly::{BuildRecord, ContentStore, Links, Lock, Recipe, Source, Tree, TreePath, parse_cargo_lock};
use stdx::SystemClock;

use crate::Target;

pub(crate) const TARGETS: &[Target] = &[
    ("recipe", recipe),
    ("lock", lock),
    ("cargo-lock", cargo_lock),
    ("manifest", manifest),
    ("build-record", build_record),
    ("summary", summary),
    ("archive", archive),
    ("diagnosis", diagnosis),
    ("apt", apt),
];

fn recipe(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(recipe) = Recipe::parse(text, Path::new("assembly.toml")) {
        let _ = recipe.expand(text);
    }
}

/// A lock may be written by hand; what we write is read as the same.
fn lock(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(lock) = Lock::parse(text, Path::new("assembly.lock")) else { return };
    let written = lock.to_text();
    let again = Lock::parse(&written, Path::new("assembly.lock")).expect("a lock that we wrote");
    assert_eq!(again.to_text(), written);
    assert!(lock.changes(&again).is_empty());
}

fn cargo_lock(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = parse_cargo_lock(text, Path::new("Cargo.lock"));
    }
}

fn manifest(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for links in [Links::Inside, Links::Rooted] {
        if let Ok(tree) = Tree::from_manifest(text, links) {
            assert_eq!(tree.to_manifest(), text);
        }
    }
    if let Ok(path) = text.parse::<TreePath>() {
        assert!(path.under(Path::new("/root")).starts_with("/root"));
        assert!(!path.as_str().split('/').any(|part| part == ".." || part.is_empty()));
    }
}

fn build_record(bytes: &[u8]) {
    if let Ok(record) = BuildRecord::parse(bytes) {
        assert_eq!(record.to_bytes(), bytes);
    }
}

fn summary(bytes: &[u8]) {
    if let Ok(summary) = Summary::parse(bytes) {
        same_summary(&summary);
    }
}

/// Written and read it is the same; its size.
fn same_summary(summary: &Summary) -> usize {
    let written = serde_json::to_vec(summary).expect("a summary");
    // What was read may be written longer, by escapes.
    if let Ok(again) = Summary::parse(&written) {
        assert_eq!(again, *summary);
    }
    written.len()
}

/// Sources come as archives: what is accepted lies inside, and nothing was written elsewhere.
fn archive(bytes: &[u8]) {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
    let path = folder.path().join("store");
    let store = ContentStore::create(&path).expect("a store");
    if let Ok(source) = Source::from_archive("fuzz", bytes, &store) {
        let manifest = source.tree.to_manifest();
        assert!(Tree::from_manifest(&manifest, Links::Inside).is_ok());
    }
    let beside: Vec<_> = folder.path().read_dir().expect("the folder").collect();
    assert_eq!(beside.len(), 1, "{beside:?}");
}

/// The first byte says how much of the input is the left file; the rest is the right one.
fn diagnosis(bytes: &[u8]) {
    let Some((share, both)) = bytes.split_first() else { return };
    let (left, right) = both.split_at(both.len() * usize::from(*share) / 255);
    let outputs = |bytes: &[u8]| {
        let mut outputs = Outputs::default();
        outputs.add("output", Output::Bytes(bytes.to_vec())).expect("one output");
        outputs
    };
    let builds = Builds { left: &outputs(left), right: &outputs(right) };
    let limits = Limits { depth: 4, members: 2_000, bytes: 4 << 20, findings: 50, time: Duration::from_secs(5) };
    match compare(&builds, &limits, &SystemClock::new()).expect("outputs in memory") {
        Verdict::Identical(_) => assert_eq!(left, right),
        Verdict::Different(difference) => {
            assert_ne!(left, right);
            assert!(!difference.causes().is_empty());
            let summary = difference.summary();
            assert!(same_summary(&summary) <= Summary::MAX_BYTES);
        }
    }
}

fn apt(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        assembly::fuzzing::apt_answer(text);
    }
}
