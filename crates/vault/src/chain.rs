//! Manifests: which segments a region has. Each says what changed after the one before it; none ever changes.
//! This part of them knows no store.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use attest::{CountryCode, DataClass, RegionId, TYPE_BASE};
use seal::BatchId;
use serde::{Deserialize, Serialize};
use stdx::{Digest, UnixTime};

const TYPE: &str = "manifest/v1";

/// The longest manifest. A segment of 64 MiB has some hundreds of objects, each with 300 bytes here; a manifest
/// has a few segments.
pub const MANIFEST_BYTES_MAX: usize = 16 << 20;

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
    /// When the first of it was taken, where a worker has made it of other segments: its objects hold columns, not
    /// lines. Of what endpoints have sent, nobody says so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<UnixTime>,
    /// When the last of it was taken: retention counts from then.
    pub until: UnixTime,
    /// What stands among columns as endpoints have sent it, because the worker could not read it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unread: Option<Unread>,
    /// The objects that count; one that was taken twice counts where it was first.
    pub objects: Vec<Kept>,
}

/// Objects that were written into a segment as they were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unread {
    /// SHA-256 of the code that could not read them. Other code may.
    pub code: Digest,
    /// Their names, in the segment's order.
    pub objects: Vec<BatchId>,
}

impl Segment {
    /// Whether this object of it holds lines, as an endpoint sends them, and not columns.
    #[must_use]
    pub fn has_lines(&self, object: &BatchId) -> bool {
        self.from.is_none() || self.unread.as_ref().is_some_and(|unread| unread.objects.contains(object))
    }
}

/// A segment that somebody is about to put into the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announced {
    /// SHA-256 of it.
    pub segment: Digest,
    /// The class.
    pub class: DataClass,
}

/// Objects that nobody opens any more, and that are to go from here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToErase {
    /// SHA-256 of what shows it ([`Renounced`](crate::Renounced)), which lies in the store.
    pub evidence: Digest,
    /// Their names, ascending.
    pub objects: Vec<BatchId>,
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
    /// A segment that will take the place of others. From now on it may lie in the store.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub announced: Option<Announced>,
    /// Objects that are to go, and whose events are.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub erased: Option<ToErase>,
    /// Segments that are there from now on.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub added: Vec<Segment>,
    /// Segments that are not, or that will not be.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub removed: Vec<Digest>,
    /// Objects to be erased, of which nothing is in what takes the place of the removed segments: ascending.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub left_out: Vec<BatchId>,
    /// What the names of the columns in the removed segments were made of, ascending: whoever wants may have these
    /// erased, wherever they are, since what they held is in what takes their place.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub owners: Vec<Digest>,
}

/// A manifest that nobody who keeps the region has written, or that was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("manifest {number} of region `{region}` {problem}")]
pub struct ChainError {
    /// The region.
    pub region: RegionId,
    /// The manifest.
    pub number: u64,
    /// What is wrong.
    pub problem: String,
}

/// The manifests of a region, read in their order, and what they come to. Whoever reads them from another's
/// store or server checks the same.
#[derive(Debug)]
pub struct Chain {
    region: RegionId,
    last: Option<(u64, Digest)>,
    segments: BTreeMap<Digest, Segment>,
    ids: HashMap<BatchId, Digest>,
    /// Names from segments that this one has replaced: what comes again is known as long as it lasts.
    inherited: HashMap<Digest, Vec<BatchId>>,
    announced: BTreeMap<Digest, DataClass>,
    /// What is to be erased, with what shows it.
    erased: BTreeMap<BatchId, Digest>,
    /// Segments of columns that have events of it.
    unclean: BTreeSet<Digest>,
    /// Segments that were there.
    gone: HashSet<Digest>,
    bytes: u64,
}

/// What a manifest takes back: it is to be deleted.
pub(crate) type Gone = (DataClass, Digest);

impl Chain {
    /// Before the first.
    #[must_use]
    pub fn new(region: RegionId) -> Self {
        Self {
            region,
            last: None,
            segments: BTreeMap::new(),
            ids: HashMap::new(),
            inherited: HashMap::new(),
            announced: BTreeMap::new(),
            erased: BTreeMap::new(),
            unclean: BTreeSet::new(),
            gone: HashSet::new(),
            bytes: 0,
        }
    }

    /// The region.
    #[must_use]
    pub const fn region(&self) -> &RegionId {
        &self.region
    }

    /// The number of the manifest that comes next.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.last.map_or(1, |(number, _)| number + 1)
    }

    /// The segments that are there.
    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.segments.values()
    }

    /// The segment of this name, if it is there.
    #[must_use]
    pub fn segment(&self, segment: &Digest) -> Option<&Segment> {
        self.segments.get(segment)
    }

    /// Every object that is known, with its SHA-256.
    pub(crate) fn objects(&self) -> impl Iterator<Item = (BatchId, Digest)> {
        self.ids.iter().map(|(id, object)| (*id, *object))
    }

    /// Segments that a worker has made of others that had one of these objects: to erase them there, a worker must make
    /// them anew.
    pub fn made_of(&self, names: &BTreeSet<BatchId>) -> impl Iterator<Item = Digest> {
        let made = self.segments.values().filter(|segment| segment.from.is_some()).map(|segment| segment.segment);
        made.filter(|it| self.inherited(it).any(|name| names.contains(name)))
    }

    /// Whether the object of this name is to go from here.
    #[must_use]
    pub fn is_erased(&self, id: &BatchId) -> bool {
        self.erased.contains_key(id)
    }

    /// What shows that objects are to go: the SHA-256 of each bundle.
    #[must_use]
    pub fn evidence(&self) -> BTreeSet<Digest> {
        self.erased.values().copied().collect()
    }

    /// What is to be erased of what this segment has or was made of, each with what shows it.
    pub fn erased_in(&self, segment: &Digest) -> impl Iterator<Item = (BatchId, Digest)> {
        let own = self.segments.get(segment).into_iter().flat_map(|it| &it.objects).map(|kept| &kept.id);
        let names = own.chain(self.inherited(segment));
        names.filter_map(|name| self.erased.get(name).map(|evidence| (*name, *evidence)))
    }

    /// Segments of columns that have events of what is to be erased: a worker must make them anew without these.
    #[must_use]
    pub const fn unclean(&self) -> &BTreeSet<Digest> {
        &self.unclean
    }

    /// Whether a segment of this name was there, or was to come, and will not be again: whoever has been slow may delete
    /// it at any time.
    pub(crate) fn was_there(&self, segment: &Digest) -> bool {
        self.gone.contains(segment)
    }

    /// SHA-256 of the object of this name, if it is there, or was until others replaced it.
    #[must_use]
    pub fn object(&self, id: &BatchId) -> Option<&Digest> {
        self.ids.get(id)
    }

    /// The names of objects that were in what this segment has replaced, directly or not.
    pub fn inherited(&self, segment: &Digest) -> impl Iterator<Item = &BatchId> {
        self.inherited.get(segment).into_iter().flatten()
    }

    /// Segments that will take the place of others, unless they are withdrawn.
    pub fn announced(&self) -> impl Iterator<Item = (&Digest, &DataClass)> {
        self.announced.iter()
    }

    pub(crate) fn is_announced(&self, segment: &Digest) -> bool {
        self.announced.contains_key(segment)
    }

    /// Bytes of all segments that are there.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Goes on by the next manifest, and gives class and name of the segments that it takes back.
    ///
    /// # Errors
    /// [`ChainError`]: it is not what follows, and nothing has changed.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Vec<(DataClass, Digest)>, ChainError> {
        let manifest = self.checked(bytes)?;
        Ok(self.apply(manifest, bytes))
    }

    pub(crate) fn checked(&self, bytes: &[u8]) -> Result<Manifest, ChainError> {
        let refuse = |problem: &str| self.error(problem);
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(refuse("is too long"));
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(|error| refuse(&format!("is none: {error}")))?;
        if manifest.manifest_type != format!("{TYPE_BASE}{TYPE}") || encode(&manifest) != bytes {
            return Err(refuse("is not in canonical form"));
        }
        if manifest.region != self.region || manifest.number != self.next() {
            return Err(refuse("is another's"));
        }
        if manifest.previous != self.last.map(|(_, digest)| digest) {
            return Err(refuse("does not follow the one before it"));
        }
        let is_list = manifest.left_out.is_sorted_by(|left, right| left < right);
        if !is_list || manifest.left_out.iter().any(|name| !self.is_erased(name)) {
            return Err(refuse("leaves out what nobody has erased"));
        }
        Ok(manifest)
    }

    pub(crate) fn error(&self, problem: impl Into<String>) -> ChainError {
        ChainError { region: self.region.clone(), number: self.next(), problem: problem.into() }
    }

    /// The manifest that would come next, with this change.
    pub(crate) fn draft(&self, change: Change) -> (Manifest, Vec<u8>) {
        let Change { announced, erased, added, removed, left_out, owners } = change;
        let manifest = Manifest {
            manifest_type: format!("{TYPE_BASE}{TYPE}"),
            region: self.region.clone(),
            number: self.next(),
            previous: self.last.map(|(_, digest)| digest),
            announced,
            erased,
            added,
            removed,
            left_out,
            owners,
        };
        let bytes = encode(&manifest);
        (manifest, bytes)
    }

    pub(crate) fn apply(&mut self, manifest: Manifest, bytes: &[u8]) -> Vec<Gone> {
        self.last = Some((manifest.number, Digest::of(bytes)));
        let (mut gone, mut names) = (Vec::new(), Vec::new());
        self.announced.extend(manifest.announced.into_iter().map(|it| (it.segment, it.class)));
        if let Some(ToErase { evidence, objects }) = manifest.erased {
            let names = objects.iter().copied().collect();
            let made: Vec<Digest> = self.made_of(&names).collect();
            self.unclean.extend(made);
            self.erased.extend(objects.into_iter().map(|name| (name, evidence)));
        }
        for digest in manifest.removed {
            self.gone.insert(digest);
            self.unclean.remove(&digest);
            gone.extend(self.announced.remove(&digest).map(|class| (class, digest)));
            if let Some(segment) = self.segments.remove(&digest) {
                names.extend(segment.objects.iter().map(|kept| kept.id));
                names.extend(self.inherited.remove(&digest).unwrap_or_default());
                self.bytes = self.bytes.saturating_sub(segment.bytes);
                gone.push((segment.class, digest));
            }
        }
        for name in &manifest.left_out {
            self.ids.remove(name);
        }
        names.retain(|name| manifest.left_out.binary_search(name).is_err());
        match manifest.added.first() {
            Some(heir) if !names.is_empty() => {
                if heir.from.is_some() && names.iter().any(|name| self.is_erased(name)) {
                    self.unclean.insert(heir.segment);
                }
                self.inherited.insert(heir.segment, names);
            }
            _ => names.iter().for_each(|id| {
                self.ids.remove(id);
            }),
        }
        for segment in manifest.added {
            self.ids.extend(segment.objects.iter().map(|kept| (kept.id, kept.object)));
            self.bytes = self.bytes.saturating_add(segment.bytes);
            self.announced.remove(&segment.segment);
            self.segments.insert(segment.segment, segment);
        }
        gone
    }
}

/// What a manifest changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    pub(crate) announced: Option<Announced>,
    pub(crate) erased: Option<ToErase>,
    pub(crate) added: Vec<Segment>,
    pub(crate) removed: Vec<Digest>,
    pub(crate) left_out: Vec<BatchId>,
    pub(crate) owners: Vec<Digest>,
}

fn encode(manifest: &Manifest) -> Vec<u8> {
    serde_json::to_vec(manifest).expect("strings and integers are always JSON")
}
