//! The state of sharing, opened to be changed.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use stdx::{Clock, Entropy, FileLock};

use super::agreement::{Agreement, Consent, Decision, Decisions, statement_digest};
use super::batch::Batches;
use super::outbox::{Bounds, Outbox};
use super::{Body, Class, EventId, Mode, ShareEvent};
use crate::disk::Disk;
use crate::endpoint::lock;
use crate::failure::Failure;
use crate::guard::Findings;
use crate::journal::{Entry, Event, Journal};

/// What sharing needs of the machine.
#[derive(Clone, Copy)]
pub struct SharePorts<'a> {
    /// The time, which may be wrong.
    pub clock: &'a dyn Clock,
    /// The disk.
    pub disk: &'a dyn Disk,
    /// For the numbers of events and for keys.
    pub entropy: &'a dyn Entropy,
}

/// What became of something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It waits to be shared.
    Waits(EventId),
    /// The owner did not agree to its class: nothing was written.
    NotAgreed,
    /// It was dropped because more important things wait; the journal says so.
    Dropped,
}

/// Sharing, open to be changed by this process alone.
pub struct Share<'a> {
    pub(super) ports: SharePorts<'a>,
    pub(super) folder: PathBuf,
    pub(super) decisions: Decisions,
    pub(super) outbox: Outbox,
    pub(super) batches: Batches,
    pub(super) consent: Consent,
    journal: Journal,
    _lock: FileLock,
}

impl<'a> Share<'a> {
    /// Opens what lies below the agent's `state`, and does what a crash left undone.
    ///
    /// # Errors
    /// [`Failure`], temporary while another process has it open.
    pub fn open(state: &std::path::Path, ports: SharePorts<'a>, bounds: Bounds) -> Result<Self, Failure> {
        // Nothing is made where `init` has not made a state.
        crate::trust::load(state)?;
        let folder = state.join("share");
        let decisions = Decisions::new(&folder);
        let batches = Batches::new(&folder);
        let outbox = folder.join("outbox");
        for folder in [&folder, decisions.folder(), &batches.sent_folder(), &outbox] {
            ports.disk.create_folder(folder).map_err(|error| Failure::file(folder, &error))?;
        }
        let held = lock(&folder)?;
        for folder in [&folder, decisions.folder(), &batches.sent_folder(), &outbox] {
            ports.disk.sweep(folder).map_err(|error| Failure::file(folder, &error))?;
        }
        let mut share = Self {
            outbox: Outbox::open(&folder, bounds)?,
            consent: decisions.consent()?,
            journal: Journal::new(state),
            ports,
            decisions,
            batches,
            folder,
            _lock: held,
        };
        share.apply()?;
        share.keep_to_consent()?;
        Ok(share)
    }

    /// Whether this machine has ever decided anything about sharing: if not, there is nothing to open.
    #[must_use]
    pub fn exists(state: &std::path::Path) -> bool {
        fs::exists(state.join("share")).unwrap_or(true)
    }

    /// What holds now.
    #[must_use]
    pub const fn consent(&self) -> &Consent {
        &self.consent
    }

    /// The owner agrees to the statement with this digest.
    ///
    /// # Errors
    /// [`Failure`] when it is another text than this version's, or a class is none of the mode's.
    pub fn agree(&mut self, statement: &stdx::Digest, mode: Mode, classes: BTreeSet<Class>) -> Result<(), Failure> {
        let current = statement_digest();
        if *statement != current {
            let message = format!("{statement} is not the statement of this version, which is {current}");
            const HINT: &str = "read it with `clerestory-agent share statement`, and agree to that one if you do";
            return Err(Failure::rejected("share-statement", message, HINT));
        }
        if let Some(class) = classes.iter().find(|class| !mode.has(**class)) {
            let message = format!("the mode `{mode}` has no {class}");
            return Err(Failure::rejected("share-mode", message, "leave the class out, or choose another mode"));
        }
        if classes.is_empty() {
            let hint = "name each class that you agree to with `--class`";
            return Err(Failure::rejected("share-mode", "no class of data is named", hint));
        }
        let names: Vec<_> = classes.iter().map(|class| class.as_str()).collect();
        let detail = format!("mode {mode}; {}; statement {current}", names.join(", "));
        let agreement = Agreement { decision: Decision::Agree, mode, classes, time: self.ports.clock.now() };
        self.decide(Event::SharingAgreed, agreement, &detail)
    }

    /// The owner agrees no more. What waits is not sent any more, and goes.
    ///
    /// # Errors
    /// [`Failure`] of the disk.
    pub fn withdraw(&mut self) -> Result<(), Failure> {
        let classes = BTreeSet::new();
        let time = self.ports.clock.now();
        let agreement = Agreement { decision: Decision::Withdraw, mode: Mode::File, classes, time };
        self.decide(Event::SharingWithdrawn, agreement, "nothing is shared any more")
    }

    /// The journal has it before it counts.
    fn decide(&mut self, event: Event, agreement: Agreement, detail: &str) -> Result<(), Failure> {
        self.note(event, "", detail)?;
        self.decisions.keep(self.ports.disk, self.ports.entropy, agreement, None)?;
        self.consent = self.decisions.consent()?;
        self.keep_to_consent()
    }

    /// Takes in something that happened, if the owner agreed to its class.
    ///
    /// # Errors
    /// [`Failure`] of the disk.
    pub fn record(&mut self, body: Body) -> Result<Recorded, Failure> {
        let class = body.class();
        if self.consent.allows(class).is_none() {
            return Ok(Recorded::NotAgreed);
        }
        let id = EventId::draw(self.ports.entropy).map_err(|error| Failure::unavailable(error.to_string()))?;
        let event = ShareEvent::new(id.clone(), self.ports.clock.now(), body);
        let bytes = event.line().len() as u64;
        let Some(dropped) = self.outbox.to_drop(class, bytes) else {
            self.note(
                Event::SharingDropped,
                id.as_ref(),
                &format!("{class}: the outbox is full of more important ones"),
            )?;
            return Ok(Recorded::Dropped);
        };
        for waiting in dropped {
            let detail = format!("{}: the outbox is full", waiting.class);
            self.note(Event::SharingDropped, waiting.id.as_ref(), &detail)?;
            self.outbox.remove(self.ports.disk, &waiting.id)?;
        }
        self.outbox.add(self.ports.disk, &event)?;
        Ok(Recorded::Waits(id))
    }

    /// Takes in what rules found; what could not be taken in stays there. Without an agreement all of it goes.
    ///
    /// # Errors
    /// [`Failure`] of the disk.
    pub fn record_all(&mut self, findings: &mut Findings) -> Result<(), Failure> {
        if findings.dropped > 0 && self.consent.allows(Class::Detections).is_some() {
            let detail = format!("{} detections: too many at once", findings.dropped);
            self.note(Event::SharingDropped, "", &detail)?;
        }
        findings.dropped = 0;
        while let Some(next) = findings.detections.front() {
            self.record(next.clone())?;
            findings.detections.pop_front();
        }
        Ok(())
    }

    /// A batch that the intake has is over; the events of one that is under way wait no more.
    pub(super) fn apply(&mut self) -> Result<(), Failure> {
        let Some(batch) = self.batches.under_way()? else { return Ok(()) };
        for event in &batch.events {
            self.outbox.remove(self.ports.disk, event)?;
        }
        if self.batches.is_sent(&batch)? {
            self.batches.end(self.ports.disk)?;
        }
        Ok(())
    }

    /// What the owner does not agree to any more does not wait any more.
    fn keep_to_consent(&mut self) -> Result<(), Failure> {
        let gone: Vec<_> =
            self.outbox.waiting().iter().filter(|it| self.consent.allows(it.class).is_none()).cloned().collect();
        for waiting in gone {
            let detail = format!("{}: not agreed to any more", waiting.class);
            self.note(Event::SharingDropped, waiting.id.as_ref(), &detail)?;
            self.outbox.remove(self.ports.disk, &waiting.id)?;
        }
        if let Some(batch) = self.batches.under_way()?
            && !self.consent.allows(batch.class).is_some_and(Mode::sends)
        {
            // Whether the intake has it nobody here knows.
            let events: Vec<&str> = batch.events.iter().map(AsRef::as_ref).collect();
            let detail = format!("{}: not agreed to any more; may have arrived: {}", batch.class, events.join(" "));
            self.note(Event::SharingDropped, &batch.batch.to_string(), &detail)?;
            self.batches.end(self.ports.disk)?;
        }
        Ok(())
    }

    pub(super) fn note(&self, event: Event, object: &str, detail: &str) -> Result<(), Failure> {
        self.journal.write(self.ports.disk, self.ports.clock.now(), Entry { event, object, detail })
    }

    /// A look-up is about to be sent: the journal has all of it first.
    ///
    /// # Errors
    /// [`Failure`] of the disk, and when the owner has not agreed.
    pub fn about_to_ask(&self, relay: &str, question: &str) -> Result<(), Failure> {
        if !self.consent.allows(Class::Lookups).is_some_and(Mode::sends) {
            return Err(not_agreed(Class::Lookups));
        }
        self.note(Event::Asked, relay, question)
    }
}

pub(super) fn not_agreed(class: Class) -> Failure {
    let message = format!("the owner has not agreed to share {class}");
    const HINT: &str = "`clerestory-agent share statement` says what that is; nothing was sent";
    Failure::rejected("share-not-agreed", message, HINT)
}
