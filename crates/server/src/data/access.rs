//! One access: plan, announce, have shares opened, run, say what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::{
    DataQuery, ErrorBody, GrantAnswer, GrantRequest, Parameters, Plan, PlanRequest, ResultEnd, ResultFormat, Rewrite,
    result_end,
};
use attest::{
    AccessIntent, AccessOutcome, AccessRequest, AccessStop, Budget, Bundle, BundleEntry, Commitment, CountryCode,
    Ended, Envelope, Opening, OrganisationId, RegionId, RegionStatus, Statement, StatementId, Subject, Workers,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use custody::objects_root;
use policy::{ClassPolicy, Role};
use seal::Header;
use stdx::{Digest, UnixTime};
use tokio::sync::{mpsc, oneshot};

use super::call::Call;
use super::peers::Presented;
use super::request::{Known, check_openings};
use super::rules::{Act, Question};
use super::run::Runs;
use super::{DataError, Gateway};
use crate::line::bundle_text;
use crate::metrics::metrics;
use crate::stream::Begun;

/// Clocks of witnesses may be behind by so much; an intent that would then last for too long is refused.
const CLOCKS_DIFFER: u64 = 60;
/// What is written anew at once, sealed: four segments of 64 MiB, and what columns may take beyond lines.
pub(crate) const SEALED_BYTES_MAX: u64 = 512 << 20;
/// Frames of a result that wait for a slow reader: 8 MB.
const FRAMES_WAITING: usize = 8;

/// A result on its way: frames as `api::ResultReader` reads them.
#[derive(Debug)]
pub struct Reading {
    /// What came, frame by frame; it ends with a `ResultEnd`, or was cut off.
    pub frames: mpsc::Receiver<Bytes>,
}

/// What somebody may read, before anything is announced.
pub(super) struct Allowed {
    pub(super) known: Known,
    pub(super) query: String,
    pub(super) format: ResultFormat,
    /// For a template: who reads, and with which values.
    reader: Option<Opening>,
    pub(super) parameters: Option<Opening>,
}

/// What is about to be announced.
pub(super) struct Planned {
    pub(super) allowed: Allowed,
    pub(super) plan: Plan,
    headers: Vec<String>,
    openings: Vec<Opening>,
    objects: Digest,
    countries: Vec<CountryCode>,
    /// Who reads it, in the order of their slices; the first leads.
    pub(super) workers: Vec<Arc<Presented>>,
    pub(super) named: Workers,
    pub(super) budget: Budget,
    pub(super) expires: UnixTime,
}

/// What is announced.
pub(super) struct Announced {
    pub(super) planned: Planned,
    intent: BundleEntry,
    pub(super) evidence: String,
}

/// What came of it.
#[derive(Clone, Copy)]
pub(super) struct Came {
    pub(super) ended: Ended,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) result: Option<Digest>,
}

impl Came {
    pub(super) const fn none(ended: Ended) -> Self {
        Self { ended, rows: 0, bytes: 0, result: None }
    }
}

impl Gateway {
    /// Reads what the caller may read. What was announced gets its outcome, whether or not anybody waits for it.
    ///
    /// # Errors
    /// [`DataError`]; nothing was read then.
    pub async fn query(self: Arc<Self>, asked: DataQuery) -> Result<Reading, DataError> {
        let allowed = self.allowed(&asked).await?;
        let planned = match self.planned(allowed).await? {
            Some(planned) => planned,
            None => return nothing().await,
        };
        let (started, starts) = oneshot::channel();
        // Whoever asked may go away: what was announced must have its outcome all the same.
        tokio::spawn(async move { self.access(planned, started).await });
        starts.await.map_err(|error| DataError::broken(&error))?
    }

    /// Whether the caller may read this now: the call, the request, its approvals, the rules.
    async fn allowed(&self, asked: &DataQuery) -> Result<Allowed, DataError> {
        let now = self.domain.clock.now();
        let Call { who, statement } = self.calls.take(&self.domain.policy, &asked.call, &[Role::Reader], now)?;
        let call = statement.predicate;
        let known = self.known(call.request).await?;
        if statement.subject != known.request.statement().subject {
            return Err(DataError::Call("is about another query than its request".to_owned()));
        }
        let own = who == known.reader && call.reader == known.says().reader;
        if !own && known.says().standing.is_none() {
            return Err(DataError::Call("is by another than has asked; only what stands is a template".to_owned()));
        }
        let mut fields: Vec<(&str, Commitment)> = Vec::new();
        if !own {
            fields.push(("reader", call.reader));
        }
        fields.extend(call.parameters.map(|it| ("parameters", it)));
        check_openings(&asked.openings, &fields)?;
        let class = self.check_request(known.says())?;
        self.check_approvals(&known, class)?;
        let asked_by = &known.reader.organisation;
        let question = Question { act: Act::Query, who: &who, request: known.says(), asked_by, template: !own };
        let rules = self.rules.decide(&question)?;
        tracing::info!(data.request = %call.request, reader = who.key.as_str(), ?rules, "may be read");
        let opening = |label: &str| asked.openings.iter().find(|it| it.label() == label).cloned();
        let query = self.beside.query(&known.query()?).await?;
        if Rewrite::of(&query).is_some() != (asked.format == ResultFormat::Sealed) {
            return Err(DataError::refused("what is written anew, and nothing else, is given out sealed"));
        }
        let (reader, parameters) = (opening("reader"), opening("parameters"));
        Ok(Allowed { known, query, format: asked.format, reader, parameters })
    }

    /// What it takes; nothing if there is no such data.
    async fn planned(&self, allowed: Allowed) -> Result<Option<Planned>, DataError> {
        let says = allowed.known.says();
        let class = self.check_request(says)?;
        let mut workers = self.workers(says).await?;
        let Some(first) = workers.first() else {
            return Err(DataError::refused("the request stands for other code than the workers have"));
        };
        let request = PlanRequest {
            query: allowed.query.clone(),
            parameters: values(allowed.parameters.as_ref())?,
            class: says.class.clone(),
            countries: says.countries.clone(),
            objects: says.budget.objects,
        };
        let plan = self.peers.plan(first, &says.region, request).await?;
        if says.standing.is_some_and(|standing| plan.schema != standing.schema) {
            return Err(DataError::refused("the request stands for another schema than the query has now"));
        }
        if plan.is_for_one || plan.objects.len() < workers.len() {
            workers.truncate(1);
        }
        let keys = workers.iter().map(|worker| Digest::of(worker.public.as_bytes()));
        let named = Workers::new(keys.collect()).map_err(|error| DataError::broken(&error))?;
        if plan.objects.is_empty() {
            return Ok(None);
        }
        if plan.objects.len() as u64 > says.budget.objects {
            let (has, may) = (plan.objects.len(), says.budget.objects);
            return Err(DataError::TooMuch(format!("the query needs {has} objects, and {may} may be opened")));
        }
        let headers: Vec<String> = plan.objects.iter().map(|object| object.header.clone()).collect();
        let read = headers.iter().map(header).collect::<Result<Vec<_>, _>>()?;
        let objects = objects_root(&read).map_err(|error| DataError::Refused(error.to_string()))?;
        let countries: BTreeSet<CountryCode> = read.iter().map(|header| header.bound.country).collect();
        let budget = Budget { objects: read.len() as u64, ..says.budget };
        let expires = self.expiry(class).min(says.until);
        let countries = countries.into_iter().collect();
        let openings = self.openings_of(&allowed).await?;
        Ok(Some(Planned { allowed, plan, headers, openings, objects, countries, workers, named, budget, expires }))
    }

    /// Those of the region's workers that may read this.
    async fn workers(&self, says: &AccessRequest) -> Result<Vec<Arc<Presented>>, DataError> {
        let mut workers = self.peers.workers(&says.region).await?;
        if workers.len() > 1 {
            // Custodians refuse the whole of an intent that names one which is stopped.
            let status = self.status(&says.region).await?;
            let status = Statement::<RegionStatus>::decode(status.envelope.payload());
            let stopped = status.map_err(|error| DataError::broken(&error))?.predicate.stopped;
            workers.retain(|worker| !stopped.contains(&AccessStop::Worker(worker.enrolment.envelope.id())));
            if workers.is_empty() {
                return Err(DataError::refused("the region's workers are stopped"));
            }
        }
        // Plans go from worker to worker, so all have one program's: the request's, or the first one's.
        let code = says.standing.map(|standing| standing.code).or(workers.first().map(|first| first.code));
        workers.retain(|worker| Some(worker.code) == code);
        Ok(workers)
    }

    /// What the log's own server says of the region now.
    async fn status(&self, region: &RegionId) -> Result<Arc<BundleEntry>, DataError> {
        let log = self.domain.log_url(&self.residency()?.log).map_err(|error| DataError::broken(&error))?;
        self.peers.status(&log, region).await
    }

    /// What custodians get a copy of: all that the statements say in private and was not redacted.
    async fn openings_of(&self, allowed: &Allowed) -> Result<Vec<Opening>, DataError> {
        let says = allowed.known.says();
        let comments = allowed.known.approvals.iter().map(|(_, it)| it.statement().predicate.comment);
        let kept: Vec<_> = [says.reader, says.ticket].into_iter().chain(comments).collect();
        let mut openings = self.openings(&kept).await?;
        openings.extend(allowed.reader.iter().chain(&allowed.parameters).cloned());
        Ok(openings)
    }

    fn expiry(&self, class: &ClassPolicy) -> UnixTime {
        let slack = CLOCKS_DIFFER.min(class.lease_s / 2);
        self.domain.clock.now().after(Duration::from_secs(class.lease_s - slack))
    }

    /// From here on there is an outcome, whatever happens.
    async fn access(self: Arc<Self>, planned: Planned, started: oneshot::Sender<Result<Reading, DataError>>) {
        let known = &planned.allowed.known;
        let (region, request) = (known.says().region.clone(), known.request.id());
        let announced = match self.announce(planned).await {
            Ok(announced) => announced,
            Err(error) => return drop(started.send(Err(error))),
        };
        let id = announced.intent.envelope.id();
        let (recorded, grants) = tokio::join!(self.record_intent(request, &announced.intent), self.grants(&announced));
        if let Err(error) = recorded {
            // For people; the log has it.
            tracing::warn!(data.intent = %id, "the intent could not be noted with its request: {error}");
        }
        let grants = match grants {
            Ok(grants) => grants,
            Err(error) => {
                tracing::warn!(data.intent = %id, "not every custodian has opened its share: {error}");
                self.conclude(id, announced.planned.objects, &region, Came::none(Ended::Refused)).await;
                return drop(started.send(Err(error)));
            }
        };
        let (frames, receiver) = mpsc::channel(FRAMES_WAITING);
        let objects = announced.planned.objects;
        let reading = Runs { gateway: Arc::clone(&self), announced, grants, frames, started, receiver };
        let came = tokio::task::spawn_blocking(move || reading.run()).await;
        let (came, end) = came.unwrap_or((Came::none(Ended::Failed), None));
        let logged = self.conclude(id, objects, &region, came).await;
        // Who reads to a good end knows that the log has the outcome.
        if let Some((frames, mut end)) = end {
            if !logged && end.failed.is_none() {
                end.failed = Some(ErrorBody::incomplete("the log has not taken the outcome yet"));
            }
            let _ = frames.send(Bytes::from(result_end(&end))).await;
        }
    }

    async fn announce(&self, planned: Planned) -> Result<Announced, DataError> {
        let (allowed, known) = (&planned.allowed, &planned.allowed.known);
        let says = known.says();
        let status = self.status(&says.region).await?;
        let begun = Begun {
            region: says.region.clone(),
            objects: planned.objects,
            budget: planned.budget,
            expires: planned.expires,
            outcome: None,
        };
        let (policy, request) = (self.domain.policy.id(), known.request.id());
        let workers = planned.named.clone();
        let (region, class, countries) = (says.region.clone(), says.class.clone(), planned.countries.clone());
        let (budget, expires, objects) = (planned.budget, planned.expires, planned.objects);
        let (reader, parameters) = (&allowed.reader, &allowed.parameters);
        let (reader, parameters) =
            (reader.as_ref().map(Opening::commitment), parameters.as_ref().map(Opening::commitment));
        let openings: Vec<Opening> = allowed.reader.iter().chain(&allowed.parameters).cloned().collect();
        self.beside.keep(&openings).await?;
        self.beside.keep_objects(&planned.headers).await?;
        let (key, active, made) = (Arc::clone(&self.key), Arc::clone(&self.active), Arc::new(Mutex::new(Vec::new())));
        let signed = Arc::clone(&made);
        let make = move |position| {
            let (region, class, countries) = (region.clone(), class.clone(), countries.clone());
            let workers = workers.clone();
            let predicate = AccessIntent {
                position,
                policy,
                request,
                region,
                class,
                countries,
                workers,
                budget,
                expires,
                reader,
                parameters,
            };
            let statement = Statement { subject: vec![Subject::new("objects", objects)], predicate };
            let intent = Envelope::sign(statement.encode()?, &[&*key])?;
            // Before it can be found on the list of what is open: this process is at it.
            lock(&active).insert(intent.id());
            lock(&signed).push(intent.id());
            Ok(intent)
        };
        let intent = self.stream.begin(begun, make).await;
        let is_it = |id: &StatementId| intent.as_ref().is_ok_and(|intent| intent.envelope.id() == *id);
        for other in lock(&made).drain(..).filter(|id| !is_it(id)) {
            // Signed for a place that went to another, or not known to be logged: whoever settles looks.
            self.active().remove(&other);
        }
        let intent = intent?;
        let approvals = known.approvals.iter().map(|(entry, _)| entry.clone());
        let entries = [intent.clone(), known.entry.clone()].into_iter().chain(approvals);
        let mut entries: Vec<BundleEntry> = entries.chain([BundleEntry::clone(&status)]).collect();
        for worker in &planned.workers {
            // Once for each host.
            if !entries.iter().any(|entry| entry.envelope.id() == worker.enrolment.envelope.id()) {
                entries.push(worker.enrolment.clone());
            }
        }
        let bundle = Bundle::new(entries).map_err(|error| DataError::broken(&error))?;
        let evidence = bundle_text(&bundle).map_err(|error| DataError::broken(&error))?;
        Ok(Announced { planned, intent, evidence })
    }

    /// Asks every custodian of the region, at once.
    async fn grants(&self, announced: &Announced) -> Result<BTreeMap<OrganisationId, GrantAnswer>, DataError> {
        let Planned { workers, headers, openings, allowed, .. } = &announced.planned;
        let keys = workers.iter().map(|worker| String::from_utf8(worker.key.to_bytes()));
        let workers = keys.collect::<Result<_, _>>().map_err(|error| DataError::broken(&error))?;
        let (evidence, headers, openings) = (announced.evidence.clone(), headers.clone(), openings.clone());
        let request = Arc::new(GrantRequest { evidence, workers, headers, openings });
        let asked = self.custodians(&allowed.known.says().region)?.into_iter().map(|custodian| {
            let request = Arc::clone(&request);
            async move { Ok((custodian.clone(), self.peers.grant(&custodian, request).await?)) }
        });
        // Each of them, whatever the others say: nobody opens anything any more when the outcome is written.
        futures::future::join_all(asked).await.into_iter().collect()
    }

    pub(super) fn custodians(&self, region: &RegionId) -> Result<Vec<OrganisationId>, DataError> {
        let region = self.residency()?.region(region);
        let region = region.ok_or_else(|| DataError::refused("the policy in force lacks the region"))?;
        Ok(region.custodians.iter().map(|it| it.organisation.clone()).collect())
    }

    /// Logs what came of it and brings it to the custodians; what can't be done now is done later. Says whether
    /// it is logged.
    async fn conclude(&self, intent: StatementId, objects: Digest, region: &RegionId, came: Came) -> bool {
        metrics().access(ended(came.ended));
        let logged = self.outcome(intent, objects, came).await;
        let is_logged = logged.is_ok();
        match logged {
            Ok(entry) => self.bring(intent, region, entry).await,
            Err(error) => tracing::error!(data.intent = %intent, "the outcome is not logged yet: {error}"),
        }
        self.active().remove(&intent);
        is_logged
    }

    /// Logs what came of it.
    pub(super) async fn outcome(
        &self,
        intent: StatementId,
        objects: Digest,
        came: Came,
    ) -> Result<BundleEntry, DataError> {
        let key = Arc::clone(&self.key);
        let Came { ended, rows, bytes, result } = came;
        let subject = result.map_or_else(|| Subject::new("objects", objects), |it| Subject::new("result", it));
        let make = move |position| {
            let predicate = AccessOutcome { position, intent, ended, rows, bytes };
            let statement = Statement { subject: vec![subject.clone()], predicate };
            Ok(Envelope::sign(statement.encode()?, &[&*key])?)
        };
        self.stream.end(intent, make).await
    }

    pub(super) fn active(&self) -> MutexGuard<'_, BTreeSet<StatementId>> {
        lock(&self.active)
    }
}

/// What a thread that panicked has left is a list of ids, and whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// There is no such data: nothing is announced, and nothing was read.
async fn nothing() -> Result<Reading, DataError> {
    let (sender, frames) = mpsc::channel(1);
    let _ = sender.send(Bytes::from(result_end(&ResultEnd::nothing()))).await;
    Ok(Reading { frames })
}

fn values(parameters: Option<&Opening>) -> Result<Parameters, DataError> {
    let Some(opening) = parameters else { return Ok(Parameters::new()) };
    let form = |error: &dyn std::fmt::Display| DataError::Form(format!("the parameters: {error}"));
    let values: Parameters = serde_json::from_str(opening.value()).map_err(|error| form(&error))?;
    let canonical = serde_json::to_string(&values).map_err(|error| form(&error))?;
    if canonical == opening.value() { Ok(values) } else { Err(form(&"are not in canonical form")) }
}

fn header(text: &String) -> Result<Header, DataError> {
    let odd = |error: &dyn std::fmt::Display| DataError::Broken(format!("the worker planned an odd object: {error}"));
    let bytes = STANDARD.decode(text).map_err(|error| odd(&error))?;
    Header::decode(&bytes).map_err(|error| odd(&error))
}

pub(super) const fn ended(ended: Ended) -> &'static str {
    match ended {
        Ended::Done => "done",
        Ended::Failed => "failed",
        Ended::Refused => "refused",
    }
}
