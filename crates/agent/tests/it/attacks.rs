//! Everybody means harm: mirrors, the vendor alone, the network, whoever holds the channel's keys.

use agent::{Endpoint, Genesis, RealDisk};
use attest::Bundle;
use testkit::{OTHER_PRODUCT, PRODUCT, ReleaseOptions, SUPERVISOR_LOG, VENDOR_LOG, World};
use tlog::{Checkpoint, Origin, SignedCheckpoint, TreeHead, cosign};

use crate::scene::{DAY, Scene, write};
use crate::server::Manner;

#[test]
fn another_policy_hash_is_refused() {
    let scene = Scene::new();
    let other = World::new();
    let config = agent::Config { state: scene.folder.path().join("other"), ..scene.config.clone() };
    let envelope = other.genesis().to_bytes();
    let id = scene.world.genesis().id();
    let refused = Endpoint::init(&config, scene.ports(&RealDisk), Genesis { id: &id, envelope: &envelope });
    assert_eq!(refused.unwrap_err().code, "policy");
    assert_eq!(Endpoint::open(&config, scene.ports(&RealDisk)).err().unwrap().code, "not-initialised");
    assert_eq!(scene.init(&id).unwrap_err().code, "initialised");
}

#[test]
fn the_state_is_changed_by_one_process_at_a_time() {
    let scene = Scene::new();
    let open = Endpoint::open(&scene.config, scene.ports(&RealDisk)).unwrap();
    let failure = Endpoint::open(&scene.config, scene.ports(&RealDisk)).err().unwrap();
    assert_eq!((failure.code, failure.class.exit_code()), ("unavailable", 75));
    drop(open);
    Endpoint::open(&scene.config, scene.ports(&RealDisk)).unwrap();
}

#[test]
fn another_channel_is_refused() {
    let scene = Scene::new();
    scene.server.misbehave("1.root.json", Manner::Bytes(b"{}".to_vec()));
    scene.refused("channel-root");
}

#[test]
fn a_channel_that_is_rolled_back_is_refused() {
    let mut scene = Scene::installed(b"first");
    let old = scene.copy_of_channel("old");
    scene.release(b"second");
    scene.update();
    // Old metadata with a status of today.
    write(&old, "status/slow.bundle", &std::fs::read(scene.channel.folder().join("status/slow.bundle")).unwrap());
    scene.server.show(&old);
    scene.refused("channel-rollback");
    assert_eq!(scene.current().unwrap(), b"second");
}

#[test]
fn an_old_status_is_refused() {
    let mut scene = Scene::installed(b"first");
    let old = std::fs::read(scene.channel.folder().join("status/slow.bundle")).unwrap();
    scene.pass(DAY / 4);
    scene.release(b"second");
    scene.publish_status();
    scene.update();
    scene.release(b"third");
    scene.server.misbehave("status/", Manner::Bytes(old));
    scene.refused("rollback");
}

#[test]
fn a_frozen_channel_is_noticed_and_stale_is_not_dead() {
    let mut scene = Scene::installed(b"first");
    let frozen = scene.copy_of_channel("frozen");
    scene.pass(2 * DAY);
    scene.server.show(&frozen);
    let report = scene.refused("channel-expired");
    assert!(report.has("out-of-time") || report.has("stale"), "{report:?}");
    assert_eq!((report.exit_code(), scene.status().exit_code()), (1, 1));
    assert!(scene.status().to_string().contains("STALE"));
    // A fresh status alone does not help a frozen channel, nor the other way round.
    scene.release(b"second");
    scene.server.misbehave("status/", Manner::Bytes(std::fs::read(frozen.join("status/slow.bundle")).unwrap()));
    scene.server.show(scene.channel.folder());
    let report = scene.refused("out-of-time");
    assert!(!report.has("channel-expired"));
    scene.server.behave();
    scene.update();
    assert_eq!(scene.current().unwrap(), b"second");
}

#[test]
fn mixed_metadata_is_refused() {
    let mut scene = Scene::installed(b"first");
    let first = std::fs::read(scene.channel.folder().join("metadata/2.products.json")).unwrap();
    scene.release(b"second");
    let snapshot = std::fs::read(scene.channel.folder().join("metadata/2.snapshot.json")).unwrap();
    for (file, other) in [("3.snapshot.json", snapshot), ("3.products.json", first)] {
        scene.server.misbehave(file, Manner::Bytes(other));
        scene.refused("channel-mixed");
        scene.server.behave();
    }
    scene.update();
    assert_eq!(scene.current().unwrap(), b"second");
}

#[test]
fn other_bytes_of_an_artifact_are_refused() {
    let mut scene = Scene::installed(b"first");
    scene.release(b"second");
    for other in [&b"Second"[..], b"secon", b"second+", b""] {
        scene.server.misbehave("0-product", Manner::Bytes(other.to_vec()));
        scene.refused("channel-mixed");
        scene.server.behave();
    }
    scene.update();
    assert_eq!(scene.current().unwrap(), b"second");
}

#[test]
fn endless_and_slow_answers_end() {
    let mut scene = Scene::installed(b"first");
    scene.release(b"second");
    for part in ["timestamp.json", "status/", "0-product", "libexample/2/"] {
        scene.server.misbehave(part, Manner::Endless);
        let report = scene.update();
        assert!(!report.failures.is_empty(), "{part}");
        assert_eq!(scene.current().unwrap(), b"first", "{part}");
        scene.server.behave();
    }
    for part in ["timestamp.json", "0-product"] {
        scene.server.misbehave(part, Manner::Stalling);
        let report = scene.refused("unavailable");
        assert_eq!(report.exit_code(), 75, "{part}: {report:?}");
        scene.server.behave();
    }
    scene.server.misbehave("/", Manner::Status(503));
    assert_eq!(scene.update().exit_code(), 75);
    // A successor that can't be read is reported; under the policy in force, work goes on.
    scene.server.behave();
    scene.server.misbehave("policy/2", Manner::Endless);
    assert_eq!((scene.update().exit_code(), scene.current().unwrap()), (1, b"second".to_vec()));
}

/// The vendor holds every key of the channel, so all of this arrives with perfect metadata.
#[test]
fn what_the_vendor_does_alone_is_refused() {
    let alone = |change: fn(&mut ReleaseOptions)| {
        let mut scene = Scene::installed(b"first");
        scene.release(b"second");
        let mut options = ReleaseOptions::default();
        change(&mut options);
        let evil = scene.world.release_with(PRODUCT, "2.1", &[("product", b"evil")], &options);
        scene.smuggle(&evil.bundle);
        scene.refused("signatures-missing");
    };
    alone(|it| it.releasers = vec!["vendor"]);
    alone(|it| it.builders = vec!["vendor"]);
    alone(|it| it.approvers = vec!["vendor"]);
}

#[test]
fn a_product_never_takes_anothers_place() {
    let mut scene = Scene::installed(b"first");
    scene.release(b"second");
    let other = scene.world.release(OTHER_PRODUCT, "9.0", &[("product", b"other")]);
    scene.smuggle(&other.bundle);
    scene.refused("other-product");
}

#[test]
fn without_a_quorum_nothing_is_taken() {
    let mut scene = Scene::installed(b"first");
    let released = scene.release(b"second");
    let two: Vec<_> = scene.world.witnesses.iter().take(2).collect();
    let checkpoint = scene.world.log(VENDOR_LOG).checkpoint(&two, stdx::Clock::now(&scene.world.clock));
    let prove = |entry: &attest::BundleEntry| scene.world.log(VENDOR_LOG).prove(&entry.envelope, &checkpoint);
    let bundle = Bundle::new(released.bundle.entries().iter().map(prove).collect()).unwrap();
    scene.smuggle(&bundle);
    scene.refused("checkpoint");
}

/// The log and a quorum show this machine another tree than before.
#[test]
fn a_split_view_is_refused_and_its_proof_is_kept() {
    let mut scene = Scene::installed(b"first");
    scene.pass(DAY / 4);
    let (_, bundle) = scene.make_status();
    scene.update();
    let seen: Origin = SUPERVISOR_LOG.parse().unwrap();
    let size = scene.world.log(SUPERVISOR_LOG).head().size;
    scene.server.misbehave("status/", Manner::Bytes(bundle.to_bytes()));
    scene.update();
    // Same size, another root, signed by the log and cosigned by a quorum.
    let head = TreeHead { size, root: tlog::leaf_hash(b"another tree") };
    let checkpoint = Checkpoint::new(seen, head).unwrap();
    let now = stdx::Clock::now(&scene.world.clock);
    let lines: Vec<_> =
        scene.world.witnesses.iter().take(3).map(|witness| cosign(&checkpoint, witness, now).unwrap()).collect();
    let mut forked = SignedCheckpoint::sign(checkpoint, scene.world.log(SUPERVISOR_LOG).key()).unwrap();
    forked.merge(lines).unwrap();
    let entry = &bundle.entries()[0];
    let proof = tlog::LogProof::new(entry.proof.index(), entry.proof.path().clone(), forked);
    let fork = Bundle::new(vec![attest::BundleEntry { envelope: entry.envelope.clone(), proof }]).unwrap();
    scene.server.behave();
    scene.server.misbehave("status/", Manner::Bytes(fork.to_bytes()));
    scene.refused("split-view");
    let kept: Vec<_> = std::fs::read_dir(scene.config.state.join("misbehaviour")).unwrap().collect();
    assert_eq!(kept.len(), 1);
    assert!(scene.journal().contains("split-view"));
}

#[test]
fn a_second_mirror_makes_up_for_a_first_that_lies() {
    let mut scene = Scene::installed(b"first");
    let honest = crate::server::Server::new(scene.channel.folder());
    scene.config.channel.push(honest.url().parse().unwrap());
    scene.release(b"second");
    scene.publish_status();
    scene.server.misbehave("0-product", Manner::Bytes(b"other".to_vec()));
    scene.server.misbehave("status/", Manner::Status(404));
    let report = scene.update();
    assert_eq!((report.exit_code(), scene.current().unwrap()), (0, b"second".to_vec()), "{report:?}");
    assert!(scene.journal().contains("\"event\":\"refused\""), "the owner can read what the first mirror did");
}
