//! The gateway's part of a supervisor's configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;

use api::BaseUrl;
use attest::{OrganisationId, RegionId, WORKERS_MAX};
use serde::Deserialize;

/// Access to data: only where the policy names this organisation as the gateway.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessSection {
    /// Signs `access-intent` and `access-outcome`.
    pub key: PathBuf,
    /// The Cedar policies that say who may ask what for which purpose; the policy names them by their SHA-256.
    pub rules: PathBuf,
    /// Where the workers of each region are: one address, or up to 8 in a list.
    pub workers: BTreeMap<RegionId, WorkerAddresses>,
    /// Where each custodian is.
    pub custodians: BTreeMap<OrganisationId, BaseUrl>,
}

/// Where a region's workers are.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "OneOrSeveral")]
pub struct WorkerAddresses(pub Vec<BaseUrl>);

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrSeveral {
    One(BaseUrl),
    Several(Vec<BaseUrl>),
}

impl TryFrom<OneOrSeveral> for WorkerAddresses {
    type Error = String;

    fn try_from(addresses: OneOrSeveral) -> Result<Self, String> {
        match addresses {
            OneOrSeveral::One(address) => Ok(Self(vec![address])),
            OneOrSeveral::Several(all) if (1..=WORKERS_MAX).contains(&all.len()) => Ok(Self(all)),
            OneOrSeveral::Several(all) => {
                Err(format!("{} workers in a region; there are 1 to {WORKERS_MAX}", all.len()))
            }
        }
    }
}

impl AccessSection {
    pub(super) fn paths_mut(&mut self) -> Vec<&mut PathBuf> {
        vec![&mut self.key, &mut self.rules]
    }
}

#[cfg(test)]
mod tests {
    use super::AccessSection;

    #[test]
    fn a_region_has_one_worker_or_up_to_eight() {
        let section = |workers: &str| {
            let text = format!("key = 'k'\nrules = 'r'\nworkers = {{ zurich = {workers} }}\ncustodians = {{}}");
            toml::from_str::<AccessSection>(&text)
        };
        let count_of = |workers: &str| section(workers).unwrap().workers.values().map(|it| it.0.len()).sum::<usize>();
        let several = |count: usize| format!("{:?}", vec!["https://worker.example"; count]);
        assert_eq!(count_of("'https://worker.example'"), 1);
        for count in [1, 3, 8] {
            assert_eq!(count_of(&several(count)), count);
        }
        for count in [0, 9] {
            let refused = section(&several(count)).unwrap_err().to_string();
            assert!(refused.contains(&format!("{count} workers in a region; there are 1 to 8")), "{refused}");
        }
        assert!(section("'nowhere'").is_err() && section("7").is_err());
    }
}
