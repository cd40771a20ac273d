//! The stream `access/ORGANISATION`: many who write at once share one swap of its state and one batch of the log.
//!
//! An intent is noted as begun in the very value that gives it its place. It stays noted until its outcome is
//! logged and every custodian has it, whatever ends this process in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use attest::{BundleEntry, Envelope, Position, StatementId};
use tokio::sync::oneshot;

use super::DataError;
use crate::http::log::BATCH_ENTRIES_MAX;
use crate::stream::{Begun, Open, StreamError, StreamWriter};

type Make = Box<dyn FnMut(&mut Open, Position) -> anyhow::Result<Envelope> + Send>;

/// One statement that waits for its place.
struct Job {
    make: Make,
    answer: oneshot::Sender<Result<BundleEntry, DataError>>,
}

/// The stream.
pub(super) struct AccessStream {
    writer: StreamWriter,
    waiting: Mutex<Vec<Job>>,
    /// What has come to its end; the next swap takes it off the list.
    ended: Mutex<BTreeSet<StatementId>>,
    /// Whoever has it writes for all who wait.
    turn: tokio::sync::Mutex<()>,
}

impl AccessStream {
    pub(super) fn new(writer: StreamWriter) -> Self {
        let (waiting, ended) = (Mutex::default(), Mutex::default());
        Self { writer, waiting, ended, turn: tokio::sync::Mutex::new(()) }
    }

    /// Announces an access: on the list of what was begun before it can be in the log.
    pub(super) async fn begin(
        &self,
        begun: Begun,
        mut make: impl FnMut(Position) -> anyhow::Result<Envelope> + Send + 'static,
    ) -> Result<BundleEntry, DataError> {
        self.write(Box::new(move |open, position| {
            let intent = make(position)?;
            open.insert(intent.id(), begun.clone());
            Ok(intent)
        }))
        .await
    }

    /// Says what came of it: once, whoever says it.
    pub(super) async fn end(
        &self,
        intent: StatementId,
        mut make: impl FnMut(Position) -> anyhow::Result<Envelope> + Send + 'static,
    ) -> Result<BundleEntry, DataError> {
        self.write(Box::new(move |open, position| {
            let begun = open.get_mut(&intent);
            let begun = begun.ok_or_else(|| anyhow::anyhow!("access {intent} is not one that was begun"))?;
            anyhow::ensure!(begun.outcome.is_none(), "access {intent} has an outcome");
            let outcome = make(position)?;
            begun.outcome = Some(String::from_utf8(outcome.to_bytes())?);
            Ok(outcome)
        }))
        .await
    }

    /// Whoever must has the outcome.
    pub(super) fn forget(&self, intent: StatementId) {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).insert(intent);
    }

    /// What was begun and is not at its end; what was forgotten is off the list on disk, too.
    pub(super) async fn open(&self) -> Result<Open, DataError> {
        let _turn = self.turn.lock().await;
        self.write_now(&mut []).await?;
        Ok(self.writer.open().await?)
    }

    /// The entry that an outcome has in the log: the log gives an entry that it has its old place.
    pub(super) async fn logged(&self, outcome: &Envelope) -> Result<BundleEntry, DataError> {
        Ok(self.writer.log().append(outcome).await?)
    }

    async fn write(&self, make: Make) -> Result<BundleEntry, DataError> {
        let (answer, mut answered) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(Job { make, answer });
        loop {
            let turn = self.turn.lock().await;
            if let Ok(done) = answered.try_recv() {
                return done;
            }
            let mut jobs = {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                let count = waiting.len().min(BATCH_ENTRIES_MAX);
                waiting.drain(..count).collect::<Vec<_>>()
            };
            if jobs.is_empty() {
                return Err(DataError::Broken("whoever wrote the stream gave up".to_owned()));
            }
            let written = self.write_now(&mut jobs).await;
            // Whoever has the turn next must find an answer.
            answer_all(jobs, written);
            drop(turn);
        }
    }

    /// Writes these, and takes off the list what has ended. One that can't be made is left out.
    async fn write_now(&self, jobs: &mut [Job]) -> Result<Written, StreamError> {
        let ended: Vec<_> = self.ended.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        let (mut next, mut failed) = (0, BTreeMap::new());
        let entries = self
            .writer
            .write_all(|number, open, position| {
                if number == 0 {
                    open.retain(|intent, _| !ended.contains(intent));
                    next = 0;
                    failed.clear();
                }
                while let Some(job) = jobs.get_mut(next) {
                    next += 1;
                    match (job.make)(open, position.clone()) {
                        Ok(envelope) => return Ok(Some(envelope)),
                        Err(error) => drop(failed.insert(next - 1, format!("{error:#}"))),
                    }
                }
                Ok(None)
            })
            .await?;
        let mut held = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|intent| !ended.contains(intent));
        Ok(Written { entries, failed })
    }
}

/// What came of several statements.
struct Written {
    /// Of those that were made, in order.
    entries: Vec<BundleEntry>,
    /// Why others were not, by their number.
    failed: BTreeMap<usize, String>,
}

/// Each is told its own; if the log takes none, whoever can asks again.
fn answer_all(jobs: Vec<Job>, written: Result<Written, StreamError>) {
    match written {
        Ok(Written { entries, failed }) => {
            let mut entries = entries.into_iter();
            for (number, job) in jobs.into_iter().enumerate() {
                let answer = match failed.get(&number) {
                    Some(error) => Err(DataError::Log(error.clone())),
                    None => entries.next().ok_or_else(|| DataError::Broken("the log left out an entry".to_owned())),
                };
                // Who asked may be gone.
                let _ = job.answer.send(answer);
            }
        }
        Err(error) => {
            let message = format!("{:#}", anyhow::Error::new(error));
            for job in jobs {
                let _ = job.answer.send(Err(DataError::Log(message.clone())));
            }
        }
    }
}
