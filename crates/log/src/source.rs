//! Where a reader gets a log's objects from.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use storage::{Key, ObjectStore};

use crate::Class;

/// Why a source gave nothing.
#[derive(Debug, thiserror::Error)]
#[error("`{key}` can't be read: {reason}")]
pub struct SourceError {
    /// The object.
    pub key: Key,
    /// Why not.
    pub reason: String,
    /// Whether it may go better another time.
    pub class: Class,
}

/// A log's published objects, by their path below the log's prefix (C2SP tlog-tiles).
///
/// Nothing that it gives is trusted. Calls may overlap and be repeated.
#[async_trait]
pub trait TileSource: Send + Sync {
    /// `checkpoint`, `tile/…` or `tile/entries/…`; `None` if there is no such object.
    async fn get(&self, path: &Key) -> Result<Option<Bytes>, SourceError>;
}

/// The tiles of a batch, and behind them those of the log that it is about to be written to.
pub(crate) struct InBatch {
    batch: HashMap<Key, Bytes>,
    log: Arc<dyn TileSource>,
}

impl InBatch {
    pub(crate) fn new(tiles: &[(Key, Bytes)], log: Arc<dyn TileSource>) -> Self {
        Self { batch: tiles.iter().cloned().collect(), log }
    }
}

#[async_trait]
impl TileSource for InBatch {
    async fn get(&self, path: &Key) -> Result<Option<Bytes>, SourceError> {
        match self.batch.get(path) {
            Some(bytes) => Ok(Some(bytes.clone())),
            None => self.log.get(path).await,
        }
    }
}

/// The objects of a store.
#[derive(Clone)]
pub struct ObjectSource(pub Arc<dyn ObjectStore>);

#[async_trait]
impl TileSource for ObjectSource {
    async fn get(&self, path: &Key) -> Result<Option<Bytes>, SourceError> {
        let failed = |error| SourceError { key: path.clone(), reason: chain(&error), class: Class::Unavailable };
        self.0.get(path).await.map_err(failed)
    }
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
