//! One file from a stick.

use attest::Ring;
use channel::{ExportRequest, write_export};
use testkit::{OTHER_PRODUCT, PRODUCT, ReleaseOptions};

use crate::scene::{DAY, Scene};
use crate::server::Manner;

fn export(scene: &Scene, products: &[&str]) -> Vec<u8> {
    let products: Vec<_> = products.iter().map(|id| id.parse().unwrap()).collect();
    let mut bytes = Vec::new();
    write_export(&scene.channel, &ExportRequest { products: &products, ring: Ring::All }, &mut bytes).unwrap();
    bytes
}

#[test]
fn an_import_installs_without_a_network() {
    let mut scene = Scene::new();
    scene.release_with(OTHER_PRODUCT, b"other", &ReleaseOptions::default());
    scene.release(b"first");
    scene.publish_status();
    let first = export(&scene, &[OTHER_PRODUCT, PRODUCT]);
    scene.server.misbehave("/", Manner::Status(503));
    let report = scene.import(&first).unwrap();
    assert_eq!((report.exit_code(), scene.current().unwrap()), (0, b"first".to_vec()), "{report:?}");
    assert!(!scene.config.install.join(OTHER_PRODUCT).exists(), "the owner does not want it");
    // The same again changes nothing.
    assert!(scene.import(&first).unwrap().changes.is_empty());
    scene.release(b"second");
    scene.publish_status();
    scene.import(&export(&scene, &[PRODUCT])).unwrap();
    assert_eq!(scene.current().unwrap(), b"second");
    assert!(scene.status().logs.iter().any(|log| log.gap), "the quorum stood in, and that is remembered");
    // An older stick does not bring the older release back.
    let report = scene.import(&first).unwrap();
    assert!(report.has("rollback"), "{report:?}");
    assert_eq!(scene.current().unwrap(), b"second");
}

#[test]
fn a_stick_that_is_too_old_is_refused() {
    let mut scene = Scene::installed(b"first");
    scene.release(b"second");
    scene.publish_status();
    let stick = export(&scene, &[PRODUCT]);
    scene.world.clock.advance(31 * DAY);
    let report = scene.import(&stick).unwrap();
    assert_eq!((report.exit_code(), scene.current().unwrap()), (1, b"first".to_vec()));
}

#[test]
fn a_stick_may_be_as_old_as_the_policy_and_the_owner_allow() {
    let mut scene = Scene::installed(b"first");
    scene.release(b"second");
    scene.publish_status();
    let stick = export(&scene, &[PRODUCT]);
    scene.world.clock.advance(10 * DAY);
    let older_than_wanted = format!("[ages]\nimport_s = {}\n", 5 * DAY.as_secs());
    scene.reconfigure(&older_than_wanted);
    let report = scene.import(&stick).unwrap();
    assert!(report.has("stale"), "{report:?}");
    assert_eq!(scene.current().unwrap(), b"first");
    // The policy's thirty days.
    scene.reconfigure("");
    let report = scene.import(&stick).unwrap();
    assert_eq!((report.exit_code(), scene.current().unwrap()), (0, b"second".to_vec()), "{report:?}");
}

#[test]
fn a_stick_without_the_policy_that_its_status_names_changes_nothing() {
    let mut scene = Scene::installed(b"first");
    let successor = scene.world.succeed(|_| {});
    scene.release(b"second");
    scene.publish_status();
    let report = scene.import(&export(&scene, &[PRODUCT])).unwrap();
    assert!(report.has("policy-withheld"), "{report:?}");
    assert_eq!((report.exit_code(), scene.current().unwrap()), (1, b"first".to_vec()));
    scene.channel.publish_policy(scene.world.policy(), &successor).unwrap();
    let report = scene.import(&export(&scene, &[PRODUCT])).unwrap();
    assert_eq!((report.exit_code(), scene.current().unwrap()), (0, b"second".to_vec()), "{report:?}");
}

#[test]
fn a_damaged_stick_changes_nothing() {
    let mut scene = Scene::installed(b"first");
    scene.release(b"second");
    scene.publish_status();
    let good = export(&scene, &[PRODUCT]);
    for at in (0..good.len()).step_by(97).chain(good.len() - 6..good.len()) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        let refused = scene.import(&bad).map_or(true, |report| report.exit_code() != 0);
        assert!(refused, "byte {at}");
        assert_eq!(scene.current().unwrap(), b"first", "byte {at}");
    }
    for length in (0..good.len()).step_by(211) {
        assert!(scene.import(&good[..length]).map_or(true, |report| report.exit_code() != 0), "{length} bytes");
        assert_eq!(scene.current().unwrap(), b"first");
    }
    scene.import(&good).unwrap();
    assert_eq!(scene.current().unwrap(), b"second");
}
