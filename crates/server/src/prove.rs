//! Proofs of several entries under one checkpoint, computed from a log's tiles.

use anyhow::Context as _;
use api::{BaseUrl, BodyLimit, Client};
use attest::{Bundle, BundleEntry};
use tlog::{LogProof, SignedCheckpoint, TileId, TileSet, Tree, tiles_for_inclusion};

/// 256 hashes of 32 bytes.
const TILE_BYTES_MAX: BodyLimit = BodyLimit(256 * 32);

/// The same entries, all proven under the largest of their checkpoints: smaller, and one view.
/// Entries of different logs each keep to their own log's.
///
/// # Errors
/// When the log can't be read, or what it gives does not lead to the checkpoint.
pub fn under_one_checkpoint(entries: &[BundleEntry], url: &BaseUrl, client: &Client) -> anyhow::Result<Bundle> {
    let size = |entry: &&BundleEntry| entry.proof.checkpoint().checkpoint().size();
    let Some(newest) = entries.iter().max_by_key(size) else { return Ok(Bundle::default()) };
    let checkpoint = newest.proof.checkpoint().clone();
    let proven = entries.iter().map(|entry| prove(entry, &checkpoint, url, client)).collect::<Result<_, _>>()?;
    Ok(Bundle::new(proven)?)
}

fn prove(
    entry: &BundleEntry,
    checkpoint: &SignedCheckpoint,
    url: &BaseUrl,
    client: &Client,
) -> anyhow::Result<BundleEntry> {
    if entry.proof.checkpoint() == checkpoint {
        return Ok(entry.clone());
    }
    let (index, head) = (entry.proof.index(), checkpoint.checkpoint().head());
    let mut tiles = TileSet::new();
    for tile in tiles_for_inclusion(index, head.size) {
        tiles.insert(tile, fetch(tile, url, client)?);
    }
    let (_, path) = Tree::new(&tiles, *head).inclusion(index).with_context(|| format!("{url}: entry {index}"))?;
    Ok(BundleEntry { envelope: entry.envelope.clone(), proof: LogProof::new(index, path, checkpoint.clone()) })
}

/// A partial tile may have been collected once the full one is there: then that is cut to size.
fn fetch(tile: TileId, url: &BaseUrl, client: &Client) -> anyhow::Result<Vec<u8>> {
    let path = |tile: TileId| url.join(&format!("/{}", tile.path()));
    if let Some(bytes) = client.find(&path(tile), TILE_BYTES_MAX)? {
        return Ok(bytes);
    }
    let full = tile.full().context("a tile without a full one")?;
    let mut bytes = client.get(&path(full), TILE_BYTES_MAX)?;
    bytes.truncate(usize::from(tile.width()) * 32);
    Ok(bytes)
}
