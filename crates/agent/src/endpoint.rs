//! The endpoint: its configuration, its state, and what every command does with evidence.

use std::path::{Path, PathBuf};
use std::time::Duration;

use api::{Client, ErrorClass};
use attest::{Bundle, Envelope, Lane, StatementId};
use detection::Worker;
use stdx::{Clock, Digest, FileLock};
use verify::{CurrentStatus, Evidence, Moment, Refusal, StatusMark, TrustedPolicy};

use crate::channel_source::Progress;
use crate::config::{Config, Product};
use crate::disk::Disk;
use crate::failure::Failure;
use crate::journal::{Entry, Event, Journal};
use crate::lookup;
use crate::memory::{Memory, Prover};
use crate::report::{Change, Report};
use crate::rules::{self, Gate};
use crate::slots::{Places, Slots, forbidden};
use crate::trust;

/// The code of a failure that ends all taking of new things.
pub(crate) const POLICY_WITHHELD: &str = "policy-withheld";

/// What a state has below it.
const FOLDERS: [&str; 4] = ["policy", "products", "tuf", "misbehaviour"];

/// A second in all.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// What the endpoint needs of the machine.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// The time, which may be wrong.
    pub clock: &'a dyn Clock,
    /// The disk.
    pub disk: &'a dyn Disk,
    /// Who wants to know how a download goes.
    pub progress: &'a dyn Progress,
    /// The network; how long a request may take, the configuration says.
    pub client: &'a Client,
    /// Who compiles and tests rules before they are used.
    pub rules: &'a Gate,
}

/// The policy that trust begins with.
#[derive(Clone, Copy, Debug)]
pub struct Genesis<'a> {
    /// Its hash, from another channel.
    pub id: &'a StatementId,
    /// Its envelope, from anywhere.
    pub envelope: &'a [u8],
}

/// An endpoint with its state open.
pub struct Endpoint<'a> {
    pub(crate) config: &'a Config,
    pub(crate) ports: Ports<'a>,
    pub(crate) policy: TrustedPolicy,
    pub(crate) memory: Memory,
    /// The memory as the disk has it.
    kept: Memory,
    pub(crate) journal: Journal,
    /// Held for as long as the state may be changed.
    _lock: Option<FileLock>,
}

impl<'a> Endpoint<'a> {
    /// Makes the state, trusting the policy with this hash. There is no trust on first use.
    ///
    /// # Errors
    /// [`Failure`] when there is a state already, or the policy is another.
    pub fn init(config: &Config, ports: Ports<'_>, genesis: Genesis<'_>) -> Result<(), Failure> {
        let envelope = Envelope::parse(genesis.envelope).map_err(|error| {
            Failure::rejected("malformed", format!("the policy: {error}"), "get the policy's envelope again")
        })?;
        let policy = TrustedPolicy::bootstrap(&envelope, genesis.id)?;
        let (state, disk) = (config.state.as_path(), ports.disk);
        let marker = trust::genesis_path(state);
        if marker.exists() {
            const HINT: &str = "to begin anew, move the state folder away by hand: it is what protects from rollback";
            let message = format!("{}: this machine trusts a policy already", state.display());
            return Err(Failure::rejected("initialised", message, HINT));
        }
        for folder in FOLDERS.map(|name| state.join(name)) {
            disk.create_folder(&folder).map_err(|error| Failure::file(&folder, &error))?;
        }
        let format = trust::format_path(state);
        disk.write(&format, trust::FORMAT.as_bytes()).map_err(|error| Failure::file(&format, &error))?;
        let first = trust::policy_path(state, 1);
        disk.write(&first, genesis.envelope).map_err(|error| Failure::file(&first, &error))?;
        Memory { owner: config.owners_policy(), ..Memory::default() }.save(state, disk)?;
        let entry =
            Entry { event: Event::Initialised, object: &policy.policy().name, detail: &policy.id().to_string() };
        Journal::new(state).write(disk, ports.clock.now(), entry)?;
        disk.write(&marker, format!("{}\n", policy.id()).as_bytes()).map_err(|error| Failure::file(&marker, &error))
    }

    /// Opens the state to change it, alone, and does what a crash left undone.
    ///
    /// # Errors
    /// [`Failure`], temporary while another process has it open.
    pub fn open(config: &'a Config, ports: Ports<'a>) -> Result<Self, Failure> {
        trust::load(&config.state)?;
        let lock = lock(&config.state)?;
        for folder in FOLDERS.map(|name| config.state.join(name)).iter().chain([&config.state]) {
            ports.disk.sweep(folder).map_err(|error| Failure::file(folder, &error))?;
        }
        let mut endpoint = Self { _lock: Some(lock), ..Self::read(config, ports)? };
        for product in &config.products {
            endpoint.slots(product)?.apply(ports.disk)?;
        }
        let owner = config.owners_policy();
        if endpoint.memory.owner != owner {
            let detail = format!("from {} to {owner}", endpoint.memory.owner);
            endpoint.record(Event::OwnerChanged, "", &detail)?;
            endpoint.memory.owner = owner;
            endpoint.remember()?;
        }
        Ok(endpoint)
    }

    /// Opens the state to look at it.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn read(config: &'a Config, ports: Ports<'a>) -> Result<Self, Failure> {
        let policy = trust::load(&config.state)?;
        let memory = Memory::load(&config.state)?;
        let kept = memory.clone();
        Ok(Self { config, ports, policy, memory, kept, journal: Journal::new(&config.state), _lock: None })
    }

    /// The policy in force.
    #[must_use]
    pub const fn policy(&self) -> &TrustedPolicy {
        &self.policy
    }

    pub(crate) fn slots(&self, product: &Product) -> Result<Slots, Failure> {
        Slots::read(Places { state: &self.config.state, install: &self.config.install }, &product.id)
    }

    /// The lanes that releases of a product may come through: rules also through the slow one, which
    /// asks more. None, if the policy does not have the product.
    pub(crate) fn lanes_of(&self, product: &Product) -> &'static [Lane] {
        match self.policy.policy().product(&product.id).map(|it| it.lane) {
            None => &[],
            Some(Lane::Slow) => &[Lane::Slow],
            Some(Lane::Fast) => &[Lane::Fast, Lane::Slow],
        }
    }

    /// The file with the rules in use for scanning, which is what was installed.
    ///
    /// # Errors
    /// [`Failure`] if there are none, or somebody altered them.
    pub fn rules(&self) -> Result<PathBuf, Failure> {
        const HINT: &str = "name the rules under `[scan]`, and run `clerestory-agent update`";
        let none = || Failure::rejected("no-rules", "no rules are in use here", HINT);
        let slots = self.slots(self.config.scanned().ok_or_else(none)?)?;
        slots.check_active(slots.record.active.as_ref().ok_or_else(none)?)?;
        Ok(slots.current().join(detection::BUNDLE_FILE))
    }

    /// The folder with the set that `[lookup]` names, and the set's digest as it was installed; none if no release
    /// with a set is in use.
    ///
    /// # Errors
    /// [`Failure`] if what is installed can't be told.
    pub(crate) fn set(&self) -> Result<Option<(PathBuf, Digest)>, Failure> {
        let Some(product) = self.config.known() else { return Ok(None) };
        let slots = self.slots(product)?;
        let files = slots.record.active.iter().flat_map(|active| &active.files);
        let digest = files.filter(|file| file.name == detection::SET_FILE).map(|file| file.sha256).next();
        Ok(digest.map(|digest| (slots.current(), digest)))
    }

    /// The file with that set, which is what was installed.
    ///
    /// # Errors
    /// [`Failure`] if somebody altered it.
    pub fn set_file(&self) -> Result<Option<PathBuf>, Failure> {
        let (found, folder) = (lookup::set_in_use(self)?, self.set()?);
        Ok(found.and(folder).map(|(folder, _)| folder.join(detection::SET_FILE)))
    }

    /// A confined child that has compiled the rules in use.
    ///
    /// # Errors
    /// [`Failure`] if there are none, or no child to be had.
    pub(crate) fn engine(&self) -> Result<Worker, Failure> {
        let path = self.rules()?;
        self.ports.rules.compile(&rules::read(path.parent().unwrap_or(&path))?)
    }

    /// Whether a product is detection rules, by the policy.
    pub(crate) fn is_rules(&self, product: &Product) -> bool {
        self.policy.policy().product(&product.id).is_some_and(|it| it.lane == Lane::Fast)
    }

    /// Now, for evidence that came over the network: the smaller of both ages counts.
    pub(crate) fn online(&self) -> Moment {
        let age = within(self.policy.policy().ages.online(), self.config.ages.online_s);
        Moment::new(self.ports.clock, self.memory.evidence, age)
    }

    /// Now, for evidence that came on a stick.
    pub(crate) fn offline(&self) -> Moment {
        let age = within(self.policy.policy().ages.import(), self.config.ages.import_s);
        Moment::offline(self.ports.clock, self.memory.evidence, age)
    }

    /// Takes in the checkpoints of verified evidence, whatever else comes of it.
    pub(crate) fn see(&mut self, evidence: &Evidence<'_>, bundle: &Bundle, prover: &dyn Prover) -> Result<(), Failure> {
        for signed in bundle.checkpoints() {
            if let Err(refusal) = self.memory.see(signed, prover) {
                return Err(self.misbehaviour(refusal, &signed.to_string())?);
            }
        }
        self.memory.evidence = self.memory.evidence.max(evidence.latest());
        self.remember()
    }

    /// Keeps both halves of a proof of misbehaviour, for anyone to see.
    fn misbehaviour(&self, refusal: Refusal, other: &str) -> Result<Failure, Failure> {
        let failure = Failure::from(refusal);
        let seen = self.memory.logs.iter().find(|log| other.starts_with(&format!("{}\n", log.seen.origin)));
        let both = format!("{}\n{other}", seen.map_or("", |log| &log.note));
        let path = self.config.state.join("misbehaviour").join(format!("{}.txt", Digest::of(both.as_bytes())));
        self.ports.disk.write(&path, both.as_bytes()).map_err(|error| Failure::file(&path, &error))?;
        self.record(Event::SplitView, &path.display().to_string(), &failure.message)?;
        Ok(failure)
    }

    /// The status in a bundle, if it holds and is none that came before `seen`.
    pub(crate) fn judge_status(
        &mut self,
        bytes: &[u8],
        lane: Lane,
        seen: Option<StatusMark>,
        prover: &dyn Prover,
        moment: fn(&Self) -> Moment,
    ) -> Result<CurrentStatus, Failure> {
        let bundle = parse_bundle(bytes)?;
        let policy = self.policy.clone();
        let evidence = Evidence::open(&policy, &bundle)?;
        self.see(&evidence, &bundle, prover)?;
        policy.current_status(&evidence, lane, seen, &moment(self)).map_err(|refusal| status_failure(refusal, &policy))
    }

    /// Remembers a status that holds, with the bundle that shows it.
    pub(crate) fn keep_status(&mut self, status: &CurrentStatus, bytes: &[u8]) -> Result<(), Failure> {
        let (folder, path) = (self.config.state.join("status"), self.status_path(status.status().lane));
        self.ports.disk.create_folder(&folder).map_err(|error| Failure::file(&folder, &error))?;
        self.ports.disk.write(&path, bytes).map_err(|error| Failure::file(&path, &error))?;
        let policy = self.policy.clone();
        self.memory.keep_status(status, policy.policy());
        self.remember()
    }

    /// The bundle with the newest status that was seen; whoever still shows it need not send it.
    pub(crate) fn status_path(&self, lane: Lane) -> PathBuf {
        self.config.state.join(channel::layout::status(lane))
    }

    /// Puts the next policy into force, if the present one agrees.
    pub(crate) fn take_policy(
        &mut self,
        bytes: &[u8],
        prover: &dyn Prover,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let bundle = parse_bundle(bytes)?;
        let policy = self.policy.clone();
        let evidence = Evidence::open(&policy, &bundle)?;
        self.see(&evidence, &bundle, prover)?;
        let next = policy.succeed(&evidence)?;
        let version = next.policy().version;
        let path = trust::policy_path(&self.config.state, version);
        self.ports.disk.write(&path, bytes).map_err(|error| Failure::file(&path, &error))?;
        self.policy = next;
        self.record(Event::PolicySucceeded, &version.to_string(), &self.policy.id().to_string())?;
        report.changes.push(Change::Policy { version });
        Ok(())
    }

    /// Stops what the newest known status forbids: reverts, or switches off where nothing may run.
    pub(crate) fn enforce(&mut self, report: &mut Report) -> Result<(), Failure> {
        for product in &self.config.products {
            let mut slots = self.slots(product)?;
            let Some(active) = slots.record.active.clone() else { continue };
            let Some(known) = self.memory.status.get(&active.lane) else { continue };
            let Some(reason) = forbidden(&product.id, &active, &known.status) else { continue };
            self.go_back(product, &mut slots, &reason, report)?;
        }
        Ok(())
    }

    /// Reverts, or switches off.
    fn go_back(&self, product: &Product, slots: &mut Slots, reason: &str, report: &mut Report) -> Result<(), Failure> {
        match self.revert(product, slots, reason, report) {
            Ok(()) => Ok(()),
            Err(failure) if failure.code == "no-way-back" => {
                let reason = format!("{reason}; {}", failure.message);
                slots.disable(self.ports.disk, &reason)?;
                self.record(Event::Disabled, product.id.as_str(), &reason)?;
                report.changes.push(Change::Disabled { product: product.id.clone(), reason });
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    /// Puts the previous release back.
    pub(crate) fn revert(
        &self,
        product: &Product,
        slots: &mut Slots,
        reason: &str,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let lane = slots.record.active.as_ref().map(|active| active.lane);
        let status = lane.and_then(|lane| self.memory.status.get(&lane)).map(|known| &known.status);
        slots.revert(self.ports.disk, &product.id, status)?;
        self.record(Event::Reverted, product.id.as_str(), reason)?;
        if let Some(active) = &slots.record.active {
            let (product, number) = (product.id.clone(), active.number);
            report.changes.push(Change::Reverted { product, number, reason: reason.to_owned() });
        }
        Ok(())
    }

    /// Makes the memory durable. Most looks find nothing new, and write nothing.
    pub(crate) fn remember(&mut self) -> Result<(), Failure> {
        if self.memory != self.kept {
            self.memory.save(&self.config.state, self.ports.disk)?;
            self.kept = self.memory.clone();
        }
        Ok(())
    }

    pub(crate) fn record(&self, event: Event, object: &str, detail: &str) -> Result<(), Failure> {
        self.journal.write(self.ports.disk, self.ports.clock.now(), Entry { event, object, detail })
    }

    /// Journals and reports a failure; one of the agent's own state ends the command.
    pub(crate) fn note(&self, object: &str, failure: Failure, report: &mut Report) -> Result<(), Failure> {
        self.journal_failure(object, &failure)?;
        report.failures.push(failure);
        Ok(())
    }

    pub(crate) fn journal_failure(&self, object: &str, failure: &Failure) -> Result<(), Failure> {
        let event = match failure.class {
            ErrorClass::Fatal => return Err(failure.clone()),
            ErrorClass::Unavailable => Event::Unavailable,
            ErrorClass::Rejected => Event::Refused,
        };
        self.record(event, object, &format!("{}: {}", failure.code, failure.message))
    }
}

/// The smaller of the policy's age and the owner's.
fn within(age: Duration, owner_s: Option<u64>) -> Duration {
    owner_s.map_or(age, |seconds| age.min(Duration::from_secs(seconds)))
}

/// A status of the right party that names a policy which this machine never got is no ordinary
/// refusal: somebody keeps a policy from it.
fn status_failure(refusal: Refusal, policy: &TrustedPolicy) -> Failure {
    const HINT: &str = "a mirror withholds the policy, or has not got it yet: add another mirror to `channel`, or \
                        import an export; until then nothing new is taken, and what is installed stays";
    match &refusal {
        Refusal::StatusPolicy { named, .. } if !policy.descends_from(named) => {
            Failure::rejected(POLICY_WITHHELD, refusal.to_string(), HINT)
        }
        _ => refusal.into(),
    }
}

/// Reads a bundle; nothing in it is verified.
pub(crate) fn parse_bundle(bytes: &[u8]) -> Result<Bundle, Failure> {
    const HINT: &str = "fetch the bundle again from another mirror; no other encoding is accepted";
    Bundle::parse(bytes).map_err(|error| Failure::rejected("malformed", error.to_string(), HINT))
}

/// Waits a moment for another process to end: an update and a check may well meet.
pub(crate) fn lock(state: &Path) -> Result<FileLock, Failure> {
    let path = state.join("lock");
    for _ in 0..LOCK_TRIES {
        if let Some(lock) = FileLock::try_new(&path).map_err(|error| Failure::file(&path, &error))? {
            return Ok(lock);
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    Err(Failure::unavailable(format!("{}: another process works on this state", path.display())))
}
