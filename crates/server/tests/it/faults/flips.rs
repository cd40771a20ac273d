//! One bit is another in a file, or a good file is in a wrong place: `fsck` names it. Nothing panics.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use stdx::durable;
use testkit::{Breadth, figure, files};

use super::trial::{audit, fsck};
use crate::system::System;
use crate::vault::{put_into, receipt, sealed};

/// What nobody relies on, with the reason.
fn is_exempt(name: &str) -> bool {
    // Configuration is the operator's own text, with comments; locks are empty or hold nothing.
    name == "clerestory.toml"
        || name.ends_with(".lock")
        || ["log/lock", "intake/lock", "intake/wal/lock", "beside/lock"].contains(&name)
        // People's keys: no process of the role reads them.
        || ["approver", "policy"].iter().any(|key| name.starts_with(&format!("keys/{key}.")))
        // Metadata that newer one has replaced: no client asks for it any more.
        || (name.starts_with("channel/metadata/") && name != "channel/metadata/timestamp.json")
        // SQLite keeps no checksum of a row, and a page may hold what nothing reads any more. `fsck` has
        // it check its structure and reads what is signed in it (`damage_elsewhere_is_named_too`,
        // `the_lock_is_checked_as_well`).
        || name.starts_with("state.sqlite")
        || name.ends_with("sbom.cdx.json")
}

/// What a file is replaced by, each as somebody wrote it.
fn misplaced(system: &System, role: &str, name: &str, all: &BTreeMap<String, PathBuf>) -> Vec<(String, Vec<u8>)> {
    let good = std::fs::read(&all[name]).unwrap();
    let mut found = Vec::new();
    if let Some(neighbour) = neighbour(name, all) {
        found.push((format!("doubled from {neighbour}"), std::fs::read(&all[&neighbour]).unwrap()));
    }
    let other = if role == "vendor" { "supervisor" } else { "vendor" };
    if let Ok(foreign) = std::fs::read(system.file(other).join(name)) {
        found.push((format!("of the {other}"), foreign));
    }
    // One line end more or less says nothing in a file that is one line; and TUF signs metadata in a
    // canonical form, whatever the file's: nothing but its signature speaks for a timestamp.
    // At the end of a write-ahead log a few bytes are the beginning of what was acknowledged to nobody.
    if !name.starts_with("keys/") && !name.ends_with(".wal") && name != "channel/metadata/timestamp.json" {
        let pretty = serde_json::from_slice::<serde_json::Value>(&good).ok();
        let pretty = pretty.and_then(|value| serde_json::to_vec_pretty(&value).ok());
        found.push(("in other words".to_owned(), pretty.unwrap_or_else(|| [&good[..], b"\n"].concat())));
    }
    found.retain(|(_, bytes)| *bytes != good);
    found
}

/// The next file of the same kind: in the same folder, with the same end. Approvals may lie under any
/// name: who needs them reads them all, and misses what is not there.
fn neighbour(name: &str, all: &BTreeMap<String, PathBuf>) -> Option<String> {
    let kind = |name: &str| {
        let path = Path::new(name);
        (path.parent().map(Path::to_owned), path.extension().map(ToOwned::to_owned))
    };
    let mut others = all.keys().filter(|other| *other != name && kind(other) == kind(name));
    if name.contains("/approvals/") { None } else { others.next().cloned() }
}

/// Writes `bad` in place of the file, keeping who may read it; gives what fsck says.
fn fsck_with(system: &System, role: &str, files: &[(&PathBuf, &[u8])], what: &str) {
    let mut kept = Vec::new();
    for (path, bad) in files {
        let permissions = std::fs::metadata(path).unwrap().permissions();
        kept.push((path, std::fs::read(path).unwrap(), permissions.clone()));
        durable::write(path, bad).unwrap();
        std::fs::set_permissions(path, permissions).unwrap();
    }
    let done = fsck(system, role);
    assert!(done.code == 1 || done.code == 2, "{role}/{what}: {done:?}");
    assert!(!done.stderr.contains("panicked"), "{role}/{what}: {done:?}");
    for (path, good, permissions) in kept {
        durable::write(path, &good).unwrap();
        std::fs::set_permissions(path, permissions).unwrap();
    }
}

#[test]
fn damage_of_any_file_is_named() {
    let mut system = System::with_releases_under(|_, policy| put_into(policy));
    system.approved_build("1.0", b"content");
    system.run(&["release", "publish", "--config", "vendor/clerestory.toml", "libexample", "1.0"]).ok();
    // One batch in a segment, and one in the write-ahead log.
    receipt(&system, &sealed(&system, b"one"));
    system.vendor.kill();
    system.vendor.start();
    receipt(&system, &sealed(&system, b"another"));
    // Nobody reads anything here, so that custodians and people have written nothing; all else is well.
    let audited = audit(&system);
    let is_silence = |line: &str| line.contains("cosigned at") || line.ends_with("has no entry at all");
    assert!(audited.stdout.lines().filter(|line| line.starts_with("  ")).all(is_silence), "{audited:?}");
    for server in [&mut system.vendor, &mut system.supervisor].into_iter().chain(&mut system.witnesses) {
        assert_eq!(server.stop().code, 0);
    }
    let (mut flipped, mut moved) = (0, 0);
    for role in ["vendor", "supervisor", "w1"] {
        fsck(&system, role).ok();
        let mut all = files(&system.file(role));
        all.retain(|name, _| !is_exempt(name));
        assert!(role != "vendor" || all.len() > 30, "{all:?}");
        for (name, path) in Breadth::of_this_run().of(all.iter().collect(), 7) {
            let good = std::fs::read(path).unwrap();
            for part in [1, 2, 3] {
                let mut bad = good.clone();
                let Some(byte) = bad.len().checked_sub(1).map(|last| last * part / 4) else { continue };
                bad[byte] ^= 1 << part;
                fsck_with(&system, role, &[(path, &bad)], &format!("{name} byte {byte}"));
                flipped += 1;
            }
            for (how, bad) in misplaced(&system, role, name, &all) {
                fsck_with(&system, role, &[(path, &bad)], &format!("{name} {how}"));
                moved += 1;
            }
            if let Some(other) = neighbour(name, &all).map(|name| &all[&name]) {
                let theirs = std::fs::read(other).unwrap();
                if theirs != good {
                    fsck_with(&system, role, &[(path, &theirs), (other, &good)], &format!("{name} swapped"));
                    moved += 1;
                }
            }
        }
        fsck(&system, role).ok();
    }
    figure("flipped bits in files of a vendor, a supervisor and a witness", format!("{flipped}, all named"));
    figure("good files of theirs in wrong places, doubled or reworded", format!("{moved}, all named"));
}
