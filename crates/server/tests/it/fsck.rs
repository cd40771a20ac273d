//! `fsck` exits 1 on any damage, and names each object.

use std::path::{Path, PathBuf};

use stdx::durable;

use crate::statement::Place;
use crate::system::System;

fn fsck(system: &System, name: &str) -> crate::process::Done {
    system.run(&["fsck", "--config", &format!("{name}/clerestory.toml")])
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn each_flipped_bit_of_a_log_is_named() {
    let mut system = System::running();
    let first = system.beat(&Place::vendor());
    system.beat(&Place::vendor().after(&first));
    let clean = fsck(&system, "vendor").ok();
    assert!(clean.stdout.contains("0 damaged"), "{clean:?}");
    system.vendor.stop();
    fsck(&system, "vendor").ok();

    let objects = system.file("vendor/log/objects");
    let all = files(&objects);
    assert!(all.len() > 4, "{all:?}");
    for path in all {
        let good = std::fs::read(&path).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        durable::write(&path, &bad).unwrap();
        let done = fsck(&system, "vendor");
        let name = format!("log/{}", path.strip_prefix(&objects).unwrap().display());
        assert_eq!(done.code, 1, "{name}: {done:?}");
        assert!(done.stdout.contains(&format!("`{name}`")), "{name}: {done:?}");
        durable::write(&path, &good).unwrap();
    }
    fsck(&system, "vendor").ok();
}

#[test]
fn damage_elsewhere_is_named_too() {
    let mut system = System::running();
    system.beat(&Place::vendor());
    let store = assembly::ContentStore::open(&system.file("supervisor/depot/content")).unwrap();
    let digest = store.put(b"object").unwrap().digest.to_string();
    fsck(&system, "supervisor").ok();
    let path = system.file("supervisor/depot/content").join(&digest[..2]).join(&digest[2..]);
    durable::write(&path, b"objecT").unwrap();
    let done = fsck(&system, "supervisor");
    assert_eq!(done.code, 1);
    assert!(done.stdout.contains(&digest[2..]) && done.stderr.contains("hint: "), "{done:?}");

    system.witnesses[0].stop();
    fsck(&system, "w1").ok();
    let state = system.file("w1/state.sqlite");
    let mut bytes = std::fs::read(&state).unwrap();
    // The file may hold older copies of a row in pages that nothing reads any more: all are altered.
    let origins: Vec<_> = (0..bytes.len() - 18).filter(|at| &bytes[*at..at + 18] == b"vendor.example/log").collect();
    assert!(!origins.is_empty());
    for origin in origins {
        bytes[origin] = b'w';
    }
    durable::write(&state, &bytes).unwrap();
    let done = fsck(&system, "w1");
    assert_eq!(done.code, 1, "{done:?}");
}
