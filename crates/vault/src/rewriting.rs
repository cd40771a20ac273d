//! What a worker has written anew, and the evidence with which it takes the place of what was there: nobody here can
//! read either.

use std::collections::{BTreeMap, BTreeSet};

use attest::{Bundle, Envelope, Rewriting, Statement, StatementId, Subject, WorkerEnrolment, objects_root};
use bytes::Bytes;
use policy::Role;
use seal::{BatchId, Header};
use stdx::{Digest, UnixTime};
use verify::{Evidence, Recorded, TrustedPolicy};

use crate::admission::{Admission, Refused};
use crate::chain::{Chain, Kept, Segment, Unread};
use crate::segment::{Building, SegmentError, objects_of};

/// What a worker has brought.
#[derive(Clone, Copy)]
pub struct Offer<'a> {
    /// The policy in force.
    pub policy: &'a TrustedPolicy,
    /// What is taken here.
    pub admission: &'a Admission,
    /// SHA-256 of the code that was approved for this.
    pub code: Digest,
    /// The time.
    pub now: UnixTime,
    /// The host's signed `rewriting`.
    pub statement: &'a Envelope,
    /// A bundle with the host's enrolment, as it was logged.
    pub enrolment: &'a Bundle,
    /// The segment that was made.
    pub segment: &'a Bytes,
}

/// Why what a worker has brought takes nobody's place.
#[derive(Debug, thiserror::Error)]
pub enum RewritingError {
    /// The host's enrolment is not in the log, or not signed by whom it must be.
    #[error(transparent)]
    Evidence(#[from] verify::Refusal),
    /// The statement can't be read.
    #[error("the worker's statement can't be read: {0}")]
    Form(String),
    /// The statement does not say what it must.
    #[error("the worker's statement {0}")]
    Unfit(&'static str),
    /// It names a segment that is not there (any more).
    #[error("segment {0}, which was written anew, is not there any more")]
    Gone(Digest),
    /// The segment is not whole.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// An object that nobody here may keep.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// An object that has no place in the segment.
    #[error("object {0} {1}")]
    Object(BatchId, &'static str),
}

/// A segment that may take the place of others. Only [`Chain::check`] makes one.
#[derive(Debug)]
pub struct Replacement {
    pub(crate) segment: Segment,
    pub(crate) bytes: Bytes,
    pub(crate) replaced: Vec<Digest>,
}

impl Replacement {
    /// The segment.
    #[must_use]
    pub const fn segment(&self) -> &Segment {
        &self.segment
    }

    /// The segments in whose place it comes.
    #[must_use]
    pub fn replaced(&self) -> &[Digest] {
        &self.replaced
    }
}

impl Chain {
    /// Whether what a worker has brought is made of segments that are there, of all of what they hold, by the code that
    /// was approved for it, and sealed as anything that is taken in.
    ///
    /// # Errors
    /// [`RewritingError`], the first that is found.
    pub fn check(&self, offer: &Offer<'_>) -> Result<Replacement, RewritingError> {
        let says = said(offer)?;
        let Statement { predicate: says, subject } = &says;
        if says.region != *self.region() {
            return Err(RewritingError::Unfit("is about another region"));
        }
        let named: Vec<Digest> = subject.iter().map(Subject::sha256).collect();
        if !says.replaced.is_sorted_by(|left, right| left < right) || says.replaced.is_empty() {
            return Err(RewritingError::Unfit("names no segments, or one twice"));
        }
        let mut read: BTreeMap<BatchId, &Kept> = BTreeMap::new();
        let mut segments = Vec::new();
        for replaced in &says.replaced {
            let segment = self.segment(replaced).ok_or(RewritingError::Gone(*replaced))?;
            if segment.class != says.class {
                return Err(RewritingError::Unfit("is about another class than the segments that it names"));
            }
            read.extend(segment.objects.iter().map(|kept| (kept.id, kept)));
            segments.push(segment);
        }
        if named != [objects_root(read.values().map(|kept| kept.header)), Digest::of(offer.segment)] {
            return Err(RewritingError::Unfit("is about other objects, or another segment"));
        }
        let (objects, unread) = self.objects_in(offer, says, &read)?;
        let first = segments.iter().map(|it| it.from.unwrap_or(it.until)).min();
        let last = segments.iter().map(|it| it.until).max();
        let (mut segment, bytes) = objects.finish(says.class.clone(), last.unwrap_or(UnixTime::EPOCH));
        if bytes != *offer.segment {
            return Err(RewritingError::Unfit("is about a segment of another form"));
        }
        segment.from = first;
        segment.unread = (!unread.is_empty()).then_some(Unread { code: offer.code, objects: unread });
        Ok(Replacement { segment, bytes, replaced: says.replaced.clone() })
    }

    /// The objects of the segment that was made: new ones, which an intake would take, and those that stay as they are.
    fn objects_in(
        &self,
        offer: &Offer<'_>,
        says: &Rewriting,
        read: &BTreeMap<BatchId, &Kept>,
    ) -> Result<(Building, Vec<BatchId>), RewritingError> {
        let mut left: BTreeSet<Digest> = says.unread.iter().copied().collect();
        let (mut building, mut unread, mut seen) = (Building::new(), Vec::new(), BTreeSet::new());
        for object in objects_of(offer.segment)? {
            let (id, region) = offer.admission.admit(&object)?;
            let (header, start) = Header::parse(&object).map_err(Refused::Form)?;
            if region != says.region || header.bound.class != says.class {
                return Err(RewritingError::Object(id, "is of another region or class"));
            }
            if !seen.insert(id) {
                return Err(RewritingError::Object(id, "stands twice"));
            }
            match read.get(&id) {
                Some(kept) if Digest::of(&object) == kept.object && left.remove(&kept.header) => unread.push(id),
                None if self.object(&id).is_none() => {
                    if read.values().all(|kept| kept.country != header.bound.country) {
                        return Err(RewritingError::Object(id, "is from a country that was not read"));
                    }
                }
                _ => return Err(RewritingError::Object(id, "is there already")),
            }
            building.add(&header, start, &object);
        }
        if building.len() == unread.len() {
            // Every attempt has a name of its own: what was withdrawn can be deleted at any time.
            return Err(RewritingError::Unfit("is about a segment with nothing new in it"));
        }
        if left.is_empty() { Ok((building, unread)) } else { Err(RewritingError::Unfit("has lost what it can't read")) }
    }
}

/// What an enrolled host in this region says, with the code that was approved.
fn said(offer: &Offer<'_>) -> Result<Statement<Rewriting>, RewritingError> {
    let unfit = RewritingError::Unfit;
    let residency = offer.policy.policy().residency.as_ref();
    let residency = residency.ok_or(unfit("is under a policy that says nothing of data"))?;
    let evidence = Evidence::open(offer.policy, offer.enrolment)?;
    let enrolment: Recorded<WorkerEnrolment> = evidence.one(Role::Recorder)?;
    if *enrolment.checkpoint().origin() != residency.log {
        let (id, expected) = (enrolment.id(), residency.log.to_string());
        let found = enrolment.checkpoint().origin().clone();
        return Err(verify::Refusal::WrongLog { id, expected, found }.into());
    }
    if enrolment.signers().iter().all(|signer| signer.organisation != residency.gateway) {
        return Err(verify::Refusal::NotSigned { id: enrolment.id(), role: Role::Recorder }.into());
    }
    let statement = Statement::<Rewriting>::decode(offer.statement.payload());
    let statement = statement.map_err(|error| RewritingError::Form(error.to_string()))?;
    let host = &enrolment.statement().predicate;
    let signed = offer.statement.signed_by(&host.key).map_err(|error| RewritingError::Form(error.to_string()))?;
    let enrolled: StatementId = statement.predicate.enrolment;
    if !signed || enrolled != enrolment.id() {
        return Err(unfit("is not the enrolled host's"));
    }
    if host.region != statement.predicate.region || offer.now >= host.until {
        return Err(unfit("is by a host of another region, or one whose enrolment is over"));
    }
    if enrolment.statement().subject.iter().map(Subject::sha256).collect::<Vec<_>>() != [offer.code] {
        return Err(unfit("is by other code than was approved"));
    }
    Ok(statement)
}
