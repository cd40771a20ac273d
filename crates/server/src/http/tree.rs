//! The channel: a static tree of files that any other server could serve as well.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path as FilePath;
use std::sync::Arc;

use attest::BUNDLE_BYTES_MAX;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use channel::layout::TIMESTAMP;
use http::{Extensions, HeaderMap, StatusCode, Version, header};
use storage::Key;
use tower_http::compression::CompressionLayer;

use crate::http::error::{Code, HttpError};
use crate::http::stream::{self, FileHeaders};
use crate::kept::KeptFolder;

/// Where the tree is served.
pub const CHANNEL: &str = "/channel";

/// What every endpoint asks for at every look, and mostly has already.
const STATUS: &str = "status/";

/// Whether a reader starts with it: it names what is new, or is itself.
fn is_read_first(key: &Key) -> bool {
    let key = key.as_str();
    let (starts, ends) = ([TIMESTAMP, STATUS, "policy/"], ".root.json");
    starts.iter().any(|start| key.starts_with(start)) || key.ends_with(ends)
}

/// Serves the files of `folder`, and nothing outside, whatever links point there.
pub fn router(folder: Arc<KeptFolder>) -> Router {
    let compression = CompressionLayer::new().gzip(true).compress_when(is_text as Compressible);
    Router::new().route(&format!("{CHANNEL}/{{*path}}"), get(file)).layer(compression).with_state(folder)
}

type Compressible = fn(StatusCode, Version, &HeaderMap, &Extensions) -> bool;

/// Evidence and rules come to a half and less; products are mostly compressed already.
fn is_text(_: StatusCode, _: Version, headers: &HeaderMap, _: &Extensions) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|it| *it == JSON || *it == TEXT)
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain";

fn content_type(key: &str) -> &'static str {
    match key.rsplit('.').next() {
        Some("json" | "bundle" | "envelope" | "releases") => JSON,
        Some("yar") => TEXT,
        _ => stream::OCTETS,
    }
}

async fn file(
    State(folder): State<Arc<KeptFolder>>,
    Path(path): Path<String>,
    asked: HeaderMap,
) -> Result<Response, HttpError> {
    // A key has no empty part, none that starts with a dot, and no odd characters.
    let key: Key = path.parse().map_err(|_| HttpError::not_found(&path))?;
    let storage = |error: &dyn std::fmt::Display| HttpError::new(Code::Storage, format!("`{key}`: {error}"));
    if is_read_first(&key) {
        renew(&folder).await;
    }
    let wanted = key.clone();
    let opened =
        tokio::task::spawn_blocking(move || open(folder.path(), &wanted)).await.map_err(|error| storage(&error))?;
    let file = opened.map_err(|error| storage(&error))?.ok_or_else(|| HttpError::not_found(&path))?;
    let headers = FileHeaders { content_type: content_type(key.as_str()), cache_control: stream::NO_CACHE };
    if key.as_str().starts_with(STATUS) || key.as_str() == TIMESTAMP {
        let read = tokio::task::spawn_blocking(move || read(file)).await.map_err(|error| storage(&error))?;
        return Ok(stream::tagged(read.map_err(|error| storage(&error))?, headers, &asked));
    }
    stream::respond(file, headers).map_err(|error| storage(&error))
}

/// Whoever asks two machines of the domain must not be shown something older by the second.
pub(super) async fn renew(folder: &Arc<KeptFolder>) {
    let renewed = match folder.is_newest().await {
        Ok(true) => return,
        Ok(false) => {
            let folder = Arc::clone(folder);
            tokio::task::spawn_blocking(move || folder.pull()).await.unwrap_or_else(|error| Err(error.into()))
        }
        Err(error) => Err(error),
    };
    if let Err(error) = renewed {
        // What is here was true when it was copied, and says itself how long it holds.
        tracing::warn!("the channel is served as it was copied last: {error:#}");
    }
}

fn open(root: &FilePath, key: &Key) -> io::Result<Option<File>> {
    let missing = |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    let path = match root.join(key.as_str()).canonicalize() {
        Ok(path) => path,
        Err(error) if missing(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    if !path.starts_with(root.canonicalize()?) || !path.is_file() {
        return Ok(None);
    }
    File::open(path).map(Some)
}

fn read(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(BUNDLE_BYTES_MAX as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_do_not_lead_out() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("channel");
        std::fs::create_dir_all(root.join("inner")).unwrap();
        stdx::durable::write(&folder.path().join("secret"), b"s").unwrap();
        stdx::durable::write(&root.join("inner/a.json"), b"a").unwrap();
        std::os::unix::fs::symlink(folder.path().join("secret"), root.join("link")).unwrap();
        let found = |key: &str| open(&root, &key.parse().unwrap()).unwrap().is_some();
        assert!(found("inner/a.json"));
        for none in ["link", "inner", "missing", "inner/a.json/b"] {
            assert!(!found(none), "{none}");
        }
    }
}
