//! What lies beside the log: the openings of private fields, and queries (`docs/formats/ledger.md`).

use std::sync::Arc;

use attest::{Commitment, Opening};
use bytes::Bytes;
use stdx::Digest;
use storage::{Key, ObjectStore};

use super::DataError;

/// A query is a page of text.
pub(super) const QUERY_BYTES_MAX: usize = 16 << 10;

/// The store of what lies beside the log.
#[derive(Clone)]
pub(super) struct Beside(Arc<dyn ObjectStore>);

impl Beside {
    pub(super) fn new(objects: Arc<dyn ObjectStore>) -> Self {
        Self(objects)
    }

    /// The store itself.
    pub(super) fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.0)
    }

    /// Keeps `openings`, before anything that they open is logged: what is in the log can be opened.
    pub(super) async fn keep(&self, openings: &[Opening]) -> Result<(), DataError> {
        for opening in openings {
            let key = key("private", &opening.commitment().to_string())?;
            self.0.put(&key, Bytes::from(opening.to_bytes())).await?;
        }
        Ok(())
    }

    /// What opens `commitment`, if it is here and was not taken away.
    pub(super) async fn opening(&self, commitment: &Commitment) -> Result<Option<Opening>, DataError> {
        let Some(bytes) = self.0.get(&key("private", &commitment.to_string())?).await? else { return Ok(None) };
        let opening = Opening::parse(&bytes).map_err(|error| DataError::broken(&error))?;
        if opening.commitment() == *commitment {
            return Ok(Some(opening));
        }
        Err(DataError::Broken(format!("what lies beside the log under {commitment} opens something else")))
    }

    pub(super) async fn keep_query(&self, query: &str) -> Result<(), DataError> {
        let key = key("query", &Digest::of(query.as_bytes()).to_string())?;
        self.0.put(&key, Bytes::copy_from_slice(query.as_bytes())).await?;
        Ok(())
    }

    pub(super) async fn query(&self, digest: &Digest) -> Result<String, DataError> {
        let bytes = self.0.get(&key("query", &digest.to_string())?).await?;
        let bytes = bytes.filter(|bytes| Digest::of(bytes) == *digest);
        let text = bytes.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
        text.ok_or_else(|| DataError::Broken(format!("the query {digest} is gone from beside the log")))
    }
}

fn key(folder: &str, name: &str) -> Result<Key, DataError> {
    let parts = (name.get(..2).unwrap_or_default(), name.get(2..4).unwrap_or_default());
    format!("{folder}/{}/{}/{name}", parts.0, parts.1).parse().map_err(|error| DataError::broken(&error))
}
