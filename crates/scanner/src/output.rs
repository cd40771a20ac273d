//! What is said: for people, or as one JSON object a line.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, StdoutLock, Write as _};

use detection::{FileReport, Listed, Loaded, Match, Note, SelfTest};
use serde::Serialize;
use stdx::Digest;

use crate::INCOMPLETE;
use crate::cli::Arguments;
use crate::progress::Progress;
use crate::walk::{Passed, Why};

/// Prints as it goes, and counts.
pub(crate) struct Output<'a> {
    stdout: StdoutLock<'static>,
    /// Whoever wants to have it as JSON besides.
    copy: Option<File>,
    json: bool,
    progress: &'a Progress,
    summary: Summary,
    /// The first error while printing; what follows is not printed.
    failed: Option<io::Error>,
}

/// What was done.
#[derive(Default, Serialize)]
struct Summary {
    /// Files that were looked at, also those of which only a part was.
    files: u64,
    /// Bytes of these.
    bytes: u64,
    /// Files in which something was found.
    found: u64,
    /// Files of these that the set may have, or that hold one.
    #[serde(skip_serializing_if = "is_zero")]
    listed: u64,
    /// Files and folders that were not looked at, or not as a whole, though they were to be.
    incomplete: u64,
    /// Links, which are not followed.
    links: u64,
    /// Neither file nor folder.
    special: u64,
    /// Folders on other file systems.
    other_file_systems: u64,
    /// Rules that were used.
    rules: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[derive(Serialize)]
struct FileLine<'a> {
    path: &'a str,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<Digest>,
    matches: &'a [Match],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    listed: &'a [Listed],
    notes: &'a [Note],
}

#[derive(Serialize)]
struct SummaryLine<'a> {
    summary: &'a Summary,
    self_test: &'a SelfTest,
}

impl<'a> Output<'a> {
    /// # Errors
    /// If the file for the copy can't be opened.
    pub(crate) fn new(arguments: &Arguments, progress: &'a Progress) -> io::Result<Self> {
        let stdout = io::stdout().lock();
        let copy = arguments.json_to.as_ref().map(|path| File::options().append(true).create(true).open(path));
        let copy = copy.transpose()?;
        Ok(Self { stdout, copy, json: arguments.json, progress, summary: Summary::default(), failed: None })
    }

    /// Says what is to be said of a file.
    pub(crate) fn report(&mut self, report: &FileReport) {
        self.progress.add(report.bytes);
        self.summary.files += 1;
        self.summary.bytes += report.bytes;
        let found = !report.matches.is_empty() || !report.listed.is_empty();
        self.summary.found += u64::from(found);
        self.summary.listed += u64::from(!report.listed.is_empty());
        self.summary.incomplete += u64::from(!report.notes.is_empty());
        if !found && report.notes.is_empty() {
            return;
        }
        self.say(report);
    }

    /// Counts what is not scanned on purpose, and says what could not be.
    pub(crate) fn passed(&mut self, passed: &Passed) {
        match &passed.why {
            Why::Link => self.summary.links += 1,
            Why::Special => self.summary.special += 1,
            Why::OtherFileSystem => self.summary.other_file_systems += 1,
            Why::Unreadable(error) => {
                self.summary.incomplete += 1;
                let code = detection::NoteCode::Unreadable;
                let notes = vec![Note { inside: Vec::new(), code, message: error.to_string() }];
                let path = passed.path.clone();
                let (matches, listed) = (Vec::new(), Vec::new());
                self.say(&FileReport { path, bytes: 0, sha256: None, matches, listed, notes });
            }
        }
    }

    fn say(&mut self, report: &FileReport) {
        let FileReport { path, bytes, sha256, matches, listed, notes } = report;
        let path = path.to_string_lossy();
        let json = || {
            let line = FileLine { path: &path, bytes: *bytes, sha256: *sha256, matches, listed, notes };
            // Only a map with keys that are no text can't be written.
            serde_json::to_string(&line).unwrap_or_default() + "\n"
        };
        if let Some(copy) = &mut self.copy
            && self.failed.is_none()
        {
            self.failed = copy.write_all(json().as_bytes()).err();
        }
        let text = if self.json { json() } else { lines(&path, report) };
        self.print(&text);
    }

    fn print(&mut self, text: &str) {
        if self.failed.is_none() {
            let stdout = &mut self.stdout;
            let printed = self.progress.beside(|| stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()));
            self.failed = printed.err();
        }
    }

    /// Prints the summary; gives the exit code.
    pub(crate) fn finish(mut self, loaded: &Loaded) -> io::Result<u8> {
        self.summary.rules = loaded.rules;
        let text = if self.json {
            serde_json::to_string(&SummaryLine { summary: &self.summary, self_test: &loaded.self_test })? + "\n"
        } else {
            self.summary.to_string()
        };
        self.print(&text);
        match self.failed {
            Some(error) => Err(error),
            None if self.summary.found > 0 => Ok(1),
            None if self.summary.incomplete > 0 => Ok(INCOMPLETE),
            None => Ok(0),
        }
    }
}

fn lines(path: &str, report: &FileReport) -> String {
    let mut text = String::new();
    for one in &report.matches {
        let _ = write!(text, "FOUND {} in {}", one.rule, shown(path, &one.inside));
        if let Some(first) = one.strings.first() {
            let _ = write!(text, " (${} at {})", first.name, first.offset);
        }
        text.push('\n');
    }
    for one in &report.listed {
        let _ = writeln!(text, "LISTED {} in {}", one.sha256, shown(path, &one.inside));
    }
    for note in &report.notes {
        let _ = writeln!(text, "NOT LOOKED AT {}: {}", shown(path, &note.inside), printable(&note.message));
    }
    text
}

/// A file and where in it.
fn shown(path: &str, inside: &[String]) -> String {
    let parts: Vec<String> = std::iter::once(path).chain(inside.iter().map(String::as_str)).map(printable).collect();
    parts.join(" > ")
}

/// Names are foreign text, and a terminal obeys control characters.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control()
            || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{} files, {} bytes, {} rules: found something in {}",
            self.files, self.bytes, self.rules, self.found
        )?;
        if self.listed > 0 {
            writeln!(f, "LISTED as known to be bad: {} (one content in 65,536 is so by accident)", self.listed)?;
        }
        if self.incomplete > 0 {
            writeln!(f, "NOT LOOKED AT, or not as a whole: {}", self.incomplete)?;
        }
        for (count, what) in [
            (self.links, "links (not followed)"),
            (self.special, "sockets, pipes and devices"),
            (self.other_file_systems, "folders on other file systems (--other-file-systems enters them)"),
        ] {
            if count > 0 {
                writeln!(f, "passed over: {count} {what}")?;
            }
        }
        Ok(())
    }
}
