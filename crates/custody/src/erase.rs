//! What its owner wants gone: not opened any more, and not kept.

use std::collections::BTreeSet;

use attest::{BatchId, Bundle, ErasureRequest, StatementId, Subject};
use policy::Role;
use seal::OwnerSecret;
use stdx::{Digest, Entropy};
use verify::{Evidence, Recorded};

use crate::decide::{Custodian, by, in_log, residency};
use crate::ledger::{Erasing, Ledger};
use crate::refusal::Refusal;
use crate::retire::RetireError;
use crate::table::{Change, Table};

/// An entry has 65,535 bytes, of which base64 leaves 49,151; a name has 35.
pub const ERASED_MAX: usize = 1024;

/// A logged request, by whoever has shown that the objects are theirs. Only [`erasable`] makes one.
#[derive(Debug)]
pub struct Erasable {
    request: Recorded<ErasureRequest>,
}

/// The subject of a request, and of what answers it.
#[must_use]
pub fn erasure_subject(objects: &[BatchId]) -> Subject {
    let names: String = objects.iter().map(|object| format!("{object}\n")).collect();
    Subject::new("objects", Digest::of(names.as_bytes()))
}

/// What `bundle`, which has a logged request and nothing else, wants erased, if for every object there is what its
/// name was made of: that the gateway says so is not enough to destroy anything.
///
/// # Errors
/// [`Refusal`].
pub fn erasable(custodian: &Custodian<'_>, bundle: &Bundle, owners: &[OwnerSecret]) -> Result<Erasable, Refusal> {
    let residency = residency(custodian)?;
    let evidence = Evidence::open(custodian.policy, bundle)?;
    let request: Recorded<ErasureRequest> = evidence.one(Role::Recorder)?;
    if bundle.entries().len() != 1 {
        return Err(verify::Refusal::Shape("holds entries that nobody asked for".to_owned()).into());
    }
    in_log(&request, residency)?;
    by(&request, &residency.gateway, Role::Recorder)?;
    let (id, says) = (request.id(), &request.statement().predicate);
    let unfit = |why: &str| Refusal::unfit("erasure", id, why);
    if says.position.stream.as_str() != format!("access/{}", residency.gateway) {
        return Err(unfit("stands in another stream than the gateway's"));
    }
    if says.region != *custodian.region {
        return Err(unfit("is for another region"));
    }
    let is_list =
        (1..=ERASED_MAX).contains(&says.objects.len()) && says.objects.is_sorted_by(|left, right| left < right);
    if !is_list || request.statement().subject != [erasure_subject(&says.objects)] {
        return Err(unfit("names no objects, or too many, or not as it must"));
    }
    let owned: BTreeSet<BatchId> = owners.iter().map(OwnerSecret::name).collect();
    match says.objects.iter().find(|object| !owned.contains(object)) {
        Some(object) => Err(Refusal::Object(*object, "nobody has shown that it is theirs".to_owned())),
        None => Ok(Erasable { request }),
    }
}

impl Erasable {
    /// The request.
    #[must_use]
    pub const fn request(&self) -> StatementId {
        self.request.id()
    }

    /// The objects, ascending.
    #[must_use]
    pub fn objects(&self) -> &[BatchId] {
        &self.request.statement().predicate.objects
    }

    /// What the custodian's word must be about.
    #[must_use]
    pub fn subject(&self) -> Subject {
        erasure_subject(self.objects())
    }

    /// On record first; then another table without these objects, under another key, and the one before is destroyed.
    /// From then on they are refused, wherever their shares still are. Safe to repeat, with the same answer.
    ///
    /// # Errors
    /// [`RetireError`].
    pub async fn erase(
        &self,
        (ledger, table): (&Ledger, &Table),
        erasing: Erasing,
        entropy: &dyn Entropy,
    ) -> Result<Erasing, RetireError> {
        let noted = ledger.erasing(self, erasing).await?;
        if !table.has_erased(self.objects())? {
            table.change(Change { add: &[], erase: self.objects() }, entropy)?;
        }
        Ok(noted)
    }
}
