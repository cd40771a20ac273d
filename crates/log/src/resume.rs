//! Going on after the lock was lost, with objects that were copied from elsewhere.
//!
//! The lock alone knows what was signed last. Without it a log may go on only from its published
//! checkpoint, and only if *every* witness answers and none knows more: then no honest witness has
//! cosigned anything after it, so that nothing which anybody accepts is forgotten.

use bytes::Bytes;
use storage::Swap;
use tlog::{SignedCheckpoint, TreeHead};

use crate::engine::{sign, source};
use crate::growth::Objects;
use crate::locked::Locked;
use crate::open::{corrupt, edge};
use crate::staged::apply;
use crate::witnesses::Witnesses;
use crate::{Error, LogParts, Reader, layout};

pub(crate) async fn resume(parts: &LogParts) -> Result<TreeHead, Error> {
    let (quorum, origin) = (parts.quorum()?, parts.origin()?);
    let lock = layout::lock(&origin);
    if parts.locks.get(&lock).await?.is_some() {
        return Err(Error::Existence { found: "has its lock" });
    }
    let bytes = parts.objects.get(&layout::checkpoint()).await?;
    let bytes = bytes.ok_or(Error::Existence { found: "has published nothing" })?;
    let wrong = |problem: String| corrupt(layout::checkpoint(), problem);
    let key = parts.signer.verifier();
    let published = SignedCheckpoint::open(&bytes, key).map_err(|error| wrong(error.to_string()))?;
    parts.policy.verify_checkpoint(&published).map_err(|error| wrong(format!("has no quorum: {error}")))?;
    let head = *published.checkpoint().head();
    let reader = Reader::new(source(parts), head);
    edge(&reader).await?;
    Witnesses::new(origin.clone(), quorum, parts).compare_all(&reader, &published).await?;

    // The same signature as before: of this key and these bytes there is only one.
    let locked = Locked { old: head, batch: Bytes::new(), checkpoint: sign(parts, &origin, head), version: None };
    apply(&*parts.objects, &locked, Objects::default()).await?;
    match parts.locks.compare_and_swap(&lock, None, locked.to_bytes()).await? {
        Swap::Won(_) => Ok(head),
        Swap::Lost => Err(Error::LockLost),
    }
}
