//! Downloads of targets that are not what was signed, and paths that are no paths.

use tuf::{Error, Hashes, Limits, Metadata, TargetFile, TargetPath, Targets};

use crate::world::{NOW, PRODUCT, SUITE, World, days, path, version};

fn location(world: &World) -> String {
    let target = world.find(PRODUCT).unwrap();
    tuf::Repository::location(target.path(), target.file()).to_string()
}

#[test]
fn other_content_is_refused() {
    let world = World::refreshed();
    let location = location(&world);
    let right = world.network.get(&location);
    let mut flipped = right.clone();
    flipped[0] ^= 1;
    let longer = [&right[..], b"x"].concat();
    for wrong in [flipped, longer, right[..right.len() - 1].to_vec(), Vec::new()] {
        world.network.put(&location, wrong);
        let trusted = world.refresh().unwrap();
        let target = trusted.find(&path(PRODUCT)).unwrap();
        assert!(matches!(trusted.fetch(&target).unwrap_err(), Error::OtherContent(_)));
    }
    world.network.put(&location, right);
    let trusted = world.refresh().unwrap();
    trusted.fetch(&trusted.find(&path(PRODUCT)).unwrap()).unwrap();
}

#[test]
fn a_missing_target_is_told_from_an_unknown_one() {
    let world = World::refreshed();
    let location = location(&world);
    world.network.files.borrow_mut().remove(&location);
    let trusted = world.refresh().unwrap();
    let target = trusted.find(&path(PRODUCT)).unwrap();
    assert!(matches!(trusted.fetch(&target).unwrap_err(), Error::Fetch { .. }));
    assert!(matches!(trusted.find(&path("nothing")).unwrap_err(), Error::UnknownTarget(_)));
}

/// A hash that we can't calculate proves nothing.
#[test]
fn a_target_without_a_known_hash_is_refused_unread() {
    let world = World::refreshed();
    let hashes: Hashes = serde_json::from_str(r#"{"md5": "d41d8cd98f00b204e9800998ecf8427e"}"#).unwrap();
    let file = TargetFile { length: 0, hashes, custom: None };
    let targets = Targets::new(version(2), days(10)).with_target(&path("x"), file);
    world.force_targets(&targets, &[]);
    let trusted = world.refresh().unwrap();
    let target = trusted.find(&path("x")).unwrap();
    world.network.take_requests();
    assert!(matches!(trusted.fetch(&target).unwrap_err(), Error::OtherContent(_)));
    assert!(!trusted.matches(&target, b""));
    assert_eq!(world.network.take_requests(), Vec::<String>::new());
}

/// An unknown hash beside a known one is no obstacle, and no escape.
#[test]
fn every_known_hash_must_match() {
    let world = World::refreshed();
    let sha256 = stdx::Digest::of(b"content");
    let hashes: Hashes = serde_json::from_str(&format!(r#"{{"blake9": "00", "sha256": "{sha256}"}}"#)).unwrap();
    let file = TargetFile { length: 7, hashes, custom: None };
    world.force_targets(&Targets::new(version(2), days(10)).with_target(&path("a/x"), file), &[]);
    let trusted = world.refresh().unwrap();
    let target = trusted.find(&path("a/x")).unwrap();
    world.network.put(&format!("targets/a/{sha256}.x"), *b"content");
    assert_eq!(trusted.fetch(&target).unwrap(), b"content");
    world.network.put(&format!("targets/a/{sha256}.x"), *b"CONTENT");
    assert!(matches!(trusted.fetch(&target).unwrap_err(), Error::OtherContent(_)));
}

#[test]
fn a_target_past_the_limit_is_not_asked_for() {
    let world = World::refreshed();
    let limits = Limits { target_bytes: 3, ..Limits::default() };
    let client = tuf::Client::new(&world.store, &SUITE, limits);
    let trusted = client.refresh(&world.network, NOW).unwrap();
    let target = trusted.find(&path(PRODUCT)).unwrap();
    world.network.take_requests();
    assert!(matches!(trusted.fetch(&target).unwrap_err(), Error::TooLong { max: 3, .. }));
    assert_eq!(world.network.take_requests(), Vec::<String>::new());
}

#[test]
fn without_consistent_snapshots_names_are_plain() {
    let world = World::new();
    let mut root = world.keys.root_content(2);
    root.consistent_snapshot = false;
    let root = Metadata::sign(&root, &[&world.keys.root[0], &world.keys.root[1]]).unwrap();
    world.network.put("metadata/2.root.json", root.bytes());
    for name in ["snapshot.json", "targets.json", "products.json"] {
        world.network.put(&format!("metadata/{name}"), world.network.get(&format!("metadata/1.{name}")));
    }
    world.network.put(&format!("targets/{PRODUCT}"), crate::world::product(1));
    let trusted = world.refresh().unwrap();
    let target = trusted.find(&path(PRODUCT)).unwrap();
    assert_eq!(trusted.fetch(&target).unwrap(), crate::world::product(1));
    assert_eq!(world.network.take_requests().last().unwrap(), &format!("targets/{PRODUCT}"));
}

#[test]
fn paths_that_leave_their_folder_are_no_paths() {
    for text in ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a\\b", "a\nb", "a\0b"] {
        assert!(text.parse::<TargetPath>().is_err(), "{text:?}");
    }
    assert!("x".repeat(1025).parse::<TargetPath>().is_err());
    for text in ["a", "a/b.c", "...", "a b/é?"] {
        text.parse::<TargetPath>().unwrap();
    }
}

/// A signed path that is no path of ours matches no look-up, and spoils nothing.
#[test]
fn an_unusable_path_in_metadata_is_never_found() {
    let world = World::refreshed();
    let mut targets = Targets::new(version(2), days(10)).with_target(&path("x"), TargetFile::of(b""));
    targets.targets.insert("../../etc/passwd".to_owned(), TargetFile::of(b""));
    world.force_targets(&targets, &[]);
    world.find("x").unwrap();
}
