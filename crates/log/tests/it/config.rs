//! Logs that can't be run are refused before anything is read.

use std::sync::Arc;

use log::{ConfigError, Error, Faulty, Log, LogParts};
use tlog::{KeyKind, LogPolicy};

use crate::kit::{Bench, Near, key, policy_text};

async fn refused(parts: LogParts) -> ConfigError {
    match Log::open(parts).await.err().unwrap() {
        Error::Config(error) => error,
        error => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_quorum_that_does_not_survive_f_is_refused() {
    let bench = Bench::new().await;
    let keys: Vec<_> = bench.witnesses.iter().map(|witness| log::Witness::key(&**witness)).collect();
    // 3 of 4 survives 1, and no more; 4 of 4 survives none that is silent.
    for (threshold, faulty, sound) in
        [(3, 1, true), (3, 0, true), (3, 2, false), (2, 0, false), (2, 1, false), (4, 0, true), (4, 1, false)]
    {
        let policy = LogPolicy::parse(policy_text(bench.signer.verifier(), &keys, threshold)).unwrap();
        let parts = LogParts { policy, faulty: Faulty(faulty), ..bench.parts() };
        if sound {
            Log::open(parts).await.unwrap();
        } else {
            let error = refused(parts).await;
            assert_eq!(error, ConfigError::QuorumTooWeak { threshold, witnesses: 4, faulty });
        }
    }
}

#[tokio::test]
async fn policy_and_parts_must_fit() {
    let bench = Bench::new().await;
    let log = bench.signer.verifier();
    let policy = |text: String| LogPolicy::parse(text).unwrap();
    let none = policy(format!("log {log}\nquorum none\n"));
    let parts = LogParts { policy: none, witnesses: Vec::new(), ..bench.parts() };
    assert_eq!(refused(parts).await, ConfigError::QuorumShape);

    let mut parts = bench.parts();
    let gone = parts.witnesses.pop().unwrap();
    assert_eq!(refused(parts).await, ConfigError::WitnessMismatch(gone.key().name().clone()));

    let mut parts = bench.parts();
    parts.witnesses.push(Near::new("witness.example/5", log, &bench.clock));
    assert_eq!(refused(parts).await, ConfigError::WitnessMismatch("witness.example/5".parse().unwrap()));

    let other = Arc::new(key("other.example", KeyKind::Ed25519));
    let parts = LogParts { signer: Arc::clone(&other), ..bench.parts() };
    assert_eq!(refused(parts).await, ConfigError::LogNotInPolicy(other.verifier().name().clone()));
}
