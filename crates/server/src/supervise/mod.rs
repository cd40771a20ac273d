//! The supervisor's part: rebuilding with inputs of its own, signing second, and saying no.

mod canary;
mod erasure;
mod rebuild;
mod region;
mod rules;
mod second;
mod status;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;

use tlog::SignerKey;
use tokio::sync::Notify;

pub(crate) use canary::LoggedHosts;
pub use canary::{Host, ReportError};
pub(crate) use erasure::{Erasing, ErasureProbe, Wanted, read_manifests};
pub use rebuild::PutError;
pub(crate) use region::{EnrolledHost, RegionWord};
pub(crate) use rules::released_record;
pub use second::SecondError;
pub(crate) use second::Signed;
pub use status::{Negative, SHOWN, Shown, StatusProbe};

use crate::config::{Config, SupervisorConfig};
use crate::domain::Domain;
use crate::failure::Failure;
use crate::key_file;

/// The supervisor.
pub struct Supervisor {
    domain: Domain,
    config: SupervisorConfig,
    builder: SignerKey,
    release: SignerKey,
    recorder: SignerKey,
    status: SignerKey,
    rules: Option<SignerKey>,
    cache: Option<PathBuf>,
    work: Notify,
}

impl Supervisor {
    /// Opens what `config` names.
    ///
    /// # Errors
    /// When a key, the policy or a store is missing.
    pub async fn open(config: &Config) -> anyhow::Result<Arc<Self>> {
        Self::of(config, Domain::open(config).await?)
    }

    /// The supervisor of `config` with these tools.
    ///
    /// # Errors
    /// When a key is missing.
    pub fn of(config: &Config, domain: Domain) -> anyhow::Result<Arc<Self>> {
        let Config::Supervisor(section) = config else {
            return Err(Failure::usage("only a supervisor can do this")
                .hint("name the supervisor's configuration")
                .into());
        };
        Ok(Arc::new(Self {
            domain,
            builder: key_file::load(&section.keys.builder)?,
            release: key_file::load(&section.keys.release)?,
            recorder: key_file::load(&section.keys.recorder)?,
            status: key_file::load(&section.keys.status)?,
            rules: section.keys.rules.as_deref().map(key_file::load).transpose()?,
            cache: section.cache.clone(),
            config: (**section).clone(),
            work: Notify::new(),
        }))
    }

    /// The organisation's tools.
    #[must_use]
    pub const fn domain(&self) -> &Domain {
        &self.domain
    }
}
