//! A store restored from a backup must not sign again.

use log::{Error, Faulty, Log, LogParts, WitnessError};
use storage::{FileObjects, SqliteStore};

use crate::kit::{Bench, append, entry, is_fatal};

#[tokio::test]
async fn a_restored_log_is_refused_by_what_witnesses_know() {
    let (bench, log, mut sequencer) = Bench::opened().await;
    append(&bench, &log, &mut sequencer, 0..3).await;
    let backup = bench.backup();
    append(&bench, &log, &mut sequencer, 3..6).await;
    drop((log, sequencer));
    bench.restore(&backup);
    bench.check(3).await;
    let error = bench.open().await.err().unwrap();
    assert!(matches!(error, Error::Contradicted { size, .. } if size.get() == 6), "{error}");
    assert!(is_fatal(&error));

    // With too few answers it opens, but signs nothing; then it learns the truth.
    bench.witnesses[..2].iter().for_each(|witness| witness.set_silent(true));
    // The two others may be asked in any order, and one of them is enough to know.
    let error = bench.open().await.err().unwrap();
    assert!(matches!(error, Error::Contradicted { .. }), "{error}");
    bench.witnesses.iter().for_each(|witness| witness.set_silent(true));
    let (log, mut sequencer) = bench.open().await.unwrap();
    let ticket = log.submit(entry(77)).await.unwrap();
    assert!(matches!(sequencer.step().await.unwrap_err(), Error::TooFewAnswers { answered: 0, .. }));
    bench.witnesses.iter().for_each(|witness| witness.set_silent(false));
    assert!(is_fatal(&sequencer.step().await.unwrap_err()));
    assert!(ticket.published().await.is_err());
    bench.check(3).await;
}

#[tokio::test]
async fn even_if_a_witness_was_restored_with_it() {
    let (bench, log, mut sequencer) = Bench::opened().await;
    append(&bench, &log, &mut sequencer, 0..3).await;
    let backup = bench.backup();
    let old = bench.witnesses[0].latest.lock().unwrap().clone();
    // One witness misses the growth, one is restored with the log: two are left that know.
    bench.witnesses[1].set_silent(true);
    append(&bench, &log, &mut sequencer, 3..6).await;
    drop((log, sequencer));
    bench.restore(&backup);
    *bench.witnesses[0].latest.lock().unwrap() = old;
    bench.witnesses[1].set_silent(false);
    // Any three answers have one of the two among them.
    for silent in 0..4 {
        bench.witnesses[silent].set_silent(true);
        let error = bench.open().await.err().unwrap();
        assert!(matches!(error, Error::Contradicted { .. }), "{error}");
        bench.witnesses[silent].set_silent(false);
    }
}

#[tokio::test]
async fn a_restored_lock_is_refused_by_the_log_s_own_history() {
    let (bench, log, mut sequencer) = Bench::opened().await;
    append(&bench, &log, &mut sequencer, 0..3).await;
    let (_, locks) = bench.backup();
    append(&bench, &log, &mut sequencer, 3..6).await;
    drop((log, sequencer));
    *bench.locks.0.lock().unwrap() = locks;
    bench.witnesses.iter().for_each(|witness| witness.set_silent(true));
    let error = bench.open().await.err().unwrap();
    assert!(matches!(&error, Error::Corrupt { key, .. } if key.as_str() == "history/006"), "{error}");
}

#[tokio::test]
async fn restored_objects_are_refused_by_the_lock() {
    let (bench, log, mut sequencer) = Bench::opened().await;
    append(&bench, &log, &mut sequencer, 0..3).await;
    let (objects, _) = bench.backup();
    append(&bench, &log, &mut sequencer, 3..6).await;
    // The last batch alone could be written again: the lock has it.
    append(&bench, &log, &mut sequencer, 6..9).await;
    drop((log, sequencer));
    *bench.memory.0.lock().unwrap() = objects;
    let error = bench.open().await.err().unwrap();
    assert!(matches!(error, Error::Read(_)) && is_fatal(&error), "{error}");
}

#[tokio::test]
async fn a_running_log_notices_too() {
    let (bench, log, mut sequencer) = Bench::opened().await;
    append(&bench, &log, &mut sequencer, 0..3).await;
    let backup = bench.backup();
    // Somebody else grows the log from a copy of the store.
    let (other, mut other_sequencer) = bench.open().await.unwrap();
    append(&bench, &other, &mut other_sequencer, 10..13).await;
    drop((other, other_sequencer));
    bench.restore(&backup);
    log.submit(entry(77)).await.unwrap();
    let error = sequencer.step().await.unwrap_err();
    assert!(is_fatal(&error), "{error}");
    bench.check(3).await;
}

/// The same on real files and SQLite, where one process at a time may write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (objects, locks) = (folder.path().join("objects"), folder.path().join("locks"));
    let bench = Bench::new().await;
    let open = async |create: bool| {
        let (objects, locks) = if create {
            (FileObjects::create(&objects).await.unwrap(), SqliteStore::create(&locks).await.unwrap())
        } else {
            (FileObjects::open(&objects).await.unwrap(), SqliteStore::open(&locks).await.unwrap())
        };
        LogParts {
            objects: std::sync::Arc::new(objects),
            locks: std::sync::Arc::new(locks),
            faulty: Faulty(1),
            ..bench.parts()
        }
    };
    let parts = open(true).await;
    Log::create(&parts).await.unwrap();
    let mut next = 0;
    let (mut log, mut sequencer) = Log::open(parts).await.unwrap();
    sequencer.step().await.unwrap();
    for step in [1, 255, 1, 600] {
        append(&bench, &log, &mut sequencer, next..next + step).await;
        next += step;
        drop((log, sequencer));
        (log, sequencer) = Log::open(open(false).await).await.unwrap();
    }
    drop((log, sequencer));
    let parts = open(false).await;
    let report = log::fsck(&log::FsckParts {
        objects: parts.objects,
        locks: parts.locks,
        key: bench.signer.verifier().clone(),
        policy: bench.policy.clone(),
    })
    .await
    .unwrap();
    assert_eq!((report.damages, report.size.get()), (Vec::new(), 857));
}

/// The lock is lost; objects are as they were published. That is what a mirror can give back.
async fn without_a_lock() -> Bench {
    let (bench, log, mut sequencer) = Bench::opened().await;
    append(&bench, &log, &mut sequencer, 0..300).await;
    drop((log, sequencer));
    bench.locks.0.lock().unwrap().clear();
    let kept = |key: &String| key == "checkpoint" || key.starts_with("tile/");
    bench.memory.0.lock().unwrap().retain(|key, _| kept(key));
    bench
}

#[tokio::test]
async fn a_log_goes_on_from_what_was_published_if_no_witness_knows_more() {
    let bench = without_a_lock().await;
    assert!(matches!(bench.open().await.err().unwrap(), Error::Existence { .. }));
    // The log's own threshold of answers is not enough here.
    bench.witnesses[2].set_silent(true);
    let error = Log::resume(&bench.parts()).await.unwrap_err();
    assert!(matches!(error, Error::TooFewAnswers { answered: 3, needed: 4 }), "{error}");
    assert!(bench.locks.0.lock().unwrap().is_empty());
    bench.witnesses[2].set_silent(false);
    assert_eq!(Log::resume(&bench.parts()).await.unwrap().size.get(), 300);
    bench.check(300).await;
    let (log, mut sequencer) = bench.open().await.unwrap();
    append(&bench, &log, &mut sequencer, 300..310).await;
    bench.check(310).await;
    // The lock is there now, and says what was signed.
    let error = Log::resume(&bench.parts()).await.unwrap_err();
    assert!(matches!(error, Error::Existence { found: "has its lock" }), "{error}");
}

#[tokio::test]
async fn it_does_not_if_one_witness_knows_more_or_has_forgotten() {
    let (bench, log, mut sequencer) = Bench::opened().await;
    append(&bench, &log, &mut sequencer, 0..3).await;
    let (objects, _) = bench.backup();
    let old: Vec<_> = bench.witnesses.iter().map(|witness| witness.latest.lock().unwrap().clone()).collect();
    // Signed, and cosigned by one: nothing is published, and only that one knows.
    let silent = || WitnessError::Silent("switched off".to_owned());
    bench.witnesses[..3].iter().for_each(|witness| witness.scripted.lock().unwrap().push_back(silent()));
    log.submit(entry(3)).await.unwrap();
    let error = sequencer.step().await.unwrap_err();
    assert!(matches!(error, Error::NoQuorum { cosigned: 1, .. }), "{error}");
    drop((log, sequencer));
    *bench.memory.0.lock().unwrap() = objects;
    bench.locks.0.lock().unwrap().clear();
    let error = Log::resume(&bench.parts()).await.unwrap_err();
    assert!(matches!(error, Error::Contradicted { size, .. } if size.get() == 4), "{error}");
    // One that cosigned the published checkpoint, and has been restored since.
    bench.witnesses[3].latest.lock().unwrap().clone_from(&old[3]);
    *bench.witnesses[0].latest.lock().unwrap() = None;
    let error = Log::resume(&bench.parts()).await.unwrap_err();
    assert!(error.to_string().contains("is older than what it has cosigned"), "{error}");
    assert!(bench.locks.0.lock().unwrap().is_empty());
}
