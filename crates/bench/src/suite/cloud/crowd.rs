//! Many endpoints in one process: each waits for news of the channel as `clerestory-agent run` does with `watch_s`, over
//! real HTTP, looks for all that an agent looks for in what comes, and fetches what is missing. They believe what they
//! get: what is verified is verified by real agents beside them.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use attest::Ring;
use channel::{News, layout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use reputation::ReputationSet;
use serde_json::Value;
use stdx::{Clock as _, Digest, SystemClock};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Connections of a crowd: a machine has 28,000 ports for one server.
pub(super) const CONNECTIONS: usize = 15_000;

/// What else this process, and the server, have open.
const OTHER_FILES: u64 = 2_000;

/// Read at once.
const CHUNK_BYTES: usize = 32 << 10;

/// As long as a server keeps a question; agents ask for 30.
const WAIT_S: u64 = 50;

/// How many connections this process, and those that it starts, can have.
pub(super) fn connections() -> anyhow::Result<usize> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let most = most.saturating_sub(OTHER_FILES).max(1);
    Ok(CONNECTIONS.min(usize::try_from(most).unwrap_or(CONNECTIONS)))
}

/// One connection, and what came over it.
pub(super) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// So much of the buffer is done with.
    read: usize,
}

/// An answer's head.
struct Head {
    status: u16,
    length: usize,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> anyhow::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new(), read: 0 })
    }

    pub(super) async fn post(&mut self, path: &str, media: &str, body: &[u8]) -> anyhow::Result<(u16, &[u8])> {
        let length = body.len();
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: {media}\r\nContent-Length: {length}\r\n\r\n");
        let (head, at) = self.ask(&[head.as_bytes(), body].concat()).await?;
        Ok((head.status, self.body(at, head.length)?))
    }

    async fn get(&mut self, path: &str) -> anyhow::Result<Vec<u8>> {
        let (head, at) = self.ask(request(path).as_bytes()).await?;
        ensure!(head.status == 200, "`{path}`: {}", head.status);
        Ok(self.body(at, head.length)?.to_vec())
    }

    fn body(&self, at: usize, length: usize) -> anyhow::Result<&[u8]> {
        self.buffer.get(at..at + length).context("the answer was read whole")
    }

    async fn ask(&mut self, request: &[u8]) -> anyhow::Result<(Head, usize)> {
        self.stream.write_all(request).await?;
        self.answer().await
    }

    /// The next answer, and where its body begins; what was asked after it may follow.
    async fn answer(&mut self) -> anyhow::Result<(Head, usize)> {
        self.buffer.drain(..std::mem::take(&mut self.read));
        loop {
            let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") else {
                self.more().await?;
                continue;
            };
            let head = std::str::from_utf8(self.buffer.get(..end).unwrap_or_default())?;
            let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            let status: u16 = head.get(9..12).context("a status")?.parse()?;
            let length = if status == 204 { 0 } else { field("content-length: ").unwrap_or_default().parse()? };
            self.read = end + 4 + length;
            while self.buffer.len() < self.read {
                self.more().await?;
            }
            return Ok((Head { status, length }, end + 4));
        }
    }

    async fn more(&mut self) -> anyhow::Result<()> {
        // Without room it would be read in crumbs.
        self.buffer.reserve(CHUNK_BYTES);
        ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the connection ended");
        Ok(())
    }
}

fn request(path: &str) -> String {
    format!("GET /channel/{path} HTTP/1.1\r\nHost: bench\r\n\r\n")
}

/// What a crowd is, and waits for.
#[derive(Clone)]
pub(super) struct Crowd {
    pub(super) channel: SocketAddr,
    pub(super) product: String,
    pub(super) endpoints: usize,
    /// Connections; if there are fewer than endpoints, several ask over one, as behind a proxy.
    pub(super) connections: usize,
    pub(super) patience: Duration,
}

/// When an endpoint had what it waits for, in seconds of the machine's clock; and how many requests all have made.
pub(super) struct Arrived {
    pub(super) at: Vec<f64>,
    pub(super) requests: u64,
}

/// What endpoints wait for, and where they are.
#[derive(Clone)]
struct Wanted {
    file: Digest,
    state: Digest,
    understood: Arc<Mutex<Understood>>,
}

/// An answer that some endpoint has looked through, and what came of it: the same bytes say the same to all others.
#[derive(Default)]
struct Understood {
    answer: Vec<u8>,
    state: Option<Digest>,
    active: bool,
}

impl Crowd {
    /// Lets all of them wait until each has a set in use that has `file`; `ready` is called when all wait.
    pub(super) fn wait(
        &self,
        file: Digest,
        clock: SystemClock,
        ready: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Arrived> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut first = self.connect().await?;
            let state = News::parse(&first.get(&layout::news(Ring::All, None)).await?)?.state;
            let wanted = Wanted { file, state, understood: Arc::default() };
            let connections = self.endpoints.min(self.connections);
            let mut waiting = Vec::with_capacity(connections);
            for place in 0..connections {
                let count = self.endpoints / connections + usize::from(place < self.endpoints % connections);
                let mut connection = self.connect().await?;
                connection.stream.write_all(asked(&state).repeat(count).as_bytes()).await?;
                waiting.push((connection, count));
            }
            let mut tasks = JoinSet::new();
            for (connection, count) in waiting {
                let (crowd, wanted) = (self.clone(), wanted.clone());
                tasks.spawn(async move { crowd.part(connection, count, wanted, clock).await });
            }
            // The crowd goes on meanwhile: what is done here takes milliseconds, and its begin is noted first.
            ready()?;
            let mut arrived = Arrived { at: Vec::with_capacity(self.endpoints), requests: 0 };
            let all = tokio::time::timeout(self.patience, tasks.join_all()).await.context("some have no verdict")?;
            for part in all {
                let part = part?;
                arrived.at.extend(part.at);
                arrived.requests += part.requests;
            }
            Ok(arrived)
        })
    }

    async fn connect(&self) -> anyhow::Result<Connection> {
        Connection::new(TcpStream::connect(self.channel).await?)
    }

    /// The endpoints of one connection, all of which have asked. Answers come in the order of questions.
    async fn part(
        &self,
        mut connection: Connection,
        count: usize,
        wanted: Wanted,
        clock: SystemClock,
    ) -> anyhow::Result<Arrived> {
        let mut arrived = Arrived { at: Vec::with_capacity(count), requests: count as u64 };
        let mut states: VecDeque<Digest> = std::iter::repeat_n(wanted.state, count).collect();
        while let Some(state) = states.pop_front() {
            let (head, at) = connection.answer().await?;
            let next = match head.status {
                204 => state,
                200 => {
                    match self.understand(connection.body(at, head.length)?, &wanted, &mut arrived.requests).await? {
                        (_, true) => {
                            arrived.at.push(clock.monotonic().as_secs_f64());
                            continue;
                        }
                        (state, false) => state,
                    }
                }
                status => bail!("who waits for news is told {status}"),
            };
            connection.stream.write_all(asked(&next).as_bytes()).await?;
            arrived.requests += 1;
            states.push_back(next);
        }
        Ok(arrived)
    }

    /// Where an answer leads to, and whether the file is known there.
    async fn understand(&self, answer: &[u8], wanted: &Wanted, requests: &mut u64) -> anyhow::Result<(Digest, bool)> {
        let understood = || wanted.understood.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let known = understood();
            if let Some(state) = known.state.filter(|_| known.answer == answer) {
                return Ok((state, known.active));
            }
        }
        let news = News::parse(answer)?;
        let (state, active) = (news.state, self.look(news.files, &wanted.file, requests).await?);
        *understood() = Understood { answer: answer.to_vec(), state: Some(state), active };
        Ok((state, active))
    }

    /// Whether what is new has the file.
    async fn look(&self, files: BTreeMap<String, Vec<u8>>, file: &Digest, requests: &mut u64) -> anyhow::Result<bool> {
        let mut files = Files { crowd: self, files, requests, connection: None };
        let timestamp = files.take(layout::TIMESTAMP).await?;
        let snapshot = version(&serde_json::from_slice(&timestamp)?, "snapshot.json")?;
        let snapshot: Value =
            serde_json::from_slice(&files.take(&format!("metadata/{snapshot}.snapshot.json")).await?)?;
        let rules = version(&snapshot, "rules.json")?;
        let targets: Value = serde_json::from_slice(&files.take(&format!("metadata/{rules}.rules.json")).await?)?;
        // The first release of a product came through the slow lane.
        let Ok(list) = target(&targets, &format!("rules/{}/releases", self.product)) else { return Ok(false) };
        let releases: Value = serde_json::from_slice(&files.take(&list).await?)?;
        let all = releases.get("releases").and_then(Value::as_array).context("a list of releases")?;
        let newest = all.iter().rev().find(|it| it.get("ring").and_then(Value::as_str) == Some("all"));
        let Some(number) = newest.and_then(|it| it.get("number")).and_then(Value::as_u64) else { return Ok(false) };
        let of = |name: &str| target(&targets, &format!("rules/{}/{number}/{name}", self.product));
        for path in [of("bundle")?, of("0-rules.yar")?] {
            files.take(&path).await?;
        }
        let set = files.take(&of("1-hashes.fuse")?).await?;
        Ok(ReputationSet::parse(&set)?.may_contain(file))
    }
}

/// "What comes after this?"
fn asked(state: &Digest) -> String {
    request(&format!("{}?wait={WAIT_S}", layout::news(Ring::All, Some(state))))
}

/// What came, and what must be fetched.
struct Files<'a> {
    crowd: &'a Crowd,
    files: BTreeMap<String, Vec<u8>>,
    requests: &'a mut u64,
    connection: Option<Connection>,
}

impl Files<'_> {
    async fn take(&mut self, path: &str) -> anyhow::Result<Vec<u8>> {
        if let Some(bytes) = self.files.remove(path) {
            return Ok(bytes);
        }
        *self.requests += 1;
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.crowd.connect().await?,
        };
        let bytes = connection.get(path).await?;
        self.connection = Some(connection);
        Ok(bytes)
    }
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
