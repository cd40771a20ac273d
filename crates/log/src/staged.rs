//! The entries of a batch from before it is signed until it is in the tree: a few lie in the lock's
//! own value, more as the very bundles that they will be, under other keys.

use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use storage::{Listing, Move, ObjectStore};
use tlog::{EntryBundleId, Hash, TILE_WIDTH, TreeSize, bundles_for_growth, decode_bundle, leaf_hash};

use crate::growth::{Objects, grow};
use crate::locked::Locked;
use crate::open::{corrupt, edge};
use crate::{Error, ReadError, Reader, TileSource, layout};

/// Entries behind each other, each behind its length in two bytes, as in a bundle.
pub(crate) fn encode(entries: &[Bytes]) -> Bytes {
    let mut encoded = BytesMut::with_capacity(encoded_bytes(entries));
    for entry in entries {
        encoded.put_u16(u16::try_from(entry.len()).expect("checked against the limit when it came in"));
        encoded.put_slice(entry);
    }
    encoded.freeze()
}

/// How many bytes [`encode`] gives.
pub(crate) fn encoded_bytes(entries: &[Bytes]) -> usize {
    entries.iter().map(|entry| 2 + entry.len()).sum()
}

/// Takes them apart again; `None` if the last is cut off.
fn decode(mut encoded: Bytes) -> Option<Vec<Bytes>> {
    let mut entries = Vec::new();
    while !encoded.is_empty() {
        let length = usize::from(encoded.try_get_u16().ok()?);
        entries.push((length <= encoded.len()).then(|| encoded.split_to(length))?);
    }
    Some(entries)
}

/// Puts a batch into the tree, and its checkpoint into the history. It may be repeated.
pub(crate) async fn apply(objects: &dyn ObjectStore, locked: &Locked, batch: Objects) -> Result<(), Error> {
    let Objects { tiles: mut written, bundles } = batch;
    let mut moves = Vec::new();
    for (id, bytes) in bundles {
        if locked.batch.is_empty() {
            let (from, to) = (layout::staged_bundle(&locked.staged_folder(), id), layout::bundle(id));
            moves.push(Move { from, to, bytes });
        } else {
            written.push((layout::bundle(id), bytes));
        }
    }
    written.push((layout::history(locked.head().size), locked.checkpoint.to_string().into()));
    // At once: each waits for the disk, and both may be repeated.
    let applied = tokio::join!(objects.put_all(written), objects.move_all(moves));
    match applied.0.and(applied.1) {
        Err(storage::Error::Conflict { key }) => {
            Err(corrupt(key, "has other content than this log is about to write there".to_owned()))
        }
        outcome => Ok(outcome?),
    }
}

/// What the locked batch puts into the tree, computed again from its entries.
pub(crate) async fn unfinished(source: &Arc<dyn TileSource>, locked: &Locked) -> Result<Objects, Error> {
    let is_with_lock = !locked.batch.is_empty();
    if locked.old == locked.head() && !is_with_lock {
        return Ok(Objects::default());
    }
    let named = if is_with_lock { layout::lock(locked.origin()) } else { locked.staged_folder() };
    let wrong = |problem: &str| corrupt(named.clone(), problem.to_owned());
    let bundles = if is_with_lock { Vec::new() } else { staged_bundles(source, locked).await? };
    let entries = if is_with_lock { decode(locked.batch.clone()) } else { decode_bundles(&bundles, locked.old.size) };
    let entries = entries.ok_or_else(|| wrong("is cut off"))?;
    let edge = edge(&Reader::new(Arc::clone(source), locked.old)).await?;
    let work = move || {
        let leaves: Vec<Hash> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        grow(edge, entries.iter().zip(&leaves))
    };
    let grown = tokio::task::spawn_blocking(work).await.map_err(|_| Error::Closed)?;
    if grown.head != locked.head() {
        return Err(wrong("has other entries than the checkpoint in the lock"));
    }
    if !is_with_lock && grown.objects.bundles != bundles {
        return Err(wrong("has other entries than the log before them"));
    }
    Ok(grown.objects)
}

/// The batch's bundles, each of which is where it was staged or in its place.
async fn staged_bundles(source: &Arc<dyn TileSource>, locked: &Locked) -> Result<Vec<(EntryBundleId, Bytes)>, Error> {
    let folder = locked.staged_folder();
    let mut bundles = Vec::new();
    for id in bundles_for_growth(locked.old.size..locked.head().size) {
        let staged = layout::staged_bundle(&folder, id);
        let mut found = source.get(&staged).await.map_err(ReadError::from)?;
        if found.is_none() {
            found = source.get(&layout::bundle(id)).await.map_err(ReadError::from)?;
        }
        let found = found.ok_or_else(|| corrupt(staged, "is missing, and not in its place either".to_owned()))?;
        bundles.push((id, found));
    }
    Ok(bundles)
}

/// The entries in them that the tree of size `old` had not.
fn decode_bundles(bundles: &[(EntryBundleId, Bytes)], old: TreeSize) -> Option<Vec<Bytes>> {
    let mut entries = Vec::new();
    for (id, bytes) in bundles {
        entries.extend(decode_bundle(*id, bytes).ok()?.into_iter().map(|entry| bytes.slice_ref(entry)));
    }
    let before = usize::try_from(old.get() % u64::from(TILE_WIDTH)).ok()?;
    (before <= entries.len()).then(|| entries.split_off(before))
}

/// Deletes what was staged and never signed.
pub(crate) async fn sweep(objects: &dyn ObjectStore, locked: &Locked) -> Result<(), Error> {
    let wanted = format!("{}/", locked.staged_folder());
    let mut listing = Listing::of(layout::all_staged());
    loop {
        let page = objects.list(&listing).await?;
        let Some(last) = page.last().cloned() else { return Ok(()) };
        for key in page.iter().filter(|key| !key.as_str().starts_with(&wanted)) {
            objects.delete(key).await?;
        }
        listing = listing.after(last);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..20)) {
            let entries: Vec<Bytes> = entries.into_iter().map(Bytes::from).collect();
            let encoded = encode(&entries);
            assert_eq!(encoded.len(), encoded_bytes(&entries));
            assert_eq!(decode(encoded.clone()).unwrap(), entries);
            if let Some(last) = entries.last() {
                assert!(decode(encoded.slice(..encoded.len() - last.len())).is_none());
            }
        }

        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(bytes.into());
        }
    }
}
