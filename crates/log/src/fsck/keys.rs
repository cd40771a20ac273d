//! Which objects there are, and which there should be.

use std::collections::BTreeSet;

use storage::{Folder, Key, Listing};
use tlog::{EntryBundleId, SignedCheckpoint, TileId, TreeSize, tiles_for_edge};

use super::{Check, FsckError, Listed};
use crate::layout;
use crate::locked::Locked;

impl Check<'_> {
    /// Lists everything, and reads what is not part of the tree.
    pub(super) async fn keys(&mut self, locked: Option<&Locked>) -> Result<Listed, FsckError> {
        let mut listed = Listed::default();
        let mut listing = Listing::of(Folder::Root);
        loop {
            let page = self.parts.objects.list(&listing).await?;
            let Some(last) = page.last().cloned() else { break };
            for key in page {
                let text = key.as_str();
                if text.starts_with("history/") {
                    listed.history.extend(self.history(&key, locked).await?);
                } else if key != layout::checkpoint() && tile(&key).is_none() && !text.starts_with("staged/") {
                    // What is staged and signed was read before; the rest was never signed, and goes at
                    // the next start.
                    self.damage(key.clone(), "is no object of a log");
                }
                listed.all.insert(key);
            }
            listing = listing.after(last);
        }
        if let Some(locked) = locked {
            let history = layout::history(locked.head().size);
            // A log that was made but never opened has its first checkpoint in the lock only.
            if !listed.all.contains(&history) && self.unfinished.is_none() && listed.all.contains(&layout::checkpoint())
            {
                self.damage(history, "is missing");
            }
        }
        Ok(listed)
    }

    async fn history(&mut self, key: &Key, locked: Option<&Locked>) -> Result<Option<TreeSize>, FsckError> {
        let Some(bytes) = self.parts.objects.get(key).await? else { return Ok(None) };
        let Some(size) = layout::history_size(key) else {
            self.damage(key.clone(), "is no part of a log's history");
            return Ok(None);
        };
        let found = match SignedCheckpoint::open(&bytes, &self.parts.key) {
            Ok(found) => found,
            Err(error) => {
                self.damage(key.clone(), error.to_string());
                return Ok(Some(size));
            }
        };
        if found.checkpoint().size() != size || found.signatures().len() != 1 {
            self.damage(key.clone(), "is not the checkpoint that its name says");
        } else if locked.is_some_and(|locked| size > locked.head().size) {
            self.damage(key.clone(), "is newer than the lock");
        } else {
            self.expect(key.clone(), *found.checkpoint().head());
        }
        Ok(Some(size))
    }

    /// No tile lies outside the tree.
    pub(super) fn beyond(&mut self, listed: &Listed, size: TreeSize) {
        for key in &listed.all {
            let Some(tile) = tile(key) else { continue };
            let there = TileId::in_tree(tile.level(), tile.index(), size);
            if there.is_none_or(|there| there.width() < tile.width()) {
                self.damage(key.clone(), format!("lies beyond the tree of size {size}"));
            }
        }
    }

    /// Each published tree can still be read: its partial tiles are there, or full ones instead.
    pub(super) fn partials_are_there(&mut self, listed: &Listed, published: Option<&SignedCheckpoint>, size: TreeSize) {
        let Some(published) = published.map(|published| published.checkpoint().size()) else { return };
        let is_full = |tile: TileId| {
            TileId::in_tree(tile.level(), tile.index(), published.min(size)).is_some_and(TileId::is_full)
        };
        let sizes = listed.history.iter().copied().filter(|size| *size <= published);
        let partial: BTreeSet<TileId> = sizes.flat_map(tiles_for_edge).filter(|tile| !is_full(*tile)).collect();
        let keys = partial.into_iter().flat_map(|id| [Some(layout::tile(id)), id.bundle().map(layout::bundle)]);
        for key in keys.flatten() {
            if !listed.all.contains(&key) && self.unfinished.as_ref().is_none_or(|batch| !batch.contains_key(&key)) {
                self.damage(key, "is missing");
            }
        }
    }
}

/// The tile that a key names, or the one that goes with the bundle that it names.
fn tile(key: &Key) -> Option<TileId> {
    let tile = key.as_str().parse::<TileId>().ok();
    tile.or_else(|| key.as_str().parse::<EntryBundleId>().ok().map(EntryBundleId::tile))
}
