//! Counting at the ports of the log's engine.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use log::{Class, Error, Observer, Step, Stepped, Witness, WitnessError};
use stdx::{Clock, SystemClock};
use tlog::witness_protocol::AddCheckpoint;
use tlog::{NoteSignature, Origin, SignedCheckpoint, VerifierKey};

use super::metrics;

/// Counts what the sequencer does.
pub struct Steps;

impl Observer for Steps {
    fn stepped(&self, stepped: &Stepped<'_>) {
        let metrics = metrics();
        metrics.log_signed.set(i64::try_from(stepped.signed.get()).unwrap_or(i64::MAX));
        let outcome = match stepped.outcome {
            Ok(Step::Published(_)) => "published",
            // Nothing was done: that is no duration of anything.
            Ok(Step::Idle) => return,
            Err(Error::NoQuorum { .. } | Error::TooFewAnswers { .. }) => "no-quorum",
            Err(Error::ClockApart { .. }) => "clock-apart",
            Err(error) if error.class() == Class::Unavailable => "unavailable",
            Err(_) => "stopped",
        };
        metrics.step(outcome, stepped.took);
    }
}

/// A witness whose answers are counted.
pub struct Counted {
    witness: Arc<dyn Witness>,
    clock: SystemClock,
}

impl Counted {
    /// Counts the answers of `witness`.
    #[must_use]
    pub fn new(witness: Arc<dyn Witness>) -> Self {
        Self { witness, clock: SystemClock::new() }
    }

    fn note<T>(&self, request: &'static str, start: Duration, answer: &Result<T, WitnessError>) {
        let outcome = match answer {
            Ok(_) => "ok",
            Err(WitnessError::Stale { .. }) => "stale",
            Err(WitnessError::Inconsistent) => "inconsistent",
            Err(WitnessError::Refused(_)) => "refused",
            Err(WitnessError::Silent(_)) => "silent",
        };
        let took = self.clock.monotonic().saturating_sub(start);
        metrics().witness(self.witness.key().name().as_str(), request, outcome, took);
    }
}

#[async_trait]
impl Witness for Counted {
    fn key(&self) -> &VerifierKey {
        self.witness.key()
    }

    async fn add_checkpoint(&self, request: &AddCheckpoint) -> Result<Vec<NoteSignature>, WitnessError> {
        let start = self.clock.monotonic();
        let answer = self.witness.add_checkpoint(request).await;
        self.note("add-checkpoint", start, &answer);
        answer
    }

    async fn checkpoint(&self, origin: &Origin) -> Result<Option<SignedCheckpoint>, WitnessError> {
        let start = self.clock.monotonic();
        let answer = self.witness.checkpoint(origin).await;
        self.note("checkpoint", start, &answer);
        answer
    }
}
