//! Where a reader gets a log's objects from.

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
