//! What the superuser changes: nothing is opened by it that has no entry, nothing twice, and it shows.

use std::time::Duration;

use attest::Ended;
use bytes::Bytes;
use stdx::{Clock as _, SystemClock};
use storage::{Key, ObjectStore as _};

use super::Place;
use crate::data::scene::{CUSTODIANS, folder};
use crate::process::Done;
use crate::raw;
use crate::statement;

/// The supervisor's tables: its organisation stands behind its bucket.
const SCHEMA: &str = "alters-supervisor-supervisor";

impl Place {
    /// Has the database changed, `S` being the supervisor's schema.
    fn sql(&self, script: &str) {
        drop(self.shared.postgres.psql(script.replace("S.", &format!("\"{SCHEMA}\".")).as_bytes()));
    }

    /// How often each custodian has used its key, and for how many objects.
    fn used(&self) -> Vec<(u64, u64)> {
        CUSTODIANS.iter().map(|who| self.desk.scene.state(who)).map(|it| (it.uses, it.opened)).collect()
    }

    fn restart(&mut self) {
        assert_eq!(self.desk.scene.system.supervisor.stop().code, 0);
        self.desk.scene.system.supervisor.start();
    }

    /// Of the supervisor's log.
    fn size(&self) -> u64 {
        let checkpoint = raw::get(self.desk.scene.system.supervisor.address(), "/checkpoint");
        checkpoint
            .text()
            .lines()
            .nth(1)
            .and_then(|size| size.parse().ok())
            .unwrap_or_else(|| panic!("{}", checkpoint.text()))
    }

    fn fsck(&self, of: &str) -> Done {
        self.desk.scene.system.run(&["fsck", "--config", &format!("{of}/clerestory.toml")])
    }

    /// What the auditor says, whatever time the store takes today.
    fn audit(&self) -> Done {
        let audit =
            || self.desk.scene.system.run(&["audit", "--config", "vendor/clerestory.toml", "--state", "audited"]);
        let is_slow = |done: &Done| done.stderr.contains("no answer: timeout");
        (0..5).map(|_| audit()).find(|done| !is_slow(done)).expect("the log answers within a minute")
    }

    /// Puts something else in an object's place, whatever S3 it is.
    fn put(&self, (organisation, part): (&str, &str), key: &str, bytes: Option<Bytes>) {
        let (store, key) = (self.store(organisation, part), key.parse::<Key>().unwrap());
        self.runtime.block_on(async {
            store.delete(&key).await.unwrap();
            if let Some(bytes) = bytes {
                store.put(&key, bytes).await.unwrap();
            }
        });
    }

    fn is_refused(&self, done: &Done, used: &[(u64, u64)], why: &str) {
        assert!(done.code == 1 || done.code == 75, "{done:?}");
        assert!(done.stdout.is_empty() && done.stderr.contains(why), "{why}: {}", done.stderr);
        assert_eq!(self.used(), used, "{why}");
    }

    /// The gateway's notes of a request that was used are gone.
    fn a_used_request(&mut self) {
        let request = self.ask();
        self.approve(&request);
        self.query(&request).ok();
        let used = self.used();
        self.sql("DELETE FROM S.records WHERE name = 'data-intents';");
        self.restart();
        self.is_refused(&self.query(&request), &used, "as often as it may be");
        assert_eq!(self.desk.outcomes().last(), Some(&(Ended::Refused, 0, 0)), "and the log says that it was tried");
    }

    /// Somebody else's approval stands with a request that nobody has approved; then there is no request.
    fn an_approval_of_another(&mut self) {
        let (approved, request, used) = (self.ask(), self.ask(), self.used());
        self.approve(&approved);
        self.is_refused(&self.query(&request), &used, "approval(s) of `supervisor` missing");
        self.sql(&format!(
            "INSERT INTO S.records SELECT name, replace(key, '{approved}', '{request}'), bytes FROM S.records \
             WHERE name = 'data-approvals' AND key LIKE '{approved}/%';"
        ));
        self.is_refused(&self.query(&request), &used, "approval(s) of `supervisor` missing");
        // One request's record under the other's name.
        self.sql(&format!(
            "UPDATE S.records a SET bytes = b.bytes FROM S.records b WHERE a.name = 'data-requests' AND b.name = a.name \
             AND a.key = '{request}' AND b.key = '{approved}';"
        ));
        self.is_refused(&self.query(&request), &used, "is another's");
        self.sql(&format!("DELETE FROM S.records WHERE name = 'data-requests' AND key = '{request}';"));
        self.is_refused(&self.query(&request), &used, "no request");
        // What was approved is still good for one reading.
        self.query(&approved).ok();
    }

    /// Two streams have each other's rows.
    fn swapped_streams(&mut self) {
        let (request, used) = (self.ask(), self.used());
        self.approve(&request);
        self.sql(
            "CREATE TABLE S.before AS SELECT * FROM S.locks WHERE key IN ('stream/access/supervisor', \
             'stream/region/zurich');
             UPDATE S.locks a SET bytes = b.bytes, version = a.version + 1 FROM S.locks b WHERE (a.key, b.key) IN \
             (('stream/access/supervisor', 'stream/region/zurich'), \
             ('stream/region/zurich', 'stream/access/supervisor'));",
        );
        self.is_refused(&self.query(&request), &used, "");
        self.sql(
            "UPDATE S.locks a SET bytes = b.bytes, version = a.version + 1 FROM S.before b WHERE a.key = b.key;
             DROP TABLE S.before;",
        );
        self.query(&request).ok();
    }

    /// An entry of the log, a segment and a manifest: changed, and gone.
    fn objects_in_the_buckets(&mut self) {
        let before = self.size();
        self.restart();
        // What it says of the region it says anew at its start, and then for minutes nothing is appended.
        let clock = SystemClock::new();
        while self.size() == before {
            assert!(clock.monotonic() < Duration::from_secs(60), "the region's status is not said anew");
            std::thread::yield_now();
        }
        // Of an entry bundle that has grown nobody needs the shorter one; the last manifest is not the first.
        let chosen = |part: (&str, &str), begins: &str| {
            let found = self.objects(part.0, part.1).into_iter().filter(|(key, _)| key.starts_with(begins));
            let mut found: Vec<_> = found.collect();
            if part.1 == "log" {
                found.sort_by_key(|(_, bytes)| std::cmp::Reverse(bytes.len()));
            }
            found.into_iter().next().unwrap_or_else(|| panic!("nothing is called `{begins}…`"))
        };
        let (log, vault) = (("supervisor", "log"), ("vendor", "intake"));
        let cases =
            [(log, "tile/entries/", "supervisor"), (vault, "segment/", "vendor1"), (vault, "manifest/", "vendor2")];
        for (part, begins, of) in cases {
            let (key, bytes) = chosen(part, begins);
            let mut other = bytes.to_vec();
            let last = other.len() - 40;
            other[last] ^= 1;
            for change in [Some(Bytes::from(other)), None] {
                self.put(part, &key, change);
                let done = self.fsck(of);
                assert_eq!(done.code, 1, "{key}: {done:?}");
                if part == log {
                    let audited = self.audit();
                    assert!(audited.code != 0 && format!("{audited:?}").contains("entries"), "{key}: {audited:?}");
                }
            }
            self.put(part, &key, Some(bytes));
            self.fsck(of).ok();
        }
        self.audit().ok();
    }

    /// The supervisor's tables are what they were one access ago.
    fn an_older_state(&mut self) {
        let (older, request) = (self.shared.postgres.dump(SCHEMA), self.ask());
        self.approve(&request);
        self.query(&request).ok();
        let used = self.used();
        assert_eq!(self.desk.scene.system.supervisor.stop().code, 0);
        let restored = [format!("DROP SCHEMA \"{SCHEMA}\" CASCADE;\n").as_bytes(), &older].concat();
        drop(self.shared.postgres.psql(&restored));
        let found = self.fsck("supervisor");
        assert!(found.code == 1 && found.stdout.contains("is newer than the lock"), "{found:?}");
        self.desk.scene.system.supervisor.start();
        let (clock, server) = (SystemClock::new(), &mut self.desk.scene.system.supervisor);
        while !server.has_ended() {
            assert!(clock.monotonic() < Duration::from_secs(60), "it goes on with a log that it has forgotten");
            std::thread::yield_now();
        }
        let ended = server.wait();
        assert!(ended.code == 1 && ended.stderr.contains("is newer than the lock"), "{ended:?}");
        assert_eq!(self.used(), used);
    }
}

#[test]
fn what_a_superuser_changes_opens_nothing_without_an_entry_and_nothing_twice_and_is_found() {
    let mut place = Place::running("alters");
    place.take("DE", 3);
    place.take("JP", 2);
    place.read();
    for at in [statement::Place::vendor(), statement::Place::supervisor()] {
        place.desk.scene.system.beat(&at);
    }
    for who in CUSTODIANS {
        let config = format!("{}/clerestory.toml", folder(who));
        place.desk.scene.system.run(&["data", "report", "--config", &config]).ok();
    }
    place.a_used_request();
    place.an_approval_of_another();
    place.swapped_streams();
    place.desk.settled();
    place.objects_in_the_buckets();
    place.an_older_state();
}
