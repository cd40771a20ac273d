//! What is inside containers.

use std::io::Read as _;

use detection::{Note, NoteCode, Unpacking};
use flate2::read::MultiGzDecoder;

use crate::content::{Content, Deadline};

/// What may still be taken out of one file.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Containers within containers.
    pub(crate) depth: u32,
    /// Members, at all depths.
    pub(crate) members: u64,
    /// Bytes, at all depths.
    pub(crate) bytes: u64,
    /// The end of everything about this file.
    pub(crate) deadline: Deadline,
}

impl Budget {
    pub(crate) fn new(limits: &Unpacking, deadline: Deadline) -> Self {
        Self { depth: limits.depth, members: limits.members, bytes: limits.bytes, deadline }
    }
}

/// Gives each member of a container, at all depths, to `visit`; notes what could not be opened.
/// What is no container has no members.
pub(crate) fn open(
    container: &Content<'_>,
    budget: &mut Budget,
    notes: &mut Vec<Note>,
    visit: &mut dyn FnMut(&Content<'_>, &mut Vec<Note>),
) {
    if !container.bytes.starts_with(&[0x1f, 0x8b, 8]) {
        return;
    }
    if budget.depth == 0 || budget.members == 0 || budget.bytes == 0 || budget.deadline.left().is_none() {
        notes.push(container.note(NoteCode::TooLarge, "not opened: the bounds for one file are reached"));
        return;
    }
    budget.members -= 1;
    let mut bytes = Vec::new();
    let mut decoder = MultiGzDecoder::new(container.bytes).take(budget.bytes);
    if let Err(error) = decoder.read_to_end(&mut bytes) {
        notes.push(container.note(NoteCode::Unreadable, error.to_string()));
    }
    budget.bytes -= bytes.len() as u64;
    let mut inside = container.inside.to_vec();
    inside.push(container.full_name().trim_end_matches(".gz").to_owned());
    let member = Content { path: container.path, inside: &inside, bytes: &bytes };
    visit(&member, notes);
    budget.depth -= 1;
    open(&member, budget, notes, visit);
    budget.depth += 1;
}
