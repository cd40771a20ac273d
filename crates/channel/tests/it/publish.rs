//! What endpoints see of what was published, and when nothing is.

use std::collections::BTreeMap;
use std::time::Duration;

use attest::{Bundle, ReleaseNumber, Ring};
use channel::layout::{self, Product};
use channel::{Channel, Error, Publication, Published, Releases};
use stdx::{Digest, durable};
use testkit::{OTHER_PRODUCT, PRODUCT, ReleaseOptions};

use crate::vendor::Vendor;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[test]
fn an_endpoint_gets_what_was_published() {
    let mut vendor = Vendor::new();
    let (released, published) = vendor.publish(PRODUCT, b"content");
    assert_eq!(published.unwrap(), Published::New);
    assert_eq!(vendor.fetch("products/libexample/1/0-a_file_1.bin").unwrap(), b"content");
    assert_eq!(vendor.fetch("products/libexample/1/bundle").unwrap(), released.bundle.to_bytes());
    let list = Releases::parse(&vendor.fetch("products/libexample/releases").unwrap()).unwrap();
    assert_eq!((list.product().as_str(), list.releases().len()), (PRODUCT, 1));
    assert_eq!((list.releases()[0].number, list.releases()[0].ring), (ReleaseNumber::FIRST, Ring::All));
    // A second product and release leave the first where they are.
    vendor.publish(OTHER_PRODUCT, b"other").1.unwrap();
    vendor.publish(PRODUCT, b"newer").1.unwrap();
    assert_eq!(vendor.fetch("products/libexample/1/0-a_file_1.bin").unwrap(), b"content");
    assert_eq!(vendor.fetch("products/libexample/2/0-a_file_1.bin").unwrap(), b"newer");
    assert_eq!(vendor.fetch("products/other/1/0-a_file_1.bin").unwrap(), b"other");
}

#[test]
fn publishing_again_changes_nothing() {
    let mut vendor = Vendor::new();
    let (released, _) = vendor.publish(PRODUCT, b"content");
    let before = vendor.channel.repository().timestamp().bytes().to_vec();
    let approved = vendor.approve(&released);
    let publication = Publication { approved: &approved, bundle: &released.bundle, artifacts: &BTreeMap::new() };
    let published = vendor.with(|channel, signing| channel.publish(&publication, signing)).unwrap();
    assert_eq!(published, Published::Same);
    assert_eq!(vendor.channel.repository().timestamp().bytes(), before);
}

#[test]
fn a_promotion_replaces_the_bundle_and_needs_no_artifacts() {
    let mut vendor = Vendor::new();
    let options = ReleaseOptions { ring: Ring::Canary, ..ReleaseOptions::default() };
    let mut released = vendor.world.release_with(PRODUCT, "1.0", &[("a", b"content")], &options);
    let artifacts = vendor.artifacts(&[b"content"]);
    let approved = vendor.approve(&released);
    let publication = Publication { approved: &approved, bundle: &released.bundle, artifacts: &artifacts };
    vendor.with(|channel, signing| channel.publish(&publication, signing)).unwrap();

    vendor.promote(&mut released, Ring::Early);
    assert_eq!(vendor.fetch("products/libexample/1/bundle").unwrap(), released.bundle.to_bytes());
    let list = Releases::parse(&vendor.fetch("products/libexample/releases").unwrap()).unwrap();
    assert_eq!(list.releases()[0].ring, Ring::Early);
}

#[test]
fn nothing_is_published_with_other_bytes_or_another_bundle() {
    let mut vendor = Vendor::new();
    let released = vendor.world.release(PRODUCT, "1.0", &[("a", b"content")]);
    let other = vendor.world.release(OTHER_PRODUCT, "1.0", &[("a", b"other")]);
    let approved = vendor.approve(&released);
    let mut artifacts = vendor.artifacts(&[b"content"]);

    let publication = Publication { approved: &approved, bundle: &other.bundle, artifacts: &artifacts };
    let refused = vendor.with(|channel, signing| channel.publish(&publication, signing));
    assert!(matches!(refused, Err(Error::OtherBundle(id)) if id == approved.id()));

    let publication = Publication { approved: &approved, bundle: &released.bundle, artifacts: &BTreeMap::new() };
    let refused = vendor.with(|channel, signing| channel.publish(&publication, signing));
    assert!(matches!(refused, Err(Error::NoArtifact { .. })));

    let path = vendor.folder.path().join("wrong");
    for wrong in [&b"contenT"[..], b"conten", b"content+"] {
        durable::write(&path, wrong).unwrap();
        artifacts.insert(Digest::of(b"content"), path.clone());
        let publication = Publication { approved: &approved, bundle: &released.bundle, artifacts: &artifacts };
        let refused = vendor.with(|channel, signing| channel.publish(&publication, signing));
        assert!(matches!(refused, Err(Error::OtherContent { .. })), "{refused:?}");
    }
    assert!(vendor.fetch("products/libexample/releases").is_err());
}

/// Every prefix of the files written, in the order written, is a channel that endpoints can use.
#[test]
fn a_crash_while_publishing_leaves_the_old_state_or_the_new() {
    let mut vendor = Vendor::new();
    vendor.publish(PRODUCT, b"old").1.unwrap();
    let old = vendor.channel.clone();
    let names = |folder: &std::path::Path| {
        let mut found = Vec::new();
        let mut ahead = vec![folder.to_owned()];
        while let Some(folder) = ahead.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { ahead.push(path) } else { found.push(path) }
            }
        }
        found
    };
    let folder = vendor.channel.folder().to_owned();
    let before: BTreeMap<_, _> =
        names(&folder).into_iter().map(|it| (it.clone(), std::fs::read(it).unwrap())).collect();
    vendor.publish(PRODUCT, b"new").1.unwrap();
    let after = names(&folder);
    let timestamp = folder.join("metadata/timestamp.json");
    let written: Vec<_> = after.iter().filter(|it| !before.contains_key(*it)).collect();
    assert!(written.len() >= 5, "artifact, bundle, list, products, snapshot");
    // All but the timestamp are new names, so that readers of the old state miss nothing.
    for (path, bytes) in &before {
        assert_eq!(std::fs::read(path).unwrap() == *bytes, *path != timestamp, "{}", path.display());
    }
    // Before the timestamp: the old state, which can be published upon again.
    durable::write(&timestamp, &before[&timestamp]).unwrap();
    assert!(vendor.fetch("products/libexample/2/bundle").is_err());
    assert_eq!(vendor.fetch("products/libexample/1/0-a_file_1.bin").unwrap(), b"old");
    vendor.channel = Channel::open(&folder).unwrap();
    assert_eq!(vendor.channel.repository().timestamp().bytes(), old.repository().timestamp().bytes());
    vendor.publish(PRODUCT, b"again").1.unwrap();
    assert_eq!(vendor.fetch("products/libexample/3/0-a_file_1.bin").unwrap(), b"again");
}

#[test]
fn refreshing_renews_what_runs_out() {
    let mut vendor = Vendor::new();
    vendor.publish(PRODUCT, b"content").1.unwrap();
    let versions = |vendor: &Vendor| {
        let repository = vendor.channel.repository();
        let products = repository.delegated(&layout::role(attest::Lane::Slow)).unwrap();
        [repository.timestamp().version(), repository.snapshot().version(), products.version()].map(|it| it.get())
    };
    assert_eq!(versions(&vendor), [2, 2, 2]);
    vendor.world.clock.advance(DAY / 2);
    vendor.with(|channel, signing| channel.refresh(signing)).unwrap();
    assert_eq!(versions(&vendor), [3, 2, 2]);
    vendor.world.clock.advance(2 * DAY);
    assert!(vendor.fetch("products/libexample/releases").is_err(), "the timestamp has run out");
    for days in 0..120 {
        vendor.world.clock.advance(DAY);
        vendor.with(|channel, signing| channel.refresh(signing)).unwrap();
        vendor.fetch("products/libexample/releases").unwrap_or_else(|error| panic!("day {days}: {error}"));
    }
    assert!(versions(&vendor)[2] > 2, "products was signed again");
    let reopened = Channel::open(vendor.channel.folder()).unwrap();
    assert_eq!(reopened.repository().timestamp().bytes(), vendor.channel.repository().timestamp().bytes());
}

#[test]
fn a_status_is_replaced_in_place() {
    let mut vendor = Vendor::new();
    for _ in 0..2 {
        let (status, bundle) = vendor.status();
        vendor.channel.publish_status(&status, &bundle).unwrap();
        let file = vendor.channel.folder().join("status/slow.bundle");
        assert_eq!(std::fs::read(file).unwrap(), bundle.to_bytes());
        let (_, other) = vendor.status();
        assert!(matches!(vendor.channel.publish_status(&status, &other), Err(Error::OtherBundle(_))));
        let both = bundle.with(&other).unwrap();
        assert!(matches!(vendor.channel.publish_status(&status, &both), Err(Error::OtherBundle(_))));
    }
}

#[test]
fn the_genesis_policy_lies_there_for_people() {
    let mut vendor = Vendor::new();
    vendor.channel.publish_genesis(vendor.world.policy(), vendor.world.genesis()).unwrap();
    let file = vendor.channel.folder().join("policy/1.envelope");
    assert_eq!(std::fs::read(file).unwrap(), vendor.world.genesis().to_bytes());
    let bundle: Bundle = vendor.world.release(PRODUCT, "1", &[("a", b"a")]).bundle;
    assert!(matches!(vendor.channel.publish_policy(vendor.world.policy(), &bundle), Err(Error::OtherBundle(_))));
}

#[test]
fn a_folder_in_use_is_left_alone() {
    let vendor = Vendor::new();
    assert!(matches!(Channel::open(vendor.folder.path()), Err(Error::Absent(_))));
    let folder = vendor.channel.folder().to_owned();
    let mut other = Vendor::new();
    let root = other.channel.repository().root().clone();
    let delegates = channel::Delegates {
        products: tuf::Signers { keys: &[], threshold: std::num::NonZeroU32::MIN },
        rules: tuf::Signers { keys: &[], threshold: std::num::NonZeroU32::MIN },
    };
    let refused = other.with(|_, signing| Channel::create(&folder, root, delegates, signing));
    assert!(matches!(refused, Err(Error::Exists(_))));
}

#[test]
fn the_lists_show_the_channels_own_releases() {
    let mut vendor = Vendor::new();
    let id = PRODUCT.parse().unwrap();
    let product = Product { lane: attest::Lane::Slow, id: &id };
    assert!(vendor.channel.releases(product).unwrap().releases().is_empty());
    for content in 0..40_u8 {
        vendor.publish(PRODUCT, &[content]).1.unwrap();
    }
    let listed = vendor.channel.releases(product).unwrap();
    assert_eq!(listed.releases().len(), 32);
    assert_eq!(listed.releases()[0].number.get(), 9);
    assert!(vendor.fetch("products/libexample/8/bundle").is_err(), "retired from the metadata");
    vendor.fetch("products/libexample/9/bundle").unwrap();
}
