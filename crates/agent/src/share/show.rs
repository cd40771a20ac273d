//! What the owner sees: how sharing stands, and every byte of it.

use std::fmt;
use std::path::Path;

use serde::Serialize;
use stdx::{Digest, UnixTime};

use super::agreement::{Consent, statement_digest};
use super::{Class, Share};
use crate::failure::Failure;
use crate::journal::Event;

/// How sharing stands.
#[derive(Clone, Debug, Serialize)]
pub struct ShareState {
    /// The statement of this version.
    pub statement: Digest,
    /// What the owner agreed to.
    pub consent: Consent,
    /// Events that wait.
    pub waiting: usize,
    /// Whether a batch is under way.
    pub under_way: Option<Digest>,
    /// Batches that the intake has.
    pub sent: usize,
}

impl fmt::Display for ShareState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.consent {
            Consent::None => writeln!(f, "nothing is shared: nothing was agreed to")?,
            Consent::Outdated(digest) => writeln!(f, "nothing is shared: {digest} was agreed to, an earlier text")?,
            Consent::Given(it) => {
                let classes: Vec<_> = it.classes.iter().map(|class| class.as_str()).collect();
                writeln!(f, "agreed on {}: mode {}, {}", it.time, it.mode, classes.join(", "))?;
            }
        }
        writeln!(f, "statement {}", self.statement)?;
        write!(f, "{} events wait, {} batches were sent", self.waiting, self.sent)?;
        self.under_way.as_ref().map_or(Ok(()), |batch| write!(f, ", {batch} is under way"))
    }
}

/// Something that was or will be sent: its plaintext, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Shown {
    /// The intake has it.
    Sent {
        /// SHA-256 of what went over the wire.
        sealed: Digest,
        /// How many bytes that was.
        bytes: u64,
        /// When.
        time: UnixTime,
        /// To whom.
        intake: String,
        /// What they have signed for it.
        #[serde(skip_serializing_if = "Option::is_none")]
        receipt: Option<String>,
        /// With this its owner may have it erased, and anybody else who has it.
        #[serde(skip_serializing_if = "Option::is_none")]
        owner: Option<String>,
        /// Its class.
        class: Class,
        /// What was sealed.
        plain: String,
    },
    /// It is being sent: perhaps the intake has it.
    UnderWay {
        /// SHA-256 of what goes over the wire.
        sealed: Digest,
        /// Its class.
        class: Class,
        /// What was sealed.
        plain: String,
    },
    /// It waits.
    Waiting {
        /// Its class.
        class: Class,
        /// What will be sealed, with others of its class.
        plain: String,
    },
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent { sealed, bytes, time, intake, class, plain, .. } => {
                write!(f, "sent {time} {class} to {intake}: {bytes} bytes, sealed as {sealed}\n{plain}")
            }
            Self::UnderWay { sealed, class, plain } => write!(f, "under way {class}, sealed as {sealed}\n{plain}"),
            Self::Waiting { class, plain } => write!(f, "waiting {class}\n{plain}"),
        }
    }
}

/// Objects that were sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SentObjects {
    /// SHA-256 of each one's header, oldest first.
    pub headers: Vec<Digest>,
    /// So many more were sent by earlier versions.
    pub unknown: usize,
}

impl fmt::Display for SentObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# {} objects; `clerestory data subject` says who has read them", self.headers.len())?;
        if self.unknown > 0 {
            writeln!(f, "# {} more were sent by an earlier version, which kept no names", self.unknown)?;
        }
        self.headers.iter().try_for_each(|header| writeln!(f, "{header}"))
    }
}

/// What becomes of what was exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It stays.
    Keep,
    /// What was sent is forgotten here; in the mode `file`, so is what waits.
    Remove,
}

impl Share<'_> {
    /// How sharing stands.
    ///
    /// # Errors
    /// [`Failure`] of the disk.
    pub fn state(&self) -> Result<ShareState, Failure> {
        Ok(ShareState {
            statement: statement_digest(),
            consent: self.consent.clone(),
            waiting: self.outbox.waiting().len(),
            under_way: self.batches.under_way()?.map(|batch| batch.batch),
            sent: self.batches.sent()?.len(),
        })
    }

    /// Everything that was sent and will be, in this order.
    ///
    /// # Errors
    /// [`Failure`] of the disk.
    pub fn show(&self) -> Result<Vec<Shown>, Failure> {
        let mut shown = Vec::new();
        for (_, it) in self.batches.sent()? {
            let (sealed, bytes, time, class) = (it.batch, it.bytes, it.time, it.class);
            let (intake, receipt, owner, plain) = (it.intake, it.receipt, it.owner, it.plain);
            shown.push(Shown::Sent { sealed, bytes, time, intake, receipt, owner, class, plain });
        }
        if let Some(it) = self.batches.under_way()?
            && !self.batches.is_sent(&it)?
        {
            shown.push(Shown::UnderWay { sealed: it.batch, class: it.class, plain: it.plain });
        }
        for waiting in self.outbox.waiting() {
            shown.push(Shown::Waiting { class: waiting.class, plain: self.outbox.line(waiting)? });
        }
        Ok(shown)
    }

    /// The objects that were sent, for whoever looks up who has read them, and how many earlier versions sent
    /// without keeping their names.
    ///
    /// # Errors
    /// [`Failure`] of the disk.
    pub fn objects(&self) -> Result<SentObjects, Failure> {
        let sent = self.batches.sent()?;
        let headers: Vec<Digest> = sent.iter().filter_map(|(_, batch)| batch.header).collect();
        Ok(SentObjects { unknown: sent.len() - headers.len(), headers })
    }

    /// Writes the same into a file, one JSON object a line, and gives their number.
    ///
    /// # Errors
    /// [`Failure`] of the disk, and when the file exists.
    pub fn export(&mut self, path: &Path, after: After) -> Result<usize, Failure> {
        if path.exists() {
            let message = format!("{} is there already", path.display());
            return Err(Failure::rejected("input", message, "name a file that doesn't exist"));
        }
        let shown = self.show()?;
        let mut bytes = Vec::new();
        for it in &shown {
            serde_json::to_writer(&mut bytes, it).map_err(|error| Failure::state(path, error))?;
            bytes.push(b'\n');
        }
        self.ports.disk.write_private(path, &bytes).map_err(|error| Failure::file(path, &error))?;
        if after == After::Remove {
            self.note(Event::SharingDropped, &path.display().to_string(), "exported, and removed here by the owner")?;
            for (file, _) in self.batches.sent()? {
                self.ports.disk.remove(&file).map_err(|error| Failure::file(&file, &error))?;
            }
            let unsent = matches!(&self.consent, Consent::Given(it) if !it.mode.sends());
            let ids: Vec<_> = self.outbox.waiting().iter().filter(|_| unsent).map(|it| it.id.clone()).collect();
            for id in ids {
                self.outbox.remove(self.ports.disk, &id)?;
            }
        }
        Ok(shown.len())
    }
}
