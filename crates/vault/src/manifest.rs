//! The manifests of a region in a store.

use std::collections::BTreeMap;
use std::sync::Arc;

use attest::{DataClass, RegionId};
use bytes::Bytes;
use futures::future::try_join_all;
use seal::Header;
use stdx::{Digest, UnixTime};
use storage::{Error, Folder, Key, KeyError, Listing, ObjectStore};

use crate::chain::{Announced, Chain, ChainError, Change, Gone, Segment, ToErase};
use crate::renounced::Renounced;
use crate::rewriting::Replacement;
use crate::segment::{Building, renamed};

/// As many intakes would have to commit between a look and a swap, again and again.
const ATTEMPTS_MAX: usize = 64;

/// Why a region's manifests are of no use.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
    /// A manifest that nobody here has written, or that was changed.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Others commit all the time.
    #[error("others have committed to region `{0}` {ATTEMPTS_MAX} times in between")]
    Contended(RegionId),
    /// What is to be taken back is not there (any more).
    #[error("region `{0}` has no segment {1}")]
    NoSegment(RegionId, Digest),
    /// Somebody else has decided that it does not come.
    #[error("segment {1} of region `{0}` was withdrawn, and does not come again")]
    Withdrawn(RegionId, Digest),
    /// It has what was erased meanwhile.
    #[error("segment {1} of region `{0}` has what was erased meanwhile")]
    Unclean(RegionId, Digest),
}

/// What an erasure came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// Objects that are gone.
    pub objects: usize,
    /// Segments that a worker has made of segments with such objects.
    pub made_of_them: Vec<Digest>,
}

/// Where a manifest lies.
///
/// # Errors
/// When the region's name is too long for a key.
pub fn manifest_key(region: &RegionId, number: u64) -> Result<Key, KeyError> {
    format!("manifest/{region}/{number:016}").parse()
}

/// Where the bundle lies that shows that objects are to be erased.
///
/// # Errors
/// When the region's name is too long for a key.
pub fn evidence_key(region: &RegionId, evidence: &Digest) -> Result<Key, KeyError> {
    format!("erasure/{region}/{evidence}").parse()
}

/// Where a segment lies.
///
/// # Errors
/// When the names are too long for a key.
pub fn segment_key(region: &RegionId, class: &DataClass, segment: &Digest) -> Result<Key, KeyError> {
    format!("segment/{region}/{class}/{segment}").parse()
}

/// The manifests of a region, and the segments that they name.
pub struct Manifests {
    objects: Arc<dyn ObjectStore>,
    chain: Chain,
    removed: Vec<Gone>,
}

/// Asked for at once where there are many: whoever is behind waits for a store, not for a processor. They have 16 MiB each
/// at most.
pub const MANIFESTS_AT_ONCE_MAX: u64 = 8;

impl Manifests {
    /// Reads all of them.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub async fn open(objects: Arc<dyn ObjectStore>, region: RegionId) -> Result<Self, ManifestError> {
        let mut manifests = Self { objects, chain: Chain::new(region), removed: Vec::new() };
        manifests.refresh().await?;
        Ok(manifests)
    }

    /// Reads what others have committed meanwhile.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub async fn refresh(&mut self) -> Result<(), ManifestError> {
        let mut at_once = 1;
        loop {
            let next = self.chain.next();
            let keys = (next..next.saturating_add(at_once)).map(|number| self.key(number));
            let keys = keys.collect::<Result<Vec<_>, _>>()?;
            let found = try_join_all(keys.iter().map(|key| self.objects.get(key))).await?;
            for (key, bytes) in keys.into_iter().zip(found) {
                let Some(bytes) = bytes else { return self.check_end(key).await };
                let removed = self.chain.read(&bytes)?;
                self.forget(removed);
            }
            at_once = (at_once * 2).min(MANIFESTS_AT_ONCE_MAX);
        }
    }

    /// Nothing lies behind the end: a manifest that is missing must not hide those after it.
    async fn check_end(&self, end: Key) -> Result<(), ManifestError> {
        let folder = format!("manifest/{}", self.chain.region()).parse::<Key>().map_err(|error| self.bad(&error))?;
        let mut listing = Listing::of(Folder::Below(folder));
        listing.after = Some(end.clone());
        listing.limit = 1;
        match self.objects.list(&listing).await?.first() {
            None => Ok(()),
            // It may just have been committed.
            Some(_) if self.objects.get(&end).await?.is_some() => Ok(()),
            Some(later) => Err(self.chain.error(format!("is missing, and `{later}` stands after it")).into()),
        }
    }

    /// What they come to.
    #[must_use]
    pub const fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Puts a segment into the store, and then its name into the manifests. Safe to repeat.
    ///
    /// # Errors
    /// [`ManifestError`]; the segment may then be there already, without a manifest.
    pub async fn add(&mut self, segment: Segment, bytes: Bytes) -> Result<(), ManifestError> {
        let put = self.put_new(segment, bytes, |chain, segment| {
            let mut segment = segment.clone();
            segment.objects.retain(|kept| chain.object(&kept.id).is_none());
            if segment.objects.is_empty() {
                // All of it is in other segments already. From now on nobody adds it, and so it can be deleted.
                return Change { removed: vec![segment.segment], ..Change::default() };
            }
            Change { added: vec![segment], ..Change::default() }
        });
        put.await
    }

    /// Puts a segment into the store, and commits what `change` makes of it, unless it is there already. A name that was
    /// taken back is not taken again: whoever has yet to delete that one, however slow, would delete this.
    async fn put_new(
        &mut self,
        segment: Segment,
        bytes: Bytes,
        change: impl Fn(&Chain, &Segment) -> Change,
    ) -> Result<(), ManifestError> {
        let (mut segment, mut bytes) = (segment, bytes);
        loop {
            let key = self.segment_key(&segment.class, &segment.segment)?;
            self.objects.put(&key, bytes.clone()).await?;
            let mut was_there = false;
            self.commit(|chain| {
                was_there = chain.was_there(&segment.segment);
                let is_there = chain.segment(&segment.segment).is_some();
                (!was_there && !is_there).then(|| change(chain, &segment))
            })
            .await?;
            if self.chain.segment(&segment.segment).is_none() {
                self.objects.delete(&key).await?;
            }
            if !was_there {
                return Ok(());
            }
            (segment, bytes) = renamed(segment, &bytes);
        }
    }

    /// Puts a segment into the place of others: announced first, so that whatever ends this in between, the next who
    /// comes can take it away ([`Manifests::withdraw`]); then in one manifest: what is there is there once at every
    /// moment. Safe to repeat, also after it succeeded.
    ///
    /// # Errors
    /// [`ManifestError::NoSegment`] if one of those is not there (any more), [`ManifestError::Withdrawn`] if somebody
    /// did not want to wait, [`ManifestError::Unclean`] if more is to be erased by now: nothing has changed then.
    pub async fn replace(&mut self, replacement: &Replacement) -> Result<(), ManifestError> {
        let Replacement { segment, bytes, replaced, left_out, owners } = replacement;
        let (name, class) = (segment.segment, segment.class.clone());
        let mut was_there = false;
        self.commit(|chain| {
            was_there = chain.was_there(&name);
            let known = was_there || chain.segment(&name).is_some() || chain.is_announced(&name);
            let announced = Some(Announced { segment: name, class: class.clone() });
            (!known).then(|| Change { announced, ..Change::default() })
        })
        .await?;
        if was_there {
            return Err(ManifestError::Withdrawn(self.chain.region().clone(), name));
        }
        self.objects.put(&self.segment_key(&class, &name)?, bytes.clone()).await?;
        let (region, mut refused) = (self.chain.region().clone(), None);
        self.commit(|chain| {
            if chain.segment(&name).is_some() {
                return None;
            }
            let missing = replaced.iter().find(|it| chain.segment(it).is_none()).copied();
            refused = match missing {
                _ if !chain.is_announced(&name) => Some(ManifestError::Withdrawn(region.clone(), name)),
                Some(missing) => Some(ManifestError::NoSegment(region.clone(), missing)),
                None if chain.to_leave_out(replaced) != *left_out => Some(ManifestError::Unclean(region.clone(), name)),
                None => None,
            };
            let (added, removed) = (vec![segment.clone()], replaced.clone());
            let (left_out, owners) = (left_out.clone(), owners.clone());
            let change = Change { added, removed, left_out, owners, ..Change::default() };
            refused.is_none().then_some(change)
        })
        .await?;
        match refused {
            Some(refused) => {
                self.withdraw_those(|it| *it == name).await?;
                Err(refused)
            }
            None => self.delete_removed().await,
        }
    }

    /// Takes back what somebody has announced and never brought to its end: from now on it can't be. Gives how many.
    ///
    /// # Errors
    /// [`ManifestError`]; what is left undone is done by the next call.
    pub async fn withdraw(&mut self) -> Result<usize, ManifestError> {
        self.withdraw_those(|_| true).await
    }

    async fn withdraw_those(&mut self, which: impl Fn(&Digest) -> bool) -> Result<usize, ManifestError> {
        let mut count = 0;
        self.commit(|chain| {
            let removed: Vec<Digest> = chain.announced().map(|(it, _)| *it).filter(|it| which(it)).collect();
            count = removed.len();
            (!removed.is_empty()).then(|| Change { removed, ..Change::default() })
        })
        .await?;
        self.delete_removed().await?;
        Ok(count)
    }

    /// Puts on record that these objects are to go, with what shows it; then writes every segment that has one of them anew
    /// without them. What was made of such objects by a worker is named and left as it is: only a worker can read it. Safe
    /// to repeat.
    ///
    /// # Errors
    /// [`ManifestError`]; what is left undone is done by the next call, or by [`Manifests::leave_out`].
    pub async fn erase(&mut self, renounced: &Renounced) -> Result<Erased, ManifestError> {
        self.refresh().await?;
        let evidence = renounced.name();
        let key = evidence_key(self.chain.region(), &evidence).map_err(|error| self.bad(&error))?;
        self.objects.put(&key, renounced.evidence().clone()).await?;
        let names = renounced.objects();
        self.commit(|chain| {
            let known = names.iter().all(|name| chain.is_erased(name));
            let erased = Some(ToErase { evidence, objects: names.iter().copied().collect() });
            (!known).then(|| Change { erased, ..Change::default() })
        })
        .await?;
        let objects = self.leave_out().await?;
        Ok(Erased { objects, made_of_them: self.chain.made_of(names).collect() })
    }

    /// Writes every segment anew, as it was sealed, that has an object which is to be erased: also what came after that was
    /// said. Gives how many objects went.
    ///
    /// # Errors
    /// [`ManifestError`]; what is left undone is done by the next call.
    pub async fn leave_out(&mut self) -> Result<usize, ManifestError> {
        let mut count = 0;
        let has = |segment: &&Segment| segment.objects.iter().any(|kept| self.chain.is_erased(&kept.id));
        for old in self.chain.segments().filter(has).cloned().collect::<Vec<_>>() {
            count += self.leave_out_of(&old).await?;
        }
        self.delete_removed().await?;
        Ok(count)
    }

    /// Gives how many objects went. Nothing is announced: the same attempt again makes the same bytes, under the same
    /// name, so that what an attempt has left in the store is no waste.
    async fn leave_out_of(&mut self, old: &Segment) -> Result<usize, ManifestError> {
        let key = self.segment_key(&old.class, &old.segment)?;
        let damaged = |what: &str| self.chain.error(format!("names the segment {}, which {what}", old.segment));
        let bytes = self.objects.get(&key).await?.ok_or_else(|| damaged("is missing"))?;
        let (mut building, mut left_out) = (Building::new(), Vec::new());
        for kept in &old.objects {
            if self.chain.is_erased(&kept.id) {
                left_out.push(kept.id);
                continue;
            }
            let range = usize::try_from(kept.at).ok().zip(usize::try_from(kept.at.saturating_add(kept.bytes)).ok());
            let object = range.and_then(|(from, to)| bytes.get(from..to)).ok_or_else(|| damaged("is cut off"))?;
            let (header, start) = Header::parse(object).map_err(|_| damaged("is not as it was written"))?;
            building.add(&header, start, object);
        }
        left_out.sort_unstable();
        let (count, removed) = (left_out.len(), old.segment);
        let change = |added: Vec<Segment>| Change {
            added,
            removed: vec![removed],
            left_out: left_out.clone(),
            ..Change::default()
        };
        if building.len() == 0 {
            self.commit(|chain| chain.segment(&removed).map(|_| change(Vec::new()))).await?;
            return Ok(count);
        }
        let (segment, bytes) = building.finish(old.class.clone(), old.until);
        let unread = old.unread.clone().map(|mut unread| {
            unread.objects.retain(|object| left_out.binary_search(object).is_err());
            unread
        });
        let segment = Segment { from: old.from, unread: unread.filter(|it| !it.objects.is_empty()), ..segment };
        self.put_new(segment, bytes, |chain, segment| match chain.segment(&removed) {
            Some(_) => change(vec![segment.clone()]),
            // Somebody else has, or its time is over.
            None => Change { removed: vec![segment.segment], ..Change::default() },
        })
        .await?;
        Ok(count)
    }

    /// Takes back the segments whose time is over, as `retention_s` says for each class: first in the
    /// manifests, then in the store. Gives their number.
    ///
    /// # Errors
    /// [`ManifestError`]; what is left undone is done by the next call.
    pub async fn retain(
        &mut self,
        now: UnixTime,
        retention_s: &BTreeMap<DataClass, u64>,
    ) -> Result<usize, ManifestError> {
        let mut count = 0;
        self.commit(|chain| {
            let over = |segment: &&Segment| {
                let kept_s = retention_s.get(&segment.class).copied();
                kept_s.is_some_and(|kept_s| now.since(segment.until).as_secs() > kept_s)
            };
            let removed: Vec<Digest> = chain.segments().filter(over).map(|segment| segment.segment).collect();
            count = removed.len();
            (!removed.is_empty()).then(|| Change { removed, ..Change::default() })
        })
        .await?;
        self.delete_removed().await?;
        Ok(count)
    }

    async fn delete_removed(&mut self) -> Result<(), ManifestError> {
        while let Some((class, segment)) = self.removed.last() {
            // The same bytes may have been taken in again since.
            if self.chain.segment(segment).is_none() {
                self.objects.delete(&self.segment_key(class, segment)?).await?;
            }
            self.removed.pop();
        }
        Ok(())
    }

    /// Commits what `change` wants to, if anything, after whatever others have committed.
    async fn commit(&mut self, mut change: impl FnMut(&Chain) -> Option<Change>) -> Result<(), ManifestError> {
        for _ in 0..ATTEMPTS_MAX {
            let Some(change) = change(&self.chain) else { return Ok(()) };
            let (manifest, bytes) = self.chain.draft(change);
            let bytes = Bytes::from(bytes);
            match self.objects.put(&self.key(manifest.number)?, bytes.clone()).await {
                Ok(_) => {
                    let removed = self.chain.apply(manifest, &bytes);
                    self.forget(removed);
                    return Ok(());
                }
                Err(Error::Conflict { .. }) => self.refresh().await?,
                Err(error) => return Err(error.into()),
            }
        }
        Err(ManifestError::Contended(self.chain.region().clone()))
    }

    fn forget(&mut self, removed: Vec<Gone>) {
        self.removed.extend(removed);
    }

    fn key(&self, number: u64) -> Result<Key, ManifestError> {
        manifest_key(self.chain.region(), number).map_err(|error| self.bad(&error))
    }

    pub(crate) fn segment_key(&self, class: &DataClass, segment: &Digest) -> Result<Key, ManifestError> {
        segment_key(self.chain.region(), class, segment).map_err(|error| self.bad(&error))
    }

    /// A name too long for a key.
    pub(crate) fn bad(&self, error: &KeyError) -> ManifestError {
        ManifestError::Store(Error::Setup {
            service: format!("region `{}`", self.chain.region()),
            problem: error.to_string(),
            hint: "give the region and its classes shorter names",
        })
    }
}
