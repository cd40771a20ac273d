//! `clerestory check-config`: the configuration, and the keys and policy that it names.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use verify::TrustedPolicy;

use crate::command::Output;
use crate::config::{Config, PolicySection, Role};
use crate::custodian::KeyRing;
use crate::failure::Failure;
use crate::http::gateway::Gateway;
use crate::{key_file, policy_folder, stores};

/// Check a configuration and the keys and policy that it names
#[derive(Debug, Args)]
pub struct Arguments {
    /// The configuration
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// A good configuration.
#[derive(Debug, Serialize)]
struct Checked {
    role: Role,
    policy: Option<PolicyInForce>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lookup: Option<LookupEntry>,
}

/// What the policy says of a gateway.
#[derive(Debug, Serialize)]
struct LookupEntry {
    key: String,
    prefix_bits: u8,
    answer_bytes: usize,
}

#[derive(Debug, Serialize)]
struct PolicyInForce {
    name: String,
    version: u64,
    id: String,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "a good configuration of a {}", self.role)?;
        if let Some(policy) = &self.policy {
            writeln!(f, "policy `{}` version {} ({})", policy.name, policy.version, policy.id)?;
        }
        if let Some(LookupEntry { key, prefix_bits, answer_bytes }) = &self.lookup {
            writeln!(f, "for `[lookup]` in the policy:\nkey = \"{key}\"\nprefix_bits = {prefix_bits}")?;
            writeln!(f, "each answer has {answer_bytes} bytes")?;
        }
        Ok(())
    }
}

/// Reads a configuration; what is wrong with it is a matter of usage.
///
/// # Errors
/// Exit code 2, naming file and line.
pub(crate) fn load(path: &Path) -> anyhow::Result<Config> {
    Config::load(path).with_context(|| {
        Failure::usage("the configuration can't be used")
            .hint("`clerestory init ROLE` writes one with comments; samples stand in docs/samples")
    })
}

/// Loads the policy that a configuration names.
///
/// # Errors
/// When it names none, or the folder gives none.
pub(crate) fn load_policy(section: &PolicySection) -> anyhow::Result<TrustedPolicy> {
    Ok(policy_folder::load(&section.folder, &section.genesis.ok_or_else(no_genesis)?)?)
}

pub(crate) fn no_genesis() -> Failure {
    Failure::refused("the configuration names no genesis policy (`genesis` in `[policy]`)")
        .hint("`clerestory policy assemble` prints the id; compare it with the other organisations'")
}

/// # Errors
/// The first thing that is wrong.
pub fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let config = load(&arguments.config)?;
    let keys = match &config {
        Config::Vendor(it) => {
            for key in [&it.channel.root, &it.channel.targets, &it.channel.snapshot, &it.channel.timestamp] {
                key_file::load_tuf(key)?;
            }
            vec![&it.log.key, &it.keys.builder, &it.keys.release, &it.keys.recorder]
        }
        Config::Supervisor(it) => {
            vec![&it.log.key, &it.keys.builder, &it.keys.release, &it.keys.recorder, &it.keys.status]
        }
        Config::Witness(it) => vec![&it.key],
        Config::Custodian(it) => {
            KeyRing::open(it)?;
            vec![&it.keys.custodian]
        }
        Config::Relay(_) | Config::Gateway(_) => Vec::new(),
    };
    for key in keys {
        key_file::load(key)?;
    }
    stores::check_secrets(&config)?;
    let policy = match config.policy().filter(|section| section.genesis.is_some()) {
        Some(section) => {
            let policy = load_policy(section)?;
            let (name, version) = (policy.policy().name.clone(), policy.policy().version);
            Some(PolicyInForce { name, version, id: policy.id().to_string() })
        }
        None => None,
    };
    let lookup = match &config {
        Config::Gateway(section) => {
            let gateway = Gateway::open(section)?;
            let (key, known) = (gateway.key().configuration().to_string(), gateway.known());
            Some(LookupEntry { key, prefix_bits: known.bits().get(), answer_bytes: known.answer_bytes() })
        }
        _ => None,
    };
    output.print(&Checked { role: config.role(), policy, lookup })
}
