//! A mirror of the channel, read over HTTP in bounded size and time.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use api::{BaseUrl, Client};
use channel::layout::{self, ArtifactName};
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
}

impl Artifacts for ChannelArtifacts<'_> {
    fn fetch(&mut self, wanted: Wanted<'_>, output: &mut dyn Write) -> Result<(), Failure> {
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
