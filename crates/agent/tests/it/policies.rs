//! Which policy a status speaks under, and what a stolen status key can't do for ever.

use attest::Bundle;
use testkit::World;

use crate::scene::{DAY, Scene};
use crate::server::{Manner, Server};

fn serve_status(scene: &Scene, status: &Bundle) {
    scene.server.behave();
    scene.server.misbehave("status/", Manner::Bytes(status.to_bytes()));
}

#[test]
fn a_withheld_policy_ends_the_taking_of_new_things() {
    let mut scene = Scene::installed(b"first");
    let successor = scene.world.succeed(|_| {});
    scene.channel.publish_policy(scene.world.policy(), &successor).unwrap();
    scene.release(b"second");
    scene.publish_status();
    scene.server.misbehave("policy/", Manner::Status(404));
    let report = scene.refused("policy-withheld");
    assert_eq!((report.exit_code(), scene.status().policy_version), (1, 1));
    let failure = report.failures.iter().find(|it| it.code == "policy-withheld").unwrap();
    assert!(failure.message.contains(&scene.world.policy().id().to_string()), "{failure}");
    assert!(scene.journal().contains("policy-withheld"));
    // It stays so for as long as it is withheld.
    scene.pass(DAY / 2);
    scene.refused("policy-withheld");
    scene.server.behave();
    assert_eq!((scene.update().exit_code(), scene.status().policy_version), (0, 2));
    assert_eq!(scene.current().unwrap(), b"second");
}

/// One mirror's fresh status of before does not outvote another's that names the successor.
#[test]
fn a_mirror_that_knows_less_does_not_hide_a_succession() {
    let mut scene = Scene::installed(b"first");
    scene.release(b"second");
    scene.publish_status();
    let frozen = Server::new(&scene.copy_of_channel("frozen"));
    scene.config.channel.push(frozen.url().parse().unwrap());
    scene.world.succeed(|_| {});
    scene.publish_status();
    let report = scene.refused("policy-withheld");
    assert_eq!(report.exit_code(), 1, "{report:?}");
}

#[test]
fn a_status_under_an_older_policy_or_another_world_s_is_refused() {
    let mut scene = Scene::installed(b"first");
    let before = scene.world.status();
    let successor = scene.world.succeed(|_| {});
    scene.channel.publish_policy(scene.world.policy(), &successor).unwrap();
    scene.publish_status();
    assert_eq!((scene.update().exit_code(), scene.status().policy_version), (0, 2));
    scene.release(b"second");
    serve_status(&scene, &before);
    let report = scene.refused("policy");
    assert!(!report.has("policy-withheld"), "{report:?}");
    // No policy of that name exists; the status key alone can stop what is new, and no more.
    let unknown = scene.world.status_with(|status| status.policy = World::new().policy().id());
    serve_status(&scene, &unknown);
    scene.refused("policy-withheld");
    scene.publish_status();
    scene.server.behave();
    assert_eq!((scene.update().exit_code(), scene.current().unwrap()), (0, b"second".to_vec()));
}

#[test]
fn a_jump_of_epochs_is_refused() {
    let mut scene = Scene::installed(b"first");
    scene.release(b"second");
    let jump = scene.world.status_with(|status| status.position.epoch = u64::MAX);
    serve_status(&scene, &jump);
    scene.refused("epoch-jump");
    scene.publish_status();
    scene.server.behave();
    assert_eq!((scene.update().exit_code(), scene.current().unwrap()), (0, b"second".to_vec()));
}

#[test]
fn a_stolen_status_key_does_not_have_the_last_word() {
    let mut scene = Scene::installed(b"first");
    let outrun = scene.world.status_with(|status| {
        (status.position.epoch, status.position.sequence) = (1, 1_000);
    });
    serve_status(&scene, &outrun);
    assert_eq!(scene.update().exit_code(), 0);
    scene.server.behave();
    scene.publish_status();
    scene.refused("rollback");
    // A succession that leaves the key where it is changes nothing.
    let successor = scene.world.succeed(|_| {});
    scene.channel.publish_policy(scene.world.policy(), &successor).unwrap();
    scene.publish_status();
    scene.refused("rollback");
    assert_eq!(scene.status().policy_version, 2);
    // One that replaces it begins anew.
    let successor = scene.world.replace_status_key();
    scene.channel.publish_policy(scene.world.policy(), &successor).unwrap();
    scene.release(b"second");
    scene.publish_status();
    assert_eq!((scene.update().exit_code(), scene.current().unwrap()), (0, b"second".to_vec()));
    assert_eq!(scene.status().policy_version, 3);
    // And from here on nothing goes back.
    let newest = std::fs::read(scene.channel.folder().join("status/slow.bundle")).unwrap();
    scene.pass(DAY / 4);
    assert_eq!(scene.update().exit_code(), 0);
    scene.server.misbehave("status/", Manner::Bytes(newest));
    scene.refused("rollback");
}
