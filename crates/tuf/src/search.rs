//! The client workflow, 5.6.7 and 5.7: finding a target and fetching it.

use std::collections::BTreeSet;
use std::io::{self, Read as _, Write};
use std::rc::Rc;

use crate::client::{Described, Update, listed};
use crate::error::Error;
use crate::json::Json;
use crate::key::RunningHash;
use crate::metadata::{Authority, Metadata};
use crate::name::{RoleName, TargetPath};
use crate::ports::{FetchError, Location};
use crate::roles::{Root, Snapshot, TargetFile, Targets, Timestamp};

/// How much of a target is in memory at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// Top-level metadata that a [`crate::Client`] has verified, all of one update.
#[derive(Clone)]
pub struct Trusted<'a> {
    pub(crate) update: Update<'a>,
    pub(crate) root: Metadata<Root>,
    pub(crate) timestamp: Metadata<Timestamp>,
    pub(crate) snapshot: Metadata<Snapshot>,
    pub(crate) targets: Rc<Metadata<Targets>>,
}

/// A target as a trusted role describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    path: TargetPath,
    role: RoleName,
    file: TargetFile,
}

impl Target {
    /// Its path.
    #[must_use]
    pub const fn path(&self) -> &TargetPath {
        &self.path
    }

    /// The role that describes it.
    #[must_use]
    pub const fn role(&self) -> &RoleName {
        &self.role
    }

    /// Its length, hashes and custom part.
    #[must_use]
    pub const fn file(&self) -> &TargetFile {
        &self.file
    }

    /// What the application wrote beside it.
    #[must_use]
    pub const fn custom(&self) -> Option<&Json> {
        self.file.custom.as_ref()
    }
}

/// A delegated role on the search's way.
struct Step {
    role: RoleName,
    /// Who delegated to it; `None` for the top-level targets.
    delegator: Option<Rc<Metadata<Targets>>>,
}

impl Trusted<'_> {
    /// The trusted root.
    #[must_use]
    pub const fn root(&self) -> &Metadata<Root> {
        &self.root
    }

    /// The trusted timestamp.
    #[must_use]
    pub const fn timestamp(&self) -> &Metadata<Timestamp> {
        &self.timestamp
    }

    /// The trusted snapshot.
    #[must_use]
    pub const fn snapshot(&self) -> &Metadata<Snapshot> {
        &self.snapshot
    }

    /// The trusted top-level targets.
    #[must_use]
    pub fn targets(&self) -> &Metadata<Targets> {
        &self.targets
    }

    /// The metadata of a role that the top-level targets delegate to, whatever targets it covers.
    ///
    /// # Errors
    /// [`Error::Unlisted`] if there is no such delegation or file, else as a search.
    pub fn delegated(&self, role: &RoleName) -> Result<Metadata<Targets>, Error> {
        self.delegated_by(&self.targets, role)
    }

    /// 5.6.7: a pre-order depth-first search for `path`, from the top-level targets. A delegated
    /// role's file is fetched only when the search comes to it.
    ///
    /// # Errors
    /// [`Error::UnknownTarget`] if no role describes it; [`Error::Search`] if a role on the way
    /// couldn't be had, which ends the search.
    pub fn find(&self, path: &TargetPath) -> Result<Target, Error> {
        let mut visited = BTreeSet::new();
        let mut ahead = vec![Step { role: RoleName::TARGETS, delegator: None }];
        while let Some(step) = ahead.pop() {
            // 5.6.7.1: each role once, so that cycles end, and not too many of them.
            if visited.contains(&step.role) {
                continue;
            }
            if visited.len() >= self.update.client.limits.visited_roles {
                break;
            }
            let metadata = self.visit(&step)?;
            if let Some(file) = metadata.content().targets.get(path.as_str()) {
                return Ok(Target { path: path.clone(), role: step.role, file: file.clone() });
            }
            visited.insert(step.role);
            // 5.6.7.2: its delegations that cover the path, in order of appearance.
            let delegations = metadata.content().delegations.iter();
            let mut next = Vec::new();
            for role in delegations.flat_map(|delegations| &delegations.roles).filter(|role| role.paths.cover(path)) {
                next.push(Step { role: role.name.clone(), delegator: Some(Rc::clone(&metadata)) });
                // 5.6.7.2.1: after a terminating one nothing else counts, here or further up.
                if role.terminating {
                    ahead.clear();
                    break;
                }
            }
            ahead.extend(next.into_iter().rev());
        }
        Err(Error::UnknownTarget(path.clone()))
    }

    fn visit(&self, step: &Step) -> Result<Rc<Metadata<Targets>>, Error> {
        let Some(delegator) = &step.delegator else { return Ok(Rc::clone(&self.targets)) };
        let found = self.delegated_by(delegator, &step.role).map(Rc::new);
        found.map_err(|source| Error::Search { role: step.role.clone(), source: Box::new(source) })
    }

    fn delegated_by(&self, delegator: &Metadata<Targets>, role: &RoleName) -> Result<Metadata<Targets>, Error> {
        let unlisted = || Error::Unlisted(role.file_name());
        let delegator = delegator.content().delegations.as_ref().ok_or_else(unlisted)?;
        let delegation = delegator.roles.iter().find(|delegation| delegation.name == *role).ok_or_else(unlisted)?;
        self.update.described(&Described {
            role,
            meta: listed(&self.snapshot, role)?,
            authority: Authority { keys: &delegator.keys, role: &delegation.keys },
            bytes_max: self.update.client.limits.targets_bytes,
            consistent_snapshot: self.root.content().consistent_snapshot,
        })
    }

    /// Whether `bytes` are the target's: for a copy that is at hand already.
    #[must_use]
    pub fn matches(&self, target: &Target, bytes: &[u8]) -> bool {
        target.file.length == bytes.len() as u64 && target.file.hashes.matches(self.update.client.suite, bytes)
    }

    /// 5.7.3: fetches a target into memory. For large ones there is [`Trusted::fetch_into`].
    ///
    /// # Errors
    /// As [`Trusted::fetch_into`].
    pub fn fetch(&self, target: &Target) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        self.fetch_into(target, &mut bytes)?;
        Ok(bytes)
    }

    /// 5.7.3: fetches a target and writes it to `output` as it comes. **Until this returns, what
    /// was written is not verified**; after an error it must be thrown away.
    ///
    /// # Errors
    /// [`Error::OtherContent`] if length or hashes differ or no listed hash is known;
    /// [`Error::TooLong`], [`Error::Fetch`], [`Error::Output`].
    pub fn fetch_into(&self, target: &Target, output: &mut dyn Write) -> Result<(), Error> {
        let suite = self.update.client.suite;
        let other = || Error::OtherContent(target.path.to_string());
        let hashes = &target.file.hashes;
        let mut runs: Vec<(Box<dyn RunningHash>, &str)> =
            hashes.known(suite).filter_map(|(name, hash)| Some((suite.hash(name)?, hash))).collect();
        // The name carries any one of the hashes (6.2.1); the first that we know.
        let (_, prefix) = hashes.known(suite).next().ok_or_else(other)?;
        let max = self.update.client.limits.target_bytes;
        if target.file.length > max {
            return Err(Error::TooLong { file: target.path.to_string(), max });
        }
        let prefix = self.root.content().consistent_snapshot.then_some(prefix);
        let location = Location::Target(target.path.location(prefix));
        let failed = |source| Error::Fetch { file: target.path.to_string(), source };
        let reader = self.update.fetch.open(&location).map_err(failed)?;
        // One byte more than announced shows that there is more.
        let mut reader = reader.take(target.file.length.saturating_add(1));
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut length = 0;
        loop {
            let count = match reader.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map_err(|error| failed(FetchError::Unavailable(error.to_string())))?,
            };
            let Some(part) = chunk.get(..count).filter(|part| !part.is_empty()) else { break };
            length += part.len() as u64;
            if length > target.file.length {
                return Err(other());
            }
            for (run, _) in &mut runs {
                run.update(part);
            }
            output.write_all(part).map_err(|source| Error::Output { path: target.path.clone(), source })?;
        }
        let all = length == target.file.length && runs.into_iter().all(|(run, hash)| run.finish() == hash);
        if all { Ok(()) } else { Err(other()) }
    }
}
