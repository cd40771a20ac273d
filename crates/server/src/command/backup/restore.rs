//! Restoring: files, the log as far as anybody has it, what follows from the logs, and last, if
//! nothing speaks against it, the right to sign.

use std::path::Path;
use std::sync::Arc;

use api::BaseUrl;
use log::{Class, Log, ObjectSource, TileSource};
use stdx::durable;
use storage::FileObjects;
use tlog::{Origin, TreeHead};
use verify::{LogRules, TrustedPolicy};

use super::copies::{Copies, Mirror, over_http};
use super::derive::Derived;
use super::files::copy_file;
use super::{Keeper, Manifest, Report, check};
use crate::failure::Failure;
use crate::serve::{self, LogStores};
use crate::stores::{self, Access, State};

/// What is restored, and with whose help.
pub(super) struct Restored<'a> {
    pub(super) keeper: Keeper<'a>,
    pub(super) from: &'a Path,
    pub(super) manifest: &'a Manifest,
    pub(super) mirrors: &'a [BaseUrl],
}

impl Restored<'_> {
    pub(super) async fn restore(&self) -> anyhow::Result<Report> {
        let Self { keeper, from, manifest, .. } = self;
        let config = keeper.config;
        self.refuse_used()?;
        self.copy_policy()?;
        check(keeper, from, manifest).await?;
        let versions = serve::policies(config)?;
        let policy = Arc::new(versions.last().cloned().ok_or_else(no_policy)?);
        let mut mirrors = Vec::new();
        for url in self.mirrors {
            mirrors.push(Mirror::ask(url, &policy).await?);
        }
        // Before anything is made: what others have may not be to be had now.
        let log = self.copies(&policy, &mirrors).await?;
        let mut derived = Derived::of(keeper.organisation, &versions);
        self.read(&log, &mut derived, &mirrors).await?;
        self.copy_data()?;
        let objects = stores::create_log_objects(config).await?;
        let head = log.copy_to(&*objects).await?;
        drop(objects);
        // The state comes last, and in it the lock.
        let state = stores::create_state(config).await?;
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
        let data = self.keeper.config.data();
        for used in [data.log(), data.state(), data.depot(), data.channel()] {
            if used.exists() {
                return Err(Failure::refused(format!("`{}` is there already", used.display()))
                    .hint("a backup is restored into an empty place, never over something")
                    .into());
            }
        }
        Ok(())
    }

    fn copy_policy(&self) -> anyhow::Result<()> {
        let folder = &self.keeper.policy.folder;
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
        let data = self.keeper.config.data();
        for name in self.manifest.files.keys() {
            if !name.starts_with("policy/") && !name.starts_with("log/") {
                copy_file(&self.from.join(name), &data.path().join(name))?;
            }
        }
        durable::create_folder(&data.content().join("incoming"))?;
        Ok(())
    }

    /// The copy in the backup, and those of the mirrors: of one history, or somebody lies.
    async fn copies(&self, policy: &Arc<TrustedPolicy>, mirrors: &[Mirror]) -> anyhow::Result<Arc<Copies>> {
        let origin = &self.keeper.origin;
        let backup = FileObjects::open_read_only(&self.from.join("log")).await?;
        let backup: Arc<dyn TileSource> = Arc::new(ObjectSource(Arc::new(backup)));
        let own = Copies::of(origin, policy, vec![Arc::clone(&backup)])?;
        let old = *own.newest().await?.checkpoint().head();
        let all = Arc::new(Copies::of(origin, policy, [backup].into_iter().chain(of(mirrors, origin)).collect())?);
        let head = *all.newest().await?.checkpoint().head();
        let before = if old == head { old } else { all.reader(head).consistency(old.size).await?.0 };
        if before == old {
            return Ok(all);
        }
        Err(Failure::refused("a mirror and the backup show two trees of one log, each with a quorum")
            .hint("keep both, restore nothing, and run `clerestory audit`")
            .into())
    }

    /// Reads this log, and every other that has something to say.
    async fn read(&self, log: &Arc<Copies>, derived: &mut Derived, mirrors: &[Mirror]) -> anyhow::Result<()> {
        let policy = log.policy();
        derived.read(log, &LogRules::new(policy, self.keeper.origin.clone())).await?;
        for other in policy.witnessing().logs() {
            let origin = Origin::from(other.key.name().clone());
            if origin == self.keeper.origin || !derived.reads(self.keeper.config.role(), policy, &origin) {
                continue;
            }
            let published = other.url.as_deref().and_then(|url| url.parse().ok()).map(|url| over_http(&url));
            let copies = Copies::of(&origin, policy, of(mirrors, &origin).chain(published).collect())?;
            derived.read(&Arc::new(copies), &LogRules::new(policy, origin.clone())).await.map_err(|error| {
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
        for other in policy.policy().logs.iter().filter(|log| log.origin != self.keeper.origin) {
            rebuilt.extend(derived.reopen(&other.origin, state).await?);
        }
        if self.mirrors.is_empty() {
            return Ok((rebuilt, Some("no mirror was asked what was published since".to_owned())));
        }
        match self.resume(policy, state).await {
            Ok(_) => {
                rebuilt.extend(derived.reopen(&self.keeper.origin, state).await?);
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
        let Keeper { config, log, .. } = self.keeper;
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
