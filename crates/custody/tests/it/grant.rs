//! The whole path: two custodians, each for itself, and a worker that joins what it is given.

use std::sync::Arc;

use custody::{FileKeys, GrantError, Granted, Ledger, grant_info};
use seal::{DataKey, Kem, PrivateKey, Sealed, Share};
use stdx::SystemEntropy;
use storage::{LockBatch, SqliteStore};
use testkit::REGION;

use crate::scene::{Made, Scene};

pub(crate) async fn ledger(folder: &std::path::Path, name: &str) -> Ledger {
    let store = SqliteStore::create(&folder.join(name)).await.unwrap();
    let locks: Arc<dyn LockBatch> = Arc::new(store);
    Ledger::new(locks, REGION.parse().unwrap())
}

/// The same after a restart.
pub(crate) async fn reopened(folder: &std::path::Path, name: &str) -> Ledger {
    let store = SqliteStore::open(&folder.join(name)).await.unwrap();
    let locks: Arc<dyn LockBatch> = Arc::new(store);
    Ledger::new(locks, REGION.parse().unwrap())
}

fn keys(key: &PrivateKey) -> FileKeys {
    FileKeys::new(vec![PrivateKey::from_text(&key.to_text()).unwrap()])
}

/// What a custodian gives out, all checks and its ledger included.
async fn granted(scene: &Scene, made: &Made, custodian: &str, key: &PrivateKey) -> Vec<Granted> {
    let folder = tempfile::tempdir().unwrap();
    let ledger = ledger(folder.path(), "state.sqlite").await;
    let admitted = scene.decide_as(custodian, &made.ask()).unwrap();
    let noted = ledger.note(admitted).await.unwrap();
    noted.open(&keys(key), &|_| false, &SystemEntropy).unwrap().granted
}

fn opened(scene: &Scene, made: &Made, granted: &[(&str, &Granted)]) -> Option<DataKey> {
    let shares: Option<Vec<Share>> = granted
        .iter()
        .map(|(custodian, granted)| {
            let info = grant_info(made.intent.id(), granted.object, &custodian.parse().unwrap());
            Share::open(&granted.wrapped, &scene.worker, &info)
        })
        .collect();
    Some(DataKey::join(&shares?))
}

#[tokio::test]
async fn the_worker_that_the_log_names_reads_what_it_names_and_nobody_else_does() {
    let mut scene = Scene::new();
    let made = scene.make();
    let first = granted(&scene, &made, "supervisor", &scene.custody.supervisor_key).await;
    let second = granted(&scene, &made, "member", &scene.custody.member_key).await;
    for (at, object) in made.objects.iter().enumerate() {
        let key = opened(&scene, &made, &[("supervisor", &first[at]), ("member", &second[at])]).unwrap();
        assert!(Sealed::read(object, &key).unwrap().starts_with(b"an event from "));
        // One of them, with its key and all that it ever gave out, reads nothing.
        for alone in [("supervisor", &first[at]), ("member", &second[at])] {
            assert!(Sealed::read(object, &opened(&scene, &made, &[alone]).unwrap()).is_err());
        }
        // A share of one object is none of another's.
        let other = 1 - at;
        let mixed = opened(&scene, &made, &[("supervisor", &first[other]), ("member", &second[at])]).unwrap();
        assert!(Sealed::read(object, &mixed).is_err());
    }
    // Another worker, another intent, another custodian's name: nothing opens.
    let stranger = PrivateKey::generate(Kem::P256, &SystemEntropy).unwrap();
    let right = grant_info(made.intent.id(), first[0].object, &"supervisor".parse().unwrap());
    assert!(Share::open(&first[0].wrapped, &scene.worker, &right).is_some());
    assert!(Share::open(&first[0].wrapped, &stranger, &right).is_none());
    for wrong in [
        grant_info(made.request.id(), first[0].object, &"supervisor".parse().unwrap()),
        grant_info(made.intent.id(), first[1].object, &"supervisor".parse().unwrap()),
        grant_info(made.intent.id(), first[0].object, &"member".parse().unwrap()),
    ] {
        assert!(Share::open(&first[0].wrapped, &scene.worker, &wrong).is_none());
    }
}

/// A custodian that destroyed its key has erased what was sealed to it; one that has lost it too early must look.
#[tokio::test]
async fn without_its_key_a_custodian_opens_nothing() {
    let mut scene = Scene::new();
    let made = scene.make();
    let folder = tempfile::tempdir().unwrap();
    let ledger = ledger(folder.path(), "state.sqlite").await;
    let noted = ledger.note(scene.decide_as("supervisor", &made.ask()).unwrap()).await.unwrap();
    let others = keys(&scene.custody.member_key);
    assert!(matches!(noted.open(&others, &|_| false, &SystemEntropy), Err(GrantError::NoKey(_))));
    let mut scene = Scene::new();
    let (made, folder) = (scene.make(), tempfile::tempdir().unwrap());
    let ledger = self::ledger(folder.path(), "state.sqlite").await;
    let noted = ledger.note(scene.decide_as("supervisor", &made.ask()).unwrap()).await.unwrap();
    let grant = noted.open(&others, &|_| true, &SystemEntropy).unwrap();
    assert_eq!((grant.granted.len(), grant.closed.len()), (0, made.headers.len()));
}

#[tokio::test]
async fn each_of_several_workers_gets_the_shares_of_its_slice_and_no_others() {
    for count in 2..=3 {
        let mut scene = Scene::of_workers(count);
        let made = scene.make();
        let first = granted(&scene, &made, "supervisor", &scene.custody.supervisor_key).await;
        let second = granted(&scene, &made, "member", &scene.custody.member_key).await;
        let named = attest::Workers::new(scene.keys().iter().map(|key| key.public().id()).collect()).unwrap();
        let mut read = 0;
        for (place, key) in scene.keys().into_iter().enumerate() {
            let slice = named.slice(place, made.headers.len());
            for (at, (first, second)) in first.iter().zip(&second).enumerate() {
                let open = |custodian: &str, granted: &Granted| {
                    let info = grant_info(made.intent.id(), granted.object, &custodian.parse().unwrap());
                    Share::open(&granted.wrapped, key, &info)
                };
                let shares = [open("supervisor", first), open("member", second)];
                assert_eq!(shares.iter().flatten().count(), if slice.contains(&at) { 2 } else { 0 }, "{count} {at}");
                if slice.contains(&at) {
                    let key = DataKey::join(shares.iter().flatten());
                    assert!(seal::Sealed::read(&made.objects[at], &key).unwrap().starts_with(b"an event from "));
                    read += 1;
                }
            }
        }
        assert_eq!(read, made.objects.len(), "with {count} workers");
    }
}
