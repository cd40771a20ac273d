//! Containers of every format, whole, damaged and hostile.

mod bounds;
mod damage;
mod formats;
mod samples;
mod zips;

use std::ops::ControlFlow;

use detection::{Note, NoteCode, Unpacking};
use scanner::{Totals, Visitor, unpack};

/// What a walk came upon.
#[derive(Debug, Default)]
struct Seen {
    members: Vec<(String, Vec<u8>)>,
    notes: Vec<Note>,
    totals: Totals,
}

impl Visitor for Seen {
    fn member(&mut self, inside: &[String], bytes: &[u8]) -> ControlFlow<()> {
        self.members.push((inside.join("!"), bytes.to_vec()));
        ControlFlow::Continue(())
    }

    fn note(&mut self, note: Note) {
        self.notes.push(note);
    }
}

impl Seen {
    fn names(&self) -> Vec<&str> {
        self.members.iter().map(|(name, _)| name.as_str()).collect()
    }

    fn codes(&self) -> Vec<NoteCode> {
        self.notes.iter().map(|note| note.code).collect()
    }

    /// The first member that is exactly `content`.
    fn place_of(&self, content: &[u8]) -> Option<&str> {
        self.members.iter().find(|(_, bytes)| bytes == content).map(|(name, _)| name.as_str())
    }

    /// The notes of one place.
    fn codes_at(&self, place: &str) -> Vec<NoteCode> {
        self.notes.iter().filter(|note| note.inside.join("!") == place).map(|note| note.code).collect()
    }
}

fn take_apart(bytes: &[u8]) -> Seen {
    take_apart_within(bytes, &Unpacking::default())
}

fn take_apart_within(bytes: &[u8], limits: &Unpacking) -> Seen {
    let mut seen = Seen::default();
    seen.totals = unpack("file", bytes, limits, &|| false, &mut seen);
    assert_eq!(seen.totals.members, seen.members.len() as u64);
    seen
}
