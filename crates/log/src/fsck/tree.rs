//! The tree, computed from the entries and compared with every tile.

use bytes::Bytes;
use storage::{Key, Listing};
use tlog::{EntryBundleId, Frontier, Hash, Origin, TILE_WIDTH, TileId, TreeEdge, TreeHead, decode_bundle, leaf_hash};

use super::{Check, FsckError};
use crate::layout;

impl Check<'_> {
    pub(super) async fn tree(&mut self, head: TreeHead, origin: &Origin) -> Result<(), FsckError> {
        self.expect(layout::lock(origin), head);
        let mut edge = TreeEdge::new();
        self.roots(&edge);
        let edge_is_good = self.reader(head).edge().await.is_ok();
        let bundles = head.size.get().div_ceil(u64::from(TILE_WIDTH));
        for index in 0..bundles {
            let Some(tile) = TileId::in_tree(0, index, head.size) else { break };
            let Some(leaves) = self.leaves(tile, edge_is_good).await? else {
                // Nothing above can be computed without these hashes.
                return Ok(());
            };
            let mut full = Vec::new();
            for leaf in &leaves {
                edge.append(leaf, |tile, bytes| full.push((tile, bytes.to_vec())));
                self.roots(&edge);
            }
            for (tile, bytes) in full {
                self.tile(tile, &bytes).await?;
            }
        }
        let partial: Vec<_> = edge.partial_tiles().map(|(tile, bytes)| (tile, bytes.to_vec())).collect();
        for (tile, bytes) in partial {
            self.tile(tile, &bytes).await?;
        }
        Ok(())
    }

    /// Compares the root at this size with what checkpoints of this size say.
    fn roots(&mut self, edge: &TreeEdge) {
        let Some(expected) = self.expected.remove(&edge.size()) else { return };
        let root = edge.root();
        for (key, _) in expected.into_iter().filter(|(_, expected)| *expected != root) {
            self.damage(key, format!("has another root than the entries, which have {root}"));
        }
    }

    /// The leaf hashes below a tile of level 0. If the entries and the tile differ, the tiles
    /// above it say which is right, and the other is damaged.
    async fn leaves(&mut self, tile: TileId, edge_is_good: bool) -> Result<Option<Vec<Hash>>, FsckError> {
        let Some(id) = tile.bundle() else { return Ok(None) };
        let (bundle_key, tile_key) = (layout::bundle(id), layout::tile(tile));
        let from_bundle = self.bundle_leaves(id, &bundle_key).await?;
        let from_tile =
            self.get(&tile_key).await?.filter(|bytes| bytes.len() == tile.bytes()).map(|bytes| hashes(&bytes));
        let leaves = match (from_bundle, from_tile) {
            (Some(entries), Some(tiles)) if entries == tiles => entries,
            // `tile` reports what is wrong with it, when it compares.
            (Some(entries), None) => entries,
            (Some(entries), Some(tiles)) => {
                if self.tile_is_good(tile, &tiles, edge_is_good).await? {
                    self.damage(bundle_key, "has an entry that doesn't have the hash in the tile");
                    tiles
                } else {
                    entries
                }
            }
            (None, Some(tiles)) => tiles,
            (None, None) => {
                self.damage(tile_key, "is missing or damaged, like its entries: nothing above it can be checked");
                return Ok(None);
            }
        };
        self.partial_bundles(id, &leaves).await?;
        Ok(Some(leaves))
    }

    async fn bundle_leaves(&mut self, id: EntryBundleId, key: &Key) -> Result<Option<Vec<Hash>>, FsckError> {
        let Some(bytes) = self.get(key).await? else {
            self.damage(key.clone(), "is missing");
            return Ok(None);
        };
        match hash_entries(id, bytes).await {
            Ok(leaves) => Ok(Some(leaves)),
            Err(problem) => {
                self.damage(key.clone(), problem);
                Ok(None)
            }
        }
    }

    /// Whether the tile above has this tile's root; at the right edge, whether all edge tiles
    /// together have the checkpoint's.
    async fn tile_is_good(&self, tile: TileId, hashes_found: &[Hash], edge_is_good: bool) -> Result<bool, FsckError> {
        if !tile.is_full() {
            return Ok(edge_is_good);
        }
        let root = hashes_found.iter().copied().collect::<Frontier>().root();
        let position = usize::try_from(tile.index() % 256).unwrap_or(usize::MAX);
        let above = tile.index() / 256;
        // The tile above may be full, or partial with any width that reaches this one.
        for width in (1..=TILE_WIDTH).rev().filter(|width| usize::from(*width) > position) {
            let Ok(id) = TileId::new(1, above, width) else { continue };
            if let Some(bytes) = self.get(&layout::tile(id)).await? {
                return Ok(hashes(&bytes).get(position) == Some(&root));
            }
        }
        Ok(false)
    }

    /// Compares a tile, and the partial tiles that are left of it, with what the entries give.
    async fn tile(&mut self, tile: TileId, computed: &[u8]) -> Result<(), FsckError> {
        let key = layout::tile(tile);
        match self.get(&key).await? {
            None => self.damage(key, "is missing"),
            Some(bytes) if bytes != computed => self.damage(key, "has other hashes than the entries"),
            Some(_) => {}
        }
        for (key, partial) in self.partials(tile.full().map(layout::tile)).await? {
            let Some(width) = key.as_str().parse::<TileId>().ok().filter(|found| found.width() <= tile.width()) else {
                continue;
            };
            if computed.get(..width.bytes()) != Some(&partial) {
                self.damage(key, "has other hashes than the entries");
            }
        }
        Ok(())
    }

    async fn partial_bundles(&mut self, id: EntryBundleId, leaves: &[Hash]) -> Result<(), FsckError> {
        for (key, partial) in self.partials(id.tile().full().and_then(TileId::bundle).map(layout::bundle)).await? {
            let Some(id) = key.as_str().parse::<EntryBundleId>().ok() else { continue };
            // What lies beyond the tree is reported as that.
            let Some(expected) = leaves.get(..usize::from(id.width())) else { continue };
            match hash_entries(id, partial).await {
                Ok(found) if found == expected => {}
                Ok(_) => self.damage(key, "has an entry that doesn't have the hash in the tile"),
                Err(problem) => self.damage(key, problem),
            }
        }
        Ok(())
    }

    async fn partials(&self, full: Option<Key>) -> Result<Vec<(Key, Bytes)>, FsckError> {
        let Some(full) = full else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for key in self.parts.objects.list(&Listing::of(layout::partials(&full))).await? {
            if let Some(bytes) = self.parts.objects.get(&key).await? {
                found.push((key, bytes));
            }
        }
        Ok(found)
    }
}

fn hashes(bytes: &[u8]) -> Vec<Hash> {
    bytes.as_chunks::<32>().0.iter().copied().map(Hash::from_bytes).collect()
}

/// The leaf hashes of a bundle; it hashes up to 16 MB, so not on an async thread.
async fn hash_entries(id: EntryBundleId, bytes: Bytes) -> Result<Vec<Hash>, String> {
    let work = move || {
        let entries = decode_bundle(id, &bytes).map_err(|error| error.to_string())?;
        Ok(entries.into_iter().map(leaf_hash).collect())
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}
