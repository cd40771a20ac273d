//! `GET /v1/objects/{sha256}`: an object by content.

use api::path;
use assembly::{ContentError, ContentStore};
use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use stdx::Digest;

use crate::http::error::{Code, HttpError};
use crate::http::stream::{self, FileHeaders};

/// Serves the objects of `store`. Each is hashed again before the first byte leaves.
pub fn router(store: ContentStore) -> Router {
    Router::new().route(&format!("{}/{{digest}}", path::OBJECTS), get(object)).with_state(store)
}

async fn object(State(store): State<ContentStore>, Path(name): Path<String>) -> Result<Response, HttpError> {
    let digest: Digest = name.parse().map_err(|_| HttpError::not_found(&name))?;
    let opened = tokio::task::spawn_blocking(move || store.open_object(&digest)).await;
    let file = match opened {
        Ok(Ok(file)) => file,
        Ok(Err(ContentError::Absent(_))) => {
            return Err(HttpError::new(Code::NotFound, format!("there is no object {digest}")));
        }
        Ok(Err(error @ ContentError::Damaged { .. })) => return Err(HttpError::new(Code::Damaged, error.to_string())),
        Ok(Err(error)) => return Err(HttpError::new(Code::Storage, error.to_string())),
        Err(error) => return Err(HttpError::new(Code::Storage, error.to_string())),
    };
    let headers = FileHeaders { content_type: stream::OCTETS, cache_control: stream::IMMUTABLE };
    stream::respond(file, headers).map_err(|error| HttpError::new(Code::Storage, format!("object {digest}: {error}")))
}
