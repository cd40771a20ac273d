//! What became of objects: the columns that workers have made of them, of these, and so on. Everything that is read here is
//! public; which objects are looked for is not, and nobody is asked.

use std::collections::{BTreeMap, BTreeSet};

use attest::{CountryCode, RegionId};
use seal::{BatchId, OwnerSecret};
use stdx::Digest;

use crate::chain::{Chain, ChainError, Kept, Manifest};

/// An object that is looked for, or that has events of such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descent {
    /// SHA-256 of its header.
    pub header: Digest,
    /// Of which of those that are looked for: of itself, or of those whose events it may have.
    pub of: BTreeSet<BatchId>,
    /// Whether a worker has made it.
    pub is_made: bool,
}

/// The manifests of a region, read for some objects.
pub struct Lineage {
    chain: Chain,
    is_sought: Box<dyn Fn(&Kept) -> bool + Send + Sync>,
    found: BTreeMap<BatchId, Descent>,
    owners: BTreeMap<BatchId, Digest>,
}

impl Lineage {
    /// Before the first manifest.
    #[must_use]
    pub fn new(region: RegionId, is_sought: impl Fn(&Kept) -> bool + Send + Sync + 'static) -> Self {
        let is_sought = Box::new(is_sought);
        Self { chain: Chain::new(region), is_sought, found: BTreeMap::new(), owners: BTreeMap::new() }
    }

    /// The manifests so far.
    #[must_use]
    pub const fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Goes on by the next manifest.
    ///
    /// # Errors
    /// [`ChainError`]: it is not what follows, and nothing has changed.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(), ChainError> {
        let manifest = self.chain.checked(bytes)?;
        for kept in manifest.added.iter().flat_map(|segment| &segment.objects) {
            if (self.is_sought)(kept) {
                let itself = Descent { header: kept.header, of: [kept.id].into(), is_made: false };
                self.found.entry(kept.id).or_insert(itself);
            }
        }
        self.follow(&manifest);
        let owners = manifest.owners.iter().map(|owner| (OwnerSecret::from_bytes(*owner.as_bytes()).name(), *owner));
        self.owners.extend(owners);
        self.chain.apply(manifest, bytes);
        Ok(())
    }

    /// Columns are written for each country by itself, so they have events of those from their country only.
    fn follow(&mut self, manifest: &Manifest) {
        let Some(heir) = manifest.added.first().filter(|it| it.from.is_some()) else { return };
        let (mut before, mut of) = (BTreeSet::new(), BTreeMap::<CountryCode, BTreeSet<BatchId>>::new());
        for kept in manifest.removed.iter().filter_map(|it| self.chain.segment(it)).flat_map(|it| &it.objects) {
            before.insert(kept.id);
            if let Some(descent) = self.found.get(&kept.id) {
                let still = descent.of.iter().filter(|name| manifest.left_out.binary_search(name).is_err());
                of.entry(kept.country).or_default().extend(still);
            }
        }
        for kept in heir.objects.iter().filter(|kept| !before.contains(&kept.id)) {
            if let Some(of) = of.get(&kept.country).filter(|of| !of.is_empty()) {
                let made = Descent { header: kept.header, of: of.clone(), is_made: true };
                self.found.insert(kept.id, made);
            }
        }
    }

    /// Everything that was found: what is looked for, as far as it was ever here, and what workers have made of it.
    pub fn found(&self) -> impl Iterator<Item = (&BatchId, &Descent)> {
        self.found.iter()
    }

    /// Those of [`found`](Self::found) that lie in a segment now.
    #[must_use]
    pub fn there(&self) -> BTreeSet<BatchId> {
        let all = self.chain.segments().flat_map(|segment| &segment.objects).map(|kept| kept.id);
        all.filter(|id| self.found.contains_key(id)).collect()
    }

    /// What the name of an object was made of that a worker had made, if others have taken its place.
    #[must_use]
    pub fn owner(&self, object: &BatchId) -> Option<&Digest> {
        self.owners.get(object)
    }
}
