//! Several mirrors: the newest status counts, whoever shows it, and none can keep it back.

use attest::{Mismatched, StopScope};
use stdx::Digest;
use testkit::PRODUCT;

use crate::scene::{DAY, Scene, write};
use crate::server::{Manner, Server};

/// A mirror of status and policies only, as the supervisor and members run them.
struct Member {
    server: Server,
    folder: tempfile::TempDir,
}

impl Member {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { server: Server::new(folder.path()), folder }
    }

    fn show(&self, bundle: &attest::Bundle) {
        write(self.folder.path(), "status/slow.bundle", &bundle.to_bytes());
    }
}

/// An endpoint with a product, whose policy names the member.
fn scene(member: &Member) -> Scene {
    let mut scene = Scene::with_mirrors(&[&member.server]);
    scene.release(b"first");
    scene.publish_status();
    member.show(&scene.make_status().1);
    assert_eq!(scene.update().exit_code(), 0);
    assert_eq!(scene.current().unwrap(), b"first");
    scene
}

#[test]
fn a_channel_can_not_keep_a_revocation_back() {
    let member = Member::new();
    let mut scene = scene(&member);
    scene.release(b"second");
    scene.publish_status();
    scene.update();
    scene.world.revoked.push(Digest::of(b"second"));
    member.show(&scene.make_status().1);
    // The channel's status is still fresh, and its first mirror answers first or last.
    let report = scene.update();
    assert_eq!((report.exit_code(), scene.current().unwrap()), (0, b"first".to_vec()), "{report:?}");
    assert!(scene.journal().contains("status-behind: "), "{}", scene.journal());
    assert!(scene.journal().contains(scene.server.url()), "it says who");
    // Whatever the channel does from here on.
    for manner in [Manner::Status(404), Manner::Bytes(b"{}".to_vec()), Manner::Endless, Manner::Stalling] {
        scene.server.behave();
        scene.server.misbehave("status/", manner);
        scene.update();
        assert_eq!(scene.current().unwrap(), b"first");
    }
}

#[test]
fn a_stop_and_a_mismatch_arrive_and_are_shown() {
    let member = Member::new();
    let mut scene = scene(&member);
    let statement = scene.world.genesis().id();
    scene.world.stops.push(StopScope::Product(PRODUCT.parse().unwrap()));
    scene.world.mismatches.push(Mismatched {
        product: PRODUCT.parse().unwrap(),
        version: "6.6.6".to_owned(),
        statement,
    });
    member.show(&scene.make_status().1);
    scene.world.stops.clear();
    scene.release(b"second");
    scene.refused("stopped");
    let status = scene.status();
    assert_eq!((status.lanes[0].stops.len(), status.lanes[0].mismatches.len()), (1, 1));
    let text = status.to_string();
    assert!(text.contains("STOPPED   product `libexample`: nothing new is taken"), "{text}");
    assert!(text.contains("MISMATCH  libexample 6.6.6: "), "{text}");
    // Lifted by a newer status, whoever shows it.
    scene.world.mismatches.clear();
    scene.pass(DAY / 24);
    assert_eq!((scene.update().exit_code(), scene.current().unwrap()), (0, b"second".to_vec()));
    assert!(scene.status().lanes[0].stops.is_empty());
}

#[test]
fn a_channel_can_not_keep_a_policy_back() {
    let member = Member::new();
    let mut scene = scene(&member);
    let successor = scene.world.succeed(|_| {});
    write(member.folder.path(), "policy/2.bundle", &successor.to_bytes());
    member.show(&scene.make_status().1);
    let report = scene.update();
    assert_eq!((report.exit_code(), scene.status().policy_version), (0, 2), "{report:?}");
    // A policy by the vendor alone takes the member off the list in vain.
    let alone = scene.succession(&["vendor"]);
    scene.server.misbehave("policy/3", Manner::Bytes(alone.to_bytes()));
    scene.update();
    assert_eq!((scene.status().policy_version, scene.current().unwrap()), (2, b"first".to_vec()));
}

#[test]
fn a_silent_mirror_is_not_waited_for_twice() {
    let member = Member::new();
    let mut scene = scene(&member);
    let honest = Server::new(scene.channel.folder());
    scene.config.channel.push(honest.url().parse().unwrap());
    scene.release(b"second");
    scene.publish_status();
    scene.server.misbehave("/", Manner::Stalling);
    scene.server.traffic();
    // On a busy machine, too, the other one answers within this.
    scene.config.network.timeout_s = 20;
    let report = scene.update();
    assert_eq!((report.exit_code(), scene.current().unwrap()), (0, b"second".to_vec()), "{report:?}");
    let (_, requests) = scene.server.traffic();
    assert_eq!(requests, 1, "it is asked for the policy; then for nothing more");
    assert!(scene.journal().contains(&format!("{}: no answer", scene.server.url())), "{}", scene.journal());
}

/// Whoever holds the status key may say several things at once; only one of them is the newest.
#[test]
fn no_mirror_is_believed_beyond_its_evidence() {
    let member = Member::new();
    let mut scene = scene(&member);
    let other = Scene::new();
    let newest = scene.make_status().1;
    let mut flipped = newest.to_bytes();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for lie in [flipped, std::fs::read(other.channel.folder().join("status/slow.bundle")).unwrap()] {
        scene.release(b"next");
        scene.publish_status();
        write(member.folder.path(), "status/slow.bundle", &lie);
        let report = scene.update();
        assert_eq!(report.exit_code(), 0, "the channel's own holds: {report:?}");
        assert!(scene.journal().contains(member.server.url()), "what the mirror did is written down");
    }
    member.server.misbehave("status/", Manner::Status(304));
    assert_eq!(scene.update().exit_code(), 0, "that is what is known, which still holds");
    std::fs::remove_file(scene.config.state.join("status/slow.bundle")).unwrap();
    scene.server.misbehave("status/", Manner::Status(304));
    let report = scene.update();
    assert!(report.has("channel-answer"), "nobody asked whether anything has changed: {report:?}");
}
