//! Look-ups through a relay: it sees who asks, the gateway sees what, and neither sees both.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use oblivious::{Answered, KeyConfiguration, Question, REQUEST_TYPE, RESPONSE_TYPE, ask};
use policy::{LookupPolicy, Relay};
use reputation::{Answer, Prefix, PrefixBits, Verdict};
use stdx::{Clock as _, Digest, SystemClock, SystemEntropy, durable};
use testkit::{Capture, Packet, add_address, in_own_network};

use crate::process::{Done, Server, run};
use crate::raw::{Response, get, post, send};
use crate::system::System;

fn hashes(start: u32, count: u32) -> Vec<Digest> {
    (start..start + count).map(|number| Digest::of(&number.to_be_bytes())).collect()
}

fn bits() -> PrefixBits {
    PrefixBits::new(2).unwrap()
}

/// Replaces a line of a configuration.
fn set(config: &Path, name: &str, line: &str) {
    let text = std::fs::read_to_string(config).unwrap();
    let lines = text.lines().map(|old| if old.starts_with(&format!("{name} =")) { line } else { old });
    durable::write(config, lines.collect::<Vec<_>>().join("\n").as_bytes()).unwrap();
}

/// A gateway that knows some hashes, as an operator makes it.
fn gateway(folder: &Path) -> (Server, KeyConfiguration) {
    gateway_at(folder, Ipv4Addr::LOCALHOST, &[])
}

/// With further lists.
pub(crate) fn gateway_at(folder: &Path, address: Ipv4Addr, further: &[&str]) -> (Server, KeyConfiguration) {
    run(folder, &["init", "gateway", "--dir", "gateway", "--organisation", "vendor"]).ok();
    let lists = folder.join("gateway/hashes");
    durable::create_folder(&lists).unwrap();
    let list: Vec<String> = hashes(0, 5350).iter().map(ToString::to_string).collect();
    durable::write(&lists.join("malicious.txt"), list.join("\n").as_bytes()).unwrap();
    let config = folder.join("gateway/clerestory.toml");
    set(&config, "listen", "listen = \"stdin\"");
    set(&config, "malicious", &format!("malicious = {:?}", [&["hashes/malicious.txt"], further].concat()));
    let checked = run(folder, &["--json", "check-config", "--config", config.to_str().unwrap()]).ok().json();
    assert_eq!(checked["lookup"]["prefix_bits"], 2);
    let key = checked["lookup"]["key"].as_str().unwrap().parse().unwrap();
    let mut server = Server::bound_at(config, address);
    server.start();
    (server, key)
}

pub(crate) fn relay(folder: &Path, gateway: SocketAddr) -> Server {
    relay_at(folder, gateway, Ipv4Addr::LOCALHOST)
}

fn relay_at(folder: &Path, gateway: SocketAddr, address: Ipv4Addr) -> Server {
    run(folder, &["init", "relay", "--dir", "relay", "--organisation", "member"]).ok();
    let config = folder.join("relay/clerestory.toml");
    set(&config, "listen", "listen = \"stdin\"");
    set(&config, "gateway", &format!("gateway = \"http://{gateway}\""));
    let mut server = Server::bound_at(config, address);
    server.start();
    server
}

/// What an endpoint sends, with more in its head than it should.
fn question(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST / HTTP/1.1\r\nHost: relay\r\nConnection: close\r\nContent-Type: {REQUEST_TYPE}\r\nUser-Agent: tell-tale\r\n\
         Cookie: tell-tale\r\nX-Forwarded-For: 192.0.2.77\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

pub(crate) fn look_up(relay: &Server, key: &KeyConfiguration, digest: &Digest) -> Option<Verdict> {
    let prefix = Prefix::of(digest, bits());
    let (body, asked) = ask(key, &Question(prefix).to_bytes(), &SystemEntropy).unwrap();
    let response = send(relay.address(), &question(&body));
    assert_eq!((response.status, response.header("content-type")), (200, Some(RESPONSE_TYPE)));
    let bucket = Answered::parse(&asked.open(&response.body).unwrap()).unwrap();
    Answer::parse(&bucket, &prefix).unwrap().verdict(digest)
}

#[test]
fn a_known_hash_is_found_through_the_relay_and_another_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, key) = gateway(folder.path());
    let relay = relay(folder.path(), gateway.address());
    assert_eq!(look_up(&relay, &key, &hashes(17, 1)[0]), Some(Verdict::Malicious));
    assert_eq!(look_up(&relay, &key, &hashes(100_000, 1)[0]), None);
    for server in [&relay, &gateway] {
        let ready = get(server.address(), "/readyz");
        assert_eq!(ready.status, 200, "{ready:?}");
    }
}

/// Replaces the list as an operator does, and waits until that shows.
fn relist(folder: &Path, list: &[Digest], mut until: impl FnMut() -> bool) {
    let list: Vec<String> = list.iter().map(ToString::to_string).collect();
    durable::write(&folder.join("gateway/hashes/malicious.txt"), list.join("\n").as_bytes()).unwrap();
    let (clock, until_s) = (SystemClock::new(), Duration::from_secs(20));
    let begin = clock.monotonic();
    while !until() {
        assert!(clock.monotonic() - begin < until_s, "the gateway does not follow its lists");
    }
}

#[test]
fn a_gateway_follows_its_lists_and_keeps_the_ones_before_when_others_cant_be_served() {
    let folder = tempfile::tempdir().unwrap();
    let (mut gateway, key) = gateway(folder.path());
    let relay = relay(folder.path(), gateway.address());
    let found = |number| look_up(&relay, &key, &hashes(number, 1)[0]) == Some(Verdict::Malicious);
    assert!(found(17) && !found(5_360));
    relist(folder.path(), &hashes(20, 5_350), || found(5_360));
    assert!(!found(17), "what is on no list any more is still known");
    // Ten hashes in four buckets would tell what is asked.
    let mut said = BufReader::new(gateway.stderr()).lines();
    relist(folder.path(), &hashes(17, 10), || said.next().unwrap().unwrap().contains("those before stay"));
    assert!(found(5_360) && !found(17));
    relist(folder.path(), &hashes(0, 5_350), || found(17));
    drop(said);
    gateway.kill();
}

/// One request as a gateway gets it, answered with `answer`.
fn gateway_of_one(answer: Vec<u8>) -> (SocketAddr, std::thread::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
        while !String::from_utf8_lossy(&seen).contains("\r\n\r\nsealed question") {
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0, "{}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&buffer[..count]);
        }
        // The relay may have heard enough before all of it is out.
        let _ = stream.write_all(&answer);
        seen
    });
    (address, serving)
}

fn answered(head: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    [format!("HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n").as_bytes(), body].concat()
}

#[test]
fn nothing_of_a_question_but_its_sealed_body_reaches_the_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let answer = answered(&format!("200 OK\r\nContent-Type: {RESPONSE_TYPE}\r\nSet-Cookie: tag=1"), b"sealed answer");
    let (address, serving) = gateway_of_one(answer);
    let relay = relay(folder.path(), address);
    let response = send(relay.address(), &question(b"sealed question"));
    assert_eq!((response.status, response.body.as_slice()), (200, &b"sealed answer"[..]));
    assert!(response.header("set-cookie").is_none(), "nothing of the answer but its body comes back: {response:?}");
    let seen = String::from_utf8(serving.join().unwrap()).unwrap();
    let mut names: Vec<_> = seen.lines().skip(1).map_while(|line| Some(line.split_once(':')?.0)).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "content-length", "content-type", "host"], "{seen}");
    assert!(!seen.contains("tell-tale") && !seen.contains("192.0.2.77"), "{seen}");
}

#[test]
fn a_gateway_that_misbehaves_is_an_error_in_bounded_size() {
    let folder = tempfile::tempdir().unwrap();
    let typed = |head: &str| format!("{head}\r\nContent-Type: {RESPONSE_TYPE}");
    let long = vec![b'x'; oblivious::RESPONSE_BYTES_MAX + 1];
    // A place that only the relay may reach, where the gateway would like it to go.
    let inside = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = format!("307 There\r\nLocation: http://{}/", inside.local_addr().unwrap());
    let cases: [(&str, Vec<u8>, u16); 5] = [
        ("no type", answered("200 OK", b"page"), 503),
        ("too long", answered(&typed("200 OK"), &long), 503),
        ("failed", answered(&typed("500 Oh"), b""), 503),
        ("refused", answered("422 No", b""), 422),
        ("elsewhere", answered(&there, b""), 503),
    ];
    for (what, answer, status) in cases {
        let (address, serving) = gateway_of_one(answer);
        let place = folder.path().join(what);
        durable::create_folder(&place).unwrap();
        let relay = relay(&place, address);
        let response = send(relay.address(), &question(b"sealed question"));
        assert_eq!(response.status, status, "{what}: {response:?}");
        serving.join().unwrap();
    }
    inside.set_nonblocking(true).unwrap();
    assert_eq!(inside.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "a redirect was followed");
}

#[test]
fn a_relay_takes_questions_only_and_a_gateway_only_what_it_can_open() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, key) = gateway(folder.path());
    let relay = relay(folder.path(), gateway.address());
    let error = |response: &Response| response.error();
    assert!(error(&post(relay.address(), "/", b"untyped")).starts_with("422 request"));
    assert!(error(&send(relay.address(), &question(&[0; 1025]))).starts_with("413 too-long"));
    assert!(error(&send(relay.address(), &question(b"for nobody"))).starts_with("422 request"));
    assert!(error(&post(gateway.address(), "/", &[0; 1025])).starts_with("413 too-long"));
    // What opens and is no question of this prefix length is refused inside, unseen by the relay.
    for (inside, status) in [(Question("3/1".parse().unwrap()).to_bytes(), 404), (b"hello".to_vec(), 400)] {
        let (body, asked) = ask(&key, &inside, &SystemEntropy).unwrap();
        let response = send(relay.address(), &question(&body));
        assert_eq!(response.status, 200);
        let answered = Answered::parse(&asked.open(&response.body).unwrap());
        assert_eq!(answered, Err(oblivious::MessageError::Status(status)));
    }
}

#[test]
fn a_gateway_with_thin_buckets_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let (mut gateway, _) = gateway(folder.path());
    gateway.stop();
    let config = folder.path().join("gateway/clerestory.toml");
    set(&config, "prefix_bits", "prefix_bits = 3");
    let refused = run(folder.path(), &["check-config", "--config", config.to_str().unwrap()]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("prefixes of 2 bits at most"), "{refused:?}");
    gateway.start();
    assert_eq!(gateway.wait().code, 1);
}

/// `clerestory-agent` of a machine that trusts the system's policy.
fn agent(system: &System, arguments: &[&str]) -> Done {
    let program = Path::new(env!("CARGO_BIN_EXE_clerestory")).with_file_name("clerestory-agent");
    assert!(program.is_file(), "build it first: cargo build -p agent");
    let mut command = Command::new(program);
    command.env_clear().current_dir(system.path()).args(["--config", "agent.toml", "--json"]).args(arguments);
    command.output().unwrap().into()
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|it| it == part)
}

/// Three places with addresses of their own: what each of the two in the middle could write down.
#[test]
fn a_relays_packets_hold_no_query_and_a_gateways_no_client() {
    in_own_network("lookups::a_relays_packets_hold_no_query_and_a_gateways_no_client", || {
        let [client, at_relay, at_gateway] = [2, 9, 30].map(|last| Ipv4Addr::new(10, 1, 0, last));
        add_address(client, None);
        add_address(at_relay, Some(client));
        add_address(at_gateway, Some(at_relay));
        let folder = tempfile::tempdir().unwrap();
        let (gateway, key) = gateway_at(folder.path(), at_gateway, &[]);
        let relay = relay_at(folder.path(), gateway.address(), at_relay);
        let system = System::made_with(|_, policy| {
            let relays = vec![Relay { organisation: "supervisor".parse().unwrap(), url: relay.url().parse().unwrap() }];
            let (gateway, key) = ("vendor".parse().unwrap(), key.to_string());
            policy.lookup = Some(LookupPolicy { gateway, key, prefix_bits: 2, relays });
        });
        let config = format!(
            "state = \"state\"\ninstall = \"install\"\nchannel = [\"{}\"]\nring = \"all\"\n\
             [lookup]\nrules = \"libexample\"\n[[product]]\nid = \"libexample\"\n",
            system.vendor.url()
        );
        durable::write(&system.file("agent.toml"), config.as_bytes()).unwrap();
        let hash = system.genesis.to_string();
        agent(&system, &["init", "--policy-hash", &hash, "--policy", "vendor/policy/1.envelope"]).ok();
        let statement = agent(&system, &["share", "statement"]).ok().json()["sha256"].as_str().unwrap().to_owned();
        let agree = ["share", "agree", "--statement", &statement, "--mode", "full", "--class", "lookups"];
        agent(&system, &agree).ok();

        let capture = Capture::start();
        let asked = hashes(17, 1)[0];
        let known = agent(&system, &["lookup", &asked.to_string()]);
        let captured = capture.end();
        assert_eq!((known.code, &known.json()["bucket"]), (1, &"malicious".into()), "the gateway could read it");

        let at = |address: Ipv4Addr| {
            captured.0.iter().filter(move |it| *it.source.ip() == address || *it.target.ip() == address)
        };
        let (relays, gateways): (Vec<&Packet>, Vec<&Packet>) = (at(at_relay).collect(), at(at_gateway).collect());
        assert_eq!(captured.0.len(), relays.len(), "everything goes through the relay");
        // The relay's: who asks, and nothing of what.
        assert!(relays.iter().any(|it| *it.source.ip() == client && !it.payload.is_empty()));
        let query = Question(Prefix::of(&asked, bits())).to_bytes();
        let text = asked.to_string();
        for ((to, from), bytes) in captured.streams() {
            for part in [&query, &asked.as_bytes()[..6], &text.as_bytes()[..12], b"GET /2/".as_slice()] {
                assert!(!has(&bytes, part), "{from} sent {to} {}", part.escape_ascii());
            }
        }
        // The gateway's: what, and nothing of who asks, neither in a header nor in a text.
        assert!(gateways.iter().any(|it| *it.target.ip() == at_gateway && it.payload.len() > 75));
        for packet in gateways {
            assert!(!has(&packet.bytes, &client.octets()), "{packet:?}");
            assert!(!has(&packet.payload, client.to_string().as_bytes()), "{packet:?}");
        }
    });
}
