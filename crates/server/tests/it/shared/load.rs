//! Writers that go on whatever happens: each keeps a stream, sends its next entry to one front end
//! after the other until one acknowledges it, and only then goes on to the one after it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use api::Appended;
use attest::Envelope;
use stdx::{Clock as _, SystemClock};
use tlog::SignerKey;

use crate::process::Server;
use crate::shared::vendor::Vendor;
use crate::statement::{Place, heartbeat};

/// One for each writer.
pub(crate) const STREAMS: [&str; 4] = ["load/a", "load/b", "load/c", "load/d"];

/// A front end that is asleep holds a connection for ever; its writer goes to the next one.
const PATIENCE: Duration = Duration::from_secs(15);

/// What was acknowledged.
#[derive(Default)]
pub(crate) struct Receipts {
    /// Statement id and index.
    pub(crate) places: Vec<(String, u64)>,
    /// The longest time from the first try of an append to its receipt.
    pub(crate) longest: Duration,
    /// The last entry of each stream.
    ends: Vec<(&'static str, Place)>,
}

pub(crate) struct Load {
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<(&'static str, Place)>>,
}

#[derive(Default)]
struct Shared {
    receipts: Mutex<Receipts>,
    more: Condvar,
    stop: AtomicBool,
    /// The front ends that are asked.
    asked: Mutex<Vec<SocketAddr>>,
}

impl Load {
    pub(crate) fn start(vendor: &Vendor) -> Self {
        let ends = STREAMS.map(|stream| (stream, Place { stream, ..Place::vendor() })).to_vec();
        Self::go_on(vendor, Receipts { ends, ..Receipts::default() })
    }

    /// Writes on behind what was written before; the waits are counted anew.
    pub(crate) fn go_on(vendor: &Vendor, mut receipts: Receipts) -> Self {
        let ends = std::mem::take(&mut receipts.ends);
        receipts.longest = Duration::ZERO;
        let asked = vendor.fronts.iter().filter(|front| front.runs()).map(Server::address).collect();
        let shared = Arc::new(Shared { receipts: Mutex::new(receipts), asked: Mutex::new(asked), ..Shared::default() });
        let writer = |(number, (stream, place))| {
            let shared = Arc::clone(&shared);
            let key = vendor.system.key("vendor", "recorder");
            std::thread::spawn(move || (stream, write(&shared, number, place, &key)))
        };
        let writers = ends.into_iter().enumerate().map(writer).collect();
        Self { shared, writers }
    }

    /// Asks this front end no more, as a balancer does that finds it silent. Its socket is the test's,
    /// so that nothing else would tell that nobody answers there.
    pub(crate) fn leave_out(&self, front: &Server) {
        self.shared.asked.lock().unwrap().retain(|address| *address != front.address());
    }

    /// Asks it again.
    pub(crate) fn take_in(&self, front: &Server) {
        self.shared.asked.lock().unwrap().push(front.address());
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.shared.receipts.lock().unwrap().places.len()
    }

    /// Waits until so many entries are acknowledged.
    pub(crate) fn until(&self, entries: usize) {
        let mut receipts = self.shared.receipts.lock().unwrap();
        while receipts.places.len() < entries {
            let (next, waited) = self.shared.more.wait_timeout(receipts, Duration::from_secs(120)).unwrap();
            assert!(!waited.timed_out(), "nothing is acknowledged any more, after {}", next.places.len());
            receipts = next;
        }
    }

    pub(crate) fn stop(self) -> Receipts {
        self.shared.stop.store(true, Ordering::SeqCst);
        let ends = self.writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        Receipts { ends, ..std::mem::take(&mut *self.shared.receipts.lock().unwrap()) }
    }
}

fn write(shared: &Shared, first: usize, mut place: Place, key: &SignerKey) -> Place {
    let (clock, mut turn) = (SystemClock::new(), first);
    while !shared.stop.load(Ordering::SeqCst) {
        let envelope = heartbeat(&place, key);
        let begun = clock.monotonic();
        let index = loop {
            turn += 1;
            let address = {
                let asked = shared.asked.lock().unwrap();
                asked[turn % asked.len()]
            };
            if let Some(index) = append(address, &envelope) {
                break index;
            }
        };
        let waited = clock.monotonic() - begun;
        let mut receipts = shared.receipts.lock().unwrap();
        receipts.places.push((envelope.id().to_string(), index));
        receipts.longest = receipts.longest.max(waited);
        shared.more.notify_all();
        drop(receipts);
        place = place.after(&envelope);
    }
    place
}

/// The entry's index, or nothing if it should be sent again, to anyone.
fn append(address: SocketAddr, envelope: &Envelope) -> Option<u64> {
    let body = envelope.to_bytes();
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "POST /v1/entries HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), &body].concat()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let split = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, body) = (String::from_utf8_lossy(&answer[..split]).into_owned(), &answer[split + 4..]);
    if head.starts_with("HTTP/1.1 200") {
        let appended: Appended = serde_json::from_slice(body).ok()?;
        return Some(appended.index.get());
    }
    // Nothing but "try again" is an answer to an entry that is right.
    assert!(head.starts_with("HTTP/1.1 503"), "{head}\n{}", String::from_utf8_lossy(body));
    None
}
