//! Scanning many files, whatever happens to the child.

use std::collections::VecDeque;
use std::time::Duration;

use stdx::{Clock as _, SystemClock};

use super::messages::{Answer, FileReport, Item, Note, NoteCode, Request, Scanned};
use super::queue::{Queue, UnderWay};
use super::wire::{Received, WireError};
use super::{Worker, WorkerError};

/// The child stops at a file's time limit by itself; it is ended if it is a quarter later.
fn patience(file_time: Duration) -> Duration {
    file_time.saturating_add(file_time / 4)
}

impl Worker {
    /// Scans all of `items`, several at a time, and gives each one's report to `found`, in any order.
    ///
    /// A child that ends is replaced. The files that it can have ended at are tried again, each
    /// alone; one that ends the child a second time is reported with [`NoteCode::Ended`].
    ///
    /// # Errors
    /// If no new child can be had. What was not reported was not scanned then.
    pub fn scan(
        &mut self,
        items: &mut dyn Iterator<Item = Item>,
        found: &mut dyn FnMut(FileReport),
    ) -> Result<(), WorkerError> {
        let mut session = Session { clock: SystemClock::new(), next: 0, again: VecDeque::new() };
        let mut queue = Queue::new(usize::from(self.limits.threads.get()));
        loop {
            let mut sent = Ok(());
            while sent.is_ok() && queue.len() < self.limits.files_under_way() {
                let Some(item) = session.again.pop_front().or_else(|| items.next()) else { break };
                sent = session.send(self, &mut queue, item);
            }
            if queue.len() == 0 {
                return Ok(());
            }
            let answer = sent.and_then(|()| session.receive(self, &queue));
            match answer.and_then(|scanned| session.settle(&mut queue, scanned)) {
                Ok(report) => found(report),
                Err(error) => {
                    self.running.end(&error);
                    let (working, waiting) = queue.split();
                    session.again.extend(waiting.into_iter().map(|file| file.item));
                    self.restart("scanning")?;
                    for file in working {
                        found(self.scan_alone(&mut session, file)?);
                    }
                    queue = Queue::new(usize::from(self.limits.threads.get()));
                }
            }
        }
    }

    /// Scans one file.
    ///
    /// # Errors
    /// As [`Worker::scan`].
    pub fn scan_one(&mut self, item: Item) -> Result<FileReport, WorkerError> {
        let mut report = None;
        self.scan(&mut std::iter::once(item), &mut |one| report = Some(one))?;
        report.ok_or(WorkerError::Nonsense { during: "scanning" })
    }

    /// A second try: if the child ends now, it was this file.
    fn scan_alone(&mut self, session: &mut Session, file: UnderWay) -> Result<FileReport, WorkerError> {
        let path = file.item.path.clone();
        let mut queue = Queue::new(1);
        let answer = session.send(self, &mut queue, file.item).and_then(|()| session.receive(self, &queue));
        match answer.and_then(|scanned| session.settle(&mut queue, scanned)) {
            Ok(report) => Ok(report),
            Err(error) => {
                let message = format!("the scanner ended twice at this file: {}", self.running.end(&error));
                self.restart("scanning")?;
                let note = Note { inside: Vec::new(), code: NoteCode::Ended, message };
                Ok(FileReport {
                    path,
                    bytes: 0,
                    sha256: None,
                    matches: Vec::new(),
                    listed: Vec::new(),
                    notes: vec![note],
                })
            }
        }
    }
}

/// What one call of [`Worker::scan`] keeps beside the files that the child has.
struct Session {
    clock: SystemClock,
    next: u64,
    /// Files that only waited when a child ended.
    again: VecDeque<Item>,
}

impl Session {
    /// The file is in the queue also if sending fails.
    fn send(&mut self, worker: &Worker, queue: &mut Queue, item: Item) -> Result<(), WireError> {
        let id = self.next;
        self.next += 1;
        let path = item.path.to_string_lossy().into_owned();
        let sent = worker.running.send(&Request::Scan { id, path }, Some(&item.file));
        queue.push(id, item, self.clock.monotonic());
        sent
    }

    fn receive(&self, worker: &Worker, queue: &Queue) -> Result<Scanned, WireError> {
        let now = self.clock.monotonic();
        let until = queue.oldest().unwrap_or(now).saturating_add(patience(worker.limits.file_time));
        // Also while the other threads go on answering.
        let left = until.checked_sub(now).ok_or(WireError::Late)?;
        match worker.running.receive(left)? {
            Received { message: Answer::Scanned(scanned), .. } => Ok(scanned),
            _ => Err(WireError::Malformed),
        }
    }

    fn settle(&self, queue: &mut Queue, scanned: Scanned) -> Result<FileReport, WireError> {
        let file = queue.take(scanned.id, self.clock.monotonic()).ok_or(WireError::Malformed)?;
        let Scanned { bytes, sha256, matches, listed, notes, .. } = scanned;
        Ok(FileReport { path: file.item.path, bytes, sha256, matches, listed, notes })
    }
}
