//! The witnesses, and the logs' way to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use log::WitnessError;
use storage::LockStore;
use tlog::witness_protocol::{AddCheckpoint, Cosignatures, origin_hash};
use tlog::{NoteSignature, Origin, SignedCheckpoint, VerifierKey, verify_cosignature};
use tokio::sync::watch;
use witness::{Witness, WitnessParts};

use crate::host::{Disk, Stores};
use crate::http::ask;
use crate::network::{Network, Node, Parcel, Reply, Service};
use crate::world::World;

/// What a faulty witness does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Nothing wrong.
    None,
    /// It forgets what it has cosigned, with every request.
    Forgets,
    /// It says that it starts from this size.
    Size(u64),
}

/// A running witness.
pub(crate) struct Running {
    /// Dropped when the process ends.
    _life: watch::Sender<()>,
}

/// Starts the process of a witness. `honest`: its cosignatures are held against it.
pub(crate) fn start(world: &Arc<World>, number: u8, lie: Lie, honest: bool) -> Running {
    let node = Node::Witness(number);
    let host = &world.hosts[&node];
    let stores = Stores::open(host);
    let parts = WitnessParts {
        locks: Arc::new(stores) as Arc<dyn LockStore>,
        clock: Arc::new(world.clock(node).clone()),
        signer: world.witness_key(number),
        logs: world.log_keys(),
    };
    let router = server::http::witness::router(Arc::new(Witness::new(parts).unwrap()));
    let (life, living) = watch::channel(());
    let site = Arc::new(Site { world: Arc::clone(world), router, number, lie, honest, requests: AtomicU64::new(0) });
    let handle = Arc::new(move |parcel| {
        let site = Arc::clone(&site);
        Box::pin(async move { site.answer(parcel).await }) as _
    });
    world.network.serve(node, Some(Service { handle, life: living }));
    Running { _life: life }
}

struct Site {
    world: Arc<World>,
    router: Router,
    number: u8,
    lie: Lie,
    honest: bool,
    requests: AtomicU64,
}

impl Site {
    async fn answer(&self, parcel: Parcel) -> Reply {
        self.requests.fetch_add(1, Ordering::SeqCst);
        match self.lie {
            Lie::None => {}
            Lie::Forgets => *self.world.hosts[&Node::Witness(self.number)].disk() = Disk::default(),
            Lie::Size(size) if parcel.post => {
                let media_type = "text/x.tlog.size".to_owned();
                return Reply { status: 409, media_type, body: format!("{size}\n").into_bytes() };
            }
            Lie::Size(_) => {}
        }
        let request = AddCheckpoint::parse(&parcel.body).ok();
        let reply = ask(self.router.clone(), parcel).await;
        if let (200, true, Some(request)) = (reply.status, self.honest, request) {
            self.note(request.checkpoint(), &reply);
        }
        reply
    }

    fn note(&self, signed: &SignedCheckpoint, reply: &Reply) {
        let key = self.world.witness_key(self.number);
        for line in Cosignatures::parse(&reply.body).map(Cosignatures::into_lines).into_iter().flatten() {
            if let Ok(time) = verify_cosignature(signed.checkpoint(), &line, key.verifier()) {
                let checkpoint = signed.checkpoint();
                self.world.ledger.cosigned(self.number, checkpoint.origin(), checkpoint.head(), time);
            }
        }
    }
}

/// A witness as a log sees it: C2SP tlog-witness over the simulated network.
pub(crate) struct Remote {
    pub(crate) network: Arc<Network>,
    pub(crate) from: Node,
    pub(crate) to: Node,
    pub(crate) key: VerifierKey,
}

impl Remote {
    async fn send(&self, path: String, body: Option<Vec<u8>>) -> Result<Reply, WitnessError> {
        let (from, to, post) = (self.from, self.to, body.is_some());
        let (body, timeout) = (body.unwrap_or_default(), Duration::from_secs(60));
        let parcel = Parcel { from, to, post, path, body, timeout };
        Arc::clone(&self.network).carry(parcel).await.map_err(WitnessError::Silent)
    }
}

fn refusal(reply: &Reply) -> WitnessError {
    let words = String::from_utf8_lossy(&reply.body).trim().to_owned();
    match (reply.status, reply.media_type.as_str()) {
        (409, "text/x.tlog.size") => match words.parse() {
            Ok(latest) => WitnessError::Stale { latest },
            Err(_) => WitnessError::Silent(words),
        },
        (409 | 422, _) => WitnessError::Inconsistent,
        (400..500, _) => WitnessError::Refused(words),
        _ => WitnessError::Silent(words),
    }
}

#[async_trait]
impl log::Witness for Remote {
    fn key(&self) -> &VerifierKey {
        &self.key
    }

    async fn add_checkpoint(&self, request: &AddCheckpoint) -> Result<Vec<NoteSignature>, WitnessError> {
        let reply = self.send("/add-checkpoint".to_owned(), Some(request.to_string().into_bytes())).await?;
        if reply.status != 200 {
            return Err(refusal(&reply));
        }
        let lines = Cosignatures::parse(reply.body).map_err(|error| WitnessError::Silent(error.to_string()))?;
        Ok(lines.into_lines())
    }

    async fn checkpoint(&self, origin: &Origin) -> Result<Option<SignedCheckpoint>, WitnessError> {
        let reply = self.send(format!("/{}/checkpoint", origin_hash(origin)), None).await?;
        match reply.status {
            200 => {
                SignedCheckpoint::parse(reply.body).map(Some).map_err(|error| WitnessError::Silent(error.to_string()))
            }
            404 => Ok(None),
            _ => Err(refusal(&reply)),
        }
    }
}

/// All witnesses, as `from` sees them.
pub(crate) fn remotes(world: &World, from: Node) -> Vec<Arc<dyn log::Witness>> {
    let remote = |number| {
        let (network, key) = (Arc::clone(&world.network), world.witness_key(number).verifier().clone());
        Arc::new(Remote { network, from, to: Node::Witness(number), key }) as Arc<dyn log::Witness>
    };
    (0..crate::world::WITNESSES).map(remote).collect()
}
