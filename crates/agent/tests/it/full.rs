//! A full disk under rules: what is new waits, what is there protects, and nothing is lost.

use std::ffi::OsString;

use detection::BUNDLE_FILE;
use testkit::{RULES_PRODUCT, SmallDisk};

use crate::guard::{Running, agent, agent_behind, agree, detection, present_day, put, rule, wait_for, waiting_by};

const TEXT: &str = "first second";

#[test]
fn on_a_full_disk_the_rules_in_use_stay_and_it_goes_on_when_there_is_room() {
    let mut rules = present_day();
    let folder = rules.scene.folder.path().to_owned();
    put(&folder.join("watched/old"), TEXT);
    rules.release(&rule("one", "first"));
    assert!(agent(&rules).arg("update").status().unwrap().success());
    agree(&rules, &["detections"]);
    let disk = SmallDisk::over(&folder, 16 << 10);
    let in_use =
        || std::fs::read(disk.path(&folder.join("install").join(RULES_PRODUCT).join("current").join(BUNDLE_FILE)));
    disk.fill(0);

    // What does not fit is refused for now, with the reason, and changes nothing.
    rules.release(&rule("two", "second"));
    // The disk's namespace knows root only, and a scanner that is root there can't drop its groups.
    let user = ["unshare", "--user", "--map-user=1000", "--map-group=1000"].map(OsString::from);
    let prefix = [disk.prefix(), user.to_vec()].concat();
    let there = || agent_behind(&rules, &prefix);
    for _ in 0..2 {
        let update = there().arg("update").output().unwrap();
        let said = String::from_utf8([update.stdout, update.stderr].concat()).unwrap();
        assert_eq!(update.status.code(), Some(75), "{said}");
        assert!(said.contains("No space left on device") && said.contains("hint: "), "{said}");
        assert_eq!(in_use().unwrap(), rule("one", "first"));
    }

    // The rules that are there protect, though not even the journal can be written.
    let mut running = Running::start_as(&rules, there());
    running.tells("watched/old\",\"detail\":\"one\"");
    running.tells("No space left on device");
    disk.clear();
    running.says("signatures 2 (#2) installed");
    put(&disk.path(&folder.join("watched/new")), TEXT);
    running.tells("watched/new\",\"detail\":\"two\"");
    // What was found while nothing could be written is there as well.
    wait_for(2, &disk.path(&folder.join("state/share/outbox")));
    drop(running);
    assert_eq!(waiting_by(there()), [detection("one", TEXT), detection("two", TEXT)]);
    assert_eq!(in_use().unwrap(), rule("two", "second"));
    let journal = std::fs::read_to_string(disk.path(&folder.join("state/journal.jsonl"))).unwrap();
    assert!(journal.contains("\"event\":\"installed\",\"object\":\"signatures\",\"detail\":\"#2 2"), "{journal}");
}
