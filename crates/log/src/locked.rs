//! What the log's lock holds: the last signed checkpoint, what the tree was before, and the batch
//! in between, if it is small.
//!
//! ```text
//! clerestory-log/2
//! old SIZE ROOT
//! batch BYTES
//! the checkpoint, signed by the log
//! BYTES bytes: the batch's entries, each behind its length in two bytes
//! ```

use bytes::Bytes;
use storage::Version;
use tlog::{Hash, Origin, SignedCheckpoint, TreeHead, TreeSize, VerifierKey};

use crate::layout;

const FIRST_LINE: &[u8] = b"clerestory-log/2\n";
/// The version before had `old SIZE` and the checkpoint only.
const FIRST_LINE_BEFORE: &[u8] = b"clerestory-log/1\n";

#[derive(Clone, Debug)]
pub(crate) struct Locked {
    /// The tree before the batch.
    pub(crate) old: TreeHead,
    /// The batch's entries as [`encode`](crate::staged::encode) has them; empty if they were staged
    /// as bundles.
    pub(crate) batch: Bytes,
    pub(crate) checkpoint: SignedCheckpoint,
    pub(crate) version: Option<Version>,
}

impl Locked {
    pub(crate) fn to_bytes(&self) -> Bytes {
        let Self { old: TreeHead { size, root }, batch, checkpoint, .. } = self;
        let text = format!("old {size} {root}\nbatch {}\n{checkpoint}", batch.len());
        [FIRST_LINE, text.as_bytes(), batch].concat().into()
    }

    /// Reads what the lock holds; what is wrong with it, in words.
    pub(crate) fn parse(stored: &storage::Versioned, key: &VerifierKey) -> Result<Self, String> {
        if stored.bytes.starts_with(FIRST_LINE_BEFORE) {
            return Self::parse_before(stored, key);
        }
        let none = || "is no state of a log".to_owned();
        let rest = stored.bytes.strip_prefix(FIRST_LINE).ok_or_else(none)?;
        let (old, rest) = line(rest, "old ").ok_or_else(none)?;
        let (batch, rest) = line(rest, "batch ").ok_or_else(none)?;
        let (size, root) = old.split_once(' ').ok_or_else(none)?;
        let size: TreeSize = size.parse().map_err(|error| format!("has no size: {error}"))?;
        let root: Hash = root.parse().map_err(|error| format!("has no root: {error}"))?;
        let length = batch.parse().ok().filter(|length: &usize| length.to_string() == batch);
        let split = length.and_then(|length| rest.len().checked_sub(length)).ok_or("has half a batch")?;
        let (checkpoint, batch) = rest.split_at(split);
        Ok(Self {
            old: TreeHead { size, root },
            batch: stored.bytes.slice_ref(batch),
            checkpoint: open(checkpoint, key)?,
            version: Some(stored.version.clone()),
        })
    }

    /// The previous version's value counts as one behind which nothing is unfinished. If something
    /// is, tiles are missing, and the log doesn't open before that version has finished it.
    fn parse_before(stored: &storage::Versioned, key: &VerifierKey) -> Result<Self, String> {
        let rest = stored.bytes.strip_prefix(FIRST_LINE_BEFORE).unwrap_or_default();
        let (_, checkpoint) = line(rest, "old ").ok_or("is no state of a log")?;
        let checkpoint = open(checkpoint, key)?;
        let old = *checkpoint.checkpoint().head();
        Ok(Self { old, batch: Bytes::new(), checkpoint, version: Some(stored.version.clone()) })
    }

    pub(crate) fn head(&self) -> TreeHead {
        *self.checkpoint.checkpoint().head()
    }

    pub(crate) fn origin(&self) -> &Origin {
        self.checkpoint.checkpoint().origin()
    }

    pub(crate) fn staged_folder(&self) -> storage::Key {
        layout::staged(self.old.size, &self.head())
    }
}

fn open(checkpoint: &[u8], key: &VerifierKey) -> Result<SignedCheckpoint, String> {
    SignedCheckpoint::open(checkpoint, key)
        .map_err(|error| format!("has no checkpoint signed by this log's key: {error}"))
}

/// The rest of the first line, which begins with `word`, and what follows it.
fn line<'a>(bytes: &'a [u8], word: &str) -> Option<(&'a str, &'a [u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (line, rest) = bytes.split_at_checked(end + 1)?;
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    Some((line.strip_prefix(word)?, rest))
}

#[cfg(test)]
mod tests {
    use storage::Versioned;
    use tlog::{Checkpoint, SignerKey, leaf_hash};

    use super::*;
    use crate::staged::encode;

    #[test]
    fn golden_bytes() {
        let key: SignerKey = format!("PRIVATE+KEY+vendor.example/log+ec1a039e+{}", "AQEB".repeat(11)).parse().unwrap();
        let head = TreeHead { size: TreeSize::new(1), root: leaf_hash(b"a") };
        let checkpoint = Checkpoint::new("vendor.example/log".parse().unwrap(), head).unwrap();
        let checkpoint = SignedCheckpoint::sign(checkpoint, &key).unwrap();
        let batch = encode(&[Bytes::from_static(b"a")]);
        let bytes = Locked { old: TreeHead::EMPTY, batch, checkpoint, version: None }.to_bytes();
        let text = bytes.strip_suffix(b"\0\x01a").unwrap();
        let document = include_str!("../../../docs/formats/log.md");
        assert!(document.contains(std::str::from_utf8(text).unwrap()), "{}", String::from_utf8_lossy(text));

        let read = |bytes: Bytes| {
            let stored = Versioned { bytes, version: Version::new("1".to_owned()) };
            Locked::parse(&stored, key.verifier())
        };
        assert_eq!(read(bytes.clone()).unwrap().to_bytes(), bytes);
        for length in 0..bytes.len() {
            assert!(read(bytes.slice(..length)).is_err(), "cut off after {length}");
        }
        for other in ["batch 03", "batch 4", "batch +3", "batch 9999999999999999999999"] {
            let other = String::from_utf8_lossy(&bytes).replace("batch 3", other).into_bytes();
            assert!(read(other.into()).is_err());
        }
    }
}
