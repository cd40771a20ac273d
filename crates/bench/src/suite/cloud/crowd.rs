//! Many endpoints in one process: each asks for timestamp and status as `clerestory-agent run` does with `watch_s`, by
//! conditional requests over real HTTP, and fetches all that an agent fetches when they have changed. They share
//! connections, and they believe what they get: what is verified is verified by real agents beside them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use reputation::ReputationSet;
use serde_json::Value;
use stdx::{Clock as _, Digest, SystemClock};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Connections of a crowd: a machine has 28,000 ports for one server.
const CONNECTIONS: usize = 128;

const TIMESTAMP: &str = "metadata/timestamp.json";
const STATUS: &str = "status/fast.bundle";

/// One connection, and what came over it.
pub(super) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer's head.
struct Head {
    status: u16,
    length: usize,
    tag: Option<String>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> anyhow::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(64 << 10) })
    }

    pub(super) async fn post(&mut self, path: &str, media: &str, body: &[u8]) -> anyhow::Result<(u16, &[u8])> {
        let length = body.len();
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: {media}\r\nContent-Length: {length}\r\n\r\n");
        let (head, at) = self.ask(&[head.as_bytes(), body].concat()).await?;
        Ok((head.status, self.body(at, head.length)?))
    }

    /// A file below the channel, if it is another one than `tag` is of.
    async fn get(&mut self, path: &str, tag: Option<&str>) -> anyhow::Result<Option<(Option<String>, &[u8])>> {
        let unless = tag.map_or_else(String::new, |tag| format!("If-None-Match: {tag}\r\n"));
        let request = format!("GET /channel/{path} HTTP/1.1\r\nHost: bench\r\n{unless}\r\n");
        let (head, at) = self.ask(request.as_bytes()).await?;
        match head.status {
            304 => Ok(None),
            200 => Ok(Some((head.tag, self.body(at, head.length)?))),
            status => bail!("`{path}`: {status}"),
        }
    }

    fn body(&self, at: usize, length: usize) -> anyhow::Result<&[u8]> {
        self.buffer.get(at..at + length).context("the answer was read whole")
    }

    async fn ask(&mut self, request: &[u8]) -> anyhow::Result<(Head, usize)> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the connection ended");
            let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = std::str::from_utf8(self.buffer.get(..end).unwrap_or_default())?;
            let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            let status: u16 = head.get(9..12).context("a status")?.parse()?;
            let length = if status == 304 { 0 } else { field("content-length: ").unwrap_or_default().parse()? };
            let head = Head { status, length, tag: field("etag: ") };
            while self.buffer.len() < end + 4 + head.length {
                ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the connection ended");
            }
            return Ok((head, end + 4));
        }
    }
}

/// What an endpoint knows of the channel.
#[derive(Clone, Default)]
struct Endpoint {
    timestamp: Option<String>,
    status: Option<String>,
    active: bool,
}

/// The endpoints of one connection.
struct Part {
    /// How much later they look than those of the first one.
    offset: Duration,
    connection: Connection,
    endpoints: Vec<Endpoint>,
}

/// What a crowd is, and waits for.
#[derive(Clone)]
pub(super) struct Crowd {
    pub(super) channel: SocketAddr,
    pub(super) product: String,
    pub(super) endpoints: usize,
    /// How often each of them looks.
    pub(super) watch: Duration,
    pub(super) patience: Duration,
}

/// When an endpoint had what it waits for, in seconds of the machine's clock; and how many requests all have made.
pub(super) struct Arrived {
    pub(super) at: Vec<f64>,
    pub(super) requests: u64,
}

impl Crowd {
    /// Lets all of them look until each has a set in use that has `file`; `ready` is called when all know
    /// what there is now.
    pub(super) fn wait(
        &self,
        file: Digest,
        clock: SystemClock,
        ready: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Arrived> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let connections = self.endpoints.min(CONNECTIONS);
            let mut tasks = JoinSet::new();
            for place in 0..connections {
                let count = self.endpoints / connections + usize::from(place < self.endpoints % connections);
                let crowd = self.clone();
                // Those of one connection are spread over a round, and those of the next one lie between them.
                let apart = self.watch / u32::try_from(count)?;
                let offset = apart / u32::try_from(connections)? * u32::try_from(place)?;
                tasks.spawn(async move { crowd.first(count, offset, &file).await });
            }
            let parts = tasks.join_all().await.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
            let mut tasks = JoinSet::new();
            for part in parts {
                let crowd = self.clone();
                tasks.spawn(async move { crowd.part(part, file, clock).await });
            }
            // The crowd goes on meanwhile: what is done here takes milliseconds, and its begin is noted first.
            ready()?;
            let mut arrived = Arrived { at: Vec::with_capacity(self.endpoints), requests: 0 };
            for part in tasks.join_all().await {
                let part = part?;
                arrived.at.extend(part.at);
                arrived.requests += part.requests;
            }
            Ok(arrived)
        })
    }

    /// Endpoints of one connection that know what the channel has now. The first of them has fetched it: what they
    /// come to know so is the same for all.
    async fn first(&self, count: usize, offset: Duration, file: &Digest) -> anyhow::Result<Part> {
        let mut connection = Connection::new(TcpStream::connect(self.channel).await?)?;
        let mut endpoint = Endpoint::default();
        self.look(&mut connection, &mut endpoint, file, &mut 0).await?;
        ensure!(!endpoint.active, "the file is known before anybody has seen it");
        Ok(Part { offset, connection, endpoints: vec![endpoint; count] })
    }

    /// The endpoints of one connection, one after the other, each at its own time of each round.
    async fn part(&self, part: Part, file: Digest, clock: SystemClock) -> anyhow::Result<Arrived> {
        let Part { offset, mut connection, mut endpoints } = part;
        let count = endpoints.len();
        let mut arrived = Arrived { at: Vec::with_capacity(count), requests: 0 };
        let begin = clock.monotonic();
        let apart = self.watch / u32::try_from(count)?;
        for turn in 0_u32.. {
            ensure!(
                clock.monotonic() - begin < self.patience,
                "{} of {count} have no verdict",
                count - arrived.at.len()
            );
            for (place, endpoint) in (0_u32..).zip(&mut endpoints) {
                // Who is behind looks at once: that it is late is what is measured.
                let due = begin + self.watch * turn + apart * place + offset;
                tokio::time::sleep(due.saturating_sub(clock.monotonic())).await;
                if endpoint.active {
                    continue;
                }
                self.look(&mut connection, endpoint, &file, &mut arrived.requests).await?;
                if endpoint.active {
                    arrived.at.push(clock.monotonic().as_secs_f64());
                }
            }
            if arrived.at.len() == count {
                break;
            }
        }
        Ok(arrived)
    }

    async fn look(
        &self,
        connection: &mut Connection,
        endpoint: &mut Endpoint,
        file: &Digest,
        requests: &mut u64,
    ) -> anyhow::Result<()> {
        *requests += 2;
        if let Some((tag, _)) = connection.get(STATUS, endpoint.status.as_deref()).await? {
            endpoint.status = tag;
        }
        let Some((tag, timestamp)) = connection.get(TIMESTAMP, endpoint.timestamp.as_deref()).await? else {
            return Ok(());
        };
        let snapshot = version(&serde_json::from_slice(timestamp)?, "snapshot.json")?;
        endpoint.timestamp = tag;
        *requests += 5;
        let (_, bytes) = file_of(connection.get(&format!("metadata/{snapshot}.snapshot.json"), None).await?)?;
        let (targets, rules) = {
            let snapshot: Value = serde_json::from_slice(bytes)?;
            (version(&snapshot, "targets.json")?, version(&snapshot, "rules.json")?)
        };
        let (_, _) = file_of(connection.get(&format!("metadata/{targets}.targets.json"), None).await?)?;
        let (_, bytes) = file_of(connection.get(&format!("metadata/{rules}.rules.json"), None).await?)?;
        let targets: Value = serde_json::from_slice(bytes)?;
        // The first release of a product came through the slow lane.
        let Ok(list) = target(&targets, &format!("rules/{}/releases", self.product)) else { return Ok(()) };
        let (_, bytes) = file_of(connection.get(&list, None).await?)?;
        let releases: Value = serde_json::from_slice(bytes)?;
        let all = releases.get("releases").and_then(Value::as_array).context("a list of releases")?;
        let newest = all.iter().rev().find(|it| it.get("ring").and_then(Value::as_str) == Some("all"));
        let Some(number) = newest.and_then(|it| it.get("number")).and_then(Value::as_u64) else { return Ok(()) };
        let of = |name: &str| target(&targets, &format!("rules/{}/{number}/{name}", self.product));
        for path in [of("bundle")?, of("0-rules.yar")?] {
            file_of(connection.get(&path, None).await?)?;
            *requests += 1;
        }
        let (_, set) = file_of(connection.get(&of("1-hashes.fuse")?, None).await?)?;
        endpoint.active = ReputationSet::parse(set)?.may_contain(file);
        Ok(())
    }
}

fn file_of<T>(answer: Option<T>) -> anyhow::Result<T> {
    answer.context("an answer without content")
}

/// The version of a metadata file.
fn version(metadata: &Value, name: &str) -> anyhow::Result<u64> {
    let found = metadata.pointer(&format!("/signed/meta/{name}/version")).and_then(Value::as_u64);
    found.with_context(|| format!("no version of `{name}`"))
}

/// Where a target's file lies.
fn target(targets: &Value, path: &str) -> anyhow::Result<String> {
    let known = targets.pointer("/signed/targets").and_then(|it| it.get(path));
    let hash = known.and_then(|it| it.pointer("/hashes/sha256")).and_then(Value::as_str);
    let hash = hash.with_context(|| format!("no target `{path}`"))?;
    let (folder, name) = path.rsplit_once('/').context("a target lies in a folder")?;
    Ok(format!("targets/{folder}/{hash}.{name}"))
}
