//! A cloud that wants files: channel, relay, gateway and intake in one hand, and on one port.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use oblivious::{Answered, GatewayKey, Question, RESPONSE_TYPE};
use reputation::{Known, PrefixBits, Sources};
use stdx::{Digest, SystemEntropy};

/// A request, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// `GET /channel/…`, without the version.
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// Where it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Channel,
    Relay,
}

/// What it gives.
#[derive(Clone, Debug)]
enum Manner {
    /// What is right, in a head that asks for more.
    Right,
    /// Its demands, one after the other.
    Demanding,
}

struct Shared {
    key: GatewayKey,
    known: Known,
    wanted: String,
    folder: Mutex<PathBuf>,
    manner: Mutex<Manner>,
    /// Demands made of those who asked the channel, and of those who asked the relay.
    made: [AtomicUsize; 2],
    asked: Mutex<Vec<Asked>>,
}

pub(crate) struct Cloud {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

impl Cloud {
    /// One that knows of a file at `wanted` with this hash.
    pub(crate) fn new(key: GatewayKey, wanted: &Path, sha256: Digest) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let others = (0..8000_u32).map(|number| Digest::of(&number.to_be_bytes()));
        let sources = Sources { malicious: others.chain([sha256]).collect(), clean: Vec::new() };
        let shared = Arc::new(Shared {
            key,
            known: Known::new(sources, PrefixBits::new(2).unwrap()).unwrap(),
            wanted: wanted.display().to_string(),
            folder: Mutex::default(),
            manner: Mutex::new(Manner::Right),
            made: Default::default(),
            asked: Mutex::default(),
        });
        let cloud = Self { address, shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                // Whoever hangs up has heard enough.
                std::thread::spawn(move || drop(serve(&stream, &shared)));
            }
        });
        cloud
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Serves this copy of a channel, with heads that ask for more.
    pub(crate) fn show(&self, channel: &Path) {
        *self.shared.folder.lock().unwrap() = channel.to_owned();
        *self.shared.manner.lock().unwrap() = Manner::Right;
    }

    /// From now on it answers with demands alone.
    pub(crate) fn demand(&self) {
        *self.shared.manner.lock().unwrap() = Manner::Demanding;
        self.shared.made.iter().for_each(|made| made.store(0, Ordering::SeqCst));
    }

    /// Whether each demand was made there since.
    pub(crate) fn has_made(&self, place: Place) -> bool {
        let all = demands(&self.shared.wanted, &self.address.to_string()).len();
        let sealed = if place == Place::Relay { SEALED } else { 0 };
        self.shared.made[place as usize].load(Ordering::SeqCst) >= all + sealed
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }
}

fn request(reader: &mut BufReader<&TcpStream>) -> std::io::Result<Option<Asked>> {
    let (mut line, mut headers) = (String::new(), Vec::new());
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length").map_or(0, |(_, it)| it.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let line = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    Ok(Some(Asked { line, headers, body }))
}

fn serve(stream: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    while let Some(asked) = request(&mut reader)? {
        shared.asked.lock().unwrap().push(asked.clone());
        let manner = shared.manner.lock().unwrap().clone();
        let answer = match manner {
            Manner::Right => right(&asked, shared),
            Manner::Demanding => demand(&asked, shared, &stream.local_addr()?.to_string()),
        };
        writer.write_all(&answer)?;
    }
    Ok(())
}

/// A head that wants more in every field that somebody may act on.
fn head(status: &str, more: &str, wanted: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nLocation: /collect?file={wanted}\r\nContent-Location: /collect\r\n\
         Refresh: 0; url=/collect\r\nLink: </collect>; rel=\"preload next\"\r\nSet-Cookie: collect={wanted}\r\n\
         Alt-Svc: h2=\":443\"\r\nX-Collect: {wanted}\r\nWWW-Authenticate: Basic realm=\"{wanted}\"\r\n{more}"
    )
}

fn whole(status: &str, more: &str, wanted: &str, body: &[u8]) -> Vec<u8> {
    let head = head(status, more, wanted);
    [format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

fn right(asked: &Asked, shared: &Shared) -> Vec<u8> {
    let wanted = &shared.wanted;
    if asked.line.starts_with("POST /relay/") {
        let (question, reply) = oblivious::open(&shared.key, &asked.body).unwrap();
        let bucket = shared.known.answer(&Question::parse(&question).unwrap().0).unwrap();
        let sealed = reply.seal(&Answered::bucket(bucket).to_bytes(), &SystemEntropy).unwrap();
        return whole("200 OK", &format!("Content-Type: {RESPONSE_TYPE}\r\n"), wanted, &sealed);
    }
    let path = asked.line.strip_prefix("GET /channel/").map(|path| shared.folder.lock().unwrap().join(path));
    match path.and_then(|path| std::fs::read(path).ok()) {
        Some(body) => whole("200 OK", "", wanted, &body),
        None => whole("404 Not Found", "", wanted, b""),
    }
}

/// So many demands are sealed for whoever asked a question.
const SEALED: usize = 5;

fn demand(asked: &Asked, shared: &Shared, address: &str) -> Vec<u8> {
    let plain = demands(&shared.wanted, address);
    let question = oblivious::open(&shared.key, &asked.body).ok();
    let (place, all) = match question {
        Some(_) => (Place::Relay, plain.len() + SEALED),
        None => (Place::Channel, plain.len()),
    };
    let turn = shared.made[place as usize].fetch_add(1, Ordering::SeqCst) % all;
    let (Some(sealed), Some((question, reply))) = (turn.checked_sub(plain.len()), question) else {
        return plain[turn].clone();
    };
    let bucket = shared.known.answer(&Question::parse(&question).unwrap().0).unwrap();
    let collect = format!("{{\"collect\":[\"{}\"]}}", shared.wanted);
    let inside = match sealed {
        0 => collect.into_bytes(),
        1 => [Answered::bucket(bucket).to_bytes(), collect.into_bytes()].concat(),
        2 => Answered::bucket([bucket, collect.into_bytes()].concat()).to_bytes(),
        3 => Answered::refusal(307).to_bytes(),
        // A question in return.
        _ => question,
    };
    let sealed = reply.seal(&inside, &SystemEntropy).unwrap();
    whole("200 OK", &format!("Content-Type: {RESPONSE_TYPE}\r\n"), &shared.wanted, &sealed)
}

/// Every way in which HTTP lets a server ask for something.
fn demands(wanted: &str, address: &str) -> Vec<Vec<u8>> {
    let json = format!(
        "{{\"collect\":[\"{wanted}\"],\"upload\":\"http://{address}/collect\",\"command\":\"share send-file {wanted}\",\
         \"batch\":\"{}\",\"bytes\":0}}",
        Digest::of(b"")
    );
    let form = format!(
        "<form action=\"/collect\" method=\"post\" enctype=\"multipart/form-data\"><input type=\"file\" \
         value=\"{wanted}\"></form><script>fetch(\"/collect\")</script>"
    );
    let mut demands = Vec::new();
    let mut add = |status: &str, more: &str, body: &[u8]| demands.push(whole(status, more, wanted, body));
    add("200 OK", "Content-Type: application/json\r\n", json.as_bytes());
    add("200 OK", "Content-Type: text/html\r\n", form.as_bytes());
    add("206 Partial Content", "Content-Range: bytes 0-9/10\r\n", json.as_bytes());
    let there = format!("Location: http://{address}/collect?file={wanted}\r\n");
    for status in [
        "300 Multiple Choices",
        "301 Moved",
        "302 Found",
        "303 See Other",
        "305 Use Proxy",
        "307 There",
        "308 There for Good",
    ] {
        add(status, &there, json.as_bytes());
    }
    add("401 Unauthorized", "WWW-Authenticate: Negotiate\r\nWWW-Authenticate: Digest nonce=\"0\"\r\n", b"");
    add("407 Proxy Authentication", "Proxy-Authenticate: Basic realm=\"the file\"\r\n", b"");
    add("411 Length Required", "", json.as_bytes());
    add("417 Expectation Failed", "Expect: 100-continue\r\n", json.as_bytes());
    add("426 Upgrade Required", "Connection: Upgrade\r\nUpgrade: websocket, h2c, TLS/1.0\r\n", b"");
    add("429 Too Many", "Retry-After: 0\r\n", json.as_bytes());
    add("503 Later", "Retry-After: 0\r\n", json.as_bytes());
    add("511 Network Authentication", "", form.as_bytes());
    add("200 OK", "Content-Encoding: gzip\r\n", json.as_bytes());
    add("200 OK", "", json.repeat(40_000).as_bytes());
    let first = |status: &str, then: &[u8]| [head(status, "\r\n", wanted).as_bytes(), then].concat();
    let then = whole("200 OK", "", wanted, json.as_bytes());
    demands.push(first("100 Continue", &then));
    demands.push(first("103 Early Hints", &then));
    let (length, trailer) = (json.len(), format!("X-Collect: {wanted}\r\n\r\n"));
    let chunked = head("200 OK", "Transfer-Encoding: chunked\r\nTrailer: X-Collect\r\n\r\n", wanted);
    demands.push(format!("{chunked}{length:x}\r\n{json}\r\n0\r\n{trailer}").into_bytes());
    demands
}
