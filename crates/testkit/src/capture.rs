//! What is really on the wire: packets, captured in a network that the test made for itself.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

/// Set in the process that lives in a network of its own.
const INSIDE: &str = "CLERESTORY_TEST_NETWORK";

/// The last packet of a capture, to a port where nobody listens.
const END: &[u8] = b"end of the capture";

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Runs `test`, whose name is given, in a network namespace with nothing in it but a loopback.
pub fn in_own_network(name: &str, test: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        ip(&["link", "set", "lo", "up"]);
        return test();
    }
    let mut command = Command::new("unshare");
    // With its group mapped, too, a process in it may confine itself further.
    command
        .args(["--user", "--map-user=1000", "--map-group=1000", "--keep-caps", "--net"])
        .arg(std::env::current_exe().unwrap());
    let output = command.args(["--exact", name, "--nocapture"]).env(INSIDE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    said.lines().filter(|line| line.contains("figure: ")).for_each(|line| println!("{line}"));
}

/// Gives this network's loopback another address, which talks to those that are added after it from
/// `source`, where that is given.
pub fn add_address(address: Ipv4Addr, source: Option<Ipv4Addr>) {
    let address = address.to_string();
    ip(&["address", "add", &format!("{address}/32"), "dev", "lo"]);
    if let Some(source) = source {
        ip(&["route", "replace", "local", &address, "dev", "lo", "table", "local", "src", &source.to_string()]);
    }
}

fn ip(arguments: &[&str]) {
    assert!(Command::new("ip").args(arguments).status().unwrap().success(), "ip {arguments:?}");
}

/// A packet.
#[derive(Clone, Debug)]
pub struct Packet {
    /// From where.
    pub source: SocketAddrV4,
    /// To where.
    pub target: SocketAddrV4,
    /// Whether it is TCP.
    pub is_tcp: bool,
    /// Where in its TCP stream that begins.
    pub sequence: u32,
    /// What it carries.
    pub payload: Vec<u8>,
    /// All of it, with the headers.
    pub bytes: Vec<u8>,
}

/// All that was on the wire, in its order.
#[derive(Clone, Debug, Default)]
pub struct Captured(pub Vec<Packet>);

impl Captured {
    /// What went over TCP to each place, by who sent it.
    #[must_use]
    pub fn streams(&self) -> BTreeMap<(SocketAddrV4, SocketAddrV4), Vec<u8>> {
        let mut pieces: BTreeMap<_, Vec<(u32, &[u8])>> = BTreeMap::new();
        for packet in self.0.iter().filter(|packet| packet.is_tcp && !packet.payload.is_empty()) {
            let stream = pieces.entry((packet.target, packet.source)).or_default();
            stream.push((packet.sequence, &packet.payload));
        }
        pieces.into_iter().map(|(between, pieces)| (between, joined(pieces))).collect()
    }

    /// What went over TCP to a port, whoever sent it.
    #[must_use]
    pub fn to_port(&self, port: u16) -> Vec<u8> {
        let streams = self.streams();
        streams.iter().filter(|((to, _), _)| to.port() == port).flat_map(|(_, bytes)| bytes.clone()).collect()
    }
}

/// tcpdump, whose packets come over a pipe.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Child,
    /// Reads as they come: who doesn't, has tcpdump drop what doesn't fit.
    packets: JoinHandle<Captured>,
}

impl Capture {
    /// Captures from now on.
    #[must_use]
    pub fn start() -> Self {
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
    #[must_use]
    pub fn end(mut self) -> Captured {
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(END, "127.0.0.1:9").unwrap();
        let captured = self.packets.join().unwrap();
        self.tcpdump.kill().unwrap();
        self.tcpdump.wait().unwrap();
        captured
    }
}

/// A busy machine sends some pieces twice, and captures some before others.
fn joined(mut pieces: Vec<(u32, &[u8])>) -> Vec<u8> {
    // Sequence numbers begin anywhere and wrap around; a stream here is far shorter than half of all numbers.
    let near = pieces.first().map_or(0, |(sequence, _)| *sequence);
    let distance = |sequence: u32| sequence.wrapping_sub(near).cast_signed();
    pieces.sort_by_key(|(sequence, _)| distance(*sequence));
    let begin = pieces.first().map_or(0, |(sequence, _)| *sequence);
    let mut stream = Vec::new();
    for (sequence, piece) in pieces {
        let at = sequence.wrapping_sub(begin) as usize;
        assert!(at <= stream.len(), "a piece was not captured");
        stream.extend_from_slice(piece.get(stream.len() - at..).unwrap_or_default());
    }
    stream
}

fn read(packets: &mut BufReader<ChildStdout>) -> Captured {
    let mut file = [0; 24];
    packets.read_exact(&mut file).unwrap();
    assert_eq!(file[..4], [0xd4, 0xc3, 0xb2, 0xa1], "a capture of this machine");
    let mut captured = Captured::default();
    while let Some(bytes) = next(packets) {
        let packet = parse(bytes);
        if !packet.is_tcp && packet.payload == END {
            return captured;
        }
        captured.0.push(packet);
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

fn parse(bytes: Vec<u8>) -> Packet {
    let ip = &bytes[14..];
    assert_eq!(ip[0] >> 4, 4, "only IPv4 is in use");
    let transport = &ip[usize::from(ip[0] & 15) * 4..usize::from(u16::from_be_bytes([ip[2], ip[3]]))];
    let address = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
    let (ports, header) = match ip[9] {
        TCP => (transport, usize::from(transport[12] >> 4) * 4),
        UDP => (transport, 8),
        // ICMP, say: all of it is what it carries.
        _ => (&[0; 4][..], 0),
    };
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    let source = SocketAddrV4::new(address(12), port(0));
    let target = SocketAddrV4::new(address(16), port(2));
    let is_tcp = ip[9] == TCP;
    let sequence = if is_tcp { u32::from_be_bytes(transport[4..8].try_into().unwrap()) } else { 0 };
    Packet { source, target, is_tcp, sequence, payload: transport[header..].to_vec(), bytes }
}
