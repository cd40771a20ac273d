//! What is proven, and what is refused by its meaning.

use std::time::Duration;

use attest::{EnvironmentKind, Floor, ReleaseNumber, StopScope};
use stdx::{Clock as _, Digest, UnixTime};
use testkit::{OTHER_PRODUCT, PRODUCT, ReleaseOptions, World};

use crate::files::{CONTENT, Files};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[test]
fn a_good_file_is_proven_with_everything_that_stands_behind_it() {
    let files = Files::new();
    let proof = files.prove().unwrap();
    let json = proof.to_json();
    assert_eq!(json["sha256"], Digest::of(CONTENT).to_string());
    assert_eq!(json["artifact"], "product");
    assert_eq!(json["result"]["signers"][0]["organisation"], "supervisor");
    assert_eq!(json["result"]["signers"][1]["organisation"], "vendor");
    assert_eq!(json["release"]["signers"].as_array().unwrap().len(), 2);
    assert_eq!(json["approvals"].as_array().unwrap().len(), 2);
    assert_eq!(json["witnesses"].as_array().unwrap().len(), 3);
    assert_eq!(json["policy"]["statement"], files.world.genesis().id().to_string());
    let text = proof.to_string();
    for part in ["supervisor (supervisor.example/builder+", "3 of 4 are needed", "ring all", "0 s, at most 30 days"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_status_may_come_by_itself() {
    let mut files = Files::new();
    files.write("bundle", &files.released.bundle.to_bytes());
    assert_eq!(files.refusal(), "bundle-shape");
    let status = files.world.status();
    files.arguments.status = Some(files.write("status", &status.to_bytes()));
    files.prove().unwrap();
}

#[test]
fn another_file_is_refused() {
    let files = Files::new();
    for other in [&b""[..], b"other", &CONTENT[..CONTENT.len() - 1], &[CONTENT, b"\n"].concat()] {
        files.write("product", other);
        assert_eq!(files.refusal(), "other-content");
    }
    std::fs::remove_file(&files.arguments.file).unwrap();
    assert_eq!(files.refusal(), "unreadable");
}

#[test]
fn another_genesis_or_policy_is_refused() {
    let mut files = Files::new();
    let other = World::new();
    files.write("policy/1.envelope", &other.genesis().to_bytes());
    assert_eq!(files.refusal(), "policy");
    files.arguments.genesis = other.genesis().id();
    assert_eq!(files.refusal(), "checkpoint");
}

#[test]
fn a_successor_that_the_policy_did_not_agree_to_is_refused() {
    let files = Files::new();
    files.write("policy/2.bundle", &files.released.bundle.to_bytes());
    assert_eq!(files.refusal(), "bundle-shape");
}

#[test]
fn the_genesis_envelope_alone_is_a_policy() {
    let mut files = Files::new();
    files.arguments.policy = files.folder.path().join("policy/1.envelope");
    files.prove().unwrap();
}

#[test]
fn a_genuine_release_of_another_product_is_refused() {
    let mut files = Files::new();
    files.arguments.product = OTHER_PRODUCT.parse().unwrap();
    assert_eq!(files.refusal(), "other-product");
}

#[test]
fn what_one_organisation_did_alone_is_refused() {
    let alone = |change: fn(&mut ReleaseOptions)| {
        let mut files = Files::new();
        let mut options = ReleaseOptions::default();
        change(&mut options);
        let released = files.world.release_with(PRODUCT, "1.1", &[("product", CONTENT)], &options);
        let bundle = released.bundle.with(&files.world.status()).unwrap();
        files.write("bundle", &bundle.to_bytes());
        files.refusal()
    };
    assert_eq!(alone(|it| it.builders = vec!["vendor"]), "signatures-missing");
    assert_eq!(alone(|it| it.releasers = vec!["vendor"]), "signatures-missing");
    assert_eq!(alone(|it| it.releasers = vec!["supervisor"]), "signatures-missing");
    assert_eq!(alone(|it| it.approvers = vec!["vendor"]), "signatures-missing");
    assert_eq!(alone(|it| it.environment = EnvironmentKind::Captured), "environment");
}

#[test]
fn what_the_supervisor_forbids_is_refused() {
    let forbidden = |forbid: fn(&mut World)| {
        let mut files = Files::new();
        forbid(&mut files.world);
        let bundle = files.released.bundle.with(&files.world.status()).unwrap();
        files.write("bundle", &bundle.to_bytes());
        files.refusal()
    };
    // Revocation is by content: an artifact beside the asked one counts as well.
    assert_eq!(forbidden(|world| world.revoked.push(Digest::of(CONTENT))), "revoked");
    assert_eq!(forbidden(|world| world.revoked.push(Digest::of(b"a manual"))), "revoked");
    assert_eq!(forbidden(|world| world.stops.push(StopScope::Product(PRODUCT.parse().unwrap()))), "stopped");
    let floor = |world: &mut World| {
        world.floors.push(Floor { product: PRODUCT.parse().unwrap(), number: ReleaseNumber::new(2) });
    };
    assert_eq!(forbidden(floor), "below-floor");
}

#[test]
fn a_status_that_is_too_old_is_refused() {
    let mut files = Files::new();
    let made = files.world.clock.now();
    // It expired after a day, for those who can get the next one; here the age counts.
    files.world.clock.set(made.after(10 * DAY));
    files.prove().unwrap();
    for (days, code) in [(10, None), (5, Some("stale")), (0, Some("stale"))] {
        files.arguments.age_days = Some(days);
        assert_eq!(files.prove().err().map(|failure| failure.code), code, "{days} days");
    }
    files.arguments.age_days = None;
    files.world.clock.set(made.after(31 * DAY));
    assert_eq!(files.refusal(), "stale");
    files.arguments.age_days = Some(0);
    // A clock set back makes nothing fresher than the evidence itself.
    files.world.clock.set(UnixTime::EPOCH);
    files.prove().unwrap();
}

#[test]
fn a_status_under_a_policy_that_is_not_here_is_refused() {
    let mut files = Files::new();
    let successor = files.world.succeed(|_| {});
    // The status of before does not speak for the policy of now, nor the other way round.
    files.write("policy/2.bundle", &successor.to_bytes());
    assert_eq!(files.refusal(), "policy");
    let bundle = files.released.bundle.with(&files.world.status()).unwrap();
    files.write("bundle", &bundle.to_bytes());
    files.prove().unwrap();
    std::fs::remove_file(files.folder.path().join("policy/2.bundle")).unwrap();
    assert_eq!(files.refusal(), "policy");
}

#[test]
fn too_few_witnesses_are_refused() {
    let mut files = Files::new();
    let status = files.world.status();
    let quorum: Vec<_> = files.world.witnesses.iter().take(2).collect();
    let checkpoint = files.world.supervisor_log.checkpoint(&quorum, files.world.clock.now());
    let entry = files.world.supervisor_log.prove(&status.entries()[0].envelope, &checkpoint);
    let mut entries = files.released.bundle.entries().to_vec();
    entries.push(entry);
    assert_eq!(files.refusal_of(entries), "checkpoint");
}
