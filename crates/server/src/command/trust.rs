//! Which policy a command goes by, and which of its logs is meant.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use api::{BaseUrl, Client};
use attest::StatementId;
use clap::Args;
use log::TileSource;
use tlog::{MAX_NOTE_BYTES, Origin, SignedCheckpoint, VerifierKey};
use verify::TrustedPolicy;

use crate::command::check_config;
use crate::failure::Failure;
use crate::peer::HttpTiles;
use crate::{policy_folder, serve};

/// A bundle of 17 MB over a slow line.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The policy to go by: a configuration's, or a folder's.
#[derive(Clone, Debug, Args)]
pub struct TrustArguments {
    /// A vendor's or supervisor's configuration, which names policy and genesis
    #[arg(long, value_name = "FILE", conflicts_with_all = ["policy", "genesis"])]
    pub config: Option<PathBuf>,
    /// The folder with `1.envelope`, `2.bundle` …
    #[arg(long, value_name = "DIR", requires = "genesis")]
    pub policy: Option<PathBuf>,
    /// The id of the genesis policy, learnt from another channel
    #[arg(long, value_name = "ID", requires = "policy")]
    pub genesis: Option<StatementId>,
}

impl TrustArguments {
    /// The policy, trusted.
    ///
    /// # Errors
    /// When none is named, or it does not hold.
    pub fn load(&self) -> anyhow::Result<TrustedPolicy> {
        match (&self.config, &self.policy, &self.genesis) {
            (Some(config), ..) => serve::policy(&check_config::load(config)?),
            (None, Some(folder), Some(genesis)) => Ok(policy_folder::load(folder, genesis)?),
            _ => Err(Failure::usage("no policy to go by")
                .hint("give `--config FILE`, or `--policy DIR --genesis ID`")
                .into()),
        }
    }
}

/// A log of the policy.
#[derive(Clone, Debug, Args)]
pub struct LogArguments {
    /// The log's origin; not needed if the policy has only one
    #[arg(long, value_name = "ORIGIN")]
    pub log: Option<Origin>,
    /// Where the log is, if not where the policy says
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// The policy to go by.
    #[command(flatten)]
    pub trust: TrustArguments,
}

/// A log and how to reach it.
#[derive(Clone, Debug)]
pub struct LogAt {
    /// The log's key; its name is the origin.
    pub key: VerifierKey,
    /// Its origin.
    pub origin: Origin,
    /// Its prefix.
    pub url: BaseUrl,
    /// The client.
    pub client: Client,
}

impl LogArguments {
    /// The log that is meant, and the policy.
    ///
    /// # Errors
    /// When the policy has no such log, or several and none is named.
    pub fn load(&self) -> anyhow::Result<(TrustedPolicy, LogAt)> {
        let policy = self.trust.load()?;
        let mut logs = logs_of(&policy, self.url.as_deref())?;
        let position = match &self.log {
            Some(origin) => logs.iter().position(|(found, _)| found == origin),
            None if logs.len() == 1 => Some(0),
            None => {
                let names: Vec<_> = logs.iter().map(|(origin, _)| origin.as_str()).collect();
                let hint = format!("the policy has: {}", names.join(", "));
                return Err(Failure::usage("which log? (`--log ORIGIN`)").hint(hint).into());
            }
        };
        let Some(position) = position else {
            let origin = self.log.as_ref().map_or_else(String::new, ToString::to_string);
            return Err(Failure::refused(format!("the policy has no log `{origin}`")).into());
        };
        let (_, log) = logs.swap_remove(position);
        Ok((policy, log?))
    }
}

/// A log, or why it can't be reached.
type Found = (Origin, anyhow::Result<LogAt>);

/// Every log of `policy`, each where `url` or the policy says.
fn logs_of(policy: &TrustedPolicy, url: Option<&str>) -> anyhow::Result<Vec<Found>> {
    let log = |log: &tlog::PolicyLog| {
        let origin: Origin = log.key.name().clone().into();
        let at = match url.or(log.url.as_deref()) {
            Some(url) => url.parse().with_context(|| format!("the URL of `{origin}`")),
            None => Err(Failure::refused(format!("the policy gives no URL for the log `{origin}`"))
                .hint("give `--url URL`, or write it into the policy: `log VKEY URL`")
                .into()),
        };
        let at = at.map(|url| LogAt {
            key: log.key.clone(),
            origin: origin.clone(),
            url,
            client: Client::new(REQUEST_TIMEOUT),
        });
        Ok((origin, at))
    };
    policy.witnessing().logs().iter().map(log).collect()
}

/// Every log of `policy`, where the policy says.
///
/// # Errors
/// When a log has no URL.
pub fn all_logs(policy: &TrustedPolicy) -> anyhow::Result<Vec<LogAt>> {
    logs_of(policy, None)?.into_iter().map(|(_, log)| log).collect()
}

impl LogAt {
    /// Its objects.
    #[must_use]
    pub fn source(&self) -> Arc<dyn TileSource> {
        Arc::new(HttpTiles { url: self.url.clone(), client: self.client.clone() })
    }

    /// The published checkpoint, with the log's signature verified.
    ///
    /// # Errors
    /// When it can't be had, or is not the log's.
    pub async fn checkpoint(&self) -> anyhow::Result<SignedCheckpoint> {
        let (client, url) = (self.client.clone(), self.url.join("/checkpoint"));
        let limit = api::BodyLimit(MAX_NOTE_BYTES as u64);
        let bytes = tokio::task::spawn_blocking(move || client.get(&url, limit)).await??;
        SignedCheckpoint::open(bytes, &self.key).with_context(|| format!("the checkpoint of `{}`", self.origin))
    }
}
