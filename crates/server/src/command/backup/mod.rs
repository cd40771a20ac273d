//! `clerestory backup`: copies of what may be restored, checked when made; and restoring them.
//!
//! What must never be restored is never copied: the state of what was signed last, and keys.

mod copies;
mod derive;
mod drill;
mod files;
mod restore;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use api::BaseUrl;
use clap::{Args, Subcommand};
use log::ObjectSource;
use serde::{Deserialize, Serialize};
use stdx::{Digest, durable};
use storage::FileObjects;
use tlog::Origin;

use self::copies::Copies;
use self::files::{copy_folder, digest, files_below};
use self::restore::Restored;
use crate::command::{Output, block_on, check_config, read_limited};
use crate::config::{Config, Keeper};
use crate::domain::channel_folder;
use crate::failure::Failure;
use crate::stores::{self, Access, State};
use crate::{key_file, serve};

/// Written last: a folder without one is no backup.
const MANIFEST: &str = "backup.json";
/// A line of about 150 bytes a file; half a million files.
const MANIFEST_BYTES_MAX: usize = 64 << 20;
const FORMAT: u32 = 1;
/// What endpoints shared, as it lies in the store.
const INTAKE: &str = "intake";
/// Files of stores that are made anew.
const LOCKS: [&str; 2] = ["log/lock", "intake/lock"];

/// Copy what may be restored, check copies, restore them
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Copy a role's data into a new folder, and check the copy; the server may run
    Make(Make),
    /// Check a copy: every file, and the log by its cosigned checkpoint
    Check(Check),
    /// Restore a copy into an empty place, without the right to sign unless all witnesses agree
    Restore(Restore),
    /// Restore a copy into a temporary folder, check it there, compare it with the live log, remove it
    Drill(Drill),
}

/// Copy a role's data
#[derive(Debug, Args)]
pub struct Make {
    /// The configuration
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The new folder
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Check a copy
#[derive(Debug, Args)]
pub struct Check {
    /// The configuration, whose policy says what a good log is
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The copy
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
}

/// Restore a copy
#[derive(Debug, Args)]
pub struct Restore {
    /// The configuration of the place, with its keys and policy
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The copy
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
    /// A mirror of this log or of another of the policy, to go on from what was published; repeat it
    /// for several
    #[arg(long = "from-mirror", value_name = "URL")]
    pub mirrors: Vec<BaseUrl>,
}

/// Try a copy
#[derive(Debug, Args)]
pub struct Drill {
    /// The configuration of the live role
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The copy
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    role: crate::config::Role,
    /// The size of the log that was copied.
    log: u64,
    files: BTreeMap<String, Digest>,
}

#[derive(Debug, Serialize)]
struct Report {
    done: &'static str,
    files: usize,
    log: u64,
    /// So many of its entries are newer than the backup.
    newer: u64,
    rebuilt: Vec<String>,
    /// Why the log does not sign.
    refused: Option<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} files, a log of {} entries", self.done, self.files, self.log)?;
        if self.newer > 0 {
            write!(f, ", {} of them newer than the backup", self.newer)?;
        }
        self.rebuilt.iter().try_for_each(|what| write!(f, "\nrebuilt from the logs: {what}"))?;
        self.refused.iter().try_for_each(|why| write!(f, "\nthe log does not sign: {why}"))
    }
}

/// Whose backup it is.
struct Owner<'a> {
    config: &'a Config,
    keeper: Keeper<'a>,
    origin: Origin,
}

impl<'a> Owner<'a> {
    fn of(config: &'a Config) -> anyhow::Result<Self> {
        let keeper = config.keeper().ok_or_else(|| {
            Failure::refused("a witness is not backed up and not restored").hint(
                "a witness that forgets counts as faulty: give it a new key and name, and the policy a new version",
            )
        })?;
        let origin = key_file::load(&keeper.log.key)?.verifier().name().clone().into();
        Ok(Self { config, keeper, origin })
    }
}

/// # Errors
/// When something could not be copied or is not as it was.
pub fn run(command: &Command, output: Output) -> anyhow::Result<()> {
    let path = match command {
        Command::Make(it) => &it.config,
        Command::Check(it) => &it.config,
        Command::Restore(it) => &it.config,
        Command::Drill(it) => &it.config,
    };
    let config = check_config::load(path)?;
    let owner = Owner::of(&config)?;
    let report = match command {
        Command::Make(it) => block_on(make(&owner, &it.out))?,
        Command::Check(it) => {
            let manifest = read_manifest(&owner, &it.from)?;
            block_on(check(&owner, &it.from, &manifest))?;
            Report::of("whole", &manifest)
        }
        Command::Restore(it) => {
            let manifest = &read_manifest(&owner, &it.from)?;
            block_on(Restored { owner, from: &it.from, manifest, mirrors: &it.mirrors }.restore())?
        }
        Command::Drill(it) => return output.print(&block_on(drill::drill(&owner, &it.from))?),
    };
    output.print(&report)
}

impl Report {
    fn of(done: &'static str, manifest: &Manifest) -> Self {
        let (files, log) = (manifest.files.len(), manifest.log);
        Self { done, files, log, newer: 0, rebuilt: Vec::new(), refused: None }
    }
}

async fn make(owner: &Owner<'_>, out: &Path) -> anyhow::Result<Report> {
    if out.exists() {
        return Err(Failure::refused(format!("`{}` is there already", out.display()))
            .hint("each backup has a folder of its own")
            .into());
    }
    durable::create_folder(out).with_context(|| format!("can't create `{}`", out.display()))?;
    let (config, data) = (owner.config, owner.config.data());
    let source = ObjectSource(stores::log_objects(config, Access::Read).await?);
    let copies = Copies::of(&owner.origin, &Arc::new(serve::policy(config)?), vec![Arc::new(source)])?;
    let target = FileObjects::create(&out.join("log")).await?;
    let log = copies.copy_newest_to(&target).await?.size.get();
    drop(target);
    if config.shared().is_some() {
        let state = State::open(config).await?;
        // This machine may have had no reason to copy what is newest.
        channel_folder(&data, stores::kept(config, &state).await?)?.pull()?;
        state.close().await;
    }
    let folders = [data.path().join("builds"), data.path().join("rebuilds"), data.content(), data.channel()];
    for folder in &folders {
        let name = folder.strip_prefix(data.path()).unwrap_or(folder);
        copy_folder(folder, &out.join(name))?;
    }
    copy_folder(&owner.keeper.policy.folder, &out.join("policy"))?;
    if let Some(folder) = intake_of(config) {
        let objects = stores::intake_objects(config, folder, Access::Read).await?;
        vault::copy(&objects, &FileObjects::create(&out.join(INTAKE)).await?).await?;
    }
    let mut files = BTreeMap::new();
    for path in files_below(out)? {
        let name = path.strip_prefix(out).unwrap_or(&path);
        let name = name.to_str().with_context(|| format!("`{}` is no text", path.display()))?;
        if !LOCKS.contains(&name) {
            files.insert(name.to_owned(), digest(&path)?);
        }
    }
    let manifest = Manifest { format: FORMAT, role: config.role(), log, files };
    check(owner, out, &manifest).await?;
    durable::write(&out.join(MANIFEST), &serde_json::to_vec_pretty(&manifest)?)?;
    Ok(Report::of("copied and checked", &manifest))
}

/// The folder of the vendor's intake, if there is one.
fn intake_of(config: &Config) -> Option<&Path> {
    match config {
        Config::Vendor(vendor) => vendor.intake.as_deref(),
        _ => None,
    }
}

/// Every file has its digest, nothing else is there, and the log is what its quorum cosigned.
async fn check(owner: &Owner<'_>, from: &Path, manifest: &Manifest) -> anyhow::Result<()> {
    for (name, expected) in &manifest.files {
        let path = from.join(name);
        if digest(&path)? != *expected {
            return Err(damaged(&path, "has other content than when the backup was made"));
        }
    }
    let objects = ObjectSource(Arc::new(FileObjects::open_read_only(&from.join("log")).await?));
    let copies = Copies::of(&owner.origin, &Arc::new(serve::policy(owner.config)?), vec![Arc::new(objects)])?;
    let head = *copies.newest().await?.checkpoint().head();
    if head.size.get() != manifest.log {
        return Err(damaged(&from.join("log"), "has another size than the backup says"));
    }
    Arc::new(copies).visit(head, &mut |_| {}).await
}

fn damaged(path: &Path, problem: &str) -> anyhow::Error {
    Failure::refused(format!("`{}` {problem}", path.display())).hint("use another backup, or a mirror").into()
}

fn read_manifest(owner: &Owner<'_>, from: &Path) -> anyhow::Result<Manifest> {
    let role = owner.config.role();
    let path = from.join(MANIFEST);
    let manifest: Manifest = serde_json::from_slice(&read_limited(&path, MANIFEST_BYTES_MAX)?)
        .with_context(|| format!("`{}` is no backup's", path.display()))?;
    if manifest.format != FORMAT || manifest.role != role {
        let what = format!("`{}` is of a {}, in format {}", path.display(), manifest.role, manifest.format);
        return Err(Failure::refused(what).hint(format!("this reads format {FORMAT}, for a {}", role)).into());
    }
    // Names come from a file: none leads out.
    if let Some(name) = manifest.files.keys().find(|name| !is_inside(name)) {
        return Err(damaged(&path, &format!("names `{name}`")));
    }
    Ok(manifest)
}

fn is_inside(name: &str) -> bool {
    !name.is_empty() && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}
