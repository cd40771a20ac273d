//! What the log does: how long until an entry is witnessed, how many a second it takes in, over
//! HTTP too, and what growing costs.

mod engine;
mod growth;
mod http;
mod system;

pub(super) use engine::{appends, witnessed};
pub(super) use growth::growth;
pub(super) use http::http;

use std::future::Future;

use log::Log;
use tokio::runtime::{Builder, Runtime};

pub(super) use system::Server;

use system::System;

fn runtime() -> anyhow::Result<Runtime> {
    Ok(Builder::new_multi_thread().enable_all().build()?)
}

/// Opens the vendor's log in this process, with its real witnesses, and works on it.
async fn with_log<T, W: Future<Output = anyhow::Result<T>>>(
    system: &System,
    work: impl FnOnce(Log) -> W,
) -> anyhow::Result<T> {
    let (log, sequencer) = Log::open(system.log_parts().await?).await?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(sequencer.run(async move { drop(stopped.await) }));
    log.watch().wait_for(Option::is_some).await?;
    let outcome = work(log).await;
    drop(stop);
    running.await??;
    outcome
}
