//! The drill: a backup is restored beside the running role, checked there, compared with the live
//! log, and removed again.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use log::{ObjectSource, TileSource};
use serde::Serialize;
use stdx::{Clock as _, Digest, SystemClock, UnixTime};
use storage::FileObjects;
use tlog::SignedCheckpoint;
use verify::TrustedPolicy;

use super::copies::{Copies, over_http};
use super::restore::Restored;
use super::{Owner, Report, read_manifest};
use crate::command::fsck;
use crate::failure::Failure;
use crate::serve;
use crate::stores::{self, Access};

/// What the drill showed.
#[derive(Debug, Serialize)]
pub(super) struct Drill {
    restored: Report,
    objects: u64,
    /// The time of the backup's checkpoint, by its witnesses.
    of: UnixTime,
    age_s: u64,
    /// Entries that the live log has published since.
    behind: u64,
}

impl fmt::Display for Drill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "restored into a temporary folder, and whole: {} objects read", self.objects)?;
        self.restored.rebuilt.iter().try_for_each(|what| writeln!(f, "rebuilt from the logs: {what}"))?;
        let (hours, minutes) = (self.age_s / 3600, self.age_s / 60 % 60);
        write!(f, "the log of {} entries is of {} ({hours} h {minutes} min ago), ", self.restored.log, self.of)?;
        write!(f, "{} entries behind the live one", self.behind)
    }
}

/// # Errors
/// When the backup can't be restored, is damaged, or is not of the live log.
pub(super) async fn drill(owner: &Owner<'_>, from: &Path) -> anyhow::Result<Drill> {
    let manifest = &read_manifest(owner, from)?;
    let folder = tempfile::tempdir().context("can't make a temporary folder")?;
    let config = &owner.config.moved_to(folder.path());
    let restored = Restored { owner: Owner::of(config)?, from, manifest, mirrors: &[] }.restore().await?;
    let objects = check(owner, fsck::check(config).await?)?;

    let policy = Arc::new(serve::policy(config)?);
    let objects_of = |objects| Arc::new(ObjectSource(objects)) as Arc<dyn TileSource>;
    let copy = objects_of(Arc::new(FileObjects::open_read_only(&config.data().log()).await?));
    let copy = Copies::of(&owner.origin, &policy, vec![copy])?.newest().await?;
    let live = Arc::new(Copies::of(&owner.origin, &policy, vec![live(owner, &policy).await?])?);
    let now = live.newest().await.context("the live log")?;
    let behind = since(&live, &copy, &now).await?;
    let of = policy.witnessing().verify_checkpoint(&copy)?.time;
    Ok(Drill { restored, objects, of, age_s: SystemClock::new().now().since(of).as_secs(), behind })
}

/// What was restored is whole but for the log's lock, which is in no backup.
fn check(owner: &Owner<'_>, found: fsck::Report) -> anyhow::Result<u64> {
    let lock = format!("log/log/{}", Digest::of(owner.origin.as_str().as_bytes()));
    let damages = found.damages.iter().filter(|damage| damage.object != lock);
    let damages: Vec<_> = damages.map(|damage| format!("`{}` {}", damage.object, damage.problem)).collect();
    if damages.is_empty() {
        return Ok(found.objects);
    }
    Err(Failure::refused(format!("what was restored is not whole: {}", damages.join("; ")))
        .hint("use another backup, and look for what damaged this one")
        .into())
}

/// The log that runs: on this machine, or where the policy says.
async fn live(owner: &Owner<'_>, policy: &TrustedPolicy) -> anyhow::Result<Arc<dyn TileSource>> {
    if owner.keeper.shared.is_some() || owner.config.data().log().exists() {
        return Ok(Arc::new(ObjectSource(stores::log_objects(owner.config, Access::Read).await?)));
    }
    let log = policy.witnessing().logs().iter().find(|log| owner.origin.is(log.key.name()));
    let url = log.and_then(|log| log.url.as_deref()).context("the policy gives no URL for this log")?;
    Ok(over_http(&url.parse()?))
}

/// So many entries came after the copy, whose tree the live one continues.
async fn since(live: &Arc<Copies>, copy: &SignedCheckpoint, now: &SignedCheckpoint) -> anyhow::Result<u64> {
    let (copy, now) = (*copy.checkpoint().head(), *now.checkpoint().head());
    let behind = now.size.get().checked_sub(copy.size.get()).ok_or_else(|| {
        Failure::refused(format!("the live log has {} entries, the backup {}", now.size, copy.size))
            .hint("the live log has forgotten: stop it")
    })?;
    let before = if copy.size == now.size { now } else { live.reader(now).consistency(copy.size).await?.0 };
    if before == copy {
        return Ok(behind);
    }
    Err(Failure::refused("the live log does not continue the log of the backup")
        .hint("keep both, stop the log, and run `clerestory audit`")
        .into())
}
