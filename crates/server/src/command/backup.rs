//! `clerestory backup`: copies of what may be restored, checked when made; and restoring them.
//!
//! What must never be restored is never copied: the state of what was signed last, and keys.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use attest::{Envelope, OrganisationId, StreamName};
use clap::{Args, Subcommand};
use log::{ObjectSource, Reader};
use serde::{Deserialize, Serialize};
use stdx::{Digest, durable};
use storage::{Catalog as _, FileObjects, Key, LockStore as _, ObjectStore as _, RecordKey, SqliteStore, Swap};
use tlog::{EntryBundleId, EntryIndex, Frontier, SignedCheckpoint, TreeHead, TreeSize, leaf_hash, tiles_for_growth};
use verify::{LogRules, TrustedPolicy};

use crate::command::{Output, block_on, check_config, read_limited};
use crate::config::Config;
use crate::failure::Failure;
use crate::line::logged_release;
use crate::supervise::{SHOWN, Shown};
use crate::{key_file, serve};

/// Written last: a folder without one is no backup.
const MANIFEST: &str = "backup.json";
/// A line of about 150 bytes a file; half a million files.
const MANIFEST_BYTES_MAX: usize = 64 << 20;
const FORMAT: u32 = 1;
/// While the log is copied it may grow, which collects partial tiles; each round copies only what is new.
const ROUNDS_MAX: usize = 10;

/// Copy what may be restored, check copies, restore them
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Copy a role's data into a new folder, and check the copy; the server may run
    Make(Make),
    /// Check a copy: every file, and the log by its cosigned checkpoint
    Check(Check),
    /// Restore a copy into an empty place, without the right to sign
    Restore(Restore),
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
    rebuilt: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} files, a log of {} entries", self.done, self.files, self.log)?;
        self.rebuilt.iter().try_for_each(|what| write!(f, "\nrebuilt from the log: {what}"))
    }
}

/// # Errors
/// When something could not be copied or is not as it was.
pub fn run(command: &Command, output: Output) -> anyhow::Result<()> {
    let report = match command {
        Command::Make(it) => block_on(make(&check_config::load(&it.config)?, &it.out))?,
        Command::Check(it) => {
            let (config, from) = (check_config::load(&it.config)?, &it.from);
            let manifest = read_manifest(&config, from)?;
            block_on(check(&config, from, &manifest))?;
            Report { done: "whole", files: manifest.files.len(), log: manifest.log, rebuilt: Vec::new() }
        }
        Command::Restore(it) => block_on(restore(&check_config::load(&it.config)?, &it.from))?,
    };
    output.print(&report)
}

fn no_witness(config: &Config) -> anyhow::Result<&crate::config::LogSection> {
    config.log().ok_or_else(|| {
        Failure::refused("a witness is not backed up and not restored")
            .hint("a witness that forgets counts as faulty: give it a new key and name, and the policy a new version")
            .into()
    })
}

async fn make(config: &Config, out: &Path) -> anyhow::Result<Report> {
    no_witness(config)?;
    if out.exists() {
        return Err(Failure::refused(format!("`{}` is there already", out.display()))
            .hint("each backup has a folder of its own")
            .into());
    }
    durable::create_folder(out).with_context(|| format!("can't create `{}`", out.display()))?;
    let data = config.data();
    let source = FileObjects::open_read_only(&data.log()).await?;
    let target = FileObjects::create(&out.join("log")).await?;
    let log = copy_log(&source, &target).await?;
    drop(target);
    let folders = [data.path().join("builds"), data.path().join("rebuilds"), data.content(), data.channel()];
    for folder in &folders {
        let name = folder.strip_prefix(data.path()).unwrap_or(folder);
        copy_folder(folder, &out.join(name))?;
    }
    if let Some(policy) = config.policy() {
        copy_folder(&policy.folder, &out.join("policy"))?;
    }
    let mut files = BTreeMap::new();
    for path in files_below(out)? {
        let name = path.strip_prefix(out).unwrap_or(&path);
        let name = name.to_str().with_context(|| format!("`{}` is no text", path.display()))?;
        if name != "log/lock" {
            files.insert(name.to_owned(), digest(&path)?);
        }
    }
    let manifest = Manifest { format: FORMAT, role: config.role(), log, files };
    check(config, out, &manifest).await?;
    durable::write(&out.join(MANIFEST), &serde_json::to_vec_pretty(&manifest)?)?;
    Ok(Report { done: "copied and checked", files: manifest.files.len(), log, rebuilt: Vec::new() })
}

/// Everything under the published checkpoint, which is read first and written last.
async fn copy_log(source: &FileObjects, target: &FileObjects) -> anyhow::Result<u64> {
    let name: Key = "checkpoint".parse()?;
    for _ in 0..ROUNDS_MAX {
        let published = source.get(&name).await?.context("the log has published nothing yet")?;
        let size = SignedCheckpoint::parse(&published)?.checkpoint().size();
        let tiles = tiles_for_growth(TreeSize::ZERO..size).map(|tile| tile.path());
        let firsts = (0..size.get().div_ceil(256)).map(|bundle| EntryIndex::new(bundle * 256));
        let bundles = firsts.filter_map(|first| EntryBundleId::of_entry(first, size)).map(|bundle| bundle.path());
        let mut whole = true;
        for path in tiles.chain(bundles) {
            let key: Key = path.parse()?;
            if target.get(&key).await?.is_some() {
                continue;
            }
            match source.get(&key).await? {
                Some(bytes) => drop(target.put(&key, bytes).await?),
                None => whole = false,
            }
        }
        if whole {
            target.replace(&name, published).await?;
            return Ok(size.get());
        }
    }
    Err(Failure::unavailable("the log grows faster than it can be copied").hint("try again later").into())
}

/// Every file has its digest, nothing else is there, and the log is what its quorum cosigned.
async fn check(config: &Config, from: &Path, manifest: &Manifest) -> anyhow::Result<()> {
    for (name, expected) in &manifest.files {
        let path = from.join(name);
        if digest(&path)? != *expected {
            return Err(damaged(&path, "has other content than when the backup was made"));
        }
    }
    let policy = serve::policy(config)?;
    let objects = Arc::new(FileObjects::open_read_only(&from.join("log")).await?);
    let head = published(config, &policy, &objects).await?;
    if head.size.get() != manifest.log {
        return Err(damaged(&from.join("log"), "has another size than the backup says"));
    }
    let mut frontier = Frontier::new();
    visit(objects, head, &mut |entry| frontier.append(&leaf_hash(entry))).await?;
    if frontier.root() == head.root { Ok(()) } else { Err(damaged(&from.join("log"), "has another root")) }
}

fn damaged(path: &Path, problem: &str) -> anyhow::Error {
    Failure::refused(format!("`{}` {problem}", path.display())).hint("use another backup, or a mirror").into()
}

async fn published(config: &Config, policy: &TrustedPolicy, objects: &FileObjects) -> anyhow::Result<TreeHead> {
    let key = key_file::load(&no_witness(config)?.key)?;
    let bytes = objects.get(&"checkpoint".parse()?).await?.context("the log has no checkpoint")?;
    let checkpoint = SignedCheckpoint::open(&bytes, key.verifier())?;
    policy.witnessing().verify_checkpoint(&checkpoint)?;
    Ok(*checkpoint.checkpoint().head())
}

async fn visit(objects: Arc<FileObjects>, head: TreeHead, each: &mut (dyn FnMut(&[u8]) + Send)) -> anyhow::Result<()> {
    let reader = Reader::new(Arc::new(ObjectSource(objects)), head);
    let all = EntryIndex::new(0)..EntryIndex::new(head.size.get());
    let mut one = |_, entry: &bytes::Bytes| {
        each(entry);
        ControlFlow::Continue(())
    };
    Ok(reader.entries(all, &mut one).await?)
}

async fn restore(config: &Config, from: &Path) -> anyhow::Result<Report> {
    no_witness(config)?;
    let manifest = read_manifest(config, from)?;
    check(config, from, &manifest).await?;
    let data = config.data();
    for used in [data.log(), data.state(), data.depot(), data.channel()] {
        if used.exists() {
            return Err(Failure::refused(format!("`{}` is there already", used.display()))
                .hint("a backup is restored into an empty place, never over something")
                .into());
        }
    }
    for name in manifest.files.keys() {
        let target = match (name.strip_prefix("policy/"), config.policy()) {
            (Some(file), Some(policy)) => policy.folder.join(file),
            _ => data.path().join(name),
        };
        if !target.exists() {
            copy_file(&from.join(name), &target)?;
        }
    }
    for folder in [data.log().join("incoming"), data.log().join("objects"), data.content().join("incoming")] {
        durable::create_folder(&folder)?;
    }
    // The state comes last. It has no lock of the log: nobody can know what was signed since.
    let state = SqliteStore::create(&data.state()).await?;
    let rebuilt = derive(config, &state).await;
    state.close().await;
    Ok(Report {
        done: "restored, without the right to sign",
        files: manifest.files.len(),
        log: manifest.log,
        rebuilt: rebuilt?,
    })
}

/// What follows from the log: what the supervisor has revoked and stopped, the vendor's last numbers.
async fn derive(config: &Config, state: &SqliteStore) -> anyhow::Result<Vec<String>> {
    let objects = Arc::new(FileObjects::open_read_only(&config.data().log()).await?);
    let policy = serve::policy(config)?;
    let head = published(config, &policy, &objects).await?;
    let key = key_file::load(&no_witness(config)?.key)?;
    let owned = policy.policy().logs.iter().find(|log| log.origin.is(key.verifier().name()));
    let owned = owned.with_context(|| format!("the policy names no log `{}`", key.verifier().name()))?;
    let rules = LogRules::new(&policy, owned.origin.clone());
    let mut derived = Derived::of(&owned.organisation);
    visit(objects, head, &mut |entry| {
        if let Ok(judged) = rules.judge(entry) {
            derived.take(&judged.position.stream, &judged.envelope);
        }
    })
    .await?;
    let mut rebuilt = Vec::new();
    if derived.shown != Shown::default() {
        let bytes = serde_json::to_vec(&derived.shown)?.into();
        if state.compare_and_swap(&SHOWN.parse()?, None, bytes).await? == Swap::Lost {
            anyhow::bail!("the new state is not empty");
        }
        rebuilt.push("what is revoked and stopped".to_owned());
    }
    for (product, (key, last)) in derived.releases {
        state.put(&key, last).await?;
        rebuilt.push(format!("the last release of {product}"));
    }
    Ok(rebuilt)
}

/// What the streams of one organisation say. Others write into the same log, and the log asks only who
/// writes a stream, not what: so a stop that is lifted elsewhere is not lifted.
struct Derived {
    desk: String,
    line: String,
    shown: Shown,
    releases: BTreeMap<String, (RecordKey, bytes::Bytes)>,
}

impl Derived {
    fn of(organisation: &OrganisationId) -> Self {
        let (desk, line) = (format!("desk/{organisation}"), format!("release/{organisation}"));
        Self { desk, line, shown: Shown::default(), releases: BTreeMap::new() }
    }

    fn take(&mut self, stream: &StreamName, envelope: &Envelope) {
        if stream.as_str() == self.desk {
            self.shown.replay(envelope.payload());
        } else if stream.as_str() == self.line
            && let Some((key, last)) = logged_release(envelope)
        {
            self.releases.insert(key.key.to_string(), (key, last));
        }
    }
}

fn read_manifest(config: &Config, from: &Path) -> anyhow::Result<Manifest> {
    no_witness(config)?;
    let path = from.join(MANIFEST);
    let manifest: Manifest = serde_json::from_slice(&read_limited(&path, MANIFEST_BYTES_MAX)?)
        .with_context(|| format!("`{}` is no backup's", path.display()))?;
    if manifest.format != FORMAT || manifest.role != config.role() {
        let what = format!("`{}` is of a {}, in format {}", path.display(), manifest.role, manifest.format);
        return Err(Failure::refused(what).hint(format!("this reads format {FORMAT}, for a {}", config.role())).into());
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

fn digest(path: &Path) -> anyhow::Result<Digest> {
    let read = || Digest::of_reader(std::fs::File::open(path)?);
    Ok(read().with_context(|| format!("can't read `{}`", path.display()))?.0)
}

/// All files below `folder`; a missing folder has none. What is being written is none either.
fn files_below(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error).with_context(|| format!("can't read `{}`", folder.display())),
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            if !path.ends_with("incoming") {
                found.extend(files_below(&path)?);
            }
        } else {
            found.push(path);
        }
    }
    // A channel's timestamp names what is there already, so it is copied first.
    found.sort_by_key(|path| (!path.ends_with("timestamp.json"), path.clone()));
    Ok(found)
}

fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    for path in files_below(from)? {
        copy_file(&path, &to.join(path.strip_prefix(from).unwrap_or(&path)))?;
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> anyhow::Result<()> {
    let copy = || {
        durable::create_folder(to.parent().unwrap_or(to))?;
        std::fs::copy(from, to)?;
        std::fs::File::open(to)?.sync_all()
    };
    copy().with_context(|| format!("can't copy `{}` to `{}`", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use attest::{Position, ProductId, Statement, Stop, StopScope, Subject};
    use stdx::{SystemEntropy, UnixTime};
    use tlog::{KeyKind, SignerKey};

    use super::*;

    #[test]
    fn a_stop_is_lifted_only_where_it_was_made() {
        let organisation: OrganisationId = "supervisor".parse().unwrap();
        let signer = SignerKey::generate("recorder".parse().unwrap(), KeyKind::Ed25519, &SystemEntropy).unwrap();
        let scope = StopScope::Product("sample".parse::<ProductId>().unwrap());
        let say = |stream: &StreamName, lifted| {
            let position = Position {
                log: "supervisor.example/log".parse().unwrap(),
                stream: stream.clone(),
                epoch: 0,
                sequence: 0,
                previous: None,
                time: UnixTime::from_seconds(1_800_000_000),
            };
            let predicate = Stop { position, scope: scope.clone(), lifted, reason: "a test".to_owned() };
            let subject = vec![Subject::new("sample", Digest::of(b"sample"))];
            Envelope::sign(Statement { subject, predicate }.encode().unwrap(), &[&signer]).unwrap()
        };
        let mut derived = Derived::of(&organisation);
        let desk: StreamName = "desk/supervisor".parse().unwrap();
        derived.take(&desk, &say(&desk, false));
        assert_eq!(derived.shown.stops, std::slice::from_ref(&scope));
        for other in ["desk/vendor", "approval/vendor", "rebuild/supervisor"] {
            let other = other.parse().unwrap();
            derived.take(&other, &say(&other, true));
            assert_eq!(derived.shown.stops, std::slice::from_ref(&scope), "lifted in {other}");
        }
        derived.take(&desk, &say(&desk, true));
        assert!(derived.shown.stops.is_empty());
    }
}
