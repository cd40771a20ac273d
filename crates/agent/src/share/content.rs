//! The content of one file, given by its owner.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use attest::Subject;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use detection::{Declared, Item};
use rustix::fs::{MemfdFlags, memfd_create};
use stdx::Digest;

use super::agreement::{Agreement, Consent, Decision};
use super::desk::not_agreed;
use super::{Body, Class, Recorded, Share};
use crate::config::Config;
use crate::endpoint::{Endpoint, Ports};
use crate::failure::Failure;
use crate::journal::Event;
use crate::rules;

/// A sample that somebody wants to look at, not an archive of a disk.
pub const CONTENT_BYTES_MAX: u64 = 8 << 20;

/// A content, and the rule that is said to find it.
#[derive(Clone, Copy, Debug)]
pub struct FoundBy<'a> {
    /// The rule.
    pub rule: &'a str,
    /// What the file is called: rules may ask.
    pub path: &'a Path,
    /// What is in it.
    pub content: &'a [u8],
}

/// What the rules in use declare, and find.
pub trait Collects {
    /// The class that the rule declares to collect, if there is such a rule and it does.
    ///
    /// # Errors
    /// [`Failure`] when there are no rules in use, or this one does not find the content.
    fn collects(&self, found: &FoundBy<'_>) -> Result<Option<String>, Failure>;
}

/// The rules that this machine installed, after it verified them: a confined child is asked.
#[derive(Clone, Copy)]
pub struct InstalledRules<'a> {
    /// The owner's configuration.
    pub config: &'a Config,
    /// The machine.
    pub ports: Ports<'a>,
}

impl Collects for InstalledRules<'_> {
    fn collects(&self, found: &FoundBy<'_>) -> Result<Option<String>, Failure> {
        let mut engine = Endpoint::read(self.config, self.ports)?.engine()?;
        let declared = engine.describe(found.rule).map_err(|error| rules::engine(&error))?;
        let Some(class) = declared.as_ref().and_then(Declared::collects) else { return Ok(None) };
        let file = in_memory(found.content).map_err(|error| Failure::unavailable(error.to_string()))?;
        let item = Item { path: found.path.to_owned(), file };
        let report = engine.scan_one(item).map_err(|error| rules::engine(&error))?;
        if report.matches.iter().any(|one| one.rule == found.rule) {
            return Ok(Some(class.to_owned()));
        }
        const HINT: &str = "content is given for a rule that finds it, and for no other";
        let message = format!("{}: the rule `{}` does not find this file", found.path.display(), found.rule);
        Err(Failure::rejected("share-not-found", message, HINT))
    }
}

fn in_memory(content: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("content", MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    Ok(file)
}

/// A file that its owner gives.
#[derive(Clone, Copy, Debug)]
pub struct FileOffer<'a> {
    /// Where it is.
    pub path: &'a Path,
    /// The rule that found it.
    pub rule: &'a str,
    /// Its SHA-256, which the owner has to say: so it is this content, and no other by mistake.
    pub sha256: Option<Digest>,
}

impl Share<'_> {
    /// Puts the content of one file into the outbox, if the owner agreed to that class, the rule finds it
    /// and declares that it collects, and the owner says which content it is.
    ///
    /// # Errors
    /// [`Failure`], naming what is missing.
    pub fn give_file(&mut self, collecting: &dyn Collects, offer: FileOffer<'_>) -> Result<Recorded, Failure> {
        if self.consent.allows(Class::Content).is_none() {
            return Err(not_agreed(Class::Content));
        }
        let Consent::Given(agreement) = self.consent.clone() else { return Err(not_agreed(Class::Content)) };
        let FileOffer { path, rule, sha256 } = offer;
        let content = read(path)?;
        let declared = collecting.collects(&FoundBy { rule, path, content: &content }).and_then(|class| {
            const HINT: &str = "content is never sent for a rule that doesn't declare `collects`, whoever asks for it";
            let message = format!("{}: the rule `{rule}` does not declare that it collects", path.display());
            class.ok_or_else(|| Failure::rejected("share-not-collecting", message, HINT))
        });
        let declared = match declared {
            Ok(declared) => declared,
            Err(failure) => {
                self.note(Event::Refused, rule, &format!("{}: {}", failure.code, failure.message))?;
                return Err(failure);
            }
        };
        let actual = Digest::of(&content);
        if sha256 != Some(actual) {
            let message = format!(
                "{}: {} bytes, SHA-256 {actual}; the rule `{rule}` collects `{declared}`",
                path.display(),
                content.len()
            );
            const HINT: &str = "look at the file; if this content is to be given, say so with `--sha256` and its hash";
            return Err(Failure::rejected("share-confirm", message, HINT));
        }
        let detail = format!("one file, by the rule {rule}, which collects {declared}; {} bytes", content.len());
        self.note(Event::SharingAgreed, &actual.to_string(), &detail)?;
        let time = self.ports.clock.now();
        let agreement = Agreement { decision: Decision::File, time, ..agreement };
        let subject = Subject::new("file", actual);
        self.decisions.keep(self.ports.disk, self.ports.entropy, agreement, Some(subject))?;
        self.record(Body::Content { rule: rule.to_owned(), sha256: actual, content: STANDARD.encode(&content) })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(CONTENT_BYTES_MAX + 1).read_to_end(&mut content));
    read.map_err(|error| {
        let message = format!("{}: {error}", path.display());
        Failure::rejected("input", message, "name a file that this user may read")
    })?;
    if content.len() as u64 > CONTENT_BYTES_MAX {
        let message = format!("{}: longer than {CONTENT_BYTES_MAX} bytes", path.display());
        return Err(Failure::rejected("share-too-long", message, "give a shorter file"));
    }
    Ok(content)
}
