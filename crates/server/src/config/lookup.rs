//! The two roles of a look-up.

use std::net::SocketAddr;
use std::path::PathBuf;

use api::BaseUrl;
use serde::Deserialize;

use super::{HttpSection, Listen, Role};

/// A relay: passes look-ups on to one gateway; learns who asks, and not what.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayConfig {
    /// Always `relay`.
    pub role: Role,
    /// Where this listens: `IP:PORT`, or `stdin` for a socket that was handed over.
    pub listen: Listen,
    /// Where the numbers are served, for the operator alone: `IP:PORT`. Nowhere if it is missing.
    pub metrics: Option<SocketAddr>,
    /// The one gateway that questions go to.
    pub gateway: BaseUrl,
    /// Bounds of the HTTP server.
    #[serde(default)]
    pub http: HttpSection,
}

/// A gateway: answers look-ups; learns what is asked, and not who asks.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// Always `gateway`.
    pub role: Role,
    /// Where this listens: `IP:PORT`, or `stdin` for a socket that was handed over.
    pub listen: Listen,
    /// Where the numbers are served, for the operator alone: `IP:PORT`. Nowhere if it is missing.
    pub metrics: Option<SocketAddr>,
    /// The file of the gateway's key.
    pub key: PathBuf,
    /// How many bits of a hash are asked with, as the policy says.
    pub prefix_bits: u8,
    /// Lists of hashes of bad files.
    pub malicious: Vec<PathBuf>,
    /// Lists of hashes of good files.
    #[serde(default)]
    pub clean: Vec<PathBuf>,
    /// Bounds of the HTTP server.
    #[serde(default)]
    pub http: HttpSection,
}
