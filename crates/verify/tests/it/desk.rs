//! An auditor compares each status with what its organisation has logged.

use std::time::Duration;

use attest::{Floor, Lane, Position, ReleaseNumber, Revocation, Statement, Stop, StopScope, Subject};
use policy::Role;
use stdx::{Clock as _, Digest};
use testkit::{PRODUCT, SUPERVISOR_LOG, World};
use tlog::EntryIndex;
use verify::{StreamChecker, ViolationKind};

use ViolationKind::{StatusLacks, StatusUnfounded};

/// Index and kind of what is wrong with statuses, as of now.
fn found(world: &World) -> Vec<(u64, ViolationKind)> {
    let mut checker = StreamChecker::new(world.policy(), world.supervisor_log.origin());
    for (index, entry) in (0..).zip(world.supervisor_log.entries()) {
        checker.entry(EntryIndex::new(index), entry);
    }
    let violations = checker.finish(world.clock.now()).into_iter();
    violations
        .filter(|it| it.kind != ViolationKind::Silent)
        .map(|it| (it.index.unwrap_or_else(|| panic!("{it}")), it.kind))
        .collect()
}

fn later(world: &mut World) {
    world.clock.advance(Duration::from_secs(600));
}

fn desk(world: &World) -> Position {
    world.position(SUPERVISOR_LOG, "desk/supervisor")
}

/// Logs the "no" without saying it in any status.
fn revoke(world: &mut World, content: &[u8], floor: Option<u64>) {
    let (product, floor) = (PRODUCT.parse().unwrap(), floor.map(ReleaseNumber::new));
    let predicate = Revocation { position: desk(world), product, floor, reason: "a test".to_owned() };
    let statement = Statement { subject: vec![Subject::new(PRODUCT, Digest::of(content))], predicate };
    world.sign_as(&statement, Role::Status, &["supervisor"]);
}

fn stop(world: &mut World, scope: StopScope, lifted: bool) {
    let predicate = Stop { position: desk(world), scope, lifted, reason: "a test".to_owned() };
    let statement = Statement { subject: vec![Subject::new("stop", Digest::of(b"stop"))], predicate };
    world.sign_as(&statement, Role::Status, &["supervisor"]);
}

fn product() -> StopScope {
    StopScope::Product(PRODUCT.parse().unwrap())
}

#[test]
fn a_status_that_says_what_was_logged_is_in_order() {
    let mut world = World::new();
    world.status();
    revoke(&mut world, b"bad", Some(3));
    world.revoked.push(Digest::of(b"bad"));
    world.floors.push(Floor { product: PRODUCT.parse().unwrap(), number: ReleaseNumber::new(3) });
    world.status();
    for scope in [product(), StopScope::Lane(Lane::Slow)] {
        stop(&mut world, scope.clone(), false);
        world.stops.push(scope.clone());
        world.status();
        world.status();
        stop(&mut world, scope, true);
        world.stops.clear();
        world.status();
        later(&mut world);
        world.status();
    }
    // Another lane's affairs need not be in this one's status.
    stop(&mut world, StopScope::Lane(Lane::Fast), false);
    world.status();
    world.status();
    later(&mut world);
    assert_eq!(found(&world), []);
}

#[test]
fn what_a_status_withholds_is_found() {
    // Index 0 is a status, 1 the "no"; 2 may have been made before it was said, 3 may not.
    let withheld = |say: &dyn Fn(&mut World)| {
        let mut world = World::new();
        world.status();
        say(&mut world);
        world.status();
        later(&mut world);
        assert_eq!(found(&world), [], "it may have been on its way");
        world.status();
        later(&mut world);
        world
    };
    let world = withheld(&|world| revoke(world, b"bad", None));
    assert_eq!(found(&world), [(3, StatusLacks)]);
    let mut world = withheld(&|world| revoke(world, b"bad", Some(2)));
    assert_eq!(found(&world), [(3, StatusLacks), (3, StatusLacks)], "the content and the floor");
    // Half of it is not enough, and it is said of each status.
    world.revoked.push(Digest::of(b"bad"));
    world.status();
    assert_eq!(found(&world), [(3, StatusLacks), (3, StatusLacks), (4, StatusLacks)]);
    for scope in [product(), StopScope::Lane(Lane::Slow)] {
        let mut world = withheld(&|world| stop(world, scope.clone(), false));
        assert_eq!(found(&world), [(3, StatusLacks)]);
        // It was lifted, and that was noted before it was logged.
        stop(&mut world, scope.clone(), true);
        assert_eq!(found(&world), []);
    }
}

#[test]
fn what_a_status_makes_up_is_found() {
    let unfounded = |change: &dyn Fn(&mut World)| {
        let mut world = World::new();
        change(&mut world);
        world.status();
        assert_eq!(found(&world), [], "it may be on its way to the log");
        later(&mut world);
        assert_eq!(found(&world), [(0, StatusUnfounded)]);
        world
    };
    let mut world = unfounded(&|world| world.revoked.push(Digest::of(b"good")));
    revoke(&mut world, b"another", None);
    assert_eq!(found(&world), [(0, StatusUnfounded)]);
    revoke(&mut world, b"good", None);
    assert_eq!(found(&world), [], "it was on its way for long");
    let four = Floor { product: PRODUCT.parse().unwrap(), number: ReleaseNumber::new(4) };
    let mut world = unfounded(&|world| world.floors.push(four.clone()));
    revoke(&mut world, b"bad", Some(3));
    assert_eq!(found(&world), [(0, StatusUnfounded)]);
    revoke(&mut world, b"bad", Some(5));
    assert_eq!(found(&world), []);
    let mut world = unfounded(&|world| world.stops.push(product()));
    stop(&mut world, product(), true);
    assert_eq!(found(&world), [(0, StatusUnfounded)], "a lift founds nothing");
    stop(&mut world, product(), false);
    assert_eq!(found(&world), []);
}

#[test]
fn a_lifted_stop_is_not_named_for_long() {
    let mut world = World::new();
    stop(&mut world, product(), false);
    world.stops.push(product());
    world.status();
    stop(&mut world, product(), true);
    world.status();
    later(&mut world);
    assert_eq!(found(&world), [], "made before the lift was noted, logged after");
    world.status();
    later(&mut world);
    assert_eq!(found(&world), [(4, StatusUnfounded)]);
}

#[test]
fn only_the_newest_status_may_be_ahead_and_only_by_a_little() {
    let mut world = World::new();
    world.revoked.push(Digest::of(b"good"));
    world.status();
    world.revoked.clear();
    world.status();
    assert_eq!(found(&world), [(0, StatusUnfounded)], "there is a newer one");
    // A date in the future buys no time.
    let mut world = World::new();
    world.revoked.push(Digest::of(b"good"));
    world.status_with(|status| status.position.time = status.position.time.after(Duration::from_secs(3600)));
    assert_eq!(found(&world), [(0, StatusUnfounded)]);
}
