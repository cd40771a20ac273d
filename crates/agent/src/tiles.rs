//! Consistency proofs from a mirror of a log's tiles.

use api::{BaseUrl, BodyLimit, Client, ClientError};
use tlog::{ConsistencyProof, Origin, TileId, TileReader, Tree, TreeError};

use crate::config::LogMirror;
use crate::memory::{Between, Prover};

/// 256 hashes of 32 bytes.
const TILE_BYTES_MAX: u64 = 256 * 32;

struct MirrorTiles<'a> {
    client: &'a Client,
    url: &'a BaseUrl,
}

impl TileReader for MirrorTiles<'_> {
    type Bytes = Vec<u8>;
    type Error = ClientError;

    fn tile(&self, tile: TileId) -> Result<Vec<u8>, ClientError> {
        self.client.get(&self.url.join(&format!("/{tile}")), BodyLimit(TILE_BYTES_MAX))
    }
}

/// Asks the configured mirrors.
pub(crate) struct TileProver<'a> {
    pub(crate) client: &'a Client,
    pub(crate) mirrors: &'a [LogMirror],
}

impl Prover for TileProver<'_> {
    /// A mirror that is down or lies about tiles gives no proof; the quorum then stands in.
    fn prove(&self, log: &Origin, growth: Between) -> Option<ConsistencyProof> {
        let mirrors = self.mirrors.iter().filter(|mirror| mirror.origin == *log);
        mirrors
            .filter_map(|mirror| {
                let tiles = MirrorTiles { client: self.client, url: &mirror.url };
                let found: Result<_, TreeError<_>> = Tree::new(tiles, growth.new).consistency(growth.old);
                found.ok().map(|(_, proof)| proof)
            })
            .next()
    }
}
