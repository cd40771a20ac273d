//! Once each, on record before the key, and not without an outcome for long.

use std::time::Duration;

use attest::{AccessOutcome, Ended, Standing, Subject};
use custody::{LedgerError, OUTCOME_GRACE};
use policy::Role;
use stdx::Digest;
use testkit::SUPERVISOR_LOG;
use verify::Evidence;

use crate::grant::ledger;
use crate::scene::Scene;

#[tokio::test]
async fn an_intent_is_used_once_and_a_request_as_often_as_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = ledger(folder.path(), "state.sqlite").await;
    let mut scene = Scene::new();
    scene.plan.standing = Some(Standing { code: Digest::of(b"code"), schema: Digest::of(b"schema"), uses: 2 });
    let mut made = scene.make();
    let admit = |scene: &Scene, made: &crate::scene::Made| scene.decide_as("member", &made.ask()).unwrap();
    ledger.note(admit(&scene, &made)).await.unwrap();
    // Replayed, word for word.
    let again = ledger.note(admit(&scene, &made)).await;
    assert!(matches!(again, Err(LedgerError::Used(id)) if id == made.intent.id()), "{again:?}");
    for expected in [true, false] {
        made.intent = scene.intent(made.request.id(), &made.headers);
        made.bundle = scene.prove(&made);
        let outcome = ledger.note(admit(&scene, &made)).await;
        assert_eq!(outcome.is_ok(), expected, "{outcome:?}");
        let exhausted = matches!(outcome, Err(LedgerError::Exhausted { uses: 2, .. }));
        assert!(expected || exhausted, "{outcome:?}");
    }
    let (uses, opened, head) = ledger.totals().await.unwrap();
    assert_eq!((uses, opened), (2, 4), "two objects each");
    assert_ne!(head, Digest::of(b""));
}

#[tokio::test]
async fn an_ordinary_request_is_good_for_one_intent() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = ledger(folder.path(), "state.sqlite").await;
    let mut scene = Scene::new();
    let mut made = scene.make();
    ledger.note(scene.decide_as("member", &made.ask()).unwrap()).await.unwrap();
    made.intent = scene.intent(made.request.id(), &made.headers);
    made.bundle = scene.prove(&made);
    let second = ledger.note(scene.decide_as("member", &made.ask()).unwrap()).await;
    assert!(matches!(second, Err(LedgerError::Exhausted { uses: 1, .. })), "{second:?}");
}

#[tokio::test]
async fn a_missing_outcome_is_an_alarm_until_it_is_logged() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = ledger(folder.path(), "state.sqlite").await;
    let mut scene = Scene::new();
    let made = scene.make();
    ledger.note(scene.decide_as("member", &made.ask()).unwrap()).await.unwrap();
    let over = scene.now().after(Duration::from_secs(scene.plan.expires_s)).after(OUTCOME_GRACE);
    assert!(ledger.missing(over).await.unwrap().is_empty());
    let late = over.after(Duration::from_secs(1));
    assert_eq!(ledger.missing(late).await.unwrap(), [made.intent.id()]);
    let outcome = AccessOutcome {
        position: scene.world.position(SUPERVISOR_LOG, "access/supervisor"),
        intent: made.intent.id(),
        ended: Ended::Done,
        rows: 1,
        bytes: 2,
    };
    let subject = vec![Subject::new("result", Digest::of(b"rows"))];
    let outcome = scene.record(subject, outcome, &[("supervisor", Role::Gateway)]);
    let bundle = scene.world.bundle(&[(SUPERVISOR_LOG, &outcome)]);
    let evidence = Evidence::open(scene.world.policy(), &bundle).unwrap();
    ledger.close(&evidence.one(Role::Gateway).unwrap()).await.unwrap();
    assert!(ledger.missing(late).await.unwrap().is_empty());
    assert!(ledger.seen().await.unwrap() >= scene.now());
}
