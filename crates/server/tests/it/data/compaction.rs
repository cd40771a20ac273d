//! Lines that become columns, by the programs that users run: whatever is killed, every answer stays the same.

use std::process::Command;
use std::time::Duration;

use attest::{AccessIntent, AccessOutcome, Ended};
use serde_json::Value;
use stdx::{Digest, durable};
use testkit::{APPROVED_CLASS, COMPACTION, files};

use super::gateway::Desk;
use super::proxy::{Held, Proxy};
use super::scene::{Scene, Setting};
use super::through::{COUNTED, code, program, sealed, start, started};
use crate::process::{Done, Server, spawn};
use crate::vault::chain;

/// A vendor's vault with lines, and a worker behind a proxy.
pub(super) struct Yard {
    pub(super) desk: Desk<()>,
    worker: Server,
    between: Proxy,
    code: String,
    batches: Vec<Vec<u8>>,
}

const READER: &str = "vendor/keys/reader.key";
const CONFIG: &str = "vendor/clerestory.toml";

impl Yard {
    fn running() -> Self {
        Self::running_with(&Setting::default())
    }

    pub(super) fn running_with(setting: &Setting) -> Self {
        let code = code();
        let mut made = None;
        let desk = Desk::of(Scene::made_with(setting), &code, |scene| {
            let worker = started(scene);
            let between = Proxy::to(worker.address());
            let url = between.url.clone();
            made = Some((worker, between));
            url
        });
        let (worker, between) = made.unwrap();
        durable::write(&desk.scene.system.file(super::gateway::QUERY_FILE), COUNTED.as_bytes()).unwrap();
        durable::write(&desk.scene.system.file("compact.sql"), b"COMPACT\n").unwrap();
        Self { desk, worker, between, code, batches: Vec::new() }
    }

    /// A batch comes, and lies in a segment: its events are marked, so that they can be looked for.
    pub(super) fn take(&mut self, country: &str, count: usize) {
        let object = sealed(&self.desk, country, count);
        self.keep(object);
    }

    pub(super) fn keep(&mut self, object: Vec<u8>) {
        self.batches.push(object);
        self.desk.scene.keep(&self.batches[self.batches.len() - 1..]);
    }

    fn schema(&self) -> String {
        let file = self.desk.scene.system.file("compact.sql");
        let said = Command::new(program()).args(["schema", "--class", APPROVED_CLASS]).arg(file).output().unwrap();
        assert!(said.status.success(), "{said:?}");
        String::from_utf8(said.stdout).unwrap().trim_end().to_owned()
    }

    fn ask(&self, code: &str, further: &[&str]) -> Done {
        let schema = self.schema();
        let asked = ["--reader", "compaction", "--ticket", "OPS-1", "--class", APPROVED_CLASS, "--uses", "50"];
        let countries = ["--country", "DE", "--country", "JP", "--schema", &schema, "--code", code];
        self.desk.data("request", "reader", &[&asked[..], &countries, further].concat())
    }

    /// A request that stands for this worker's code, approved.
    pub(super) fn request(&self) -> String {
        let asked = self.ask(&self.code, &["--compact", "--purpose", COMPACTION]).ok().json();
        let request = asked["id"].as_str().unwrap().to_owned();
        self.desk.approve(&request);
        request
    }

    pub(super) fn compact(&self, request: &str) -> Done {
        self.desk.data("compact", "reader", &[request])
    }

    /// How many events of each country a reader finds.
    pub(super) fn read(&self) -> String {
        let request = self.desk.request_for(8);
        self.desk.approve(&request);
        self.desk.data("query", "reader", &[&request, "--format", "csv"]).ok().stdout
    }

    /// Segments as the manifests have them, and as they lie there.
    fn segments(&self) -> (usize, usize) {
        let there = files(&self.desk.scene.system.file("vendor/intake"));
        let there = there.into_keys().filter(|name| name.contains("segment/")).count();
        (chain(self.desk.scene.system.vendor.address()).segments().count(), there)
    }
}

fn rounds(done: &Done) -> Vec<Value> {
    serde_json::from_str(&done.stdout).unwrap()
}

#[test]
fn lines_become_columns_under_a_grant_and_nothing_else_changes() {
    let mut yard = Yard::running();
    for (country, count) in [("DE", 3), ("JP", 2), ("DE", 4)] {
        yard.take(country, count);
    }
    let expected = "country,rule,events\nDE,a_marked_rule,7\nJP,a_marked_rule,2\n";
    assert_eq!((yard.read(), yard.segments()), (expected.to_owned(), (3, 3)));
    let refused = |done: &Done, why: &str| {
        assert_eq!(done.code, 1, "{done:?}");
        assert!(done.stderr.contains(why), "{}", done.stderr);
    };
    // Not what was asked for, not by whom it was approved, not by other code, not in the open.
    let (file, purpose) = (["--query", "compact.sql"], ["--purpose", COMPACTION]);
    refused(&yard.ask(&yard.code, &[&file[..], &purpose].concat()), "for no rows and no bytes");
    refused(&yard.ask(&yard.code, &["--compact", "--purpose", testkit::PURPOSE]), "no rule of access allows");
    let asked = yard.ask(&yard.code, &["--compact", "--purpose", COMPACTION]).ok().json();
    let unapproved = asked["id"].as_str().unwrap();
    refused(&yard.compact(unapproved), "1 approval(s) of `supervisor` missing");
    let other = yard.ask(&Digest::of(b"other code").to_string(), &["--compact", "--purpose", COMPACTION]).ok().json();
    let other = other["id"].as_str().unwrap();
    yard.desk.approve(other);
    refused(&yard.compact(other), "other code than the workers have");
    let request = yard.request();
    refused(&yard.desk.query(&request), "nothing else, is given out sealed");
    let plain = yard.desk.request();
    yard.desk.approve(&plain);
    refused(&yard.compact(&plain), "is not for compaction");
    let before = yard.desk.logged::<AccessIntent>().len();
    assert_eq!(yard.segments(), (3, 3));

    let done = rounds(&yard.compact(&request).ok());
    assert_eq!(done.len(), 1, "{done:#?}");
    let counts = ["segments_before", "objects_before", "objects", "events", "doubles", "unread"];
    assert_eq!(counts.map(|it| done[0][it].as_u64().unwrap()), [3, 3, 2, 9, 0, 0]);
    assert_eq!((yard.read(), yard.segments()), (expected.to_owned(), (1, 1)));
    assert!(yard.compact(&request).ok().stdout.starts_with("[]"), "there is nothing left to do");
    let intents = yard.desk.logged::<AccessIntent>();
    let intent = &intents[before].1.predicate;
    assert_eq!((intent.budget.objects, intent.budget.rows, intent.budget.bytes), (3, 0, 0));
    assert_eq!(intents[before].0.id().to_string(), done[0]["intent"]);
    let outcomes = yard.desk.logged::<AccessOutcome>();
    let (_, outcome) = outcomes.iter().find(|(_, it)| it.predicate.intent == intents[before].0.id()).unwrap();
    assert_eq!((outcome.predicate.ended, outcome.predicate.rows, outcome.predicate.bytes), (Ended::Done, 0, 0));
    assert_eq!(outcome.subject[0].sha256().to_string(), done[0]["segment"], "the log has the segment's digest");
    yard.desk.settled();

    // What comes again is known, and what is kept is what fsck finds.
    yard.desk.scene.keep(&yard.batches);
    assert_eq!((yard.read(), yard.segments()), (expected.to_owned(), (1, 1)));
    let system = &mut yard.desk.scene.system;
    assert_eq!(system.vendor.stop().code, 0);
    assert_eq!(system.run(&["fsck", "--config", CONFIG]).code, 0);
    system.run(&["backup", "make", "--config", CONFIG, "--out", "copy"]).ok();
    let mark = b"a_marked_rule";
    for (name, path) in files(system.path()) {
        let found = std::fs::read(path).unwrap().windows(mark.len()).any(|it| it == mark);
        assert!(!found, "{name} has what only a worker may see");
    }
}

/// Who dies.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Dies {
    Gateway,
    Worker,
    Vendor,
    Command,
}

#[test]
fn whoever_is_killed_in_the_middle_of_it_nothing_is_lost_and_nothing_is_there_twice() {
    let mut yard = Yard::running();
    let request = yard.request();
    let (mut germany, mut japan) = (0, 0);
    let (before, after) = (Held::Before(api::path::RUN), Held::After(api::path::RUN));
    let steps = [
        (Dies::Gateway, before),
        (Dies::Gateway, after),
        (Dies::Worker, before),
        (Dies::Vendor, after),
        (Dies::Command, before),
        (Dies::Command, after),
    ];
    for (dies, held) in steps {
        yard.take("DE", 3);
        yard.take("JP", 1);
        (germany, japan) = (germany + 3, japan + 1);
        let (arrives, goes) = yard.between.hold(held);
        let arguments = ["data", "compact", "--config", CONFIG, "--key", READER, &request];
        let mut command = spawn(yard.desk.scene.system.path(), &arguments);
        arrives.recv_timeout(Duration::from_secs(60)).unwrap();
        // Something comes at the same time.
        let late = sealed(&yard.desk, "DE", 2);
        yard.desk.scene.send(&late);
        germany += 2;
        let system = &mut yard.desk.scene.system;
        match dies {
            Dies::Gateway => system.supervisor.kill(),
            Dies::Worker => yard.worker.kill(),
            Dies::Vendor => system.vendor.kill(),
            Dies::Command => command.kill().unwrap(),
        }
        drop(goes);
        match dies {
            Dies::Gateway => system.supervisor.start(),
            // What was on its way gets to one that has another key.
            Dies::Worker => start(&mut yard.worker),
            Dies::Vendor => system.vendor.start(),
            Dies::Command => {}
        }
        let ended = command.wait().unwrap();
        // The vendor's server has no part in it: what the command writes it finds.
        assert_eq!(ended.success(), dies == Dies::Vendor, "{dies:?} {held:?}");
        yard.desk.scene.change_vendor(|_, _| {});
        let expected = format!("country,rule,events\nDE,a_marked_rule,{germany}\nJP,a_marked_rule,{japan}\n");
        assert_eq!(yard.read(), expected, "{dies:?} {held:?}");
        yard.compact(&request).ok();
        assert_eq!((yard.read(), yard.segments()), (expected, (1, 1)), "{dies:?} {held:?}");
        yard.desk.settled();
    }
    let system = &mut yard.desk.scene.system;
    assert_eq!(system.vendor.stop().code, 0);
    assert_eq!(system.run(&["fsck", "--config", CONFIG]).code, 0);
}
