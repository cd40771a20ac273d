//! The worker's configuration: one file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use api::BaseUrl;
use attest::{RegionId, StatementId};
use serde::Deserialize;

/// One query's memory, if nothing else is said.
const MEMORY_MB: u64 = 1024;

/// A worker.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to listen: `IP:PORT`, or `stdin` for a socket on standard input (inetd, systemd).
    pub listen: String,
    /// The region that this host is in, as its enrolment says.
    pub region: RegionId,
    /// The folder of policies: `1.envelope`, `2.bundle` …
    pub policies: PathBuf,
    /// The identity of the first policy.
    pub genesis: StatementId,
    /// The host's key, which was enrolled by ceremony.
    pub host_key: PathBuf,
    /// A bundle with the enrolment, as it was logged.
    pub enrolment: PathBuf,
    /// The vendor's vault.
    pub vault: BaseUrl,
    /// Megabytes that one query may have in memory. Two run at once.
    #[serde(default = "memory_mb")]
    pub memory_mb: u64,
}

const fn memory_mb() -> u64 {
    MEMORY_MB
}

/// Where connections come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// This address.
    Address(SocketAddr),
    /// The socket on standard input.
    Stdin,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file says something that it can't.
    #[error("`{path}`: {why}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        why: String,
    },
}

impl Config {
    /// Reads `path`; what it names lies beside it.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let wrong = |why: String| ConfigError::Wrong { path: path.to_owned(), why };
        let mut config: Self = toml::from_str(&text).map_err(|error| wrong(error.to_string().trim_end().to_owned()))?;
        config.listen().map_err(wrong)?;
        if !(64..=1 << 20).contains(&config.memory_mb) {
            return Err(wrong("`memory_mb` is 64 to 1048576".to_owned()));
        }
        let base = path.parent().unwrap_or(Path::new("."));
        for named in [&mut config.policies, &mut config.host_key, &mut config.enrolment] {
            *named = base.join(&*named);
        }
        Ok(config)
    }

    /// Where connections come from.
    ///
    /// # Errors
    /// When it is neither an address nor `stdin`.
    pub fn listen(&self) -> Result<Listen, String> {
        if self.listen == "stdin" {
            return Ok(Listen::Stdin);
        }
        let address = self.listen.parse().map_err(|_| format!("`listen` is IP:PORT or `stdin`, not `{}`", self.listen));
        address.map(Listen::Address)
    }
}
