//! What an endpoint does when nobody means harm.

use agent::{Change, Config, Endpoint, Ports, RealDisk};
use attest::{Floor, Promotion, ReleaseNumber, Ring, Statement, StopScope};
use policy::Role;
use stdx::{Digest, SystemClock};
use testkit::{OTHER_PRODUCT, PRODUCT, ReleaseOptions, VENDOR_LOG};

use crate::scene::{DAY, Scene, active, write};

#[test]
fn the_sample_is_a_configuration() {
    let text = include_str!("../../../../docs/samples/agent.toml");
    let config = Config::parse(text).unwrap();
    assert_eq!((config.channel.len(), config.logs.len(), config.products.len()), (2, 2, 3));
    for (good, bad) in [
        ("ring = \"all\"", "ring = \"everyone\""),
        ("interval_s = 3600", "interval_s = 0"),
        ("timeout_s = 30\n#", "timeout_ms = 30\n#"),
        ("id = \"libcjson\"", "id = \"clerestory-verify\""),
        ("channel = [\"https", "channel = [\"ftp"),
        ("failures = 3", "failures = 0"),
        ("rules = \"signature-base\"\nfolders", "rules = \"libother\"\nfolders"),
    ] {
        assert!(text.contains(good), "{good}");
        assert!(Config::parse(&text.replacen(good, bad, 1)).is_err(), "{bad}");
    }
}

#[test]
fn releases_are_installed_into_two_slots_in_turn() {
    let mut scene = Scene::installed(b"first");
    scene.release(b"second");
    let report = scene.update();
    assert!(matches!(&report.changes[..], [Change::Installed { number, .. }] if number.get() == 2), "{report:?}");
    assert_eq!(scene.current().unwrap(), b"second");
    assert_eq!(scene.status().products[0].previous, Some(ReleaseNumber::FIRST));
    // Nothing new, nothing done.
    assert!(scene.update().changes.is_empty());
    scene.release(b"third");
    scene.update();
    assert_eq!(scene.current().unwrap(), b"third");
    assert_eq!(scene.status().exit_code(), 0);
    assert!(scene.journal().contains("\"event\":\"installed\""));
}

#[test]
fn a_product_that_the_owner_did_not_name_is_never_installed() {
    let mut scene = Scene::new();
    scene.release_with(OTHER_PRODUCT, b"other", &ReleaseOptions::default());
    scene.release(b"first");
    scene.update();
    let found: Vec<_> = std::fs::read_dir(&scene.config.install).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(found, [PRODUCT]);
}

#[test]
fn a_release_waits_for_its_ring() {
    let mut scene = Scene::installed(b"first");
    let options = ReleaseOptions { ring: Ring::Canary, ..ReleaseOptions::default() };
    let mut released = scene.release_with(PRODUCT, b"second", &options);
    let report = scene.update();
    assert_eq!((report.exit_code(), scene.current().unwrap()), (0, b"first".to_vec()));

    let promotion = Promotion {
        position: scene.world.position(VENDOR_LOG, "release/vendor"),
        product: PRODUCT.parse().unwrap(),
        release: released.release.id(),
        ring: Ring::All,
    };
    let statement = Statement { subject: released.build.outputs.clone(), predicate: promotion };
    let promotion = scene.world.sign_as(&statement, Role::Release, &["vendor", "supervisor"]);
    released.bundle = released.bundle.with(&scene.world.bundle(&[(VENDOR_LOG, &promotion)])).unwrap();
    scene.publish(&released, b"second");
    scene.update();
    assert_eq!(scene.current().unwrap(), b"second");
}

#[test]
fn a_canary_takes_what_others_wait_for() {
    let mut scene = Scene::new();
    scene.reconfigure("ring = \"canary\"\n");
    let options = ReleaseOptions { ring: Ring::Canary, ..ReleaseOptions::default() };
    scene.release_with(PRODUCT, b"early", &options);
    scene.update();
    assert_eq!(scene.current().unwrap(), b"early");
    assert!(scene.journal().contains("owner-changed"));
}

#[test]
fn a_revoked_release_gives_way_to_the_one_before() {
    let mut scene = Scene::installed(b"first");
    scene.release(b"second");
    scene.update();
    scene.world.revoked.push(Digest::of(b"second"));
    scene.pass(DAY / 4);
    let report = scene.update();
    assert!(report.changes.iter().any(|it| matches!(it, Change::Reverted { .. })), "{report:?}");
    assert_eq!(scene.current().unwrap(), b"first");
    // And the one before it when that is revoked as well: there is nothing that may run.
    scene.world.revoked.push(Digest::of(b"first"));
    scene.pass(DAY / 4);
    let report = scene.update();
    assert!(report.changes.iter().any(|it| matches!(it, Change::Disabled { .. })), "{report:?}");
    assert_eq!((report.exit_code(), scene.current(), scene.status().exit_code()), (1, None, 1));
    // Until a newer one comes.
    scene.release(b"third");
    scene.update();
    assert_eq!(scene.current().unwrap(), b"third");
    assert_eq!(scene.status().exit_code(), 0);
}

#[test]
fn a_revoked_release_is_not_installed() {
    let mut scene = Scene::installed(b"first");
    scene.world.revoked.push(Digest::of(b"second"));
    scene.release(b"second");
    scene.pass(DAY / 4);
    scene.refused("revoked");
}

#[test]
fn below_the_floor_there_is_no_way_back() {
    let mut scene = Scene::installed(b"first");
    scene.release(b"second");
    scene.update();
    scene.world.floors.push(Floor { product: PRODUCT.parse().unwrap(), number: ReleaseNumber::new(2) });
    scene.pass(DAY / 4);
    assert_eq!(scene.update().exit_code(), 0);
    // The files of the release in use are altered; the one before may not run any more.
    let product = scene.config.install.join(PRODUCT).join("current/product");
    stdx::durable::write(&product, b"altered").unwrap();
    let report = scene.check();
    assert!(report.has("unhealthy") && report.has("no-way-back"), "{report:?}");
    assert_eq!(active(&scene).unwrap().number.get(), 2);
}

#[test]
fn altered_files_are_put_back() {
    let mut scene = Scene::installed(b"first");
    scene.release(b"second");
    scene.update();
    assert_eq!(scene.check().exit_code(), 0);
    let product = scene.config.install.join(PRODUCT).join("current/product");
    stdx::durable::write(&product, b"altered").unwrap();
    let report = scene.check();
    assert_eq!(report.exit_code(), 1);
    assert_eq!(scene.current().unwrap(), b"first");
}

#[test]
fn during_a_stop_nothing_new_is_installed() {
    let mut scene = Scene::installed(b"first");
    scene.world.stops.push(StopScope::Product(PRODUCT.parse().unwrap()));
    scene.release(b"second");
    scene.pass(DAY / 4);
    scene.refused("stopped");
    scene.world.stops.clear();
    scene.pass(DAY / 4);
    scene.update();
    assert_eq!(scene.current().unwrap(), b"second");
}

/// Two executables: one that works and one that does not.
#[test]
fn a_crash_loop_puts_the_previous_release_back_and_keeps_it() {
    let (good, bad) = (&b"#!/bin/sh\nexit 0\n"[..], &b"#!/bin/sh\nexit 3\n"[..]);
    let mut scene = Scene::new();
    scene.reconfigure("[product.health]\ncommand = [\"./product\"]\nfailures = 3\nwindow_s = 600\n");
    scene.release(good);
    scene.update();
    assert_eq!(scene.check().exit_code(), 0);
    scene.release(bad);
    scene.update();
    for _ in 0..2 {
        assert!(scene.check().changes.is_empty());
        assert_eq!(scene.current().unwrap(), bad);
    }
    // Failures out of the window don't count.
    scene.world.clock.advance(DAY / 48);
    for _ in 0..2 {
        assert!(scene.check().changes.is_empty());
    }
    let report = scene.check();
    assert!(matches!(&report.changes[..], [Change::Reverted { .. }]), "{report:?}");
    assert_eq!(scene.current().unwrap(), good);
    assert_eq!(scene.check().exit_code(), 0);
    // The channel still offers it; this machine knows better.
    assert_eq!((scene.update().exit_code(), scene.current().unwrap()), (0, good.to_vec()));
    let newer = b"#!/bin/sh\nexit 0 # newer\n";
    scene.release(newer);
    scene.update();
    assert_eq!(scene.current().unwrap(), newer);
}

#[test]
fn a_health_command_that_hangs_or_is_missing_has_failed() {
    let mut scene = Scene::new();
    scene.release(b"content");
    scene.update();
    for command in ["[\"/bin/sleep\", \"60\"]", "[\"./missing\"]"] {
        scene.reconfigure(&format!("[product.health]\ncommand = {command}\ntimeout_s = 1\n"));
        let clock = SystemClock::new();
        let ports = Ports { clock: &clock, ..scene.ports(&RealDisk) };
        let report = Endpoint::open(&scene.config, ports).unwrap().check().unwrap();
        assert!(report.has("unhealthy"), "{report:?}");
    }
}

/// What an hourly look costs when there is nothing new.
#[test]
fn a_look_that_finds_nothing_is_small() {
    let mut scene = Scene::installed(b"first");
    scene.pass(DAY / 24);
    scene.update();
    scene.pass(DAY / 24);
    scene.server.traffic();
    let report = scene.update();
    assert_eq!(report.exit_code(), 0, "{report:?}");
    let (bytes, requests) = scene.server.traffic();
    assert!(bytes <= 3_072, "{bytes} bytes");
    assert_eq!(requests, 4, "policy, status, root, timestamp");
    // A status that is known is not sent again.
    assert_eq!(scene.update().exit_code(), 0);
    let (bytes, requests) = scene.server.traffic();
    assert!(bytes <= 1_024, "{bytes} bytes");
    assert_eq!(requests, 4);
}

/// The next policy, signed by both organisations, is followed; one that only the vendor signed is not.
#[test]
fn policies_succeed_only_by_both_organisations() {
    let mut scene = Scene::installed(b"first");
    let alone = scene.succession(&["vendor"]);
    write(scene.channel.folder(), "policy/2.bundle", &alone.to_bytes());
    assert!(scene.update().has("signatures-missing"));
    assert_eq!(scene.status().policy_version, 1);
    let both = scene.world.succeed(|_| {});
    write(scene.channel.folder(), "policy/2.bundle", &both.to_bytes());
    scene.publish_status();
    let report = scene.update();
    assert!(matches!(&report.changes[..], [Change::Policy { version: 2 }]), "{report:?}");
    assert_eq!((report.exit_code(), scene.status().policy_version), (0, 2));
    // It stays in force without the channel's help, and releases go on under it.
    scene.release(b"second");
    scene.update();
    assert_eq!((scene.status().policy_version, scene.current().unwrap()), (2, b"second".to_vec()));
}

#[test]
fn a_newer_versions_state_is_refused_and_left_alone() {
    let scene = Scene::installed(b"first");
    let format = scene.config.state.join("format");
    assert_eq!(std::fs::read_to_string(&format).unwrap(), "clerestory-agent state 1\n");
    let ports = || scene.ports(&RealDisk);
    // One that was made before there was this file is of the first format.
    std::fs::remove_file(&format).unwrap();
    Endpoint::open(&scene.config, ports()).map(drop).unwrap();
    write(&scene.config.state, "format", b"clerestory-agent state 2\n");
    let files = || -> Vec<_> {
        let entries = std::fs::read_dir(&scene.config.state).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_file()).map(|path| (std::fs::read(&path).unwrap(), path)).collect()
    };
    let before = files();
    for outcome in [Endpoint::open(&scene.config, ports()), Endpoint::read(&scene.config, ports())] {
        let failure = outcome.map(drop).unwrap_err();
        assert_eq!(failure.code, "state-newer");
        assert!(failure.message.contains("has format 2, and this version knows only 1"), "{failure}");
    }
    assert_eq!(files(), before);
    write(&scene.config.state, "format", b"something else\n");
    assert_eq!(Endpoint::open(&scene.config, ports()).map(drop).unwrap_err().code, "state");
}
