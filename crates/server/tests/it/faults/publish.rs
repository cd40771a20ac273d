//! `clerestory release publish`, whose disk fails while all servers run.

use attest::{Bundle, BundleEntry, Envelope, Lane, Release, Statement};
use channel::Channel;
use channel::layout::Product;
use testkit::Strace;

use super::trial::{Trial, again, audit, fsck, run_traced};
use crate::process::Server;
use crate::raw;
use crate::system::System;

const TIMESTAMP: &str = "/channel/metadata/timestamp.json";

fn timestamp(system: &System) -> Vec<u8> {
    raw::get(system.vendor.address(), TIMESTAMP).body
}

/// Everything serves, and what servers do when they start is done.
fn start(system: &mut System, saved: &[u8]) {
    system.witnesses.iter_mut().for_each(Server::start);
    system.supervisor.start();
    system.vendor.start();
    while timestamp(system) == saved {}
}

/// What the channel offers: numbers of releases, each with its bundle.
fn offered(system: &System) -> Vec<(u64, Vec<u8>)> {
    let channel = Channel::open(&system.file("vendor/channel")).unwrap();
    let id = "libexample".parse().unwrap();
    let product = Product { lane: Lane::Slow, id: &id };
    let targets = &channel.repository().delegated(&channel::layout::role(Lane::Slow)).unwrap().content().targets;
    let releases = channel.releases(product).unwrap();
    let numbers = releases.releases().iter().map(|listed| listed.number);
    numbers
        .map(|number| {
            let path = product.bundle(number);
            let location = tuf::Repository::location(&path, &targets[path.as_str()]).to_string();
            (number.get(), std::fs::read(system.file("vendor/channel").join(location)).unwrap())
        })
        .collect()
}

fn release(entries: &[BundleEntry]) -> Release {
    let envelope: &Envelope = &entries[0].envelope;
    Statement::<Release>::decode(envelope.payload()).unwrap().predicate
}

#[test]
fn a_publication_survives_each_failed_call() {
    let system = System::with_releases();
    system.approved_build("1.0", b"content");
    let before = timestamp(&system);
    let mut trial = Trial::of(system);
    let config = trial.system.file("vendor/clerestory.toml").display().to_string();
    let arguments = ["release", "publish", "--config", &config, "libexample", "1.0"];
    let publish = |system: &mut System, strace: &Strace| {
        start(system, &before);
        run_traced(system, strace, &arguments)
    };
    let calls = trial.calls("vendor", |system, strace| {
        publish(system, strace).ok();
    });
    assert!(calls.iter().filter(|call| call.changes).count() > 50, "{calls:#?}");
    trial.each("publish", &calls, 251, |system, strace, what| {
        let done = publish(system, strace);
        assert!(!done.stderr.contains("panicked"), "{what}: {done:?}");
        // Whoever reads the channel meanwhile sees the release wholly, or not at all.
        assert!(offered(system).len() <= 1, "{what}");
        let again = again(system, &arguments);
        assert_eq!(again.code, 0, "{what}, then: {again:?}");
        let offered = offered(system);
        assert_eq!(offered.iter().map(|it| it.0).collect::<Vec<_>>(), [1], "{what}");
        let bundle = Bundle::parse(&offered[0].1).unwrap();
        let says = release(bundle.entries());
        assert_eq!((says.number.get(), says.previous), (1, None), "{what}");
        let audited = audit(system);
        assert_eq!(audited.code, 0, "{what}: {audited:?}");
        for role in ["vendor", "supervisor"] {
            let server = if role == "vendor" { &mut system.vendor } else { &mut system.supervisor };
            assert_eq!(server.stop().code, 0, "{what}");
            let checked = fsck(system, role);
            assert_eq!(checked.code, 0, "{what}: {checked:?}");
        }
        // What the next publication needs is not in the way of it.
        let left = files(&system.file("vendor/channel")).into_iter().filter(|name| name.starts_with(".tmp-"));
        assert_eq!(left.collect::<Vec<_>>(), [""; 0], "{what}");
    });
}

/// Names of files below `folder`.
fn files(folder: &std::path::Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names.extend(files(&path));
        } else {
            names.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    names
}
