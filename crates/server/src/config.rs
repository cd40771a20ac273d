//! Configuration: one TOML file, one struct for each role.

mod shared;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use api::BaseUrl;
use attest::{OrganisationId, StatementId};
use serde::{Deserialize, Serialize};
use tlog::VerifierKey;

pub use shared::{ObjectsSection, SharedSection, StateSection};

/// A configuration is a page of text.
const CONFIG_BYTES_MAX: u64 = 256 << 10;

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Builds, releases, keeps a log, publishes the channel
    Vendor,
    /// Rebuilds, signs second, keeps a log and the status
    Supervisor,
    /// Cosigns logs that only grow
    Witness,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vendor => "vendor",
            Self::Supervisor => "supervisor",
            Self::Witness => "witness",
        })
    }
}

/// Where a process listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// On this address.
    Address(SocketAddr),
    /// On the listening socket that was handed over as standard input, as inetd and systemd
    /// (`StandardInput=socket`) do.
    Stdin,
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "stdin" {
            return Ok(Self::Stdin);
        }
        text.parse().map(Self::Address).map_err(|_| format!("`{text}` is neither IP:PORT nor `stdin`"))
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The configuration of a role. Paths are absolute, or relative to the working directory.
#[derive(Clone, Debug)]
pub enum Config {
    /// The vendor.
    Vendor(Box<VendorConfig>),
    /// The supervisor.
    Supervisor(Box<SupervisorConfig>),
    /// A witness.
    Witness(Box<WitnessConfig>),
}

/// The vendor: builds, releases, keeps a log, publishes the channel.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VendorConfig {
    /// Always `vendor`.
    pub role: Role,
    /// What the policy calls this organisation.
    pub organisation: OrganisationId,
    /// Where this listens: `IP:PORT`, or `stdin` for a socket that was handed over.
    pub listen: Listen,
    /// Where the numbers are served, for the operator alone: `IP:PORT`. Nowhere if it is missing.
    pub metrics: Option<SocketAddr>,
    /// The folder of all data that is no key: `log/`, `state.sqlite`, `depot/`, `channel/`.
    pub data: PathBuf,
    /// The policy in force.
    pub policy: PolicySection,
    /// This organisation's log.
    pub log: LogSection,
    /// The keys that this process signs statements with.
    pub keys: VendorKeys,
    /// The keys for the channel's TUF metadata.
    pub channel: ChannelKeys,
    /// Stores beyond one machine, if there are any.
    pub shared: Option<SharedSection>,
    /// Where the supervisor answers.
    pub supervisor: Option<BaseUrl>,
    /// At least one entry, if only a heartbeat, in each stream in so many seconds.
    #[serde(default = "default_heartbeat_s")]
    pub heartbeat_s: u64,
    /// Bounds of the HTTP server.
    #[serde(default)]
    pub http: HttpSection,
}

/// The supervisor: rebuilds, signs second, keeps a log and the status.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SupervisorConfig {
    /// Always `supervisor`.
    pub role: Role,
    /// What the policy calls this organisation.
    pub organisation: OrganisationId,
    /// Where this listens: `IP:PORT`, or `stdin` for a socket that was handed over.
    pub listen: Listen,
    /// Where the numbers are served, for the operator alone: `IP:PORT`. Nowhere if it is missing.
    pub metrics: Option<SocketAddr>,
    /// The folder of all data that is no key: `log/`, `state.sqlite`, `depot/`.
    pub data: PathBuf,
    /// The policy in force.
    pub policy: PolicySection,
    /// This organisation's log.
    pub log: LogSection,
    /// The keys that this process signs statements with.
    pub keys: SupervisorKeys,
    /// Stores beyond one machine, if there are any.
    pub shared: Option<SharedSection>,
    /// A folder of downloads that others fill too; what comes from it is checked by digest.
    pub cache: Option<PathBuf>,
    /// Whether upstream's indexes can't be asked: then what this supervisor itself found in them
    /// before, for the same lock, counts.
    #[serde(default)]
    pub offline: bool,
    /// At least one entry, if only a heartbeat, in each stream in so many seconds.
    #[serde(default = "default_heartbeat_s")]
    pub heartbeat_s: u64,
    /// A status is good for so many seconds; a new one comes after half of that.
    #[serde(default = "default_status_s")]
    pub status_s: u64,
    /// Bounds of the HTTP server.
    #[serde(default)]
    pub http: HttpSection,
}

/// A witness: cosigns logs that only grow.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessConfig {
    /// Always `witness`.
    pub role: Role,
    /// Where this listens: `IP:PORT`, or `stdin` for a socket that was handed over.
    pub listen: Listen,
    /// Where the numbers are served, for the operator alone: `IP:PORT`. Nowhere if it is missing.
    pub metrics: Option<SocketAddr>,
    /// The folder of this witness's state: `state.sqlite`.
    pub data: PathBuf,
    /// The file of the witness's key.
    pub key: PathBuf,
    /// The keys (`vkey` lines) of the logs that are witnessed; a key's name is the log's origin.
    pub logs: Vec<VerifierKey>,
    /// Bounds of the HTTP server.
    #[serde(default)]
    pub http: HttpSection,
}

/// The policy in force.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySection {
    /// The folder with `1.envelope`, `2.bundle`, `3.bundle` …
    pub folder: PathBuf,
    /// The id of the genesis policy, learnt from another channel than the folder.
    pub genesis: Option<StatementId>,
}

/// A log.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSection {
    /// The file of the log's key; the key's name is the log's origin.
    pub key: PathBuf,
    /// Entries that wait to be published, at most.
    #[serde(default = "default_pool_entries")]
    pub pool_entries: usize,
    /// Entries in one batch, at most.
    #[serde(default = "default_batch_entries")]
    pub batch_entries: usize,
    /// An idle log has its checkpoint cosigned again after so many seconds.
    #[serde(default = "default_refresh_s")]
    pub refresh_s: u64,
    /// An append waits so many seconds for the witnesses before it is told to come back.
    #[serde(default = "default_append_wait_s")]
    pub append_wait_s: u64,
}

/// Files of the vendor's keys that the process uses. Approver and policy keys belong to people.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VendorKeys {
    /// Signs `result` and provenance.
    pub builder: PathBuf,
    /// Signs `release` and `promotion`.
    pub release: PathBuf,
    /// Signs `source` and `heartbeat`.
    pub recorder: PathBuf,
}

/// Files of the supervisor's keys that the process uses. Approver and policy keys belong to people.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SupervisorKeys {
    /// Signs `result`, `mismatch` and VSA.
    pub builder: PathBuf,
    /// Signs `release` and `promotion`.
    pub release: PathBuf,
    /// Signs `heartbeat`.
    pub recorder: PathBuf,
    /// Signs `status`, `stop` and `revocation`.
    pub status: PathBuf,
}

/// Files of the keys for the channel's TUF metadata.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelKeys {
    /// Signs root metadata; needed rarely.
    pub root: PathBuf,
    /// Signs targets metadata.
    pub targets: PathBuf,
    /// Signs snapshots.
    pub snapshot: PathBuf,
    /// Signs timestamps.
    pub timestamp: PathBuf,
}

/// Bounds of an HTTP server.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSection {
    /// Requests that are worked on at once; more are told to come back (503).
    pub requests_max: usize,
    /// A request ends after so many seconds.
    pub timeout_s: u64,
    /// After a signal to stop, requests have so many seconds to end.
    pub grace_s: u64,
}

impl Default for HttpSection {
    /// An append waits for a round of witnesses, 5 s each at worst, twice; downloads are longest.
    fn default() -> Self {
        Self { requests_max: 1024, timeout_s: 60, grace_s: 10 }
    }
}

/// An hour: a day of silence, after which endpoints refuse, takes many missed beats.
const fn default_heartbeat_s() -> u64 {
    3600
}

const fn default_status_s() -> u64 {
    24 * 3600
}

const fn default_pool_entries() -> usize {
    65_536
}

const fn default_batch_entries() -> usize {
    16_384
}

const fn default_refresh_s() -> u64 {
    3600
}

/// Four rounds of witnesses at their worst (5 s each), within a request's 60 s.
const fn default_append_wait_s() -> u64 {
    20
}

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No such file, or none that can be read.
    #[error("can't read the configuration `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Longer than a configuration is.
    #[error("`{0}` is too long for a configuration")]
    TooLong(PathBuf),
    /// Not TOML of the role's shape; the text names line and column.
    #[error("the configuration `{path}` is wrong: {error}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        error: String,
    },
    /// A value out of bounds.
    #[error("the configuration `{path}`: {problem}")]
    Value {
        /// The file.
        path: PathBuf,
        /// Which and why.
        problem: &'static str,
    },
}

/// Read first, so that errors in the rest are about the right struct and name their line.
#[derive(Deserialize)]
struct RoleOnly {
    role: Role,
}

impl Config {
    /// Reads and checks the file `path`; paths in it are relative to its folder.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(read)?.len() > CONFIG_BYTES_MAX {
            return Err(ConfigError::TooLong(path.to_owned()));
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        let base = path.parent().unwrap_or_else(|| Path::new("")).to_owned();
        Self::parse(&text, &base).map_err(|error| match error {
            ParseError::Syntax(error) => {
                ConfigError::Syntax { path: path.to_owned(), error: error.to_string().trim_end().to_owned() }
            }
            ParseError::Value(problem) => ConfigError::Value { path: path.to_owned(), problem },
        })
    }

    fn parse(text: &str, base: &Path) -> Result<Self, ParseError> {
        let RoleOnly { role } = toml::from_str(text)?;
        let mut config = match role {
            Role::Vendor => Self::Vendor(Box::new(toml::from_str(text)?)),
            Role::Supervisor => Self::Supervisor(Box::new(toml::from_str(text)?)),
            Role::Witness => Self::Witness(Box::new(toml::from_str(text)?)),
        };
        for path in config.paths_mut() {
            // `.` in the middle of a path says nothing.
            *path = base.join(&path).components().collect();
        }
        config.check()?;
        Ok(config)
    }

    fn paths_mut(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Self::Vendor(it) => {
                let it = &mut **it;
                let (keys, channel) = (&mut it.keys, &mut it.channel);
                vec![
                    &mut it.data,
                    &mut it.policy.folder,
                    &mut it.log.key,
                    &mut keys.builder,
                    &mut keys.release,
                    &mut keys.recorder,
                    &mut channel.root,
                    &mut channel.targets,
                    &mut channel.snapshot,
                    &mut channel.timestamp,
                ]
                .into_iter()
                .chain(it.shared.iter_mut().flat_map(SharedSection::paths_mut))
                .collect()
            }
            Self::Supervisor(it) => {
                let it = &mut **it;
                let keys = &mut it.keys;
                vec![
                    &mut it.data,
                    &mut it.policy.folder,
                    &mut it.log.key,
                    &mut keys.builder,
                    &mut keys.release,
                    &mut keys.recorder,
                    &mut keys.status,
                ]
                .into_iter()
                .chain(it.cache.as_mut())
                .chain(it.shared.iter_mut().flat_map(SharedSection::paths_mut))
                .collect()
            }
            Self::Witness(it) => vec![&mut it.data, &mut it.key],
        }
    }

    fn check(&self) -> Result<(), ParseError> {
        let zero = |value: u64, problem| if value == 0 { Err(ParseError::Value(problem)) } else { Ok(()) };
        let http = self.http();
        zero(http.requests_max as u64, "`requests_max` must not be zero")?;
        zero(http.timeout_s, "`timeout_s` must not be zero")?;
        if let Some(log) = self.log() {
            zero(log.pool_entries as u64, "`pool_entries` must not be zero")?;
            zero(log.batch_entries as u64, "`batch_entries` must not be zero")?;
            zero(log.refresh_s, "`refresh_s` must not be zero")?;
        }
        if let Some(problem) = self.shared().and_then(SharedSection::problem) {
            return Err(ParseError::Value(problem));
        }
        match self {
            Self::Vendor(it) => zero(it.heartbeat_s, "`heartbeat_s` must not be zero"),
            Self::Supervisor(it) => {
                zero(it.heartbeat_s, "`heartbeat_s` must not be zero")?;
                zero(it.status_s, "`status_s` must not be zero")
            }
            Self::Witness(_) => Ok(()),
        }
    }

    /// The role.
    #[must_use]
    pub const fn role(&self) -> Role {
        match self {
            Self::Vendor(_) => Role::Vendor,
            Self::Supervisor(_) => Role::Supervisor,
            Self::Witness(_) => Role::Witness,
        }
    }

    /// Where this listens.
    #[must_use]
    pub fn listen(&self) -> Listen {
        match self {
            Self::Vendor(it) => it.listen,
            Self::Supervisor(it) => it.listen,
            Self::Witness(it) => it.listen,
        }
    }

    /// Where the numbers are served, if anywhere.
    #[must_use]
    pub fn metrics(&self) -> Option<SocketAddr> {
        match self {
            Self::Vendor(it) => it.metrics,
            Self::Supervisor(it) => it.metrics,
            Self::Witness(it) => it.metrics,
        }
    }

    /// Bounds of the HTTP server.
    #[must_use]
    pub fn http(&self) -> HttpSection {
        match self {
            Self::Vendor(it) => it.http,
            Self::Supervisor(it) => it.http,
            Self::Witness(it) => it.http,
        }
    }

    /// Files of the secret keys that the process uses.
    #[must_use]
    pub fn keys(&self) -> Vec<&Path> {
        let keys: Vec<&PathBuf> = match self {
            Self::Vendor(it) => {
                let (keys, channel) = (&it.keys, &it.channel);
                let own = [&it.log.key, &keys.builder, &keys.release, &keys.recorder];
                let tuf = [&channel.root, &channel.targets, &channel.snapshot, &channel.timestamp];
                own.into_iter().chain(tuf).collect()
            }
            Self::Supervisor(it) => {
                let keys = &it.keys;
                vec![&it.log.key, &keys.builder, &keys.release, &keys.recorder, &keys.status]
            }
            Self::Witness(it) => vec![&it.key],
        };
        keys.into_iter().map(PathBuf::as_path).collect()
    }

    /// Where everything that is no key lies.
    #[must_use]
    pub fn data(&self) -> DataFolder {
        DataFolder(match self {
            Self::Vendor(it) => it.data.clone(),
            Self::Supervisor(it) => it.data.clone(),
            Self::Witness(it) => it.data.clone(),
        })
    }

    /// The policy, if the role has one.
    #[must_use]
    pub fn policy(&self) -> Option<&PolicySection> {
        match self {
            Self::Vendor(it) => Some(&it.policy),
            Self::Supervisor(it) => Some(&it.policy),
            Self::Witness(_) => None,
        }
    }

    /// Stores beyond one machine, if there are any.
    #[must_use]
    pub fn shared(&self) -> Option<&SharedSection> {
        match self {
            Self::Vendor(it) => it.shared.as_ref(),
            Self::Supervisor(it) => it.shared.as_ref(),
            Self::Witness(_) => None,
        }
    }

    /// The log, if the role keeps one.
    #[must_use]
    pub fn log(&self) -> Option<&LogSection> {
        match self {
            Self::Vendor(it) => Some(&it.log),
            Self::Supervisor(it) => Some(&it.log),
            Self::Witness(_) => None,
        }
    }
}

/// Where a role's data lies, whatever the role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFolder(PathBuf);

impl DataFolder {
    /// The data below `path`.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The log's objects: a `storage::FileObjects`.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// Locks and the catalog: a `storage::SqliteStore`.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.0.join("state.sqlite")
    }

    /// Sources, inputs, environments and artifacts: an `assembly::Depot`.
    #[must_use]
    pub fn depot(&self) -> PathBuf {
        self.0.join("depot")
    }

    /// The objects of the depot, by digest: an `assembly::ContentStore`.
    #[must_use]
    pub fn content(&self) -> PathBuf {
        self.depot().join("content")
    }

    /// The channel's static tree.
    #[must_use]
    pub fn channel(&self) -> PathBuf {
        self.0.join("channel")
    }

    /// What was built: a folder for each product, and in it one for each version.
    #[must_use]
    pub fn builds(&self) -> PathBuf {
        self.0.join("builds")
    }
}

enum ParseError {
    Syntax(toml::de::Error),
    Value(&'static str),
}

impl From<toml::de::Error> for ParseError {
    fn from(error: toml::de::Error) -> Self {
        Self::Syntax(error)
    }
}

#[cfg(test)]
mod tests;
