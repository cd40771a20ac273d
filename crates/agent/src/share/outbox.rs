//! Events that wait: one durable file each, so that adding one is one step and so is its end.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Class, EventId, ShareEvent};
use crate::disk::Disk;
use crate::failure::Failure;

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Events.
    pub events: usize,
    /// Bytes of them.
    pub bytes: u64,
}

impl Default for Bounds {
    /// Weeks of a machine that is never reached, and a few files that its owner gave.
    fn default() -> Self {
        Self { events: 4096, bytes: 64 << 20 }
    }
}

/// An event that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    sequence: u64,
    pub(super) class: Class,
    pub(super) id: EventId,
    bytes: u64,
}

impl Waiting {
    /// `SEQUENCE-CLASS-ID.json`: what must be known of an event without reading it.
    fn name(&self) -> String {
        format!("{:016}-{}-{}.json", self.sequence, self.class, self.id)
    }

    fn parse(name: &str, bytes: u64) -> Option<Self> {
        let mut parts = name.strip_suffix(".json")?.split('-');
        let (sequence, class, id) = (parts.next()?, parts.next()?, parts.next()?);
        let class = serde_json::from_value(class.into()).ok()?;
        let id = serde_json::from_value(id.into()).ok()?;
        let waiting = Self { sequence: sequence.parse().ok()?, class, id, bytes };
        (waiting.name() == name).then_some(waiting)
    }
}

/// The events that wait, oldest first.
pub(super) struct Outbox {
    folder: PathBuf,
    waiting: Vec<Waiting>,
    bounds: Bounds,
}

impl Outbox {
    /// Reads which events wait.
    pub(super) fn open(share: &Path, bounds: Bounds) -> Result<Self, Failure> {
        let folder = share.join("outbox");
        let mut waiting = Vec::new();
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { folder, waiting, bounds });
            }
            other => other.map_err(|error| Failure::file(&folder, &error))?,
        };
        for entry in entries {
            let path = entry.map_err(|error| Failure::file(&folder, &error))?.path();
            if stdx::durable::is_temporary(&path) {
                continue;
            }
            let bytes = fs::metadata(&path).map_err(|error| Failure::file(&path, &error))?.len();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            waiting.push(Waiting::parse(&name, bytes).ok_or_else(|| Failure::state(&path, "no event's name"))?);
        }
        waiting.sort_unstable_by_key(|it| it.sequence);
        Ok(Self { folder, waiting, bounds })
    }

    pub(super) fn waiting(&self) -> &[Waiting] {
        &self.waiting
    }

    pub(super) fn path(&self, waiting: &Waiting) -> PathBuf {
        self.folder.join(waiting.name())
    }

    /// The event's line, as it was added.
    pub(super) fn line(&self, waiting: &Waiting) -> Result<String, Failure> {
        let path = self.path(waiting);
        let line = fs::read_to_string(&path).map_err(|error| Failure::file(&path, &error))?;
        let event: ShareEvent = serde_json::from_str(&line).map_err(|error| Failure::state(&path, error))?;
        if event.line() == line && event.id == waiting.id && event.body.class() == waiting.class {
            Ok(line)
        } else {
            Err(Failure::state(&path, "another event than its name says"))
        }
    }

    /// What must go so that `bytes` more of `class` fit: statistics first, then verdicts, then what
    /// rules found, of each the oldest; files that the owner gave never. `None` if they never fit.
    pub(super) fn to_drop(&self, class: Class, bytes: u64) -> Option<Vec<Waiting>> {
        const ORDER: [Class; 3] = [Class::Statistics, Class::Verdicts, Class::Detections];
        let rank = |class: Class| ORDER.iter().position(|it| *it == class).unwrap_or(ORDER.len());
        let mut events = self.waiting.len() + 1;
        let mut total = self.waiting.iter().map(|it| it.bytes).sum::<u64>().saturating_add(bytes);
        let mut candidates: Vec<&Waiting> =
            self.waiting.iter().filter(|it| it.class != Class::Content && rank(it.class) <= rank(class)).collect();
        candidates.sort_by_key(|it| (rank(it.class), it.sequence));
        let mut dropped = Vec::new();
        let mut candidates = candidates.into_iter();
        while events > self.bounds.events || total > self.bounds.bytes {
            let next = candidates.next()?;
            events -= 1;
            total -= next.bytes;
            dropped.push(next.clone());
        }
        Some(dropped)
    }

    /// Adds an event behind all others.
    pub(super) fn add(&mut self, disk: &dyn Disk, event: &ShareEvent) -> Result<(), Failure> {
        let last = self.waiting.last().map_or(0, |it| it.sequence);
        let line = event.line();
        let waiting = Waiting {
            sequence: last.saturating_add(1),
            class: event.body.class(),
            id: event.id.clone(),
            bytes: line.len() as u64,
        };
        let path = self.path(&waiting);
        if let Err(error) = disk.write_private(&path, line.as_bytes()) {
            // It may stand there all the same. Whoever tries again would have it there twice; the first
            // error is the one to report.
            let _ = disk.remove(&path);
            return Err(Failure::file(&path, &error));
        }
        self.waiting.push(waiting);
        Ok(())
    }

    pub(super) fn remove(&mut self, disk: &dyn Disk, id: &EventId) -> Result<(), Failure> {
        while let Some(at) = self.waiting.iter().position(|it| it.id == *id) {
            let waiting = self.waiting.remove(at);
            let path = self.path(&waiting);
            disk.remove(&path).map_err(|error| Failure::file(&path, &error))?;
        }
        Ok(())
    }
}
