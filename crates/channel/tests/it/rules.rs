//! Rules in the channel: patches, few releases, and a key that can say nothing else.

use std::num::NonZeroU32;

use attest::{Lane, Ring};
use channel::layout::{self, Product};
use channel::{Delegates, Error, ExportRequest, Publication, Published, Releases, write_export};
use stdx::{Clock as _, Digest};
use testkit::{PRODUCT, RULES_PRODUCT, ReleaseOptions, Released};
use tuf::{
    Change, Client, Ed25519Sha256, FolderFetch, Limits, MemoryStore, Metadata, OnlineKeys, Signer, Signers, TargetFile,
};

use crate::vendor::{Vendor, YEAR};

fn publish(
    vendor: &mut Vendor,
    content: &[u8],
    patches: Vec<(Digest, Vec<u8>)>,
) -> (Released, Result<Published, Error>) {
    let files: Vec<&[u8]> = patches.iter().map(|(_, bytes)| &**bytes).chain([content]).collect();
    let artifacts = vendor.artifacts(&files);
    let options = ReleaseOptions { patches: patches.clone(), ..ReleaseOptions::rules() };
    let released = vendor.world.release_with(RULES_PRODUCT, "1", &[("rules.yar", content)], &options);
    let approved = vendor.approve(&released);
    let publication = Publication { approved: &approved, bundle: &released.bundle, artifacts: &artifacts };
    let published = vendor.with(|channel, signing| channel.publish(&publication, signing));
    (released, published)
}

#[test]
fn patches_lie_beside_the_targets_by_their_content() {
    let mut vendor = Vendor::new();
    publish(&mut vendor, b"first", Vec::new()).1.unwrap();
    let patch = (Digest::of(b"first"), b"how to get there".to_vec());
    publish(&mut vendor, b"second", vec![patch]).1.unwrap();
    let place = layout::patch(&RULES_PRODUCT.parse().unwrap(), &Digest::of(b"how to get there"));
    assert_eq!(std::fs::read(vendor.channel.folder().join(&place)).unwrap(), b"how to get there");
    assert_eq!(vendor.fetch("rules/signatures/2/0-rules.yar").unwrap(), b"second");
    let role = vendor.channel.repository().delegated(&layout::role(Lane::Fast)).unwrap();
    assert!(role.content().targets.keys().all(|path| !path.contains("patch")));
}

#[test]
fn without_its_patches_nothing_is_published() {
    let mut vendor = Vendor::new();
    let patch = (Digest::of(b"first"), b"patch".to_vec());
    let options = ReleaseOptions { patches: vec![patch], ..ReleaseOptions::rules() };
    let released = vendor.world.release_with(RULES_PRODUCT, "1", &[("rules.yar", b"content")], &options);
    let approved = vendor.approve(&released);
    let artifacts = vendor.artifacts(&[b"content"]);
    let publication = Publication { approved: &approved, bundle: &released.bundle, artifacts: &artifacts };
    let error = vendor.with(|channel, signing| channel.publish(&publication, signing)).unwrap_err();
    assert!(matches!(error, Error::NoArtifact { .. }), "{error}");
    assert!(vendor.fetch("rules/signatures/1/bundle").is_err());
}

#[test]
fn endpoints_fetch_metadata_of_few_releases() {
    let mut vendor = Vendor::new();
    for number in 0..5 {
        publish(&mut vendor, format!("rules {number}").as_bytes(), Vec::new()).1.unwrap();
    }
    let list = Releases::parse(&vendor.fetch("rules/signatures/releases").unwrap()).unwrap();
    assert_eq!(list.releases().iter().map(|it| it.number.get()).collect::<Vec<_>>(), [4, 5]);
    let role = vendor.channel.repository().delegated(&layout::role(Lane::Fast)).unwrap();
    assert_eq!(role.content().targets.len(), 5, "the list, and two of two");
}

/// Whoever has the rules key, and those of snapshot and timestamp too, says what there is of a
/// product.
#[test]
fn the_rules_key_describes_no_product() {
    let mut vendor = Vendor::new();
    vendor.publish(PRODUCT, b"content").1.unwrap();
    let (rules, now) = (&vendor.keys[4], vendor.world.clock.now());
    let path = Product { lane: Lane::Slow, id: &PRODUCT.parse().unwrap() }.releases();
    let forged = TargetFile::of(b"forged");
    let (snapshot, timestamp) = ([&vendor.keys[5] as &dyn Signer], [&vendor.keys[6] as &dyn Signer]);
    let expires = now.after(YEAR);
    let online = || OnlineKeys {
        snapshot: &snapshot,
        snapshot_expires: expires,
        timestamp: &timestamp,
        timestamp_expires: expires,
    };
    let change = |lane: Lane| {
        let mut content = vendor.channel.repository().delegated(&layout::role(lane)).unwrap().content().clone();
        content.version = content.version.next().unwrap();
        let content = content.with_target(&path, forged.clone());
        let delegated = [(layout::role(lane), Metadata::sign(&content, &[rules as &dyn Signer]).unwrap())].into();
        Change { delegated, ..Change::default() }
    };
    // In the role of products its signature counts for nothing.
    let mut repository = vendor.channel.repository().clone();
    repository.publish(&change(Lane::Slow), online(), &Ed25519Sha256, now).unwrap_err();
    // In its own role it may say so; nobody asks it there.
    let files = repository.publish(&change(Lane::Fast), online(), &Ed25519Sha256, now).unwrap();
    for file in files {
        stdx::durable::write(&vendor.channel.folder().join(file.location.to_string()), &file.bytes).unwrap();
    }
    let store = MemoryStore::default();
    let client = Client::new(&store, &Ed25519Sha256, Limits::default());
    client.create(&vendor.root).unwrap();
    let fetch = FolderFetch::new(vendor.channel.folder());
    let trusted = client.refresh(&fetch, now).unwrap();
    assert_ne!(trusted.find(&path).unwrap().file(), &forged);
}

#[test]
fn an_export_has_the_newest_rules_of_either_lane() {
    let mut vendor = Vendor::new();
    let exported = |vendor: &Vendor| -> Vec<String> {
        let id = RULES_PRODUCT.parse().unwrap();
        let request = ExportRequest { products: std::slice::from_ref(&id), ring: Ring::Canary };
        let members = write_export(&vendor.channel, &request, &mut Vec::new()).unwrap();
        members.into_iter().map(|member| member.path).collect()
    };
    publish(&mut vendor, b"first", Vec::new()).1.unwrap();
    assert_eq!(exported(&vendor), ["rules/signatures/1/bundle", "rules/signatures/1/0-rules.yar"]);
    vendor.publish(RULES_PRODUCT, b"second, with approvals").1.unwrap();
    assert_eq!(exported(&vendor), ["products/signatures/2/bundle", "products/signatures/2/0-a_file_1.bin"]);
    publish(&mut vendor, b"third", Vec::new()).1.unwrap();
    assert_eq!(exported(&vendor)[0], "rules/signatures/3/bundle");
}

#[test]
fn another_key_for_rules_is_another_delegation() {
    let mut vendor = Vendor::new();
    publish(&mut vendor, b"first", Vec::new()).1.unwrap();
    let one = |at: usize| [vendor.keys[at].public_key().clone()];
    let (products, old, new) = (one(3), one(4), one(0));
    let delegate = |vendor: &mut Vendor, rules: &[tuf::PublicKey], at: usize| {
        let signers = |keys| Signers { keys, threshold: NonZeroU32::MIN };
        let seed = vendor.keys[at].seed();
        let key = tuf::Ed25519Signer::from_seed(&seed);
        vendor.with(|channel, signing| {
            let rules_signer = [&key as &dyn Signer];
            let keys = channel::Keys { rules: &rules_signer, ..signing.keys };
            let signing = channel::Signing { keys, ..*signing };
            channel.delegate(Delegates { products: signers(&products), rules: signers(rules) }, &signing)
        })
    };
    assert_eq!(delegate(&mut vendor, &old, 4).unwrap(), Published::Same);
    assert_eq!(delegate(&mut vendor, &new, 0).unwrap(), Published::New);
    assert_eq!(vendor.fetch("rules/signatures/1/0-rules.yar").unwrap(), b"first");
    // The old key has nothing to say any more.
    let (_, published) = publish(&mut vendor, b"second", Vec::new());
    published.unwrap_err();
}
