//! The workflow as it should go, and how it goes on after it was cut short.

use tuf::{Change, Error, FolderFetch, FolderStore, Limits, MemoryStore};

use crate::world::{NOW, PRODUCT, SUITE, World, days, edit, path, product, role};

#[test]
fn a_first_refresh_reads_each_file_once() {
    let world = World::new();
    world.refresh().unwrap();
    let expected =
        ["metadata/2.root.json", "metadata/timestamp.json", "metadata/1.snapshot.json", "metadata/1.targets.json"];
    assert_eq!(world.network.take_requests(), expected);
    assert_eq!(world.all_stored(), [1, 1, 1, 1]);
}

#[test]
fn without_news_only_root_and_timestamp_are_asked_for() {
    let world = World::refreshed();
    world.refresh().unwrap();
    assert_eq!(world.network.take_requests(), ["metadata/2.root.json", "metadata/timestamp.json"]);
}

#[test]
fn a_target_is_found_through_its_delegation_and_fetched_by_its_hash() {
    let mut world = World::refreshed();
    world.publish_product();
    let trusted = world.refresh().unwrap();
    let target = trusted.find(&path(PRODUCT)).unwrap();
    assert_eq!(target.role(), &role("products"));
    assert_eq!(trusted.fetch(&target).unwrap(), product(2));
    assert!(trusted.matches(&target, &product(2)));
    assert!(!trusted.matches(&target, &product(1)));
    let digest = target.file().hashes.sha256().unwrap();
    let last = world.network.take_requests().pop().unwrap();
    assert_eq!(last, format!("targets/products/scanner/{digest}.scanner.tar"));
}

/// 5: an error leaves what was verified before it, and the next update goes on from there.
#[test]
fn an_update_that_was_cut_short_is_finished_by_the_next() {
    let mut world = World::refreshed();
    world.publish_product();
    let change = Change { targets: Some(world.keys.targets(2)), ..Change::default() };
    world.publish(&change);
    for (broken, stored) in [
        ("metadata/timestamp.json", [1, 1, 1, 1]),
        ("metadata/3.snapshot.json", [1, 3, 1, 1]),
        ("metadata/2.targets.json", [1, 3, 3, 1]),
    ] {
        world.network.broken.replace(Some(broken.to_owned()));
        let error = world.refresh().err().unwrap();
        assert!(matches!(&error, Error::Fetch { .. }) && error.is_temporary(), "{broken}: {error}");
        assert_eq!(world.all_stored(), stored, "{broken}");
    }
    world.network.broken.replace(None);
    world.refresh().unwrap();
    assert_eq!(world.all_stored(), [1, 3, 3, 2]);
}

#[test]
fn metadata_is_stored_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new();
    let store = FolderStore::open(folder.path()).unwrap();
    let client = tuf::Client::new(&store, &SUITE, Limits::default());
    client.create(world.keys.root(1).bytes()).unwrap();
    // White space around it changes neither meaning nor signature.
    let mut timestamp = world.network.get("metadata/timestamp.json");
    timestamp.extend_from_slice(b" \n\n");
    world.network.put("metadata/timestamp.json", timestamp.clone());
    client.refresh(&world.network, NOW).unwrap().find(&path(PRODUCT)).unwrap();
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert_eq!(read("timestamp.json"), timestamp);
    assert_eq!(read("root.json"), world.network.get("metadata/1.root.json"));
    assert_eq!(read("snapshot.json"), world.network.get("metadata/1.snapshot.json"));
    assert_eq!(read("targets.json"), world.network.get("metadata/1.targets.json"));
    assert_eq!(read("products.json"), world.network.get("metadata/1.products.json"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 5);
}

#[test]
fn what_was_cached_serves_offline_until_it_expires() {
    let world = World::refreshed();
    world.find(PRODUCT).unwrap();
    let trusted = world.client().cached(NOW).unwrap();
    assert_eq!(trusted.find(&path(PRODUCT)).unwrap().path(), &path(PRODUCT));
    // `rules` was never needed, so it was never fetched.
    let error = trusted.find(&path("rules/all")).err().unwrap();
    assert!(matches!(error, Error::Search { .. }), "{error}");
    let error = world.client().cached(days(1)).err().unwrap();
    assert!(matches!(&error, Error::Expired { file, .. } if file == "timestamp.json"), "{error}");
}

#[test]
fn an_expired_root_ends_offline_use_too() {
    let world = World::refreshed();
    let hour = |count: u64| NOW.after(std::time::Duration::from_secs(count * 3600));
    let mut root = world.keys.root_content(2);
    root.expires = hour(2);
    let root = tuf::Metadata::sign(&root, &[&world.keys.root[0], &world.keys.root[1]]).unwrap();
    world.network.put("metadata/2.root.json", root.bytes());
    world.refresh().unwrap();
    world.client().cached(hour(1)).unwrap();
    let error = world.client().cached(hour(2)).err().unwrap();
    assert!(matches!(&error, Error::Expired { file, .. } if file == "root.json"), "{error}");
}

#[test]
fn a_store_without_root_trusts_nobody() {
    let world = World::new();
    let store = MemoryStore::default();
    let client = tuf::Client::new(&store, &SUITE, Limits::default());
    assert!(matches!(client.refresh(&world.network, NOW).err().unwrap(), Error::NoRoot));
    assert!(matches!(client.cached(NOW).err().unwrap(), Error::NoRoot));
    assert_eq!(world.network.take_requests(), Vec::<String>::new());
}

#[test]
fn a_client_is_set_up_once_and_only_with_a_signed_root() {
    let world = World::new();
    assert!(matches!(world.client().create(world.keys.root(1).bytes()).unwrap_err(), Error::RootExists));
    let store = MemoryStore::default();
    let client = tuf::Client::new(&store, &SUITE, Limits::default());
    let one = tuf::Metadata::sign(&world.keys.root_content(1), &[&world.keys.root[0]]).unwrap();
    let error = client.create(one.bytes()).unwrap_err();
    assert!(matches!(&error, Error::Unsigned { signed, .. } if signed.valid == 1), "{error}");
    assert!(matches!(client.create(b"{}").unwrap_err(), Error::Malformed { .. }));
    assert!(matches!(client.refresh(&world.network, NOW).err().unwrap(), Error::NoRoot));
}

#[test]
fn a_repository_in_a_folder_serves_a_stick() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new();
    for (name, bytes) in world.network.files.borrow().iter() {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        stdx::durable::write(&path, bytes).unwrap();
    }
    let stick = FolderFetch::new(folder.path());
    let trusted = world.client().refresh(&stick, NOW).unwrap();
    let target = trusted.find(&path(PRODUCT)).unwrap();
    assert_eq!(trusted.fetch(&target).unwrap(), product(1));
}

/// What stands in the store counts only as far as the trusted root's keys signed it.
#[test]
fn a_stored_file_that_nobody_signed_bounds_nothing() {
    let world = World::refreshed();
    let stored = tuf::Store::load(&world.store, &role("timestamp")).unwrap().unwrap();
    for spoiled in [edit(&stored, |json| json["signed"]["version"] = 99.into()), b"\0\0\0".to_vec()] {
        tuf::Store::save(&world.store, &role("timestamp"), &spoiled).unwrap();
        let error = world.client().cached(NOW).err().unwrap();
        assert!(matches!(&error, Error::Fetch { file, .. } if file == "timestamp.json"), "{error}");
        world.refresh().unwrap();
        assert_eq!(world.stored("timestamp"), 1);
    }
}
