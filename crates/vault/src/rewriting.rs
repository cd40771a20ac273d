//! What a worker has written anew, and the evidence with which it takes the place of what was there: nobody here can
//! read either.

use std::collections::{BTreeMap, BTreeSet};

use api::Rewrite;
use attest::{
    AccessIntent, AccessRequest, Bundle, Envelope, OrganisationId, Predicate, Rewriting, Statement, Subject,
    WorkerEnrolment, objects_root,
};
use bytes::Bytes;
use policy::{Residency, Role};
use seal::{BatchId, Header, OwnerSecret};
use stdx::{Digest, UnixTime};
use verify::{Evidence, Recorded, TrustedPolicy};

use crate::admission::{Admission, Refused};
use crate::chain::{Chain, Kept, Segment, Unread};
use crate::segment::{Building, SegmentError, objects_of};

/// What comes with a segment that was written anew.
#[derive(Clone, Copy)]
pub struct Offer<'a> {
    /// The policy in force.
    pub policy: &'a TrustedPolicy,
    /// The time.
    pub now: UnixTime,
    /// The host's signed `rewriting`.
    pub statement: &'a Envelope,
    /// The bundle that the custodians got: intent, request and enrolment, as they were logged.
    pub evidence: &'a Bundle,
}

/// The word of an enrolled host on what it has written anew, for an intent that was logged, under a request that stands
/// for its code. Only [`Offer::check`] makes one.
#[derive(Debug)]
pub struct Vouched {
    statement: Statement<Rewriting>,
    code: Digest,
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
    /// Of which erased objects nothing is in it: all that were in what it replaces.
    pub(crate) left_out: Vec<BatchId>,
    /// What the names of the columns that it replaces were made of.
    pub(crate) owners: Vec<Digest>,
}

impl Vouched {
    /// What the host says.
    #[must_use]
    pub const fn says(&self) -> &Rewriting {
        &self.statement.predicate
    }
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
    /// Whether what a worker has brought is made of segments that are there, of all of what they hold, and sealed as
    /// anything that is taken in.
    ///
    /// # Errors
    /// [`RewritingError`], the first that is found.
    pub fn check(&self, vouched: &Vouched, admission: &Admission, made: &Bytes) -> Result<Replacement, RewritingError> {
        let Statement { predicate: says, subject } = &vouched.statement;
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
        if named != [objects_root(read.values().map(|kept| kept.header)), Digest::of(made)] {
            return Err(RewritingError::Unfit("is about other objects, or another segment"));
        }
        if says.left_out != self.to_leave_out(&says.replaced) {
            return Err(RewritingError::Unfit("leaves out what nobody has erased, or not all that is"));
        }
        let columns = segments.iter().flat_map(|it| it.objects.iter().filter(|kept| !it.has_lines(&kept.id)));
        let columns: BTreeSet<BatchId> = columns.map(|kept| kept.id).collect();
        let named = says.owners.iter().map(|owner| OwnerSecret::from_bytes(*owner.as_bytes()).name());
        let is_list = says.owners.is_sorted_by(|left, right| left < right);
        if !is_list || named.collect::<BTreeSet<_>>() != columns {
            return Err(RewritingError::Unfit("does not say what the names of the columns were made of"));
        }
        let (objects, unread) = self.objects_in((admission, made), says, &read)?;
        let first = segments.iter().map(|it| it.from.unwrap_or(it.until)).min();
        let last = segments.iter().map(|it| it.until).max();
        let (mut segment, bytes) = objects.finish(says.class.clone(), last.unwrap_or(UnixTime::EPOCH));
        if bytes != *made {
            return Err(RewritingError::Unfit("is about a segment of another form"));
        }
        segment.from = first;
        segment.unread = (!unread.is_empty()).then_some(Unread { code: vouched.code, objects: unread });
        let Rewriting { replaced, left_out, owners, .. } = says.clone();
        Ok(Replacement { segment, bytes, replaced, left_out, owners })
    }

    /// What must not be in what takes the place of these.
    pub(crate) fn to_leave_out(&self, replaced: &[Digest]) -> Vec<BatchId> {
        let erased = replaced.iter().flat_map(|it| self.erased_in(it)).map(|(name, _)| name);
        erased.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The objects of the segment that was made: new ones, which an intake would take, and those that stay as they are.
    fn objects_in(
        &self,
        (admission, made): (&Admission, &Bytes),
        says: &Rewriting,
        read: &BTreeMap<BatchId, &Kept>,
    ) -> Result<(Building, Vec<BatchId>), RewritingError> {
        let mut left: BTreeSet<Digest> = says.unread.iter().copied().collect();
        let (mut building, mut unread, mut seen) = (Building::new(), Vec::new(), BTreeSet::new());
        for object in objects_of(made)? {
            let (id, region) = admission.admit(&object)?;
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

impl Offer<'_> {
    /// Whether an enrolled host says so, of the objects of an intent that stands in the log, under a request that stands
    /// for its code and gives out nothing.
    ///
    /// # Errors
    /// [`RewritingError`], the first that is found.
    pub fn check(&self) -> Result<Vouched, RewritingError> {
        let unfit = RewritingError::Unfit;
        let residency = self.policy.policy().residency.as_ref();
        let residency = residency.ok_or(unfit("is under a policy that says nothing of data"))?;
        let evidence = Evidence::open(self.policy, self.evidence)?;
        let enrolment: Recorded<WorkerEnrolment> = evidence.one(Role::Recorder)?;
        let intent: Recorded<AccessIntent> = evidence.one(Role::Gateway)?;
        let request: Recorded<AccessRequest> = evidence.one(Role::Reader)?;
        recorded(&enrolment, Role::Recorder, residency, Some(&residency.gateway))?;
        recorded(&intent, Role::Gateway, residency, Some(&residency.gateway))?;
        recorded(&request, Role::Reader, residency, None)?;
        let form = |error: &dyn std::fmt::Display| RewritingError::Form(error.to_string());
        let statement = Statement::<Rewriting>::decode(self.statement.payload()).map_err(|error| form(&error))?;
        let (says, host) = (&statement.predicate, &enrolment.statement().predicate);
        let signed = self.statement.signed_by(&host.key).map_err(|error| form(&error))?;
        if !signed || says.enrolment != enrolment.id() {
            return Err(unfit("is not the enrolled host's"));
        }
        if host.region != says.region || self.now >= host.until {
            return Err(unfit("is by a host of another region, or one whose enrolment is over"));
        }
        let (by, asked) = (&intent.statement().predicate, &request.statement().predicate);
        let of = |statement: &[Subject]| statement.iter().map(Subject::sha256).collect::<Vec<_>>();
        let objects = of(&statement.subject).into_iter().take(1).collect::<Vec<_>>();
        if says.intent != intent.id() || of(&intent.statement().subject) != objects {
            return Err(unfit("is for another intent than the one in the log"));
        }
        if (&by.region, &by.class) != (&says.region, &says.class) || by.request != request.id() {
            return Err(unfit("is for another region, class or request than the intent"));
        }
        let query = Digest::of(Rewrite::Compact.query().as_bytes());
        if of(&request.statement().subject) != [query] || by.budget.rows > 0 || by.budget.bytes > 0 {
            return Err(unfit("is for a request that is not about writing anew"));
        }
        let code = asked.standing.map(|standing| standing.code);
        let code = code.filter(|code| of(&enrolment.statement().subject) == [*code]);
        let code = code.ok_or(unfit("is by other code than was approved"))?;
        Ok(Vouched { statement, code })
    }
}

/// In the log of all access, and by this organisation.
pub(crate) fn recorded<P: Predicate>(
    recorded: &Recorded<P>,
    role: Role,
    residency: &Residency,
    by: Option<&OrganisationId>,
) -> Result<(), verify::Refusal> {
    if *recorded.checkpoint().origin() != residency.log {
        let (id, expected) = (recorded.id(), residency.log.to_string());
        let found = recorded.checkpoint().origin().clone();
        return Err(verify::Refusal::WrongLog { id, expected, found });
    }
    let signed = by.is_none_or(|by| recorded.signers().iter().any(|signer| signer.organisation == *by));
    if signed { Ok(()) } else { Err(verify::Refusal::NotSigned { id: recorded.id(), role }) }
}
