//! What its owner wants gone: before the horizon copies open it, after it nothing does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::VaultErasure;
use attest::{Bundle, Erasure, ErasureRequest, Statement};
use custody::{ClosedShare, ShareKeys as _, Table, TableFolders};
use seal::{DataKey, Destination, ErasureFile, Header, OwnerSecret, PrivateKey, Sealed, Share};
use stdx::{Clock as _, SystemClock, SystemEntropy, UnixTime, durable};
use testkit::{APPROVED_CLASS, REGION};

use super::gateway::{CODE, Desk};
use super::scene::{CUSTODIANS, Made, Scene, Setting, Shared, folder, weeks_ago};
use crate::process::{Done, run_with};
use crate::raw;

/// An object of an endpoint's, and what its name was made of.
pub(crate) fn owned(scene: &Scene, at: UnixTime, text: &str) -> (OwnerSecret, Vec<u8>) {
    let policy = scene.system.policy();
    let residency = policy.policy().residency.as_ref().unwrap();
    let to = Destination::new(residency, policy.id(), "DE".parse().unwrap(), at).unwrap();
    let owner = OwnerSecret::draw(&SystemEntropy).unwrap();
    let object = to.seal_owned(&owner, &APPROVED_CLASS.parse().unwrap(), text.as_bytes(), &SystemEntropy).unwrap();
    assert_eq!(Header::parse(&object).unwrap().0.bound.id, owner.name());
    (owner, object)
}

pub(crate) fn file(scene: &Scene, owners: Vec<OwnerSecret>) -> PathBuf {
    let path = scene.system.file("erase.json");
    durable::write(&path, &ErasureFile { region: REGION.parse().unwrap(), owners }.to_bytes()).unwrap();
    path
}

pub(crate) fn erase(scene: &Scene, file: &Path) -> Done {
    let (vault, file) = (scene.system.vendor.url(), file.to_str().unwrap());
    let head = ["--json", "data", "erase", "--config", "supervisor/clerestory.toml", "--vault", &vault];
    scene.system.run(&[&head[..], &["--out", "receipt.bundle", file]].concat())
}

pub(crate) fn retire(scene: &Scene, who: &str) -> serde_json::Value {
    retire_with(scene, who, &[])
}

pub(super) fn retire_with(scene: &Scene, who: &str, environment: &[(&str, &str)]) -> serde_json::Value {
    let config = format!("{}/clerestory.toml", folder(who));
    run_with(scene.system.path(), &["--json", "data", "retire", "--config", &config], environment).ok().json()
}

/// A copy of whatever a backup or a thief may have.
pub(crate) fn copied(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copied(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// Everything that opens shares in a custodian's folder, and rows of its table from wherever.
pub(super) fn shares(scene: &Scene, who: &str, rows: &Path, object: &[u8]) -> Vec<Share> {
    let folder = scene.system.file(&folder(who));
    let closed = ClosedShare::of(&Header::parse(object).unwrap().0, &who.parse().unwrap()).unwrap();
    let files = std::fs::read_dir(folder.join("keys/regions")).unwrap();
    let keys = files.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap());
    let keys = keys.map(|text| PrivateKey::from_text(&text).unwrap()).collect();
    let mut opened: Vec<Share> =
        custody::FileKeys::new(keys).open(std::slice::from_ref(&closed)).unwrap().into_iter().flatten().collect();
    let [keys, tables] = [folder.join("keys/table"), rows.to_owned()];
    // Old rows under the name that the present key has: whoever copies tries that, too.
    let number = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let list = |folder: &Path, extension: &str| -> Vec<PathBuf> {
        let found = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        found.filter(|path| path.extension().is_some_and(|it| it == extension)).collect()
    };
    for (key, rows) in
        list(&keys, "key").iter().flat_map(|key| list(&tables, "rows").into_iter().map(move |it| (key, it)))
    {
        let tried = tempfile::tempdir().unwrap();
        std::fs::copy(key, tried.path().join(format!("{}.key", number(key)))).unwrap();
        std::fs::copy(rows, tried.path().join(format!("{}.rows", number(key)))).unwrap();
        let folders = TableFolders { keys: tried.path().to_owned(), rows: tried.path().to_owned() };
        opened.extend(Table::open(folders).unwrap().find(&closed).ok().flatten());
    }
    opened
}

/// Whether what was copied, with all that custodians have now, gives the object back.
pub(crate) fn comes_back(scene: &Scene, backup: &Path, object: &[u8]) -> bool {
    let [ones, others] = CUSTODIANS.map(|who| {
        let mut found = shares(scene, who, &backup.join(who), object);
        found.extend(shares(scene, who, &scene.system.file(&folder(who)).join("table"), object));
        found
    });
    ones.iter().any(|one| others.iter().any(|other| Sealed::read(object, &DataKey::join([one, other])).is_ok()))
}

pub(crate) fn running() -> Desk<()> {
    running_with(&Setting { from: Some(weeks_ago(4)), ..Setting::default() })
}

pub(super) fn running_with(setting: &Setting) -> Desk<()> {
    let mut desk = Desk::with_keys(setting);
    for who in CUSTODIANS {
        desk.scene.custodian(who).kill();
        let line = format!("vault = \"{}\"", desk.scene.system.vendor.url());
        desk.scene.system.set(&folder(who), "# vault = \"https://vendor.example\"", &line);
    }
    desk
}

/// From here on custodians know of the vault, and retire keys by themselves.
pub(super) fn start(scene: &mut Scene) {
    CUSTODIANS.iter().for_each(|who| scene.custodian(who).start());
}

#[test]
fn what_was_erased_comes_back_before_the_horizon_and_never_after_it() {
    erased_for_good(running());
}

#[test]
fn what_was_erased_from_a_bucket_is_gone_like_that_too() {
    let shared = Some(Shared::with_others("erase"));
    erased_for_good(running_with(&Setting { from: Some(weeks_ago(4)), shared, ..Setting::default() }));
}

fn erased_for_good(mut desk: Desk<()>) {
    let scene = &mut desk.scene;
    // One is in the custodians' tables, its region key destroyed; one's key is overdue; one was sealed today.
    let hour = Duration::from_secs(3600);
    let (in_table, first) = owned(scene, weeks_ago(4).after(hour), "long ago");
    let (_, stays) = owned(scene, weeks_ago(4).after(hour), "somebody else's");
    scene.keep(&[first.clone(), stays.clone()]);
    for who in CUSTODIANS {
        let done = retire(scene, who);
        let moved: u64 = done["destroyed"].as_array().unwrap().iter().map(|it| it["moved"].as_u64().unwrap()).sum();
        assert_eq!(moved, 2, "{done}");
    }
    start(scene);
    let (today, second) = owned(scene, SystemClock::new().now(), "today");
    scene.keep(std::slice::from_ref(&second));
    // Backups of everything that may be copied: tables' rows, and the vault's segments, which hold the objects.
    let backup = scene.system.file("backup");
    CUSTODIANS.iter().for_each(|who| copied(&scene.system.file(&folder(who)).join("table"), &backup.join(who)));
    assert!(comes_back(scene, &backup, &first) && comes_back(scene, &backup, &second));
    let erased = erase(scene, &file(scene, vec![in_table])).ok().json();
    let (now, horizon) = (SystemClock::new().now(), |done: &serde_json::Value| -> UnixTime {
        done["horizon"].as_str().unwrap().parse().unwrap()
    });
    assert!(horizon(&erased) <= now.after(Duration::from_secs(60)), "{erased}");
    assert_eq!((erased["objects"].as_u64(), erased["erased"].as_u64()), (Some(1), Some(1)));
    // The horizon has passed: nothing from before opens it, with everything that custodians have now.
    assert!(!comes_back(scene, &backup, &first));
    assert!(comes_back(scene, &backup, &stays), "the others are as they were");
    // What is newer: refused at once, and to be had from copies until the week's keys are gone.
    let again = erase(scene, &file(scene, vec![today])).ok().json();
    assert!(horizon(&again) > now.after(Duration::from_secs(7 * 86_400)), "{again}");
    assert!(horizon(&again) <= now.after(Duration::from_secs(15 * 86_400)), "{again}");
    assert!(comes_back(scene, &backup, &second));
    let mut objects = vec![stays.clone(), second.clone()];
    objects.sort_by_key(|object| Header::parse(object).unwrap().0.bound.id);
    let made = Made { worker: scene.certify_code(CODE), ..scene.make_of(objects) };
    for who in CUSTODIANS {
        let answer = scene.grant(who, &scene.ask(&made));
        assert!(answer.status == 403 && answer.error().contains("was erased"), "{}", answer.text());
    }
    // When these keys have gone, so has it: no custodian has moved its share.
    for who in CUSTODIANS {
        let keys = scene.system.file(&folder(who)).join("keys/regions");
        durable::rename(&keys, &scene.system.file(&format!("keys-of-{who}"))).unwrap();
        std::fs::create_dir(&keys).unwrap();
    }
    assert!(!comes_back(scene, &backup, &second) && comes_back(scene, &backup, &stays));
    // Segments that are left have neither; the receipt is in the log, and the log verifies.
    let left = left_in_vault(scene);
    assert_eq!(left.len(), 1);
    assert!(left.values().all(|object| *object == stays));
    let receipt = Bundle::parse(&std::fs::read(scene.system.file("receipt.bundle")).unwrap()).unwrap();
    let words = receipt.entries().iter().filter_map(|it| Statement::<Erasure>::decode(it.envelope.payload()).ok());
    assert_eq!(words.filter(|it| it.predicate.horizon == horizon(&again)).count(), 2);
    scene.system.beat(&crate::statement::Place::vendor());
    scene.system.beat(&crate::statement::Place::supervisor());
    let audited = scene.system.run(&["--json", "audit", "--config", "supervisor/clerestory.toml", "--state", "a.json"]);
    assert_eq!(audited.code, 0, "{audited:#?}");
}

/// Nobody moves a key or a clock: the week after a key's time ends while the test goes on.
#[test]
fn when_a_keys_time_has_passed_no_backup_brings_back_what_was_erased() {
    const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);
    let over = SystemClock::new().now().after(Duration::from_secs(40));
    let from = UnixTime::from_seconds(over.seconds() - 2 * WEEK.as_secs());
    let mut desk = running_with(&Setting { from: Some(from), ..Setting::default() });
    let scene = &mut desk.scene;
    let sealed = from.after(Duration::from_secs(3600));
    let ((owner, object), (_, stays)) = (owned(scene, sealed, "long ago"), owned(scene, sealed, "somebody else's"));
    scene.keep(&[object.clone(), stays.clone()]);
    let make = |who: &str, out: &str| {
        let config = format!("{who}/clerestory.toml");
        ["backup", "make", "--config", &config, "--out", out].map(str::to_owned)
    };
    scene.change_vendor(|system, folder| {
        system.run(&make(folder, "copy").each_ref().map(String::as_str)).ok();
    });
    start(scene);
    let (copy, backup) = (scene.system.file("copy"), scene.system.file("backup"));
    CUSTODIANS.iter().for_each(|who| copied(&scene.system.file(&folder(who)).join("table"), &backup.join(who)));
    let is_in_copy = |object: &[u8]| {
        let files = testkit::files(&copy).into_values().map(|path| std::fs::read(path).unwrap());
        files.into_iter().any(|bytes| bytes.windows(object.len()).any(|it| it == object))
    };
    let done = erase(scene, &file(scene, vec![owner])).ok().json();
    let horizon: UnixTime = done["horizon"].as_str().unwrap().parse().unwrap();
    // What is printed counts every key whose time has begun: it takes nobody's word for which one it was.
    assert!(horizon > over, "{horizon}");
    assert!(is_in_copy(&object) && !left_in_vault(scene).values().any(|it| *it == object));
    // Before: no key may go yet, and the backup's object opens.
    let destroyed = |who: &str| retire(scene, who)["destroyed"].as_array().unwrap().len();
    assert_eq!(CUSTODIANS.map(destroyed), [0, 0], "this took longer than the key had left");
    assert!(comes_back(scene, &backup, &object));
    while SystemClock::new().now() <= over {
        std::thread::park_timeout(Duration::from_secs(1));
    }
    assert_eq!(CUSTODIANS.map(destroyed), [1, 1]);
    assert!(!comes_back(scene, &backup, &object) && comes_back(scene, &backup, &stays));
}

/// Every object that is still served.
pub(crate) fn left_in_vault(scene: &Scene) -> BTreeMap<String, Vec<u8>> {
    let (address, mut chain) = (scene.system.vendor.address(), vault::Chain::new(REGION.parse().unwrap()));
    loop {
        let answer = raw::get(address, &format!("/v1/vault/{REGION}/manifests/{}", chain.next()));
        if answer.status == 404 {
            break;
        }
        chain.read(&answer.body).unwrap();
    }
    let mut left = BTreeMap::new();
    for segment in chain.segments() {
        let bytes =
            raw::get(address, &format!("/v1/vault/{REGION}/segments/{}/{}", segment.class, segment.segment)).body;
        for (kept, object) in segment.objects.iter().zip(vault::objects_of(&bytes.into()).unwrap()) {
            left.insert(kept.id.to_string(), object.to_vec());
        }
    }
    left
}

#[test]
fn nobody_erases_what_is_not_theirs() {
    let mut desk = running();
    let scene = &mut desk.scene;
    start(scene);
    let (owner, object) = owned(scene, SystemClock::new().now(), "an event");
    scene.keep(std::slice::from_ref(&object));
    let name = owner.name();
    // Somebody who has the object, its name, and a receipt for the same bytes.
    let stranger = OwnerSecret::draw(&SystemEntropy).unwrap();
    let wrong = erase(scene, &file(scene, vec![stranger])).ok().json();
    assert_eq!(wrong["erased"].as_u64(), Some(0), "it is another name, which nobody has");
    // A gateway that has it logged without the owner.
    let recorder = scene.system.key("supervisor", "recorder");
    let predicate = |position| {
        let deadline = UnixTime::from_seconds(SystemClock::new().now().seconds() + 60);
        ErasureRequest { position, region: REGION.parse().unwrap(), objects: vec![name], deadline }
    };
    let logged = scene.write("access/supervisor", |position| {
        let statement = Statement { subject: vec![custody::erasure_subject(&[name])], predicate: predicate(position) };
        super::scene::signed(statement, &recorder)
    });
    let evidence = String::from_utf8(Bundle::new(vec![logged.unwrap()]).unwrap().to_bytes()).unwrap();
    for owners in [vec![], vec![OwnerSecret::draw(&SystemEntropy).unwrap().to_text()], vec![name.to_string()]] {
        let note = api::ErasureNote { region: REGION.parse().unwrap(), evidence: evidence.clone(), owners };
        for custodian in &scene.custodians {
            let body = serde_json::to_vec(&note).unwrap();
            let answer = raw::post(custodian.address(), "/v1/custody/erasures", &body);
            assert!([403, 422].contains(&answer.status), "{}", answer.text());
        }
    }
    // Without an entry the vault deletes nothing either.
    let request = scene.request();
    let other = String::from_utf8(Bundle::new(vec![request]).unwrap().to_bytes()).unwrap();
    let body = serde_json::to_vec(&VaultErasure { evidence: other }).unwrap();
    let answer = raw::post(scene.system.vendor.address(), "/v1/vault/erasures", &body);
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert_eq!(left_in_vault(scene).len(), 1);
    // The owner does, and again: the same answer.
    let path = file(scene, vec![owner]);
    assert_eq!(erase(scene, &path).ok().json()["erased"].as_u64(), Some(1));
    assert_eq!(erase(scene, &path).ok().json()["erased"].as_u64(), Some(0));
    assert!(left_in_vault(scene).is_empty());
}
