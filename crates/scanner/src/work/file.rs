//! One file, from its descriptor to the answer.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use detection::{Limits, Listed, Note, NoteCode, Scanned};
use reputation::ReputationSet;
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, pread};
use stdx::Digest;

use crate::content::{Content, Deadline};
use crate::engine::Engine;
use crate::unpack::{Visitor, unpack};

/// Most files are smaller, and then are read at once.
const FIRST_READ: usize = 256 << 10;

/// What a thread keeps for the next file.
const KEPT_BYTES: usize = 16 << 20;

/// A file to be scanned.
pub(super) struct FileJob {
    pub(super) id: u64,
    pub(super) path: String,
    pub(super) file: OwnedFd,
}

impl FileJob {
    pub(super) fn scan(self, with: With, limits: &Limits, buffer: &mut Vec<u8>) -> Scanned {
        let (matches, listed, notes) = (Vec::new(), Vec::new(), Vec::new());
        let mut scanned = Scanned { id: self.id, bytes: 0, sha256: None, matches, listed, notes };
        let Some(engine) = with.engine else {
            scanned.notes.push(note(NoteCode::Engine, "no rules are loaded"));
            return scanned;
        };
        // What was found before a flaw of the engine or of a parser shows counts.
        let done = catch_unwind(AssertUnwindSafe(|| {
            self.read_and_ask(engine, with.set.as_deref(), limits, buffer, &mut scanned);
        }));
        if let Err(panic) = done {
            scanned.notes.push(note(NoteCode::Engine, &format!("a flaw of the scanner: {}", words(panic.as_ref()))));
        }
        if buffer.capacity() > KEPT_BYTES {
            *buffer = Vec::new();
        }
        scanned
    }

    fn read_and_ask(
        &self,
        mut engine: Engine,
        set: Option<&ReputationSet>,
        limits: &Limits,
        buffer: &mut Vec<u8>,
        scanned: &mut Scanned,
    ) {
        let deadline = Deadline::after(limits.file_time);
        let whole = match read(&self.file, limits.file_bytes, buffer) {
            Ok(Read::Whole) => true,
            Ok(Read::Beginning) => {
                let message = format!("longer than {} bytes; the rest was not looked at", limits.file_bytes);
                scanned.notes.push(note(NoteCode::TooLarge, &message));
                false
            }
            Err(error) => return scanned.notes.push(note(NoteCode::Unreadable, &error.to_string())),
        };
        scanned.bytes = buffer.len() as u64;
        let content = Content { path: &self.path, inside: &[], bytes: buffer };
        scanned.matches = engine.scan(&content, &deadline, &mut scanned.notes);
        scanned.listed.extend(listed(set.filter(|_| whole), &content));
        let is_late = || deadline.left().is_none();
        let mut members = Members { path: &self.path, engine, set, deadline, scanned };
        unpack(&self.path, buffer, &limits.unpacking, &is_late, &mut members);
        if whole && !scanned.matches.is_empty() {
            scanned.sha256 = Some(Digest::of(buffer));
        }
    }
}

/// What a file is looked at with.
pub(super) struct With {
    pub(super) engine: Option<Engine>,
    pub(super) set: Option<Arc<ReputationSet>>,
}

/// Whether the set may have this content. Nothing at all is no file that somebody could have known.
fn listed(set: Option<&ReputationSet>, content: &Content<'_>) -> Option<Listed> {
    let set = set.filter(|_| !content.bytes.is_empty())?;
    let sha256 = Digest::of(content.bytes);
    set.may_contain(&sha256).then(|| Listed { inside: content.inside.to_vec(), sha256 })
}

/// With names of 255 bytes at 16 depths, and strings, they take 6 MB of an answer's 16 MiB.
const MATCHES_MAX: usize = 1_000;

/// Asks about everything that is in a file.
struct Members<'a> {
    path: &'a str,
    engine: Engine,
    set: Option<&'a ReputationSet>,
    deadline: Deadline,
    scanned: &'a mut Scanned,
}

impl Visitor for Members<'_> {
    fn member(&mut self, inside: &[String], bytes: &[u8]) -> ControlFlow<()> {
        let content = Content { path: self.path, inside, bytes };
        self.scanned.matches.extend(self.engine.scan(&content, &self.deadline, &mut self.scanned.notes));
        self.scanned.listed.extend(listed(self.set, &content));
        if self.scanned.matches.len() + self.scanned.listed.len() < MATCHES_MAX {
            return ControlFlow::Continue(());
        }
        self.note(content.note(NoteCode::TooMany, "so much was found that the rest was not looked at"));
        ControlFlow::Break(())
    }

    fn note(&mut self, note: Note) {
        self.scanned.notes.push(note);
    }
}

/// How much of a file was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    Whole,
    Beginning,
}

/// Reads at most `limit` bytes of `file` into `buffer`, whatever was read of it before.
pub(super) fn read(file: &OwnedFd, limit: u64, buffer: &mut Vec<u8>) -> io::Result<Read> {
    buffer.clear();
    buffer.reserve(FIRST_READ);
    loop {
        if buffer.spare_capacity_mut().is_empty() {
            buffer.reserve(buffer.capacity());
        }
        let offset = buffer.len() as u64;
        match pread(file, spare_capacity(buffer), offset) {
            Ok(0) => return Ok(Read::Whole),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if buffer.len() as u64 > limit {
            buffer.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
            return Ok(Read::Beginning);
        }
    }
}

fn note(code: NoteCode, message: &str) -> Note {
    Note { inside: Vec::new(), code, message: message.to_owned() }
}

/// What a panic says.
pub(super) fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
