//! Folders under guard: what changes in them is scanned, with the rules in use, by one confined child.

mod folders;
mod pending;
mod scan;
mod walk;

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use attest::StatementId;
use detection::Worker;
use notify::RecommendedWatcher;
use stdx::{Clock as _, Digest, SystemClock};

use crate::config::Config;
use crate::endpoint::{Endpoint, Ports};
use crate::failure::Failure;
use crate::lookup::set_in_use;
use crate::rules;
use crate::share::Body;
use crate::slots::Installed;

use folders::watch;
use pending::Pending;
use scan::Scanning;

/// What happened since it was asked last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// How often the engine ended without being told to.
    pub crashes: u64,
    /// In how many files something was found.
    pub detections: u64,
}

impl Told {
    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        let crashes = self.crashes.saturating_add(other.crashes);
        Self { crashes, detections: self.detections.saturating_add(other.detections) }
    }
}

/// What the thread that scans is to do besides.
enum Order {
    /// Go on with this engine; the one before ends.
    Engine(Box<Worker>),
    /// There are no rules that may be used.
    Nothing,
}

/// What was found and is still to be handed on, some 1 MB: as many as wait at most.
const FINDINGS_MAX: usize = 4096;

/// What rules found, for whoever shares it where the owner agreed.
#[derive(Debug, Default)]
pub struct Findings {
    /// Detections, oldest first. What is taken away was handed on; what stays is tried again.
    pub detections: VecDeque<Body>,
    /// How many were too many to be kept until somebody came for them.
    pub dropped: u64,
}

impl Findings {
    /// Adds one; of too many the oldest goes.
    pub fn push(&mut self, detection: Body) {
        if self.detections.len() == FINDINGS_MAX {
            self.detections.pop_front();
            self.dropped += 1;
        }
        self.detections.push_back(detection);
    }

    fn is_empty(&self) -> bool {
        self.detections.is_empty() && self.dropped == 0
    }
}

/// What the threads have in common.
#[derive(Default)]
struct Inbox {
    pending: Pending,
    order: Option<Order>,
    /// Another set of known-bad files than before, or none any more.
    set: Option<Option<Vec<u8>>>,
    told: Told,
    findings: Findings,
    /// The engine could not be had again after its end.
    engine_lost: bool,
}

#[derive(Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    news: Condvar,
}

impl Shared {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        // Each change of the inbox is one assignment: what a thread that panicked left is whole.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Inbox)) {
        change(&mut self.inbox());
        self.news.notify_all();
    }
}

/// The guard: watched folders, and a thread that scans.
pub struct Guard {
    shared: Arc<Shared>,
    clock: SystemClock,
    /// What the engine was made of.
    using: Option<(StatementId, Digest)>,
    /// The set of known-bad files that it asks besides.
    knows: Option<Digest>,
    /// Dropping it ends the watching.
    _watcher: RecommendedWatcher,
}

impl Guard {
    /// Begins to watch the configuration's folders; without any, there is no guard. All that is there
    /// already is scanned once there are rules: it may have changed while nobody looked.
    ///
    /// # Errors
    /// [`Failure`] if a folder can't be watched.
    pub fn start(config: &Config) -> Result<Option<Self>, Failure> {
        let Some(scan) = config.scan.as_ref().filter(|scan| !scan.folders.is_empty()) else { return Ok(None) };
        let shared = Arc::new(Shared::default());
        let clock = SystemClock::new();
        let watcher = watch(&scan.folders, &shared)?;
        shared.change(|inbox| inbox.pending.everything(clock.monotonic()));
        let scanning = Scanning::new(config, scan.folders.clone(), Arc::clone(&shared));
        thread::Builder::new()
            .name("scan".to_owned())
            .spawn(move || scanning.run())
            .map_err(|error| Failure::unavailable(format!("no thread to scan with: {error}")))?;
        Ok(Some(Self { shared, clock, using: None, knows: None, _watcher: watcher }))
    }

    /// Goes over to the rules that are in use now, if they are others than before. The child that has
    /// tested them goes on with them; the one before ends when this one takes its place.
    ///
    /// # Errors
    /// [`Failure`] if the rules can't be read or compiled: there is no engine then; or if the set can't be read: then
    /// there is none.
    pub fn adopt(&mut self, config: &Config, ports: Ports<'_>) -> Result<(), Failure> {
        let endpoint = Endpoint::read(config, ports)?;
        // Each by itself: without the set files are still scanned, and without rules nothing is.
        // The set first: what rules are looked for in is not looked at again for it.
        let set = self.adopt_set(&endpoint);
        self.adopt_rules(config, ports, &endpoint).and(set)
    }

    fn adopt_rules(&mut self, config: &Config, ports: Ports<'_>, endpoint: &Endpoint<'_>) -> Result<(), Failure> {
        let product = config.scanned().map(|product| (product, endpoint.slots(product)));
        let slots = product.map(|(_, slots)| slots).transpose()?;
        let active = slots.as_ref().and_then(|slots| Some((slots, slots.record.active.as_ref()?)));
        let wanted = active.and_then(|(_, active)| Some((active.release, rules_of(active)?)));
        let lost = std::mem::take(&mut self.shared.inbox().engine_lost);
        if wanted == self.using && !lost {
            return Ok(());
        }
        let engine = match (active, wanted) {
            (Some((slots, _)), Some((_, digest))) => match ports.rules.take(&digest) {
                Some(engine) => Ok(Order::Engine(Box::new(engine))),
                None => read_rules(&slots.current(), &digest)
                    .and_then(|rules| ports.rules.compile(&rules))
                    .map(|engine| Order::Engine(Box::new(engine))),
            },
            _ => Ok(Order::Nothing),
        };
        let (order, done) = match engine {
            Ok(order) => (order, Ok(())),
            Err(failure) => (Order::Nothing, Err(failure)),
        };
        self.using = if done.is_ok() { wanted } else { None };
        self.shared.change(|inbox| inbox.order = Some(order));
        done
    }

    /// Goes over to the set of known-bad files that is in use now. Nothing is scanned anew for it: what is known of
    /// a file that was there before is what `lookup` says.
    fn adopt_set(&mut self, endpoint: &Endpoint<'_>) -> Result<(), Failure> {
        let wanted = endpoint.set()?.map(|(_, digest)| digest);
        if wanted == self.knows {
            return Ok(());
        }
        // One that is damaged is as good as none, until it was mended.
        self.knows = None;
        let found = set_in_use(endpoint);
        let set = found.as_ref().ok().and_then(Option::as_ref).map(|(_, bytes)| bytes.clone());
        self.shared.change(|inbox| inbox.set = Some(set));
        found?;
        self.knows = wanted;
        Ok(())
    }

    /// Waits for as long, or until the engine has ended; tells what happened meanwhile. What rules find
    /// is given to `hand_on` as it comes; what that leaves is offered again by the next call.
    pub fn wait(&self, time: Duration, hand_on: &mut dyn FnMut(&mut Findings)) -> Told {
        let until = self.clock.monotonic().saturating_add(time);
        let mut kept = Findings::default();
        let mut inbox = self.shared.inbox();
        loop {
            if kept.is_empty() && !inbox.findings.is_empty() {
                kept = std::mem::take(&mut inbox.findings);
                drop(inbox);
                hand_on(&mut kept);
                inbox = self.shared.inbox();
                continue;
            }
            let left = until.saturating_sub(self.clock.monotonic());
            if left.is_zero() || inbox.told.crashes > 0 || inbox.engine_lost {
                // Those that could not be handed on are older than all that came since.
                for newer in std::mem::take(&mut inbox.findings.detections) {
                    kept.push(newer);
                }
                kept.dropped += inbox.findings.dropped;
                inbox.findings = kept;
                return std::mem::take(&mut inbox.told);
            }
            inbox = self.shared.news.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The content of a release's rules.
pub(crate) fn rules_of(active: &Installed) -> Option<Digest> {
    active.files.iter().find(|file| file.name == detection::BUNDLE_FILE).map(|file| file.sha256)
}

fn read_rules(folder: &std::path::Path, expected: &Digest) -> Result<Vec<u8>, Failure> {
    const HINT: &str = "nothing by hand: the next look at the channel mends it";
    let rules = rules::read(folder)?;
    let found = Digest::of(&rules);
    if found == *expected {
        return Ok(rules);
    }
    let message = format!("{}: the rules' SHA-256 is {found}, installed was {expected}", folder.display());
    Err(Failure::rejected("altered", message, HINT))
}
