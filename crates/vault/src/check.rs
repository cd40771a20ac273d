//! Reading everything: is it as it was written? And a copy of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use attest::RegionId;
use seal::Header;
use stdx::Digest;
use storage::{Folder, Listing, ObjectStore};

use crate::chain::{Chain, Segment};
use crate::manifest::{ManifestError, Manifests, evidence_key, manifest_key, segment_key};
use crate::wal::{self, WalError};

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What.
    pub object: String,
    /// How.
    pub problem: String,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Files, manifests and segments that were read.
    pub objects: u64,
    /// What is wrong with them.
    pub damages: Vec<Damage>,
}

impl Checked {
    fn damage(&mut self, object: impl ToString, problem: impl ToString) {
        self.damages.push(Damage { object: object.to_string(), problem: problem.to_string() });
    }
}

/// Reads all manifests and the segments that they name; an intake may run meanwhile.
///
/// # Errors
/// When the store fails; damage is no error here.
pub async fn check(objects: &Arc<dyn ObjectStore>) -> Result<Checked, storage::Error> {
    let mut checked = Checked::default();
    for region in regions(objects, &mut checked).await? {
        let mut manifests = match Manifests::open(Arc::clone(objects), region).await {
            Ok(manifests) => manifests,
            Err(ManifestError::Store(error)) => return Err(error),
            Err(error) => {
                checked.damage("a manifest", error);
                continue;
            }
        };
        checked.objects += manifests.chain().next() - 1;
        let segments: Vec<Segment> = manifests.chain().segments().cloned().collect();
        for segment in segments {
            checked.objects += 1;
            let Ok(key) = segment_key(manifests.chain().region(), &segment.class, &segment.segment) else { continue };
            let problem = match objects.get(&key).await? {
                Some(bytes) => wrong_with(&segment, &bytes),
                None => {
                    // Its time may just have been over.
                    let gone =
                        manifests.refresh().await.is_ok() && manifests.chain().segment(&segment.segment).is_none();
                    (!gone).then(|| "is missing".to_owned())
                }
            };
            if let Some(problem) = problem {
                checked.damage(key, problem);
            }
        }
        for evidence in manifests.chain().evidence() {
            checked.objects += 1;
            let Ok(key) = evidence_key(manifests.chain().region(), &evidence) else { continue };
            if objects.get(&key).await?.is_none_or(|bytes| Digest::of(&bytes) != evidence) {
                checked.damage(key, "is missing, or not what a manifest names");
            }
        }
    }
    Ok(checked)
}

/// Reads the files of a write-ahead log in `folder`; an intake may run meanwhile.
///
/// # Errors
/// When they can't be read.
pub fn check_wal(folder: &Path) -> Result<Checked, WalError> {
    let mut checked = Checked::default();
    for file in wal::files(folder)? {
        checked.objects += 1;
        match file.objects() {
            Ok(_) => {}
            // Its objects lie in segments by now.
            Err(WalError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(WalError::Damaged { path, at }) => checked.damage(path.display(), format!("is damaged at byte {at}")),
            Err(error) => return Err(error),
        }
    }
    Ok(checked)
}

/// Copies all regions into an empty store, each as of its newest manifest. What lies in no segment yet is not
/// copied.
///
/// # Errors
/// [`ManifestError`].
pub async fn copy(from: &Arc<dyn ObjectStore>, to: &dyn ObjectStore) -> Result<(), ManifestError> {
    for region in regions(from, &mut Checked::default()).await? {
        copy_region(from, to, region).await?;
    }
    Ok(())
}

async fn copy_region(from: &Arc<dyn ObjectStore>, to: &dyn ObjectStore, region: RegionId) -> Result<(), ManifestError> {
    let mut manifests = Manifests::open(Arc::clone(from), region.clone()).await?;
    let mut copied = BTreeSet::new();
    loop {
        let named = |chain: &Chain| -> BTreeMap<Digest, Segment> {
            chain.segments().map(|segment| (segment.segment, segment.clone())).collect()
        };
        let mut missing = None;
        for (digest, segment) in named(manifests.chain()) {
            if copied.contains(&digest) {
                continue;
            }
            let key = manifests.segment_key(&segment.class, &digest)?;
            match from.get(&key).await? {
                Some(bytes) => drop(to.put(&key, bytes).await?),
                None => missing = Some(digest),
            }
            copied.insert(digest);
        }
        let Some(missing) = missing else { break };
        // One whose time was over meanwhile: then a later manifest says so.
        manifests.refresh().await?;
        if manifests.chain().segment(&missing).is_some() {
            return Err(ManifestError::NoSegment(region, missing));
        }
    }
    for evidence in manifests.chain().evidence() {
        let key = evidence_key(&region, &evidence).map_err(|error| manifests.bad(&error))?;
        if let Some(bytes) = from.get(&key).await? {
            to.put(&key, bytes).await?;
        }
    }
    for number in 1..manifests.chain().next() {
        let key = manifest_key(&region, number).map_err(|error| manifests.bad(&error))?;
        if let Some(bytes) = from.get(&key).await? {
            to.put(&key, bytes).await?;
        }
    }
    Ok(())
}

/// Every region of which there is anything.
async fn regions(objects: &Arc<dyn ObjectStore>, checked: &mut Checked) -> Result<BTreeSet<RegionId>, storage::Error> {
    let (mut regions, mut listing) = (BTreeSet::new(), Listing::of(Folder::Root));
    loop {
        let page = objects.list(&listing).await?;
        for key in &page {
            let mut parts = key.as_str().split('/');
            let (kind, region) = (parts.next(), parts.next().and_then(|region| region.parse().ok()));
            match (kind, region) {
                (Some("manifest" | "segment" | "erasure"), Some(region)) => drop(regions.insert(region)),
                _ => checked.damage(key, "is neither a manifest nor a segment, nor shows an erasure"),
            }
        }
        match page.into_iter().next_back() {
            Some(last) => listing = listing.after(last),
            None => return Ok(regions),
        }
    }
}

fn wrong_with(segment: &Segment, bytes: &[u8]) -> Option<String> {
    if Digest::of(bytes) != segment.segment || bytes.len() as u64 != segment.bytes {
        return Some("has another digest than its name says".to_owned());
    }
    let lies = |kept: &crate::chain::Kept| {
        let (start, length) = (usize::try_from(kept.at).ok()?, usize::try_from(kept.bytes).ok()?);
        let object = bytes.get(start..start.checked_add(length)?)?;
        let (header, frames) = Header::parse(object).ok()?;
        let header_bytes = object.get(4..frames)?;
        let same = header.bound.id == kept.id
            && header.bound.country == kept.country
            && header.bound.class == segment.class
            && Digest::of(object) == kept.object
            && Digest::of(header_bytes) == kept.header;
        same.then_some(())
    };
    let wrong = segment.objects.iter().find(|kept| lies(kept).is_none())?;
    Some(format!("does not have object {} where its manifest says", wrong.id))
}
