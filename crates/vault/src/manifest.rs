//! The manifests of a region in a store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use attest::{DataClass, RegionId};
use bytes::Bytes;
use seal::{BatchId, Header};
use stdx::{Digest, UnixTime};
use storage::{Error, Folder, Key, KeyError, Listing, ObjectStore};

use crate::chain::{Announced, Chain, ChainError, Change, Gone, Segment};
use crate::rewriting::Replacement;
use crate::segment::Building;

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
    #[error("segment {1}, which was announced for region `{0}`, was withdrawn meanwhile")]
    Withdrawn(RegionId, Digest),
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
        loop {
            let key = self.key(self.chain.next())?;
            let Some(bytes) = self.objects.get(&key).await? else {
                return self.check_end(key).await;
            };
            let removed = self.chain.read(&bytes)?;
            self.forget(removed);
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
        let key = self.segment_key(&segment.class, &segment.segment)?;
        self.objects.put(&key, bytes).await?;
        self.commit(|chain| {
            if chain.segment(&segment.segment).is_some() {
                return None;
            }
            let mut segment = segment.clone();
            segment.objects.retain(|kept| chain.object(&kept.id).is_none());
            (!segment.objects.is_empty()).then(|| Change { added: vec![segment], ..Change::default() })
        })
        .await?;
        if self.chain.segment(&segment.segment).is_none() {
            // All of it is in other segments already.
            self.objects.delete(&key).await?;
        }
        Ok(())
    }

    /// Puts a segment into the place of others: announced first, so that whatever ends this in between, the next who
    /// comes can take it away ([`Manifests::withdraw`]); then in one manifest: what is there is there once at every
    /// moment. Safe to repeat, also after it succeeded.
    ///
    /// # Errors
    /// [`ManifestError::NoSegment`] if one of those is not there (any more), [`ManifestError::Withdrawn`] if somebody
    /// did not want to wait: nothing has changed then.
    pub async fn replace(&mut self, replacement: &Replacement) -> Result<(), ManifestError> {
        let Replacement { segment, bytes, replaced } = replacement;
        let (name, class) = (segment.segment, segment.class.clone());
        self.commit(|chain| {
            let known = chain.segment(&name).is_some() || chain.is_announced(&name);
            let announced = Some(Announced { segment: name, class: class.clone() });
            (!known).then(|| Change { announced, ..Change::default() })
        })
        .await?;
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
                None => None,
            };
            let change = Change { added: vec![segment.clone()], removed: replaced.clone(), ..Change::default() };
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

    /// Writes every segment that has one of these objects anew without them, and deletes the one before. What was made
    /// of such objects by a worker is named and left as it is: only a worker can read it. Safe to repeat.
    ///
    /// # Errors
    /// [`ManifestError`]; what is left undone is done by the next call.
    pub async fn erase(&mut self, names: &BTreeSet<BatchId>) -> Result<Erased, ManifestError> {
        self.refresh().await?;
        let mut erased = Erased::default();
        let has = |segment: &&Segment| segment.objects.iter().any(|kept| names.contains(&kept.id));
        for old in self.chain.segments().filter(has).cloned().collect::<Vec<_>>() {
            erased.objects += self.leave_out(&old, names).await?;
        }
        self.delete_removed().await?;
        erased.made_of_them = self.chain.made_of(names).collect();
        Ok(erased)
    }

    /// Gives how many objects went. Nothing is announced: the same attempt again makes the same bytes, under the same
    /// name, so that what an attempt has left in the store is no waste, and is never deleted under another's hands.
    async fn leave_out(&mut self, old: &Segment, names: &BTreeSet<BatchId>) -> Result<usize, ManifestError> {
        let key = self.segment_key(&old.class, &old.segment)?;
        let damaged = |what: &str| self.chain.error(format!("names the segment {}, which {what}", old.segment));
        let bytes = self.objects.get(&key).await?.ok_or_else(|| damaged("is missing"))?;
        let mut building = Building::new();
        for kept in old.objects.iter().filter(|kept| !names.contains(&kept.id)) {
            let range = usize::try_from(kept.at).ok().zip(usize::try_from(kept.at.saturating_add(kept.bytes)).ok());
            let object = range.and_then(|(from, to)| bytes.get(from..to)).ok_or_else(|| damaged("is cut off"))?;
            let (header, start) = Header::parse(object).map_err(|_| damaged("is not as it was written"))?;
            building.add(&header, start, object);
        }
        let gone = old.objects.len() - building.len();
        let mut added = Vec::new();
        if building.len() > 0 {
            let (segment, bytes) = building.finish(old.class.clone(), old.until);
            let unread = old.unread.clone().map(|mut unread| {
                unread.objects.retain(|object| !names.contains(object));
                unread
            });
            let unread = unread.filter(|unread| !unread.objects.is_empty());
            self.objects.put(&self.segment_key(&segment.class, &segment.segment)?, bytes).await?;
            added.push(Segment { from: old.from, unread, ..segment });
        }
        let removed = old.segment;
        self.commit(|chain| {
            let change = Change { added: added.clone(), removed: vec![removed], ..Change::default() };
            chain.segment(&removed).map(|_| change)
        })
        .await?;
        Ok(gone)
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
