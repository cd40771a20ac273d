//! The repository's side: order, and what it refuses to publish.

use tuf::{Change, Error, Location, Metadata, PublishError, Repository, RoleName, Targets};

use crate::world::{
    Keys, NOW, PRODUCT, SUITE, World, days, first_change, key, online, path, product, products_content, role, version,
};

fn names(files: &[tuf::PublishedFile]) -> Vec<String> {
    files.iter().map(|file| file.location.to_string()).collect()
}

#[test]
fn what_nothing_refers_to_comes_first_and_the_timestamp_last() {
    let keys = Keys::new();
    let (_, files) = Repository::create(first_change(&keys), online(&keys.online()), &SUITE, NOW).unwrap();
    let digest = stdx::Digest::of(&product(1));
    assert_eq!(
        names(&files),
        [
            &format!("targets/products/scanner/{digest}.scanner.tar"),
            "metadata/1.products.json",
            "metadata/1.rules.json",
            "metadata/1.targets.json",
            "metadata/1.snapshot.json",
            "metadata/1.root.json",
            "metadata/timestamp.json",
        ]
    );
}

/// A client that comes between any two writes sees the old state or the new one.
#[test]
fn every_moment_of_a_publication_is_consistent() {
    let mut world = World::refreshed();
    let products = Metadata::sign(&products_content(2), &[&world.keys.products]).unwrap();
    let change = Change {
        root: Some(world.keys.root(2)),
        targets: Some(world.keys.targets(2)),
        delegated: [(role("products"), products)].into(),
        artifacts: [(path(PRODUCT), product(2))].into(),
    };
    let online_keys = world.keys.online();
    let files = world.repository.publish(&change, online(&online_keys), &SUITE, NOW).unwrap();
    let count = files.len();
    for (position, file) in files.into_iter().enumerate() {
        world.network.write(vec![file]);
        let trusted = world.refresh().unwrap();
        let target = trusted.find(&path(PRODUCT)).unwrap();
        let expected = if position + 1 < count { product(1) } else { product(2) };
        assert_eq!(trusted.fetch(&target).unwrap(), expected, "after file {position}");
    }
}

#[test]
fn a_repository_reads_itself_back_even_when_it_has_expired() {
    let mut world = World::refreshed();
    world.publish_product();
    world.network.put("metadata/2.root.json", world.keys.root(2).bytes());
    let mut again = Repository::open(world.keys.root(1).bytes(), &world.network, &SUITE).unwrap();
    assert_eq!(again.root().version(), version(2));
    assert_eq!(again.timestamp().bytes(), world.repository.timestamp().bytes());
    assert_eq!(again.delegated(&role("products")).unwrap().version(), version(2));
    let online_keys = world.keys.online();
    let files = again.publish(&Change::default(), online(&online_keys), &SUITE, NOW).unwrap();
    world.network.write(files);
    assert_eq!(world.refresh().unwrap().timestamp().version(), version(3));
}

#[test]
fn a_heartbeat_is_a_new_timestamp_alone() {
    let mut world = World::refreshed();
    let online_keys = world.keys.online();
    let mut keys = online(&online_keys);
    keys.timestamp_expires = days(3);
    let files = world.repository.renew(keys, &SUITE, NOW).unwrap();
    assert_eq!(names(&files), ["metadata/timestamp.json"]);
    world.network.write(files);
    world.refresh_at(days(2)).unwrap();
}

#[test]
fn a_root_is_signed_by_one_organisation_after_the_other() {
    let keys = Keys::new();
    let mut root = Metadata::sign(&keys.root_content(1), &[&keys.root[0]]).unwrap();
    let authority = |root: &Metadata<tuf::Root>| {
        let authority = tuf::Authority { keys: &root.content().keys, role: &root.content().roles.root };
        root.signed_by(authority, &SUITE)
    };
    assert!(!authority(&root).is_enough());
    // The file travels to the next organisation, which sees what it signs.
    root = Metadata::parse("root.json", root.bytes().to_vec()).unwrap();
    root.add_signature(&keys.root[2]).unwrap();
    assert!(authority(&root).is_enough());
    root.add_signature(&keys.root[2]).unwrap();
    assert_eq!(authority(&root).valid, 2);
}

/// 4: members that we don't know are kept when a signature is added.
#[test]
fn unknown_members_survive_a_signature() {
    let keys = Keys::new();
    let plain = Metadata::sign(&keys.root_content(1), &[]).unwrap();
    let extended = crate::world::edit(plain.bytes(), |json| json["signed"]["x-note"] = "kept".into());
    let mut root = Metadata::<tuf::Root>::parse("root.json", extended).unwrap();
    root.add_signature(&keys.root[0]).unwrap();
    root.add_signature(&keys.root[1]).unwrap();
    assert!(String::from_utf8(root.bytes().to_vec()).unwrap().contains(r#""x-note":"kept""#));
    let store = tuf::MemoryStore::default();
    tuf::Client::new(&store, &SUITE, tuf::Limits::default()).create(root.bytes()).unwrap();
}

fn refused(change: &Change) -> PublishError {
    let mut world = World::new();
    let before = world.repository.timestamp().bytes().to_vec();
    let online_keys = world.keys.online();
    let error = world.repository.publish(change, online(&online_keys), &SUITE, NOW).unwrap_err();
    assert_eq!(world.repository.timestamp().bytes(), before, "a refusal changes nothing");
    error
}

fn products(number: u64, signer: &tuf::Ed25519Signer, content: &Targets) -> Change {
    let metadata = Metadata::sign(&Targets { version: version(number), ..content.clone() }, &[signer]).unwrap();
    Change { delegated: [(role("products"), metadata)].into(), ..Change::default() }
}

#[test]
fn what_clients_would_refuse_is_not_published() {
    let keys = Keys::new();
    let content = products_content(2);
    let is_refused = |change: &Change| match refused(change) {
        PublishError::Refused(error) => error,
        other => panic!("{other}"),
    };
    // Not the next version.
    for number in [1, 3] {
        assert!(matches!(is_refused(&products(number, &keys.products, &content)), Error::OtherVersion { .. }));
    }
    // Signed by a stranger; expired.
    assert!(matches!(is_refused(&products(2, &key(99), &content)), Error::Unsigned { .. }));
    let expired = Targets { expires: NOW, ..content };
    assert!(matches!(is_refused(&products(2, &keys.products, &expired)), Error::Expired { .. }));
    // A root by one organisation alone.
    let alone = Metadata::sign(&keys.root_content(2), &[&keys.root[0]]).unwrap();
    assert!(matches!(is_refused(&Change { root: Some(alone), ..Change::default() }), Error::Unsigned { .. }));
    // A root that hands over to strangers, whom the old keys didn't name.
    let strangers = Keys { root: [key(95), key(96), key(97)], ..Keys::new() }.root(2);
    assert!(matches!(is_refused(&Change { root: Some(strangers), ..Change::default() }), Error::Unsigned { .. }));
    // New targets keys in root, but targets by the old ones.
    let rotated = Keys { targets: key(98), ..Keys::new() }.root(2);
    assert!(matches!(is_refused(&Change { root: Some(rotated), ..Change::default() }), Error::Unsigned { .. }));
}

#[test]
fn what_makes_no_sense_is_not_published() {
    let keys = Keys::new();
    let stranger = Metadata::sign(&Targets::new(version(1), days(9)), &[&keys.products]).unwrap();
    let change = Change { delegated: [(role("stranger"), stranger)].into(), ..Change::default() };
    assert!(matches!(refused(&change), PublishError::Undelegated(name) if name == role("stranger")));

    let change = Change { artifacts: [(path("products/x/y"), b"?".to_vec())].into(), ..Change::default() };
    assert!(matches!(refused(&change), PublishError::Undescribed(_)));
    let change = Change { artifacts: [(path(PRODUCT), product(2))].into(), ..Change::default() };
    assert!(matches!(refused(&change), PublishError::Undescribed(_)));

    let more = keys.targets_content(2).with_delegation(
        role("more"),
        crate::world::signers(&crate::world::public(&[&keys.products]), 1),
        tuf::Paths::Nothing,
    );
    let change = Change { targets: Some(keys.sign_targets(&more)), ..Change::default() };
    assert!(matches!(refused(&change), PublishError::NoMetadata(name) if name == role("more")));

    let mut plain = keys.root_content(2);
    plain.consistent_snapshot = false;
    let plain = Metadata::sign(&plain, &[&keys.root[0], &keys.root[1]]).unwrap();
    assert!(matches!(refused(&Change { root: Some(plain), ..Change::default() }), PublishError::NotConsistent));

    let incomplete = Change { targets: None, ..first_change(&keys) };
    let created = Repository::create(incomplete, online(&keys.online()), &SUITE, NOW);
    assert!(matches!(created.unwrap_err(), PublishError::Incomplete));
}

#[test]
fn a_new_repository_needs_a_root_that_its_own_keys_signed() {
    let keys = Keys::new();
    let alone = Metadata::sign(&keys.root_content(1), &[&keys.root[0]]).unwrap();
    let change = Change { root: Some(alone), ..first_change(&keys) };
    let created = Repository::create(change, online(&keys.online()), &SUITE, NOW);
    assert!(matches!(created.unwrap_err(), PublishError::Refused(Error::Unsigned { .. })));
}

/// 5.5.5: clients refuse a snapshot that forgets a role.
#[test]
fn a_role_that_left_stays_listed() {
    let mut world = World::refreshed();
    let mut targets = world.keys.targets_content(2);
    targets.delegations.as_mut().unwrap().roles.retain(|role| role.name.as_str() != "rules");
    world.publish(&Change { targets: Some(world.keys.sign_targets(&targets)), ..Change::default() });
    let trusted = world.refresh().unwrap();
    assert!(trusted.snapshot().content().of(&role("rules")).is_some());
    assert!(world.repository.delegated(&role("rules")).is_none());
}

/// The rules lane asleep must not hold up the product lane.
#[test]
fn an_expired_delegation_does_not_hold_up_the_others() {
    let mut world = World::refreshed();
    let now = days(31);
    let keys = world.keys.online();
    let online_keys = tuf::OnlineKeys { snapshot_expires: days(60), timestamp_expires: days(40), ..online(&keys) };
    let products = Metadata::sign(&products_content(2), &[&world.keys.products]).unwrap();
    let change = Change { delegated: [(role("products"), products)].into(), ..Change::default() };
    let files = world.repository.publish(&change, online_keys, &SUITE, now).unwrap();
    world.network.write(files);
    world.refresh_at(now).unwrap().find(&path(PRODUCT)).unwrap();
}

/// A signer whose signature doesn't verify, as of a broken HSM.
#[test]
fn a_wrong_signature_does_not_leave() {
    #[derive(Debug)]
    struct Broken(tuf::Ed25519Signer);
    impl tuf::Signer for Broken {
        fn public_key(&self) -> &tuf::PublicKey {
            self.0.public_key()
        }
        fn sign(&self, message: &[u8]) -> Result<Vec<u8>, tuf::SignError> {
            let mut signature = self.0.sign(message)?;
            signature[7] ^= 1;
            Ok(signature)
        }
    }
    let keys = Keys::new();
    let error = Metadata::sign(&keys.root_content(1), &[&Broken(key(1))]).err().unwrap();
    assert!(matches!(error, tuf::SignError::Wrong(_)), "{error}");
}

#[test]
fn locations_are_below_two_folders() {
    assert_eq!(Location::Metadata(RoleName::TIMESTAMP.file_name()).to_string(), "metadata/timestamp.json");
}
