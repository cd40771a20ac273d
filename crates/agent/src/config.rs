//! The owner's configuration: one TOML file (`docs/samples/agent.toml`).

use std::path::PathBuf;
use std::time::Duration;

use api::BaseUrl;
use attest::{CountryCode, OrganisationId, ProductId, Ring};
use serde::{Deserialize, Serialize};
use tlog::Origin;

/// Configurations are written by hand.
const CONFIG_BYTES_MAX: usize = 256 << 10;

/// What the owner of this machine wants.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the agent keeps what it must never forget. Made by `init`.
    pub state: PathBuf,
    /// Where products are installed: `PRODUCT/a`, `PRODUCT/b`, and the link `PRODUCT/current`.
    pub install: PathBuf,
    /// The channel's mirrors: all are asked for policies and status, besides those that the policy
    /// names; for everything else they are tried in this order.
    pub channel: Vec<BaseUrl>,
    /// How early this machine takes new releases: `canary`, `early` or `all`.
    pub ring: Ring,
    /// How often `run` looks for news, in seconds.
    #[serde(default = "default_interval")]
    pub interval_s: u64,
    /// `run` waits besides for what is new, and looks at everything then, and after `interval_s`. Where no server keeps
    /// the question, it asks so often, in seconds, by two small conditional requests; and it looks no oftener.
    pub watch_s: Option<u64>,
    /// How old evidence may be, where the policy allows more than the owner wants.
    #[serde(default)]
    pub ages: LimitAges,
    /// Limits on the network.
    #[serde(default)]
    pub network: Network,
    /// Mirrors of the logs, to prove that they only grow. Without one, a quorum of witnesses
    /// stands in, and the gap is remembered.
    #[serde(default, rename = "log")]
    pub logs: Vec<LogMirror>,
    /// How files are looked up, if they are.
    pub lookup: Option<LookupSection>,
    /// Where what the owner agrees to share goes. Nothing goes anywhere before that.
    pub share: Option<ShareSection>,
    /// What is scanned on this machine, and with which rules.
    pub scan: Option<ScanSection>,
    /// Where this machine reports to, if it goes first (`clerestory-agent canary`).
    pub canary: Option<CanarySection>,
    /// The products that may be installed; nothing else ever is.
    #[serde(default, rename = "product")]
    pub products: Vec<Product>,
}

const fn default_interval() -> u64 {
    3_600
}

/// How old evidence may be, in seconds; the smaller of this and the policy's counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitAges {
    /// Online.
    pub online_s: Option<u64>,
    /// For imports from a stick.
    pub import_s: Option<u64>,
}

/// Limits on the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// A server may keep an update waiting for so many seconds in all,
    pub timeout_s: u64,
    /// and for a second more with each so many bytes that come from it.
    pub rate_min: u64,
}

impl Default for Network {
    fn default() -> Self {
        Self { timeout_s: 30, rate_min: 16 << 10 }
    }
}

/// How files are looked up.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LookupSection {
    /// The rules product whose set is asked first.
    pub rules: ProductId,
    /// Which of the policy's relays is asked; the first if it is missing.
    pub relay: Option<OrganisationId>,
}

/// Where shared data goes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareSection {
    /// The vendor's intake.
    pub intake: BaseUrl,
    /// The country that this machine's owner is in: the policy says which region that is. One that it
    /// assigns to none shares nothing.
    pub country: CountryCode,
}

/// What is scanned on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScanSection {
    /// The product whose rules are used.
    pub rules: ProductId,
    /// `run` scans what changes in these folders, and below them.
    #[serde(default)]
    pub folders: Vec<PathBuf>,
}

/// Where a canary reports to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CanarySection {
    /// The supervisor's server.
    pub supervisor: BaseUrl,
}

/// A mirror of a log's tiles.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogMirror {
    /// The log.
    pub origin: Origin,
    /// Where its tiles are.
    pub url: BaseUrl,
}

/// A product that may be installed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Product {
    /// Its name in the policy.
    pub id: ProductId,
    /// Its own ring, where it is not the machine's.
    pub ring: Option<Ring>,
    /// The most bytes that a release of it may have in all.
    #[serde(default = "default_size")]
    pub bytes_max: u64,
    /// How to tell that it works.
    pub health: Option<Health>,
}

impl Product {
    /// So many failures within such a time are a crash loop.
    pub(crate) fn crash_loop(&self) -> (usize, Duration) {
        let says = self.health.as_ref().map(|health| (health.failures, health.window_s));
        let (failures, window_s) = says.unwrap_or((default_failures(), default_window()));
        (failures, Duration::from_secs(window_s))
    }
}

const fn default_size() -> u64 {
    1 << 30
}

/// A command that succeeds when the product works.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Program and arguments; a relative program lies below the product's folder, where it runs.
    pub command: Vec<String>,
    /// After so many seconds it has failed.
    #[serde(default = "default_health_timeout")]
    pub timeout_s: u64,
    /// So many failures within the window are a crash loop.
    #[serde(default = "default_failures")]
    pub failures: usize,
    /// The window, in seconds.
    #[serde(default = "default_window")]
    pub window_s: u64,
}

const fn default_health_timeout() -> u64 {
    30
}

const fn default_failures() -> usize {
    3
}

const fn default_window() -> u64 {
    600
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Too long.
    #[error("{0} bytes; at most {CONFIG_BYTES_MAX} are read")]
    TooLong(usize),
    /// Not TOML of the right shape.
    #[error("{0}")]
    Syntax(String),
    /// A value that makes no sense.
    #[error("`{field}`: {problem}")]
    Value {
        /// The field.
        field: &'static str,
        /// What is wrong.
        problem: String,
    },
}

impl Config {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// [`ConfigError`] naming the field.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        if text.len() > CONFIG_BYTES_MAX {
            return Err(ConfigError::TooLong(text.len()));
        }
        let config: Self = toml::from_str(text).map_err(|error| ConfigError::Syntax(error.to_string()))?;
        config.check().map(|()| config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let refuse = |field, problem: &str| Err(ConfigError::Value { field, problem: problem.to_owned() });
        if self.channel.is_empty() {
            return refuse("channel", "at least one mirror is needed");
        }
        if self.products.is_empty() {
            return refuse("product", "no product may be installed; name at least one");
        }
        if self.interval_s == 0 || self.watch_s == Some(0) || self.network.timeout_s == 0 || self.network.rate_min == 0
        {
            return refuse("interval_s, network", "must not be zero");
        }
        if self.scan.is_some() && self.scanned().is_none() {
            return refuse("scan.rules", "must be one of the products");
        }
        for (at, product) in self.products.iter().enumerate() {
            if self.products.iter().take(at).any(|other| other.id == product.id) {
                return Err(ConfigError::Value {
                    field: "product.id",
                    problem: format!("`{}` stands twice", product.id),
                });
            }
            if let Some(health) = &product.health
                && (health.command.is_empty() || health.failures == 0 || health.timeout_s == 0)
            {
                return refuse("product.health", "needs a command, and failures and timeout_s above zero");
            }
        }
        Ok(())
    }

    /// The product whose rules are used for scanning.
    #[must_use]
    pub fn scanned(&self) -> Option<&Product> {
        let rules = &self.scan.as_ref()?.rules;
        self.products.iter().find(|product| product.id == *rules)
    }

    /// The product whose set is asked for known-bad files.
    pub(crate) fn known(&self) -> Option<&Product> {
        let rules = &self.lookup.as_ref()?.rules;
        self.products.iter().find(|product| product.id == *rules)
    }

    /// The ring of a product on this machine.
    #[must_use]
    pub fn ring_of(&self, product: &Product) -> Ring {
        product.ring.unwrap_or(self.ring)
    }

    /// What of this is the owner's policy: its changes are journalled.
    pub(crate) fn owners_policy(&self) -> String {
        let products: Vec<_> = self.products.iter().map(|it| format!("{} {}", it.id, self.ring_of(it))).collect();
        let ages = serde_json::to_string(&self.ages).unwrap_or_default();
        format!("products [{}]; ages {ages}", products.join(", "))
    }
}
