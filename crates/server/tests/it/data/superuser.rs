//! A superuser on the database, who owns the buckets, too: what he finds in them, and what he can change.

mod changes;

use std::collections::BTreeMap;
use std::process::Command;

use api::Client;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use remote::{S3Objects, S3Settings};
use seal::{Header, PrivateKey};
use stdx::durable;
use storage::{Folder, Listing, ObjectStore};
use testkit::{ACCESS_KEY_ID, APPROVED_CLASS, COMPACTION, PURPOSE, REGION, SECRET_ACCESS_KEY, files};

use super::gateway::{Desk, QUERY_FILE};
use super::scene::{CUSTODIANS, Scene, Shared, folder};
use super::search::Needles;
use super::through::{program, sealed, with_real_worker};
use crate::process::{Done, Server};
use crate::raw;
use crate::vault::chain;

const QUERY: &str = "select country, rule, count(*) as events from detections where rule <> 'a_marked_word' \
                     group by country, rule order by country\n";
/// What endpoints have sealed, as `through::sealed` marks it.
const CONTENT: &str = "a_marked_rule";
/// What the ledger keeps beside the log: who asks, why, who approved, and the query.
const PRIVATE: [&str; 4] = ["a_marked_reader", "a_marked_ticket", "a_marked_comment", "a_marked_word"];
/// In every bucket of a store: who keeps what there.
const PARTS: [(&str, [&str; 3]); 2] =
    [("vendor", ["log", "kept", "intake"]), ("supervisor", ["log", "kept", "beside"])];

/// Everything runs, on services of its own.
struct Place {
    desk: Desk<()>,
    worker: Server,
    shared: Shared,
    runtime: tokio::runtime::Runtime,
}

impl Place {
    fn running(name: &'static str) -> Self {
        let shared = Shared::of_its_own(name);
        let (desk, worker) = with_real_worker(Scene::made_on(&shared, |_| {}));
        durable::write(&desk.scene.system.file(QUERY_FILE), QUERY.as_bytes()).unwrap();
        durable::write(&desk.scene.system.file("compact.sql"), b"COMPACT\n").unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        Self { desk, worker, shared, runtime }
    }

    /// A batch of so many marked events comes, and lies in a segment.
    fn take(&self, country: &str, count: usize) {
        let address = self.desk.scene.system.vendor.address();
        let there = chain(address).segments().count();
        let taken = raw::post(address, "/v1/events", &sealed(&self.desk, country, count));
        assert_eq!(taken.status, 200, "{}", taken.text());
        while chain(address).segments().count() == there {}
    }

    /// A request of a person's, with marks in all that it says in private.
    fn ask(&self) -> String {
        let asked = ["--query", QUERY_FILE, "--reader", PRIVATE[0], "--ticket", PRIVATE[1], "--class", APPROVED_CLASS];
        let further = ["--country", "DE", "--country", "JP", "--purpose", PURPOSE];
        let done = self.desk.data("request", "reader", &[&asked[..], &further].concat()).ok();
        done.json()["id"].as_str().unwrap().to_owned()
    }

    fn approve(&self, request: &str) {
        self.desk.data("approve", "approver", &[request, "--comment", PRIVATE[2]]).ok();
    }

    fn query(&self, request: &str) -> Done {
        self.desk.data("query", "reader", &[request, "--format", "csv"])
    }

    fn read(&self) -> String {
        let request = self.ask();
        self.approve(&request);
        self.query(&request).ok().stdout
    }

    /// Lines become columns.
    fn compact(&self) {
        let file = self.desk.scene.system.file("compact.sql");
        let said = |arguments: &[&str]| {
            let output = Command::new(program()).args(arguments).output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
        };
        let schema = said(&["schema", "--class", APPROVED_CLASS, file.to_str().unwrap()]);
        let code = said(&["code"]);
        let asked =
            ["--compact", "--reader", "compaction", "--ticket", "OPS-1", "--class", APPROVED_CLASS, "--uses", "5"];
        let further = ["--country", "DE", "--country", "JP", "--purpose", COMPACTION, "--schema", &schema, "--code"];
        let done = self.desk.data("request", "reader", &[&asked[..], &further, &[&code]].concat()).ok();
        let request = done.json()["id"].as_str().unwrap().to_owned();
        self.approve(&request);
        let made = self.desk.data("compact", "reader", &[&request]).ok().json();
        assert_eq!(made.as_array().unwrap().len(), 1, "{made}");
    }

    /// Every object of a part of a bucket.
    fn objects(&self, organisation: &str, part: &str) -> BTreeMap<String, Bytes> {
        let store = self.store(organisation, part);
        self.runtime.block_on(async {
            let (mut found, mut listing) = (BTreeMap::new(), Listing::of(Folder::Root));
            loop {
                let page = store.list(&listing).await.unwrap();
                for key in &page {
                    found.insert(key.to_string(), store.get(key).await.unwrap().unwrap());
                }
                match page.into_iter().next_back() {
                    Some(last) => listing = listing.after(last),
                    None => return found,
                }
            }
        })
    }

    fn store(&self, organisation: &str, part: &str) -> S3Objects {
        let settings = S3Settings {
            endpoint: self.shared.seaweed.endpoint(),
            region: "eu-central-1".to_owned(),
            bucket: self.shared.bucket(organisation),
            prefix: format!("{organisation}/{part}").parse().unwrap(),
            access_key_id: ACCESS_KEY_ID.to_owned(),
            secret_access_key: SECRET_ACCESS_KEY.to_owned(),
        };
        self.runtime.block_on(S3Objects::open(&settings)).unwrap()
    }

    /// Every row of every table, as the server gives its bytes.
    fn tables(&self) -> Vec<u8> {
        let postgres = &self.shared.postgres;
        // Types of the server's own tables have no binary form.
        let script = "SELECT format('COPY (SELECT * FROM %I.%I) TO STDOUT %s;', schemaname, tablename, CASE WHEN \
                      schemaname IN ('pg_catalog', 'information_schema') THEN '' ELSE '(FORMAT binary)' END) \
                      FROM pg_tables;\n";
        postgres.psql(&postgres.psql(script.as_bytes()))
    }

    /// What both services have on their disks, when they are gone.
    fn raw_files(&mut self, public: &Needles, secret: &Needles, private: &Needles) {
        let (postgres, seaweed) = (&self.shared.postgres, &self.shared.seaweed);
        drop(postgres.psql(b"CHECKPOINT;\n"));
        self.worker.kill();
        postgres.kill();
        seaweed.kill();
        let mut seen = 0;
        let of_supervisor = format!("{}_", self.shared.bucket("supervisor"));
        for folder in [postgres.folder(), seaweed.folder()] {
            for (name, path) in files(folder).into_iter().filter(|(_, path)| path.is_file()) {
                let bytes = std::fs::read(path).unwrap();
                seen += public.found(&bytes).len();
                assert!(secret.found(&bytes).is_empty(), "{name}: {:?}", secret.found(&bytes));
                let may = name.starts_with(&of_supervisor);
                assert!(may || private.found(&bytes).is_empty(), "{name}: {:?}", private.found(&bytes));
            }
        }
        assert!(seen > 0, "rows lie there as they are");
    }

    /// The secrets that open something: custodians' keys, and every share and data key of what lies in the vault.
    fn secrets(&self, needles: &mut Needles) {
        let system = &self.desk.scene.system;
        let mut keys = Vec::new();
        for who in CUSTODIANS {
            for (name, path) in files(&system.file(&format!("{}/keys", folder(who)))) {
                let Ok(text) = String::from_utf8(std::fs::read(path).unwrap()) else { continue };
                if name.ends_with(".key") {
                    needles.add("a custodian's own key", text.trim_end().as_bytes());
                }
                let Ok(key) = PrivateKey::from_text(&text) else { continue };
                let secret = text.trim_end().rsplit(':').next().unwrap();
                needles.add("a region's key", &STANDARD.decode(secret).unwrap());
                keys.push(key);
            }
        }
        assert_eq!(keys.len(), 2 * 3, "three weeks of each custodian");
        let client = Client::new(std::time::Duration::from_secs(10));
        for segment in chain(system.vendor.address()).segments() {
            let path = format!("{}/{REGION}/segments/{}/{}", api::path::VAULT, segment.class, segment.segment);
            for kept in &segment.objects {
                let url = format!("{}{path}", system.vendor.url());
                let object = client.get_piece(&url, kept.at..kept.at + kept.bytes).unwrap();
                shares(&object, &keys, needles);
            }
        }
    }
}

/// Each share of an object, and the key that all of them are together.
fn shares(object: &[u8], keys: &[PrivateKey], needles: &mut Needles) {
    let (header, _) = Header::parse(object).unwrap();
    let mut joined = [0; 32];
    for share in &header.shares {
        let (wrapped, info) = (share.wrapped().unwrap(), header.bound.info(&share.custodian));
        let opened = keys.iter().find_map(|key| wrapped.open(key, &info)).expect("one of these opens it");
        needles.add("a share", &opened);
        joined.iter_mut().zip(opened.iter()).for_each(|(all, one)| *all ^= one);
    }
    needles.add("a data key", &joined);
}

#[test]
fn a_superuser_who_owns_the_buckets_finds_no_content_no_key_and_no_name_but_where_names_are_kept() {
    let mut place = Place::running("finds");
    for (country, count) in [("DE", 3), ("JP", 2)] {
        place.take(country, count);
    }
    let expected = "country,rule,events\nDE,a_marked_rule,3\nJP,a_marked_rule,2\n";
    assert_eq!(place.read(), expected);
    let mut secret = Needles::of([("content", CONTENT.as_bytes())]);
    place.secrets(&mut secret);
    place.compact();
    place.take("DE", 1);
    assert_eq!(place.read(), "country,rule,events\nDE,a_marked_rule,4\nJP,a_marked_rule,2\n");
    place.secrets(&mut secret);
    let private = Needles::of(PRIVATE.map(|it| (it, it.as_bytes())));
    // What lies there for all to see: so this would find the others.
    let public = Needles::of([("purpose", PURPOSE.as_bytes()), ("class", APPROVED_CLASS.as_bytes())]);

    let tables = place.tables();
    assert_eq!(public.found(&tables).len(), 2);
    assert!(secret.found(&tables).is_empty() && private.found(&tables).is_empty(), "{:?}", secret.found(&tables));
    for (organisation, parts) in PARTS {
        for part in parts {
            for (key, bytes) in place.objects(organisation, part) {
                assert!(secret.found(&bytes).is_empty(), "{organisation}/{part}/{key}: {:?}", secret.found(&bytes));
                let kept = part == "beside" && (key.starts_with("private/") || key.starts_with("query/"));
                assert!(kept || private.found(&bytes).is_empty(), "{organisation}/{part}/{key} names somebody");
            }
        }
    }
    let names: Vec<Bytes> = place.objects("supervisor", "beside").into_values().collect();
    assert_eq!(private.found(&names.concat()).len(), PRIVATE.len(), "there they are");
    place.raw_files(&public, &secret, &private);
}
