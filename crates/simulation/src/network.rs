//! The network between the machines: slow, lossy, cut in two, and doubling what it carries; all of
//! it drawn from the seed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::{Answer, Body, Request, Transport};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::coroutine;
use crate::seed::Draw;

/// A machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Node {
    Vendor,
    Supervisor,
    Witness(u8),
    Mirror(u8),
    Endpoint(u8),
    Auditor,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vendor => f.write_str("vendor"),
            Self::Supervisor => f.write_str("supervisor"),
            Self::Witness(number) => write!(f, "w{number}"),
            Self::Mirror(number) => write!(f, "m{number}"),
            Self::Endpoint(number) => write!(f, "e{number}"),
            Self::Auditor => f.write_str("auditor"),
        }
    }
}

impl FromStr for Node {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = || text[1..].parse().map_err(|_| format!("`{text}` is no machine"));
        match text {
            "vendor" => Ok(Self::Vendor),
            "supervisor" => Ok(Self::Supervisor),
            "auditor" => Ok(Self::Auditor),
            _ if text.starts_with('w') => number().map(Self::Witness),
            _ if text.starts_with('m') => number().map(Self::Mirror),
            _ if text.starts_with('e') => number().map(Self::Endpoint),
            _ => Err(format!("`{text}` is no machine")),
        }
    }
}

impl Node {
    pub(crate) fn url(self) -> String {
        format!("http://{self}.sim")
    }
}

/// A request between machines.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    pub(crate) from: Node,
    pub(crate) to: Node,
    pub(crate) post: bool,
    /// From the slash on.
    pub(crate) path: String,
    pub(crate) body: Vec<u8>,
    pub(crate) timeout: Duration,
}

/// What a machine answers.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) media_type: String,
    pub(crate) body: Vec<u8>,
}

/// A reply, or why there is none.
pub(crate) type Delivery = Result<Reply, String>;

type Handling = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// What a process does with requests, for as long as it lives.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) handle: Arc<dyn Fn(Parcel) -> Handling + Send + Sync>,
    /// Its sender is dropped when the process dies.
    pub(crate) life: watch::Receiver<()>,
}

/// How bad the network is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    /// Of a thousand messages so many are lost.
    pub(crate) lost: u64,
    /// One way takes at most so long, in milliseconds.
    pub(crate) delay_ms: u64,
    /// Of a thousand posts so many arrive twice.
    pub(crate) doubled: u64,
}

/// All links.
pub(crate) struct Network(Mutex<State>);

struct State {
    draw: Draw,
    weather: Weather,
    cut: BTreeSet<(Node, Node)>,
    services: BTreeMap<Node, Service>,
    counts: BTreeMap<&'static str, u64>,
}

impl Network {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        let (draw, weather) = (Draw::new(seed ^ 0x6e65_7477), Weather::default());
        let (cut, services) = (BTreeSet::new(), BTreeMap::new());
        Arc::new(Self(Mutex::new(State { draw, weather, cut, services, counts: BTreeMap::new() })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    /// Cuts the link between two machines, both ways.
    pub(crate) fn cut(&self, one: Node, other: Node) {
        self.lock().cut.insert((one.min(other), one.max(other)));
    }

    /// Joins everything again.
    pub(crate) fn heal(&self) {
        let mut state = self.lock();
        state.cut.clear();
        state.weather = Weather::default();
    }

    pub(crate) fn serve(&self, node: Node, service: Option<Service>) {
        let mut state = self.lock();
        match service {
            Some(service) => state.services.insert(node, service),
            None => state.services.remove(&node),
        };
    }

    /// How many messages met which fate.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.lock().counts.clone()
    }

    /// One way between two machines: how long it takes, or that it never arrives.
    fn way(&self, from: Node, to: Node) -> Option<Duration> {
        let mut state = self.lock();
        let State { draw, weather, cut, counts, .. } = &mut *state;
        let fate = if cut.contains(&(from.min(to), from.max(to))) {
            "messages cut off"
        } else if draw.happens(weather.lost) {
            "messages lost"
        } else {
            "messages carried"
        };
        *counts.entry(fate).or_default() += 1;
        (fate == "messages carried").then(|| Duration::from_millis(1 + draw.below(weather.delay_ms + 1)))
    }

    /// Lets a message pass one way; it is gone for good if this never ends.
    pub(crate) async fn pass(&self, from: Node, to: Node) {
        match self.way(from, to) {
            Some(delay) => sleep(delay).await,
            None => std::future::pending().await,
        }
    }

    /// Whether this post arrives once more.
    pub(crate) fn doubles(&self) -> bool {
        let mut state = self.lock();
        let doubled = state.weather.doubled;
        let doubles = state.draw.happens(doubled);
        if doubles {
            *state.counts.entry("messages doubled").or_default() += 1;
        }
        doubles
    }

    /// Carries a request there and its answer back.
    pub(crate) async fn carry(self: Arc<Self>, parcel: Parcel) -> Delivery {
        let patience = parcel.timeout;
        if parcel.post && self.doubles() {
            tokio::spawn(Arc::clone(&self).deliver(parcel.clone()));
        }
        // Spawned, because it has its effect whether or not somebody still waits for the answer.
        let delivered = tokio::spawn(self.deliver(parcel));
        match timeout(patience, delivered).await {
            Ok(Ok(delivery)) => delivery,
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    async fn deliver(self: Arc<Self>, parcel: Parcel) -> Delivery {
        let (from, to) = (parcel.from, parcel.to);
        self.pass(from, to).await;
        let service = self.lock().services.get(&to).cloned();
        let Some(service) = service else { return Err("connection refused".to_owned()) };
        let mut life = service.life.clone();
        let reply = tokio::select! {
            biased;
            _ = life.changed() => return Err("connection reset".to_owned()),
            reply = (service.handle)(parcel) => reply,
        };
        self.pass(to, from).await;
        Ok(reply)
    }
}

/// The blocking client's way onto this network, from one machine.
pub(crate) struct Link(pub(crate) Node);

impl Transport for Link {
    fn send(&self, request: Request<'_>) -> Result<Answer, String> {
        let Request { url, body, timeout } = request;
        let (host, path) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).ok_or("no such URL")?;
        let to = host.strip_suffix(".sim").ok_or("no such host")?.parse()?;
        let (post, body) = match body {
            // No server here names bodies by their content.
            Body::Nothing | Body::Unless(_) => (false, Vec::new()),
            Body::Bytes(bytes) | Body::Typed(_, bytes) | Body::Json(bytes) => (true, bytes.to_vec()),
            Body::Piece(..) => return Err("nothing is had in pieces in a simulation".to_owned()),
            Body::Stream(_) => return Err("nothing is put in a simulation".to_owned()),
        };
        let parcel = Parcel { from: self.0, to, post, path: format!("/{path}"), body, timeout };
        let Reply { status, media_type, body } = coroutine::request(parcel)?;
        Ok(Answer { status, retry_after: None, media_type, body: Box::new(std::io::Cursor::new(body)) })
    }
}
