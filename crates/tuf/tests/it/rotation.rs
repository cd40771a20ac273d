//! Keys that change: by plan, after theft, and against the rules.

use std::num::NonZeroU32;

use tuf::{Change, Error, MetaFile, Metadata, Root, Signer, Snapshot};

use crate::world::{PRODUCT, World, as_signers, days, edit, key, product, products_content, role, version};

fn sign_root(root: &Root, signers: &[&tuf::Ed25519Signer]) -> Metadata<Root> {
    Metadata::sign(root, &as_signers(signers)).unwrap()
}

#[test]
fn roots_are_followed_one_by_one() {
    let world = World::refreshed();
    for number in 2..=5 {
        world.network.put(&format!("metadata/{number}.root.json"), world.keys.root(number).bytes());
    }
    world.refresh().unwrap();
    assert_eq!(world.stored("root"), 5);
    assert_eq!(world.network.take_requests()[..5].last().unwrap(), "metadata/6.root.json");
}

#[test]
fn at_most_so_many_roots_are_followed_in_one_update() {
    let world = World::refreshed();
    for number in 2..=9 {
        world.network.put(&format!("metadata/{number}.root.json"), world.keys.root(number).bytes());
    }
    let limits = tuf::Limits { roots: 3, ..Default::default() };
    let client = tuf::Client::new(&world.store, &crate::world::SUITE, limits);
    client.refresh(&world.network, crate::world::NOW).unwrap();
    assert_eq!(world.stored("root"), 4);
}

/// 5.3.6, 5.3.10: only the last root must not have expired.
#[test]
fn an_expired_root_leads_to_the_next() {
    let world = World::refreshed();
    let mut expired = world.keys.root_content(2);
    expired.expires = days(0);
    let signers = [&world.keys.root[0], &world.keys.root[1]];
    world.network.put("metadata/2.root.json", sign_root(&expired, &signers).bytes());
    let error = world.refresh().err().unwrap();
    assert!(matches!(&error, Error::Expired { file, .. } if file == "root.json"), "{error}");
    assert_eq!(world.stored("root"), 2);
    world.network.put("metadata/3.root.json", world.keys.root(3).bytes());
    world.refresh().unwrap();
    assert_eq!(world.stored("root"), 3);
}

#[test]
fn a_new_root_needs_the_old_threshold_and_the_new() {
    let new = [key(21), key(22)];
    let old = |world: &World| {
        [world.keys.root[0].seed(), world.keys.root[1].seed()].map(|s| tuf::Ed25519Signer::from_seed(&s))
    };
    // By old and new; by too few of the old; by too few of the new.
    for (old_signers, new_signers, accepted) in [(2, 2, true), (1, 2, false), (0, 2, false), (2, 1, false)] {
        let mut world = World::refreshed();
        let old = old(&world);
        world.keys.root[0] = key(21);
        world.keys.root[1] = key(22);
        let content = world.keys.root_content(2);
        let signers: Vec<_> = old.iter().take(old_signers).chain(new.iter().take(new_signers)).collect();
        world.network.put("metadata/2.root.json", sign_root(&content, &signers).bytes());
        match world.refresh() {
            Ok(_) => assert!(accepted),
            Err(error) => {
                assert!(!accepted && matches!(error, Error::Unsigned { .. }), "{error}");
                assert_eq!(world.stored("root"), 1);
            }
        }
    }
}

/// A key must not reach a threshold of two by standing under two ids.
#[test]
fn one_key_under_two_ids_counts_once() {
    let signer = key(30);
    let world = World::new();
    let mut root = world.keys.root_content(1);
    // The same key material with one more member has another, correct id.
    let twin: tuf::PublicKey = serde_json::from_value(serde_json::json!({
        "keytype": "ed25519", "scheme": "ed25519", "note": "twin",
        "keyval": {"public": signer.public_key().public().unwrap()},
    }))
    .unwrap();
    root.roles.root.keyids = [signer.public_key().id().clone(), twin.id().clone()].into();
    root.roles.root.threshold = NonZeroU32::new(2).unwrap();
    let twin_id = twin.id().to_string();
    root.keys.insert(signer.public_key().clone());
    root.keys.insert(twin);
    let signed = sign_root(&root, &[&signer]);
    let doubled = edit(signed.bytes(), |json| {
        let mut line = json["signatures"][0].clone();
        line["keyid"] = twin_id.into();
        json["signatures"].as_array_mut().unwrap().push(line);
    });
    let store = tuf::MemoryStore::default();
    let client = tuf::Client::new(&store, &crate::world::SUITE, tuf::Limits::default());
    let error = client.create(&doubled).unwrap_err();
    assert!(matches!(&error, Error::Unsigned { signed, .. } if signed.valid == 1 && signed.threshold == 2), "{error}");
}

/// 4.3: an id must be the key's own. Such a key is no key, but the rest of the file counts.
#[test]
fn a_key_under_a_foreign_id_never_verifies() {
    let world = World::refreshed();
    let (mine, theirs) = (key(31), key(32));
    let mut root = world.keys.root_content(2);
    root.roles.timestamp.keyids = [mine.public_key().id().clone()].into();
    root.keys.insert(mine.public_key().clone());
    let json = serde_json::to_value(&root).unwrap();
    let swapped = serde_json::to_string(&json)
        .unwrap()
        .replace(mine.public_key().public().unwrap(), theirs.public_key().public().unwrap());
    let root: Root = serde_json::from_str(&swapped).unwrap();
    assert!(root.keys.get(mine.public_key().id()).is_none());
    assert!(root.keys.get(world.keys.snapshot.public_key().id()).is_some());
}

#[test]
fn a_threshold_of_zero_is_no_threshold() {
    let world = World::new();
    let zero = edit(world.keys.root(1).bytes(), |json| json["signed"]["roles"]["timestamp"]["threshold"] = 0.into());
    let error = Metadata::<Root>::parse("root.json", zero).err().unwrap();
    assert!(matches!(error, Error::Malformed { .. }), "{error}");
}

/// 5.3.11: an attacker with the online keys pushed all versions to the end; new keys undo that.
#[test]
fn new_online_keys_recover_from_a_fast_forward() {
    let mut world = World::refreshed();
    let mut far = world.repository.snapshot().content().clone();
    far.version = version(u64::MAX);
    for meta in far.meta.values_mut().filter(|meta| meta.version == version(1)) {
        *meta = MetaFile { version: version(u64::MAX), length: None, hashes: None };
    }
    world.force(&far, u64::MAX);
    // The far-away targets don't exist, but timestamp and snapshot are trusted now.
    world.refresh().err().unwrap();
    assert_eq!(world.all_stored(), [1, u64::MAX, u64::MAX, 1]);
    // The honest repository can't be heard any more ...
    world.publish_product();
    world.refresh().err().unwrap();
    // ... until root replaces the stolen keys.
    world.keys.snapshot = key(40);
    world.keys.timestamp = key(41);
    world.publish(&Change { root: Some(world.keys.root(2)), ..Change::default() });
    let trusted = world.refresh().unwrap();
    let target = trusted.find(&crate::world::path(PRODUCT)).unwrap();
    assert_eq!(trusted.fetch(&target).unwrap(), product(2));
    assert_eq!(world.all_stored(), [2, 3, 3, 1]);
}

/// One more key beside the old one is a rotation too: the old file still verifies, yet must go.
#[test]
fn a_key_added_to_the_timestamp_forgets_the_old_timestamp() {
    let world = World::refreshed();
    let snapshot = world.repository.snapshot();
    world.force_timestamp(MetaFile::of(snapshot.version(), snapshot.bytes()), 50);
    world.refresh().unwrap();
    let more = key(42);
    let mut root = world.keys.root_content(2);
    root.roles.timestamp.keyids.insert(more.public_key().id().clone());
    root.keys.insert(more.public_key().clone());
    world.network.put("metadata/2.root.json", sign_root(&root, &[&world.keys.root[0], &world.keys.root[2]]).bytes());
    world.force_timestamp(MetaFile::of(snapshot.version(), snapshot.bytes()), 2);
    world.refresh().unwrap();
    assert_eq!(world.stored("timestamp"), 2);
}

#[test]
fn a_stolen_release_key_is_replaced_by_new_targets() {
    let mut world = World::refreshed();
    let stolen = std::mem::replace(&mut world.keys.products, key(50));
    let products = Metadata::sign(&products_content(2), &[&world.keys.products]).unwrap();
    let change = Change {
        targets: Some(world.keys.targets(2)),
        delegated: [(role("products"), products)].into(),
        ..Change::default()
    };
    world.publish(&change);
    world.find(PRODUCT).unwrap();
    // The thief also holds the online keys, and still can't get anything in.
    let forged = Metadata::sign(&products_content(3), &[&stolen]).unwrap();
    world.network.put("metadata/3.products.json", forged.bytes());
    let mut snapshot = Snapshot { version: version(3), ..world.repository.snapshot().content().clone() };
    snapshot.meta.insert("products.json".to_owned(), MetaFile::of(version(3), forged.bytes()));
    world.force(&snapshot, 3);
    let error = world.find(PRODUCT).err().unwrap();
    let Error::Search { source, .. } = &error else { panic!("{error}") };
    assert!(matches!(&**source, Error::Unsigned { .. }), "{source}");
    assert_eq!(world.stored("products"), 2);
}

/// Cached metadata of a role counts only under the keys that are trusted now.
#[test]
fn cached_targets_do_not_outlive_their_keys() {
    let mut world = World::refreshed();
    world.keys.targets = key(51);
    world.network.put("metadata/2.root.json", world.keys.root(2).bytes());
    // Nobody has signed the targets again: the old file, cached or fetched, is unsigned now.
    let error = world.refresh().err().unwrap();
    assert!(matches!(&error, Error::Unsigned { file, .. } if file == "1.targets.json"), "{error}");
}

/// A store that dies before it writes a new root.
struct DiesAtRoot<'a>(&'a tuf::MemoryStore);

impl tuf::Store for DiesAtRoot<'_> {
    fn load(&self, role: &tuf::RoleName) -> Result<Option<Vec<u8>>, tuf::StoreError> {
        self.0.load(role)
    }

    fn save(&self, role: &tuf::RoleName, bytes: &[u8]) -> Result<(), tuf::StoreError> {
        if *role == tuf::RoleName::ROOT {
            return Err(tuf::StoreError(std::io::Error::other("no space left")));
        }
        self.0.save(role, bytes)
    }

    fn remove(&self, role: &tuf::RoleName) -> Result<(), tuf::StoreError> {
        self.0.remove(role)
    }
}

/// 5.3.11 is not forgotten when the client dies between the new root and the old timestamp.
#[test]
fn a_crash_during_rotation_does_not_keep_the_fast_forwarded_files() {
    let world = World::refreshed();
    let snapshot = world.repository.snapshot();
    world.force_timestamp(MetaFile::of(snapshot.version(), snapshot.bytes()), 50);
    world.refresh().unwrap();
    // The old key stays, so that only the removal lets an honest version 2 through.
    let more = key(42);
    let mut root = world.keys.root_content(2);
    root.roles.timestamp.keyids.insert(more.public_key().id().clone());
    root.keys.insert(more.public_key().clone());
    world.network.put("metadata/2.root.json", sign_root(&root, &[&world.keys.root[0], &world.keys.root[2]]).bytes());
    world.force_timestamp(MetaFile::of(snapshot.version(), snapshot.bytes()), 2);
    let dying = DiesAtRoot(&world.store);
    let client = tuf::Client::new(&dying, &crate::world::SUITE, tuf::Limits::default());
    let error = client.refresh(&world.network, crate::world::NOW).err().unwrap();
    assert!(matches!(&error, Error::Store { file, .. } if file == "root.json"), "{error}");
    assert_eq!(world.stored("root"), 1);
    world.refresh().unwrap();
    assert_eq!((world.stored("root"), world.stored("timestamp")), (2, 2));
}
