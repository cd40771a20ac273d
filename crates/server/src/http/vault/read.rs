//! Manifests and segments for whoever reads: workers, which ask custodians for keys, and mirrors.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use ::vault::{evidence_key, manifest_key, segment_key};
use attest::{DataClass, RegionId};
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use futures::stream;
use http::{HeaderMap, HeaderValue, Uri, header};
use stdx::Digest;
use storage::{Key, ObjectStore, Piece};

use super::Vault;
use crate::http::error::{Code, HttpError};
use crate::http::range;
use crate::http::stream::{IMMUTABLE, OCTETS};

/// Read at once of a store that may be elsewhere; a thousand readers take a gigabyte.
const PIECE_BYTES: u64 = 1 << 20;

pub(super) async fn manifest(
    State(vault): State<Vault>,
    Path((region, number)): Path<(String, u64)>,
    uri: Uri,
) -> Result<Response, HttpError> {
    let not_found = || HttpError::not_found(uri.path());
    let region: RegionId = region.parse().map_err(|_| not_found())?;
    let key = manifest_key(&region, number).map_err(|_| not_found())?;
    let bytes = vault.objects.get(&key).await.map_err(|error| failed(&key, &error))?.ok_or_else(not_found)?;
    Ok(([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, IMMUTABLE)], bytes).into_response())
}

pub(super) async fn evidence(
    State(vault): State<Vault>,
    Path((region, evidence)): Path<(String, String)>,
    uri: Uri,
) -> Result<Response, HttpError> {
    let not_found = || HttpError::not_found(uri.path());
    let (region, evidence) = region.parse().ok().zip(evidence.parse().ok()).ok_or_else(not_found)?;
    let key = evidence_key(&region, &evidence).map_err(|_| not_found())?;
    let bytes = vault.objects.get(&key).await.map_err(|error| failed(&key, &error))?.ok_or_else(not_found)?;
    Ok(([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, IMMUTABLE)], bytes).into_response())
}

pub(super) async fn segment(
    State(vault): State<Vault>,
    Path((region, class, segment)): Path<(String, String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let key = || -> Option<Key> {
        let (region, class): (RegionId, DataClass) = (region.parse().ok()?, class.parse().ok()?);
        let segment: Digest = segment.parse().ok()?;
        segment_key(&region, &class, &segment).ok()
    };
    let key = key().ok_or_else(|| HttpError::not_found(uri.path()))?;
    let asked = range::asked(&headers)?;
    let wanted = asked.clone().unwrap_or(0..u64::MAX);
    let first = wanted.start..wanted.end.min(wanted.start.saturating_add(PIECE_BYTES));
    let piece = vault.objects.get_piece(&key, first).await.map_err(|error| failed(&key, &error))?;
    let Piece { bytes, size } = piece.ok_or_else(|| HttpError::not_found(uri.path()))?;
    if wanted.start >= size {
        return Err(HttpError::new(Code::Range, format!("`{key}` has {size} bytes")));
    }
    let given = wanted.start..wanted.end.min(size);
    let mut response = Response::new(body(Arc::clone(&vault.objects), key, bytes, given.clone()));
    let into = response.headers_mut();
    into.insert(header::CONTENT_LENGTH, HeaderValue::from(given.end - given.start));
    into.insert(header::CONTENT_TYPE, HeaderValue::from_static(OCTETS));
    into.insert(header::CACHE_CONTROL, HeaderValue::from_static(IMMUTABLE));
    into.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if asked.is_some() {
        range::mark(&mut response, &given, size);
    }
    Ok(response)
}

/// What was read already, and then the rest, piece by piece.
fn body(objects: Arc<dyn ObjectStore>, key: Key, first: Bytes, given: Range<u64>) -> Body {
    let state = (Some(first), given);
    Body::from_stream(stream::try_unfold(state, move |(ready, left)| {
        let (objects, key) = (Arc::clone(&objects), key.clone());
        async move {
            if left.is_empty() {
                return Ok(None);
            }
            let bytes = match ready {
                Some(bytes) => bytes,
                None => {
                    let range = left.start..left.end.min(left.start.saturating_add(PIECE_BYTES));
                    let piece = objects.get_piece(&key, range).await.map_err(io::Error::other)?;
                    piece.map(|piece| piece.bytes).unwrap_or_default()
                }
            };
            if bytes.is_empty() {
                // Its time was over while it was read.
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            let start = left.start.saturating_add(bytes.len() as u64);
            Ok(Some((bytes, (None, start..left.end))))
        }
    }))
}

fn failed(key: &Key, error: &storage::Error) -> HttpError {
    HttpError::new(Code::Storage, format!("`{key}`: {error}"))
}
