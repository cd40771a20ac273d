//! Neither a witness that lies about the time nor a wrong clock of the log's own makes what is
//! published look old, or an idle log ask again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use log::{Class, Error, Log, LogParts, Sequencer, Step};
use stdx::{Clock, UnixTime};
use tlog::Cosigned;

use crate::kit::{Bench, NOW, Skewed, append, size, submit};

/// The limit that the log has for the difference between two clocks, in seconds.
const APART_MAX: u64 = 300;

fn cosigned(bench: &Bench, log: &Log) -> Cosigned {
    bench.policy.verify_checkpoint(&log.published().unwrap()).unwrap()
}

/// The log's own clock, off by `seconds`.
fn skewed(bench: &Bench, seconds: i64) -> (LogParts, Arc<Skewed>) {
    let clock = Arc::new(Skewed { clock: Arc::clone(&bench.clock), seconds: AtomicI64::new(seconds) });
    (LogParts { clock: Arc::clone(&clock) as Arc<dyn Clock>, ..bench.parts() }, clock)
}

/// Lets what goes on in the background come to its end.
async fn others_first() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// While the clock stands, nobody is asked for anything.
async fn stays_idle(bench: &Bench, sequencer: &mut Sequencer) {
    others_first().await;
    let before = bench.requests();
    for _ in 0..1000 {
        assert_eq!(sequencer.step().await.unwrap(), Step::Idle);
    }
    others_first().await;
    assert_eq!(bench.requests(), before);
}

/// The same for the loop that a log runs in.
async fn runs_idle(bench: &Bench, sequencer: Sequencer) {
    let before = bench.requests();
    sequencer.run(others_first()).await.unwrap();
    others_first().await;
    assert_eq!(bench.requests(), before);
}

#[tokio::test]
async fn a_quick_liar_counts_as_silent() {
    let (past, future) = (NOW.seconds() - APART_MAX - 1, NOW.seconds() + APART_MAX + 1000);
    for lie in [1, past, future, u64::MAX].map(UnixTime::from_seconds) {
        let bench = Bench::new().await;
        *bench.witnesses[0].lie.lock().unwrap() = Some(lie);
        for (slow, honest) in (10..).step_by(10).zip(&bench.witnesses[1..]) {
            honest.slow.store(slow, Ordering::SeqCst);
        }
        let liar = log::Witness::key(&*bench.witnesses[0]).name().clone();
        let (log, mut sequencer) = bench.open().await.unwrap();
        assert_eq!(sequencer.step().await.unwrap(), Step::Published(size(0)));
        append(&bench, &log, &mut sequencer, 0..3).await;
        bench.check(3).await;
        let found = cosigned(&bench, &log);
        assert_eq!(found.time, NOW);
        assert!(found.by.len() == 3 && !found.by.contains(&liar), "{:?}", found.by);
        stays_idle(&bench, &mut sequencer).await;
        bench.clock.advance(Duration::from_secs(600));
        assert_eq!(sequencer.step().await.unwrap(), Step::Published(size(3)));
        assert_eq!(cosigned(&bench, &log).time, NOW.after(Duration::from_secs(600)));
        stays_idle(&bench, &mut sequencer).await;
        runs_idle(&bench, sequencer).await;
    }
}

#[tokio::test]
async fn a_liar_and_a_silent_witness_leave_no_quorum() {
    let bench = Bench::new().await;
    bench.witnesses[3].set_silent(true);
    let lie = |seconds| *bench.witnesses[0].lie.lock().unwrap() = Some(UnixTime::from_seconds(seconds));
    lie(NOW.seconds() - APART_MAX - 1);
    let (log, mut sequencer) = bench.open().await.unwrap();
    for _ in 0..3 {
        let error = sequencer.step().await.unwrap_err();
        assert!(matches!(error, Error::NoQuorum { cosigned: 2, needed: 3, .. }), "{error}");
        assert_eq!(error.class(), Class::Unavailable);
        assert!(log.published().is_none() && bench.object("checkpoint").is_none());
    }
    // At the limit it counts, on either side: that much a liar can do.
    lie(NOW.seconds() - APART_MAX);
    assert_eq!(sequencer.step().await.unwrap(), Step::Published(size(0)));
    assert_eq!(cosigned(&bench, &log).time.seconds(), NOW.seconds() - APART_MAX);
    stays_idle(&bench, &mut sequencer).await;
    lie(NOW.seconds() + APART_MAX);
    append(&bench, &log, &mut sequencer, 0..1).await;
    assert_eq!(cosigned(&bench, &log).time, NOW);
    bench.check(1).await;
}

#[tokio::test]
async fn a_log_whose_clock_is_wrong_says_so_and_publishes_nothing() {
    for (off, said) in [(301, "301"), (-301, "301"), (86_400, "86400"), (-86_400, "86400")] {
        let bench = Bench::new().await;
        let (parts, clock) = skewed(&bench, off);
        let (log, mut sequencer) = Log::open(parts).await.unwrap();
        let tickets = submit(&log, 0..2).await;
        for _ in 0..2 {
            let error = sequencer.step().await.unwrap_err();
            assert!(matches!(error, Error::ClockApart { theirs: NOW, .. }), "{error}");
            assert_eq!(error.class(), Class::Unavailable);
            let text = format!("this log's clock and the witnesses' differ by {said} s");
            assert!(error.to_string().starts_with(&text), "{error}");
            assert!(log.published().is_none() && bench.object("checkpoint").is_none());
        }
        // Once its clock is set, it goes on where it was.
        clock.seconds.store(0, Ordering::SeqCst);
        assert_eq!(sequencer.step().await.unwrap(), Step::Published(size(0)));
        assert_eq!(sequencer.step().await.unwrap(), Step::Published(size(2)));
        for ticket in tickets {
            ticket.published().await.unwrap();
        }
        bench.check(2).await;
    }
}

#[tokio::test]
async fn a_wrong_clock_does_not_make_an_idle_log_spin() {
    for off in [86_400, -86_400] {
        let (bench, log, mut sequencer) = Bench::opened().await;
        append(&bench, &log, &mut sequencer, 0..3).await;
        others_first().await;
        drop((log, sequencer));
        let (parts, clock) = skewed(&bench, off);
        let (log, mut sequencer) = Log::open(parts).await.unwrap();
        for _ in 0..3 {
            // One round, then a pause, whatever the wall clock says.
            let before = bench.requests();
            let error = sequencer.step().await.unwrap_err();
            assert!(matches!(error, Error::ClockApart { .. }), "{error}");
            // The fourth witness says first from where it starts, since three answers were enough to
            // open the log.
            assert!((4..=5).contains(&(bench.requests() - before)));
            stays_idle(&bench, &mut sequencer).await;
            bench.clock.advance(Duration::from_secs(9));
            stays_idle(&bench, &mut sequencer).await;
            bench.clock.advance(Duration::from_secs(1));
        }
        // What was published stays.
        bench.check(3).await;
        assert_eq!(cosigned(&bench, &log).time, NOW);
        clock.seconds.store(0, Ordering::SeqCst);
        assert_eq!(sequencer.step().await.unwrap(), Step::Published(size(3)));
        assert_eq!(cosigned(&bench, &log).time, NOW.after(Duration::from_secs(30)));
        runs_idle(&bench, sequencer).await;
    }
}

#[tokio::test]
async fn a_clock_that_is_ahead_by_more_than_the_refresh_does_not_either() {
    for off in [200, -200] {
        let mut bench = Bench::new().await;
        bench.limits.refresh = Duration::from_secs(60);
        let (parts, clock) = skewed(&bench, off);
        let (_log, mut sequencer) = Log::open(parts).await.unwrap();
        assert_eq!(sequencer.step().await.unwrap(), Step::Published(size(0)));
        stays_idle(&bench, &mut sequencer).await;
        bench.clock.advance(Duration::from_secs(60));
        assert_eq!(sequencer.step().await.unwrap(), Step::Published(size(0)));
        stays_idle(&bench, &mut sequencer).await;
        // Nor does setting it.
        for seconds in [-500_000, 500_000, 0] {
            clock.seconds.store(seconds, Ordering::SeqCst);
            stays_idle(&bench, &mut sequencer).await;
        }
        runs_idle(&bench, sequencer).await;
    }
}

#[tokio::test]
async fn a_refresh_of_nothing_keeps_the_pause() {
    let mut bench = Bench::new().await;
    bench.limits.refresh = Duration::ZERO;
    let (_log, mut sequencer) = bench.open().await.unwrap();
    for _ in 0..3 {
        assert_eq!(sequencer.step().await.unwrap(), Step::Published(size(0)));
        stays_idle(&bench, &mut sequencer).await;
        bench.clock.advance(Duration::from_secs(10));
    }
}

#[tokio::test]
async fn an_opened_log_gets_fresh_cosignatures_once() {
    let (bench, log, mut sequencer) = Bench::opened().await;
    append(&bench, &log, &mut sequencer, 0..3).await;
    drop((log, sequencer));
    bench.clock.advance(Duration::from_secs(5));
    let (log, mut sequencer) = bench.open().await.unwrap();
    assert_eq!(sequencer.step().await.unwrap(), Step::Published(size(3)));
    assert_eq!(cosigned(&bench, &log).time, NOW.after(Duration::from_secs(5)));
    stays_idle(&bench, &mut sequencer).await;
    // A batch doesn't wait for a round that fails.
    bench.clock.advance(Duration::from_secs(600));
    bench.witnesses[..2].iter().for_each(|witness| witness.set_silent(true));
    assert!(matches!(sequencer.step().await.unwrap_err(), Error::NoQuorum { cosigned: 2, .. }));
    stays_idle(&bench, &mut sequencer).await;
    bench.witnesses[..2].iter().for_each(|witness| witness.set_silent(false));
    append(&bench, &log, &mut sequencer, 3..4).await;
    bench.check(4).await;
    stays_idle(&bench, &mut sequencer).await;
}
