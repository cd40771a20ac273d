//! Without a quorum nothing is published, and without enough answers nothing is signed.

use std::time::Duration;

use log::{Class, Error, Step, WitnessError};

use crate::kit::{Bench, append, size, submit};

#[tokio::test]
async fn one_witness_may_be_silent() {
    let (bench, log, mut sequencer) = Bench::opened().await;
    for (number, witness) in (0..).zip(&bench.witnesses) {
        witness.set_silent(true);
        append(&bench, &log, &mut sequencer, number..number + 1).await;
        witness.set_silent(false);
        bench.check(number + 1).await;
    }
}

#[tokio::test]
async fn too_few_answers_sign_nothing() {
    let (bench, log, mut sequencer) = Bench::opened().await;
    append(&bench, &log, &mut sequencer, 0..3).await;
    bench.witnesses[0].set_silent(true);
    bench.witnesses[1].set_silent(true);
    let tickets = submit(&log, 3..5).await;
    for _ in 0..3 {
        let error = sequencer.step().await.unwrap_err();
        assert!(matches!(error, Error::TooFewAnswers { answered: 2, needed: 3 }), "{error}");
        assert_eq!(error.class(), Class::Unavailable);
        bench.check(3).await;
        assert!(bench.object("history/005").is_none(), "nothing was signed");
    }
    bench.witnesses[1].set_silent(false);
    assert_eq!(sequencer.step().await.unwrap(), Step::Published(size(5)));
    for ticket in tickets {
        ticket.published().await.unwrap();
    }
    bench.check(5).await;
}

#[tokio::test]
async fn what_is_signed_without_a_quorum_waits() {
    let (bench, log, mut sequencer) = Bench::opened().await;
    let mut tickets = submit(&log, 0..2).await;
    // They say what they know, but don't cosign.
    for witness in &bench.witnesses[..2] {
        witness.scripted.lock().unwrap().extend((0..2).map(|_| WitnessError::Refused("no".to_owned())));
    }
    for _ in 0..2 {
        let error = sequencer.step().await.unwrap_err();
        assert!(matches!(error, Error::NoQuorum { cosigned: 2, needed: 3, .. }), "{error}");
        assert_eq!(log.published().unwrap().checkpoint().size(), size(0));
        bench.check(0).await;
    }
    assert_eq!(tickets[1].sequenced().await.unwrap().get(), 1, "it has its place");
    assert_eq!(sequencer.step().await.unwrap(), Step::Published(size(2)));
    bench.check(2).await;
}

#[tokio::test]
async fn it_waits_over_a_restart_too() {
    let (bench, log, mut sequencer) = Bench::opened().await;
    submit(&log, 0..2).await;
    for witness in &bench.witnesses[..2] {
        witness.scripted.lock().unwrap().push_back(WitnessError::Refused("no".to_owned()));
    }
    sequencer.step().await.unwrap_err();
    drop((log, sequencer));
    let (log, mut sequencer) = bench.open().await.unwrap();
    assert_eq!(log.published().unwrap().checkpoint().size(), size(0));
    let error = log.submit(crate::kit::entry(1)).await.unwrap_err();
    assert!(matches!(error, Error::NotYetPublished), "{error}");
    assert_eq!(sequencer.step().await.unwrap(), Step::Published(size(2)));
    assert_eq!(log.append(crate::kit::entry(1)).await.unwrap().index().get(), 1);
    bench.check(2).await;
}

#[tokio::test]
async fn a_log_opens_without_witnesses_and_signs_nothing() {
    let bench = Bench::new().await;
    bench.witnesses.iter().for_each(|witness| witness.set_silent(true));
    let (log, mut sequencer) = bench.open().await.unwrap();
    assert!(matches!(sequencer.step().await.unwrap_err(), Error::NoQuorum { cosigned: 0, .. }));
    assert!(log.published().is_none() && bench.object("checkpoint").is_none());
}

#[tokio::test]
async fn a_witness_that_forgot_everything_is_led_up_again() {
    let (bench, log, mut sequencer) = Bench::opened().await;
    append(&bench, &log, &mut sequencer, 0..300).await;
    *bench.witnesses[0].latest.lock().unwrap() = None;
    bench.witnesses[1].set_silent(true);
    append(&bench, &log, &mut sequencer, 300..301).await;
    bench.check(301).await;
    // And one that fell behind.
    bench.witnesses[1].set_silent(false);
    bench.witnesses[2].set_silent(true);
    append(&bench, &log, &mut sequencer, 301..302).await;
    bench.check(302).await;
}

#[tokio::test]
async fn a_lying_witness_does_not_stop_the_log() {
    let (bench, log, mut sequencer) = Bench::opened().await;
    // A size that it has never seen, and an alarm without a reason.
    for (number, lie) in (0..).zip([
        WitnessError::Stale { latest: size(1_000_000) },
        WitnessError::Inconsistent,
        WitnessError::Silent("garbage".to_owned()),
    ]) {
        bench.witnesses[3].scripted.lock().unwrap().push_back(lie);
        append(&bench, &log, &mut sequencer, number..number + 1).await;
        bench.check(number + 1).await;
    }
}

#[tokio::test]
async fn an_idle_log_gets_fresh_cosignatures() {
    let (bench, log, mut sequencer) = Bench::opened().await;
    append(&bench, &log, &mut sequencer, 0..3).await;
    let time = |bench: &Bench, log: &log::Log| bench.policy.verify_checkpoint(&log.published().unwrap()).unwrap().time;
    let before = time(&bench, &log);
    bench.clock.advance(Duration::from_secs(599));
    assert_eq!(sequencer.step().await.unwrap(), Step::Idle);
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(sequencer.step().await.unwrap(), Step::Published(size(3)));
    assert_eq!(time(&bench, &log), before.after(Duration::from_secs(600)));
    bench.check(3).await;
    assert_eq!(sequencer.step().await.unwrap(), Step::Idle);
}
