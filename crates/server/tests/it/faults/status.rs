//! `clerestory status stop`, whose disk fails while the supervisor's server runs.

use attest::{Bundle, Lane, StopScope};
use testkit::Strace;
use verify::Evidence;

use super::trial::{Trial, again, audit, fsck, run_traced};
use crate::raw;
use crate::system::System;

const STATUS: &str = "/v1/status/slow";

fn status(system: &System) -> Vec<u8> {
    raw::get(system.supervisor.address(), STATUS).body
}

/// Witnesses and supervisor serve, and what the supervisor does when it starts is done.
fn start(system: &mut System, saved: &[u8]) {
    system.witnesses.iter_mut().for_each(crate::process::Server::start);
    system.supervisor.start();
    while status(system) == saved {}
}

/// What the newest status, which must verify, stops.
fn stops(system: &System) -> Vec<StopScope> {
    let policy = system.policy();
    let bundle = Bundle::parse(&status(system)).unwrap();
    let evidence = Evidence::open(&policy, &bundle).unwrap();
    let at = verify::Moment::new(&stdx::SystemClock::new(), stdx::UnixTime::EPOCH, policy.policy().ages.online());
    policy.current_status(&evidence, Lane::Slow, None, &at).unwrap().status().stops.clone()
}

#[test]
fn a_stop_survives_each_failed_call() {
    let system = System::with_releases();
    system.approved_build("1.0", b"content");
    let before = status(&system);
    assert_eq!(stops(&system), []);
    let mut trial = Trial::of(system);
    let config = trial.system.file("supervisor/clerestory.toml").display().to_string();
    let arguments = ["status", "stop", "--config", &config, "--product", "libexample", "--reason", "it must stop"];
    let stop = |system: &mut System, strace: &Strace| {
        start(system, &before);
        run_traced(system, strace, &arguments)
    };
    let calls = trial.calls("supervisor", |system, strace| {
        stop(system, strace).ok();
    });
    assert!(calls.iter().filter(|call| call.changes).count() > 10, "{calls:#?}");
    trial.each("status", &calls, 97, |system, strace, what| {
        let done = stop(system, strace);
        assert!(!done.stderr.contains("panicked"), "{what}: {done:?}");
        if done.code == 0 && strace.hits() == 0 {
            assert_eq!(stops(system).len(), 1, "{what}");
        }
        let again = again(system, &arguments);
        assert_eq!(again.code, 0, "{what}, then: {again:?}");
        assert_eq!(stops(system), [StopScope::Product("libexample".parse().unwrap())], "{what}");
        system.vendor.start();
        let audited = audit(system);
        assert_eq!(audited.code, 0, "{what}: {audited:?}");
        assert_eq!(system.supervisor.stop().code, 0, "{what}");
        let checked = fsck(system, "supervisor");
        assert_eq!(checked.code, 0, "{what}: {checked:?}");
    });
}
