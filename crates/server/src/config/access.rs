//! The gateway's part of a supervisor's configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;

use api::BaseUrl;
use attest::{OrganisationId, RegionId};
use serde::Deserialize;

/// Access to data: only where the policy names this organisation as the gateway.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessSection {
    /// Signs `access-intent` and `access-outcome`.
    pub key: PathBuf,
    /// The Cedar policies that say who may ask what for which purpose; the policy names them by their SHA-256.
    pub rules: PathBuf,
    /// Where the worker of each region is.
    pub workers: BTreeMap<RegionId, BaseUrl>,
    /// Where each custodian is.
    pub custodians: BTreeMap<OrganisationId, BaseUrl>,
}

impl AccessSection {
    pub(super) fn paths_mut(&mut self) -> Vec<&mut PathBuf> {
        vec![&mut self.key, &mut self.rules]
    }
}
