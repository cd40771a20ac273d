//! Consistency proofs from a mirror of a log's tiles.

use api::{BodyLimit, Client, ClientError};
use stdx::Clock;
use tlog::{ConsistencyProof, Origin, TileId, TileReader, Tree, TreeError};

use crate::config::{LogMirror, Network};
use crate::memory::{Between, Prover};
use crate::patience::Patience;

/// 256 hashes of 32 bytes.
const TILE_BYTES_MAX: u64 = 256 * 32;

struct MirrorTiles<'a> {
    client: &'a Client,
    mirror: &'a LogMirror,
    patience: &'a Patience<'a>,
}

impl TileReader for MirrorTiles<'_> {
    type Bytes = Vec<u8>;
    type Error = ClientError;

    fn tile(&self, tile: TileId) -> Result<Vec<u8>, ClientError> {
        let url = self.mirror.url.join(&format!("/{tile}"));
        let Some(client) = self.patience.client(self.client, 0) else {
            let error = "it has kept this update waiting for too long".to_owned();
            return Err(ClientError::Unreachable { url, error });
        };
        let bytes = self.patience.spend(|| client.get(&url, BodyLimit(TILE_BYTES_MAX)))?;
        self.patience.earn(bytes.len());
        Ok(bytes)
    }
}

/// Asks the configured mirrors.
pub(crate) struct TileProver<'a> {
    client: &'a Client,
    mirrors: Vec<(&'a LogMirror, Patience<'a>)>,
}

impl<'a> TileProver<'a> {
    pub(crate) fn new(client: &'a Client, clock: &'a dyn Clock, network: Network, mirrors: &'a [LogMirror]) -> Self {
        Self { client, mirrors: mirrors.iter().map(|mirror| (mirror, Patience::new(clock, network))).collect() }
    }
}

impl Prover for TileProver<'_> {
    /// A mirror that is down, slow or lies about tiles gives no proof; the quorum then stands in.
    fn prove(&self, log: &Origin, growth: Between) -> Option<ConsistencyProof> {
        let mirrors = self.mirrors.iter().filter(|(mirror, _)| mirror.origin == *log);
        mirrors
            .filter_map(|(mirror, patience)| {
                let tiles = MirrorTiles { client: self.client, mirror, patience };
                let found: Result<_, TreeError<_>> = Tree::new(tiles, growth.new).consistency(growth.old);
                found.ok().map(|(_, proof)| proof)
            })
            .next()
    }
}
