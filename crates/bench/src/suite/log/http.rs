//! `POST /v1/entries`: an entry a request, each a signed statement in one of many streams, beside
//! a server of the same framework that answers as much without doing anything.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use attest::{Envelope, Heartbeat, Position, Statement, StatementId, Subject};
use axum::Router;
use axum::routing::post;
use stdx::{Clock as _, Digest, SystemClock};
use tlog::SignerKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::runtime;
use super::system::{LOG, Streams, System};
use crate::bench::Bench;
use crate::row::{Figure, Row, Target};
use crate::samples::Samples;

/// One request at a time is under way in each: the next entry of a stream names the one before.
/// A policy is an entry itself, of 64 KiB at most, and holds no more streams than about these.
const STREAMS: usize = 480;

pub(in super::super) fn http(bench: &mut Bench) -> anyhow::Result<()> {
    let streams = bench.scale().of(STREAMS, 8);
    let mut system = System::new(bench.folder(), &bench.programs()?.path("clerestory")?, Streams(streams))?;
    system.start_vendor()?;
    let key = system.key("vendor/keys/recorder")?;
    let mut stream_ends: Vec<End> = (0..streams).map(|number| End { number, sequence: 0, previous: None }).collect();
    let each = bench.scale().of(60, 2);
    let server = runtime()?;
    let idle = server.block_on(answer_everything(&mut system, &mut stream_ends, &key))?;
    // Half of the machine is enough for the load, and shows what it costs.
    let load_on = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let address = system.vendor.address()?;
    let (mut latencies, mut bare_latencies) = (Vec::new(), Vec::new());
    let (ours, bare) = bench.interleaved(
        bench.scale().of(5, 1),
        || {
            let requests = stream_ends.iter_mut().map(|end| end.requests(each, &key)).collect::<anyhow::Result<_>>()?;
            let (rate, times) = load_on.block_on(load(address, requests))?;
            bench.say(&format!("{rate:.0}/s"));
            latencies.extend(times);
            Ok(rate)
        },
        || {
            let mut same: Vec<End> = (0..streams).map(|number| End { number, sequence: 0, previous: None }).collect();
            let requests = same.iter_mut().map(|end| end.requests(each, &key)).collect::<anyhow::Result<_>>()?;
            let (rate, times) = load_on.block_on(load(idle, requests))?;
            bench.say(&format!("{rate:.0}/s bare"));
            bare_latencies.extend(times);
            Ok(rate)
        },
    )?;
    let row = Row::new("log/http/rate", "1/s", Figure::Median, &ours).against(Figure::Median, &bare);
    bench.row(row.target(Target::AtLeast(12_000.0)));
    let p99 = Figure::Percentile(99.0);
    let row =
        Row::new("log/http/p99", "ms", p99, &Samples::new(latencies)?).against(p99, &Samples::new(bare_latencies)?);
    bench.row(row.target(Target::AtMost(200.0)));
    Ok(())
}

/// The end of a stream.
struct End {
    number: usize,
    sequence: u64,
    previous: Option<StatementId>,
}

impl End {
    /// The next requests of this stream.
    fn requests(&mut self, count: usize, key: &SignerKey) -> anyhow::Result<Vec<Vec<u8>>> {
        let clock = SystemClock::new();
        let request = |_| {
            let position = Position {
                log: LOG.parse()?,
                stream: format!("s/{}", self.number).parse()?,
                epoch: 0,
                sequence: self.sequence,
                previous: self.previous,
                time: clock.now(),
            };
            let predicate = Heartbeat { position, interval_s: 3600 };
            let subject = vec![Subject::new("beat", Digest::of(b"beat"))];
            let envelope = Envelope::sign(Statement { subject, predicate }.encode()?, &[key])?;
            self.previous = Some(envelope.id());
            self.sequence += 1;
            let body = envelope.to_bytes();
            let head = format!("POST /v1/entries HTTP/1.1\r\nHost: bench\r\nContent-Length: {}\r\n\r\n", body.len());
            anyhow::Ok([head.as_bytes(), &body].concat())
        };
        (0..count).map(request).collect()
    }
}

/// A server that reads each body and gives the answer that the log gave to a first entry.
async fn answer_everything(system: &mut System, ends: &mut [End], key: &SignerKey) -> anyhow::Result<SocketAddr> {
    let first = ends.first_mut().context("there is a stream")?;
    let request = first.requests(1, key)?.pop().context("one request was made")?;
    let mut stream = TcpStream::connect(system.vendor.address()?).await?;
    let mut buffer = Vec::new();
    let body = one(&mut stream, &request, &mut buffer).await?.to_vec();
    let answer = move |_: axum::body::Bytes| {
        let body = body.clone();
        async move { ([("content-type", "application/json")], body) }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        let _ = stream.set_nodelay(true);
    });
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/v1/entries", post(answer))).await });
    Ok(address)
}

/// Requests a second over a connection for each list of requests, and each one's milliseconds.
async fn load(address: SocketAddr, all: Vec<Vec<Vec<u8>>>) -> anyhow::Result<(f64, Vec<f64>)> {
    let mut connections = Vec::new();
    for requests in all {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        connections.push((stream, requests));
    }
    let clock = SystemClock::new();
    let mut tasks = JoinSet::new();
    for (mut stream, requests) in connections {
        tasks.spawn(async move {
            let clock = SystemClock::new();
            let (mut times, mut buffer) = (Vec::with_capacity(requests.len()), Vec::with_capacity(8192));
            for request in &requests {
                let begin = clock.monotonic();
                one(&mut stream, request, &mut buffer).await?;
                times.push((clock.monotonic() - begin).as_secs_f64() * 1e3);
            }
            anyhow::Ok(times)
        });
    }
    let times: Vec<Vec<f64>> = tasks.join_all().await.into_iter().collect::<anyhow::Result<_>>()?;
    let seconds = clock.monotonic().max(Duration::from_millis(1)).as_secs_f64();
    let times: Vec<f64> = times.concat();
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    let rate = times.len() as f64 / seconds;
    Ok((rate, times))
}

/// Sends a request and reads its answer; gives the body.
async fn one<'buffer>(
    stream: &mut TcpStream,
    request: &[u8],
    buffer: &'buffer mut Vec<u8>,
) -> anyhow::Result<&'buffer [u8]> {
    stream.write_all(request).await?;
    buffer.clear();
    let (from, to) = loop {
        ensure!(stream.read_buf(buffer).await? > 0, "the connection ended");
        let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(buffer.get(..end).unwrap_or_default())?;
        ensure!(head.starts_with("HTTP/1.1 200"), "{}", String::from_utf8_lossy(buffer));
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.context("the answer's length is not said")?.parse()?;
        if buffer.len() >= end + 4 + length {
            break (end + 4, end + 4 + length);
        }
    };
    buffer.get(from..to).context("the answer was read whole")
}
