//! Two slots for each product, and the link that says which one is in use.
//!
//! A change is an intent in the product's record, durable before anything is done about it, and
//! [`Slots::apply`] does it; opening the state applies what a crash left.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use attest::{Lane, Outcome, ProductId, Release, ReleaseNumber, StatementId, Status, Subject};
use serde::{Deserialize, Serialize};
use stdx::{Digest, Hasher, UnixTime};
use verify::Approved;

use crate::disk::{Disk, Move};
use crate::failure::Failure;

/// The link to the slot in use.
const CURRENT: &str = "current";
const INCOMING: &str = "incoming";

/// Releases that failed here; a product that breaks more often needs a person.
const FAILED_MAX: usize = 64;

/// One of the two folders of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// The folder `a`.
    A,
    /// The folder `b`.
    B,
}

impl Slot {
    /// The folder's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// A release in a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Installed {
    /// Where.
    pub slot: Slot,
    /// The release statement.
    pub release: StatementId,
    /// Its number.
    pub number: ReleaseNumber,
    /// Its version.
    pub version: String,
    /// Its lane.
    pub lane: Lane,
    /// Its files.
    pub files: Vec<InstalledFile>,
    /// The evidence time by which it was approved.
    pub evidence: UnixTime,
}

/// A file of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstalledFile {
    /// Its path within the slot.
    pub name: String,
    /// Its content.
    pub sha256: Digest,
}

/// What is to happen to a product's slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Intent {
    Install(Installed),
    Revert(Installed),
    Disable(String),
}

/// Rules that were tried here, and do not work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Unfit {
    pub(crate) release: StatementId,
    pub(crate) files: Vec<InstalledFile>,
    pub(crate) outcome: Outcome,
}

/// What is known of a product on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) active: Option<Installed>,
    pub(crate) previous: Option<Installed>,
    pending: Option<Intent>,
    /// The highest release that was ever installed.
    pub(crate) highest: Option<ReleaseNumber>,
    /// Releases that failed here; not to be installed again.
    pub(crate) failed: Vec<StatementId>,
    /// Why the product is switched off.
    pub(crate) disabled: Option<String>,
    /// When health checks of the active release failed.
    pub(crate) unhealthy: Vec<UnixTime>,
    /// The rules that were given up last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unfit: Option<Unfit>,
}

impl Record {
    fn remember_failed(&mut self, release: StatementId) {
        self.failed.push(release);
        let many = self.failed.len().saturating_sub(FAILED_MAX);
        self.failed.drain(..many);
    }
}

/// One artifact to be fetched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) release: &'a Release,
    pub(crate) place: usize,
    pub(crate) subject: &'a Subject,
    pub(crate) size: u64,
}

/// Where artifacts come from.
pub(crate) trait Artifacts {
    /// Writes an artifact to `output`; it is checked by the receiver.
    fn fetch(&mut self, wanted: Wanted<'_>, output: &mut dyn Write) -> Result<(), Failure>;
}

/// A product's slots and record.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    folder: PathBuf,
    record_path: PathBuf,
    pub(crate) record: Record,
}

/// Where things are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places<'a> {
    pub(crate) state: &'a Path,
    pub(crate) install: &'a Path,
}

impl Slots {
    /// The slots of `product`, as the record says; nothing is changed.
    pub(crate) fn read(places: Places<'_>, product: &ProductId) -> Result<Self, Failure> {
        let folder = places.install.join(product.as_str());
        let record_path = places.state.join("products").join(format!("{product}.json"));
        let record = match fs::read(&record_path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| Failure::state(&record_path, error))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Record::default(),
            Err(error) => return Err(Failure::file(&record_path, &error)),
        };
        Ok(Self { folder, record_path, record })
    }

    /// Installs an approved release: staged, verified, tested where it lies, moved into the slot that
    /// is not in use, then switched to.
    pub(crate) fn install(
        &mut self,
        disk: &dyn Disk,
        approved: &Approved<Release>,
        artifacts: &mut dyn Artifacts,
        test: &dyn Fn(&Path) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let slot = self.record.active.as_ref().map_or(Slot::A, |active| active.slot.other());
        let staged = self.folder.join(INCOMING);
        step(&staged, disk.remove_tree(&staged))?;
        step(&staged, disk.create_folder(&staged))?;
        let mut files = Vec::new();
        for (place, (subject, says)) in approved.artifacts().iter().zip(&approved.release().artifacts).enumerate() {
            let wanted = Wanted { release: approved.release(), place, subject, size: says.size };
            stage(disk, &staged, wanted, artifacts)?;
            files.push(InstalledFile { name: subject.name.clone(), sha256: subject.sha256() });
        }
        if let Err(failure) = test(&staged) {
            step(&staged, disk.remove_tree(&staged))?;
            return Err(failure);
        }
        // From here on the old content of the slot is no way back any more.
        if self.record.previous.take().is_some() {
            self.save(disk)?;
        }
        let target = self.folder.join(slot.as_str());
        step(&target, disk.remove_tree(&target))?;
        step(&target, disk.rename(Move { from: &staged, to: &target }))?;
        let Release { number, version, lane, .. } = approved.release().clone();
        let installed = Installed {
            slot,
            release: approved.id(),
            number,
            version,
            lane,
            files,
            evidence: approved.evidence_time(),
        };
        self.record.pending = Some(Intent::Install(installed));
        self.save(disk)?;
        self.apply(disk)
    }

    /// Remembers that a release does not work here: it is not installed any more.
    pub(crate) fn give_up(&mut self, disk: &dyn Disk, unfit: Unfit) -> Result<(), Failure> {
        self.record.remember_failed(unfit.release);
        self.record.unfit = Some(unfit);
        self.save(disk)
    }

    /// Puts the previous release back, if `status` lets it run and its files are what they were.
    pub(crate) fn revert(
        &mut self,
        disk: &dyn Disk,
        product: &ProductId,
        status: Option<&Status>,
    ) -> Result<(), Failure> {
        const HINT: &str = "install a newer release, or act by hand; nothing older may run";
        let refuse = |why: String| Failure::rejected("no-way-back", format!("{product}: {why}"), HINT);
        let previous = self.record.previous.clone().ok_or_else(|| refuse("there is no previous release".to_owned()))?;
        if let Some(reason) = status.and_then(|status| forbidden(product, &previous, status)) {
            return Err(refuse(format!("the previous release: {reason}")));
        }
        self.check_files(&previous).map_err(|failure| refuse(failure.message))?;
        self.record.pending = Some(Intent::Revert(previous));
        self.save(disk)?;
        self.apply(disk)
    }

    /// Switches the product off.
    pub(crate) fn disable(&mut self, disk: &dyn Disk, reason: &str) -> Result<(), Failure> {
        self.record.pending = Some(Intent::Disable(reason.to_owned()));
        self.save(disk)?;
        self.apply(disk)
    }

    /// Does what is pending, if anything is.
    pub(crate) fn apply(&mut self, disk: &dyn Disk) -> Result<(), Failure> {
        let Some(intent) = self.record.pending.clone() else { return Ok(()) };
        let link = self.folder.join(CURRENT);
        let record = &mut self.record;
        match intent {
            Intent::Install(new) => {
                step(&link, disk.link(&link, new.slot.as_str()))?;
                record.highest = record.highest.max(Some(new.number));
                // What was repaired is no way back from itself.
                let release = new.release;
                record.previous = record.active.replace(new).filter(|old| old.release != release);
                record.disabled = None;
            }
            Intent::Revert(old) => {
                step(&link, disk.link(&link, old.slot.as_str()))?;
                if let Some(failed) = record.active.replace(old) {
                    record.remember_failed(failed.release);
                }
                record.previous = None;
            }
            Intent::Disable(reason) => {
                step(&link, disk.remove(&link))?;
                if let Some(failed) = record.active.take() {
                    record.remember_failed(failed.release);
                }
                record.previous = None;
                record.disabled = Some(reason);
            }
        }
        record.unhealthy.clear();
        record.pending = None;
        self.save(disk)
    }

    /// Whether the link leads to the slot of `active`, and the files there are what was installed.
    pub(crate) fn check_active(&self, active: &Installed) -> Result<(), Failure> {
        let link = self.current();
        let leads = fs::read_link(&link).map_err(|error| Failure::file(&link, &error))?;
        if leads != Path::new(active.slot.as_str()) {
            let message = format!("{} leads to {}", link.display(), leads.display());
            return Err(Failure::rejected("altered", message, "somebody changed an installed file; look into it"));
        }
        self.check_files(active)
    }

    /// The files of the release in use, with what they should contain.
    pub(crate) fn held(&self) -> Vec<(Digest, PathBuf)> {
        let of = |active: &Installed| {
            let folder = self.folder.join(active.slot.as_str());
            active.files.iter().map(|file| (file.sha256, folder.join(&file.name))).collect()
        };
        self.record.active.as_ref().map(of).unwrap_or_default()
    }

    /// Whether the files in a slot are what was installed.
    pub(crate) fn check_files(&self, installed: &Installed) -> Result<(), Failure> {
        let folder = self.folder.join(installed.slot.as_str());
        for file in &installed.files {
            let path = folder.join(&file.name);
            let found = File::open(&path).and_then(Digest::of_reader);
            let (found, _) = found.map_err(|error| Failure::file(&path, &error))?;
            if found != file.sha256 {
                let message = format!("{}: SHA-256 is {found}, installed was {}", path.display(), file.sha256);
                return Err(Failure::rejected("altered", message, "somebody changed an installed file; look into it"));
            }
        }
        Ok(())
    }

    /// The folder of the slot in use.
    pub(crate) fn current(&self) -> PathBuf {
        self.folder.join(CURRENT)
    }

    pub(crate) fn save(&self, disk: &dyn Disk) -> Result<(), Failure> {
        let bytes = serde_json::to_vec(&self.record).expect("the record has text keys only");
        step(&self.record_path, disk.write(&self.record_path, &bytes))
    }
}

/// Why `status` forbids an installed release to run.
pub(crate) fn forbidden(product: &ProductId, installed: &Installed, status: &Status) -> Option<String> {
    if let Some(file) = installed.files.iter().find(|file| status.revokes(&file.sha256)) {
        return Some(format!("release {} has revoked content {}", installed.number, file.sha256));
    }
    let floor = status.floor(product);
    (installed.number < floor).then(|| format!("release {} is below the floor {floor}", installed.number))
}

/// Fetches one artifact into `folder`, verified as it comes.
fn stage(disk: &dyn Disk, folder: &Path, wanted: Wanted<'_>, artifacts: &mut dyn Artifacts) -> Result<(), Failure> {
    let name = &wanted.subject.name;
    if !is_plain(name) {
        let message = format!("artifact `{}` can't be a file's name here", name.escape_default());
        return Err(Failure::rejected("artifact-name", message, "ask the vendor for a release with plain file names"));
    }
    let path = folder.join(name);
    if let Some(folder) = path.parent() {
        step(folder, disk.create_folder(folder))?;
    }
    let mut file = disk.start(&path).map_err(|error| Failure::file(&path, &error))?;
    let mut checked =
        Checked { file: &mut file, hasher: Hasher::default(), left: wanted.size, head: Vec::with_capacity(HEAD_BYTES) };
    artifacts.fetch(wanted, &mut checked)?;
    let (left, found, mode) = (checked.left, checked.hasher.clone().finish(), mode_of(&checked.head));
    if left != 0 || found != wanted.subject.sha256() {
        let message = format!("artifact `{name}`: SHA-256 is {found}, the release names {}", wanted.subject.sha256());
        return Err(Failure::rejected("other-content", message, "the channel served other bytes; try another mirror"));
    }
    step(&path, disk.seal(&file, mode))
}

const HEAD_BYTES: usize = 4;

/// A release says nothing of modes: what a kernel would run may be run.
fn mode_of(head: &[u8]) -> u32 {
    if head.starts_with(b"\x7fELF") || head.starts_with(b"#!") { 0o755 } else { 0o644 }
}

/// Hashes what goes to the file, and takes no more than the manifest says.
struct Checked<'a> {
    file: &'a mut File,
    hasher: Hasher,
    left: u64,
    head: Vec<u8>,
}

impl Write for Checked<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or_else(|| io::Error::other("more bytes than the release names"))?;
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        let missing = HEAD_BYTES.saturating_sub(self.head.len());
        self.head.extend(bytes.iter().take(missing));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A relative path of plain parts.
fn is_plain(name: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && !part.starts_with('.');
    name.len() <= 200 && name.split('/').all(plain) && !name.contains(|c: char| c.is_control() || c == '\\')
}

fn step(path: &Path, done: io::Result<()>) -> Result<(), Failure> {
    done.map_err(|error| Failure::file(path, &error))
}
