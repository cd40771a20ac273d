use std::time::Duration;

use attest::{Envelope, Heartbeat, Position, Statement, Subject};
use policy::Role;
use stdx::{Clock as _, Digest};
use testkit::{PRODUCT, VENDOR_LOG, World};
use tlog::EntryIndex;
use verify::{StreamChecker, ViolationKind};

/// The violations of the vendor's log with respect to the assembly stream.
fn violations(world: &World) -> Vec<ViolationKind> {
    let mut checker = StreamChecker::new(world.policy(), world.vendor_log.origin());
    for (index, entry) in (0..).zip(world.vendor_log.entries()) {
        checker.entry(EntryIndex::new(index), entry);
    }
    let of_assembly = |stream: Option<&str>| stream.is_none_or(|stream| stream == "assembly/vendor" || stream == "odd");
    checker
        .finish(world.clock.now())
        .into_iter()
        .filter(|violation| of_assembly(violation.stream.as_ref().map(attest::StreamName::as_str)))
        .map(|violation| violation.kind)
        .collect()
}

fn heartbeat(position: Position) -> Statement<Heartbeat> {
    let subject = vec![Subject::new("stream", Digest::of(b"stream"))];
    Statement { subject, predicate: Heartbeat { position, interval_s: 60 } }
}

fn beat(world: &mut World, change: impl FnOnce(&mut Position)) -> Envelope {
    let mut position = world.position(VENDOR_LOG, "assembly/vendor");
    change(&mut position);
    world.sign_as(&heartbeat(position), Role::Recorder, &["vendor"])
}

fn world() -> World {
    let mut world = World::new();
    world.release(PRODUCT, "1.0", &[("a", b"a")]);
    world
}

#[test]
fn a_complete_stream_has_no_violation() {
    let mut world = world();
    beat(&mut world, |_| {});
    assert_eq!(violations(&world), []);
}

#[test]
fn each_kind_of_hole_is_seen() {
    let seen_after = |change: &dyn Fn(&mut World)| {
        let mut world = world();
        change(&mut world);
        violations(&world)
    };
    let with = |change: fn(&mut Position)| move |world: &mut World| drop(beat(world, change));
    assert_eq!(seen_after(&with(|position| position.sequence += 1)), [ViolationKind::Missing]);
    assert_eq!(seen_after(&with(|position| position.sequence -= 1)), [ViolationKind::Doubled]);
    assert_eq!(seen_after(&with(|position| position.previous = None)), [ViolationKind::Unchained]);
    assert_eq!(
        seen_after(&with(|position| position.log = testkit::SUPERVISOR_LOG.parse().unwrap())),
        [],
        "it went to the other log, where it belongs"
    );
    assert_eq!(seen_after(&with(|position| position.stream = "odd".parse().unwrap())), [ViolationKind::UnknownStream]);
    assert_eq!(
        seen_after(&|world| {
            world.vendor_log.append(b"{}".to_vec());
        }),
        [ViolationKind::Unreadable]
    );
    assert_eq!(
        seen_after(&|world| {
            let position = world.position(VENDOR_LOG, "assembly/vendor");
            world.sign_as(&heartbeat(position), Role::Recorder, &["supervisor"]);
        }),
        [ViolationKind::WrongSigner]
    );
    assert_eq!(
        seen_after(&|world| {
            let position = world.position(testkit::SUPERVISOR_LOG, "assembly/vendor");
            let envelope =
                Envelope::sign(heartbeat(position).encode().unwrap(), &[world.vendor.key(Role::Recorder)]).unwrap();
            world.vendor_log.append(envelope.to_bytes());
        }),
        [ViolationKind::WrongLog]
    );
    assert_eq!(
        seen_after(&|world| world.clock.advance(Duration::from_secs(24 * 60 * 60 + 1))),
        [ViolationKind::Silent]
    );
}

#[test]
fn a_new_epoch_begins_at_zero_and_names_the_old_end() {
    let mut world = world();
    beat(&mut world, |position| {
        position.epoch = 1;
        position.sequence = 0;
    });
    assert_eq!(violations(&world), []);
    let mut world = self::world();
    beat(&mut world, |position| {
        position.epoch = 1;
        position.sequence = 3;
    });
    assert_eq!(violations(&world), [ViolationKind::Missing]);
}

#[test]
fn a_skipped_epoch_is_a_hole() {
    let mut world = world();
    beat(&mut world, |position| {
        position.epoch = 2;
        position.sequence = 0;
    });
    assert_eq!(violations(&world), [ViolationKind::Missing]);
}

#[test]
fn a_stream_begins_at_its_very_beginning() {
    let follow = |(epoch, sequence): (u64, u64), previous| {
        let position = Position { epoch, sequence, previous, ..World::new().position(VENDOR_LOG, "assembly/vendor") };
        StreamChecker::follow(None, &position).map_err(|(kind, _)| kind)
    };
    assert_eq!(follow((0, 0), None), Ok(()));
    assert_eq!(follow((0, 1), None), Err(ViolationKind::Missing));
    assert_eq!(follow((1, 0), None), Err(ViolationKind::Missing));
    assert_eq!(follow((u64::MAX, u64::MAX), None), Err(ViolationKind::Missing));
    assert_eq!(follow((0, 0), Some(attest::StatementId::of(b"other"))), Err(ViolationKind::Unchained));
}

#[test]
fn nothing_follows_the_largest_number_but_the_next_epoch() {
    const MAX: u64 = u64::MAX;
    let id = attest::StatementId::of(b"end");
    let at = |(epoch, sequence): (u64, u64)| Position {
        epoch,
        sequence,
        previous: Some(id),
        ..World::new().position(VENDOR_LOG, "assembly/vendor")
    };
    let follow = |end: (u64, u64), next: (u64, u64)| StreamChecker::follow(Some((&at(end), id)), &at(next));
    let refused = |end, next| follow(end, next).unwrap_err();
    assert_eq!(follow((0, MAX - 1), (0, MAX)), Ok(()));
    assert_eq!(follow((0, MAX), (1, 0)), Ok(()));
    assert_eq!(follow((MAX - 1, 3), (MAX, 0)), Ok(()));
    assert_eq!(
        refused((0, MAX), (0, MAX)),
        (ViolationKind::Doubled, format!("number {MAX} of epoch 0 where no number is left"))
    );
    assert_eq!(refused((0, MAX), (0, 0)).0, ViolationKind::Doubled);
    assert_eq!(refused((MAX, MAX), (0, 0)).0, ViolationKind::Doubled);
    assert_eq!(refused((MAX, MAX), (MAX, MAX)).0, ViolationKind::Doubled);
    assert_eq!(
        refused((0, 1), (0, MAX)),
        (ViolationKind::Missing, format!("number {MAX} of epoch 0 where number 2 of epoch 0 was due"))
    );
    assert_eq!(
        refused((0, 1), (MAX, 0)),
        (ViolationKind::Missing, format!("number 0 of epoch {MAX} where number 0 of epoch 1 was due"))
    );
}

#[test]
fn the_largest_numbers_are_reported_and_do_no_harm() {
    for (epoch, sequence) in [(0, u64::MAX), (u64::MAX, u64::MAX)] {
        let mut world = world();
        let position = Position { epoch, sequence, ..world.position(VENDOR_LOG, "assembly/vendor") };
        let payload = heartbeat(position).encode().unwrap();
        let recorder = world.vendor.key(Role::Recorder);
        let largest = Envelope::sign(payload, &[recorder]).unwrap().to_bytes();
        for _ in 0..2 {
            world.vendor_log.append(largest.clone());
        }
        assert_eq!(violations(&world), [ViolationKind::Missing, ViolationKind::Doubled], "{epoch} {sequence}");
    }
}
