//! Answering other workers of an intent: first whether it is held here, and whether who asks is one of its workers; only
//! then what is asked.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use api::result_frame;
use datafusion::arrow::array::{Array as _, ArrayRef, AsArray as _, RecordBatch};
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::ipc::writer::StreamWriter;
use datafusion::common::{DataFusionError, Result};
use datafusion_distributed::{ExecuteTaskRequest, MaybeEncoded, ProducerHead, SetPlanRequest, TaskKey};
use futures::{FutureExt as _, StreamExt as _, stream};
use http::HeaderMap;
use seal::Replies;
use stdx::Digest;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::engine::Stop;
use crate::hold::{Held, LEADER};
use crate::spread::url_of;
use crate::wire::{End, Head, PIECE_BYTES, Question, Task, read, written};

/// A question that came in a session with a worker whom the intent names.
pub(crate) struct Asked {
    /// Whose place that is.
    from: usize,
    question: Vec<u8>,
    replies: Replies,
}

impl Held {
    /// Begins a session with whoever says that it is the worker at `place`. Gives what goes back.
    pub(crate) fn begin(&self, place: usize, message: &[u8]) -> Option<Vec<u8>> {
        let scope = self.scope();
        let peer = scope.peers.get(place).filter(|_| place != scope.place.at)?;
        let (answering, answer) = scope.hop(peer, scope.own()?).answer(&scope.key, message, &*scope.entropy).ok()?;
        self.begun(place, Digest::of(&answer), answering).then_some(answer)
    }

    /// Takes a question that came under this name, once.
    pub(crate) fn take(&self, session: &Digest, closed: &[u8]) -> Option<Asked> {
        let (from, answering) = self.session(session)?;
        let (question, replies) = answering.take(closed).ok()?;
        self.proven(session);
        Some(Asked { from, question, replies })
    }

    /// Answers it, for as long as this is held.
    pub(crate) async fn answer(self: Arc<Self>, asked: Asked, sender: mpsc::Sender<Vec<u8>>) {
        let Asked { from, question, mut replies } = asked;
        let mut ended = self.ended();
        let own = self.scope().place.at + 1;
        let answered = AssertUnwindSafe(self.reply((from, &question), &mut replies, &sender)).catch_unwind();
        let end = tokio::select! {
            answered = answered => answered.unwrap_or(Err(Stop::Value.into())),
            _ = ended.wait_for(|ended| *ended) => Err(Stop::Ended(own).into()),
        };
        let end = end.unwrap_or_else(|error| End { stopped: Some(Stop::of(&error)), ..End::default() });
        // Who has gone away learns nothing more.
        let _ = sender.send(result_frame(&replies.last(&written(&end, b"")))).await;
    }

    async fn reply(
        &self,
        (from, question): (usize, &[u8]),
        replies: &mut Replies,
        sender: &mpsc::Sender<Vec<u8>>,
    ) -> Result<End> {
        let refused = || DataFusionError::from(Stop::Refused(self.scope().place.at + 1));
        let (question, rest) = read::<Question>(question).ok_or_else(refused)?;
        match question {
            // Only the leader plans, and it knows its own plan.
            Question::Plan { .. } | Question::End if from != LEADER => return Err(refused()),
            Question::Plan { task, tasks } => self.plan(task, tasks, rest).await?,
            Question::Read { task, .. } if task.at != self.scope().place.at => return Err(refused()),
            Question::Read { task, partition, head } => {
                let producer_head = match head {
                    Head::Nothing => ProducerHead::None,
                    Head::Broadcast { partitions } => ProducerHead::BroadcastExec { output_partitions: partitions },
                    Head::Parted => {
                        ProducerHead::RepartitionExec { partitioning: MaybeEncoded::Encoded(rest.to_vec()) }
                    }
                };
                let request = ExecuteTaskRequest {
                    task_key: key(task),
                    target_partition_start: partition,
                    target_partition_end: partition.checked_add(1).ok_or_else(refused)?,
                    producer_head,
                };
                self.read(request, replies, sender).await?;
            }
            Question::End => {
                let unreadable = self.slice().unreadable().load(std::sync::atomic::Ordering::Relaxed);
                return Ok(End { unreadable, stopped: None });
            }
        }
        Ok(End::default())
    }

    /// Takes a part of the plan. What is in it is looked at before it is kept (`spread::check`).
    async fn plan(&self, task: Task, tasks: usize, plan: &[u8]) -> Result<()> {
        let place = self.scope().place;
        if task.at != place.at || task.at >= tasks || tasks > place.of {
            return Err(Stop::Refused(place.at + 1).into());
        }
        let request = SetPlanRequest {
            task_key: key(task),
            task_count: tasks,
            plan: MaybeEncoded::Encoded(plan.to_vec()),
            work_unit_feed_declarations: Vec::new(),
            target_worker_url: url_of(place.at)?,
            query_start_time_ns: 0,
        };
        let mut ended = self.ended();
        let end = stream::once(async move { drop(ended.wait_for(|ended| *ended).await) });
        let end = end.filter_map(async |()| None).boxed();
        let taken = self.worker().coordinator_channel(HeaderMap::new(), request, end).await;
        // Whatever comes of the plan goes to who reads it.
        taken.map(drop).map_err(|error| self.unplanned(error))
    }

    /// What went wrong before anything was read was no value.
    fn unplanned(&self, error: DataFusionError) -> DataFusionError {
        match Stop::of(&error) {
            Stop::Value => Stop::Plan(self.scope().place.at + 1).into(),
            _ => error,
        }
    }

    async fn read(
        &self,
        request: ExecuteTaskRequest,
        replies: &mut Replies,
        sender: &mpsc::Sender<Vec<u8>>,
    ) -> Result<()> {
        let (streams, _) = self.worker().execute_task(request).await.map_err(|error| self.unplanned(error))?;
        for mut rows in streams {
            let mut writer = StreamWriter::try_new(Vec::new(), &rows.schema())?;
            while let Some(batch) = rows.next().await {
                writer.write(&compact(&batch?)?)?;
                pass(&std::mem::take(writer.get_mut()), replies, sender).await?;
            }
            writer.finish()?;
            pass(&std::mem::take(writer.get_mut()), replies, sender).await?;
        }
        Ok(())
    }
}

fn key(task: Task) -> TaskKey {
    TaskKey { query_id: Uuid::from_u128(task.plan), stage_id: task.stage, task_number: task.at }
}

async fn pass(bytes: &[u8], replies: &mut Replies, sender: &mpsc::Sender<Vec<u8>>) -> Result<()> {
    let gone = || DataFusionError::from(Stop::Value);
    for piece in bytes.chunks(PIECE_BYTES) {
        let frame = replies.frame(piece).ok_or_else(gone)?;
        sender.send(result_frame(&frame)).await.map_err(|_| gone())?;
    }
    Ok(())
}

/// Without what its views don't show: a few rows of a batch would else take all its bytes along.
fn compact(batch: &RecordBatch) -> Result<RecordBatch> {
    let column = |column: &ArrayRef| match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()) as ArrayRef,
        DataType::BinaryView => Arc::new(column.as_binary_view().gc()) as ArrayRef,
        _ => Arc::clone(column),
    };
    let columns = batch.columns().iter().map(column).collect();
    let options = datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns, &options)?)
}
