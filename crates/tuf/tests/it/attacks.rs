//! The attacks of the specification's section 1.5.2, each with real keys.

use tuf::{Error, MetaFile, Metadata, Snapshot, Timestamp, TimestampMeta};

use crate::world::{PRODUCT, World, days, edit, path, products_content, role, version};

fn rolled_back(error: &Error, name: &str) -> bool {
    matches!(error, Error::Rollback { file, .. } if file == name)
}

// Rollback.

#[test]
fn a_root_must_be_the_very_next_version() {
    for number in [1, 3] {
        let world = World::refreshed();
        world.network.put("metadata/2.root.json", world.keys.root(number).bytes());
        let error = world.refresh().err().unwrap();
        assert!(matches!(&error, Error::OtherVersion { file, .. } if file == "2.root.json"), "{error}");
        assert_eq!(world.stored("root"), 1);
    }
}

#[test]
fn an_older_timestamp_is_refused() {
    let mut world = World::refreshed();
    let old = world.network.get("metadata/timestamp.json");
    world.publish_product();
    world.refresh().unwrap();
    world.network.put("metadata/timestamp.json", old);
    let error = world.refresh().err().unwrap();
    assert!(rolled_back(&error, "timestamp.json"), "{error}");
    assert_eq!(world.all_stored(), [1, 2, 2, 1]);
}

#[test]
fn a_newer_timestamp_with_an_older_snapshot_is_refused() {
    let mut world = World::refreshed();
    world.publish_product();
    world.refresh().unwrap();
    world.force(&Snapshot { version: version(1), ..world.repository.snapshot().content().clone() }, 3);
    let error = world.refresh().err().unwrap();
    assert!(rolled_back(&error, "snapshot.json"), "{error}");
    assert_eq!(world.all_stored(), [1, 2, 2, 1]);
}

#[test]
fn a_newer_snapshot_with_older_targets_is_refused() {
    let mut world = World::refreshed();
    world.publish(&tuf::Change { targets: Some(world.keys.targets(2)), ..Default::default() });
    world.publish_product();
    world.refresh().unwrap();
    for (name, number) in [("targets.json", 4), ("products.json", 5)] {
        let mut snapshot = Snapshot { version: version(number), ..world.repository.snapshot().content().clone() };
        snapshot.meta.get_mut(name).unwrap().version = version(1);
        world.force(&snapshot, number);
        let error = world.refresh().err().unwrap();
        assert!(rolled_back(&error, name), "{error}");
        assert_eq!(world.stored("snapshot"), 3);
    }
}

#[test]
fn a_snapshot_must_list_what_it_once_listed() {
    let world = World::refreshed();
    let mut snapshot = Snapshot { version: version(2), ..world.repository.snapshot().content().clone() };
    snapshot.meta.remove("rules.json");
    world.force(&snapshot, 2);
    let error = world.refresh().err().unwrap();
    assert!(matches!(&error, Error::Unlisted(file) if file == "rules.json"), "{error}");
    assert_eq!(world.stored("snapshot"), 1);
}

/// 5.4.3.1: the same version is no news, whatever it says.
#[test]
fn a_second_timestamp_of_one_version_is_ignored() {
    let world = World::refreshed();
    world.force_timestamp(MetaFile { version: version(9), length: None, hashes: None }, 1);
    let trusted = world.refresh().unwrap();
    assert_eq!(trusted.timestamp().content().meta.snapshot.version, version(1));
}

// Freeze.

#[test]
fn each_file_expires() {
    // The timestamp after a day; then, with a fresh timestamp or snapshot too, the others.
    for (day, name, timestamp, snapshot) in [
        (1, "timestamp.json", false, false),
        (7, "snapshot.json", true, false),
        (180, "targets.json", true, true),
        (365, "root.json", true, true),
    ] {
        let world = World::refreshed();
        let content = world.repository.snapshot().content().clone();
        let content = if snapshot { Snapshot { version: version(2), expires: days(1000), ..content } } else { content };
        let signed = Metadata::sign(&content, &[&world.keys.snapshot]).unwrap();
        if timestamp {
            world.network.put(&format!("metadata/{}.snapshot.json", signed.version()), signed.bytes());
            let meta = TimestampMeta { snapshot: MetaFile::of(signed.version(), signed.bytes()) };
            let content = Timestamp { version: version(2), expires: days(1000), meta };
            let timestamp = Metadata::sign(&content, &[&world.keys.timestamp]).unwrap();
            world.network.put("metadata/timestamp.json", timestamp.bytes());
        }
        let error = world.refresh_at(days(day)).err().unwrap();
        assert!(matches!(&error, Error::Expired { file, .. } if file == name), "{name}: {error}");
        // One second earlier it was good (but the root outlives the targets).
        let before = stdx::UnixTime::from_seconds(days(day).seconds() - 1);
        match world.refresh_at(before) {
            Ok(_) => assert_ne!(name, "root.json"),
            Err(error) => assert!(matches!(&error, Error::Expired { file, .. } if file == "targets.json"), "{error}"),
        }
    }
}

#[test]
fn an_expired_file_is_not_stored() {
    let world = World::new();
    let error = world.refresh_at(days(7)).err().unwrap();
    assert!(matches!(&error, Error::Expired { file, .. } if file == "timestamp.json"), "{error}");
    assert_eq!(world.all_stored(), [1, 0, 0, 0]);
}

#[test]
fn an_expired_delegation_ends_the_search() {
    let world = World::refreshed();
    let mut products = products_content(2);
    products.expires = days(0);
    let products = Metadata::sign(&products, &[&world.keys.products]).unwrap();
    world.force_targets(&world.keys.targets_content(2), &[("products", &products)]);
    let error = world.find(PRODUCT).err().unwrap();
    let Error::Search { source, .. } = &error else { panic!("{error}") };
    assert!(matches!(&**source, Error::Expired { .. }), "{source}");
    assert_eq!(world.stored("products"), 0);
}

// Mix and match.

#[test]
fn a_file_of_another_snapshot_is_refused() {
    let mut world = World::refreshed();
    world.publish(&tuf::Change { targets: Some(world.keys.targets(2)), ..Default::default() });
    for (name, old) in [("2.snapshot.json", "1.snapshot.json"), ("2.targets.json", "1.targets.json")] {
        let right = world.network.get(&format!("metadata/{name}"));
        world.network.put(&format!("metadata/{name}"), world.network.get(&format!("metadata/{old}")));
        let error = world.refresh().err().unwrap();
        assert!(matches!(&error, Error::OtherContent(file) if file == name), "{error}");
        world.network.put(&format!("metadata/{name}"), right);
    }
    world.refresh().unwrap();
}

/// Without lengths and hashes the versions alone must match.
#[test]
fn a_version_without_hashes_must_match_too() {
    let world = World::refreshed();
    world.network.put("metadata/2.snapshot.json", world.network.get("metadata/1.snapshot.json"));
    world.force_timestamp(MetaFile { version: version(2), length: None, hashes: None }, 2);
    let error = world.refresh().err().unwrap();
    assert!(matches!(&error, Error::OtherVersion { file, .. } if file == "2.snapshot.json"), "{error}");
}

#[test]
fn a_listed_length_must_match_without_hashes_too() {
    let world = World::refreshed();
    let content = Snapshot { version: version(2), ..world.repository.snapshot().content().clone() };
    let snapshot = Metadata::sign(&content, &[&world.keys.snapshot]).unwrap();
    world.network.put("metadata/2.snapshot.json", snapshot.bytes());
    let length = snapshot.bytes().len() as u64;
    world.force_timestamp(MetaFile { version: version(2), length: Some(length + 1), hashes: None }, 2);
    let error = world.refresh().err().unwrap();
    assert!(matches!(&error, Error::OtherContent(file) if file == "2.snapshot.json"), "{error}");
    world.force_timestamp(MetaFile { version: version(2), length: Some(length), hashes: None }, 3);
    world.refresh().unwrap();
}

/// Two files of one version and one signer: only the one whose hash is listed counts.
#[test]
fn a_second_file_of_one_version_is_refused() {
    let world = World::refreshed();
    let mut other = products_content(1);
    other.expires = days(91);
    let other = Metadata::sign(&other, &[&world.keys.products]).unwrap();
    world.network.put("metadata/1.products.json", other.bytes());
    let error = world.find(PRODUCT).err().unwrap();
    let Error::Search { source, .. } = &error else { panic!("{error}") };
    assert!(matches!(&**source, Error::OtherContent(_)), "{source}");
}

// Fast-forward; recovery from it is in `rotation`.

#[test]
fn a_fast_forwarded_timestamp_stays_until_the_keys_change() {
    let world = World::refreshed();
    let snapshot = world.repository.snapshot();
    world.force_timestamp(MetaFile::of(snapshot.version(), snapshot.bytes()), u64::MAX);
    world.refresh().unwrap();
    world.force_timestamp(MetaFile::of(snapshot.version(), snapshot.bytes()), 2);
    let error = world.refresh().err().unwrap();
    assert!(rolled_back(&error, "timestamp.json"), "{error}");
}

// Endless data.

#[test]
fn no_file_is_read_past_its_limit() {
    let mut world = World::refreshed();
    world.publish(&tuf::Change { targets: Some(world.keys.targets(2)), ..Default::default() });
    let snapshot_bytes = world.network.get("metadata/2.snapshot.json").len() as u64;
    let targets_bytes = world.network.get("metadata/2.targets.json").len() as u64;
    for (name, limit) in [
        ("2.root.json", 512 << 10),
        ("timestamp.json", 16 << 10),
        ("2.snapshot.json", snapshot_bytes),
        ("2.targets.json", targets_bytes),
    ] {
        world.network.endless.replace(Some(format!("metadata/{name}")));
        world.network.endless_read.set(0);
        let error = world.refresh().err().unwrap();
        assert!(matches!(&error, Error::TooLong { file, max } if file == name && *max == limit), "{error}");
        assert_eq!(world.network.endless_read.get(), limit + 1, "{name}");
    }
}

/// A stolen online key must not be able to announce a huge file either.
#[test]
fn a_signed_length_past_the_limit_is_not_even_asked_for() {
    let world = World::refreshed();
    let hashes = Some(tuf::Hashes::of(b""));
    world.force_timestamp(MetaFile { version: version(2), length: Some(1 << 40), hashes }, 2);
    let error = world.refresh().err().unwrap();
    assert!(matches!(&error, Error::TooLong { max, .. } if *max == 4 << 20), "{error}");
    assert_eq!(world.network.take_requests().last().unwrap(), "metadata/timestamp.json");
}

#[test]
fn an_endless_target_is_cut_off() {
    let world = World::refreshed();
    let trusted = world.refresh().unwrap();
    let target = trusted.find(&path(PRODUCT)).unwrap();
    let location = tuf::Repository::location(&path(PRODUCT), target.file());
    world.network.endless.replace(Some(location.to_string()));
    let mut written = Vec::new();
    let error = trusted.fetch_into(&target, &mut written).unwrap_err();
    assert!(matches!(error, Error::OtherContent(_)), "{error}");
    assert_eq!(world.network.endless_read.get(), target.file().length + 1);
    assert_eq!(written, b"", "nothing past the announced length is written");
}

// Arbitrary software: the wrong keys, too few, the same twice.

#[test]
fn another_roles_key_does_not_count() {
    let mut world = World::refreshed();
    let snapshot = world.repository.snapshot();
    let meta = TimestampMeta { snapshot: MetaFile::of(snapshot.version(), snapshot.bytes()) };
    let content = Timestamp { version: version(2), expires: days(1), meta };
    let forged = Metadata::sign(&content, &[&world.keys.snapshot, &world.keys.root[0]]).unwrap();
    world.network.put("metadata/timestamp.json", forged.bytes());
    let error = world.refresh().err().unwrap();
    assert!(matches!(&error, Error::Unsigned { signed, .. } if signed.valid == 0), "{error}");
    // `rules` may not sign for `products`.
    world.publish_product();
    let forged = Metadata::sign(&products_content(3), &[&world.keys.rules]).unwrap();
    world.force_targets(&world.keys.targets_content(2), &[("products", &forged)]);
    let error = world.find(PRODUCT).err().unwrap();
    let Error::Search { role: ended, source } = &error else { panic!("{error}") };
    assert_eq!(ended, &role("products"));
    assert!(matches!(&**source, Error::Unsigned { signed, .. } if signed.valid == 0), "{source}");
}

#[test]
fn a_changed_byte_breaks_each_signature() {
    let world = World::new();
    let right = world.network.get("metadata/timestamp.json");
    let text = String::from_utf8(right.clone()).unwrap();
    let place = text.find("\"length\":").unwrap() + "\"length\":".len();
    let mut changed = right;
    changed[place] = if changed[place] == b'9' { b'8' } else { changed[place] + 1 };
    world.network.put("metadata/timestamp.json", changed);
    let error = world.refresh().err().unwrap();
    assert!(matches!(&error, Error::Unsigned { .. }), "{error}");
}

#[test]
fn a_file_of_one_kind_is_no_file_of_another() {
    let world = World::new();
    world.network.put("metadata/timestamp.json", world.network.get("metadata/1.snapshot.json"));
    let error = world.refresh().err().unwrap();
    assert!(matches!(&error, Error::Malformed { reason, .. } if reason.contains("_type")), "{error}");
}

#[test]
fn one_signature_twice_is_refused() {
    let world = World::new();
    let twice = edit(&world.network.get("metadata/1.root.json"), |json| {
        let signatures = json["signatures"].as_array_mut().unwrap();
        signatures[1] = signatures[0].clone();
    });
    let error = Metadata::<tuf::Root>::parse("root.json", twice).err().unwrap();
    assert!(matches!(&error, Error::Malformed { reason, .. } if reason.contains("keyid")), "{error}");
}

#[test]
fn a_bad_signature_does_not_spoil_the_good_ones() {
    let world = World::new();
    for bad in ["", "zz", "00"] {
        let root = edit(&world.network.get("metadata/1.root.json"), |json| {
            let id = world.keys.root[2].key_id();
            let line = serde_json::json!({"keyid": id, "sig": bad});
            json["signatures"].as_array_mut().unwrap().push(line);
        });
        let store = tuf::MemoryStore::default();
        tuf::Client::new(&store, &crate::world::SUITE, tuf::Limits::default()).create(&root).unwrap();
    }
}

trait KeyIdText {
    fn key_id(&self) -> String;
}

impl KeyIdText for tuf::Ed25519Signer {
    fn key_id(&self) -> String {
        tuf::Signer::public_key(self).id().to_string()
    }
}

/// 4.3: another major version may mean something else by the same members.
#[test]
fn another_major_version_is_refused() {
    let root = World::new().network.get("metadata/1.root.json");
    for (spec_version, accepted) in
        [("1", true), ("1.0", true), ("1.9.9", true), ("2.0.0", false), ("10", false), ("", false)]
    {
        let root = edit(&root, |json| json["signed"]["spec_version"] = spec_version.into());
        assert_eq!(Metadata::<tuf::Root>::parse("root.json", root).is_ok(), accepted, "{spec_version}");
    }
}
