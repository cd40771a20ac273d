//! Opening a log. What a crash left is finished by the same functions that do it otherwise.

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use storage::{Key, Listing, ObjectStore, Swap};
use tlog::{
    EntryBundleId, EntryIndex, Frontier, Hash, Origin, ProofError, SignedCheckpoint, TileId, TreeHead, TreeSize,
    VerifierKey,
};
use tokio::sync::watch;

use crate::dedup::Dedup;
use crate::engine::{Shared, source};
use crate::growth::{Edge, Objects};
use crate::locked::Locked;
use crate::pool::Pool;
use crate::sequencer::{Opened, Pending, Sequencer};
use crate::staged::{apply, sweep, unfinished};
use crate::witnesses::Witnesses;
use crate::{Class, Error, Log, LogParts, ReadError, Reader, layout};

/// Between reading the lock and taking it over, another process may sign a batch; that it does so
/// many times in a row is no accident.
const TAKE_OVERS_MAX: usize = 100;

/// How many tiles are read at once when the dedup table is filled.
const TILES_AT_ONCE: usize = 32;

pub(crate) async fn open(parts: LogParts) -> Result<(Log, Sequencer), Error> {
    let quorum = parts.quorum()?;
    let origin = parts.origin()?;
    let key = parts.signer.verifier().clone();
    let locked = take_over(&parts, &origin, &key).await?;

    let mut history = whole_history(&*parts.objects, &locked, &key).await?;
    let published = published(&*parts.objects, &locked, &key).await?;
    // What is published was applied before.
    let is_applied = published.as_ref().is_some_and(|it| *it.checkpoint().head() == locked.head());
    let batch = if is_applied { Objects::default() } else { unfinished(&source(&parts), &locked).await? };
    apply(&*parts.objects, &locked, batch).await?;
    if history.last() != Some(&locked.head().size) {
        history.push(locked.head().size);
    }

    let reader = Reader::new(source(&parts), locked.head());
    if let Some(published) = &published
        && *published.checkpoint().head() != reader.consistency(published.checkpoint().size()).await?.0
    {
        return Err(corrupt(layout::checkpoint(), "is not of the tree in the store".to_owned()));
    }
    let edge = edge(&reader).await?;
    let dedup = dedup(&reader).await?;
    // Not before the tree is known to be whole.
    sweep(&*parts.objects, &locked).await?;

    let witnesses = Witnesses::new(origin.clone(), quorum, &parts);
    match witnesses.compare(&reader).await {
        Err(error) if error.class() != Class::Unavailable => return Err(error),
        Err(error) => tracing::warn!(%error, "the witnesses are asked again before anything is signed"),
        Ok(()) => {}
    }
    let accepted = published.as_ref().filter(|_| is_applied).map(|it| parts.policy.verify_checkpoint(it));
    let pending = if accepted.is_some_and(|it| it.is_ok()) { None } else { Some(Pending::recovered(&locked)) };
    let shared = Arc::new(Shared {
        pool: Pool::new(parts.limits, dedup),
        published: watch::Sender::new(published.map(Arc::new)),
        signed: watch::Sender::new(locked.head()),
        parts,
        origin,
    });
    let opened = Opened { edge, locked, pending, history };
    let sequencer = Sequencer::new(Arc::clone(&shared), witnesses, opened);
    Ok((Log { shared }, sequencer))
}

/// Puts the lock's value there again, under a new version. From here on a process that had the log
/// open before, and may only be slow, can sign nothing more: what it staged may be deleted.
async fn take_over(parts: &LogParts, origin: &Origin, key: &VerifierKey) -> Result<Locked, Error> {
    let lock = layout::lock(origin);
    for _ in 0..TAKE_OVERS_MAX {
        let stored = parts.locks.get(&lock).await?;
        let stored = stored.ok_or(Error::Existence { found: "does not exist yet" })?;
        let locked = Locked::parse(&stored, key).map_err(|problem| corrupt(lock.clone(), problem))?;
        match parts.locks.compare_and_swap(&lock, Some(&stored.version), stored.bytes).await? {
            Swap::Won(version) => return Ok(Locked { version: Some(version), ..locked }),
            Swap::Lost => tracing::info!(log.origin = %origin, "another process has just signed for this log"),
        }
    }
    Err(Error::LockLost)
}

pub(crate) fn corrupt(key: Key, problem: String) -> Error {
    Error::Corrupt { key, problem }
}

/// The lock must be at the end of the log's own history: a lock store restored from a backup
/// isn't. Gives the sizes in it, ascending.
async fn whole_history(objects: &dyn ObjectStore, locked: &Locked, key: &VerifierKey) -> Result<Vec<TreeSize>, Error> {
    let size = locked.head().size;
    let mut sizes = Vec::new();
    let mut listing = Listing::of(layout::history_folder());
    loop {
        let page = objects.list(&listing).await?;
        for found in &page {
            match layout::history_size(found) {
                Some(found) if found <= size => sizes.push(found),
                Some(_) => {
                    return Err(corrupt(found.clone(), format!("is newer than the lock, which has size {size}")));
                }
                None => return Err(corrupt(found.clone(), "is no part of a log's history".to_owned())),
            }
        }
        let Some(last) = page.last() else { break };
        listing = listing.after(last.clone());
    }
    same_history(objects, locked, key).await?;
    sizes.sort_unstable();
    Ok(sizes)
}

/// The history's object of the locked size, if it was written yet, is the locked checkpoint.
pub(crate) async fn same_history(objects: &dyn ObjectStore, locked: &Locked, key: &VerifierKey) -> Result<(), Error> {
    let history = layout::history(locked.head().size);
    let Some(bytes) = objects.get(&history).await? else { return Ok(()) };
    let found = SignedCheckpoint::open(&bytes, key).map_err(|error| corrupt(history.clone(), error.to_string()))?;
    if found == locked.checkpoint {
        Ok(())
    } else {
        Err(corrupt(history, "is not the checkpoint in the lock".to_owned()))
    }
}

/// The published checkpoint can't be ahead of the lock, nor contradict it.
pub(crate) async fn published(
    objects: &dyn ObjectStore,
    locked: &Locked,
    key: &VerifierKey,
) -> Result<Option<SignedCheckpoint>, Error> {
    let Some(bytes) = objects.get(&layout::checkpoint()).await? else { return Ok(None) };
    let wrong = |problem: String| corrupt(layout::checkpoint(), problem);
    let published = SignedCheckpoint::open(&bytes, key).map_err(|error| wrong(error.to_string()))?;
    let (found, locked): (TreeHead, TreeHead) = (*published.checkpoint().head(), locked.head());
    if found.size > locked.size {
        return Err(wrong(format!("has size {}, but the lock has only {}", found.size, locked.size)));
    }
    if found.size == locked.size && found.root != locked.root {
        return Err(wrong("has another root than the lock".to_owned()));
    }
    Ok(Some(published))
}

/// The right edge, as read from the store and checked against the lock.
pub(crate) async fn edge(reader: &Reader) -> Result<Edge, Error> {
    let tree = reader.edge().await?;
    let size = reader.head().size;
    let tail = match size.get().checked_sub(1).map(EntryIndex::new).filter(|_| !size.get().is_multiple_of(256)) {
        Some(last) => match EntryBundleId::of_entry(last, size) {
            Some(id) => reader.bundle(id).await?,
            None => Vec::new(),
        },
        None => Vec::new(),
    };
    Ok(Edge { tree, tail })
}

/// Reads all leaf hashes, which together must have the lock's root.
async fn dedup(reader: &Reader) -> Result<Dedup, Error> {
    let size = reader.head().size;
    let (mut dedup, mut frontier) = (Dedup::default(), Frontier::new());
    let tiles = (0..size.get().div_ceil(256)).filter_map(|index| TileId::in_tree(0, index, size));
    let mut tiles = stream::iter(tiles).map(|tile| reader.unchecked_tile(tile)).buffered(TILES_AT_ONCE);
    while let Some(bytes) = tiles.try_next().await? {
        let (hashes, _) = bytes.as_chunks::<32>();
        for hash in hashes {
            let leaf = Hash::from_bytes(*hash);
            dedup.insert(&leaf, EntryIndex::new(frontier.size().get()));
            frontier.append(&leaf);
        }
    }
    let (computed, expected) = (frontier.root(), reader.head().root);
    if computed == expected { Ok(dedup) } else { Err(ReadError::Tree(ProofError::Root { computed, expected }).into()) }
}
