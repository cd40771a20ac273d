//! The drill: a backup of running roles, the disk lost, and what is there again afterwards.

use std::path::Path;

use stdx::durable;

use crate::previous::Previous;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn size(previous: &Previous, name: &str) -> String {
    let checkpoint = crate::raw::get(previous.servers[name].address(), "/checkpoint").text();
    checkpoint.lines().nth(1).unwrap().to_owned()
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
    durable::write(&bundle, &good).unwrap();
    // Nothing is restored over what is there.
    let over = previous.run(&["backup", "restore", "--config", &config("vendor"), "--from", "vendor.backup"]);
    assert!(over.code == 1 && over.stderr.contains("empty place"), "{over:?}");

    for name in ["vendor", "supervisor"] {
        previous.server(name).kill();
        // The disk is gone. Keys come from the safe, configuration and policy from their owners.
        let lost = previous.path().join(format!("{name}.lost"));
        durable::rename(&previous.path().join(name), &lost).unwrap();
        let place = previous.path().join(name);
        for part in ["keys", "policy"] {
            copy(&lost.join(part), &place.join(part));
        }
        std::fs::copy(lost.join("clerestory.toml"), place.join("clerestory.toml")).unwrap();
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
