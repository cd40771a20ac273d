//! From a batch of entries to the objects that it adds to the log.

use bytes::Bytes;
use storage::Key;
use tlog::{EntryBundleId, Hash, TILE_WIDTH, TileId, TreeEdge, TreeHead, encode_bundle};

use crate::layout;
use crate::nodes::Nodes;

/// The right edge of the log: its tiles, and the entries of its partial bundle.
#[derive(Clone, Debug, Default)]
pub(crate) struct Edge {
    pub(crate) tree: TreeEdge,
    pub(crate) tail: Vec<Bytes>,
}

/// What a batch adds to the log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects {
    pub(crate) tiles: Vec<(Key, Bytes)>,
    pub(crate) bundles: Vec<(EntryBundleId, Bytes)>,
}

/// A batch as it will stand in the log.
pub(crate) struct Grown {
    pub(crate) edge: Edge,
    pub(crate) head: TreeHead,
    pub(crate) objects: Objects,
    pub(crate) nodes: Nodes,
}

/// Computes the tree with `entries` (and their leaf hashes) after `edge`. It hashes: not for
/// async threads.
pub(crate) fn grow<'a>(mut edge: Edge, entries: impl Iterator<Item = (&'a Bytes, &'a Hash)>) -> Grown {
    let (mut objects, mut nodes) = (Objects::default(), Nodes::default());
    let old = edge.tree.size();
    for (entry, leaf) in entries {
        edge.tail.push(entry.clone());
        let Edge { tree, tail } = &mut edge;
        tree.append(leaf, |tile, bytes| {
            nodes.insert(tile, bytes);
            objects.tiles.push((layout::tile(tile), Bytes::copy_from_slice(bytes)));
            if let Some(id) = tile.bundle() {
                objects.bundles.push((id, bundle(tail)));
                tail.clear();
            }
        });
    }
    for (tile, bytes) in edge.tree.partial_tiles() {
        nodes.insert(tile, bytes);
        // Upper rows mostly stand as they did before this batch.
        if tile.entries().end.get() > old.get() {
            objects.tiles.push((layout::tile(tile), Bytes::copy_from_slice(bytes)));
            objects.bundles.extend(tile.bundle().map(|id| (id, bundle(&edge.tail))));
        }
    }
    let head = edge.tree.head();
    Grown { edge, head, objects, nodes }
}

fn bundle(entries: &[Bytes]) -> Bytes {
    encode_bundle(entries).expect("1 to 256 entries, each checked against the limit when it came in").into()
}

/// The partial tiles and bundles that full ones of this growth replace: their folders.
pub(crate) fn replaced(tiles: impl Iterator<Item = TileId>) -> Vec<Key> {
    let full = tiles.filter(|tile| tile.width() == TILE_WIDTH);
    full.flat_map(|tile| [Some(layout::tile(tile)), tile.bundle().map(layout::bundle)]).flatten().collect()
}
