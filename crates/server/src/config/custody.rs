//! The custodian's configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use api::BaseUrl;
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
    /// Where the vendor answers, whose vault has the sealed objects. Without it no region's key is ever destroyed.
    pub vault: Option<BaseUrl>,
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
    /// The folder of the key of the custodian's own table.
    pub table: PathBuf,
    /// A token for keys that can't leave it, if there is one.
    pub token: Option<TokenSection>,
}

/// A PKCS#11 token.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSection {
    /// The program `clerestory-token`.
    pub program: PathBuf,
    /// The vendor's PKCS#11 module, a shared library.
    pub module: PathBuf,
    /// The token's label.
    pub label: String,
    /// A file with the user's PIN, which nobody else can read.
    pub pin: PathBuf,
}

const fn default_report_s() -> u64 {
    3600
}
