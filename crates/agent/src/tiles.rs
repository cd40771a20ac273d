//! Consistency proofs from a mirror of a log's tiles.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use api::{BodyLimit, Client, ClientError};
use stdx::{Clock, Digest};
use tlog::{ConsistencyProof, Origin, TileId, TileReader, Tree, TreeError};

use crate::config::{LogMirror, Network};
use crate::memory::{Between, Prover};
use crate::patience::Patience;

/// 256 hashes of 32 bytes.
const TILE_BYTES_MAX: u64 = 256 * 32;

/// The last tile of each level, as it was fetched: of the next one only what has been added is. Nothing rests on
/// it: what comes of it is verified, and if that fails the tile is fetched anew. So it is not made durable.
struct Kept {
    folder: PathBuf,
}

impl Kept {
    fn path(&self, log: &Origin, tile: TileId) -> PathBuf {
        let log: String = Digest::of(log.as_str().as_bytes()).to_string().chars().take(16).collect();
        self.folder.join(format!("{log}-{}", tile.level()))
    }

    /// The first hashes of `tile`, at most as many as it has.
    fn begin(&self, log: &Origin, tile: TileId) -> Vec<u8> {
        let (mut index, mut hashes) = ([0; 8], Vec::new());
        let read = File::open(self.path(log, tile)).and_then(|mut file| {
            file.read_exact(&mut index)?;
            file.take(tile.bytes() as u64).read_to_end(&mut hashes)
        });
        if read.is_err() || u64::from_be_bytes(index) != tile.index() {
            hashes.clear();
        }
        hashes.truncate(hashes.len() / 32 * 32);
        hashes
    }

    fn keep(&self, log: &Origin, tile: TileId, bytes: &[u8]) {
        // Without room for it, it is fetched again.
        let file = fs::create_dir_all(&self.folder).and_then(|()| File::create(self.path(log, tile)));
        let _ = file.and_then(|mut file| file.write_all(&[&tile.index().to_be_bytes(), bytes].concat()));
    }
}

struct MirrorTiles<'a> {
    client: &'a Client,
    mirror: &'a LogMirror,
    patience: &'a Patience<'a>,
    kept: &'a Kept,
    /// Whether what was kept is used.
    fresh: bool,
}

impl MirrorTiles<'_> {
    /// The rest of a tile of which `begin` is kept, or all of it, from a mirror that gives no pieces.
    fn fetch(&self, client: &Client, url: &str, tile: TileId, begin: Vec<u8>) -> Result<Vec<u8>, ClientError> {
        let (have, wanted) = (begin.len() as u64, tile.bytes() as u64);
        if have == wanted {
            return Ok(begin);
        }
        if have > 0
            && let Ok(rest) = client.get_piece(url, have..wanted)
        {
            return Ok([begin, rest].concat());
        }
        client.get(url, BodyLimit(TILE_BYTES_MAX))
    }
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
        let log = &self.mirror.origin;
        let begin = if self.fresh { Vec::new() } else { self.kept.begin(log, tile) };
        let had = begin.len();
        let bytes = self.patience.spend(|| self.fetch(&client, &url, tile, begin))?;
        self.patience.earn(bytes.len().saturating_sub(had));
        if bytes.len() > had {
            self.kept.keep(log, tile, &bytes);
        }
        Ok(bytes)
    }
}

/// Asks the configured mirrors.
pub(crate) struct TileProver<'a> {
    client: &'a Client,
    mirrors: Vec<(&'a LogMirror, Patience<'a>)>,
    kept: Kept,
}

impl<'a> TileProver<'a> {
    /// Whoever asks `mirrors`, and keeps in `state` what the next answer begins with.
    pub(crate) fn new(
        client: &'a Client,
        clock: &'a dyn Clock,
        network: Network,
        mirrors: &'a [LogMirror],
        state: &Path,
    ) -> Self {
        let kept = Kept { folder: state.join("tiles") };
        let mirrors = mirrors.iter().map(|mirror| (mirror, Patience::new(clock, network))).collect();
        Self { client, mirrors, kept }
    }

    fn ask(
        &self,
        of: &(&LogMirror, Patience<'_>),
        growth: Between,
        fresh: bool,
    ) -> Result<ConsistencyProof, TreeError<ClientError>> {
        let tiles = MirrorTiles { client: self.client, mirror: of.0, patience: &of.1, kept: &self.kept, fresh };
        Tree::new(tiles, growth.new).consistency(growth.old).map(|(_, proof)| proof)
    }
}

impl Prover for TileProver<'_> {
    /// A mirror that is down, slow or lies about tiles gives no proof; the quorum then stands in.
    fn prove(&self, log: &Origin, growth: Between) -> Option<ConsistencyProof> {
        let mut mirrors = self.mirrors.iter().filter(|(mirror, _)| mirror.origin == *log);
        mirrors.find_map(|of| match self.ask(of, growth, false) {
            Err(TreeError::Read { .. }) => None,
            // What was kept may be damaged, or come from a mirror that lied.
            Err(TreeError::Length { .. } | TreeError::Proof(_)) => self.ask(of, growth, true).ok(),
            Ok(proof) => Some(proof),
        })
    }
}
