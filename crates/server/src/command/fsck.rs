//! `clerestory fsck`: reads everything a role has stored, and names each object that is not as it
//! was written.

mod evidence;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use assembly::ContentStore;
use attest::Opening;
use clap::Args;
use log::{FsckParts, fsck};
use serde::Serialize;
use stdx::Digest;
use storage::{Folder, Listing};
use tlog::witness_protocol::origin_hash;
use vault::Checked;
use witness::Witness;

use crate::command::{Output, block_on, check_config};
use crate::config::{Config, LogSection, Role};
use crate::domain::channel_folder;
use crate::failure::Failure;
use crate::kept::Kept;
use crate::stores::{self, Access, State};
use crate::{key_file, serve};

/// Check everything that a role has stored
#[derive(Debug, Args)]
pub struct Arguments {
    /// The configuration
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// What was found.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Objects that were read.
    pub(crate) objects: u64,
    pub(crate) damages: Vec<Damage>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Damage {
    pub(crate) object: String,
    pub(crate) problem: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for damage in &self.damages {
            writeln!(f, "`{}` {}", damage.object, damage.problem)?;
        }
        write!(f, "{} objects read, {} damaged", self.objects, self.damages.len())
    }
}

impl Report {
    fn damage(&mut self, object: impl fmt::Display, problem: impl Into<String>) {
        self.damages.push(Damage { object: object.to_string(), problem: problem.into() });
    }
}

/// # Errors
/// When something is damaged, or nothing could be checked.
pub fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let config = check_config::load(&arguments.config)?;
    let report = block_on(check(&config))?;
    output.print(&report)?;
    if report.damages.is_empty() {
        return Ok(());
    }
    Err(Failure::refused(format!("{} objects are damaged", report.damages.len()))
        .hint("nothing was changed; get the objects back from a mirror, and look for what damaged them")
        .into())
}

/// Reads everything.
///
/// # Errors
/// When nothing could be checked. Damage is no error here, but in the report.
pub(crate) async fn check(config: &Config) -> anyhow::Result<Report> {
    let mut report = Report::default();
    if matches!(config.role(), Role::Relay | Role::Gateway) {
        return Err(Failure::usage(format!("a {} keeps nothing to be checked", config.role()))
            .hint("`clerestory check-config` checks its configuration, key and lists")
            .into());
    }
    let data = config.data();
    let state = State::open(config).await?;
    report.objects += 1;
    for problem in state.check().await? {
        report.damage(state.name(), problem);
    }
    if let Some(section) = config.log() {
        log(section, config, &state, &mut report).await?;
        // A machine that was added may have had no use for a depot yet.
        if config.shared().is_none() || data.content().exists() {
            content(&data.content(), &mut report)?;
        }
        if let Some(kept) = stores::kept(config, &state).await? {
            kept_objects(&kept, &mut report).await?;
            channel_folder(&data, Some(kept))?.pull()?;
        }
    }
    if let Config::Vendor(section) = config
        && let Some(folder) = &section.intake
    {
        vault(config, folder, &mut report).await?;
    }
    let has_beside = matches!(config, Config::Supervisor(_) | Config::Custodian(_));
    if has_beside && (config.shared().is_some() || data.beside().exists()) {
        beside(config, &mut report).await?;
    }
    evidence::keys(&config.keys(), &mut report)?;
    if config.policy().is_some() {
        let policy = serve::policy(config)?;
        evidence::channel(&data.channel(), &policy, &mut report)?;
        evidence::builds(&data.builds(), &policy, &mut report)?;
    }
    if let Config::Witness(section) = config {
        let parts = serve::witness_parts(section, state.locks())?;
        witness(&Witness::new(parts)?, &mut report).await?;
    }
    state.close().await;
    Ok(report)
}

async fn log(section: &LogSection, config: &Config, state: &State, report: &mut Report) -> anyhow::Result<()> {
    let policy = serve::policy(config)?;
    let parts = FsckParts {
        objects: stores::log_objects(config, Access::Read).await?,
        locks: state.locks(),
        key: key_file::load(&section.key)?.verifier().clone(),
        policy: policy.witnessing().clone(),
    };
    let found = fsck(&parts).await?;
    report.objects += found.objects;
    for damage in found.damages {
        report.damage(format_args!("log/{}", damage.key), damage.problem);
    }
    Ok(())
}

/// Manifests follow each other, segments are what they say, and what was just taken in can be read.
async fn vault(config: &Config, folder: &Path, report: &mut Report) -> anyhow::Result<()> {
    let objects = stores::intake_objects(config, folder, Access::Read).await?;
    let stored = ::vault::check(&objects).await?;
    let wal = folder.join("wal");
    // It is made when the intake opens first.
    let taken = if wal.exists() { ::vault::check_wal(&wal)? } else { Checked::default() };
    for Checked { objects, damages } in [stored, taken] {
        report.objects += objects;
        for damage in damages {
            report.damage(format_args!("intake/{}", damage.object), damage.problem);
        }
    }
    Ok(())
}

/// Openings open what they are filed under, and queries have the digest that names them; the rest can be read.
async fn beside(config: &Config, report: &mut Report) -> anyhow::Result<()> {
    let objects = stores::beside_objects(config, Access::Read).await?;
    let mut listing = Listing::of(Folder::Root);
    loop {
        let page = objects.list(&listing).await?;
        let Some(last) = page.last().cloned() else { return Ok(()) };
        for key in &page {
            report.objects += 1;
            let Some(bytes) = objects.get(key).await? else { continue };
            let (folder, name) = (key.as_str().split('/').next(), key.as_str().rsplit('/').next().unwrap_or_default());
            let is_it = match folder {
                Some("private") => Opening::parse(&bytes).is_ok_and(|it| it.commitment().to_string() == name),
                Some("query") => Digest::of(&bytes).to_string() == name,
                _ => true,
            };
            if !is_it {
                report.damage(format_args!("beside/{key}"), "is not what it is filed under");
            }
        }
        listing = listing.after(last);
    }
}

/// Every object that all machines have, has the digest it is filed under.
async fn kept_objects(kept: &Kept, report: &mut Report) -> anyhow::Result<()> {
    let mut after = None;
    loop {
        let page = kept.list(after).await?;
        for object in &page {
            report.objects += 1;
            if let Err(error) = kept.check(object).await? {
                report.damage(object, error);
            }
        }
        match page.into_iter().next_back() {
            Some(last) => after = Some(last),
            None => return Ok(()),
        }
    }
}

/// Every object of the depot has the digest it is filed under.
fn content(folder: &Path, report: &mut Report) -> anyhow::Result<()> {
    let store = ContentStore::open(folder)?;
    let read = |folder: &Path| -> anyhow::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(folder).with_context(|| format!("can't read `{}`", folder.display()))?;
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    };
    for shelf in read(folder)? {
        if !shelf.is_dir() || shelf.ends_with("incoming") {
            continue;
        }
        for path in read(&shelf)? {
            report.objects += 1;
            let Some(digest) = digest_of(&path) else {
                report.damage(path.display(), "is no object's name");
                continue;
            };
            if let Err(error) = store.open_object(&digest) {
                report.damage(path.display(), format!("{:#}", anyhow::Error::new(error)));
            }
        }
    }
    Ok(())
}

/// `xx/REST` in hexadecimal.
fn digest_of(path: &Path) -> Option<Digest> {
    let shelf = path.parent()?.file_name()?.to_str()?;
    format!("{shelf}{}", path.file_name()?.to_str()?).parse().ok()
}

async fn witness(witness: &Witness, report: &mut Report) -> anyhow::Result<()> {
    let origins: Vec<_> = witness.origins().cloned().collect();
    for origin in origins {
        report.objects += 1;
        let outcomes =
            [witness.checkpoint(&origin_hash(&origin)).await.map(|_| ()), witness.evidence(&origin).await.map(|_| ())];
        for outcome in outcomes {
            match outcome {
                Ok(()) | Err(witness::Error::NothingCosigned(_)) => {}
                Err(error @ witness::Error::Damaged { .. }) => {
                    report.damage(format_args!("state of log {origin}"), format!("{:#}", anyhow::Error::new(error)));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}
