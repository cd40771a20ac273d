//! What one worker holds of an intent that several share: its own slice, opened, and nothing else; until the query ends
//! or the intent is over.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::{BaseUrl, RunWorker};
use attest::{StatementId, Workers};
use datafusion::common::DataFusionError;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionState;
use seal::{Answering, Asking, Hop, PrivateKey, PublicKey};
use stdx::{Digest, Entropy, UnixTime};
use tokio::sync::{OnceCell, watch};

use crate::admit::{Admitted, Refused};
use crate::leaf::Place;
use crate::scan::Slice;
use crate::spread;

/// Sessions that others have begun with this worker for one intent: one for each, and what strangers begin and can't
/// go on with.
const SESSIONS_MAX: usize = 64;

/// The place of the worker that plans, and gives out the result.
pub(crate) const LEADER: usize = 0;

/// Another worker of the intent: it is who has this key, wherever it is.
pub(crate) struct Peer {
    pub(crate) key: PublicKey,
    pub(crate) url: BaseUrl,
}

/// What a worker needs to ask the others.
pub(crate) struct Scope {
    pub(crate) intent: StatementId,
    pub(crate) place: Place,
    pub(crate) peers: Vec<Peer>,
    pub(crate) key: Arc<PrivateKey>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) client: reqwest::Client,
    /// A session with each, by its place.
    pub(crate) asking: Vec<OnceCell<(Digest, Asking)>>,
}

impl Scope {
    /// Under what was admitted, with others where the gateway says that they are.
    pub(crate) fn new(
        admitted: &Admitted,
        brought: &[RunWorker],
        key: Arc<PrivateKey>,
        entropy: Arc<dyn Entropy>,
        client: reqwest::Client,
    ) -> Result<Self, Refused> {
        let peers = peers(&admitted.workers, brought).ok_or(Refused::Workers(admitted.intent))?;
        let place = Place { at: admitted.place, of: peers.len() };
        let asking = peers.iter().map(|_| OnceCell::new()).collect();
        Ok(Self { intent: admitted.intent, place, peers, key, entropy, client, asking })
    }

    /// A session in which `asks` asks `answers`.
    pub(crate) fn hop<'a>(&'a self, asks: &'a Peer, answers: &'a Peer) -> Hop<'a> {
        Hop { intent: self.intent, asks: &asks.key, answers: &answers.key }
    }

    pub(crate) fn own(&self) -> Option<&Peer> {
        self.peers.get(self.place.at)
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("intent", &self.intent).field("place", &self.place).finish_non_exhaustive()
    }
}

/// Those that the intent names, in its order.
fn peers(named: &Workers, brought: &[RunWorker]) -> Option<Vec<Peer>> {
    if brought.len() != named.keys().len() {
        return None;
    }
    let peer = |(worker, named): (&RunWorker, &Digest)| {
        let key: PublicKey = worker.key.parse().ok()?;
        (key.id() == *named).then(|| Peer { key, url: worker.url.clone() })
    };
    brought.iter().zip(named.keys()).map(peer).collect()
}

/// A session that another has begun.
struct Session {
    /// Who asks, if it is who it says.
    from: usize,
    name: Digest,
    answering: Arc<Answering>,
    /// A question came that only the worker whom the intent names can have asked.
    is_proven: bool,
}

/// A part of a query.
pub(crate) struct Held {
    scope: Arc<Scope>,
    slice: Arc<Slice>,
    runtime: Arc<RuntimeEnv>,
    worker: datafusion_distributed::Worker,
    expires: UnixTime,
    sessions: Mutex<VecDeque<Session>>,
    ended: watch::Sender<bool>,
}

impl Held {
    pub(crate) fn new(scope: Scope, slice: Slice, runtime: Arc<RuntimeEnv>, expires: UnixTime) -> Self {
        let (scope, slice) = (Arc::new(scope), Arc::new(slice));
        let worker = spread::worker(&scope, &slice, &runtime);
        let (ended, _) = watch::channel(false);
        Self { scope, slice, runtime, worker, expires, sessions: Mutex::default(), ended }
    }

    pub(crate) const fn scope(&self) -> &Arc<Scope> {
        &self.scope
    }

    pub(crate) const fn slice(&self) -> &Arc<Slice> {
        &self.slice
    }

    pub(crate) const fn worker(&self) -> &datafusion_distributed::Worker {
        &self.worker
    }

    /// Says when this is over.
    pub(crate) fn ended(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }

    /// The leader's way to plan.
    pub(crate) fn leading(&self) -> Result<SessionState, DataFusionError> {
        spread::leading(&self.scope, &self.slice, &self.runtime, &self.worker)
    }

    /// Whoever has begun may be a stranger. It gets a session that only the worker named so can use.
    pub(crate) fn begun(&self, from: usize, name: Digest, answering: Answering) -> bool {
        let mut sessions = lock(&self.sessions);
        if sessions.len() >= SESSIONS_MAX {
            let Some(stale) = sessions.iter().position(|session| !session.is_proven) else { return false };
            sessions.remove(stale);
        }
        sessions.push_back(Session { from, name, answering: Arc::new(answering), is_proven: false });
        true
    }

    /// The session with this name, and the place of who asks in it.
    pub(crate) fn session(&self, name: &Digest) -> Option<(usize, Arc<Answering>)> {
        let sessions = lock(&self.sessions);
        let session = sessions.iter().find(|session| session.name == *name)?;
        Some((session.from, Arc::clone(&session.answering)))
    }

    pub(crate) fn proven(&self, name: &Digest) {
        let mut sessions = lock(&self.sessions);
        sessions.iter_mut().filter(|session| session.name == *name).for_each(|session| session.is_proven = true);
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("scope", &self.scope).finish_non_exhaustive()
    }
}

/// All that a process holds.
#[derive(Debug, Default)]
pub(crate) struct Holds(Mutex<HashMap<StatementId, Arc<Held>>>);

/// Something that is held; let go of when this is dropped.
#[derive(Debug)]
pub(crate) struct Holding {
    holds: Arc<Holds>,
    pub(crate) held: Arc<Held>,
}

impl Holds {
    /// An intent is answered once by a process, so it is never there already.
    pub(crate) fn hold(self: &Arc<Self>, held: Held) -> Holding {
        let held = Arc::new(held);
        lock(&self.0).insert(held.scope.intent, Arc::clone(&held));
        Holding { holds: Arc::clone(self), held }
    }

    /// What is held of `intent`, if it is not over.
    pub(crate) fn find(&self, intent: &StatementId, now: UnixTime) -> Option<Arc<Held>> {
        lock(&self.0).get(intent).filter(|held| now < held.expires).cloned()
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        lock(&self.holds.0).remove(&self.held.scope.intent);
        self.held.ended.send_replace(true);
    }
}

/// What a thread that panicked has left is whole: every change is one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
