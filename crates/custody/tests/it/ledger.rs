//! Once each, on record before the key, and not without an outcome for long.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake};
use std::time::Duration;

use async_trait::async_trait;
use attest::{AccessOutcome, Bundle, Ended, Standing, Subject};
use bytes::Bytes;
use custody::{Ledger, LedgerError, OUTCOME_GRACE, Refusal};
use policy::Role;
use stdx::Digest;
use storage::{Key, LockBatch, LockStore, Swap, Swapping, Version, Versioned};
use testkit::{REGION, SUPERVISOR_LOG};
use tokio::sync::Semaphore;

use crate::grant::{ledger, reopened};
use crate::scene::{Made, Scene};

#[tokio::test]
async fn an_intent_is_used_once_and_a_request_as_often_as_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = ledger(folder.path(), "state.sqlite").await;
    let mut scene = Scene::new();
    scene.plan.standing = Some(Standing { code: Digest::of(b"code"), schema: Digest::of(b"schema"), uses: 2 });
    let mut made = scene.make();
    let admit = |scene: &Scene, made: &Made| scene.decide_as("member", &made.ask()).unwrap();
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
    let totals = ledger.totals(scene.now()).await.unwrap();
    assert_eq!((totals.uses, totals.opened), (2, 4), "two objects each");
    assert_ne!(totals.head, Digest::of(b""));
}

/// Intents of one request that is good for ten, all at once, each brought twice.
#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_are_counted_as_one_after_the_other_would_be() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Arc::new(ledger(folder.path(), "state.sqlite").await);
    let mut scene = Scene::new();
    scene.plan.standing = Some(Standing { code: Digest::of(b"code"), schema: Digest::of(b"schema"), uses: 10 });
    let mut made = scene.make();
    let mut admitted = Vec::new();
    for _ in 0..16 {
        admitted.extend([(); 2].map(|()| scene.decide_as("member", &made.ask()).unwrap()));
        made.intent = scene.intent(made.request.id(), &made.headers);
        made.bundle = scene.prove(&made);
    }
    let intents: BTreeSet<_> = admitted.iter().map(custody::Admitted::intent).collect();
    assert_eq!(intents.len(), 16);
    let mut tasks = tokio::task::JoinSet::new();
    for one in admitted {
        let ledger = Arc::clone(&ledger);
        tasks.spawn(async move { ledger.note(one).await.map(drop) });
    }
    let (mut noted, mut used, mut exhausted) = (0, 0, 0);
    for done in tasks.join_all().await {
        match done {
            Ok(()) => noted += 1,
            Err(LedgerError::Used(intent)) => used += usize::from(intents.contains(&intent)),
            Err(LedgerError::Exhausted { uses: 10, .. }) => exhausted += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((noted, used + exhausted), (10, 22));
    let totals = ledger.totals(scene.now()).await.unwrap();
    assert_eq!((totals.uses, totals.opened, totals.open.len()), (10, 20, 10));
    // Others of the same process, and after a restart, see the same.
    let again = reopened(folder.path(), "state.sqlite").await;
    assert_eq!(again.totals(scene.now()).await.unwrap(), totals);
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
    let totals = ledger.totals(over).await.unwrap();
    assert!(totals.missing.is_empty() && totals.open == [made.intent.id()]);
    let late = over.after(Duration::from_secs(1));
    assert_eq!(ledger.totals(late).await.unwrap().missing, [made.intent.id()]);
    // Nobody but the gateway says what came of it, and nowhere but in the log.
    for (stream, signer) in [("data/vendor", "vendor"), ("access/supervisor", "vendor")] {
        let bundle = outcome(&mut scene, &made, (stream, signer));
        let refused = scene.conclude_as("member", &bundle).map(drop).unwrap_err();
        assert!(matches!(refused, Refusal::Evidence(verify::Refusal::NotSigned { .. })), "{refused}");
    }
    let bundle = outcome(&mut scene, &made, ("custody/supervisor", "supervisor"));
    assert!(matches!(scene.conclude_as("member", &bundle), Err(Refusal::Unfit { .. })));
    let bundle = outcome(&mut scene, &made, ("access/supervisor", "supervisor"));
    ledger.close(&scene.conclude_as("member", &bundle).unwrap()).await.unwrap();
    assert!(ledger.totals(late).await.unwrap().open.is_empty());
    assert!(ledger.seen().await.unwrap().time >= scene.now());
}

/// Values in memory. A swap waits until it may.
struct Gated {
    values: Mutex<BTreeMap<String, (u64, Bytes)>>,
    may: Semaphore,
}

#[async_trait]
impl LockStore for Gated {
    async fn get(&self, key: &Key) -> Result<Option<Versioned>, storage::Error> {
        let values = self.values.lock().unwrap();
        let found = values.get(key.as_str()).cloned();
        Ok(found.map(|(version, bytes)| Versioned { bytes, version: Version::new(version.to_string()) }))
    }

    async fn compare_and_swap(&self, _: &Key, _: Option<&Version>, _: Bytes) -> Result<Swap, storage::Error> {
        unreachable!("uses and outcomes are swapped together")
    }
}

#[async_trait]
impl LockBatch for Gated {
    async fn swap_all(&self, swaps: &[Swapping]) -> Result<Vec<usize>, storage::Error> {
        drop(self.may.acquire().await.unwrap());
        let mut values = self.values.lock().unwrap();
        for Swapping { key, bytes, .. } in swaps {
            let version = values.get(key.as_str()).map_or(1, |(version, _)| version + 1);
            values.insert(key.as_str().to_owned(), (version, bytes.clone()));
        }
        Ok(Vec::new())
    }
}

type Writing = Pin<Box<dyn Future<Output = Result<(), LedgerError>> + Send>>;

/// Goes on at the very moment at which it is woken, as on another processor.
struct AtOnce {
    writing: Mutex<Option<Writing>>,
    done: Mutex<Option<Result<(), LedgerError>>>,
}

impl Wake for AtOnce {
    fn wake(self: Arc<Self>) {
        let Some(mut writing) = self.writing.lock().unwrap().take() else { return };
        match writing.as_mut().poll(&mut Context::from_waker(&Arc::clone(&self).into())) {
            Poll::Ready(done) => *self.done.lock().unwrap() = Some(done),
            Poll::Pending => *self.writing.lock().unwrap() = Some(writing),
        }
    }
}

#[test]
fn for_whom_others_write_knows_of_it_when_its_turn_comes() {
    let locks = Arc::new(Gated { values: Mutex::default(), may: Semaphore::new(0) });
    let ledger = Arc::new(Ledger::new(Arc::clone(&locks) as Arc<dyn LockBatch>, REGION.parse().unwrap()));
    let mut scene = Scene::new();
    let made = scene.make();
    let bundle = outcome(&mut scene, &made, ("access/supervisor", "supervisor"));
    let concluded = Arc::new(scene.conclude_as("member", &bundle).unwrap());
    // The first writes for itself, and the second for the third, too.
    let all: Vec<Arc<AtOnce>> = (0..3)
        .map(|_| {
            let (ledger, concluded) = (Arc::clone(&ledger), Arc::clone(&concluded));
            let writing: Writing = Box::pin(async move { ledger.close(&concluded).await });
            let writing = Arc::new(AtOnce { writing: Mutex::new(Some(writing)), done: Mutex::default() });
            Arc::clone(&writing).wake();
            writing
        })
        .collect();
    locks.may.add_permits(1);
    for (number, one) in all.iter().enumerate() {
        let done = one.done.lock().unwrap();
        assert!(matches!(*done, Some(Ok(()))), "{number}: {done:?}");
    }
}

fn outcome(scene: &mut Scene, made: &Made, (stream, signer): (&str, &str)) -> Bundle {
    let outcome = AccessOutcome {
        position: scene.world.position(SUPERVISOR_LOG, stream),
        intent: made.intent.id(),
        ended: Ended::Done,
        rows: 1,
        bytes: 2,
    };
    let subject = vec![Subject::new("result", Digest::of(b"rows"))];
    let outcome = scene.record(subject, outcome, &[(signer, Role::Gateway)]);
    scene.world.bundle(&[(SUPERVISOR_LOG, &outcome)])
}
