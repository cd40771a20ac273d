//! `clerestory init ROLE`: the folder of a role with keys, stores and a configuration.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use attest::OrganisationId;
use clap::Args;
use serde::Serialize;
use stdx::{Entropy, SystemEntropy, durable};
use storage::{FileObjects, SqliteStore};
use tlog::{KeyKind, KeyName, VerifierKey};

use crate::command::{Output, block_on, read_limited};
use crate::config::{DataFolder, Role, SharedSection};
use crate::failure::Failure;
use crate::key_file::{self, NewKey};
use crate::stores;

/// The configuration's file name.
pub const CONFIG_FILE: &str = "clerestory.toml";

/// A section is half a page of text.
const SHARED_BYTES_MAX: usize = 64 << 10;

const VENDOR_SAMPLE: &str = include_str!("../../../../docs/samples/vendor.toml");
const SUPERVISOR_SAMPLE: &str = include_str!("../../../../docs/samples/supervisor.toml");
const WITNESS_SAMPLE: &str = include_str!("../../../../docs/samples/witness.toml");
const RELAY_SAMPLE: &str = include_str!("../../../../docs/samples/relay.toml");
const CUSTODIAN_SAMPLE: &str = include_str!("../../../../docs/samples/custodian.toml");
const GATEWAY_SAMPLE: &str = include_str!("../../../../docs/samples/gateway.toml");

/// Make the folder of a role: keys, stores and a configuration
#[derive(Debug, Args)]
pub struct Arguments {
    /// The role
    #[arg(value_enum)]
    pub role: Role,
    /// The folder, which must be missing or empty
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// What policies call this organisation
    #[arg(long, value_name = "NAME")]
    pub organisation: OrganisationId,
    /// What its keys' names begin with [default: NAME.example, a domain reserved for examples]
    #[arg(long, value_name = "DOMAIN")]
    pub domain: Option<KeyName>,
    /// A log to be witnessed, by its `vkey` line; may be given several times
    #[arg(long = "log", value_name = "VKEY")]
    pub logs: Vec<VerifierKey>,
    /// Stores beyond one machine: a file with the section `[shared]` of the configuration
    #[arg(long, value_name = "FILE")]
    pub shared: Option<PathBuf>,
}

/// What was made.
#[derive(Debug, Serialize)]
struct Made {
    role: Role,
    config: PathBuf,
    keys: Vec<MadeKey>,
}

#[derive(Debug, Serialize)]
struct MadeKey {
    role: &'static str,
    file: PathBuf,
    key: String,
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} in {}", self.role, self.config.display())?;
        self.keys.iter().try_for_each(|key| writeln!(f, "{:<9} {}", key.role, key.key))
    }
}

/// Statement keys of a role. The log's is beside them because its name is the origin.
const fn key_roles(role: Role) -> &'static [(&'static str, KeyKind)] {
    const E: KeyKind = KeyKind::Ed25519;
    match role {
        Role::Vendor => &[
            ("log", E),
            ("builder", E),
            ("release", E),
            ("rules", E),
            ("approver", E),
            ("policy", E),
            ("recorder", E),
            ("reader", E),
        ],
        Role::Supervisor => &[
            ("log", E),
            ("builder", E),
            ("release", E),
            ("rules", E),
            ("approver", E),
            ("policy", E),
            ("recorder", E),
            ("status", E),
            ("gateway", E),
        ],
        Role::Witness => &[("witness", KeyKind::Cosignature)],
        Role::Custodian => &[("custodian", E)],
        Role::Relay | Role::Gateway => &[],
    }
}

const TUF_ROLES: [&str; 5] = ["tuf-root", "tuf-targets", "tuf-rules", "tuf-snapshot", "tuf-timestamp"];

/// # Errors
/// When the folder is in use, or can't be written.
pub fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    if arguments.role != Role::Witness && !arguments.logs.is_empty() {
        return Err(Failure::usage("only a witness takes `--log`").into());
    }
    let shared = shared(arguments)?;
    refuse_used(&arguments.dir)?;
    let keys = arguments.dir.join("keys");
    let policy = arguments.dir.join("policy");
    let [regions, table] = ["regions", "table"].map(|name| keys.join(name));
    let rows = DataFolder::new(arguments.dir.clone()).table();
    let folders: &[&PathBuf] = match arguments.role {
        Role::Custodian => &[&keys, &policy, &regions, &table, &rows],
        Role::Vendor | Role::Supervisor => &[&keys, &policy],
        Role::Witness | Role::Gateway => &[&keys],
        Role::Relay => &[&arguments.dir],
    };
    for folder in folders {
        durable::create_folder(folder).with_context(|| format!("can't create `{}`", folder.display()))?;
    }
    let made = make_keys(arguments, &keys, &SystemEntropy)?;
    let stores = shared.as_ref().map(|(section, _)| section);
    block_on(make_stores(arguments.role, &DataFolder::new(arguments.dir.clone()), stores))?;
    // The configuration comes last: a folder without one was not finished.
    let config = arguments.dir.join(CONFIG_FILE);
    let mut text = config_text(arguments);
    if let Some((_, section)) = &shared {
        text.push_str(&format!("\n{section}"));
    }
    durable::write(&config, text.as_bytes()).with_context(|| format!("can't write `{}`", config.display()))?;
    output.print(&Made { role: arguments.role, config, keys: made })
}

/// The section of shared stores, read and as it is written.
fn shared(arguments: &Arguments) -> anyhow::Result<Option<(SharedSection, String)>> {
    let Some(path) = &arguments.shared else { return Ok(None) };
    match arguments.role {
        Role::Vendor | Role::Supervisor => {}
        Role::Witness => {
            return Err(Failure::usage("a witness has stores of its own")
                .hint("what it cosigned must never go back in time; run several witnesses instead")
                .into());
        }
        Role::Custodian => {
            return Err(Failure::usage("a custodian has a ledger of its own")
                .hint("an intent is used once; run one process for each custodian")
                .into());
        }
        Role::Relay | Role::Gateway => {
            return Err(Failure::usage(format!("a {} has no stores", arguments.role))
                .hint("run as many as you need, with one configuration")
                .into());
        }
    }
    let text = String::from_utf8(read_limited(path, SHARED_BYTES_MAX)?).context("the section is no text")?;
    let section = SharedSection::parse(&text, &arguments.dir).map_err(|problem| {
        Failure::usage(format!("`{}` is wrong: {problem}", path.display())).hint("docs/samples/shared.toml is one")
    })?;
    Ok(Some((section, text)))
}

fn refuse_used(folder: &Path) -> anyhow::Result<()> {
    let used = match std::fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(error).with_context(|| format!("can't read `{}`", folder.display())),
    };
    if used {
        return Err(Failure::refused(format!("`{}` is not empty", folder.display()))
            .hint("stores and keys are never created over something else; choose another folder")
            .into());
    }
    Ok(())
}

fn make_keys(arguments: &Arguments, folder: &Path, entropy: &dyn Entropy) -> anyhow::Result<Vec<MadeKey>> {
    let default = || format!("{}.example", arguments.organisation);
    let domain = arguments.domain.as_ref().map_or_else(default, ToString::to_string);
    let mut made = Vec::new();
    for (role, kind) in key_roles(arguments.role) {
        let file = folder.join(format!("{role}.key"));
        let new = NewKey { name: format!("{domain}/{role}").parse()?, kind: *kind, path: file.clone() };
        let key = key_file::generate(&new, entropy)?;
        made.push(MadeKey { role, file, key: key.verifier().to_string() });
    }
    if arguments.role == Role::Vendor {
        for role in TUF_ROLES {
            key_file::generate_tuf(&folder.join(format!("{role}.key")), entropy)?;
        }
    }
    if arguments.role == Role::Gateway {
        let file = folder.join("gateway.key");
        let key = key_file::generate_gateway(&file, entropy)?.to_string();
        made.push(MadeKey { role: "gateway", file, key });
    }
    Ok(made)
}

async fn make_stores(role: Role, data: &DataFolder, shared: Option<&SharedSection>) -> anyhow::Result<()> {
    if matches!(role, Role::Relay | Role::Gateway) {
        return Ok(());
    }
    if let Some(shared) = shared {
        stores::create_shared(&shared.objects, &shared.state, role).await?;
    } else {
        SqliteStore::create(&data.state()).await?.close().await;
        if role == Role::Custodian {
            FileObjects::create(&data.beside()).await?;
        }
        if matches!(role, Role::Witness | Role::Custodian) {
            return Ok(());
        }
        FileObjects::create(&data.log()).await?;
        if role == Role::Vendor {
            FileObjects::create(&data.intake()).await?;
        }
        if role == Role::Supervisor {
            FileObjects::create(&data.beside()).await?;
        }
    }
    assembly::Depot::create(&data.depot(), assembly::Transport::Clients)?;
    if role == Role::Vendor {
        let channel = data.channel();
        durable::create_folder(&channel).with_context(|| format!("can't create `{}`", channel.display()))?;
    }
    Ok(())
}

/// The sample with the values that are known.
fn config_text(arguments: &Arguments) -> String {
    match arguments.role {
        Role::Vendor => with_organisation(VENDOR_SAMPLE, &arguments.organisation),
        Role::Supervisor => with_organisation(SUPERVISOR_SAMPLE, &arguments.organisation),
        Role::Witness => {
            let logs: String = arguments.logs.iter().map(|log| format!("    \"{log}\",\n")).collect();
            let list = if logs.is_empty() { "logs = []".to_owned() } else { format!("logs = [\n{logs}]") };
            WITNESS_SAMPLE.replace("logs = []", &list)
        }
        Role::Custodian => with_organisation(CUSTODIAN_SAMPLE, &arguments.organisation),
        Role::Relay => RELAY_SAMPLE.to_owned(),
        Role::Gateway => GATEWAY_SAMPLE.to_owned(),
    }
}

fn with_organisation(sample: &str, organisation: &OrganisationId) -> String {
    let set = |line: &str| {
        if line.starts_with("organisation = ") {
            format!("organisation = \"{organisation}\"\n")
        } else {
            format!("{line}\n")
        }
    };
    sample.lines().map(set).collect()
}
