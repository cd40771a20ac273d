//! The content of one file, given by its owner.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use attest::Subject;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use detection::{INDEX_BYTES_MAX, INDEX_FILE, Index};
use stdx::Digest;

use super::agreement::{Agreement, Consent, Decision};
use super::desk::not_agreed;
use super::{Body, Class, Recorded, Share};
use crate::config::Config;
use crate::failure::Failure;
use crate::journal::Event;

/// A sample that somebody wants to look at, not an archive of a disk.
pub const CONTENT_BYTES_MAX: u64 = 8 << 20;

/// What the rules in use declare: the index of the release that this machine verified.
pub trait Collects {
    /// The class that the rule of this name declares to collect, if there is such a rule and it does.
    ///
    /// # Errors
    /// [`Failure`] when there are no rules in use.
    fn collects(&self, rule: &str) -> Result<Option<String>, Failure>;
}

/// The rules that this machine installed, after it verified them.
pub struct InstalledRules<'a>(pub &'a Config);

impl Collects for InstalledRules<'_> {
    fn collects(&self, rule: &str) -> Result<Option<String>, Failure> {
        const HINT: &str = "without the index of the rules in use, no rule declares anything";
        let section = self.0.lookup.as_ref().ok_or_else(|| {
            Failure::rejected("share-no-rules", "the configuration names no rules (`rules` in `[lookup]`)", HINT)
        })?;
        let path = self.0.install.join(section.rules.as_str()).join("current").join(INDEX_FILE);
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(INDEX_BYTES_MAX + 1).read_to_end(&mut bytes));
        let wrong = |error: &dyn std::fmt::Display| {
            Failure::rejected("share-no-rules", format!("{}: {error}", path.display()), HINT)
        };
        read.map_err(|error| wrong(&error))?;
        let index = Index::parse(&bytes).map_err(|error| wrong(&error))?;
        let found = index.collecting().find(|(indexed, _)| indexed.name == rule);
        Ok(found.map(|(_, class)| class.to_owned()))
    }
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
    /// Puts the content of one file into the outbox, if the owner agreed to that class, the rule
    /// declares that it collects, and the owner says which content it is.
    ///
    /// # Errors
    /// [`Failure`], naming what is missing.
    pub fn give_file(&mut self, rules: &dyn Collects, offer: FileOffer<'_>) -> Result<Recorded, Failure> {
        if self.consent.allows(Class::Content).is_none() {
            return Err(not_agreed(Class::Content));
        }
        let Consent::Given(agreement) = self.consent.clone() else { return Err(not_agreed(Class::Content)) };
        let FileOffer { path, rule, sha256 } = offer;
        let declared = rules.collects(rule)?.ok_or_else(|| {
            const HINT: &str = "content is never sent for a rule that doesn't declare `collects`, whoever asks for it";
            let message = format!("{}: the rule `{rule}` does not declare that it collects", path.display());
            Failure::rejected("share-not-collecting", message, HINT)
        });
        let declared = match declared {
            Ok(declared) => declared,
            Err(failure) => {
                self.note(Event::Refused, rule, &format!("{}: {}", failure.code, failure.message))?;
                return Err(failure);
            }
        };
        let content = read(path)?;
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
