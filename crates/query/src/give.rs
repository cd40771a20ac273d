//! What comes out of a query, as frames; and a part of one, held for other workers.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use api::{ErrorBody, RESULT_FRAME_BYTES_MAX, ResultEnd, result_end, result_frame};
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::engine::{Running, Stop};
use crate::hold::Holding;
use crate::output::{Output, OutputError};

/// Why a result is not all of it, where the query is not to blame.
pub(crate) const OWN_ERROR: &str = "the worker found an error of its own";
pub(crate) const TOO_LATE: &str = "the intent's time is over";

/// What ends with a query.
pub(crate) struct Shared {
    #[expect(dead_code, reason = "it counts as long as it is there")]
    pub(crate) permit: OwnedSemaphorePermit,
    pub(crate) holding: Option<Holding>,
}

/// Sends what comes out, for `time` at most; the last frame says how it ended.
pub(crate) async fn give(
    running: Running,
    mut output: Output,
    sender: mpsc::Sender<Vec<u8>>,
    time: Duration,
    shared: Shared,
) {
    let (unreadable, others) = (Arc::clone(&running.unreadable), running.others.clone());
    let sent = AssertUnwindSafe(send(running, &mut output, &sender)).catch_unwind();
    let failed = match tokio::time::timeout(time, sent).await {
        Ok(Ok(Ok(()))) => None,
        Ok(Ok(Err(error))) => Some(error.body()),
        Ok(Err(_)) => Some(ErrorBody::incomplete(OWN_ERROR)),
        Err(_) => Some(ErrorBody::incomplete(TOO_LATE)),
    };
    let mut end = output.end();
    end.failed = failed;
    end.unreadable = unreadable.load(Ordering::Relaxed);
    end.workers = others.map_or(1, |held| held.scope().place.of as u64);
    tracing::info!(
        data.rows = end.rows,
        data.bytes = end.bytes,
        data.failed = end.failed.as_ref().map(|it| &it.message),
        "a query ended"
    );
    // Who has gone away learns nothing more.
    let _ = sender.send(result_end(&end)).await;
    drop(shared);
}

/// Holds a part of a query, and says nothing until it is over.
pub(crate) async fn keep(shared: Shared, sender: mpsc::Sender<Vec<u8>>, time: Duration) {
    let is_over = tokio::time::timeout(time, sender.closed()).await.is_err();
    drop(shared);
    let failed = is_over.then(|| ErrorBody::incomplete(TOO_LATE));
    let end = ResultEnd { failed, ..ResultEnd::nothing() };
    let _ = sender.send(result_end(&end)).await;
}

#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error("{0}")]
    Engine(Stop),
    #[error("nobody takes the result")]
    Gone,
}

impl SendError {
    /// As the result's end says it.
    fn body(&self) -> ErrorBody {
        match self {
            Self::Output(OutputError::Budget(_)) | Self::Engine(Stop::Memory) => ErrorBody::too_much(self.to_string()),
            Self::Output(_) | Self::Engine(_) | Self::Gone => ErrorBody::incomplete(self.to_string()),
        }
    }
}

async fn send(mut running: Running, output: &mut Output, sender: &mpsc::Sender<Vec<u8>>) -> Result<(), SendError> {
    let schema = running.rows.schema();
    while let Some(batch) = running.rows.next().await {
        let batch = batch.map_err(|error| SendError::Engine(Stop::of(&error)))?;
        pass(output.rows(&batch)?, sender).await?;
    }
    if let Some(held) = &running.others {
        let unreadable = held.end_others().await.map_err(SendError::Engine)?;
        running.unreadable.fetch_add(unreadable, Ordering::Relaxed);
    }
    pass(output.finish(&schema)?, sender).await
}

async fn pass(bytes: Vec<u8>, sender: &mpsc::Sender<Vec<u8>>) -> Result<(), SendError> {
    for piece in bytes.chunks(RESULT_FRAME_BYTES_MAX) {
        sender.send(result_frame(piece)).await.map_err(|_| SendError::Gone)?;
    }
    Ok(())
}
