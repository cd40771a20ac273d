//! A mirror of the channel, read over HTTP in bounded size and time.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use api::{BaseUrl, BodyLimit, Client};
use attest::Delta;
use channel::layout::{self, ArtifactName};
use detection::{BUNDLE_BYTES_MAX, PATCH_BYTES_MAX, Patch, Pin};
use stdx::Digest;
use tuf::{Fetch, FetchError, Location, RoleName, Store, StoreError, Trusted};

use crate::disk::Disk;
use crate::failure::Failure;
use crate::patience::Patience;
use crate::slots::{Artifacts, Wanted};

/// Who wants to know how a download goes. `()` does not.
pub trait Progress {
    /// A download of so many bytes begins.
    fn begin(&self, what: &str, bytes: u64);

    /// So many bytes more have come.
    fn add(&self, bytes: u64);

    /// The download has ended.
    fn end(&self);
}

impl Progress for () {
    fn begin(&self, _: &str, _: u64) {}

    fn add(&self, _: u64) {}

    fn end(&self) {}
}

/// One mirror.
pub(crate) struct Mirror<'a> {
    pub(crate) base: &'a BaseUrl,
    pub(crate) client: &'a Client,
    pub(crate) patience: Patience<'a>,
    /// The size of the next target: how long it may take follows from it.
    pub(crate) expected: Cell<u64>,
}

impl Mirror<'_> {
    /// A client for a file of so many bytes.
    pub(crate) fn client(&self, expected: u64) -> Result<Client, String> {
        let client = self.patience.client(self.client, expected);
        client.ok_or_else(|| format!("{} has kept this update waiting for too long", self.base))
    }
}

impl Fetch for Mirror<'_> {
    fn open(&self, location: &Location) -> Result<Box<dyn Read + '_>, FetchError> {
        let url = self.base.join(&format!("/{location}"));
        let expected = match location {
            Location::Metadata(_) => 0,
            Location::Target(_) => self.expected.get(),
        };
        let client = self.client(expected).map_err(FetchError::Unavailable)?;
        match self.patience.spend(|| client.open(&url)) {
            Ok(reader) => Ok(Box::new(self.patience.watch(reader))),
            Err(error) => Err(match error.status() {
                Some(404) => FetchError::NotFound,
                _ => FetchError::Unavailable(error.to_string()),
            }),
        }
    }
}

/// Artifacts of the channel: what TUF's metadata and the release both describe.
pub(crate) struct ChannelArtifacts<'a> {
    pub(crate) trusted: &'a Trusted<'a>,
    pub(crate) mirror: &'a Mirror<'a>,
    pub(crate) progress: &'a dyn Progress,
    /// The files of the release in use: where a patch may begin.
    pub(crate) held: Vec<(Digest, PathBuf)>,
    /// Why a patch did not lead where it should; the whole artifact was taken instead.
    pub(crate) detours: Vec<Failure>,
}

impl ChannelArtifacts<'_> {
    /// The artifact by the first patch that begins at a file that is held, if there is one.
    fn patched(&self, wanted: Wanted<'_>) -> Option<Result<Vec<u8>, Failure>> {
        let deltas = &wanted.release.artifacts.get(wanted.place)?.deltas;
        let held = |delta: &Delta| self.held.iter().find(|(content, _)| *content == delta.from);
        let (delta, (_, path)) = deltas.iter().find_map(|delta| Some((delta, held(delta)?)))?;
        Some(self.apply(wanted, delta, path))
    }

    /// No byte of a patch is trusted before it has led to the artifact that the release names.
    fn apply(&self, wanted: Wanted<'_>, delta: &Delta, from: &Path) -> Result<Vec<u8>, Failure> {
        const HINT: &str = "the whole was taken instead; if it stays so, report it to the vendor";
        let refuse = |message: String| Failure::rejected("patch", message, HINT);
        let limit = BodyLimit(delta.size.min(PATCH_BYTES_MAX));
        let url = self.mirror.base.join(&format!("/{}", layout::patch(&wanted.release.product, &delta.patch)));
        let client = self.mirror.client(delta.size).map_err(Failure::unavailable)?;
        let bytes = self.mirror.patience.spend(|| client.get(&url, limit))?;
        self.mirror.patience.earn(bytes.len());
        let found = Digest::of(&bytes);
        if found != delta.patch {
            return Err(refuse(format!("{url}: SHA-256 is {found}, the release names {}", delta.patch)));
        }
        let mut old = Vec::new();
        let read = File::open(from).and_then(|file| file.take(BUNDLE_BYTES_MAX + 1).read_to_end(&mut old));
        read.map_err(|error| refuse(format!("{}: {error}", from.display())))?;
        let to = Pin { digest: wanted.subject.sha256(), size: wanted.size };
        let patch = Patch { from: delta.from, to, bytes };
        patch.apply(&old).map_err(|error| refuse(format!("{url}: {error}")))
    }
}

impl Artifacts for ChannelArtifacts<'_> {
    fn fetch(&mut self, wanted: Wanted<'_>, output: &mut dyn Write) -> Result<(), Failure> {
        match self.patched(wanted) {
            Some(Ok(bytes)) => {
                let written = output.write_all(&bytes);
                return written.map_err(|error| Failure::file(Path::new(&wanted.subject.name), &error));
            }
            Some(Err(failure)) => self.detours.push(failure),
            None => {}
        }
        let name = ArtifactName { place: wanted.place, name: &wanted.subject.name };
        let target = self.trusted.find(&layout::artifact(wanted.release, name))?;
        let file = target.file();
        if file.length != wanted.size || file.hashes.sha256() != Some(wanted.subject.sha256()) {
            let message = format!("`{}`: the metadata and the release describe different bytes", target.path());
            return Err(Failure::rejected("channel-mixed", message, "try another mirror, and report it if it stays"));
        }
        self.mirror.expected.set(wanted.size);
        self.progress.begin(&wanted.subject.name, wanted.size);
        let fetched = self.trusted.fetch_into(&target, &mut Counted { output, progress: self.progress });
        self.progress.end();
        Ok(fetched?)
    }
}

/// Tells how much has come.
struct Counted<'a> {
    output: &'a mut dyn Write,
    progress: &'a dyn Progress,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.output.write(bytes)?;
        self.progress.add(count as u64);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// TUF's trusted metadata in the endpoint's state.
pub(crate) struct DiskStore<'a> {
    pub(crate) folder: PathBuf,
    pub(crate) disk: &'a dyn Disk,
}

impl Store for DiskStore<'_> {
    fn load(&self, role: &RoleName) -> Result<Option<Vec<u8>>, StoreError> {
        match std::fs::read(self.folder.join(role.file_name())) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn save(&self, role: &RoleName, bytes: &[u8]) -> Result<(), StoreError> {
        Ok(self.disk.write(&self.folder.join(role.file_name()), bytes)?)
    }

    fn remove(&self, role: &RoleName) -> Result<(), StoreError> {
        Ok(self.disk.remove(&self.folder.join(role.file_name()))?)
    }
}
