//! The drill: a backup of running roles, the disk lost, and what is there again afterwards.

use std::collections::BTreeMap;
use std::path::Path;

use api::ReleaseRequest;
use attest::{Bundle, BundleEntry, Envelope, Position, Release, Ring, Statement};
use stdx::durable;
use tlog::{EntryBundleId, EntryIndex, LogProof, TreeSize};

use crate::previous::Previous;
use crate::proxy;
use crate::raw::{self, Response};

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// The disk is gone. Keys come from the safe, configuration and policy from their owners.
///
/// It was stopped in order, for else it might have been signing: then a witness knows more than
/// anybody can restore.
fn lose(previous: &mut Previous, name: &str) {
    assert_eq!(previous.server(name).stop().code, 0);
    previous.server(name).hang_up();
    let lost = previous.path().join(format!("{name}.lost"));
    durable::rename(&previous.path().join(name), &lost).unwrap();
    let place = previous.path().join(name);
    for part in ["keys", "policy"] {
        copy(&lost.join(part), &place.join(part));
    }
    std::fs::copy(lost.join("clerestory.toml"), place.join("clerestory.toml")).unwrap();
}

fn size(previous: &Previous, name: &str) -> String {
    let checkpoint = crate::raw::get(previous.servers[name].address(), "/checkpoint").text();
    checkpoint.lines().nth(1).unwrap().to_owned()
}

/// Everything but the lock is there again, and the live log goes on from it.
fn drills(previous: &Previous) {
    let temporary = tempfile::tempdir().unwrap();
    for name in ["vendor", "supervisor"] {
        let (config, from) = (format!("{name}/clerestory.toml"), format!("{name}.backup"));
        let drill = ["--json", "backup", "drill", "--config", &config, "--from", &from];
        let done = previous.run_with(&drill, &[("TMPDIR", temporary.path().to_str().unwrap())]).ok().json();
        let (log, behind) = (done["restored"]["log"].as_u64().unwrap(), done["behind"].as_u64().unwrap());
        assert!(log > 0 && log + behind <= size(previous, name).parse().unwrap(), "{done}");
        assert!(done["objects"].as_u64().unwrap() > 10 && done["age_s"].is_u64(), "{done}");
        assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "it is removed");
    }
}

#[test]
fn a_backup_restores_everything_but_the_right_to_sign() {
    let mut previous = Previous::running();
    let config = |name: &str| format!("{name}/clerestory.toml");
    let shown = previous.run(&["--json", "status", "show", "--config", &config("supervisor")]).ok().json();
    for name in ["vendor", "supervisor"] {
        let out = format!("{name}.backup");
        // While it runs: a status, or a heartbeat, may come at any moment.
        previous.run(&["backup", "make", "--config", &config(name), "--out", &out]).ok();
        previous.run(&["backup", "check", "--config", &config(name), "--from", &out]).ok();
        let again = previous.run(&["backup", "make", "--config", &config(name), "--out", &out]);
        assert!(again.code == 1 && again.stderr.contains("is there already"), "{again:?}");
        // What must not be restored is not in it.
        for secret in ["keys", "state.sqlite", "clerestory.toml"] {
            assert!(!previous.path().join(&out).join(secret).exists(), "{secret}");
        }
    }
    drills(&previous);
    // The log goes on, so that the backup is an old one.
    let lifted = ["status", "lift", "--config", "supervisor/clerestory.toml", "--product", "sample"];
    let before = size(&previous, "supervisor");
    previous.run(&[&lifted[..], &["--reason", "after the backup"]].concat()).ok();
    assert_ne!(size(&previous, "supervisor"), before);

    // A damaged or incomplete copy is named, and not restored.
    let bundle = previous.path().join("vendor.backup/log/objects/checkpoint");
    let good = std::fs::read(&bundle).unwrap();
    durable::write(&bundle, &[&good[..], b"x"].concat()).unwrap();
    let damaged = previous.run(&["backup", "check", "--config", &config("vendor"), "--from", "vendor.backup"]);
    assert!(damaged.code == 1 && damaged.stderr.contains("other content"), "{damaged:?}");
    let drilled = previous.run(&["backup", "drill", "--config", &config("vendor"), "--from", "vendor.backup"]);
    assert!(drilled.code == 1 && drilled.stderr.contains("other content"), "{drilled:?}");
    durable::write(&bundle, &good).unwrap();
    // Nothing is restored over what is there.
    let over = previous.run(&["backup", "restore", "--config", &config("vendor"), "--from", "vendor.backup"]);
    assert!(over.code == 1 && over.stderr.contains("empty place"), "{over:?}");

    // What a supervisor has signed second stands in the vendor's log, without which nothing is restored.
    lose(&mut previous, "supervisor");
    let alone = [("ALL_PROXY", &*proxy::start(BTreeMap::new()))];
    let restore = ["backup", "restore", "--config", "supervisor/clerestory.toml", "--from", "supervisor.backup"];
    let done = previous.run_with(&restore, &alone);
    assert!(done.code == 75 && done.stderr.contains("the log `vendor.example/log` can't be read"), "{done:?}");
    // An old mirror is not enough: what was signed last counts.
    let mirror = ["--from-mirror", "http://mirror.example/vendor.backup/log/objects"];
    let hosts = previous.hosts().into_iter().filter(|(name, _)| name != "vendor.example").collect();
    let done = previous.run_with(&[&restore[..], &mirror].concat(), &[("ALL_PROXY", &*proxy::start(hosts))]);
    assert!(done.code == 75 && done.stderr.contains("entries, which no copy of the log has"), "{done:?}");
    assert!(!previous.path().join("supervisor/log").exists(), "nothing was restored");
    for name in ["supervisor", "vendor"] {
        if name == "vendor" {
            lose(&mut previous, name);
        }
        let from = format!("{name}.backup");
        let done = previous.run(&["backup", "restore", "--config", &config(name), "--from", &from]).ok();
        assert!(done.stdout.contains("without the right to sign"), "{done:?}");

        // It can't sign a second tree: not by starting, not by making the log anew.
        previous.server(name).start();
        let refused = previous.server(name).wait();
        assert!(refused.code == 1 && refused.stderr.contains("does not exist yet"), "{refused:?}");
        let refused = previous.run(&["log", "create", "--config", &config(name)]);
        assert!(refused.code == 1 && refused.stderr.contains("has objects already"), "{refused:?}");
        // All the rest is whole.
        let fsck = previous.run(&["fsck", "--config", &config(name)]);
        assert!(fsck.stdout.contains("is missing") && fsck.stdout.contains(" 1 damaged"), "{fsck:?}");
    }
    let restored = previous.run(&["--json", "status", "show", "--config", &config("supervisor")]).ok().json();
    assert_eq!(restored, shown);

    let witness = previous.run(&["backup", "make", "--config", &config("w1"), "--out", "w1.backup"]);
    assert!(witness.code == 1 && witness.stderr.contains("new key and name"), "{witness:?}");
}

const MIRRORS: [&str; 2] =
    ["http://mirror.example/vendor.lost/log/objects", "http://mirror.example/supervisor.lost/log/objects"];

/// Everything is lost but an old backup, and mirrors of the logs.
fn with_old_backups() -> Previous {
    let mut previous = Previous::running();
    for name in ["vendor", "supervisor"] {
        let (config, out) = (format!("{name}/clerestory.toml"), format!("{name}.backup"));
        previous.run(&["backup", "make", "--config", &config, "--out", &out]).ok();
    }
    // A stop that the backup doesn't know, and an approval.
    let stop = ["status", "stop", "--config", "supervisor/clerestory.toml", "--product", "sample"];
    previous.run(&[&stop[..], &["--reason", "after the backup"]].concat()).ok();
    previous.run(&approve("vendor", "1.bundle")).ok();
    for name in ["vendor", "supervisor"] {
        lose(&mut previous, name);
    }
    previous
}

fn approve<'a>(name: &str, out: &'a str) -> [&'a str; 12] {
    let result = "vendor.backup/builds/sample/2.0.1/result.bundle";
    let key = if name == "vendor" { "vendor/keys/approver.key" } else { "supervisor/keys/approver.key" };
    let config = if name == "vendor" { "vendor/clerestory.toml" } else { "supervisor/clerestory.toml" };
    ["release", "approve", "--config", config, "--key", key, "--result", result, "--comment", "again", "--out", out]
}

fn restore<'a>(name: &'a str, from: &'a str) -> Vec<&'a str> {
    let config = if name == "vendor" { "vendor/clerestory.toml" } else { "supervisor/clerestory.toml" };
    let mirrors = MIRRORS.iter().flat_map(|url| ["--from-mirror", *url]);
    ["--json", "backup", "restore", "--config", config, "--from", from].into_iter().chain(mirrors).collect()
}

#[test]
fn with_mirrors_and_every_witness_a_log_goes_on_where_it_was() {
    let mut previous = with_old_backups();
    // One witness is away: it might know more than all the others.
    previous.server("w3").kill();
    let done = previous.run(&restore("vendor", "vendor.backup")).ok().json();
    assert_eq!(done["done"], "restored, without the right to sign");
    assert!(done["refused"].as_str().unwrap().contains("3 witnesses answered, 4 are needed"), "{done}");
    previous.server("vendor").start();
    let refused = previous.server("vendor").wait();
    assert!(refused.code == 1 && refused.stderr.contains("does not exist yet"), "{refused:?}");
    previous.server("w3").start();
    durable::rename(&previous.path().join("vendor"), &previous.path().join("vendor.unsigned")).unwrap();
    for part in ["keys", "policy"] {
        copy(&previous.path().join("vendor.lost").join(part), &previous.path().join("vendor").join(part));
    }
    std::fs::copy(previous.path().join("vendor.lost/clerestory.toml"), previous.path().join("vendor/clerestory.toml"))
        .unwrap();

    for name in ["vendor", "supervisor"] {
        let done = previous.run(&restore(name, &format!("{name}.backup"))).ok().json();
        assert_eq!((&done["done"], &done["refused"]), (&"restored".into(), &serde_json::Value::Null), "{done}");
        assert!(done["newer"].as_u64().unwrap() > 0, "{done}");
        previous.server(name).start();
    }
    // The stop that was made after the backup holds.
    let shown = previous.run(&["--json", "status", "show", "--config", "supervisor/clerestory.toml"]).ok().json();
    assert!(shown.to_string().contains(r#"{"product":"sample"}"#), "{shown}");
    // Both write on, in streams that are opened again; nobody finds fault with that.
    let lift = ["status", "lift", "--config", "supervisor/clerestory.toml", "--product", "sample"];
    previous.run(&[&lift[..], &["--reason", "after the disaster"]].concat()).ok();
    for name in ["vendor", "supervisor"] {
        previous.run(&approve(name, &format!("{name}.bundle"))).ok();
    }
    let entries = ["--json", "log", "entries", "--config", "supervisor/clerestory.toml", "--log"];
    let listed = previous.run(&[&entries[..], &["supervisor.example/log"]].concat()).ok().json();
    let position = &listed["entries"].as_array().unwrap().last().unwrap()["statement"]["predicate"]["position"];
    assert_eq!(position["epoch"], 1, "{position}");
    for name in ["vendor", "supervisor"] {
        assert_eq!(previous.server(name).stop().code, 0);
        previous.run(&["fsck", "--config", &format!("{name}/clerestory.toml")]).ok();
        previous.server(name).start();
    }
    let genesis = std::fs::read_to_string(previous.path().join("genesis")).unwrap();
    let audit = ["--json", "audit", "--policy", "vendor/policy", "--genesis", &genesis];
    let report = previous.run(&[&audit[..], &["--state", "audit.json", "--proofs", "proofs"]].concat());
    // The stores of an earlier version lay still for longer than their streams may be silent.
    let findings: Vec<_> = report.json()["logs"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|log| log["findings"].as_array().unwrap().clone())
        .filter(|finding| !finding.to_string().contains("silent"))
        .collect();
    assert!(findings.is_empty(), "{findings:#?}");
}

#[test]
fn a_mirror_of_another_tree_restores_nothing() {
    let previous = with_old_backups();
    let objects = previous.path().join("vendor.lost/log/objects");
    // An entry that nobody logged, in place of another.
    let partial = std::fs::read_dir(objects.join("tile/entries/000.p")).unwrap();
    let newest = partial.map(|entry| entry.unwrap().path()).max_by_key(|path| number(path)).unwrap();
    let mut bytes = std::fs::read(&newest).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    durable::write(&newest, &bytes).unwrap();
    let done = previous.run(&restore("vendor", "vendor.backup"));
    assert!(done.code == 1 && done.stderr.contains("doesn't belong to the tree of the checkpoint"), "{done:?}");
    assert!(!previous.path().join("vendor/state.sqlite").exists());
    // Nor does what is no mirror of anything.
    let done = previous.run(&[
        "backup",
        "restore",
        "--config",
        "vendor/clerestory.toml",
        "--from",
        "vendor.backup",
        "--from-mirror",
        "http://mirror.example/endpoint",
    ]);
    assert!(done.code == 1 && done.stderr.contains("is no mirror of a log of the policy"), "{done:?}");
}

fn number(path: &Path) -> u64 {
    path.file_name().unwrap().to_str().unwrap().parse().unwrap()
}

/// An entry of the vendor's log as it was, with its proof as it is now.
fn entry(previous: &Previous, index: u64) -> BundleEntry {
    let folder = previous.path().join("vendor/log/objects/tile/entries/000.p");
    let newest = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).max_by_key(|path| number(path));
    let newest = newest.unwrap();
    let id = EntryBundleId::of_entry(EntryIndex::new(0), TreeSize::new(number(&newest))).unwrap();
    let bytes = std::fs::read(&newest).unwrap();
    let envelope = Envelope::parse(tlog::decode_bundle(id, &bytes).unwrap()[index as usize]).unwrap();
    let index = index.to_string();
    let proof =
        ["--json", "log", "proof", "--config", "vendor/clerestory.toml", "--log", "vendor.example/log", "--index"];
    let proof = previous.run(&[&proof[..], &[&index]].concat()).ok().json();
    BundleEntry { envelope, proof: LogProof::parse(proof["proof"].as_str().unwrap()).unwrap() }
}

fn released(previous: &Previous, index: u64) -> Statement<Release> {
    Statement::decode(entry(previous, index).envelope.payload()).unwrap()
}

/// Asks the supervisor to sign second what `change` makes of a release, by this evidence.
fn second(previous: &Previous, (index, evidence): (u64, [u64; 3]), change: impl FnOnce(&mut Release)) -> Response {
    let mut draft = released(previous, index);
    draft.predicate.position = Position { sequence: 4, ..draft.predicate.position.clone() };
    change(&mut draft.predicate);
    let key = server::key_file::load(&previous.path().join("vendor/keys/release.key")).unwrap();
    let envelope = Envelope::sign(draft.encode().unwrap(), &[&key]).unwrap();
    let evidence = Bundle::new(evidence.map(|index| entry(previous, index)).to_vec()).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let request = ReleaseRequest {
        lane: attest::Lane::Slow,
        envelope: text(envelope.to_bytes()),
        evidence: text(evidence.to_bytes()),
    };
    let body = serde_json::to_vec(&request).unwrap();
    raw::post(previous.servers["supervisor"].address(), api::path::RELEASES, &body)
}

#[test]
fn a_restored_supervisor_signs_no_number_twice() {
    // In the vendor's log: a release, and before it its result and two approvals.
    const FIRST: (u64, [u64; 3]) = (7, [4, 5, 6]);
    const SECOND: (u64, [u64; 3]) = (12, [9, 10, 11]);
    let mut previous = Previous::running();
    let backup = ["backup", "make", "--config", "supervisor/clerestory.toml", "--out", "supervisor.backup"];
    previous.run(&backup).ok();
    lose(&mut previous, "supervisor");
    let restore = ["backup", "restore", "--config", "supervisor/clerestory.toml", "--from", "supervisor.backup"];
    let done = previous.run(&[&restore[..], &["--from-mirror", MIRRORS[1]]].concat()).ok();
    assert!(done.stdout.contains("what was signed second of sample") && !done.stdout.contains("without"), "{done:?}");
    previous.server("supervisor").start();

    let lift = ["status", "lift", "--config", "supervisor/clerestory.toml", "--product", "sample"];
    previous.run(&[&lift[..], &["--reason", "a status, by which it signs"]].concat()).ok();

    // The same again, for another place: the vendor may have lost its draft.
    let again = second(&previous, SECOND, |_| {});
    assert_eq!(again.status, 200, "{}", again.text());
    // Another content of the same number; another result.
    let other = second(&previous, SECOND, |draft| draft.ring = Ring::Canary);
    assert!(other.error().contains("does not follow; #3 is due"), "{}", other.text());
    let last = released(&previous, SECOND.0).predicate;
    let result = second(&previous, FIRST, |draft| (draft.number, draft.previous) = (last.number, last.previous));
    assert!(result.error().contains("was released before, as another number"), "{}", result.text());
    // The number that is due, for a result that has one already; and the first once more.
    let next = second(&previous, SECOND, |draft| {
        draft.previous = Some(entry(&previous, SECOND.0).envelope.id());
        draft.number = last.number.next();
    });
    assert!(next.error().contains("was released before, as another number"), "{}", next.text());
    let anew = second(&previous, FIRST, |_| {});
    assert!(anew.error().contains("does not follow; #3 is due"), "{}", anew.text());
}
