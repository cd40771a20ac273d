//! The owner's agreement: to which text, which classes, in which mode; signed, and kept here.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use attest::{Envelope, Position, Predicate, Statement, Subject};
use serde::{Deserialize, Serialize};
use stdx::{Digest, Entropy, UnixTime};
use tlog::{KeyKind, SignerKey};

use super::{Class, Mode};
use crate::disk::Disk;
use crate::failure::Failure;

/// What the owner agrees to. Another text needs another agreement.
pub const STATEMENT: &str = include_str!("statement.txt");

/// The statement's SHA-256, which an agreement names.
#[must_use]
pub fn statement_digest() -> Digest {
    Digest::of(STATEMENT.as_bytes())
}

/// Agreed, or not any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// The owner agrees.
    Agree,
    /// The owner has withdrawn.
    Withdraw,
    /// The owner gives one file, the statement's second subject.
    File,
}

/// The `agreement` predicate. Its first subject is the text; a file that is given is the second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agreement {
    /// What was decided.
    pub decision: Decision,
    /// What is done.
    pub mode: Mode,
    /// With which classes, in order.
    pub classes: BTreeSet<Class>,
    /// When, by this machine's clock.
    pub time: UnixTime,
}

impl Predicate for Agreement {
    const TYPE: &'static str = "agreement/v1";

    fn position(&self) -> Option<&Position> {
        None
    }
}

/// What holds now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Consent {
    /// Nothing was ever agreed to, or it was withdrawn.
    None,
    /// What was agreed to is another text than this version's.
    Outdated(Digest),
    /// The owner agrees.
    Given(Agreement),
}

impl Consent {
    /// The mode, if `class` may be shared in it.
    #[must_use]
    pub fn allows(&self, class: Class) -> Option<Mode> {
        match self {
            Self::Given(it) if it.classes.contains(&class) && it.mode.has(class) => Some(it.mode),
            _ => None,
        }
    }
}

/// The owner's key and decisions. The key stays here: it would be a number that tells this machine
/// from others.
pub(super) struct Decisions {
    folder: PathBuf,
}

impl Decisions {
    pub(super) fn new(share: &Path) -> Self {
        Self { folder: share.join("agreements") }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the newest decision about sharing says. One that can't be read or isn't signed is damage,
    /// and nothing is shared by it.
    pub(super) fn consent(&self) -> Result<Consent, Failure> {
        let mut names = self.names()?;
        let Some(key) = self.key()? else { return Ok(Consent::None) };
        while let Some(name) = names.pop() {
            let path = self.folder.join(&name);
            let bytes = fs::read(&path).map_err(|error| Failure::file(&path, &error))?;
            let envelope = Envelope::parse(&bytes).map_err(|error| Failure::state(&path, error))?;
            if !envelope.signed_by(key.verifier()).map_err(|error| Failure::state(&path, error))? {
                return Err(Failure::state(&path, "not signed by this machine's owner"));
            }
            let statement = Statement::<Agreement>::decode(envelope.payload());
            let statement = statement.map_err(|error| Failure::state(&path, error))?;
            let subject = statement.subject.first().map(Subject::sha256);
            match statement.predicate.decision {
                Decision::File => {}
                Decision::Withdraw => return Ok(Consent::None),
                Decision::Agree if subject == Some(statement_digest()) => {
                    return Ok(Consent::Given(statement.predicate));
                }
                Decision::Agree => return Ok(Consent::Outdated(subject.unwrap_or_else(|| Digest::of(b"")))),
            }
        }
        Ok(Consent::None)
    }

    /// Signs and keeps a decision; gives the envelope's file.
    pub(super) fn keep(
        &self,
        disk: &dyn Disk,
        entropy: &dyn Entropy,
        agreement: Agreement,
        file: Option<Subject>,
    ) -> Result<PathBuf, Failure> {
        let key = match self.key()? {
            Some(key) => key,
            None => self.draw(disk, entropy)?,
        };
        let text = Subject::new("sharing statement", statement_digest());
        let statement = Statement { subject: std::iter::once(text).chain(file).collect(), predicate: agreement };
        let refuse = |error: &dyn std::fmt::Display| Failure::state(&self.folder, error);
        let payload = statement.encode().map_err(|error| refuse(&error))?;
        let envelope = Envelope::sign(payload, &[&key]).map_err(|error| refuse(&error))?;
        let next = match self.names()?.last().and_then(|name| name.split('.').next()?.parse::<u64>().ok()) {
            Some(last) => last.saturating_add(1),
            None => 1,
        };
        let path = self.folder.join(format!("{next:06}.envelope"));
        disk.write(&path, &envelope.to_bytes()).map_err(|error| Failure::file(&path, &error))?;
        Ok(path)
    }

    /// Files of decisions, oldest first.
    fn names(&self) -> Result<Vec<String>, Failure> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|error| Failure::file(&self.folder, &error))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| Failure::file(&self.folder, &error))?;
            names.extend(entry.file_name().into_string().ok().filter(|name| name.ends_with(".envelope")));
        }
        names.sort_unstable();
        Ok(names)
    }

    fn key_path(&self) -> PathBuf {
        self.folder.join("owner.key")
    }

    fn key(&self) -> Result<Option<SignerKey>, Failure> {
        let path = self.key_path();
        match fs::read_to_string(&path) {
            Ok(text) => text.trim_end().parse().map(Some).map_err(|_| Failure::state(&path, "no key of this agent's")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::file(&path, &error)),
        }
    }

    fn draw(&self, disk: &dyn Disk, entropy: &dyn Entropy) -> Result<SignerKey, Failure> {
        let path = self.key_path();
        let name = "owner.invalid/sharing".parse().expect("a name without spaces or plus signs");
        let key = SignerKey::generate(name, KeyKind::Ed25519, entropy)
            .map_err(|error| Failure::unavailable(error.to_string()))?;
        let text = key.to_secret_text();
        disk.write_private(&path, text.as_bytes()).map_err(|error| Failure::file(&path, &error))?;
        Ok(key)
    }
}
