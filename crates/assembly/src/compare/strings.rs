//! Compares two lists of short texts (lines, strings of an ELF file): order first, then what only one side has.

use std::collections::BTreeMap;

use super::budget::Stop;
use super::token::{self, Class};
use super::walk::{Note, Walk};
use super::{Cause, Role};

/// Pieces of text, in their order.
pub(super) struct Pieces<'b> {
    pub(super) left: Vec<&'b [u8]>,
    pub(super) right: Vec<&'b [u8]>,
    /// What one is called: `line`, `string`.
    pub(super) what: &'static str,
    /// What a difference means here, whatever the text looks like.
    pub(super) always: Option<Cause>,
    /// Whether digests and sizes of other members are listed here.
    pub(super) is_manifest: bool,
}

impl Pieces<'_> {
    /// Adds a finding for each cause; none when both lists are equal.
    pub(super) fn compare(&self, walk: &mut Walk<'_>) -> Result<(), Stop> {
        walk.budget.take_members(self.left.len() + self.right.len())?;
        let (left, right) = (self.only(&self.left, &self.right), self.only(&self.right, &self.left));
        if left.is_empty() && right.is_empty() {
            if let Some((at, (a, b))) = self.left.iter().zip(&self.right).enumerate().find(|(_, (a, b))| a != b) {
                let note = Note::new(Cause::Order, format!("order, from {} {}", self.what, at + 1));
                walk.note(note.excerpts(a, b));
            }
            return Ok(());
        }
        self.changed(walk, &left, &right);
        for (only, side) in [
            (left.get(right.len()..), "only in the first build"),
            (right.get(left.len()..), "only in the second build"),
        ] {
            let only = only.unwrap_or_default();
            if let Some((at, piece)) = only.first() {
                let cause = self.always.unwrap_or(Cause::Content);
                let note = Note::new(cause, format!("{} {} {side}", self.what, at + 1)).more(only.len() - 1);
                let (left, right): (&[u8], &[u8]) = if left.len() > right.len() { (piece, b"") } else { (b"", piece) };
                walk.note(note.excerpts(left, right));
            }
        }
        Ok(())
    }

    /// Pieces of `these` beyond those that `others` has as often, with their places.
    fn only<'b>(&self, these: &[&'b [u8]], others: &[&[u8]]) -> Vec<(usize, &'b [u8])> {
        let mut counts = BTreeMap::<&[u8], usize>::new();
        for other in others {
            *counts.entry(other).or_default() += 1;
        }
        let fresh = |(_, piece): &(usize, &'b [u8])| match counts.get_mut(piece) {
            Some(count @ 1..) => {
                *count -= 1;
                false
            }
            _ => true,
        };
        these.iter().copied().enumerate().filter(fresh).collect()
    }

    /// Pairs the n-th changed piece with the n-th, one finding for each kind of change.
    fn changed(&self, walk: &mut Walk<'_>, left: &[(usize, &[u8])], right: &[(usize, &[u8])]) {
        let mut kinds = BTreeMap::<(Cause, bool), (usize, &[u8], &[u8], usize)>::new();
        for ((at, left), (_, right)) in left.iter().zip(right) {
            for class in token::classes(&String::from_utf8_lossy(left), &String::from_utf8_lossy(right)) {
                let follows = self.is_manifest && matches!(class, Class::Digest | Class::Number);
                let cause = self.always.unwrap_or(class.cause());
                kinds.entry((cause, follows)).or_insert((at + 1, left, right, 0)).3 += 1;
            }
        }
        for ((cause, follows), (at, left, right, count)) in kinds {
            let role = if follows { Role::Consequence } else { Role::Cause };
            let note = Note::new(cause, format!("{} {at}", self.what)).role(role).more(count - 1);
            let (left, right) = around(left, right);
            walk.note(note.excerpts(left, right));
        }
    }
}

/// Long texts from shortly before the first difference.
fn around<'b>(left: &'b [u8], right: &'b [u8]) -> (&'b [u8], &'b [u8]) {
    const BEFORE: usize = 40;
    let same = left.iter().zip(right).take_while(|(left, right)| left == right).count();
    let from = if same > 2 * BEFORE { same - BEFORE } else { 0 };
    (left.get(from..).unwrap_or_default(), right.get(from..).unwrap_or_default())
}
