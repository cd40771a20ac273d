//! What a worker has written anew takes the place of what it was made of: whoever brings it, with the evidence.
//!
//! A body is 4 bytes of length (big-endian), an `api::Made` of that length, and the segment. The evidence is looked at
//! before the segment is read.

use std::sync::Arc;

use ::vault::{ManifestError, Manifests, Offer, Replacement, Vouched};
use api::{Made, Replaced};
use attest::{Bundle, Envelope};
use axum::Json;
use axum::body::Body;
use axum::body::Bytes;
use axum::extract::State;
use futures::{StreamExt as _, TryStreamExt as _};
use stdx::{Clock as _, SystemClock};

use super::Vault;
use crate::data::SEALED_BYTES_MAX;
use crate::http::error::{Code, HttpError};

/// A bundle and an envelope, escaped.
const MADE_BYTES_MAX: usize = 4 << 20;

pub(super) async fn replace(State(vault): State<Vault>, body: Body) -> Result<Json<Replaced>, HttpError> {
    // One at a time: it is the only body that is long. Who waits has not sent it yet.
    let Ok(turn) = Arc::clone(&vault.turn).try_lock_owned() else {
        return Err(HttpError::new(Code::Busy, "another segment is being put into the place of others"));
    };
    let mut stream = body.into_data_stream().map_err(|error| HttpError::new(Code::Body, error.to_string()));
    let mut read = Vec::new();
    let (vouched, begins) = loop {
        let piece = stream.next().await.ok_or_else(|| HttpError::new(Code::Body, "the body was cut off"))??;
        read.extend_from_slice(&piece);
        if let Some((made, begins)) = made(&read)? {
            break (vouched(&vault, &made)?, begins);
        }
    };
    let mut segment = read.split_off(begins);
    while let Some(piece) = stream.next().await {
        segment.extend_from_slice(&piece?);
        if segment.len() as u64 > SEALED_BYTES_MAX {
            return Err(HttpError::new(Code::TooLong, format!("a segment has {SEALED_BYTES_MAX} bytes at most")));
        }
    }
    // Whoever hangs up now does not end it in the middle.
    let done = tokio::spawn(async move {
        let replaced = put(&vault, &vouched, &Bytes::from(segment)).await;
        drop(turn);
        replaced
    });
    done.await.map_err(|error| HttpError::new(Code::Storage, error.to_string()))?.map(Json)
}

/// What stands before the segment, and where that begins, if all of it is there.
fn made(read: &[u8]) -> Result<Option<(Made, usize)>, HttpError> {
    let Some((length, rest)) = read.split_first_chunk::<4>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > MADE_BYTES_MAX {
        return Err(HttpError::new(Code::TooLong, "the evidence is too long"));
    }
    let Some(made) = rest.get(..length) else { return Ok(None) };
    let made = serde_json::from_slice(made).map_err(|error| HttpError::new(Code::Request, error.to_string()))?;
    Ok(Some((made, 4 + length)))
}

fn vouched(vault: &Vault, made: &Made) -> Result<Vouched, HttpError> {
    let form = |error: &dyn std::fmt::Display| HttpError::new(Code::Request, error.to_string());
    let statement = Envelope::parse(made.statement.as_bytes()).map_err(|error| form(&error))?;
    let evidence = Bundle::parse(made.evidence.as_bytes()).map_err(|error| form(&error))?;
    let now = SystemClock::new().now();
    let offer = Offer { policy: &vault.policy, now, statement: &statement, evidence: &evidence };
    offer.check().map_err(|error| HttpError::new(Code::Rewriting, error.to_string()))
}

async fn put(vault: &Vault, vouched: &Vouched, segment: &Bytes) -> Result<Replaced, HttpError> {
    let failed = |error: ManifestError| match error {
        error @ (ManifestError::NoSegment(..) | ManifestError::Withdrawn(..) | ManifestError::Unclean(..)) => {
            HttpError::new(Code::Rewriting, error.to_string())
        }
        error => HttpError::new(Code::Storage, error.to_string()),
    };
    let region = vouched.says().region.clone();
    let mut manifests = Manifests::open(Arc::clone(&vault.objects), region).await.map_err(failed)?;
    // What an earlier one has left behind.
    manifests.withdraw().await.map_err(failed)?;
    let replacement = manifests.chain().check(vouched, &vault.admission, segment);
    let replacement = replacement.map_err(|error| HttpError::new(Code::Rewriting, error.to_string()))?;
    let replaced = replaced(&manifests, vouched, &replacement);
    manifests.replace(&replacement).await.map_err(failed)?;
    tracing::info!(data.intent = %replaced.intent, data.segment = %replaced.segment, "a segment was written anew");
    Ok(replaced)
}

fn replaced(manifests: &Manifests, vouched: &Vouched, replacement: &Replacement) -> Replaced {
    let before = replacement.replaced().iter().filter_map(|it| manifests.chain().segment(it));
    let (segments_before, objects_before, bytes_before) =
        before.fold((0, 0, 0), |sum, it| (sum.0 + 1, sum.1 + it.objects.len() as u64, sum.2 + it.bytes));
    let (says, made) = (vouched.says(), replacement.segment());
    Replaced {
        intent: says.intent,
        class: says.class.clone(),
        segments_before,
        objects_before,
        bytes_before,
        segment: made.segment,
        objects: made.objects.len() as u64,
        bytes: made.bytes,
        events: says.events,
        doubles: says.doubles,
        unread: says.unread.len() as u64,
        omitted: says.omitted,
    }
}
