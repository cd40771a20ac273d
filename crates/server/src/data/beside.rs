//! What lies beside the log: the openings of private fields, and queries (`docs/formats/ledger.md`).

use std::sync::Arc;

use attest::{Commitment, Opening};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ledger::{Private, PrivateError};
use stdx::Digest;
use storage::{Key, ObjectStore};

use super::DataError;

/// A query is a page of text.
pub(super) const QUERY_BYTES_MAX: usize = 16 << 10;

/// The store of what lies beside the log.
#[derive(Clone)]
pub(super) struct Beside {
    private: Private,
    objects: Arc<dyn ObjectStore>,
}

impl Beside {
    pub(super) fn new(objects: Arc<dyn ObjectStore>) -> Self {
        Self { private: Private::new(Arc::clone(&objects)), objects }
    }

    /// The openings: reviewers are answered from them, too.
    pub(super) const fn private(&self) -> &Private {
        &self.private
    }

    /// Keeps `openings`, before anything that they open is logged: what is in the log can be opened, unless it
    /// was redacted. A statement that is brought again does not bring that back.
    pub(super) async fn keep(&self, openings: &[Opening]) -> Result<(), DataError> {
        for opening in openings {
            self.private.keep(opening).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Keeps which objects an intent will name, by their headers in base64: their owners find theirs in it.
    pub(super) async fn keep_objects(&self, headers: &[String]) -> Result<(), DataError> {
        let digest = |text: &String| STANDARD.decode(text).map(|bytes| Digest::of(&bytes));
        let digests: Result<Vec<_>, _> = headers.iter().map(digest).collect();
        let digests = digests.map_err(|error| DataError::broken(&error))?;
        self.private.keep_objects(&digests).await.map_err(failed)
    }

    /// What opens `commitment`, if it is here and was not taken away.
    pub(super) async fn opening(&self, commitment: &Commitment) -> Result<Option<Opening>, DataError> {
        self.private.opening(commitment).await.map_err(failed)
    }

    pub(super) async fn keep_query(&self, query: &str) -> Result<(), DataError> {
        let key = key("query", &Digest::of(query.as_bytes()).to_string())?;
        self.objects.put(&key, Bytes::copy_from_slice(query.as_bytes())).await?;
        Ok(())
    }

    pub(super) async fn query(&self, digest: &Digest) -> Result<String, DataError> {
        let bytes = self.objects.get(&key("query", &digest.to_string())?).await?;
        let bytes = bytes.filter(|bytes| Digest::of(bytes) == *digest);
        let text = bytes.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
        text.ok_or_else(|| DataError::Broken(format!("the query {digest} is gone from beside the log")))
    }
}

fn key(folder: &str, name: &str) -> Result<Key, DataError> {
    let parts = (name.get(..2).unwrap_or_default(), name.get(2..4).unwrap_or_default());
    format!("{folder}/{}/{}/{name}", parts.0, parts.1).parse().map_err(|error| DataError::broken(&error))
}

fn failed(error: PrivateError) -> DataError {
    match error {
        PrivateError::Store(error) => DataError::Store(error),
        PrivateError::Redacted(_) => DataError::refused(error.to_string()),
        other => DataError::broken(&other),
    }
}
