//! What the log's lock holds: the last signed checkpoint, and the size before it.
//!
//! ```text
//! clerestory-log/1
//! old SIZE
//! the checkpoint, signed by the log
//! ```

use bytes::Bytes;
use storage::Version;
use tlog::{SignedCheckpoint, TreeHead, TreeSize, VerifierKey};

use crate::layout;

const FIRST_LINE: &str = "clerestory-log/1\nold ";

#[derive(Clone, Debug)]
pub(crate) struct Locked {
    /// The size before the batch; so the batch's staged object can be found.
    pub(crate) old: TreeSize,
    pub(crate) checkpoint: SignedCheckpoint,
    pub(crate) version: Option<Version>,
}

impl Locked {
    pub(crate) fn to_bytes(&self) -> Bytes {
        format!("{FIRST_LINE}{}\n{}", self.old, self.checkpoint).into()
    }

    /// Reads what the lock holds; what is wrong with it, in words.
    pub(crate) fn parse(stored: &storage::Versioned, key: &VerifierKey) -> Result<Self, String> {
        let text = std::str::from_utf8(&stored.bytes).map_err(|error| error.to_string())?;
        let rest = text.strip_prefix(FIRST_LINE).ok_or("is no state of a log")?;
        let (old, checkpoint) = rest.split_once('\n').ok_or("is no state of a log")?;
        let old: TreeSize = old.parse().map_err(|error| format!("has no size: {error}"))?;
        let checkpoint = SignedCheckpoint::open(checkpoint, key)
            .map_err(|error| format!("has no checkpoint signed by this log's key: {error}"))?;
        Ok(Self { old, checkpoint, version: Some(stored.version.clone()) })
    }

    pub(crate) fn head(&self) -> TreeHead {
        *self.checkpoint.checkpoint().head()
    }

    pub(crate) fn staged_key(&self) -> storage::Key {
        layout::staged(self.old, &self.head())
    }
}
