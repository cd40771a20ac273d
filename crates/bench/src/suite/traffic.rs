//! Counts what goes over the wire, both ways.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// What a request is for, by what stands in its first line; the last takes all others.
const KINDS: [&str; 4] = ["/patches/", "-rules.yar", "/tile/", ""];
/// Where heads are counted: behind the kinds.
const HEADS: usize = KINDS.len();
const HEAD_END: &[u8] = b"\r\n\r\n";

/// Passes connections on to a server and counts the bytes.
pub(super) struct Relay {
    address: String,
    bytes: Arc<Counters>,
}

type Counters = [AtomicU64; KINDS.len() + 1];

/// What a connection is about: the kind of its last request, and whether its answer has begun.
#[derive(Default)]
struct Talk {
    kind: AtomicUsize,
    begun: AtomicBool,
}

/// Bytes since the last look: of bodies, and of heads.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    /// For patches.
    pub(super) patches: u64,
    /// For whole bundles of rules.
    pub(super) whole: u64,
    /// For tiles of logs.
    pub(super) tiles: u64,
    /// For everything else.
    pub(super) rest: u64,
    /// Requests, and heads of answers.
    pub(super) heads: u64,
}

impl Traffic {
    pub(super) const fn all(self) -> u64 {
        self.patches + self.whole + self.tiles + self.rest + self.heads
    }
}

impl Relay {
    pub(super) fn before(server: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let bytes = Arc::new(Counters::default());
        let (counted, server) = (Arc::clone(&bytes), server.to_owned());
        // It ends with the process.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&server) else { continue };
                let talk = Arc::new(Talk::default());
                for (from, to, side) in [(&client, &server, Side::Client), (&server, &client, Side::Server)] {
                    let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { continue };
                    let (counted, talk) = (Arc::clone(&counted), Arc::clone(&talk));
                    std::thread::spawn(move || pass(from, to, side, &talk, &counted));
                }
            }
        });
        Ok(Self { address, bytes })
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The bytes since the last call.
    pub(super) fn take(&self) -> Traffic {
        let [patches, whole, tiles, rest, heads] = self.bytes.each_ref().map(|bytes| bytes.swap(0, Ordering::SeqCst));
        Traffic { patches, whole, tiles, rest, heads }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

/// Until either side is gone; that is how connections end. A client asks, without a body, waits for the answer, and
/// asks again; a server sends the head of an answer at once.
fn pass(mut from: TcpStream, mut to: TcpStream, side: Side, talk: &Talk, counted: &Counters) {
    let count = |place: usize, bytes: usize| {
        if let Some(counter) = counted.get(place) {
            counter.fetch_add(bytes as u64, Ordering::SeqCst);
        }
    };
    let mut buffer = [0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let bytes = buffer.get(..read).unwrap_or_default();
        match side {
            Side::Client => {
                let head = String::from_utf8_lossy(bytes);
                let line = head.lines().next().unwrap_or_default();
                let kind = KINDS.iter().position(|part| line.contains(part)).unwrap_or_default();
                talk.kind.store(kind, Ordering::SeqCst);
                talk.begun.store(false, Ordering::SeqCst);
                count(HEADS, read);
            }
            Side::Server => {
                let begun = talk.begun.swap(true, Ordering::SeqCst);
                let end = bytes.windows(HEAD_END.len()).position(|at| at == HEAD_END);
                let head = end.filter(|_| !begun).map_or(0, |end| end + HEAD_END.len());
                count(HEADS, head);
                count(talk.kind.load(Ordering::SeqCst), read - head);
            }
        }
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    // The other side learns that no more comes; if it is gone, there is nobody to tell.
    let _ = to.shutdown(Shutdown::Write);
}
