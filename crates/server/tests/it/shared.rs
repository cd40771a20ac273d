//! A domain of several machines: three front ends of one vendor on SeaweedFS and PostgreSQL, one of
//! which sequences. Whatever happens to it, acknowledged entries stay, each once, in one history.

pub(crate) mod balancer;
mod load;
mod once;
mod product;
mod release;
pub(crate) mod vendor;

use std::time::Duration;

use crate::process::Signal;
use crate::raw;
use crate::shared::load::{Load, STREAMS};
use crate::shared::vendor::Vendor;
use crate::statement::Place;

/// What an append may wait for a change of hands: the lease's end (5 s), a look at it (1 s), and
/// opening the log; the rest is for a machine that does much else.
const TAKE_OVER_MAX: Duration = Duration::from_secs(30);

#[test]
fn every_front_end_takes_appends_and_serves_one_log() {
    let mut vendor = Vendor::running("each");
    let load = Load::start(&vendor);
    load.until(30);
    let receipts = load.stop();
    let holder = vendor.holder();
    assert_eq!(vendor.fronts.len(), 3);
    let size = vendor.published();
    assert!((30..256).contains(&size), "{size}");
    for front in &vendor.fronts {
        let tile = raw::get(front.address(), &format!("/tile/0/000.p/{size}"));
        assert_eq!((tile.status, tile.body.len() as u64), (200, 32 * size));
    }
    let published: Vec<String> =
        vendor.fronts.iter().map(|front| raw::get(front.address(), "/checkpoint").text()).collect();
    assert!(published.iter().all(|text| *text == published[0]), "{published:#?}");

    // Who is stopped in order hands over at once: there is no lease to wait for.
    let stopped = vendor.fronts[holder].stop();
    assert_eq!(stopped.code, 0, "{stopped:?}");
    let load = Load::go_on(&vendor, receipts);
    load.until(60);
    let receipts = load.stop();
    assert!(receipts.longest < Duration::from_secs(20), "{:?}", receipts.longest);
    assert_ne!(vendor.holder(), holder);
    vendor.check(&receipts);
}

#[test]
fn a_sequencer_that_dies_under_load_is_replaced() {
    let mut vendor = Vendor::running("dies");
    let load = Load::start(&vendor);
    load.until(40);
    let holder = vendor.holder();
    load.leave_out(&vendor.fronts[holder]);
    vendor.fronts[holder].kill();
    load.until(120);
    let receipts = load.stop();
    println!("longest wait of an append: {:.1} s", receipts.longest.as_secs_f64());
    assert!(receipts.longest < TAKE_OVER_MAX, "{:?}", receipts.longest);
    assert_ne!(vendor.holder(), holder);
    vendor.check(&receipts);
}

#[test]
fn a_sequencer_that_slept_through_the_take_over_signs_nothing_more() {
    let mut vendor = Vendor::running("sleeps");
    let load = Load::start(&vendor);
    load.until(40);
    let asleep = vendor.holder();
    vendor.fronts[asleep].signal(Signal::SIGSTOP);
    load.leave_out(&vendor.fronts[asleep]);
    load.until(80);
    let holder = vendor.holder();
    assert_ne!(holder, asleep);
    let size = vendor.published();
    load.take_in(&vendor.fronts[asleep]);
    vendor.fronts[asleep].signal(Signal::SIGCONT);
    load.until(120);
    let receipts = load.stop();
    assert_eq!(vendor.holder(), holder, "the one that woke up follows");
    assert!(vendor.published() > size);
    // It has learnt that it lost, and serves what the other signs.
    let stopped = vendor.fronts[asleep].stop();
    assert_eq!(stopped.code, 0, "{stopped:?}");
    assert!(stopped.stderr.contains("this process sequences no more"), "{}", stopped.stderr);
    assert!(!stopped.stderr.contains("the log stops") || stopped.stderr.contains("another process has signed"));
    vendor.check(&receipts);
}

#[test]
fn services_that_restart_are_found_again() {
    let vendor = Vendor::on_services_of_its_own("restart");
    let load = Load::start(&vendor);
    load.until(20);
    vendor.postgres.kill();
    vendor.postgres.resume();
    load.until(load.acknowledged() + 20);
    vendor.seaweed.kill();
    vendor.seaweed.resume();
    load.until(load.acknowledged() + 20);
    let receipts = load.stop();
    vendor.check(&receipts);
}

#[test]
fn a_backup_of_shared_stores_is_made_tried_and_not_put_back_into_them() {
    let vendor = Vendor::running("backup");
    let load = Load::start(&vendor);
    load.until(10);
    vendor.check_backup(&load.stop());
}

#[test]
fn what_shared_stores_lack_is_said_before_anything_starts() {
    let vendor = Vendor::made("lacks");
    let config = "vendor/clerestory.toml";
    vendor.system.run(&["check-config", "--config", config]).ok();
    // The same stores again.
    let again = ["init", "vendor", "--dir", "again", "--organisation", "vendor", "--shared", "vendor.toml"];
    let done = vendor.system.run(&again);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stderr.contains("is there already; a store is never created over something else"), "{done:?}");

    // A secret that others can read; a bucket that isn't there; a password in the URL.
    let secret = vendor.system.file("s3-secret");
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let done = vendor.system.run(&["check-config", "--config", config]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stderr.contains("can be read by others"), "{done:?}");
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    vendor.system.set("vendor", "bucket = \"lacks\"", "bucket = \"nowhere\"");
    let done = vendor.system.run(&["fsck", "--config", config]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stderr.contains("there is no such bucket\nhint: make the bucket first"), "{done:?}");
    vendor.system.set("vendor", "postgres://clerestory@", "postgres://clerestory:secret@");
    let done = vendor.system.run(&["check-config", "--config", config]);
    assert_eq!(done.code, 2, "{done:?}");
    assert!(done.stderr.contains("holds a password"), "{done:?}");
    assert_eq!(STREAMS.len(), 4);
    assert_eq!(Place::vendor().sequence, 0);
}

#[test]
fn three_intakes_over_one_bucket_keep_each_batch_once_whichever_of_them_dies() {
    let mut vendor = Vendor::running("vault");
    let fronts: Vec<_> = vendor.fronts.iter().map(|front| front.address()).collect();
    let process = vendor.fronts[1].process();
    let acknowledged = crate::vault::acknowledged_under_load(&fronts, &vendor.system, || {
        nix::sys::signal::kill(process, Signal::SIGKILL).unwrap();
    });
    for front in &mut vendor.fronts {
        front.kill();
        front.hang_up();
    }
    // Each puts what it left behind into the store, all at once, and most of it another has, too.
    vendor.fronts.iter_mut().for_each(crate::process::Server::start);
    for front in &vendor.fronts {
        assert_eq!(raw::get(front.address(), "/healthz").status, 200);
    }
    let kept = crate::vault::read_at(fronts[2]);
    let once: std::collections::BTreeSet<&Vec<u8>> = kept.iter().collect();
    assert_eq!(once.len(), kept.len(), "none is there twice");
    assert!(acknowledged.iter().all(|text| once.contains(text)), "{} of {}", once.len(), acknowledged.len());
    vendor.fronts.iter_mut().for_each(crate::process::Server::kill);
    let checked = vendor.system.run(&["fsck", "--config", "vendor/clerestory.toml"]);
    assert!(!checked.stdout.contains("intake/"), "{checked:?}");
}
