//! The thread that scans.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use detection::{FileReport, Item, Listed, NoteCode, Worker};
use stdx::{Clock as _, SystemClock};

use super::pending::Due;
use super::walk::{Met, Walk};
use super::{Order, Shared};
use crate::config::Config;
use crate::disk::RealDisk;
use crate::journal::{Entry, Event, Journal};
use crate::share::Body;

/// While nothing is due, there is nothing to wake up for.
const REST: Duration = Duration::from_secs(3600);

/// One file may match many rules; the journal has the first.
const RULES_MAX: usize = 16;

/// What the thread has.
pub(super) struct Scanning {
    folders: Vec<PathBuf>,
    shared: Arc<Shared>,
    journal: Journal,
    clock: SystemClock,
    walk: Walk,
    engine: Option<Worker>,
    set: Option<Vec<u8>>,
    /// The engine has not been told of the set.
    told: bool,
}

impl Scanning {
    pub(super) fn new(config: &Config, folders: Vec<PathBuf>, shared: Arc<Shared>) -> Self {
        let journal = Journal::new(&config.state);
        Self {
            folders,
            shared,
            journal,
            clock: SystemClock::new(),
            walk: Walk::default(),
            engine: None,
            set: None,
            told: true,
        }
    }

    /// Scans for as long as the process lives.
    pub(super) fn run(mut self) {
        loop {
            self.wait();
            if let Some(mut engine) = self.engine.take() {
                let lives = self.tell_set(&mut engine) && self.scan(&mut engine);
                self.engine = lives.then_some(engine);
            }
        }
    }

    /// Waits until there is something to scan, and something to scan it with.
    fn wait(&mut self) {
        let shared = Arc::clone(&self.shared);
        let mut inbox = shared.inbox();
        loop {
            match inbox.order.take() {
                // The engine before ends here.
                Some(Order::Engine(engine)) => (self.engine, self.told) = (Some(*engine), self.set.is_none()),
                Some(Order::Nothing) => self.engine = None,
                None => {}
            }
            if let Some(set) = inbox.set.take() {
                (self.set, self.told) = (set, false);
            }
            let now = self.clock.monotonic();
            let due = inbox.pending.next();
            if self.engine.is_some() && (!self.walk.is_done() || due.is_some_and(|due| due <= now)) {
                return;
            }
            let time = due.filter(|_| self.engine.is_some()).map_or(REST, |due| due.saturating_sub(now));
            inbox = shared.news.wait_timeout(inbox, time).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Gives the engine the set that it is to ask. Whether it lives.
    fn tell_set(&mut self, engine: &mut Worker) -> bool {
        let done = if self.told { Ok(()) } else { engine.know(self.set.as_deref()) };
        self.told = done.is_ok();
        let Err(error) = done else { return true };
        write(&self.journal, &self.clock, Event::Unhealthy, Path::new(""), &format!("the scanner: {error}"));
        self.shared.change(|inbox| {
            inbox.told.crashes += 1;
            inbox.engine_lost = true;
        });
        false
    }

    /// Scans what is there until there is no more of it, or other rules are. Whether the engine lives.
    fn scan(&mut self, engine: &mut Worker) -> bool {
        let process = engine.process();
        let (mut crashes, mut detections) = (0, 0);
        let (shared, journal, clock) = (Arc::clone(&self.shared), self.journal.clone(), self.clock);
        let folders = &self.folders;
        let walk = &mut self.walk;
        let mut items = std::iter::from_fn(|| next(walk, folders, &shared, (&journal, &clock)));
        let scanned = engine.scan(&mut items, &mut |report| {
            detections += u64::from(!report.matches.is_empty());
            // Of what is too long to be read as a whole nobody knows the hash, so that nothing can be shared.
            if let Some(sha256) = report.sha256 {
                let rules = report.matches.iter().map(|one| one.rule.as_str());
                let detections = Body::detections(sha256, report.bytes, rules);
                shared.change(|inbox| detections.into_iter().for_each(|one| inbox.findings.push(one)));
            }
            crashes += report.notes.iter().filter(|note| note.code == NoteCode::Ended).count() as u64;
            tell(&report, &journal, &clock);
        });
        let lives = match scanned {
            Ok(()) => {
                // It ended at a file once, and not when that was tried again.
                crashes = crashes.max(u64::from(engine.process() != process));
                true
            }
            Err(error) => {
                crashes += 1;
                write(&journal, &clock, Event::Unhealthy, Path::new(""), &format!("the scanner: {error}"));
                false
            }
        };
        let now = clock.monotonic();
        shared.change(|inbox| {
            inbox.told.crashes += crashes;
            inbox.told.detections += detections;
            if !lives {
                // Which files it had, nobody knows.
                inbox.engine_lost = true;
                inbox.pending.missed(now);
            }
        });
        lives
    }
}

/// The next file: of those that came to rest meanwhile, or else of the walk. None if there is no more,
/// or there are other rules to go on with.
fn next(walk: &mut Walk, folders: &[PathBuf], shared: &Shared, to: (&Journal, &SystemClock)) -> Option<Item> {
    loop {
        let mut inbox = shared.inbox();
        if inbox.order.is_some() || inbox.set.is_some() {
            return None;
        }
        let due = inbox.pending.take(to.1.monotonic());
        drop(inbox);
        match due {
            Due::Nothing => {}
            Due::Paths(paths) => walk.first(paths),
            Due::Everything(dropped) => {
                if dropped > 0 {
                    let detail = format!("{dropped} changes were too many to follow: all folders are scanned");
                    write(to.0, to.1, Event::Rescan, Path::new(""), &detail);
                }
                *walk = Walk::default();
                walk.first(folders.iter().cloned());
            }
        }
        match walk.next()? {
            Met::File(item) => return Some(item),
            Met::Unreadable(path, error) => {
                write(to.0, to.1, Event::NotScanned, &path, &format!("unreadable: {error}"));
            }
        }
    }
}

/// Says what is to be said of a file.
fn tell(report: &FileReport, journal: &Journal, clock: &SystemClock) {
    if !report.matches.is_empty() {
        let inside = |one: &detection::Match| match one.inside.join(" > ") {
            place if place.is_empty() => one.rule.clone(),
            place => format!("{} in {place}", one.rule),
        };
        let rules: Vec<_> = report.matches.iter().take(RULES_MAX).map(inside).collect();
        write(journal, clock, Event::Found, &report.path, &rules.join(", "));
    }
    if !report.listed.is_empty() {
        let content = |one: &Listed| match one.inside.join(" > ") {
            place if place.is_empty() => one.sha256.to_string(),
            place => format!("{} in {place}", one.sha256),
        };
        let contents: Vec<_> = report.listed.iter().take(RULES_MAX).map(content).collect();
        write(journal, clock, Event::Listed, &report.path, &contents.join(", "));
    }
    for note in &report.notes {
        let detail = format!("{}: {}", note.code.as_str(), note.message);
        write(journal, clock, Event::NotScanned, &report.path, &detail);
    }
}

/// To the journal, and to whoever reads what this process says. A full disk must not end the guard.
fn write(journal: &Journal, clock: &SystemClock, event: Event, path: &Path, detail: &str) {
    let object = path.to_string_lossy();
    let line = serde_json::json!({"event": event, "object": object, "detail": detail});
    eprintln!("{line}");
    if let Err(failure) = journal.write(&RealDisk, clock.now(), Entry { event, object: &object, detail }) {
        eprintln!("error: {failure}\nhint: {}", failure.hint);
    }
}
