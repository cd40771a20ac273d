//! One bit is another in a file: `fsck` names it, or whoever reads it refuses. Nothing panics.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use stdx::durable;
use testkit::{Breadth, figure};

use super::trial::{audit, fsck};
use crate::system::System;

/// Files below `folder`, by their path in it.
fn files(folder: &Path) -> BTreeMap<String, PathBuf> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(below) = folders.pop() {
        for entry in std::fs::read_dir(below).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().display().to_string(), path);
            }
        }
    }
    found
}

/// What nobody relies on, with the reason.
fn is_exempt(name: &str) -> bool {
    // Configuration is the operator's own text, with comments; locks are empty or hold nothing.
    name == "clerestory.toml"
        || name.ends_with(".lock")
        || name == "log/lock"
        // People's keys: no process of the role reads them.
        || ["approver", "policy"].iter().any(|key| name.starts_with(&format!("keys/{key}.")))
        // Metadata that newer one has replaced: no client asks for it any more.
        || (name.starts_with("channel/metadata/") && name != "channel/metadata/timestamp.json")
        // Rows are values of many kinds; what reads them is tested by kind below.
        || name.starts_with("state.sqlite")
        || name.ends_with("sbom.cdx.json")
}

#[test]
fn a_flipped_bit_in_any_file_is_named() {
    let mut system = System::with_releases();
    system.approved_build("1.0", b"content");
    system.run(&["release", "publish", "--config", "vendor/clerestory.toml", "libexample", "1.0"]).ok();
    audit(&system).ok();
    for server in [&mut system.vendor, &mut system.supervisor].into_iter().chain(&mut system.witnesses) {
        assert_eq!(server.stop().code, 0);
    }
    let mut flipped = 0;
    for role in ["vendor", "supervisor", "w1"] {
        fsck(&system, role).ok();
        let all: Vec<_> = files(&system.file(role)).into_iter().filter(|(name, _)| !is_exempt(name)).collect();
        let names: Vec<_> = all.iter().map(|(name, _)| name.clone()).collect();
        assert!(role != "vendor" || names.len() > 30, "{names:?}");
        for (name, path) in Breadth::of_this_run().of(all, 7) {
            let good = std::fs::read(&path).unwrap();
            let permissions = std::fs::metadata(&path).unwrap().permissions();
            for part in [1, 2, 3] {
                let mut bad = good.clone();
                let Some(byte) = bad.len().checked_sub(1).map(|last| last * part / 4) else { continue };
                bad[byte] ^= 1 << part;
                durable::write(&path, &bad).unwrap();
                std::fs::set_permissions(&path, permissions.clone()).unwrap();
                let done = fsck(&system, role);
                assert!(done.code == 1 || done.code == 2, "{role}/{name} byte {byte}: {done:?}");
                assert!(!done.stderr.contains("panicked"), "{role}/{name} byte {byte}: {done:?}");
                flipped += 1;
            }
            durable::write(&path, &good).unwrap();
            std::fs::set_permissions(&path, permissions).unwrap();
        }
        fsck(&system, role).ok();
    }
    figure("flipped bits in files of a vendor, a supervisor and a witness", format!("{flipped}, all named"));
}
