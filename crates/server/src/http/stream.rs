//! Files as bodies, chunk by chunk.

use std::fs::File;
use std::io;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use stdx::Digest;
use tokio::io::AsyncReadExt as _;

/// Large enough that a gigabyte takes 16,000 reads, small enough for a thousand downloads at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// The headers of a file's response.
#[derive(Clone, Copy, Debug)]
pub struct FileHeaders {
    /// `Content-Type`.
    pub content_type: &'static str,
    /// `Cache-Control`.
    pub cache_control: &'static str,
}

/// For what has its content in its name.
pub const IMMUTABLE: &str = "public, max-age=31536000, immutable";
/// For what changes.
pub const NO_CACHE: &str = "no-cache";
/// Bytes.
pub const OCTETS: &str = "application/octet-stream";

/// A response with the file's bytes, as many as it has now.
///
/// # Errors
/// When its length can't be read.
pub fn respond(file: File, headers: FileHeaders) -> io::Result<Response> {
    let length = file.metadata()?.len();
    let chunks = stream::try_unfold((tokio::fs::File::from_std(file), length), |(mut file, left)| async move {
        let Some(wanted) = usize::try_from(left).ok().map(|left| left.min(CHUNK_BYTES)).filter(|size| *size > 0) else {
            return Ok::<_, io::Error>(None);
        };
        let mut chunk = vec![0; wanted];
        file.read_exact(&mut chunk).await?;
        Ok(Some((Bytes::from(chunk), (file, left - wanted as u64))))
    });
    let mut response = Response::new(Body::from_stream(chunks));
    let into = response.headers_mut();
    into.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    into.insert(header::CONTENT_TYPE, HeaderValue::from_static(headers.content_type));
    into.insert(header::CACHE_CONTROL, HeaderValue::from_static(headers.cache_control));
    Ok(response)
}

/// A small body, named by its content, so that whoever has it is told so instead.
#[must_use]
pub fn tagged(body: Vec<u8>, headers: FileHeaders, asked: &HeaderMap) -> Response {
    let tag = api::entity_tag(&Digest::of(&body));
    // A cache on the way may have made the tag a weak one, or asked for several.
    let names = |text: &str| text.split(',').any(|it| it.trim().trim_start_matches("W/") == tag);
    let known = asked.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).is_some_and(names);
    let mut response = if known { Response::default() } else { Response::new(Body::from(body)) };
    let into = response.headers_mut();
    into.insert(header::CACHE_CONTROL, HeaderValue::from_static(headers.cache_control));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        into.insert(header::ETAG, tag);
    }
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        into.insert(header::CONTENT_TYPE, HeaderValue::from_static(headers.content_type));
    }
    response
}
