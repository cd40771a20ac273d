//! What the assembly line, the rebuilder and the desks of an organisation have in common: its
//! policy, keys, streams, depot, and the logs it reads and writes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use api::{BaseUrl, Client};
use assembly::{Depot, Transport};
use attest::{KeyRef, Lane, OrganisationId, StreamName};
use bytes::Bytes;
use stdx::{Clock, Digest, SystemClock, UnixTime};
use storage::{Catalog, LockStore};
use tlog::{Origin, SignerKey};
use verify::{Moment, TrustedPolicy};

use crate::command::check_config::load_policy;
use crate::config::{Config, DataFolder};
use crate::failure::Failure;
use crate::kept::{Kept, KeptFolder};
use crate::stores::{self, State};
use crate::stream::{LogWriter, StreamWriter};

/// An append waits for the witnesses; a request that wants a build only queues it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// An organisation's tools.
#[derive(Clone)]
pub struct Domain {
    /// Who this is in the policy.
    pub organisation: OrganisationId,
    /// The policy in force.
    pub policy: Arc<TrustedPolicy>,
    /// Where data lies.
    pub data: DataFolder,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Talks to everybody.
    pub client: Client,
    locks: Arc<dyn LockStore>,
    catalog: Arc<dyn Catalog>,
    kept: Option<Kept>,
}

/// What a domain has of the machine that it runs on.
#[derive(Clone)]
pub struct Machine {
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Talks to everybody.
    pub client: Client,
    /// Values that change by compare-and-swap only.
    pub locks: Arc<dyn LockStore>,
    /// Records that can be rebuilt, and the queue of jobs.
    pub catalog: Arc<dyn Catalog>,
    /// What the domain's other machines have as well, if there are any.
    pub kept: Option<Kept>,
}

impl Domain {
    /// Opens what `config` names.
    ///
    /// # Errors
    /// When the policy is not trusted or a store is missing.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        Self::over(config, &State::open(config).await?).await
    }

    /// What `config` names, over this state, which the caller closes.
    ///
    /// # Errors
    /// When the policy is not trusted or a store is missing.
    pub async fn over(config: &Config, state: &State) -> anyhow::Result<Self> {
        let machine = Machine {
            clock: Arc::new(SystemClock::new()),
            client: Client::new(REQUEST_TIMEOUT),
            locks: state.locks(),
            catalog: state.catalog(),
            kept: stores::kept(config, state).await?,
        };
        Self::on(config, machine)
    }

    /// What `config` names, on this machine.
    ///
    /// # Errors
    /// When the policy is not trusted.
    pub fn on(config: &Config, machine: Machine) -> anyhow::Result<Self> {
        let no_part = || {
            Failure::usage(format!("a {} has no part in this", config.role()))
                .hint("name a vendor's or supervisor's configuration")
        };
        let organisation = config.organisation().ok_or_else(no_part)?.clone();
        let section = config.policy().ok_or_else(no_part)?;
        let Machine { clock, client, locks, catalog, kept } = machine;
        let (policy, data) = (Arc::new(load_policy(section)?), config.data());
        Ok(Self { organisation, policy, data, clock, client, locks, catalog, kept })
    }

    /// Records that can be rebuilt, and the queue of jobs.
    #[must_use]
    pub fn catalog(&self) -> &dyn Catalog {
        &*self.catalog
    }

    /// Values that change by compare-and-swap only.
    #[must_use]
    pub fn locks(&self) -> &dyn LockStore {
        &*self.locks
    }

    /// What all machines of the domain have, if there are several.
    #[must_use]
    pub const fn kept(&self) -> Option<&Kept> {
        self.kept.as_ref()
    }

    /// Stores an object in the depot, and for the domain's other machines.
    ///
    /// # Errors
    /// When one of both fails.
    pub async fn keep(&self, depot: &Depot, bytes: Bytes) -> anyhow::Result<Digest> {
        let stored = tokio::task::block_in_place(|| depot.content().put(&bytes))?;
        if let Some(kept) = &self.kept {
            kept.put(bytes).await?;
        }
        Ok(stored.digest)
    }

    /// Whether the depot has the object, or got it just now from what another machine has kept.
    ///
    /// # Errors
    /// When a store fails.
    pub async fn bring(&self, depot: &Depot, object: &Digest) -> anyhow::Result<bool> {
        if depot.content().contains(object) {
            return Ok(true);
        }
        let Some(kept) = &self.kept else { return Ok(false) };
        let Some(bytes) = kept.find(object).await? else { return Ok(false) };
        tokio::task::block_in_place(|| depot.content().put(&bytes))?;
        Ok(true)
    }

    /// The channel's tree.
    ///
    /// # Errors
    /// Never: its name is a good one.
    pub fn channel(&self) -> anyhow::Result<KeptFolder> {
        channel_folder(&self.data, self.kept.clone())
    }

    /// Copies to this machine what the domain's others have put into a build's folder.
    ///
    /// # Errors
    /// When it can't be read or written.
    pub fn pull(&self, folder: &BuildFolder) -> anyhow::Result<()> {
        self.kept_folder(folder)?.pull()
    }

    /// Gives the domain's other machines what was written into a build's folder.
    ///
    /// # Errors
    /// When it can't be read or kept.
    pub fn save(&self, folder: &BuildFolder) -> anyhow::Result<()> {
        self.kept_folder(folder)?.save()
    }

    fn kept_folder(&self, folder: &BuildFolder) -> anyhow::Result<KeptFolder> {
        let name = folder.path().strip_prefix(self.data.path())?.to_string_lossy();
        KeptFolder::new(&name, folder.path().to_owned(), self.kept.clone())
    }

    /// Now, with evidence as old as the policy lets endpoints accept it.
    #[must_use]
    pub fn moment(&self) -> Moment {
        Moment::new(&*self.clock, UnixTime::EPOCH, self.policy.policy().ages.online())
    }

    /// The organisation's depot. Bytes of a digest that was resolved may come from the folder
    /// `cache`, which others fill as well.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn depot(&self, cache: Option<&Path>) -> anyhow::Result<Depot> {
        let transport = match cache {
            Some(folder) => Transport::Shared(assembly::ContentStore::create(folder)?),
            None => Transport::Clients,
        };
        Ok(Depot::create(&self.data.depot(), transport)?)
    }

    /// Where the log `origin` is, as the policy says.
    ///
    /// # Errors
    /// When the policy gives no URL.
    pub fn log_url(&self, origin: &Origin) -> anyhow::Result<BaseUrl> {
        let logs = self.policy.witnessing().logs();
        let url = logs.iter().find(|log| origin.is(log.key.name())).and_then(|log| log.url.as_deref());
        let url = url.ok_or_else(|| {
            Failure::refused(format!("the policy gives no URL for log `{origin}`"))
                .hint("add it behind the log's key in the policy's `witnessing` text")
        })?;
        url.parse().with_context(|| format!("the policy's URL of log `{origin}`"))
    }

    /// Writes to the log `origin`.
    ///
    /// # Errors
    /// When the policy gives no URL.
    pub fn log(&self, origin: &Origin) -> anyhow::Result<LogWriter> {
        Ok(LogWriter { origin: origin.clone(), url: self.log_url(origin)?, client: self.client.clone() })
    }

    /// Writes `stream`, which the policy must have opened for this organisation.
    ///
    /// # Errors
    /// When it has not.
    pub fn stream(&self, stream: &str) -> anyhow::Result<StreamWriter> {
        let name: StreamName = stream.parse()?;
        let opened =
            self.policy.policy().streams.iter().find(|it| it.stream == name && it.organisation == self.organisation);
        let opened = opened.ok_or_else(|| {
            Failure::refused(format!("the policy opens no stream `{name}` for `{}`", self.organisation))
                .hint("add it to the policy's `streams`")
        })?;
        let organisations = self.policy.policy().organisations.iter();
        let keys = organisations.flat_map(|it| &it.keys).map(|key| KeyRef::of(&key.key)).collect();
        let (log, locks, clock) = (self.log(&opened.log)?, Arc::clone(&self.locks), Arc::clone(&self.clock));
        Ok(StreamWriter::new(name, log, locks, clock, keys))
    }

    /// A heartbeat in the organisation's stream `kind/ORGANISATION`, if it has been quiet; a failure
    /// is told and tried again with the next one.
    pub async fn beat(&self, kind: &str, recorder: &SignerKey, interval: Duration) {
        let name = format!("{kind}/{}", self.organisation);
        let beat = async { Ok::<(), anyhow::Error>(self.stream(&name)?.beat(recorder, interval).await?) };
        if let Err(error) = beat.await {
            tracing::error!(stream = name, "no heartbeat could be written: {error:#}");
        }
    }

    /// The rules of `lane`.
    ///
    /// # Errors
    /// When the policy has no such lane.
    pub fn lane(&self, lane: Lane) -> anyhow::Result<&policy::LanePolicy> {
        let rules = self.policy.policy().lane(lane);
        rules.ok_or_else(|| Failure::refused(format!("the policy has no lane `{lane}`")).into())
    }
}

/// The channel's tree of the organisation whose data this is.
///
/// # Errors
/// Never: its name is a good one.
pub fn channel_folder(data: &DataFolder, kept: Option<Kept>) -> anyhow::Result<KeptFolder> {
    KeptFolder::new("channel", data.channel(), kept)
}

/// A file below the folder of one version's build.
#[derive(Clone, Debug)]
pub struct BuildFolder(PathBuf);

impl BuildFolder {
    /// Where `data` keeps the evidence of this product's version.
    #[must_use]
    pub fn new(data: &DataFolder, product: &str, version: &str) -> Self {
        Self(data.builds().join(product).join(version))
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}
