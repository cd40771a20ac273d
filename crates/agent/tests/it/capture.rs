//! What is really on the wire: packets, captured in a network that the test made for itself.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::thread::JoinHandle;

use agent::{Body, Bounds, Class, Mode, RealDisk, Share, SharePorts, Shown, statement_digest};
use api::Client;
use stdx::{Digest, SystemClock, SystemEntropy, durable};

use crate::scene::Scene;
use crate::sharing::Intake;

/// Set in the process that lives in a network of its own.
const INSIDE: &str = "CLERESTORY_TEST_NETWORK";

/// The last packet of a capture, to a port where nobody listens.
const END: &[u8] = b"end of the capture";

/// Runs `test`, whose name is given, in a network namespace with nothing in it but a loopback.
fn in_own_network(name: &str, test: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return test();
    }
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-user=1000", "--keep-caps", "--net"]).arg(std::env::current_exe().unwrap());
    let output = command.args(["--exact", name, "--nocapture"]).env(INSIDE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// tcpdump, whose packets come over a pipe.
struct Capture {
    tcpdump: Child,
    /// Reads as they come: who doesn't, has tcpdump drop what doesn't fit.
    packets: JoinHandle<Captured>,
}

/// The TCP payloads by the port that they were sent to, and how many packets there were.
type Captured = (BTreeMap<u16, Vec<u8>>, usize);

impl Capture {
    fn start() -> Self {
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        let mut tcpdump = Command::new("tcpdump")
            .args(["-i", "lo", "-n", "-U", "--immediate-mode", "-B", "65536", "-w", "-"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(tcpdump.stderr.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap().contains("listening on lo")), "it captures");
        // What it says at its end is read by nobody, and fits into the pipe.
        std::mem::forget(said);
        let mut packets = BufReader::new(tcpdump.stdout.take().unwrap());
        Self { tcpdump, packets: std::thread::spawn(move || read(&mut packets)) }
    }

    /// Everything since the start.
    fn end(mut self) -> Captured {
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(END, "127.0.0.1:9").unwrap();
        let captured = self.packets.join().unwrap();
        self.tcpdump.kill().unwrap();
        self.tcpdump.wait().unwrap();
        captured
    }
}

fn read(packets: &mut BufReader<ChildStdout>) -> Captured {
    let mut file = [0; 24];
    packets.read_exact(&mut file).unwrap();
    assert_eq!(file[..4], [0xd4, 0xc3, 0xb2, 0xa1], "a capture of this machine");
    let (mut payloads, mut count) = (BTreeMap::new(), 0);
    while let Some(packet) = next(packets) {
        let ip = &packet[14..];
        assert_eq!(ip[0] >> 4, 4, "only IPv4 is in use");
        let transport = &ip[usize::from(ip[0] & 15) * 4..usize::from(u16::from_be_bytes([ip[2], ip[3]]))];
        if ip[9] == 17 && transport.ends_with(END) {
            return (payloads, count);
        }
        count += 1;
        if ip[9] == 6 {
            let port = u16::from_be_bytes([transport[2], transport[3]]);
            let payload = &transport[usize::from(transport[12] >> 4) * 4..];
            payloads.entry(port).or_insert_with(Vec::new).extend_from_slice(payload);
        }
    }
    panic!("the capture broke off")
}

fn next(packets: &mut impl Read) -> Option<Vec<u8>> {
    let mut head = [0; 16];
    packets.read_exact(&mut head).ok()?;
    let mut packet = vec![0; u32::from_le_bytes(head[8..12].try_into().unwrap()) as usize];
    packets.read_exact(&mut packet).ok()?;
    Some(packet)
}

fn agent(config: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_clerestory-agent")).arg("--config").arg(config).args(arguments).output().unwrap()
}

/// The real program on a machine that was just set up, with everything configured that could send.
#[test]
fn a_fresh_install_sends_no_packet_before_its_owner_agrees() {
    in_own_network("capture::a_fresh_install_sends_no_packet_before_its_owner_agrees", || {
        let capture = Capture::start();
        let scene = Scene::new();
        let intake = Intake::new();
        let folder = scene.folder.path();
        let (genesis, config) = (folder.join("1.envelope"), folder.join("agent.toml"));
        durable::write(&genesis, &scene.world.genesis().to_bytes()).unwrap();
        let (server, intake) = (scene.server.url(), &intake.url);
        let text = format!(
            "state = \"{0}/fresh\"\ninstall = \"{0}/fresh-install\"\nchannel = [\"{server}\"]\nring = \"all\"\n\
             [lookup]\nrules = \"rules\"\n[share]\nintake = \"{intake}\"\n[[product]]\nid = \"libexample\"\n",
            folder.display()
        );
        durable::write(&config, text.as_bytes()).unwrap();
        let hash = scene.world.genesis().id().to_string();
        let init = agent(&config, &["init", "--policy-hash", &hash, "--policy", genesis.to_str().unwrap()]);
        assert!(init.status.success(), "{init:?}");
        let document = genesis.to_str().unwrap();
        let (statement, file) = (statement_digest().to_string(), Digest::of(b"x").to_string());
        for arguments in [
            &["lookup", document][..],
            &["check"],
            &["share", "statement"],
            &["share", "status"],
            &["share", "show"],
            &["share", "send"],
            &["share", "send-file", document, "--rule", "any", "--sha256", &file],
            // What goes into a file goes nowhere else.
            &["share", "agree", "--statement", &statement, "--mode", "file", "--class", "detections"],
            &["share", "send"],
            &["lookup", document],
            &["share", "withdraw"],
        ] {
            let output = agent(&config, arguments);
            assert!(matches!(output.status.code(), Some(0 | 1)), "{arguments:?}: {output:?}");
        }
        let (payloads, packets) = capture.end();
        assert_eq!((payloads.len(), packets), (0, 0), "{payloads:?}");
        // The same capture sees a request where there is one.
        let capture = Capture::start();
        agent(&config, &["update"]);
        assert!(capture.end().1 > 0, "an update asks the channel");
    });
}

#[test]
fn what_is_shown_is_what_the_packets_carried() {
    in_own_network("capture::what_is_shown_is_what_the_packets_carried", || {
        let capture = Capture::start();
        let (scene, intake, clock) = (Scene::new(), Intake::new(), SystemClock::new());
        let client = Client::new(std::time::Duration::from_secs(5));
        let ports = SharePorts { clock: &clock, disk: &RealDisk, entropy: &SystemEntropy };
        let mut share = Share::open(&scene.config.state, ports, Bounds::default()).unwrap();
        share.agree(&statement_digest(), Mode::Full, [Class::Detections].into()).unwrap();
        for size in 0..600 {
            let body = Body::Detection { rule: "rule".to_owned(), sha256: Digest::of(b"a file"), size };
            share.record(body).unwrap();
        }
        let sending = intake.sending(&client);
        share.send(sending).unwrap();
        let port: u16 = sending.intake.to_string().rsplit(':').next().unwrap().parse().unwrap();
        let (payloads, _) = capture.end();
        let carried = bodies(&payloads[&port]);
        let shown = share.show().unwrap();
        assert!(shown.len() > 1 && shown.len() == carried.len());
        let (mut digests, mut lines) = (Vec::new(), 0);
        for it in &shown {
            let Shown::Sent { sealed, plain, .. } = it else { panic!("{it}") };
            digests.push(*sealed);
            lines += plain.lines().count();
        }
        let mut on_the_wire: Vec<Digest> = carried.iter().map(|body| Digest::of(body)).collect();
        digests.sort_unstable();
        on_the_wire.sort_unstable();
        assert_eq!((digests, lines), (on_the_wire, 600));
    });
}

/// The bodies of the requests in a stream of them; whatever is no head and no body fails.
fn bodies(mut stream: &[u8]) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    while !stream.is_empty() {
        let end = stream.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let head = std::str::from_utf8(&stream[..end]).unwrap().to_lowercase();
        assert!(head.starts_with("post /v1/events http/1.1\r\n"), "{head}");
        let length: usize =
            head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
        bodies.push(stream[end..end + length].to_vec());
        stream = &stream[end + length..];
    }
    bodies
}
