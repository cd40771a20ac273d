//! Endpoints that go on whatever happens: each brings its next batch to one machine after the other, until one has
//! signed a receipt for it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use attest::{DataClass, Envelope, Receipt};
use policy::Role;
use seal::{BatchId, Destination, Header};
use stdx::{Clock as _, Digest, SystemClock, SystemEntropy};
use testkit::{APPROVED_CLASS, OPEN_CLASS};
use verify::TrustedPolicy;

use crate::system::System;

/// Endpoints that send at once.
pub(super) const SENDERS: usize = 4;
/// An endpoint rests between two batches, and before it tries again.
const REST: Duration = Duration::from_millis(10);
/// Who is silent for so long is left alone.
const PATIENCE: Duration = Duration::from_secs(15);

/// So many batches at first, and with each reading, are of the class that is read: an object takes 25 to 45 ms of a reading
/// (dev profile, two cores that do all else, too), and a reading has a minute.
const READ: usize = 5;

/// Sizes of a batch's events: their sum says whether each is there once.
pub(super) const SIZES: [u64; 3] = [1, 2, 4];

/// A batch that was sent.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) id: BatchId,
    pub(super) acknowledged: bool,
}

pub(super) struct Load {
    policy: TrustedPolicy,
    destinations: [Destination; 2],
    /// Codes that `docs/errors.md` lists.
    codes: BTreeSet<String>,
    batches: Mutex<BTreeMap<usize, Batch>>,
    more: Condvar,
    acknowledged: AtomicUsize,
    readings: AtomicUsize,
    to_read: AtomicUsize,
    next: AtomicUsize,
    over: AtomicBool,
    asked: Mutex<Vec<SocketAddr>>,
}

impl Load {
    pub(super) fn new(system: &System, machines: &[SocketAddr]) -> Self {
        let policy = system.policy();
        let residency = policy.policy().residency.as_ref().unwrap();
        let to = |country: &str| {
            let now = SystemClock::new().now();
            Destination::new(residency, policy.id(), country.parse().unwrap(), now).unwrap()
        };
        let destinations = ["DE", "JP"].map(to);
        Self {
            destinations,
            policy,
            codes: codes(),
            batches: Mutex::default(),
            more: Condvar::new(),
            acknowledged: AtomicUsize::new(0),
            readings: AtomicUsize::new(0),
            to_read: AtomicUsize::new(READ),
            next: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            asked: Mutex::new(machines.to_vec()),
        }
    }

    pub(super) fn batches(&self) -> MutexGuard<'_, BTreeMap<usize, Batch>> {
        self.batches.lock().unwrap()
    }

    /// Asks these from now on, as a balancer does that finds the others silent.
    pub(super) fn ask(&self, machines: &[SocketAddr]) {
        machines.clone_into(&mut self.asked.lock().unwrap());
    }

    pub(super) fn stop(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// How many receipts there are.
    pub(super) fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// How many readings were right.
    pub(super) fn readings(&self) -> usize {
        self.readings.load(Ordering::SeqCst)
    }

    /// One more was.
    pub(super) fn has_read(&self) {
        self.readings.fetch_add(1, Ordering::SeqCst);
        self.to_read.fetch_add(READ, Ordering::SeqCst);
        self.more.notify_all();
    }

    /// Waits for so many further receipts, or for so long.
    pub(super) fn wait_for(&self, count: usize, time: Duration) {
        let wanted = self.acknowledged() + count;
        self.wait_until(time, |load| load.acknowledged() >= wanted);
    }

    /// Waits until it comes to that, or for so long.
    pub(super) fn wait_until(&self, time: Duration, holds: impl Fn(&Self) -> bool) -> bool {
        let not = |_: &mut BTreeMap<usize, Batch>| !holds(self);
        let (_batches, waited) = self.more.wait_timeout_while(self.batches(), time, not).unwrap();
        !waited.timed_out()
    }

    /// One endpoint after the other, until it is over.
    pub(super) fn send(&self, first: usize) {
        let mut turn = first;
        while !self.is_over() {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let object = self.sealed(number);
            while !self.is_taken(self.machine(turn), &object) {
                if self.is_over() {
                    return;
                }
                turn += 1;
                std::thread::park_timeout(REST);
            }
            self.batches().get_mut(&number).unwrap().acknowledged = true;
            self.acknowledged.fetch_add(1, Ordering::SeqCst);
            self.more.notify_all();
            turn += 1;
            // As an endpoint does whose first answer was lost.
            if number.is_multiple_of(4) {
                self.is_taken(self.machine(turn), &object);
            }
            std::thread::park_timeout(REST);
        }
    }

    fn machine(&self, turn: usize) -> SocketAddr {
        let asked = self.asked.lock().unwrap();
        asked[turn % asked.len()]
    }

    /// A batch under its number, which its events are called after.
    fn sealed(&self, number: usize) -> Vec<u8> {
        let is_read = self.to_read.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        let class = if is_read { APPROVED_CLASS } else { OPEN_CLASS };
        let event = |size: &u64| {
            let id = Digest::of(format!("{number} {size}").as_bytes()).to_string();
            format!(
                "{{\"id\":\"{}\",\"hour\":\"2026-11-22T14:00:00Z\",\"body\":{{\"detection\":{{\"rule\":\
                 \"{}\",\"sha256\":\"{id}\",\"size\":{size}}}}}}}\n",
                &id[..32],
                rule(number)
            )
        };
        let lines: String = SIZES.iter().map(event).collect();
        let class: DataClass = class.parse().unwrap();
        let to = &self.destinations[number % 2];
        let object = to.seal(&class, lines.as_bytes(), &SystemEntropy).unwrap();
        let id = Header::parse(&object).unwrap().0.bound.id;
        self.batches().insert(number, Batch { id, acknowledged: false });
        object
    }

    /// Whether a receipt came. "Later" may be said, and nothing else.
    fn is_taken(&self, machine: SocketAddr, object: &[u8]) -> bool {
        let Some((status, body)) = post(machine, object) else { return false };
        if status != 200 {
            let said: api::ErrorBody = serde_json::from_slice(&body).unwrap();
            assert!(status == 503 && self.codes.contains(&said.code), "{status} {said:?}");
            return false;
        }
        let envelope = Envelope::parse(&body).unwrap();
        let receipt = self.policy.verify::<Receipt>(&envelope, Role::Recorder).unwrap();
        assert_eq!(receipt.statement().subject[0].sha256(), Digest::of(object));
        true
    }

    /// Whether `docs/errors.md` lists this code.
    pub(super) fn knows(&self, code: &str) -> bool {
        self.codes.contains(code)
    }
}

/// What the events of a batch are called.
pub(super) fn rule(number: usize) -> String {
    format!("batch_{number:06}")
}

/// Its number.
pub(super) fn number(rule: &str) -> Option<usize> {
    rule.strip_prefix("batch_")?.parse().ok()
}

/// Every code that stands in a table.
fn codes() -> BTreeSet<String> {
    let lines = include_str!("../../../../../../docs/errors.md").lines();
    let cells = lines.flat_map(|line| line.split('|').map(str::trim).take(3));
    cells.filter_map(|cell| cell.strip_prefix('`')?.strip_suffix('`')).map(str::to_owned).collect()
}

/// Status and body, if whoever listens there lives to give them.
fn post(machine: SocketAddr, object: &[u8]) -> Option<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&machine, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = "POST /v1/events HTTP/1.1\r\nHost: test\r\nConnection: close\r\n";
    let head = format!("{head}Content-Length: {}\r\n\r\n", object.len());
    stream.write_all(&[head.as_bytes(), object].concat()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let split = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let status = String::from_utf8_lossy(&answer[..split]).split(' ').nth(1)?.parse().ok()?;
    Some((status, answer[split + 4..].to_vec()))
}
