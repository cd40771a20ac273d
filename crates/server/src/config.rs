//! Configuration: one TOML file, one struct for each role.

mod access;
mod cloud;
mod custody;
mod data;
mod lookup;
mod roles;
mod shared;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use attest::OrganisationId;
use serde::{Deserialize, Serialize};

pub use access::AccessSection;
pub use cloud::CloudSection;
pub use custody::{CustodianConfig, CustodianKeys, TokenSection};
pub use data::DataFolder;
pub use lookup::{GatewayConfig, RelayConfig};
pub use roles::{
    ChannelKeys, CompactionSection, HttpSection, LogSection, PolicySection, SupervisorConfig, SupervisorKeys,
    VendorConfig, VendorKeys, WitnessConfig,
};
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
    /// Passes look-ups on, without learning what is asked
    Relay,
    /// Answers look-ups, without learning who asks
    Gateway,
    /// Opens its shares of data keys for whom the log names
    Custodian,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vendor => "vendor",
            Self::Supervisor => "supervisor",
            Self::Witness => "witness",
            Self::Relay => "relay",
            Self::Gateway => "gateway",
            Self::Custodian => "custodian",
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

/// What the roles have in common that keep a log.
#[derive(Clone, Copy, Debug)]
pub struct Keeper<'a> {
    /// What the policy calls the organisation.
    pub organisation: &'a OrganisationId,
    /// The policy in force.
    pub policy: &'a PolicySection,
    /// Its log.
    pub log: &'a LogSection,
    /// Stores beyond one machine, if there are any.
    pub shared: Option<&'a SharedSection>,
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
    /// A relay of look-ups.
    Relay(Box<RelayConfig>),
    /// A gateway of look-ups.
    Gateway(Box<GatewayConfig>),
    /// A custodian.
    Custodian(Box<CustodianConfig>),
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
            Role::Relay => Self::Relay(Box::new(toml::from_str(text)?)),
            Role::Gateway => Self::Gateway(Box::new(toml::from_str(text)?)),
            Role::Custodian => Self::Custodian(Box::new(toml::from_str(text)?)),
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
                .chain(keys.rules.as_mut())
                .chain(channel.rules.as_mut())
                .chain(it.intake.as_mut())
                .chain(it.cloud.iter_mut().flat_map(CloudSection::paths_mut))
                .chain(it.compaction.as_mut().map(|section| &mut section.key))
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
                .chain(keys.rules.as_mut())
                .chain(it.cache.as_mut())
                .chain(it.access.iter_mut().flat_map(AccessSection::paths_mut))
                .chain(it.shared.iter_mut().flat_map(SharedSection::paths_mut))
                .collect()
            }
            Self::Witness(it) => vec![&mut it.data, &mut it.key],
            Self::Relay(_) => Vec::new(),
            Self::Gateway(it) => {
                let it = &mut **it;
                std::iter::once(&mut it.key).chain(&mut it.malicious).chain(&mut it.clean).collect()
            }
            Self::Custodian(it) => {
                let it = &mut **it;
                let keys = &mut it.keys;
                let token = keys.token.iter_mut().flat_map(|it| [&mut it.program, &mut it.module, &mut it.pin]);
                vec![&mut it.data, &mut it.policy.folder, &mut keys.custodian, &mut keys.regions, &mut keys.table]
                    .into_iter()
                    .chain(token)
                    .collect()
            }
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
            Self::Custodian(it) => zero(it.report_s, "`report_s` must not be zero"),
            Self::Witness(_) | Self::Relay(_) | Self::Gateway(_) => Ok(()),
        }
    }

    /// The role.
    #[must_use]
    pub const fn role(&self) -> Role {
        match self {
            Self::Vendor(_) => Role::Vendor,
            Self::Supervisor(_) => Role::Supervisor,
            Self::Witness(_) => Role::Witness,
            Self::Relay(_) => Role::Relay,
            Self::Gateway(_) => Role::Gateway,
            Self::Custodian(_) => Role::Custodian,
        }
    }

    /// Where this listens.
    #[must_use]
    pub fn listen(&self) -> Listen {
        match self {
            Self::Vendor(it) => it.listen,
            Self::Supervisor(it) => it.listen,
            Self::Witness(it) => it.listen,
            Self::Relay(it) => it.listen,
            Self::Gateway(it) => it.listen,
            Self::Custodian(it) => it.listen,
        }
    }

    /// Where the numbers are served, if anywhere.
    #[must_use]
    pub fn metrics(&self) -> Option<SocketAddr> {
        match self {
            Self::Vendor(it) => it.metrics,
            Self::Supervisor(it) => it.metrics,
            Self::Witness(it) => it.metrics,
            Self::Relay(it) => it.metrics,
            Self::Gateway(it) => it.metrics,
            Self::Custodian(it) => it.metrics,
        }
    }

    /// Bounds of the HTTP server.
    #[must_use]
    pub fn http(&self) -> HttpSection {
        let section = match self {
            // Its channel is the only thing that is waited for.
            Self::Vendor(it) => return it.http,
            Self::Supervisor(it) => it.http,
            Self::Witness(it) => it.http,
            Self::Relay(it) => it.http,
            Self::Gateway(it) => it.http,
            Self::Custodian(it) => it.http,
        };
        HttpSection { waiting_max: 0, ..section }
    }

    /// Files of the secret keys that the process uses.
    #[must_use]
    pub fn keys(&self) -> Vec<&Path> {
        let keys: Vec<&PathBuf> = match self {
            Self::Vendor(it) => {
                let (keys, channel) = (&it.keys, &it.channel);
                let own = [&it.log.key, &keys.builder, &keys.release, &keys.recorder];
                let tuf = [&channel.root, &channel.targets, &channel.snapshot, &channel.timestamp];
                own.into_iter().chain(tuf).chain(&keys.rules).chain(&channel.rules).collect()
            }
            Self::Supervisor(it) => {
                let keys = &it.keys;
                let own = [&it.log.key, &keys.builder, &keys.release, &keys.recorder, &keys.status];
                own.into_iter().chain(&keys.rules).chain(it.access.iter().map(|it| &it.key)).collect()
            }
            Self::Witness(it) => vec![&it.key],
            Self::Relay(_) => Vec::new(),
            Self::Gateway(it) => vec![&it.key],
            Self::Custodian(it) => vec![&it.keys.custodian],
        };
        keys.into_iter().map(PathBuf::as_path).collect()
    }

    /// Where everything that is no key lies. Relays and gateways keep nothing: theirs is never written.
    #[must_use]
    pub fn data(&self) -> DataFolder {
        DataFolder::new(match self {
            Self::Vendor(it) => it.data.clone(),
            Self::Supervisor(it) => it.data.clone(),
            Self::Witness(it) => it.data.clone(),
            Self::Custodian(it) => it.data.clone(),
            Self::Relay(_) | Self::Gateway(_) => PathBuf::from("."),
        })
    }

    /// The organisation that keeps a log, if the role does.
    #[must_use]
    pub fn keeper(&self) -> Option<Keeper<'_>> {
        let (organisation, policy, log, shared) = match self {
            Self::Vendor(it) => (&it.organisation, &it.policy, &it.log, it.shared.as_ref()),
            Self::Supervisor(it) => (&it.organisation, &it.policy, &it.log, it.shared.as_ref()),
            Self::Witness(_) | Self::Relay(_) | Self::Gateway(_) | Self::Custodian(_) => return None,
        };
        Some(Keeper { organisation, policy, log, shared })
    }

    /// What the policy calls this organisation, if the role goes by one.
    #[must_use]
    pub fn organisation(&self) -> Option<&OrganisationId> {
        match self {
            Self::Custodian(it) => Some(&it.organisation),
            _ => self.keeper().map(|it| it.organisation),
        }
    }

    /// The policy, if the role has one.
    #[must_use]
    pub fn policy(&self) -> Option<&PolicySection> {
        match self {
            Self::Custodian(it) => Some(&it.policy),
            _ => self.keeper().map(|it| it.policy),
        }
    }

    /// Stores beyond one machine, if there are any.
    #[must_use]
    pub fn shared(&self) -> Option<&SharedSection> {
        self.keeper().and_then(|it| it.shared)
    }

    /// The log, if the role keeps one.
    #[must_use]
    pub fn log(&self) -> Option<&LogSection> {
        self.keeper().map(|it| it.log)
    }

    /// The same role and keys with all its data, and the policy, below another folder of this machine.
    #[must_use]
    pub(crate) fn moved_to(&self, folder: &Path) -> Self {
        let mut moved = self.clone();
        let (data, policy) = (folder.join("data"), folder.join("policy"));
        match &mut moved {
            Self::Vendor(it) => {
                it.intake = it.intake.as_ref().map(|_| folder.join("intake"));
                (it.data, it.policy.folder, it.shared) = (data, policy, None);
            }
            Self::Supervisor(it) => (it.data, it.policy.folder, it.shared) = (data, policy, None),
            Self::Witness(it) => it.data = data,
            Self::Custodian(it) => (it.data, it.policy.folder) = (data, policy),
            Self::Relay(_) | Self::Gateway(_) => {}
        }
        moved
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
