//! A log's objects over HTTP (C2SP tlog-tiles).

use api::{BaseUrl, BodyLimit, Client, ErrorClass};
use async_trait::async_trait;
use bytes::Bytes;
use log::{Class, SourceError, TileSource};
use storage::Key;
use tlog::{MAX_BUNDLE_BYTES, MAX_NOTE_BYTES};

/// 256 hashes.
const TILE_BYTES_MAX: u64 = 256 * 32;

/// A log at a URL.
#[derive(Clone, Debug)]
pub struct HttpTiles {
    /// The log's prefix.
    pub url: BaseUrl,
    /// The client.
    pub client: Client,
}

#[async_trait]
impl TileSource for HttpTiles {
    async fn get(&self, path: &Key) -> Result<Option<Bytes>, SourceError> {
        let (client, url) = (self.client.clone(), self.url.join(&format!("/{path}")));
        let limit = limit(path);
        let failed = |reason: String, class| SourceError { key: path.clone(), reason, class };
        match tokio::task::spawn_blocking(move || client.find(&url, limit)).await {
            Ok(Ok(found)) => Ok(found.map(Bytes::from)),
            Ok(Err(error)) => Err(failed(error.to_string(), class_of(&error))),
            Err(error) => Err(failed(error.to_string(), Class::Unavailable)),
        }
    }
}

/// A log that is gone in the middle of a reading may come back; one that answers nonsense does it again.
fn class_of(error: &api::ClientError) -> Class {
    match error.class() {
        ErrorClass::Unavailable => Class::Unavailable,
        ErrorClass::Rejected | ErrorClass::Fatal => Class::Rejected,
    }
}

/// As much as an object of this name can have.
fn limit(path: &Key) -> BodyLimit {
    BodyLimit(match path.as_str() {
        "checkpoint" => MAX_NOTE_BYTES as u64,
        path if path.starts_with("tile/entries/") => MAX_BUNDLE_BYTES as u64,
        _ => TILE_BYTES_MAX,
    })
}
