//! The custodian's configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use attest::OrganisationId;
use serde::Deserialize;

use super::{HttpSection, Listen, PolicySection, Role};

/// A custodian: opens its shares for whom the log names, and never before.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustodianConfig {
    /// Always `custodian`.
    pub role: Role,
    /// What the policy calls this organisation; it says of which regions it is a custodian.
    pub organisation: OrganisationId,
    /// Where this listens: `IP:PORT`, or `stdin` for a socket that was handed over.
    pub listen: Listen,
    /// Where the numbers are served, for the operator alone: `IP:PORT`. Nowhere if it is missing.
    pub metrics: Option<SocketAddr>,
    /// The folder of the ledger: `state.sqlite`.
    pub data: PathBuf,
    /// The policy in force.
    pub policy: PolicySection,
    /// The keys.
    pub keys: CustodianKeys,
    /// A report of what was opened is logged every so many seconds.
    #[serde(default = "default_report_s")]
    pub report_s: u64,
    /// Bounds of the HTTP server.
    #[serde(default)]
    pub http: HttpSection,
}

/// What a custodian signs and opens with.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustodianKeys {
    /// Signs `custody-report`.
    pub custodian: PathBuf,
    /// The folder of the regions' keys, one a week, in files.
    pub regions: PathBuf,
}

const fn default_report_s() -> u64 {
    3600
}
