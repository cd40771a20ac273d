//! Look-ups by oblivious HTTP: a gateway as a process on one core, asked by another.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::routing::post;
use oblivious::{Answered, Asked, KeyConfiguration, Question, REQUEST_TYPE, ask};
use reputation::{Answer, Prefix, PrefixBits, Verdict};
use stdx::{Clock as _, Digest, SystemClock, SystemEntropy, durable};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::crowd::Connection;
use crate::bench::Bench;
use crate::programs::succeed;
use crate::row::{Figure, Row, Target};
use crate::samples::Samples;
use crate::suite::log::Server;

/// With a thousand and more in each of 16 buckets.
const HASHES: u32 = 20_000;
const BITS: u8 = 4;
const CONNECTIONS: usize = 32;
/// A gateway remembers nothing of a question, so that the same ones can be asked again.
const QUESTIONS: usize = 2_048;

/// A question, sealed, and what opens its answer.
struct Prepared {
    body: Vec<u8>,
    asked: Asked,
    about: Digest,
}

pub(in super::super) fn lookups(bench: &mut Bench) -> anyhow::Result<()> {
    let mut server = Server::bound(bench.folder().join("gateway"))?;
    let key = set(bench)?;
    // One core is the gateway's, the other the load's.
    server.start_on(&bench.programs()?.path("clerestory")?, Some(0))?;
    let address = server.address()?;
    let each = bench.scale().of(800, 4);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bodies = questions(&key, bench.scale().of(QUESTIONS, 8))?;
    let bytes = runtime.block_on(check(address, questions(&key, 16)?))?;
    bench.say(&format!("16 answers were opened and are right; each has {bytes} bytes"));
    let bodies: Vec<Vec<u8>> = bodies.into_iter().map(|it| it.body).collect();
    let bare = bare(bytes)?;
    let rates = |address| -> anyhow::Result<f64> {
        let rate = runtime.block_on(load(address, &bodies, each))?;
        bench.say(&format!("{rate:.0}/s"));
        Ok(rate)
    };
    let runs = bench.scale().of(5, 1);
    let (mut ours, mut reference) = (Vec::new(), Vec::new());
    rates(address)?;
    for _ in 0..runs {
        ours.push(rates(address)?);
        reference.push(rates(bare)?);
    }
    let row = Row::new("cloud/lookups", "1/s", Figure::Median, &Samples::new(ours)?);
    let row = row.against(Figure::Median, &Samples::new(reference)?);
    bench.row(row.target(Target::AtLeast(7_000.0)));
    Ok(())
}

/// A gateway's folder, and its key.
fn set(bench: &Bench) -> anyhow::Result<KeyConfiguration> {
    let folder = bench.folder().join("gateway");
    let mut init = bench.programs()?.command("clerestory")?;
    init.args(["init", "gateway", "--organisation", "vendor", "--dir"]).arg(&folder);
    succeed(&mut init)?;
    durable::create_folder(&folder.join("hashes"))?;
    let list: String = (0..HASHES).map(|number| format!("{}\n", hash(number))).collect();
    durable::write(&folder.join("hashes/malicious.txt"), list.as_bytes())?;
    let path = folder.join("clerestory.toml");
    let text = std::fs::read_to_string(&path)?;
    let line = |line: &str| match line {
        line if line.starts_with("listen =") => "listen = \"stdin\"\n".to_owned(),
        line if line.starts_with("prefix_bits =") => format!("prefix_bits = {BITS}\n"),
        line => format!("{line}\n"),
    };
    durable::write(&path, text.lines().map(line).collect::<String>().as_bytes())?;
    let mut check = bench.programs()?.command("clerestory")?;
    let said = succeed(check.args(["--json", "check-config", "--config"]).arg(&path))?;
    let said: serde_json::Value = serde_json::from_slice(&said.stdout)?;
    let key = said.pointer("/lookup/key").and_then(serde_json::Value::as_str).context("the gateway has no key")?;
    Ok(key.parse()?)
}

fn hash(number: u32) -> Digest {
    Digest::of(&number.to_be_bytes())
}

fn questions(key: &KeyConfiguration, count: usize) -> anyhow::Result<Vec<Prepared>> {
    let bits = PrefixBits::new(BITS)?;
    let question = |number: usize| {
        let about = hash(u32::try_from(number)?);
        let (body, asked) = ask(key, &Question(Prefix::of(&about, bits)).to_bytes(), &SystemEntropy)?;
        Ok(Prepared { body, asked, about })
    };
    (0..count).map(question).collect()
}

/// Asks, opens what comes, and looks whether it is right; gives an answer's bytes.
async fn check(address: SocketAddr, questions: Vec<Prepared>) -> anyhow::Result<usize> {
    let mut connection = Connection::new(TcpStream::connect(address).await?)?;
    let mut bytes = 0;
    for Prepared { body, asked, about } in questions {
        let (status, answer) = connection.post("/", REQUEST_TYPE, &body).await?;
        ensure!(status == 200, "the gateway answers {status}");
        bytes = answer.len();
        let bucket = Answered::parse(&asked.open(answer)?)?;
        let answer = Answer::parse(&bucket, &Prefix::of(&about, PrefixBits::new(BITS)?))?;
        ensure!(answer.verdict(&about) == Some(Verdict::Malicious), "a known hash is not in its bucket");
    }
    Ok(bytes)
}

/// A server of the same framework that gives as many bytes for whatever comes.
fn bare(bytes: usize) -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    // It ends with the process.
    std::thread::spawn(move || -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async move {
            let answer = move |_: axum::body::Bytes| async move { vec![7_u8; bytes] };
            let listener = tokio::net::TcpListener::from_std(listener)?;
            Ok(axum::serve(listener, Router::new().route("/", post(answer))).await?)
        })
    });
    Ok(address)
}

/// Look-ups a second.
async fn load(address: SocketAddr, bodies: &[Vec<u8>], each: usize) -> anyhow::Result<f64> {
    let bodies = std::sync::Arc::new(bodies.to_vec());
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Connection::new(TcpStream::connect(address).await?)?);
    }
    let (clock, mut tasks) = (SystemClock::new(), JoinSet::new());
    let begin = clock.monotonic();
    for (place, mut connection) in connections.into_iter().enumerate() {
        let bodies = std::sync::Arc::clone(&bodies);
        tasks.spawn(async move {
            for number in 0..each {
                let body = bodies.get((place * each + number) % bodies.len()).context("a question")?;
                let (status, _) = connection.post("/", REQUEST_TYPE, body).await?;
                ensure!(status == 200, "it answers {status}");
            }
            anyhow::Ok(())
        });
    }
    tasks.join_all().await.into_iter().collect::<anyhow::Result<()>>()?;
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    let all = (CONNECTIONS * each) as f64;
    Ok(all / (clock.monotonic() - begin).as_secs_f64())
}
