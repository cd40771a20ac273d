//! Sending: seal, keep, send until the intake has it, write that down.

use std::path::PathBuf;
use std::time::Duration;

use api::{BaseUrl, BodyLimit, Client, ClientError, ErrorClass};
use attest::{Envelope, Receipt, Statement, Subject};
use seal::{Header, OwnerSecret};
use serde::{Deserialize, Serialize};
use stdx::{Digest, UnixTime};

use super::batch::{self, Batch, SENT_BYTES_MAX, SentBatch};
use super::{Class, Consent, Share};
use crate::failure::Failure;
use crate::journal::Event;

/// One batch of events; the content of a file is a batch of its own, whatever its size.
const BATCH_BYTES_MAX: u64 = 256 << 10;
const BATCH_EVENTS_MAX: usize = 512;

/// One sending empties a full outbox; whatever comes meanwhile waits for the next.
const BATCHES_MAX: usize = 4096;

/// A receipt is one small statement with a signature.
const RECEIPT_BYTES_MAX: BodyLimit = BodyLimit(4096);

/// After a failure: a minute, doubled each time, up to six hours, and of that a random half; longer if the intake
/// asks for it (`Retry-After`).
const RETRY_FIRST: Duration = Duration::from_secs(60);
const RETRY_MAX: Duration = Duration::from_secs(6 * 3600);

/// Why nothing can be sealed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SealRefused(pub String);

/// The port to what seals for the owner's region.
///
/// - *Trust*: whatever it gives goes over the wire; it must hide the plaintext from everybody but
///   all custodians together. It knows who may say that a vault has it.
pub trait Seal {
    /// Seals a batch of `class` under the name that `owner` gives it.
    ///
    /// # Errors
    /// [`SealRefused`] when there is nobody to seal for; nothing is sent then.
    fn seal(&self, owner: &OwnerSecret, class: Class, plaintext: &[u8]) -> Result<Vec<u8>, SealRefused>;

    /// What `envelope` says of `sealed`, if somebody who may say so has signed it, and it is kept where it
    /// was sealed for.
    ///
    /// # Errors
    /// [`SealRefused`] when it is no receipt.
    fn receipt(&self, sealed: &[u8], envelope: &Envelope) -> Result<Statement<Receipt>, SealRefused>;
}

/// Where to, and sealed by what.
#[derive(Clone, Copy)]
pub struct Sending<'a> {
    /// The vendor's intake.
    pub intake: &'a BaseUrl,
    /// What seals.
    pub seal: &'a dyn Seal,
    /// The network.
    pub client: &'a Client,
}

/// What a sending came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Nothing may be sent: the owner did not agree, or wants it in a file.
    Off,
    /// So many batches arrived, and nothing waits any more.
    Sent(usize),
    /// An earlier failure is not long enough ago.
    Later(UnixTime),
}

/// When to try again.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Retry {
    failures: u32,
    not_before: UnixTime,
}

impl Share<'_> {
    /// Sends what waits, if the owner agreed and no failure was just before.
    ///
    /// # Errors
    /// [`Failure`] when the intake does not take a batch; it is kept and tried again later.
    pub fn send(&mut self, sending: Sending<'_>) -> Result<Outcome, Failure> {
        let Consent::Given(agreement) = &self.consent else { return Ok(Outcome::Off) };
        if !agreement.mode.sends() {
            return Ok(Outcome::Off);
        }
        if let Some(later) = self.retry_later()? {
            return Ok(Outcome::Later(later));
        }
        for sent in 0..BATCHES_MAX {
            let Some(batch) = self.next_batch(sending.seal)? else {
                return Ok(Outcome::Sent(sent));
            };
            let mut wanted = Duration::ZERO;
            if let Err(failure) = self.send_batch(&batch, sending, &mut wanted) {
                if failure.class != ErrorClass::Fatal {
                    self.back_off(wanted)?;
                }
                return Err(failure);
            }
        }
        Ok(Outcome::Sent(BATCHES_MAX))
    }

    /// Sends one; `wanted` is how long the intake wants to be left alone, if it says so.
    fn send_batch(&mut self, batch: &Batch, sending: Sending<'_>, wanted: &mut Duration) -> Result<(), Failure> {
        const HINT: &str = "it is kept and sent again later; `clerestory-agent share show` prints it";
        let sealed = batch.sealed(&self.batches.path())?;
        let url = sending.intake.join(api::path::EVENTS);
        let answer = sending.client.post(&url, &sealed, RECEIPT_BYTES_MAX).map_err(|error| {
            if let ClientError::Status { retry_after: Some(after), .. } = &error {
                *wanted = *after;
            }
            match error.class() {
                ErrorClass::Rejected => Failure::rejected("share-refused", error.to_string(), HINT),
                ErrorClass::Unavailable | ErrorClass::Fatal => Failure::unavailable(error.to_string()),
            }
        })?;
        // A receipt says one thing only. Whoever answers can ask for nothing.
        let no_receipt =
            |why: String| Failure::rejected("share-receipt", format!("{url}: this is no receipt: {why}"), HINT);
        let envelope = Envelope::parse(&answer).map_err(|error| no_receipt(error.to_string()))?;
        let says = sending.seal.receipt(&sealed, &envelope).map_err(|error| no_receipt(error.to_string()))?;
        let bytes = sealed.len() as u64;
        if says.subject != [Subject::new("object", batch.batch)] || says.predicate.bytes != bytes {
            return Err(no_receipt("it is another batch's".to_owned()));
        }
        let time = self.ports.clock.now();
        let sent = SentBatch {
            batch: batch.batch,
            class: batch.class,
            header: Header::parse(&sealed).ok().map(|(header, _)| Digest::of(&header.to_bytes())),
            bytes,
            time,
            intake: sending.intake.to_string(),
            receipt: Some(String::from_utf8_lossy(&answer).into_owned()),
            owner: batch.owner.clone(),
            plain: batch.plain.clone(),
        };
        self.batches.keep_sent(self.ports.disk, &sent)?;
        let detail = format!(
            "{} events of class {}, {bytes} bytes to {url}; receipt {}",
            batch.events.len(),
            batch.class,
            envelope.id()
        );
        self.note(Event::Shared, &batch.batch.to_string(), &detail)?;
        self.batches.end(self.ports.disk)?;
        let path = self.retry_path();
        self.ports.disk.remove(&path).map_err(|error| Failure::file(&path, &error))
    }

    /// The batch that is under way, or else the next one, sealed and durable.
    fn next_batch(&mut self, seal: &dyn Seal) -> Result<Option<Batch>, Failure> {
        if let Some(batch) = self.batches.under_way()? {
            return Ok(Some(batch));
        }
        let Some(class) = self.outbox.waiting().first().map(|it| it.class) else { return Ok(None) };
        let (mut plain, mut events) = (String::new(), Vec::new());
        for waiting in self.outbox.waiting().iter().filter(|it| it.class == class) {
            let line = self.outbox.line(waiting)?;
            let full = (plain.len() + line.len()) as u64 > BATCH_BYTES_MAX || events.len() == BATCH_EVENTS_MAX;
            if full && !events.is_empty() {
                break;
            }
            plain.push_str(&line);
            events.push(waiting.id.clone());
        }
        if self.batches.sent_bytes()?.saturating_add(plain.len() as u64) > SENT_BYTES_MAX {
            let message = format!("the record of what was sent has {SENT_BYTES_MAX} bytes; nothing more is sent");
            const HINT: &str = "take it away with `clerestory-agent share export FILE --remove`";
            return Err(Failure::rejected("share-record-full", message, HINT));
        }
        let owner = OwnerSecret::draw(self.ports.entropy).map_err(|error| Failure::unavailable(error.to_string()))?;
        let sealed = seal.seal(&owner, class, plain.as_bytes()).map_err(|error| {
            const HINT: &str = "nothing is sent unsealed; the mode `file` needs no seal";
            Failure::rejected("share-unsealed", format!("nothing can be sealed: {error}"), HINT)
        })?;
        let batch = Batch::new(class, events, plain, &sealed).of(&owner);
        self.batches.start(self.ports.disk, &batch)?;
        self.apply()?;
        Ok(Some(batch))
    }

    fn retry_path(&self) -> PathBuf {
        self.folder.join("retry.json")
    }

    /// When to try again, if that is not now. A time further off than any pause is a clock's error.
    fn retry_later(&self) -> Result<Option<UnixTime>, Failure> {
        let Some(retry) = batch::read::<Retry>(&self.retry_path())? else { return Ok(None) };
        let now = self.ports.clock.now();
        let waits = now < retry.not_before && retry.not_before.since(now) <= RETRY_MAX;
        Ok(waits.then_some(retry.not_before))
    }

    /// Notes when to try again; an intake that says when is believed, within bounds.
    fn back_off(&self, wanted: Duration) -> Result<(), Failure> {
        let failures = batch::read::<Retry>(&self.retry_path())?.unwrap_or_default().failures;
        let longest = RETRY_FIRST.saturating_mul(1 << failures.min(16)).min(RETRY_MAX);
        let mut random = [0; 2];
        self.ports.entropy.fill(&mut random).map_err(|error| Failure::unavailable(error.to_string()))?;
        // So that machines which failed together don't come back together.
        let half = longest / 2;
        let pause = half + half.mul_f64(f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX));
        let not_before = self.ports.clock.now().after(pause.max(wanted.min(RETRY_MAX)));
        let retry = Retry { failures: failures.saturating_add(1), not_before };
        batch::write(self.ports.disk, &self.retry_path(), &retry)
    }
}
