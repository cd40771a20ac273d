//! Restoring: files, the log as far as anybody has it, what follows from the logs, and last, if
//! nothing speaks against it, the right to sign.

use std::path::Path;
use std::sync::Arc;

use api::BaseUrl;
use log::{Class, Log, ObjectSource, TileSource};
use stdx::durable;
use storage::{FileObjects, ObjectStore, SqliteStore};
use tlog::{Origin, SignedCheckpoint, TreeHead};
use verify::{LogRules, TrustedPolicy};

use super::copies::{Copies, Mirror, over_http};
use super::derive::Derived;
use super::files::copy_file;
use super::{INTAKE, Manifest, Owner, Report, check, intake_of};
use crate::failure::Failure;
use crate::serve::{self, LogStores};
use crate::stores::{self, Access, State};

/// What is restored, and with whose help.
pub(super) struct Restored<'a> {
    pub(super) owner: Owner<'a>,
    pub(super) from: &'a Path,
    pub(super) manifest: &'a Manifest,
    pub(super) mirrors: &'a [BaseUrl],
}

impl Restored<'_> {
    pub(super) async fn restore(&self) -> anyhow::Result<Report> {
        let Self { owner, from, manifest, .. } = self;
        let config = owner.config;
        self.refuse_used()?;
        self.copy_policy()?;
        check(owner, from, manifest).await?;
        let versions = serve::policies(config)?;
        let policy = Arc::new(versions.last().cloned().ok_or_else(no_policy)?);
        let mut mirrors = Vec::new();
        for url in self.mirrors {
            mirrors.push(Mirror::ask(url, &policy).await?);
        }
        // Before anything is made: what others have may not be to be had now.
        let (log, published) = self.copies(&policy, &mirrors).await?;
        let head = *published.checkpoint().head();
        let mut derived = Derived::of(owner.keeper.organisation, &versions);
        derived.read(&log, &LogRules::new(&policy, owner.origin.clone()), head).await?;
        self.read_others(&policy, &mut derived, &mirrors).await?;
        self.copy_data()?;
        log.copy_all_to(&FileObjects::create(&config.data().log()).await?, &published).await?;
        self.copy_intake().await?;
        // The state comes last, and in it the lock.
        let path = config.data().state();
        let state = State::Sqlite(SqliteStore::create(&path).await?, path);
        let outcome = self.complete(&derived, &policy, &state).await;
        state.close().await;
        let (rebuilt, refused) = outcome?;
        Ok(Report {
            done: if refused.is_none() { "restored" } else { "restored, without the right to sign" },
            files: manifest.files.len(),
            log: head.size.get(),
            newer: head.size.get() - manifest.log,
            rebuilt,
            refused,
        })
    }

    fn refuse_used(&self) -> anyhow::Result<()> {
        if self.owner.keeper.shared.is_some() {
            return Err(Failure::refused("a backup is restored onto one machine, not into shared stores")
                .hint("bucket and database have copies of their own (docs/operators.md, \"Beyond one machine\"); or take `[shared]` out of the configuration")
                .into());
        }
        let data = self.owner.config.data();
        let intake = intake_of(self.owner.config).map(Path::to_owned);
        for used in [data.log(), data.state(), data.depot(), data.channel()].into_iter().chain(intake) {
            if used.exists() {
                return Err(Failure::refused(format!("`{}` is there already", used.display()))
                    .hint("a backup is restored into an empty place, never over something")
                    .into());
            }
        }
        Ok(())
    }

    fn copy_policy(&self) -> anyhow::Result<()> {
        let folder = &self.owner.keeper.policy.folder;
        let files = self.manifest.files.keys().filter_map(|name| Some((name, name.strip_prefix("policy/")?)));
        for (name, file) in files {
            let target = folder.join(file);
            if !target.exists() {
                copy_file(&self.from.join(name), &target)?;
            }
        }
        Ok(())
    }

    fn copy_data(&self) -> anyhow::Result<()> {
        let data = self.owner.config.data();
        for name in self.manifest.files.keys() {
            if !["policy/", "log/", "intake/"].iter().any(|folder| name.starts_with(folder)) {
                copy_file(&self.from.join(name), &data.path().join(name))?;
            }
        }
        durable::create_folder(&data.content().join("incoming"))?;
        Ok(())
    }

    /// What endpoints shared; the intake of a backup from before there was a vault begins empty.
    async fn copy_intake(&self) -> anyhow::Result<()> {
        let Some(folder) = intake_of(self.owner.config) else { return Ok(()) };
        let target = FileObjects::create(folder).await?;
        let from = self.from.join(INTAKE);
        if from.exists() {
            let from: Arc<dyn ObjectStore> = Arc::new(FileObjects::open_read_only(&from).await?);
            vault::copy(&from, &target).await?;
        }
        Ok(())
    }

    /// The copy in the backup, and those of the mirrors: of one history, or somebody lies.
    async fn copies(
        &self,
        policy: &Arc<TrustedPolicy>,
        mirrors: &[Mirror],
    ) -> anyhow::Result<(Arc<Copies>, SignedCheckpoint)> {
        let origin = &self.owner.origin;
        let backup = FileObjects::open_read_only(&self.from.join("log")).await?;
        let backup: Arc<dyn TileSource> = Arc::new(ObjectSource(Arc::new(backup)));
        let own = Copies::of(origin, policy, vec![Arc::clone(&backup)])?;
        let old = *own.newest().await?.checkpoint().head();
        let all = Arc::new(Copies::of(origin, policy, [backup].into_iter().chain(of(mirrors, origin)).collect())?);
        let published = all.newest().await?;
        let head = *published.checkpoint().head();
        let before = if old == head { old } else { all.reader(head).consistency(old.size).await?.0 };
        if before == old {
            return Ok((all, published));
        }
        Err(Failure::refused("a mirror and the backup show two trees of one log, each with a quorum")
            .hint("keep both, restore nothing, and run `clerestory audit`")
            .into())
    }

    /// Reads every other log that has something to say, to its very end: what was signed last counts.
    async fn read_others(
        &self,
        policy: &Arc<TrustedPolicy>,
        derived: &mut Derived,
        mirrors: &[Mirror],
    ) -> anyhow::Result<()> {
        for other in policy.witnessing().logs() {
            let origin = Origin::from(other.key.name().clone());
            if origin == self.owner.origin || !derived.reads(self.owner.config.role(), policy, &origin) {
                continue;
            }
            let published = other.url.as_deref().and_then(|url| url.parse().ok()).map(|url| over_http(&url));
            let copies = Copies::of(&origin, policy, of(mirrors, &origin).chain(published).collect())?;
            let (copies, rules) = (Arc::new(copies), LogRules::new(policy, origin.clone()));
            let read = async {
                let head = *copies.surely_newest().await?.checkpoint().head();
                derived.read(&copies, &rules, head).await
            };
            read.await.map_err(|error| {
                let failure = Failure::unavailable(format!("the log `{origin}` can't be read: {error:#}"));
                failure.hint("what this organisation signed stands there, too; try again, or name a mirror of it")
            })?;
        }
        Ok(())
    }

    /// What was rebuilt, and why the log does not sign, if so.
    async fn complete(
        &self,
        derived: &Derived,
        policy: &Arc<TrustedPolicy>,
        state: &State,
    ) -> anyhow::Result<(Vec<String>, Option<String>)> {
        let mut rebuilt = derived.write(state).await?;
        for other in policy.policy().logs.iter().filter(|log| log.origin != self.owner.origin) {
            rebuilt.extend(derived.reopen(&other.origin, state).await?);
        }
        if self.mirrors.is_empty() {
            return Ok((rebuilt, Some("no mirror was asked what was published since".to_owned())));
        }
        match self.resume(policy, state).await {
            Ok(_) => {
                rebuilt.extend(derived.reopen(&self.owner.origin, state).await?);
                Ok((rebuilt, None))
            }
            Err(error) => match error.downcast_ref::<log::Error>() {
                Some(found) if matches!(found.class(), Class::Unavailable | Class::Fatal) => {
                    Ok((rebuilt, Some(format!("{error:#}"))))
                }
                _ => Err(error),
            },
        }
    }

    async fn resume(&self, policy: &Arc<TrustedPolicy>, state: &State) -> anyhow::Result<TreeHead> {
        let (config, log) = (self.owner.config, self.owner.keeper.log);
        let objects = stores::log_objects(config, Access::Write).await?;
        let parts = serve::log_parts_of(log, config, policy, LogStores { objects, locks: state.locks() })?;
        Ok(Log::resume(&parts).await?)
    }
}

fn of(mirrors: &[Mirror], origin: &Origin) -> impl Iterator<Item = Arc<dyn TileSource>> {
    let of = mirrors.iter().filter(|mirror| mirror.origin == *origin);
    of.map(|mirror| Arc::clone(&mirror.source)).collect::<Vec<_>>().into_iter()
}

fn no_policy() -> Failure {
    Failure::refused("there is no policy")
}
