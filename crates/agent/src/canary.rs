//! Going first: the owner's agreement, a key of this host's own, and reports of how rules fare here.
//!
//! A report says what [`attest::Health`] has, and nothing else. Its number is durable before the report
//! is sent, so that no number is ever used twice, whenever the process ends.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use api::{BodyLimit, ErrorClass, path as api_path};
use attest::{Agreement, Envelope, Health, HostId, Outcome, Ring, Statement, StatementId, Subject};
use serde::{Deserialize, Serialize};
use stdx::{Entropy, UnixTime, durable};
use tlog::{KeyKind, SignerKey, VerifierKey};

use crate::config::{Config, Product};
use crate::endpoint::{Endpoint, Ports};
use crate::failure::Failure;
use crate::guard::Told;
use crate::report::Report;
use crate::slots::{InstalledFile, Slots};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The supervisor answers with `null`.
const ANSWER_BYTES_MAX: BodyLimit = BodyLimit(4096);

const HINT: &str = "see `clerestory-agent canary status`";

/// What a host that goes first must not forget.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    host: HostId,
    /// The supervisor's statement, once its operator has told it.
    enrolment: Option<StatementId>,
    /// The number of the last report that may have been sent.
    sequence: u64,
    /// Since the release in use was taken into use.
    counts: Option<Counts>,
    /// What the supervisor was told last, of the release in use and of one that was given up.
    sent: Vec<Sent>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Counts {
    release: StatementId,
    crashes: u64,
    detections: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    counts: Counts,
    ring: Ring,
    outcome: Outcome,
}

/// What an owner agrees to for this host.
#[derive(Clone, Debug)]
pub struct Offer {
    /// What the host is to be called.
    pub host: HostId,
    /// For how many days.
    pub days: u64,
}

/// How a host that goes first stands.
#[derive(Clone, Debug, Serialize)]
pub struct CanaryStatus {
    /// What it is called.
    pub host: HostId,
    /// Its key.
    pub key: VerifierKey,
    /// The owner's agreement.
    pub agreement: StatementId,
    /// Its file: what the supervisor enrols by.
    pub file: PathBuf,
    /// Until when it holds.
    pub until: UnixTime,
    /// The supervisor's enrolment, if it is known here.
    pub enrolment: Option<StatementId>,
    /// So many reports may have been sent.
    pub reports: u64,
}

impl fmt::Display for CanaryStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "host       {}, until {}", self.host, self.until)?;
        writeln!(f, "key        {}", self.key)?;
        writeln!(f, "agreement  {}, in {}", self.agreement, self.file.display())?;
        match &self.enrolment {
            Some(enrolment) => writeln!(f, "enrolment  {enrolment}, {} report(s)", self.reports),
            None => writeln!(
                f,
                "enrolment  none: give the agreement to the supervisor, and what it answers to \
                 `clerestory-agent canary enrolled`"
            ),
        }
    }
}

/// This host as one that goes first.
pub struct Canary<'a> {
    folder: PathBuf,
    ports: Ports<'a>,
}

impl<'a> Canary<'a> {
    /// Of this configuration's state.
    #[must_use]
    pub fn new(config: &Config, ports: Ports<'a>) -> Self {
        Self { folder: config.state.join("canary"), ports }
    }

    /// Signs the owner's agreement with a key that is drawn for it.
    ///
    /// # Errors
    /// [`Failure`] if there is an agreement already, or nobody to report to.
    pub fn agree(&self, config: &Config, offer: &Offer, entropy: &dyn Entropy) -> Result<CanaryStatus, Failure> {
        if config.canary.is_none() {
            let hint = "name the supervisor's server under `[canary]`, and the rules under `[scan]`";
            return Err(Failure::rejected("canary", "the configuration says nothing of where reports go", hint));
        }
        if self.path(AGREEMENT).exists() {
            let message = format!("{}: the owner has agreed already", self.folder.display());
            return Err(Failure::rejected(
                "canary",
                message,
                "to agree anew, leave first (`clerestory-agent canary leave`)",
            ));
        }
        self.ports.disk.create_folder(&self.folder).map_err(|error| Failure::file(&self.folder, &error))?;
        let key = self.new_key(&offer.host, entropy)?;
        let time = self.ports.clock.now();
        let until = time.after(DAY.saturating_mul(u32::try_from(offer.days).unwrap_or(u32::MAX)));
        let predicate = Agreement { host: offer.host.clone(), key: key.verifier().clone(), time, until };
        let envelope = sign(Statement { subject: vec![Agreement::subject()], predicate }, &key)?;
        let kept = Kept { host: offer.host.clone(), enrolment: None, sequence: 0, counts: None, sent: Vec::new() };
        self.save(&kept)?;
        // The last file makes it hold.
        self.write(AGREEMENT, &envelope.to_bytes())?;
        self.status()
    }

    /// Takes down under which enrolment this host's reports count.
    ///
    /// # Errors
    /// [`Failure`] if the owner has not agreed.
    pub fn enrolled(&self, enrolment: StatementId) -> Result<CanaryStatus, Failure> {
        let mut kept = self.load()?.ok_or_else(not_agreed)?;
        // Numbers go on: also those of an enrolment that comes back are never used twice.
        kept.enrolment = Some(enrolment);
        kept.sent.clear();
        self.save(&kept)?;
        self.status()
    }

    /// Ends the agreement here: the key is destroyed, and nothing is reported any more.
    ///
    /// # Errors
    /// [`Failure`] if a file can't be removed.
    pub fn leave(&self) -> Result<(), Failure> {
        if self.load()?.is_none() {
            return Err(not_agreed());
        }
        for name in [AGREEMENT, STATE, KEY] {
            let path = self.path(name);
            self.ports.disk.remove(&path).map_err(|error| Failure::file(&path, &error))?;
        }
        Ok(())
    }

    /// How this host stands.
    ///
    /// # Errors
    /// [`Failure`] if the owner has not agreed.
    pub fn status(&self) -> Result<CanaryStatus, Failure> {
        let kept = self.load()?.ok_or_else(not_agreed)?;
        let file = self.path(AGREEMENT);
        let bytes = fs::read(&file).map_err(|error| Failure::file(&file, &error))?;
        let envelope = Envelope::parse(&bytes).map_err(|error| Failure::state(&file, error))?;
        let agreement =
            Statement::<Agreement>::decode(envelope.payload()).map_err(|error| Failure::state(&file, error))?;
        let Agreement { host, key, until, .. } = agreement.predicate;
        let (enrolment, reports) = (kept.enrolment, kept.sequence);
        Ok(CanaryStatus { host, key, agreement: envelope.id(), file, until, enrolment, reports })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let path = self.path(name);
        self.ports.disk.write(&path, bytes).map_err(|error| Failure::file(&path, &error))
    }

    fn save(&self, kept: &Kept) -> Result<(), Failure> {
        self.write(STATE, &serde_json::to_vec(kept).expect("names, digests and numbers are always JSON"))
    }

    /// What is kept, if the owner has agreed.
    fn load(&self) -> Result<Option<Kept>, Failure> {
        if !self.path(AGREEMENT).exists() {
            return Ok(None);
        }
        let path = self.path(STATE);
        let bytes = fs::read(&path).map_err(|error| Failure::file(&path, &error))?;
        serde_json::from_slice(&bytes).map(Some).map_err(|error| Failure::state(&path, error))
    }

    /// A key that a crash left before it was used is as good as a new one.
    fn new_key(&self, host: &HostId, entropy: &dyn Entropy) -> Result<SignerKey, Failure> {
        let path = self.path(KEY);
        self.ports.disk.remove(&path).map_err(|error| Failure::file(&path, &error))?;
        let name = format!("{host}/canary").parse().expect("a host's name is a part of a key's name");
        let key = SignerKey::generate(name, KeyKind::Ed25519, entropy)
            .map_err(|error| Failure::unavailable(format!("no key can be drawn: {error}")))?;
        let text = key.to_secret_text();
        durable::write_private(&path, text.as_bytes()).map_err(|error| Failure::file(&path, &error))?;
        Ok(key)
    }

    fn key(&self) -> Result<SignerKey, Failure> {
        let path = self.path(KEY);
        let text = fs::read_to_string(&path).map_err(|error| Failure::file(&path, &error))?;
        text.parse().map_err(|_| Failure::state(&path, "no key of a host"))
    }
}

const KEY: &str = "key";
const STATE: &str = "state.json";
const AGREEMENT: &str = "agreement.envelope";

/// What there is to report.
struct Fared {
    sent: Sent,
    files: Vec<InstalledFile>,
}

impl Endpoint<'_> {
    /// Adds to what is counted of the rules in use, if this host goes first.
    ///
    /// # Errors
    /// [`Failure`] of the agent's own state.
    pub fn count(&mut self, told: Told) -> Result<(), Failure> {
        let canary = Canary::new(self.config, self.ports);
        let Some((mut kept, slots)) = self.as_canary(&canary)? else { return Ok(()) };
        let Some(active) = slots.record.active.as_ref().filter(|_| told != Told::default()) else { return Ok(()) };
        let mut counts = counts_of(&kept, active.release);
        counts.crashes = counts.crashes.saturating_add(told.crashes);
        counts.detections = counts.detections.saturating_add(told.detections);
        kept.counts = Some(counts);
        canary.save(&kept)
    }

    /// Tells the supervisor how rules fare here, if this host goes first and there is something new to
    /// tell.
    ///
    /// # Errors
    /// [`Failure`] of the agent's own state; everything else is in the report.
    pub fn report_health(&mut self) -> Result<Report, Failure> {
        let mut report = Report::default();
        let canary = Canary::new(self.config, self.ports);
        let (Some((mut kept, slots)), Some(product)) = (self.as_canary(&canary)?, self.config.scanned()) else {
            return Ok(report);
        };
        let (Some(enrolment), Some(section)) = (kept.enrolment, &self.config.canary) else { return Ok(report) };
        let fared = self.fared(product, &slots, &kept);
        let key = canary.key()?;
        for Fared { sent, files } in &fared {
            if kept.sent.contains(sent) {
                continue;
            }
            kept.sequence += 1;
            canary.save(&kept)?;
            let health = Health {
                enrolment,
                sequence: kept.sequence,
                time: self.ports.clock.now(),
                product: product.id.clone(),
                release: sent.counts.release,
                ring: sent.ring,
                outcome: sent.outcome,
                crashes: sent.counts.crashes,
                detections: sent.counts.detections,
            };
            let subject = files.iter().map(|file| Subject::new(file.name.clone(), file.sha256)).collect();
            let envelope = sign(Statement { subject, predicate: health }, &key)?;
            let url = section.supervisor.join(api_path::REPORTS);
            let client = self.ports.client.with_timeout(Duration::from_secs(self.config.network.timeout_s));
            match client.post(&url, &envelope.to_bytes(), ANSWER_BYTES_MAX) {
                Ok(_) => {}
                Err(error) if error.class() == ErrorClass::Rejected => {
                    let hint = "ask the supervisor whether this host is enrolled; leave, if it is to go first no more";
                    self.note(product.id.as_str(), Failure::rejected("report", error.to_string(), hint), &mut report)?;
                }
                Err(error) => {
                    self.note(product.id.as_str(), Failure::unavailable(error.to_string()), &mut report)?;
                    return Ok(report);
                }
            }
            kept.sent.retain(|old| fared.iter().any(|it| it.sent.counts.release == old.counts.release));
            kept.sent.retain(|old| old.counts.release != sent.counts.release);
            kept.sent.push(*sent);
            canary.save(&kept)?;
        }
        Ok(report)
    }

    fn as_canary(&self, canary: &Canary<'_>) -> Result<Option<(Kept, Slots)>, Failure> {
        let Some(product) = self.config.scanned().filter(|_| self.config.canary.is_some()) else { return Ok(None) };
        match canary.load()? {
            Some(kept) => Ok(Some((kept, self.slots(product)?))),
            None => Ok(None),
        }
    }

    /// How the release in use fares, and the last one that did not come into use or did not stay.
    fn fared(&self, product: &Product, slots: &Slots, kept: &Kept) -> Vec<Fared> {
        let ring = self.config.ring_of(product);
        let unfit = slots.record.unfit.as_ref().map(|it| (it.release, it.outcome, &it.files));
        let active = slots.record.active.as_ref().map(|it| (it.release, Outcome::Active, &it.files));
        let told = unfit.into_iter().chain(active).map(|(release, outcome, files)| {
            // What was told of a release that was given up has its last counts.
            let last = kept.sent.iter().map(|sent| sent.counts).find(|counts| counts.release == release);
            let counts = match kept.counts.filter(|counts| counts.release == release) {
                Some(counts) => counts,
                None => last.unwrap_or_else(|| counts_of(kept, release)),
            };
            Fared { sent: Sent { counts, ring, outcome }, files: files.clone() }
        });
        told.collect()
    }
}

fn counts_of(kept: &Kept, release: StatementId) -> Counts {
    let same = kept.counts.filter(|counts| counts.release == release);
    same.unwrap_or(Counts { release, crashes: 0, detections: 0 })
}

fn sign<P: attest::Predicate>(statement: Statement<P>, key: &SignerKey) -> Result<Envelope, Failure> {
    let refuse =
        |error: &dyn fmt::Display| Failure::rejected("canary", format!("nothing can be signed: {error}"), HINT);
    let payload = statement.encode().map_err(|error| refuse(&error))?;
    Envelope::sign(payload, &[key]).map_err(|error| refuse(&error))
}

fn not_agreed() -> Failure {
    Failure::rejected(
        "canary",
        "this host's owner has not agreed that it goes first",
        "`clerestory-agent canary agree`",
    )
}
