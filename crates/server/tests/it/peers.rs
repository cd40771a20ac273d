//! What our side makes of witnesses and logs that answer oddly.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use log::{TileSource as _, Witness as _, WitnessError};
use server::peer::{HttpTiles, HttpWitness};
use stdx::SystemEntropy;
use tlog::witness_protocol::AddCheckpoint;
use tlog::{Checkpoint, ConsistencyProof, KeyKind, SignedCheckpoint, SignerKey, TreeHead, TreeSize, leaf_hash};

fn key(name: &str, kind: KeyKind) -> SignerKey {
    SignerKey::generate(name.parse().unwrap(), kind, &SystemEntropy).unwrap()
}

/// A server that gives one answer and hangs up.
fn answer(response: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 65_536];
        let _ = stream.read(&mut request);
        let _ = stream.write_all(&response);
        // Until the client hangs up, so that it never sees a reset.
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read(&mut request);
    });
    url
}

fn http(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len()).into_bytes()
}

fn request() -> AddCheckpoint {
    let log = key("log.example/log", KeyKind::Ed25519);
    let head = TreeHead { size: TreeSize::new(1), root: leaf_hash(b"entry") };
    let checkpoint = Checkpoint::new("log.example/log".parse().unwrap(), head).unwrap();
    let signed = SignedCheckpoint::sign(checkpoint, &log).unwrap();
    AddCheckpoint::new(TreeSize::ZERO, ConsistencyProof::empty(), signed).unwrap()
}

#[tokio::test]
async fn each_odd_answer_of_a_witness_is_what_the_specification_makes_of_it() {
    let size = "Content-Type: text/x.tlog.size\r\n";
    let cases: [(&str, Vec<u8>); 15] = [
        ("409 with a size", http("409 Conflict", size, "7\n")),
        ("409 without", http("409 Conflict", "", "you lie")),
        ("409 with a bad size", http("409 Conflict", size, "07\n")),
        ("409 with a size of another type", http("409 Conflict", "Content-Type: text/plain\r\n", "7\n")),
        ("409 with parameters", http("409 Conflict", "content-type: Text/X.tlog.size; charset=utf-8\r\n", "7\n")),
        ("409 without the newline", http("409 Conflict", size, "7")),
        ("409 that breaks off", format!("HTTP/1.1 409 Conflict\r\nContent-Length: 3\r\n{size}\r\n7\n").into_bytes()),
        ("422", http("422 Unprocessable Entity", "", "no")),
        ("404", http("404 Not Found", "", "who?")),
        ("403", http("403 Forbidden", "", "")),
        ("302", http("302 Found", "Location: http://127.0.0.1:1/\r\n", "")),
        ("503", http("503 Service Unavailable", "Retry-After: 1\r\n", "")),
        ("200 with nothing", http("200 OK", "", "")),
        ("200 with anything", http("200 OK", "", "<html>")),
        ("no HTTP", b"hello\r\n\r\n".to_vec()),
    ];
    let mut answers = Vec::new();
    for (name, response) in cases {
        let url = answer(response);
        let witness =
            HttpWitness::new(key("w.example/w", KeyKind::Cosignature).verifier().clone(), url.parse().unwrap());
        let outcome = match witness.add_checkpoint(&request()).await {
            Ok(lines) => format!("{} lines", lines.len()),
            Err(WitnessError::Stale { latest }) => format!("starts from {latest}"),
            Err(WitnessError::Inconsistent) => "alarm".to_owned(),
            Err(WitnessError::Refused(_)) => "refused".to_owned(),
            Err(WitnessError::Silent(_)) => "silent".to_owned(),
        };
        answers.push(format!("{name}: {outcome}"));
    }
    insta::assert_snapshot!(answers.join("\n"), @r"
    409 with a size: starts from 7
    409 without: alarm
    409 with a bad size: alarm
    409 with a size of another type: alarm
    409 with parameters: starts from 7
    409 without the newline: alarm
    409 that breaks off: alarm
    422: alarm
    404: refused
    403: refused
    302: refused
    503: silent
    200 with nothing: silent
    200 with anything: silent
    no HTTP: silent
    ");
}

#[tokio::test]
async fn an_endless_tile_is_cut_off() {
    let mut response = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    response.extend(vec![0; 20_000]);
    let source = HttpTiles { url: answer(response).parse().unwrap(), client: api::Client::new(log::WITNESS_TIMEOUT) };
    let error = source.get(&"tile/0/000".parse().unwrap()).await.unwrap_err();
    assert!(error.reason.ends_with("the answer is longer than 8192 bytes"), "{error}");
    let source = HttpTiles { url: answer(http("404 Not Found", "", "")).parse().unwrap(), ..source };
    assert!(source.get(&"tile/0/000".parse().unwrap()).await.unwrap().is_none());
}
