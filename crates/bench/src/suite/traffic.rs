//! Counts what goes over the wire: heads and bodies, both ways.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What a request is for, by what stands in its first line; the last takes all others.
const KINDS: [&str; 4] = ["/patches/", "-rules.yar", "/tile/", ""];

/// Passes connections on to a server and counts the bytes.
pub(super) struct Relay {
    address: String,
    bytes: Arc<Counters>,
}

type Counters = [AtomicU64; KINDS.len()];

/// Bytes since the last look.
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
}

impl Traffic {
    pub(super) const fn all(self) -> u64 {
        self.patches + self.whole + self.tiles + self.rest
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
                let kind = Arc::new(AtomicUsize::new(KINDS.len() - 1));
                for (from, to, side) in [(&client, &server, Side::Client), (&server, &client, Side::Server)] {
                    let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { continue };
                    let (counted, kind) = (Arc::clone(&counted), Arc::clone(&kind));
                    std::thread::spawn(move || pass(from, to, side, &kind, &counted));
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
        let [patches, whole, tiles, rest] = self.bytes.each_ref().map(|bytes| bytes.swap(0, Ordering::SeqCst));
        Traffic { patches, whole, tiles, rest }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

/// Until either side is gone; that is how connections end. A client asks, waits for the answer, and asks again.
fn pass(mut from: TcpStream, mut to: TcpStream, side: Side, kind: &AtomicUsize, counted: &Counters) {
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let bytes = buffer.get(..count).unwrap_or_default();
        if side == Side::Client {
            let head = String::from_utf8_lossy(bytes);
            let line = head.lines().next().unwrap_or_default();
            let found = KINDS.iter().position(|part| line.contains(part)).unwrap_or_default();
            kind.store(found, Ordering::SeqCst);
        }
        if let Some(counter) = counted.get(kind.load(Ordering::SeqCst)) {
            counter.fetch_add(count as u64, Ordering::SeqCst);
        }
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    // The other side learns that no more comes; if it is gone, there is nobody to tell.
    let _ = to.shutdown(Shutdown::Write);
}
