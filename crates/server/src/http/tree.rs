//! The channel: a static tree of files that any other server could serve as well.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use attest::BUNDLE_BYTES_MAX;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use http::HeaderMap;
use storage::Key;

use crate::http::error::{Code, HttpError};
use crate::http::stream::{self, FileHeaders};

/// Where the tree is served.
pub const CHANNEL: &str = "/channel";

/// What every endpoint asks for at every look, and mostly has already.
const STATUS: &str = "status/";

/// Serves the files below `root`, and nothing outside, whatever links point there.
pub fn router(root: PathBuf) -> Router {
    Router::new().route(&format!("{CHANNEL}/{{*path}}"), get(file)).with_state(Arc::new(root))
}

async fn file(
    State(root): State<Arc<PathBuf>>,
    Path(path): Path<String>,
    asked: HeaderMap,
) -> Result<Response, HttpError> {
    // A key has no empty part, none that starts with a dot, and no odd characters.
    let key: Key = path.parse().map_err(|_| HttpError::not_found(&path))?;
    let storage = |error: &dyn std::fmt::Display| HttpError::new(Code::Storage, format!("`{key}`: {error}"));
    let wanted = key.clone();
    let opened = tokio::task::spawn_blocking(move || open(&root, &wanted)).await.map_err(|error| storage(&error))?;
    let file = opened.map_err(|error| storage(&error))?.ok_or_else(|| HttpError::not_found(&path))?;
    let content_type = if key.as_str().ends_with(".json") { "application/json" } else { stream::OCTETS };
    let headers = FileHeaders { content_type, cache_control: stream::NO_CACHE };
    if key.as_str().starts_with(STATUS) {
        let read = tokio::task::spawn_blocking(move || read(file)).await.map_err(|error| storage(&error))?;
        return Ok(stream::tagged(read.map_err(|error| storage(&error))?, headers, &asked));
    }
    stream::respond(file, headers).map_err(|error| storage(&error))
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
