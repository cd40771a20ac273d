//! Asking other workers of the intent, over HTTP that nobody needs to trust.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use api::path;
use async_trait::async_trait;
use bytes::{Buf as _, Bytes, BytesMut};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::ipc::reader::StreamDecoder;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion_distributed::{
    ChannelResolver, CoordinatorToWorkerMsg, ExecuteTaskRequest, GetWorkerInfoRequest, GetWorkerInfoResponse,
    ProducerHead, SetPlanRequest, TaskKey, WorkerChannel, WorkerToCoordinatorMsg,
};
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _, future};
use http::HeaderMap;
use seal::{Answered, Answers, Asking};
use stdx::Digest;
use url::Url;

use crate::engine::Stop;
use crate::hold::{Held, Scope};
use crate::spread::place_of;
use crate::wire::{End, FRAME_BYTES_MAX, Head, Question, Task, read, written};

/// An X-Wing ciphertext, a share, and room.
const ANSWER_BYTES_MAX: usize = 8 << 10;

/// A greeting, a plan or an end takes milliseconds; a machine that is busy gets this.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);

/// What an answer brings, piece by piece.
enum Piece {
    Bytes(Vec<u8>),
    End(End),
}

/// For what takes a worker no reading.
async fn in_time<T>(place: usize, answer: impl Future<Output = Result<T, Stop>>) -> Result<T, Stop> {
    tokio::time::timeout(ANSWER_TIME_MAX, answer).await.unwrap_or(Err(Stop::Gone(place + 1)))
}

/// An answer on its way.
struct Answer {
    place: usize,
    answers: Answers,
    body: BoxStream<'static, reqwest::Result<Bytes>>,
    came: BytesMut,
}

impl Scope {
    fn gone(place: usize) -> impl Fn(reqwest::Error) -> Stop {
        move |error| {
            tracing::warn!("worker {} does not answer: {error}", place + 1);
            Stop::Gone(place + 1)
        }
    }

    async fn post(&self, place: usize, path: &str, body: Vec<u8>) -> Result<reqwest::Response, Stop> {
        let peer = self.peers.get(place).ok_or(Stop::Other(place + 1))?;
        let sent = self.client.post(peer.url.join(path)).body(body).send().await;
        let response = sent.map_err(Self::gone(place))?;
        if response.status().is_success() { Ok(response) } else { Err(Stop::Ended(place + 1)) }
    }

    /// The session in which this worker asks the one at `place`.
    async fn asking(&self, place: usize) -> Result<&(Digest, Asking), Stop> {
        let other = Stop::Other(place + 1);
        let cell = self.asking.get(place).ok_or(other)?;
        let greeted = cell.get_or_try_init(|| async {
            let peers = self.own().zip(self.peers.get(place)).filter(|_| place != self.place.at);
            let (own, peer) = peers.ok_or(other)?;
            let hop = self.hop(own, peer);
            let (begun, message) = hop.begin(&*self.entropy).map_err(|_| other)?;
            let at = [u8::try_from(self.place.at).map_err(|_| other)?];
            let body = [self.intent.digest().as_bytes().as_slice(), &at, &message].concat();
            let response = self.post(place, path::HOPS, body).await?;
            let mut came = BytesMut::new();
            let mut body = response.bytes_stream();
            while let Some(bytes) = body.try_next().await.map_err(Self::gone(place))? {
                came.extend_from_slice(&bytes);
                if came.len() > ANSWER_BYTES_MAX {
                    return Err(other);
                }
            }
            let asking = hop.finish(begun, &self.key, &came).map_err(|_| other)?;
            Ok((Digest::of(&came), asking))
        });
        in_time(place, greeted).await
    }

    async fn ask(&self, place: usize, question: &Question, rest: &[u8]) -> Result<Answer, Stop> {
        let (name, asking) = self.asking(place).await?;
        let (closed, answers) = asking.ask(&written(question, rest)).map_err(|_| Stop::Other(place + 1))?;
        let body = [self.intent.digest().as_bytes().as_slice(), name.as_bytes(), &closed].concat();
        let response = self.post(place, path::QUESTIONS, body).await?;
        Ok(Answer { place, answers, body: response.bytes_stream().boxed(), came: BytesMut::new() })
    }
}

impl Answer {
    /// The next piece; what was cut off, or changed, is none.
    async fn piece(&mut self) -> Result<Piece, Stop> {
        let other = Stop::Other(self.place + 1);
        loop {
            if let Some(length) = self.came.first_chunk::<4>() {
                let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| other)?;
                if length > FRAME_BYTES_MAX {
                    return Err(other);
                }
                if self.came.len() >= 4 + length {
                    self.came.advance(4);
                    let closed = self.came.split_to(length);
                    return match self.answers.read(&closed).map_err(|_| other)? {
                        Answered::Frame(bytes) => Ok(Piece::Bytes(bytes)),
                        Answered::Last(end) => Ok(Piece::End(read(&end).ok_or(other)?.0)),
                    };
                }
            }
            let next = self.body.try_next().await.map_err(Scope::gone(self.place))?;
            self.came.extend_from_slice(&next.ok_or(Stop::Gone(self.place + 1))?);
        }
    }

    /// An answer that is nothing but its end.
    async fn end(mut self) -> Result<End, Stop> {
        match self.piece().await? {
            Piece::End(End { stopped: Some(stopped), .. }) => Err(stopped),
            Piece::End(end) => Ok(end),
            Piece::Bytes(_) => Err(Stop::Other(self.place + 1)),
        }
    }

    fn batches(self) -> BoxStream<'static, Result<RecordBatch>> {
        let state = (self, StreamDecoder::new(), Buffer::from(Vec::<u8>::new()));
        stream::try_unfold(state, async |(mut answer, mut decoder, mut bytes)| {
            loop {
                if !bytes.is_empty()
                    && let Some(batch) = decoder.decode(&mut bytes)?
                {
                    return Ok(Some((batch, (answer, decoder, bytes))));
                }
                match answer.piece().await? {
                    Piece::Bytes(piece) => bytes = Buffer::from(piece),
                    Piece::End(End { stopped: Some(stopped), .. }) => return Err(stopped.into()),
                    Piece::End(_) => {
                        decoder.finish()?;
                        return Ok(None);
                    }
                }
            }
        })
        .boxed()
    }
}

impl Held {
    /// Tells the others that this was all, if they are still there. Gives how many objects they could not read.
    pub(crate) async fn end_others(&self) -> Result<u64, Stop> {
        let scope = self.scope();
        let others = (0..scope.place.of).filter(|place| *place != scope.place.at);
        let end =
            async |place| in_time(place, async { scope.ask(place, &Question::End, b"").await?.end().await }).await;
        let ends = future::try_join_all(others.map(end)).await?;
        Ok(ends.iter().map(|end| end.unreadable).sum())
    }
}

/// How a plan finds the others.
pub(crate) struct Others(pub(crate) Arc<Scope>);

#[async_trait]
impl ChannelResolver for Others {
    async fn get_worker_client_for_url(&self, url: &Url) -> Result<Box<dyn WorkerChannel>, DataFusionError> {
        let place = place_of(url).filter(|place| *place < self.0.place.of);
        let place = place.ok_or_else(|| DataFusionError::from(Stop::Refused(self.0.place.at + 1)))?;
        Ok(Box::new(Other { scope: Arc::clone(&self.0), place }))
    }
}

impl fmt::Debug for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One of them.
struct Other {
    scope: Arc<Scope>,
    place: usize,
}

fn task(key: TaskKey) -> Task {
    Task { plan: key.query_id.as_u128(), stage: key.stage_id, at: key.task_number }
}

#[async_trait]
impl WorkerChannel for Other {
    /// Brings a part of the plan. Work is not fed bit by bit here, and measures are not taken, so nothing follows.
    async fn coordinator_channel(
        &mut self,
        _: HeaderMap,
        request: SetPlanRequest,
        _: BoxStream<'static, CoordinatorToWorkerMsg>,
        _: ExecutionPlanMetricsSet,
        context: &Arc<TaskContext>,
    ) -> Result<BoxStream<'static, Result<WorkerToCoordinatorMsg>>> {
        let question = Question::Plan { task: task(request.task_key), tasks: request.task_count };
        let plan = request.plan.encode(context)?;
        in_time(self.place, async { self.scope.ask(self.place, &question, &plan).await?.end().await }).await?;
        Ok(stream::empty().boxed())
    }

    async fn execute_task(
        &mut self,
        _: HeaderMap,
        request: ExecuteTaskRequest,
        _: ExecutionPlanMetricsSet,
        context: &Arc<TaskContext>,
    ) -> Result<Vec<BoxStream<'static, Result<RecordBatch>>>> {
        let (head, parted) = match request.producer_head {
            ProducerHead::None => (Head::Nothing, Vec::new()),
            ProducerHead::BroadcastExec { output_partitions } => {
                (Head::Broadcast { partitions: output_partitions }, Vec::new())
            }
            ProducerHead::RepartitionExec { partitioning } => (Head::Parted, partitioning.encode(context)?),
        };
        let task = task(request.task_key);
        let read = |partition| {
            let (scope, place, parted) = (&self.scope, self.place, &parted);
            async move { scope.ask(place, &Question::Read { task, partition, head }, parted).await }
        };
        let partitions = request.target_partition_start..request.target_partition_end;
        let answers = future::try_join_all(partitions.map(read)).await?;
        Ok(answers.into_iter().map(Answer::batches).collect())
    }

    async fn get_worker_info(&mut self, _: GetWorkerInfoRequest) -> Result<GetWorkerInfoResponse> {
        Err(Stop::Refused(self.place + 1).into())
    }
}
