//! A log in memory that signs and proves like a real one.

use attest::{BundleEntry, Envelope};
use stdx::UnixTime;
use tlog::{
    Checkpoint, ConsistencyProof, EntryIndex, KeyKind, LogProof, Origin, SignedCheckpoint, SignerKey, TileSet, Tree,
    TreeEdge, TreeHead, TreeSize, cosign, leaf_hash,
};

use crate::party::key;

/// A log in memory that signs and proves like a real one.
#[derive(Debug)]
pub struct MemoryLog {
    key: SignerKey,
    edge: TreeEdge,
    tiles: TileSet,
    entries: Vec<Vec<u8>>,
}

impl MemoryLog {
    /// An empty log.
    #[must_use]
    pub fn new(origin: &str) -> Self {
        let key = key(origin, KeyKind::Ed25519);
        Self { key, edge: TreeEdge::new(), tiles: TileSet::new(), entries: Vec::new() }
    }

    /// Another history under the same key, with the first `size` entries of this one.
    #[must_use]
    pub fn fork(&self, size: usize) -> Self {
        let key = self.key.to_secret_text().parse().unwrap();
        let mut fork = Self { key, edge: TreeEdge::new(), tiles: TileSet::new(), entries: Vec::new() };
        for entry in &self.entries[..size] {
            fork.append(entry.clone());
        }
        fork
    }

    /// Its key; the key's name is the origin.
    #[must_use]
    pub const fn key(&self) -> &SignerKey {
        &self.key
    }

    /// Its origin.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.key.verifier().name().as_str().parse().unwrap()
    }

    /// Appends an entry.
    pub fn append(&mut self, entry: Vec<u8>) -> EntryIndex {
        let tiles = &mut self.tiles;
        self.edge.append(&leaf_hash(&entry), |tile, bytes| tiles.insert(tile, bytes.to_vec()));
        self.entries.push(entry);
        EntryIndex::new(self.entries.len() as u64 - 1)
    }

    /// The entries, in order.
    #[must_use]
    pub fn entries(&self) -> &[Vec<u8>] {
        &self.entries
    }

    /// Its size and root.
    #[must_use]
    pub fn head(&self) -> TreeHead {
        self.edge.head()
    }

    /// The tiles of the present tree; with [`MemoryLog::head`] they are a [`Tree`].
    #[must_use]
    pub fn tiles(&self) -> TileSet {
        let mut tiles = self.tiles.clone();
        for (tile, bytes) in self.edge.partial_tiles() {
            tiles.insert(tile, bytes.to_vec());
        }
        tiles
    }

    /// A checkpoint of the present tree, cosigned by `witnesses` at `time`.
    #[must_use]
    pub fn checkpoint(&self, witnesses: &[&SignerKey], time: UnixTime) -> SignedCheckpoint {
        let checkpoint = Checkpoint::new(self.origin(), self.head()).unwrap();
        let lines: Vec<_> = witnesses.iter().map(|witness| cosign(&checkpoint, witness, time).unwrap()).collect();
        let mut signed = SignedCheckpoint::sign(checkpoint, &self.key).unwrap();
        signed.merge(lines).unwrap();
        signed
    }

    /// `envelope` with its proof under `checkpoint`, which must be of the present tree.
    #[must_use]
    pub fn prove(&self, envelope: &Envelope, checkpoint: &SignedCheckpoint) -> BundleEntry {
        let bytes = envelope.to_bytes();
        let index = self.entries.iter().position(|entry| *entry == bytes).unwrap();
        let index = EntryIndex::new(index as u64);
        let (_, path) = Tree::new(&self.tiles(), self.head()).inclusion(index).unwrap();
        BundleEntry { envelope: envelope.clone(), proof: LogProof::new(index, path, checkpoint.clone()) }
    }

    /// The proof that the present tree continues the one of size `old`.
    #[must_use]
    pub fn consistency(&self, old: TreeSize) -> ConsistencyProof {
        Tree::new(&self.tiles(), self.head()).consistency(old).unwrap().1
    }
}
