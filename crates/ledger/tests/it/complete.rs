//! What is missing, or does not agree, is said.

use attest::{AccessOutcome, CustodyReport, Ended};
use ledger::{FindingKind, Index};
use policy::Role;
use testkit::{OPEN_CLASS, REGION, SUPERVISOR_LOG};

use crate::scene::{BUDGET, Scene};

/// The kinds of what was found in entries, in order. Streams of which a scene has none are silent.
fn kinds(scene: &Scene, index: &Index) -> Vec<FindingKind> {
    let (findings, more) = index.findings(scene.world.policy(), scene.now());
    assert_eq!(more, 0);
    findings.into_iter().filter(|it| it.entry.is_some()).map(|it| it.kind).collect()
}

fn found(make: impl FnOnce(&mut Scene)) -> Vec<FindingKind> {
    let mut scene = Scene::new();
    make(&mut scene);
    kinds(&scene, &scene.index())
}

#[test]
fn nothing_is_wrong_with_what_is_right() {
    let right = found(|scene| {
        scene.access("Ada", &["DE"], 5);
        scene.report("member", 1, 2);
        scene.report("supervisor", 1, 2);
        scene.review(|_| {});
        scene.access("Ada", &["DE", "JP"], 5);
        // Of what was done while it was written a report need not know.
        scene.report("member", 1, 2);
        scene.report("member", 2, 4);
    });
    assert_eq!(right, []);
}

#[test]
fn an_intent_that_nobody_asked_for_or_approved_is_found() {
    let unasked = found(|scene| {
        let asked = scene.request("Ada", &["DE"]).envelope;
        let other = scene.approve(asked.id(), "supervisor").0;
        scene.intent(other.id(), |_| {});
    });
    assert_eq!(unasked, [FindingKind::NoRequest]);
    let unapproved = found(|scene| {
        let asked = scene.request("Ada", &["DE"]).envelope;
        scene.approve(asked.id(), "vendor");
        scene.intent(asked.id(), |_| {});
    });
    assert_eq!(unapproved, [FindingKind::NotApproved], "another organisation's approval is not enough");
    let open = found(|scene| {
        let asked = scene.request_as("Ada", &["DE"], |it| it.class = OPEN_CLASS.parse().unwrap()).envelope;
        scene.intent(asked.id(), |it| it.class = OPEN_CLASS.parse().unwrap());
    });
    assert_eq!(open, [], "a class that needs none");
}

#[test]
fn more_than_was_asked_for_is_found() {
    let change: [fn(&mut attest::AccessIntent); 3] = [
        |it| it.budget.rows += 1,
        |it| it.countries = vec!["JP".parse().unwrap()],
        |it| it.class = OPEN_CLASS.parse().unwrap(),
    ];
    for change in change {
        let more = found(|scene| {
            let asked = scene.request("Ada", &["DE"]).envelope;
            scene.approve(asked.id(), "supervisor");
            scene.intent(asked.id(), change);
        });
        assert_eq!(more, [FindingKind::Budget]);
    }
    let more = found(|scene| drop(scene.access("Ada", &["DE"], BUDGET.rows + 1)));
    assert_eq!(more, [FindingKind::Budget], "given out");
}

#[test]
fn an_outcome_without_an_intent_and_an_intent_without_an_outcome_are_found() {
    let mut scene = Scene::new();
    let asked = scene.request("Ada", &["DE"]).envelope;
    scene.approve(asked.id(), "supervisor");
    let intent = scene.intent(asked.id(), |_| {}).id();
    scene.outcome(asked.id(), Ended::Done, 1);
    let mut index = scene.index();
    assert_eq!(kinds(&scene, &index), [FindingKind::NoIntent]);
    scene.wait(600 + 600);
    assert_eq!(kinds(&scene, &index), [FindingKind::NoIntent], "there is time until now");
    scene.wait(1);
    assert_eq!(kinds(&scene, &index), [FindingKind::NoIntent, FindingKind::NoOutcome]);
    scene.outcome(intent, Ended::Done, 1);
    scene.outcome(intent, Ended::Done, 1);
    scene.read(&mut index);
    assert_eq!(kinds(&scene, &index), [FindingKind::NoIntent; 2], "a second one is one of no intent");
}

#[test]
fn a_custodian_that_opens_without_an_entry_shows_in_its_own_report() {
    let without = |uses, opened| {
        found(|scene| {
            scene.access("Ada", &["DE"], 5);
            scene.report("member", uses, opened);
        })
    };
    assert_eq!(without(1, 2), []);
    assert_eq!(without(2, 2), [FindingKind::OpenedMore], "an intent too many");
    assert_eq!(without(1, 3), [FindingKind::OpenedMore], "an object too many");
    let less = found(|scene| {
        scene.access("Ada", &["DE"], 5);
        scene.report("member", 1, 2);
        scene.report("member", 0, 0);
    });
    assert_eq!(less, [FindingKind::OpenedLess], "it was set back");
    let hidden = found(|scene| {
        scene.access("Ada", &["DE"], 5);
        scene.report("member", 0, 0);
        scene.report("member", 0, 0);
    });
    assert_eq!(hidden, [FindingKind::OpenedLess], "there was a result, so it must have opened something");
}

#[test]
fn gaps_silence_and_the_wrong_hand_are_found() {
    let gap = found(|scene| {
        let mut position = scene.world.position(SUPERVISOR_LOG, "custody/member");
        position.sequence += 1;
        let report = CustodyReport {
            position,
            region: REGION.parse().unwrap(),
            uses: 0,
            opened: 0,
            moved: 0,
            missing: Vec::new(),
        };
        scene.record("uses", report, ("member", Role::Custodian));
    });
    assert_eq!(gap, [FindingKind::Gap]);
    let hand = found(|scene| {
        let asked = scene.request("Ada", &["DE"]).envelope;
        scene.approve(asked.id(), "supervisor");
        let intent = scene.intent(asked.id(), |_| {}).id();
        let position = scene.world.position(SUPERVISOR_LOG, "access/supervisor");
        let outcome = AccessOutcome { position, intent, ended: Ended::Done, rows: 0, bytes: 0 };
        scene.record("result", outcome, ("supervisor", Role::Recorder));
    });
    assert_eq!(hand, [FindingKind::Entry], "signed by the right organisation, in another role");
    let mut scene = Scene::new();
    scene.report("member", 0, 0);
    let index = scene.index();
    let silent = |scene: &Scene| {
        let (findings, _) = index.findings(scene.world.policy(), scene.now());
        findings.iter().filter(|it| it.detail.contains("`custody/member`")).count()
    };
    assert_eq!(silent(&scene), 0);
    scene.wait(24 * 3600 + 1);
    assert_eq!(silent(&scene), 1);
}
