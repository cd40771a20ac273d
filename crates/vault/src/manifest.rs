//! Manifests: which segments a region has. Each says what changed after the one before it; none ever changes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use attest::{CountryCode, DataClass, RegionId, TYPE_BASE};
use bytes::Bytes;
use seal::BatchId;
use serde::{Deserialize, Serialize};
use stdx::{Digest, UnixTime};
use storage::{Error, Folder, Key, Listing, ObjectStore};

const TYPE: &str = "manifest/v1";

/// A segment of 64 MiB has some hundreds of objects, each with 300 bytes here; a manifest has a few segments.
const MANIFEST_BYTES_MAX: usize = 16 << 20;

/// As many intakes would have to commit between a look and a swap, again and again.
const ATTEMPTS_MAX: usize = 64;

/// An object in a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// Its name.
    pub id: BatchId,
    /// Whence it came.
    pub country: CountryCode,
    /// Where in the segment it begins.
    pub at: u64,
    /// Its bytes.
    pub bytes: u64,
    /// SHA-256 of it.
    pub object: Digest,
    /// SHA-256 of its header.
    pub header: Digest,
}

/// A segment: objects of one class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// SHA-256 of it, its name.
    pub segment: Digest,
    /// The class.
    pub class: DataClass,
    /// Its bytes.
    pub bytes: u64,
    /// When the last of it was taken: retention counts from then.
    pub until: UnixTime,
    /// The objects that count; one that was taken twice counts where it was first.
    pub objects: Vec<Kept>,
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    #[serde(rename = "type")]
    manifest_type: String,
    /// The region.
    pub region: RegionId,
    /// 1, 2, 3 …
    pub number: u64,
    /// SHA-256 of the one before; absent in the first only.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub previous: Option<Digest>,
    /// Segments that are there from now on.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub added: Vec<Segment>,
    /// Segments that are not.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub removed: Vec<Digest>,
}

/// Why a region's manifests are of no use.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
    /// A manifest that nobody here has written, or that was changed.
    #[error("manifest `{0}` {1}")]
    Damaged(Key, String),
    /// Others commit all the time.
    #[error("others have committed to region `{0}` {ATTEMPTS_MAX} times in between")]
    Contended(RegionId),
}

/// The manifests of a region, and what they come to.
pub struct Manifests {
    objects: Arc<dyn ObjectStore>,
    region: RegionId,
    last: Option<(u64, Digest)>,
    segments: BTreeMap<Digest, Segment>,
    ids: HashMap<BatchId, Digest>,
    removed: Vec<(DataClass, Digest)>,
}

impl Manifests {
    /// Reads all of them.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub async fn open(objects: Arc<dyn ObjectStore>, region: RegionId) -> Result<Self, ManifestError> {
        let (segments, ids, removed) = (BTreeMap::new(), HashMap::new(), Vec::new());
        let mut manifests = Self { objects, region, last: None, segments, ids, removed };
        manifests.refresh().await?;
        Ok(manifests)
    }

    /// Reads what others have committed meanwhile.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub async fn refresh(&mut self) -> Result<(), ManifestError> {
        loop {
            let number = self.next();
            let key = self.key(number)?;
            let Some(bytes) = self.objects.get(&key).await? else {
                return self.check_end(number).await;
            };
            let manifest = self.read(&key, number, &bytes)?;
            self.apply(manifest, &bytes);
        }
    }

    /// Nothing lies behind the end: a manifest that is missing must not hide those after it.
    async fn check_end(&self, number: u64) -> Result<(), ManifestError> {
        let folder = format!("manifest/{}", self.region).parse::<Key>().map_err(|error| self.bad(&error))?;
        let mut listing = Listing::of(Folder::Below(folder));
        listing.after = Some(self.key(number)?);
        listing.limit = 1;
        match self.objects.list(&listing).await?.first() {
            None => Ok(()),
            // It may just have been committed.
            Some(_) if self.objects.get(&self.key(number)?).await?.is_some() => Ok(()),
            Some(later) => {
                Err(ManifestError::Damaged(later.clone(), format!("stands after {number}, which is missing")))
            }
        }
    }

    /// The segments that are there.
    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.segments.values()
    }

    /// SHA-256 of the object of this name, if it is there.
    #[must_use]
    pub fn object(&self, id: &BatchId) -> Option<&Digest> {
        self.ids.get(id)
    }

    /// Puts a segment into the store, and then its name into the manifests. Safe to repeat.
    ///
    /// # Errors
    /// [`ManifestError`]; the segment may then be there already, without a manifest.
    pub async fn add(&mut self, segment: Segment, bytes: Bytes) -> Result<(), ManifestError> {
        let key = self.segment_key(&segment.class, &segment.segment)?;
        self.objects.put(&key, bytes).await?;
        self.commit(|state| {
            if state.segments.contains_key(&segment.segment) {
                return None;
            }
            let mut segment = segment.clone();
            segment.objects.retain(|kept| !state.ids.contains_key(&kept.id));
            (!segment.objects.is_empty()).then(|| (vec![segment], Vec::new()))
        })
        .await?;
        if !self.segments.contains_key(&segment.segment) {
            // All of it is in other segments already.
            self.objects.delete(&key).await?;
        }
        Ok(())
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
        self.commit(|state| {
            let over = |segment: &&Segment| {
                let kept_s = retention_s.get(&segment.class).copied();
                kept_s.is_some_and(|kept_s| now.since(segment.until).as_secs() > kept_s)
            };
            let over: Vec<Digest> = state.segments.values().filter(over).map(|segment| segment.segment).collect();
            count = over.len();
            (!over.is_empty()).then(|| (Vec::new(), over))
        })
        .await?;
        for (class, segment) in std::mem::take(&mut self.removed) {
            // The same bytes may have been taken in again since.
            if !self.segments.contains_key(&segment) {
                self.objects.delete(&self.segment_key(&class, &segment)?).await?;
            }
        }
        Ok(count)
    }

    /// Commits what `change` wants to, if anything, after whatever others have committed.
    async fn commit(
        &mut self,
        mut change: impl FnMut(&Self) -> Option<(Vec<Segment>, Vec<Digest>)>,
    ) -> Result<(), ManifestError> {
        for _ in 0..ATTEMPTS_MAX {
            let Some((added, removed)) = change(self) else { return Ok(()) };
            let (region, number) = (self.region.clone(), self.next());
            let previous = self.last.map(|(_, digest)| digest);
            let manifest_type = format!("{TYPE_BASE}{TYPE}");
            let manifest = Manifest { manifest_type, region, number, previous, added, removed };
            let bytes = Bytes::from(encode(&manifest));
            match self.objects.put(&self.key(number)?, bytes.clone()).await {
                Ok(_) => {
                    self.apply(manifest, &bytes);
                    return Ok(());
                }
                Err(Error::Conflict { .. }) => self.refresh().await?,
                Err(error) => return Err(error.into()),
            }
        }
        Err(ManifestError::Contended(self.region.clone()))
    }

    fn next(&self) -> u64 {
        self.last.map_or(1, |(number, _)| number + 1)
    }

    fn apply(&mut self, manifest: Manifest, bytes: &[u8]) {
        self.last = Some((manifest.number, Digest::of(bytes)));
        for digest in manifest.removed {
            if let Some(segment) = self.segments.remove(&digest) {
                for kept in &segment.objects {
                    self.ids.remove(&kept.id);
                }
                self.removed.push((segment.class, digest));
            }
        }
        for segment in manifest.added {
            self.ids.extend(segment.objects.iter().map(|kept| (kept.id, kept.object)));
            self.segments.insert(segment.segment, segment);
        }
    }

    fn read(&self, key: &Key, number: u64, bytes: &[u8]) -> Result<Manifest, ManifestError> {
        let refuse = |why: &str| ManifestError::Damaged(key.clone(), why.to_owned());
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(refuse("is too long"));
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(|error| refuse(&format!("is none: {error}")))?;
        if manifest.manifest_type != format!("{TYPE_BASE}{TYPE}") || encode(&manifest) != bytes {
            return Err(refuse("is not in canonical form"));
        }
        if manifest.region != self.region || manifest.number != number {
            return Err(refuse("is another's"));
        }
        if manifest.previous != self.last.map(|(_, digest)| digest) {
            return Err(refuse("does not follow the one before it"));
        }
        Ok(manifest)
    }

    fn key(&self, number: u64) -> Result<Key, ManifestError> {
        format!("manifest/{}/{number:016}", self.region).parse().map_err(|error| self.bad(&error))
    }

    /// Where a segment lies.
    pub(crate) fn segment_key(&self, class: &DataClass, segment: &Digest) -> Result<Key, ManifestError> {
        format!("segment/{}/{class}/{segment}", self.region).parse().map_err(|error| self.bad(&error))
    }

    /// A name too long for a key.
    fn bad(&self, error: &storage::KeyError) -> ManifestError {
        ManifestError::Store(Error::Setup {
            service: format!("region `{}`", self.region),
            problem: error.to_string(),
            hint: "give the region and its classes shorter names",
        })
    }
}

fn encode(manifest: &Manifest) -> Vec<u8> {
    serde_json::to_vec(manifest).expect("strings and integers are always JSON")
}
