//! What a custodian checks, all of it by itself, in this order: time, evidence, status, intent, request,
//! approvals, workers, objects. Pure: nothing waits, nothing is written, no key is touched.

use std::sync::Arc;
use std::time::Duration;

use attest::{
    AccessApproval, AccessIntent, AccessRequest, AccessStop, Bundle, Commitment, Envelope, OrganisationId, Predicate,
    RegionId, RegionStatus, Standing, Statement, StatementId, Subject, WorkerEnrolment, WorkerKey, Workers,
};
use policy::{ClassPolicy, Policy, Residency, Role, Signer};
use seal::{BatchId, Bound, Header, PublicKey, SealedShare};
use stdx::{Clock, Digest, UnixTime};
use verify::{Evidence, Recorded, TrustedPolicy};

use crate::objects::objects_root;
use crate::refusal::Refusal;
use crate::status::{Current, STATUS_AGE_MAX, StatusNumber, Word};

/// The witnesses must have seen the intent within this time: it was just made, or something is wrong.
pub const GRANT_AGE_MAX: Duration = Duration::from_secs(300);

/// Clocks of witnesses and custodians may differ by so much.
const CLOCKS_DIFFER_MAX: Duration = Duration::from_secs(60);

/// A worker's key lives for a day.
const WORKER_KEY_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Who decides.
#[derive(Clone, Copy)]
pub struct Custodian<'a> {
    /// Who this is in the policy.
    pub organisation: &'a OrganisationId,
    /// The region whose shares it holds.
    pub region: &'a RegionId,
    /// The policy in force.
    pub policy: &'a TrustedPolicy,
    /// Its own clock.
    pub clock: &'a dyn Clock,
    /// What it has seen before; its ledger remembers it.
    pub seen: Seen,
}

/// What a custodian has seen of the world: nothing may go behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The latest time, by its clock or in evidence.
    pub time: UnixTime,
    /// The newest status of the region.
    pub status: Option<StatusNumber>,
}

/// What a gateway brings.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// The intent, the request, its approvals, the region's status and the hosts' enrolments, each with its
    /// proof; nothing else.
    pub evidence: &'a Bundle,
    /// The hosts' statements about the workers' keys, in the intent's order.
    pub workers: &'a [Envelope],
    /// The headers of the objects, ascending by name.
    pub headers: &'a [Header],
}

/// What may be opened, once it is noted. Only [`decide`] makes one.
#[derive(Debug)]
pub struct Admitted {
    pub(crate) intent: StatementId,
    pub(crate) request: StatementId,
    pub(crate) standing: Option<Standing>,
    pub(crate) expires: UnixTime,
    /// The later of the clock and the evidence.
    pub(crate) now: UnixTime,
    /// The status by which it is not stopped.
    pub(crate) status: Word,
    pub(crate) organisation: OrganisationId,
    /// Each with the worker that it goes to.
    pub(crate) shares: Vec<(Bound, SealedShare, Arc<PublicKey>)>,
    fields: Vec<(&'static str, Commitment)>,
    headers: Vec<Digest>,
}

impl Admitted {
    /// The intent.
    #[must_use]
    pub const fn intent(&self) -> StatementId {
        self.intent
    }

    /// The objects whose shares are opened.
    pub fn objects(&self) -> impl Iterator<Item = BatchId> {
        self.shares.iter().map(|(bound, ..)| bound.id)
    }

    /// SHA-256 of each object's header, in the order of the intent's tree.
    #[must_use]
    pub fn headers(&self) -> &[Digest] {
        &self.headers
    }

    /// What the intent, its request and its approvals say in private: labels and commitments.
    #[must_use]
    pub fn fields(&self) -> &[(&'static str, Commitment)] {
        &self.fields
    }
}

/// Whether this custodian opens its shares for `ask`. `asked` is the status that it has asked for itself: a gateway
/// that keeps a newer one back gains nothing.
///
/// # Errors
/// [`Refusal`], the first that is found.
pub fn decide(custodian: &Custodian<'_>, asked: &Current, ask: &Ask<'_>) -> Result<Admitted, Refusal> {
    let (policy, clock, seen) = (custodian.policy, custodian.clock.now(), custodian.seen.time);
    // Time. A clock that was set back would make what is over begin again.
    if clock.after(CLOCKS_DIFFER_MAX) < seen {
        return Err(Refusal::Clock { clock, seen });
    }
    let residency = residency(custodian)?;
    let evidence = Evidence::open(policy, ask.evidence)?;
    if clock.after(CLOCKS_DIFFER_MAX) < evidence.latest() {
        return Err(Refusal::Clock { clock, seen: evidence.latest() });
    }
    let now = clock.max(seen).max(evidence.latest());
    let all = All::read(&evidence, residency)?;
    let brought = Current::of(all.status.clone(), custodian, residency)?;
    let status = if asked.number() > brought.number() { asked } else { &brought };
    if all.entries() != ask.evidence.entries().len() {
        return Err(verify::Refusal::Shape("holds entries that nobody asked for".to_owned()).into());
    }
    let workers = all.workers(ask.workers, custodian.region, now)?;
    all.check_status(custodian, status, now)?;
    let class = all.check_intent(custodian, residency, now)?;
    all.check_request(class, &workers, now)?;
    all.check_approvals(class)?;
    let shares =
        given_to(&all.intent.statement().predicate.workers, &workers, all.check_objects(custodian, ask.headers)?);
    let (intent, request) = (&all.intent.statement().predicate, &all.request.statement().predicate);
    Ok(Admitted {
        intent: all.intent.id(),
        request: all.request.id(),
        standing: request.standing,
        expires: intent.expires,
        now,
        status: status.word(),
        organisation: custodian.organisation.clone(),
        shares,
        fields: all.fields(),
        headers: ask.headers.iter().map(|header| Digest::of(&header.to_bytes())).collect(),
    })
}

pub(crate) fn residency<'a>(custodian: &Custodian<'a>) -> Result<&'a Residency, Refusal> {
    let not = || Refusal::NotCustodian(custodian.organisation.clone(), custodian.region.clone());
    let residency = custodian.policy.policy().residency.as_ref().ok_or_else(not)?;
    let region = residency.region(custodian.region).ok_or_else(not)?;
    let is_one = region.custodians.iter().any(|it| it.organisation == *custodian.organisation);
    is_one.then_some(residency).ok_or_else(not)
}

/// Everything that was brought, each signed by whom it must be, in the log that it must be in.
struct All {
    intent: Recorded<AccessIntent>,
    request: Recorded<AccessRequest>,
    approvals: Vec<Recorded<AccessApproval>>,
    status: Recorded<RegionStatus>,
    enrolments: Vec<Recorded<WorkerEnrolment>>,
}

/// A worker's key, its host's enrolment, and the code that it has.
struct Worker {
    key: Arc<PublicKey>,
    enrolment: StatementId,
    subject: Vec<Subject>,
}

/// Each share with the key of the one worker in whose slice its object is.
fn given_to(
    intent: &Workers,
    workers: &[Worker],
    shares: Vec<(Bound, SealedShare)>,
) -> Vec<(Bound, SealedShare, Arc<PublicKey>)> {
    let count = shares.len();
    let places = workers.iter().enumerate();
    let keys = places.flat_map(|(place, it)| intent.slice(place, count).map(move |_| Arc::clone(&it.key)));
    shares.into_iter().zip(keys).map(|((bound, share), key)| (bound, share, key)).collect()
}

impl All {
    fn read(evidence: &Evidence<'_>, residency: &Residency) -> Result<Self, Refusal> {
        let all = Self {
            intent: evidence.one(Role::Gateway)?,
            request: evidence.one(Role::Reader)?,
            approvals: evidence.all(Role::Approver)?,
            status: evidence.one(Role::Status)?,
            enrolments: evidence.all(Role::Recorder)?,
        };
        in_log(&all.intent, residency)?;
        in_log(&all.request, residency)?;
        all.enrolments.iter().try_for_each(|enrolment| in_log(enrolment, residency))?;
        all.approvals.iter().try_for_each(|approval| in_log(approval, residency))?;
        by(&all.intent, &residency.gateway, Role::Gateway)?;
        all.enrolments.iter().try_for_each(|enrolment| by(enrolment, &residency.gateway, Role::Recorder))?;
        Ok(all)
    }

    fn entries(&self) -> usize {
        3 + self.enrolments.len() + self.approvals.len()
    }

    /// Not older than what was seen before, under this policy, of the last minutes, and without a stop.
    fn check_status(&self, custodian: &Custodian<'_>, current: &Current, now: UnixTime) -> Result<(), Refusal> {
        let (id, status) = (current.status.id(), &current.status.statement().predicate);
        let (policy, found, given) = (custodian.policy, current.number(), status.position.time);
        if let Some(seen) = custodian.seen.status.filter(|seen| *seen > found) {
            return Err(Refusal::Superseded { found, seen });
        }
        if status.policy != policy.id() {
            return Err(Refusal::unfit("status", id, "was given under another policy than the one in force"));
        }
        fresh("the status", given, now, policy.policy().ages.online().min(STATUS_AGE_MAX))?;
        between("the status", (UnixTime::EPOCH, status.expires), now)?;
        // One from the future would stay fresh for as long as its signer's clock is ahead.
        between("the status", (given, status.expires), now.after(CLOCKS_DIFFER_MAX))?;
        let (intent, request) = (&self.intent.statement().predicate, self.request.id());
        let stops = |stop: &&AccessStop| match stop {
            AccessStop::Region => true,
            AccessStop::Class(class) => *class == intent.class,
            AccessStop::Request(stopped) => *stopped == request,
            AccessStop::Worker(stopped) => self.enrolments.iter().any(|enrolment| enrolment.id() == *stopped),
        };
        status.stopped.iter().find(stops).map_or(Ok(()), |stop| Err(Refusal::Stopped(stop.clone())))
    }

    fn check_intent<'a>(
        &self,
        custodian: &Custodian<'_>,
        residency: &'a Residency,
        now: UnixTime,
    ) -> Result<&'a ClassPolicy, Refusal> {
        let (id, intent) = (self.intent.id(), &self.intent.statement().predicate);
        let unfit = |why: &str| Refusal::unfit("intent", id, why);
        if intent.position.stream.as_str() != format!("access/{}", residency.gateway) {
            return Err(unfit("stands in another stream than the gateway's"));
        }
        if intent.policy != custodian.policy.id() {
            return Err(unfit("was made under another policy than the one in force"));
        }
        if intent.region != *custodian.region {
            return Err(unfit("is for another region"));
        }
        fresh("the intent", self.intent.time(), now, GRANT_AGE_MAX)?;
        between("the intent", (UnixTime::EPOCH, intent.expires), now)?;
        let class = residency.class(&intent.class).ok_or_else(|| unfit("is for a class that the policy lacks"))?;
        if intent.expires > self.intent.time().after(Duration::from_secs(class.lease_s)) {
            return Err(unfit("lasts for longer than the class allows"));
        }
        let max = attest::Budget { objects: class.objects_max, rows: class.rows_max, bytes: class.bytes_max };
        if intent.budget.is_within(&max) { Ok(class) } else { Err(Refusal::Budget("class")) }
    }

    fn check_request(&self, class: &ClassPolicy, workers: &[Worker], now: UnixTime) -> Result<(), Refusal> {
        let (id, request) = (self.request.id(), &self.request.statement().predicate);
        let intent = &self.intent.statement().predicate;
        let unfit = |why: &str| Refusal::unfit("request", id, why);
        if intent.request != id {
            return Err(unfit("is not the one that the intent names"));
        }
        if request.region != intent.region || request.class != intent.class {
            return Err(unfit("is for another region or class than the intent"));
        }
        if !class.allows(&request.purpose) {
            return Err(unfit("has a purpose for which the class is not read"));
        }
        if let Some(country) = intent.countries.iter().find(|country| !request.countries.contains(country)) {
            return Err(Refusal::Country(*country));
        }
        if !intent.budget.is_within(&request.budget) {
            return Err(Refusal::Budget("request"));
        }
        between("the request", (UnixTime::EPOCH, request.until), now)?;
        if intent.expires > request.until {
            return Err(unfit("ends before the intent"));
        }
        if let Some(standing) = &request.standing
            && !workers.iter().flat_map(|worker| &worker.subject).all(|code| code.sha256() == standing.code)
        {
            return Err(unfit("stands for other code than the worker has"));
        }
        Ok(())
    }

    /// N of M, as the class needs them, of this very request.
    fn check_approvals(&self, class: &ClassPolicy) -> Result<(), Refusal> {
        let (request, subject) = (self.request.id(), &self.request.statement().subject);
        for approval in &self.approvals {
            if approval.statement().predicate.request != request || approval.statement().subject != *subject {
                return Err(Refusal::unfit("approval", approval.id(), "is of another request"));
            }
        }
        let signers = self.approvals.iter().flat_map(|approval| approval.signers().iter().cloned()).collect();
        Policy::decide(Role::Approver, &class.approvals, &signers)
            .map_err(|missing| Refusal::NotApproved { request, missing })
    }

    /// Every worker that the intent names, in its order, and no enrolment but theirs.
    fn workers(&self, brought: &[Envelope], region: &RegionId, now: UnixTime) -> Result<Vec<Worker>, Refusal> {
        let named = self.intent.statement().predicate.workers.keys();
        if brought.len() != named.len() {
            let why = format!("{} keys came, and the intent names {}", brought.len(), named.len());
            return Err(Refusal::Worker(why));
        }
        let workers = brought.iter().zip(named).map(|(envelope, key)| self.worker(envelope, *key, region, now));
        let workers: Vec<Worker> = workers.collect::<Result<_, _>>()?;
        let idle = |it: &&Recorded<WorkerEnrolment>| workers.iter().all(|worker| worker.enrolment != it.id());
        match self.enrolments.iter().find(idle) {
            Some(_) => Err(verify::Refusal::Shape("holds an enrolment that no worker needs".to_owned()).into()),
            None => Ok(workers),
        }
    }

    /// A worker's key, as a host in this region has certified it today, and as the intent names it.
    fn worker(&self, envelope: &Envelope, key: Digest, region: &RegionId, now: UnixTime) -> Result<Worker, Refusal> {
        let refuse = |why: &str| Refusal::Worker(why.to_owned());
        let statement =
            Statement::<WorkerKey>::decode(envelope.payload()).map_err(|error| refuse(&error.to_string()))?;
        let says = &statement.predicate;
        let not_certified = || refuse("its key is not certified by the enrolled host");
        let enrolled = self.enrolments.iter().find(|it| it.id() == says.enrolment).ok_or_else(not_certified)?;
        let (enrolment, code) = (&enrolled.statement().predicate, &enrolled.statement().subject);
        if !envelope.signed_by(&enrolment.key).map_err(|error| refuse(&error.to_string()))? {
            return Err(not_certified());
        }
        if says.region != *region || enrolment.region != *region {
            return Err(refuse("it is not in this region"));
        }
        // What a subject is called means nothing: its digest does (in-toto Statement v1).
        let digests = |subject: &[Subject]| subject.iter().map(Subject::sha256).collect::<Vec<_>>();
        if digests(&statement.subject) != digests(code) {
            return Err(refuse("it has other code than the host was enrolled with"));
        }
        if says.until > says.from.after(WORKER_KEY_MAX) {
            return Err(refuse("its key would live for longer than a day"));
        }
        between("the worker's key", (says.from, says.until), now)?;
        between("the host's enrolment", (UnixTime::EPOCH, enrolment.until), now)?;
        let found: PublicKey = says.key.parse().map_err(|error: seal::KeyError| refuse(&error.to_string()))?;
        if found.id() != key {
            return Err(refuse("its key is not the one that the intent names"));
        }
        Ok(Worker { key: Arc::new(found), enrolment: enrolled.id(), subject: statement.subject })
    }

    /// Who reads, what for, and what approvers said of it, as far as the statements commit to it.
    fn fields(&self) -> Vec<(&'static str, Commitment)> {
        let (intent, request) = (&self.intent.statement().predicate, &self.request.statement().predicate);
        let mut fields = vec![("reader", request.reader), ("ticket", request.ticket)];
        fields.extend(intent.reader.map(|it| ("reader", it)));
        fields.extend(intent.parameters.map(|it| ("parameters", it)));
        fields.extend(self.approvals.iter().map(|it| ("comment", it.statement().predicate.comment)));
        fields
    }

    /// This custodian's shares of the very objects that the intent names.
    fn check_objects(
        &self,
        custodian: &Custodian<'_>,
        headers: &[Header],
    ) -> Result<Vec<(Bound, SealedShare)>, Refusal> {
        let intent = &self.intent.statement().predicate;
        let root = objects_root(headers)?;
        let [subject] = &self.intent.statement().subject[..] else {
            return Err(Refusal::unfit("intent", self.intent.id(), "has another subject than its objects"));
        };
        if root != subject.sha256() {
            return Err(Refusal::Objects("they are not those that the intent names".to_owned()));
        }
        if headers.len() as u64 != intent.budget.objects {
            return Err(Refusal::Budget("intent"));
        }
        let mut shares = Vec::with_capacity(headers.len());
        for header in headers {
            let bound = &header.bound;
            let refuse = |why: &str| Refusal::Object(bound.id, why.to_owned());
            if bound.region != *custodian.region {
                return Err(refuse("it belongs to another region"));
            }
            if bound.class != intent.class {
                return Err(refuse("it is of another class"));
            }
            if !intent.countries.contains(&bound.country) {
                return Err(refuse("it is from a country that the intent does not name"));
            }
            if !custodian.policy.descends_from(&bound.policy) {
                return Err(refuse("it was sealed under a policy that did not lead to the one in force"));
            }
            let mut ours = header.shares.iter().filter(|share| share.custodian == *custodian.organisation);
            let share = ours.next().ok_or_else(|| refuse("it has no share of this custodian's"))?;
            shares.push((bound.clone(), share.clone()));
        }
        Ok(shares)
    }
}

pub(crate) fn in_log<P: Predicate>(recorded: &Recorded<P>, residency: &Residency) -> Result<(), Refusal> {
    if *recorded.checkpoint().origin() == residency.log {
        return Ok(());
    }
    let (id, expected) = (recorded.id(), residency.log.to_string());
    Err(verify::Refusal::WrongLog { id, expected, found: recorded.checkpoint().origin().clone() }.into())
}

/// Signed by `organisation`, with a key of this role: that somebody else's key of the role has signed is not
/// enough.
pub(crate) fn by<P: Predicate>(
    recorded: &Recorded<P>,
    organisation: &OrganisationId,
    role: Role,
) -> Result<(), Refusal> {
    if recorded.signers().iter().any(|signer: &Signer| signer.organisation == *organisation) {
        return Ok(());
    }
    Err(verify::Refusal::NotSigned { id: recorded.id(), role }.into())
}

fn fresh(what: &'static str, time: UnixTime, now: UnixTime, age_max: Duration) -> Result<(), Refusal> {
    let age = now.since(time);
    if age <= age_max { Ok(()) } else { Err(Refusal::Stale { what, age, age_max }) }
}

fn between(what: &'static str, (from, until): (UnixTime, UnixTime), now: UnixTime) -> Result<(), Refusal> {
    if from <= now && now < until { Ok(()) } else { Err(Refusal::OutOfTime { what, from, until, now }) }
}
