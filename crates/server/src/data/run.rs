//! A run, on a thread that may wait: one worker, or several of which the first leads and the others hold their parts.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use api::{
    ErrorBody, GrantAnswer, ResultEnd, ResultFormat, ResultPiece, ResultReader, RunRequest, RunWorker, result_frame,
};
use attest::{Budget, Ended, OrganisationId, RegionId, Workers};
use bytes::Bytes;
use stdx::Hasher;
use tokio::sync::{mpsc, oneshot};

use super::access::{Allowed, Announced, Came, Planned, Reading, SEALED_BYTES_MAX};
use super::peers::Presented;
use super::{DataError, Gateway};

/// A run.
pub(super) struct Runs {
    pub(super) gateway: Arc<Gateway>,
    pub(super) announced: Announced,
    pub(super) grants: BTreeMap<OrganisationId, GrantAnswer>,
    pub(super) frames: mpsc::Sender<Bytes>,
    pub(super) started: oneshot::Sender<Result<Reading, DataError>>,
    pub(super) receiver: mpsc::Receiver<Bytes>,
}

/// What is left to be told to whoever reads.
type Last = Option<(mpsc::Sender<Bytes>, ResultEnd)>;

impl Runs {
    pub(super) fn run(self) -> (Came, Last) {
        let Self { gateway, announced, grants, frames, started, receiver } = self;
        let Announced { planned, evidence, .. } = announced;
        let Planned { allowed, plan, workers, named, budget, expires, .. } = planned;
        let region = allowed.known.says().region.clone();
        let patience = expires.since(gateway.domain.clock.now());
        let Allowed { query, parameters, format, .. } = allowed;
        let where_from = workers.iter().map(|it| RunWorker { url: it.url.clone(), key: it.public.clone() });
        let where_from = where_from.filter(|_| workers.len() > 1).collect();
        let request =
            RunRequest { evidence, query, parameters, objects: plan.objects, grants, format, workers: where_from };
        let crew = Crew { gateway: &gateway, region: &region, workers: &workers, named: &named, request, patience };
        let mut started = Some(started);
        let mut receiver = Some(receiver);
        let came = crew.lead(|source| {
            if let Some((started, frames)) = started.take().zip(receiver.take()) {
                let _ = started.send(Ok(Reading { frames }));
            }
            passed(source, frames, (format, budget), (&region, workers.len()))
        });
        came.unwrap_or_else(|error| {
            if let Some(started) = started {
                let _ = started.send(Err(error));
            }
            (Came::none(Ended::Failed), None)
        })
    }
}

/// The workers of one intent.
struct Crew<'a> {
    gateway: &'a Gateway,
    region: &'a RegionId,
    workers: &'a [Arc<Presented>],
    named: &'a Workers,
    request: RunRequest,
    patience: Duration,
}

impl Crew<'_> {
    /// Has the others hold their parts while `read` reads what the first gives.
    fn lead<T>(&self, read: impl FnOnce(Box<dyn io::Read>) -> T) -> Result<T, DataError> {
        thread::scope(|scope| {
            let (ready, held) = channel();
            let mut holding = Vec::new();
            for place in 1..self.workers.len() {
                let (hold, let_go) = channel::<()>();
                holding.push(hold);
                let ready = ready.clone();
                scope.spawn(move || {
                    let (answer, told) =
                        self.run(place).map_or_else(|error| (None, Err(error)), |it| (Some(it), Ok(())));
                    let _ = ready.send(told);
                    drop(ready);
                    // A worker holds its part for as long as its answer is waited for.
                    let _ = let_go.recv();
                    drop(answer);
                });
            }
            drop(ready);
            held.iter().collect::<Result<(), DataError>>()?;
            let read = self.run(0).map(read);
            drop(holding);
            read
        })
    }

    /// Brings the worker at `place` the grant, with the shares of its own slice: others would open nothing there.
    fn run(&self, place: usize) -> Result<Box<dyn io::Read>, DataError> {
        let count = self.workers.len();
        let worker = self.workers.get(place).ok_or_else(|| DataError::refused("there is no such worker"))?;
        let slice = self.named.slice(place, self.request.objects.len());
        let mut request = self.request.clone();
        let own = request.objects.get(slice).unwrap_or_default().iter().map(|it| it.id.clone());
        let own: BTreeSet<String> = own.collect();
        for answer in request.grants.values_mut() {
            answer.granted.retain(|share| own.contains(&share.object));
            answer.closed.retain(|object| own.contains(object));
        }
        let who = match count {
            1 => format!("the worker of region `{}`", self.region),
            _ => format!("worker {} of {count} of region `{}`", place + 1, self.region),
        };
        self.gateway.peers.run(worker, who, &request, self.patience)
    }
}

/// Passes on what a worker gives, and says what came of it.
fn passed(
    source: Box<dyn io::Read>,
    frames: mpsc::Sender<Bytes>,
    (format, budget): (ResultFormat, Budget),
    (region, workers): (&RegionId, usize),
) -> (Came, Last) {
    let mut given = Given { bytes: 0, hasher: Hasher::default() };
    let is_sealed = format == ResultFormat::Sealed;
    let room = Budget { bytes: if is_sealed { SEALED_BYTES_MAX } else { budget.bytes }, ..budget };
    let end = given.pass(ResultReader::new(source), &frames, room);
    let sha256 = given.hasher.finish();
    let bytes = given.bytes;
    // What is sealed again nobody can read: nothing of it was given out.
    let read = if is_sealed { 0 } else { bytes };
    match end {
        Ok(end) if end.failed.is_none() && end.bytes == bytes && end.sha256 == sha256 => {
            let came = Came { ended: Ended::Done, rows: end.rows, bytes: read, result: Some(sha256) };
            (came, Some((frames, end)))
        }
        failed => {
            let (rows, why) = match failed {
                Ok(ResultEnd { rows, failed: Some(why), .. }) => (rows.min(budget.rows), why),
                Ok(_) => (budget.rows, ErrorBody::incomplete("the worker has counted otherwise than the gateway")),
                // Nobody knows how many were in what has come.
                Err(error) => {
                    let why = if workers > 1 { format!("worker 1 of the intent: {error}") } else { error.to_string() };
                    (if bytes == 0 { 0 } else { budget.rows }, ErrorBody::incomplete(why))
                }
            };
            tracing::warn!(data.region = %region, "a run has failed: {}", why.message);
            let end = ResultEnd { failed: Some(why), ..ResultEnd::new(rows, bytes, sha256) };
            (Came { ended: Ended::Failed, rows, bytes: read, result: None }, Some((frames, end)))
        }
    }
}

/// What was given out.
struct Given {
    bytes: u64,
    hasher: Hasher,
}

impl Given {
    /// Passes on what comes, within the budget.
    fn pass(
        &mut self,
        mut source: ResultReader<impl io::Read>,
        frames: &mpsc::Sender<Bytes>,
        budget: Budget,
    ) -> io::Result<ResultEnd> {
        loop {
            match source.piece()? {
                ResultPiece::End(end) if end.rows > budget.rows => {
                    return Err(io::Error::other("the worker has given out more rows than it may"));
                }
                ResultPiece::End(end) => return Ok(end),
                ResultPiece::Bytes(bytes) => {
                    let after = self.bytes + bytes.len() as u64;
                    if after > budget.bytes {
                        return Err(io::Error::other("the budget of bytes is used up"));
                    }
                    // Counted before it goes: what may have been seen has been given out.
                    self.bytes = after;
                    self.hasher.update(&bytes);
                    let sent = frames.blocking_send(Bytes::from(result_frame(&bytes)));
                    sent.map_err(|_| io::Error::other("whoever was reading has gone away"))?;
                }
            }
        }
    }
}
