//! An owner's events in the columns that a worker has made of them: who has read them is found, and they are erased there,
//! too, by the servers themselves.

use std::path::PathBuf;
use std::time::Duration;

use attest::{AccessIntent, BatchId, Bundle, ErasureRequest, Statement};
use seal::{DataKey, Destination, ErasureFile, Header, OwnerSecret, Sealed};
use serde_json::Value;
use stdx::{Clock as _, Digest, SystemClock, SystemEntropy, UnixTime, durable};
use testkit::{APPROVED_CLASS, REGION};

use super::compaction::Yard;
use super::erase::{comes_back, copied, left_in_vault, shares};
use super::scene::{CUSTODIANS, Scene, Setting, Shared, folder, signed};
use super::through::lines;
use crate::process::Done;
use crate::raw;
use crate::vault::chain;

/// A vault with columns, in which an owner has three events of nine.
struct Past {
    yard: Yard,
    owner: OwnerSecret,
    batch: Vec<u8>,
    request: String,
    /// What a worker has made, as it lies in the vault.
    columns: Vec<Vec<u8>>,
    backup: PathBuf,
}

impl Past {
    fn made() -> Self {
        Self::made_with(&Setting::default())
    }

    fn made_with(setting: &Setting) -> Self {
        let mut yard = Yard::running_with(setting);
        for who in CUSTODIANS {
            yard.desk.scene.custodian(who).kill();
            let line = format!("vault = \"{}\"", yard.desk.scene.system.vendor.url());
            yard.desk.scene.system.set(&folder(who), "# vault = \"https://vendor.example\"", &line);
            yard.desk.scene.custodian(who).start();
        }
        let (owner, batch) = owned(&yard.desk.scene);
        yard.keep(batch.clone());
        yard.take("DE", 4);
        yard.take("JP", 2);
        let request = yard.request();
        assert_eq!(yard.read(), counted(7));
        yard.compact(&request).ok();
        let columns = left_in_vault(&yard.desk.scene).into_values().collect();
        let scene = &yard.desk.scene;
        let backup = scene.system.file("backup");
        CUSTODIANS.iter().for_each(|who| copied(&scene.system.file(&folder(who)).join("table"), &backup.join(who)));
        Self { yard, owner, batch, request, columns, backup }
    }

    const fn scene(&self) -> &Scene {
        &self.yard.desk.scene
    }

    /// By now, so that it is late at once.
    fn erase(&self) -> Done {
        let (system, owner) = (&self.scene().system, self.owner.to_text().parse().unwrap());
        let file = ErasureFile { region: REGION.parse().unwrap(), owners: vec![owner] };
        durable::write(&system.file("erase.json"), &file.to_bytes()).unwrap();
        let vault = system.vendor.url();
        let head = ["--json", "data", "erase", "--config", "supervisor/clerestory.toml", "--vault", &vault];
        system.run(&[&head[..], &["--days", "0", "--out", "receipt.bundle", "erase.json"]].concat())
    }

    fn status(&self) -> Done {
        self.scene().system.run(&["--json", "data", "erase", "--config", "supervisor/clerestory.toml", "--status"])
    }

    /// Germany's columns, which have the owner's events.
    fn tainted(&self) -> &[u8] {
        self.columns.iter().find(|it| country(it) == "DE").unwrap()
    }

    /// The vendor's server does what `data compact` does.
    fn compact_by_duty(&mut self) {
        let section = format!(
            "\n[compaction]\nkey = \"keys/reader.key\"\nrequests = [\"{}\"]\nevery_s = 1\n\n[http]",
            self.request
        );
        let scene = &mut self.yard.desk.scene;
        scene.change_vendor(|system, folder| system.set(folder, "\n[http]", &section));
        let address = scene.system.vendor.address();
        until("the vendor's server writes nothing anew", || chain(address).unclean().is_empty());
    }
}

pub(super) fn until(complaint: &str, ready: impl Fn() -> bool) {
    let clock = SystemClock::new();
    let begun = clock.monotonic();
    while !ready() {
        assert!(clock.monotonic() - begun < Duration::from_secs(60), "{complaint}");
        std::thread::yield_now();
    }
}

fn owned(scene: &Scene) -> (OwnerSecret, Vec<u8>) {
    let policy = scene.system.policy();
    let residency = policy.policy().residency.as_ref().unwrap();
    let to = Destination::new(residency, policy.id(), "DE".parse().unwrap(), SystemClock::new().now()).unwrap();
    let owner = OwnerSecret::draw(&SystemEntropy).unwrap();
    let (class, lines) = (APPROVED_CLASS.parse().unwrap(), lines("DE", 3));
    let object = to.seal_owned(&owner, &class, lines.as_bytes(), &SystemEntropy).unwrap();
    (owner, object)
}

fn counted(germany: usize) -> String {
    format!("country,rule,events\nDE,a_marked_rule,{germany}\nJP,a_marked_rule,2\n")
}

fn name(object: &[u8]) -> BatchId {
    Header::parse(object).unwrap().0.bound.id
}

fn country(object: &[u8]) -> String {
    Header::parse(object).unwrap().0.bound.country.to_string()
}

/// What the name of an object that a worker has made is made of, for whoever can open it.
fn owner_in(past: &Past, object: &[u8]) -> OwnerSecret {
    let [ones, others] = CUSTODIANS.map(|who| shares(past.scene(), who, &past.backup.join(who), object));
    let plaintext = Sealed::read(object, &DataKey::join([&ones[0], &others[0]])).unwrap();
    let all = plaintext.windows(64).filter_map(|it| std::str::from_utf8(it).ok()?.parse::<OwnerSecret>().ok());
    all.into_iter().find(|it| it.name() == name(object)).unwrap()
}

/// A gateway sees what the names of columns are made of when a worker has read them, and could keep back what was made of
/// them: nothing would be left.
fn nobody_erases_what_has_no_successor(past: &Past) {
    let (scene, object) = (past.scene(), name(past.tainted()));
    let recorder = scene.system.key("supervisor", "recorder");
    let logged = scene.write("access/supervisor", |position| {
        let deadline = SystemClock::new().now().after(Duration::from_secs(60));
        let predicate = ErasureRequest { position, region: REGION.parse().unwrap(), objects: vec![object], deadline };
        signed(Statement { subject: vec![custody::erasure_subject(&[object])], predicate }, &recorder)
    });
    let evidence = String::from_utf8(Bundle::new(vec![logged.unwrap()]).unwrap().to_bytes()).unwrap();
    let owners = vec![owner_in(past, past.tainted()).to_text()];
    let note = api::ErasureNote { region: REGION.parse().unwrap(), evidence, owners };
    for custodian in &scene.custodians {
        let answer = raw::post(custodian.address(), "/v1/custody/erasures", &serde_json::to_vec(&note).unwrap());
        assert_eq!(answer.status, 403, "{}", answer.text());
        assert!(answer.error().contains("a worker has made it, and the vault has it"), "{}", answer.text());
    }
}

#[test]
fn erased_events_go_from_columns_by_themselves_and_copies_of_these_have_a_horizon_too() {
    erased_from_columns(Past::made());
}

#[test]
fn they_go_from_columns_in_a_bucket_too() {
    let shared = Shared::with_others("columns");
    erased_from_columns(Past::made_with(&Setting { shared: Some(shared), ..Setting::default() }));
}

fn erased_from_columns(mut past: Past) {
    let before = past.erase();
    assert_eq!(before.code, 75, "{before:?}");
    let said = before.json();
    assert_eq!((said["left"].as_array().unwrap().len(), &said["horizon"]), (1, &Value::Null), "{said:#}");
    assert_eq!(past.yard.read(), counted(7), "nobody has made it anew yet");
    nobody_erases_what_has_no_successor(&past);
    // It was to be gone by now, and everybody is told.
    let ready = |past: &Past| raw::get(past.scene().system.supervisor.address(), "/readyz").text();
    until("it is not told that it is late", || ready(&past).contains("were to be gone by"));
    let late = past.status();
    assert_eq!((late.code, &late.json()[0]["late"]), (1, &Value::Bool(true)), "{late:?}");
    past.compact_by_duty();
    assert_eq!(past.yard.read(), counted(4));
    // The supervisor's server sees it, and has custodians erase the columns that were replaced.
    let system = &mut past.yard.desk.scene.system;
    assert_eq!(system.supervisor.stop().code, 0);
    system.supervisor.start();
    until("the supervisor's server does not go on", || past.status().code == 0);
    assert!(!ready(&past).contains("were to be gone by"), "{}", ready(&past));
    let done = past.erase().ok().json();
    assert_eq!((&done["columns"], &done["erased"], &done["unnamed"]), (&1.into(), &0.into(), &0.into()), "{done:#}");
    let horizon: UnixTime = done["horizon"].as_str().unwrap().parse().unwrap();
    assert!(horizon > SystemClock::new().now().after(Duration::from_secs(7 * 86_400)), "this week's key: {horizon}");
    let receipt = Bundle::parse(&std::fs::read(past.scene().system.file("receipt.bundle")).unwrap()).unwrap();
    assert_eq!(receipt.entries().len(), 6, "two requests, each with two custodians' words");
    let scene = past.scene();
    for who in CUSTODIANS {
        let table = std::fs::read_dir(scene.system.file(&folder(who)).join("table")).unwrap();
        let rows = table.map(|it| it.unwrap().path()).find(|it| it.extension().is_some_and(|it| it == "rows")).unwrap();
        let (rows, name) = (std::fs::read(rows).unwrap(), name(past.tainted()).to_string());
        assert!(rows.windows(name.len()).any(|it| it == name.as_bytes()), "`{who}` does not refuse {name}");
    }
    // Until then copies open; when that week's keys have gone, nothing from before does.
    assert!(comes_back(scene, &past.backup, past.tainted()) && comes_back(scene, &past.backup, &past.batch));
    for who in CUSTODIANS {
        let keys = scene.system.file(&folder(who)).join("keys/regions");
        durable::rename(&keys, &scene.system.file(&format!("keys-of-{who}"))).unwrap();
        std::fs::create_dir(&keys).unwrap();
    }
    assert!(!comes_back(scene, &past.backup, past.tainted()) && !comes_back(scene, &past.backup, &past.batch));
    scene.system.beat(&crate::statement::Place::vendor());
    scene.system.beat(&crate::statement::Place::supervisor());
    scene.system.run(&["audit", "--config", "supervisor/clerestory.toml", "--state", "a.json"]).ok();
}

#[test]
fn who_has_read_an_owners_events_is_found_through_what_workers_have_made_of_them() {
    let past = Past::made();
    past.yard.read();
    let scene = past.scene();
    let (header, _) = Header::parse(&past.batch).unwrap();
    let unknown = Digest::of(b"sent elsewhere");
    let mine = format!("{}\n{unknown}\n", Digest::of(&header.to_bytes()));
    durable::write(&scene.system.file("mine.txt"), mine.as_bytes()).unwrap();
    let (at, vault) = (scene.system.supervisor.url(), scene.system.vendor.url());
    let command = ["--json", "data", "subject", "--config", "vendor/clerestory.toml", "--vault", &vault];
    let found = scene.system.run(&[&command[..], &["--at", &at, "mine.txt"]].concat()).ok().json();
    assert_eq!((&found["objects"], &found["never_listed"]), (&2.into(), &1.into()), "{found:#}");
    assert_eq!(found["made_of_them"].as_array().unwrap().len(), 1, "Japan's columns have none of them");
    let accesses = found["accesses"].as_array().unwrap();
    let how: Vec<_> =
        accesses.iter().map(|it| (it["of_owner"].as_u64().unwrap(), it["in_columns"].as_bool().unwrap())).collect();
    assert_eq!(how, [(1, true), (1, false), (1, false)], "columns; compaction; lines: {found:#}");
    let intents = past.yard.desk.logged::<AccessIntent>();
    assert_eq!(accesses[0]["id"], intents[2].0.id().to_string());
    let text = scene.system.run(&[&command[1..], &["--at", &at, "mine.txt"]].concat()).ok().stdout;
    assert!(text.contains("1 of yours in columns: ") && text.contains("the vault never listed 1 of these"), "{text}");
}
