//! Goes down into two differing outputs and keeps what it finds.

use std::collections::BTreeSet;

use stdx::Clock;

use super::budget::{Budget, Limits, Stop};
use super::members::{self, Side};
use super::{Cause, Difference, Excerpt, Finding, MemberPath, Role, ar, bytes, compressed, elf, tarball, text, zip};

/// The same part of both builds.
#[derive(Clone, Copy)]
pub(super) struct Pair<'b> {
    pub(super) left: &'b [u8],
    pub(super) right: &'b [u8],
}

/// One finding before it has a place.
pub(super) struct Note {
    pub(super) cause: Cause,
    pub(super) role: Role,
    pub(super) what: String,
    pub(super) left: Option<Excerpt>,
    pub(super) right: Option<Excerpt>,
    pub(super) more: u64,
}

impl Note {
    pub(super) fn new(cause: Cause, what: impl Into<String>) -> Self {
        Self { cause, role: Role::Cause, what: what.into(), left: None, right: None, more: 0 }
    }

    pub(super) fn excerpts(self, left: &[u8], right: &[u8]) -> Self {
        Self { left: Some(Excerpt::of(left)), right: Some(Excerpt::of(right)), ..self }
    }

    pub(super) fn role(self, role: Role) -> Self {
        Self { role, ..self }
    }

    pub(super) fn more(self, more: usize) -> Self {
        Self { more: u64::try_from(more).unwrap_or(u64::MAX), ..self }
    }
}

/// What bytes look like from their beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    Ar,
    Tar,
    Zip,
    Gzip,
    Xz,
    Zstd,
    Elf,
    Other,
}

impl Format {
    fn of(bytes: &[u8]) -> Self {
        match bytes {
            [b'!', b'<', b'a', b'r', b'c', b'h', b'>', b'\n', ..] => Self::Ar,
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Self::Zip,
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [0x7f, b'E', b'L', b'F', ..] => Self::Elf,
            other if tarball::is_tar(other) => Self::Tar,
            _ => Self::Other,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ar => "ar",
            Self::Tar => "tar",
            Self::Zip => "zip",
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Elf => "ELF",
            Self::Other => "plain",
        }
    }

    const fn is_compressed(self) -> bool {
        matches!(self, Self::Gzip | Self::Xz | Self::Zstd)
    }
}

/// The state of one diagnosis.
pub(super) struct Walk<'a> {
    pub(super) budget: Budget<'a>,
    path: Vec<Excerpt>,
    depth: usize,
    findings: Vec<Finding>,
    causes: BTreeSet<Cause>,
    /// Findings so far, kept or not.
    found: u64,
    left_out: u64,
    /// Of the current output: whether a cause was found, and the consequences' causes.
    has_cause: bool,
    consequences: BTreeSet<Cause>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(limits: &'a Limits, clock: &'a dyn Clock) -> Self {
        Self {
            budget: Budget::new(limits, clock),
            path: Vec::new(),
            depth: 0,
            findings: Vec::new(),
            causes: BTreeSet::new(),
            found: 0,
            left_out: 0,
            has_cause: false,
            consequences: BTreeSet::new(),
        }
    }

    pub(super) const fn input_max(&self) -> u64 {
        self.budget.limits().bytes
    }

    /// What was found; `None` when nothing was, which [`Walk::output`] excludes for a differing output.
    pub(super) fn finish(mut self) -> Option<Difference> {
        if self.found == 0 {
            return None;
        }
        if self.left_out > 0 {
            self.budget.note(Stop::Findings);
        }
        let causes = self.causes.into_iter().collect();
        Some(Difference { findings: self.findings, causes, stops: self.budget.stops(), left_out: self.left_out })
    }

    /// Diagnoses one differing output; afterwards it has at least one finding in the role of a cause.
    pub(super) fn output(&mut self, name: &str, diagnose: impl FnOnce(&mut Self)) {
        self.budget.next_output();
        self.has_cause = false;
        self.consequences.clear();
        let first = self.findings.len();
        let before = self.found;
        self.within(name.as_bytes(), |walk| {
            diagnose(walk);
            if walk.found == before {
                walk.note(Note::new(Cause::Content, "bytes"));
            }
        });
        // Consequences of nothing are causes.
        if !self.has_cause {
            self.causes.append(&mut self.consequences);
            self.findings.iter_mut().skip(first).for_each(|finding| finding.role = Role::Cause);
        }
    }

    pub(super) fn output_missing(&mut self, name: &str, side: Side) {
        self.output(name, |walk| walk.note(Note::new(Cause::FileSet, format!("output {}", side.only()))));
    }

    /// Does `look` with `name` added to the place of what it finds.
    pub(super) fn within<T>(&mut self, name: &[u8], look: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(Excerpt::of(name));
        let result = look(self);
        self.path.pop();
        result
    }

    /// How many findings there are, to see whether a step found any.
    pub(super) const fn found(&self) -> u64 {
        self.found
    }

    pub(super) fn note(&mut self, note: Note) {
        let Note { cause, role, what, left, right, more } = note;
        self.found += 1;
        if role == Role::Cause {
            self.has_cause = true;
            self.causes.insert(cause);
        } else {
            self.consequences.insert(cause);
        }
        if self.findings.len() >= self.budget.limits().findings {
            self.left_out += 1;
            return;
        }
        let member = MemberPath::new(self.path.clone());
        self.findings.push(Finding { member, cause, role, what, left, right, more });
    }

    /// Notes that the rest here was not examined.
    pub(super) fn stop(&mut self, stop: Stop) {
        self.budget.note(stop);
        self.note(Note::new(Cause::Content, format!("not examined: {}", stop.words())));
    }

    /// Finds out why two parts differ; adds at least one finding.
    pub(super) fn differ(&mut self, pair: Pair<'_>) {
        let before = self.found;
        if self.depth >= self.budget.limits().depth {
            return self.stop(Stop::Depth);
        }
        self.depth += 1;
        if let Err(stop) = self.budget.member().and_then(|()| self.by_format(pair)) {
            self.stop(stop);
        }
        self.depth -= 1;
        if self.found == before {
            // Every format explains what it reads; what it skips is never taken for equal.
            self.note(Note::new(Cause::Content, "bytes that no part of the format accounts for"));
        }
    }

    fn by_format(&mut self, pair: Pair<'_>) -> Result<(), Stop> {
        let formats = (Format::of(pair.left), Format::of(pair.right));
        match formats {
            (Format::Ar, Format::Ar) => self.archives(pair, Format::Ar, ar::read),
            (Format::Tar, Format::Tar) => self.archives(pair, Format::Tar, tarball::read),
            (Format::Zip, Format::Zip) => self.archives(pair, Format::Zip, zip::read),
            (Format::Elf, Format::Elf) => elf::compare(self, pair),
            (left, right) if left.is_compressed() || right.is_compressed() => compressed::compare(self, pair, formats),
            _ if text::is_text(pair.left) && text::is_text(pair.right) => text::compare(self, pair),
            _ => bytes::compare(self, pair),
        }
    }

    fn archives<'b>(
        &mut self,
        pair: Pair<'b>,
        format: Format,
        read: impl Fn(&'b [u8], &Budget<'_>) -> Result<members::Archive<'b>, members::Unreadable>,
    ) -> Result<(), Stop> {
        match (read(pair.left, &self.budget), read(pair.right, &self.budget)) {
            (Ok(left), Ok(right)) => members::compare(self, &left, &right),
            (Err(members::Unreadable::Stop(stop)), _) | (_, Err(members::Unreadable::Stop(stop))) => Err(stop),
            (Err(error), _) | (_, Err(error)) => self.unreadable(pair, format, &error.to_string()),
        }
    }

    /// Falls back to bytes where a format is broken.
    pub(super) fn unreadable(&mut self, pair: Pair<'_>, format: Format, why: &str) -> Result<(), Stop> {
        let why = Excerpt::of(why.as_bytes());
        self.note(Note::new(Cause::Content, format!("not a readable {} file: {why}", format.name())));
        bytes::compare(self, pair)
    }

    /// The name of the innermost place.
    pub(super) fn place(&self) -> &str {
        self.path.last().map_or("", Excerpt::as_str)
    }
}
