//! The worker: its host's key, its own keys for a day, and one answer for each intent.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::{Plan, PlanRequest, ResultFormat, Rewrite, RunRequest, RunWorker};
use attest::{Bundle, DataClass, Envelope, RegionId, Statement, StatementId, Subject, WorkerEnrolment, WorkerKey};
use policy::Role;
use seal::{BatchId, Destination, Header, Kem, PrivateKey};
use stdx::{Clock, Digest, Entropy, UnixTime};
use tlog::SignerKey;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};
use vault::{NotRenounced, Renounced};
use verify::Evidence;

use crate::admit::{Admitted, Ask, Reader, Refused, admit};
use crate::catalog::{Catalog, CatalogError, Located};
use crate::choose::Wish;
use crate::ciphertext::{Vault, VaultError};
use crate::engine::{EngineError, Memory, Query, Stop, Threads, runtime};
use crate::give::{Shared, give, keep};
use crate::grants::{GrantFault, Grants, OpenedAll, locate, sent_heads, vault_heads};
use crate::hold::{Held, Holding, Holds, LEADER, Scope};
use crate::output::{Output, TextMax};
use crate::policies::{Policies, PolicyError};
use crate::rewrite::{self, Rewrites};
use crate::scan::Slice;
use crate::store::SealedStore;
use crate::table::Table;

/// A key's life, and when the next one takes over: whoever was told of a key has half a day to use it.
const KEY_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
const KEY_TURN: Duration = Duration::from_secs(12 * 60 * 60);

/// Queries at once: each has its own memory.
pub(crate) const RUNS: usize = 2;

/// Intents of one day that are remembered: one a second.
const USED_MAX: usize = 86_400;

/// Another worker in the region takes a connection in this time, or is not there.
const CONNECT: Duration = Duration::from_secs(5);

/// Frames that wait for a slow reader.
const WAITING: usize = 8;

/// What a worker needs of its machine.
#[derive(Clone)]
pub struct Ports {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// For keys.
    pub entropy: Arc<dyn Entropy>,
    /// The ciphertext.
    pub vault: Arc<dyn Vault>,
}

/// Where a host is, and what tells that it was enrolled.
pub struct Host {
    /// Its key.
    pub key: SignerKey,
    /// A bundle with its enrolment, as it was logged.
    pub enrolment: Bundle,
    /// The region.
    pub region: RegionId,
    /// SHA-256 of its program.
    pub code: Digest,
}

/// Why a worker does not start, or does not answer.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// There is no policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The host was not enrolled as it is.
    #[error("the host's enrolment {0}")]
    Enrolment(String),
    /// No randomness.
    #[error(transparent)]
    Entropy(#[from] stdx::EntropyError),
    /// A request that can't be read.
    #[error("the request: {0}")]
    Request(String),
    /// The evidence does not allow it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The query can't be run.
    #[error(transparent)]
    Query(#[from] EngineError),
    /// The objects can't be opened.
    #[error(transparent)]
    Objects(#[from] GrantFault),
    /// The manifests are not to be had.
    #[error(transparent)]
    Manifests(#[from] CatalogError),
    /// More than one grant opens.
    #[error("the query needs {needed} objects, and one grant opens {max}")]
    TooMany {
        /// How many it needs.
        needed: usize,
        /// How many the class allows.
        max: u64,
    },
    /// What would come out is not what the request stands for.
    #[error("the query's result has the schema {found}, and the request stands for {expected}")]
    Schema {
        /// What would come out.
        found: Digest,
        /// What may.
        expected: Digest,
    },
    /// The vault wants something left out, and does not show that it may be.
    #[error("nothing shows that object {0} was erased")]
    NotErased(BatchId),
    /// What is to show that something was erased does not.
    #[error(transparent)]
    Erasure(#[from] NotRenounced),
    /// The vault failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// What was written anew can't be sealed.
    #[error(transparent)]
    Seal(#[from] seal::SealError),
    /// As many queries run as may.
    #[error("{RUNS} queries are running")]
    Busy,
    /// No part of a query is held here for whoever asks.
    #[error("nothing is held here for that")]
    NotHeld,
    /// No threads.
    #[error("no threads can be started: {0}")]
    Threads(std::io::Error),
    /// A thread died.
    #[error("a thread of the worker's died")]
    Died,
}

/// A key of the worker's, certified by its host.
#[derive(Clone)]
struct Certified {
    key: Arc<PrivateKey>,
    envelope: String,
    from: UnixTime,
}

/// A worker.
pub struct Worker {
    host: Arc<Host>,
    enrolment: StatementId,
    ports: Ports,
    catalog: Catalog,
    memory: Memory,
    policies: Mutex<Policies>,
    keys: Mutex<Vec<Certified>>,
    used: Mutex<HashMap<StatementId, UnixTime>>,
    runs: Arc<Semaphore>,
    holds: Arc<Holds>,
    client: reqwest::Client,
    threads: Threads,
}

/// Frames of a result stream; it ends early if nobody takes them.
pub type Frames = mpsc::Receiver<Vec<u8>>;

impl Worker {
    /// A worker on an enrolled host, under the policies in `folder`.
    ///
    /// # Errors
    /// [`WorkerError`], when the policy or the enrolment does not hold.
    pub fn new(
        host: Host,
        folder: &Path,
        genesis: &StatementId,
        memory: Memory,
        ports: Ports,
    ) -> Result<Self, WorkerError> {
        let mut policies = Policies::open(folder, genesis)?;
        let enrolment = enrolled(&host, policies.newest()?)?;
        // No limit for the whole: a query's rows come for as long as its intent lasts.
        let client = reqwest::Client::builder().connect_timeout(CONNECT).redirect(reqwest::redirect::Policy::none());
        let client = client.build().map_err(|error| WorkerError::Threads(std::io::Error::other(error)))?;
        Ok(Self {
            catalog: Catalog::new(Arc::clone(&ports.vault), host.region.clone()),
            host: Arc::new(host),
            enrolment,
            ports,
            memory,
            policies: Mutex::new(policies),
            keys: Mutex::default(),
            used: Mutex::default(),
            runs: Arc::new(Semaphore::new(RUNS)),
            holds: Arc::default(),
            client,
            threads: Threads::start().map_err(WorkerError::Threads)?,
        })
    }

    /// Who this is: the key that shares are to be sealed to.
    ///
    /// # Errors
    /// [`WorkerError::Entropy`].
    pub async fn certificate(&self) -> Result<api::Worker, WorkerError> {
        let now = self.ports.clock.now();
        let mut keys = self.keys.lock().await;
        keys.retain(|key| now.since(key.from) < KEY_LIFE);
        let current = keys.last().filter(|key| key.from <= now && now.since(key.from) < KEY_TURN).cloned();
        let current = match current {
            Some(current) => current,
            None => {
                let made = self.certify(now)?;
                keys.push(made.clone());
                made
            }
        };
        let enrolment = String::from_utf8_lossy(&self.host.enrolment.to_bytes()).into_owned();
        Ok(api::Worker { key: current.envelope, enrolment, code: self.host.code })
    }

    fn certify(&self, now: UnixTime) -> Result<Certified, WorkerError> {
        let key = PrivateKey::generate(Kem::XWing, &*self.ports.entropy)?;
        let certificate = WorkerKey {
            enrolment: self.enrolment,
            key: key.public().to_string(),
            region: self.host.region.clone(),
            from: now,
            until: now.after(KEY_LIFE),
        };
        let statement = Statement { subject: vec![Subject::new("code", self.host.code)], predicate: certificate };
        let refuse = |error: &dyn std::fmt::Display| WorkerError::Enrolment(error.to_string());
        let payload = statement.encode().map_err(|error| refuse(&error))?;
        let envelope = Envelope::sign(payload, &[&self.host.key]).map_err(|error| refuse(&error))?;
        let envelope = String::from_utf8_lossy(&envelope.to_bytes()).into_owned();
        Ok(Certified { key: Arc::new(key), envelope, from: now })
    }

    /// Reads which objects there are, so that the first query need not: after a start that is all of it.
    pub async fn catch_up(&self) {
        if let Err(error) = self.catalog.catch_up().await {
            tracing::warn!("the vault's manifests can't be read; each query tries again: {error}");
        }
    }

    /// What a query needs, and what comes out of it. Nothing is opened.
    ///
    /// # Errors
    /// [`WorkerError`].
    pub async fn plan(&self, request: PlanRequest) -> Result<Plan, WorkerError> {
        let table = table(request.class.as_str())?;
        let max = {
            let mut policies = self.policies.lock().await;
            let residency = policies.newest()?.policy().residency.as_ref();
            let class = residency.and_then(|residency| residency.class(&request.class));
            class
                .ok_or_else(|| WorkerError::Request(format!("the policy has no class `{}`", request.class)))?
                .objects_max
        };
        let max = max.min(request.objects);
        let mut planned = if Rewrite::of(&request.query).is_some() {
            let (class, countries, code) = (&request.class, &request.countries[..], self.host.code);
            let wish = Wish { class, countries, objects: max, bytes: rewrite::bytes_max(self.memory.0), code };
            rewrite::planned(table, self.catalog.to_rewrite(&wish).await?)
        } else {
            let objects = self.catalog.objects(&request.class, &request.countries).await?;
            let query = Query { text: request.query, parameters: request.parameters, table };
            let planning = self.threads.spawn(query.plan(objects, self.memory));
            planning.await.map_err(|_| WorkerError::Died)??
        };
        if planned.needed.len() as u64 > max {
            return Err(WorkerError::TooMany { needed: planned.needed.len(), max });
        }
        planned.needed.sort_by_key(|object| object.id);
        let heads = vault_heads(&**self.catalog.vault(), &planned.needed).await?;
        let objects = heads.iter().zip(&planned.needed).map(|(head, located)| head.planned(located));
        Ok(Plan {
            objects: objects.collect(),
            bytes: planned.needed.iter().map(|object| object.bytes).sum(),
            schema: planned.schema(),
            columns: planned.columns,
            is_for_one: planned.is_for_one,
        })
    }

    /// Runs a query over what custodians have opened, once. Frames of a result stream come back; the last one
    /// says how it ended.
    ///
    /// # Errors
    /// [`WorkerError`]; nothing was given out then.
    pub async fn run(&self, request: RunRequest) -> Result<Frames, WorkerError> {
        let permit = Arc::clone(&self.runs).try_acquire_owned().map_err(|_| WorkerError::Busy)?;
        let evidence = Bundle::parse(request.evidence.as_bytes());
        let evidence = evidence.map_err(|error| WorkerError::Request(error.to_string()))?;
        let heads = sent_heads(&request.objects)?;
        let headers: Vec<Header> = heads.iter().map(|head| head.header.clone()).collect();
        let is_rewriting = Rewrite::of(&request.query).is_some();
        if is_rewriting != (request.format == ResultFormat::Sealed) {
            return Err(WorkerError::Request("what is written anew, and nothing else, is given out sealed".to_owned()));
        }
        let (admitted, key) = self.admit(&evidence, &request, &headers).await?;
        let first = headers.first().ok_or_else(|| WorkerError::Request("it names no objects".to_owned()))?;
        let (class, table) = (first.bound.class.clone(), table(first.bound.class.as_str())?);
        let mut countries: Vec<_> = headers.iter().map(|header| header.bound.country).collect();
        countries.sort();
        countries.dedup();
        let mut objects = locate(heads, self.catalog.objects(&class, &countries).await?)?;
        // Its own slice of them, which is all where it is the only worker.
        let slice = admitted.workers.slice(admitted.place, objects.len());
        objects.truncate(slice.end);
        objects.drain(..slice.start);
        let (intent, given) = (admitted.intent, request.grants);
        let own = Arc::clone(&key);
        let opening = self.threads.spawn(async move { Grants { intent, key: &own, given: &given }.open(objects) });
        let OpenedAll { opened, located, closed } = opening.await.map_err(|_| WorkerError::Died)??;
        let store = Arc::new(SealedStore::new(Arc::clone(self.catalog.vault()), opened));
        if is_rewriting {
            let evidence = request.evidence;
            let objects = [located, closed].concat();
            return self.rewrite(&admitted, Open { table, class, objects, store, evidence }, permit).await;
        }
        let query = Query { text: request.query, parameters: admitted.parameters.clone(), table };
        let mut shared = Shared { permit, holding: None };
        let slice = Slice::new(table, located.clone(), store).with_unreadable(closed.len() as u64);
        let running = if admitted.workers.keys().len() == 1 {
            self.threads.spawn(query.read(slice, self.memory)).await
        } else {
            let holding = self.hold(&admitted, &request.workers, key, slice)?;
            let held = Arc::clone(&holding.held);
            shared.holding = Some(holding);
            if admitted.place != LEADER {
                return self.follow(&admitted, query, located, shared).await;
            }
            self.threads.spawn(query.lead(held)).await
        };
        let running = running.map_err(|_| WorkerError::Died)??;
        check_schema(admitted.schema, running.planned.schema())?;
        let text = TextMax(table.text_bytes_max);
        let output = Output::new(request.format, &running.rows.schema(), admitted.budget, text);
        let output = output.map_err(|error| WorkerError::Request(error.to_string()))?;
        let (sender, frames) = mpsc::channel(WAITING);
        let time = admitted.expires.since(admitted.now);
        tracing::info!(data.intent = %intent, data.workers = admitted.workers.keys().len(), "a query begins");
        self.threads.spawn(give(running, output, sender, time, shared));
        Ok(frames)
    }

    /// Keeps this worker's part of a query for the intent's other workers.
    fn hold(
        &self,
        admitted: &Admitted,
        brought: &[RunWorker],
        key: Arc<PrivateKey>,
        slice: Slice,
    ) -> Result<Holding, WorkerError> {
        let entropy = Arc::clone(&self.ports.entropy);
        let scope = Scope::new(admitted, brought, key, entropy, self.client.clone())?;
        let runtime = runtime(Some(Arc::clone(slice.store())), self.memory);
        let runtime = runtime.map_err(|error| EngineError::Stopped(Stop::of(&error)))?;
        Ok(self.holds.hold(Held::new(scope, slice, runtime, admitted.expires)))
    }

    /// Another worker leads. This one looks at the query like the leader, and then answers the others until whoever has
    /// brought the grant goes away, or the intent is over.
    async fn follow(
        &self,
        admitted: &Admitted,
        query: Query,
        located: Vec<Located>,
        shared: Shared,
    ) -> Result<Frames, WorkerError> {
        let planned = self.threads.spawn(query.plan(located, self.memory)).await.map_err(|_| WorkerError::Died)??;
        check_schema(admitted.schema, planned.schema())?;
        let (sender, frames) = mpsc::channel(WAITING);
        let time = admitted.expires.since(admitted.now);
        tracing::info!(data.intent = %admitted.intent, data.place = admitted.place + 1, "a part of a query is held");
        self.threads.spawn(keep(shared, sender, time));
        Ok(frames)
    }

    /// Begins a session in which the worker at `place` of this intent asks, if it is that worker.
    ///
    /// # Errors
    /// [`WorkerError::NotHeld`].
    pub(crate) fn hop(&self, intent: &StatementId, place: usize, message: &[u8]) -> Result<Vec<u8>, WorkerError> {
        let held = self.holds.find(intent, self.ports.clock.now()).ok_or(WorkerError::NotHeld)?;
        held.begin(place, message).ok_or(WorkerError::NotHeld)
    }

    /// Answers a question in such a session.
    ///
    /// # Errors
    /// [`WorkerError::NotHeld`].
    pub(crate) fn question(
        &self,
        intent: &StatementId,
        session: &Digest,
        question: &[u8],
    ) -> Result<Frames, WorkerError> {
        let held = self.holds.find(intent, self.ports.clock.now()).ok_or(WorkerError::NotHeld)?;
        let asked = held.take(session, question).ok_or(WorkerError::NotHeld)?;
        let (sender, frames) = mpsc::channel(WAITING);
        self.threads.spawn(held.answer(asked, sender));
        Ok(frames)
    }

    /// Writes objects anew. The evidence says that this very code may, and that nothing may be given out.
    async fn rewrite(
        &self,
        admitted: &Admitted,
        open: Open,
        permit: OwnedSemaphorePermit,
    ) -> Result<Frames, WorkerError> {
        let Open { table, class, objects, store, evidence } = open;
        if admitted.workers.keys().len() > 1 {
            return Err(Refused::Several(admitted.intent).into());
        }
        if admitted.schema.is_none() || admitted.budget.rows > 0 || admitted.budget.bytes > 0 {
            return Err(Refused::Rewriting(admitted.intent).into());
        }
        check_schema(admitted.schema, rewrite::planned(table, Vec::new()).schema())?;
        let mut destinations = BTreeMap::new();
        {
            let mut policies = self.policies.lock().await;
            let policy = policies.newest()?;
            let none = || WorkerError::Request("the policy says nothing of data".to_owned());
            let residency = policy.policy().residency.as_ref().ok_or_else(none)?;
            for country in objects.iter().map(|object| object.country) {
                let place = (&self.host.region, country);
                destinations.insert(country, Destination::again(residency, policy.id(), place, admitted.now)?);
            }
        }
        let left_out = self.left_out(&objects).await?;
        let (sender, frames) = mpsc::channel(WAITING);
        let rewrites = Rewrites {
            table,
            class,
            objects,
            store,
            vault: Arc::clone(self.catalog.vault()),
            destinations,
            entropy: Arc::clone(&self.ports.entropy),
            host: Arc::clone(&self.host),
            enrolment: self.enrolment,
            intent: admitted.intent,
            evidence,
            left_out,
        };
        tracing::info!(data.intent = %admitted.intent, "objects are being written anew");
        let time = admitted.expires.since(admitted.now);
        self.threads.spawn(rewrites.give(sender, time, permit));
        Ok(frames)
    }

    /// Objects whose events are not written again. That they are to be erased the vault says; that they may be, a custodian
    /// has said in the log.
    async fn left_out(&self, objects: &[Located]) -> Result<BTreeSet<BatchId>, WorkerError> {
        let segments = objects.iter().map(|object| object.place.segment).collect();
        let erased = self.catalog.erased_in(&segments).await?;
        let mut shown: BTreeSet<BatchId> = BTreeSet::new();
        for evidence in erased.values().collect::<BTreeSet<_>>() {
            let bundle = self.catalog.vault().evidence(&self.host.region, evidence).await?;
            let mut policies = self.policies.lock().await;
            let renounced = Renounced::check(policies.newest()?, &bundle)?;
            if *renounced.region() == self.host.region {
                shown.extend(renounced.objects());
            }
        }
        match erased.keys().find(|name| !shown.contains(name)) {
            Some(name) => Err(WorkerError::NotErased(*name)),
            None => Ok(erased.into_keys().collect()),
        }
    }

    async fn admit(
        &self,
        evidence: &Bundle,
        request: &RunRequest,
        headers: &[Header],
    ) -> Result<(Admitted, Arc<PrivateKey>), WorkerError> {
        let now = self.ports.clock.now();
        let keys: Vec<(Digest, Arc<PrivateKey>)> = {
            let keys = self.keys.lock().await;
            let living = keys.iter().filter(|key| now.since(key.from) < KEY_LIFE);
            living.map(|key| (key.key.public().id(), Arc::clone(&key.key))).collect()
        };
        let ids: Vec<Digest> = keys.iter().map(|(id, _)| *id).collect();
        let admitted = {
            let mut policies = self.policies.lock().await;
            let (region, code) = (&self.host.region, self.host.code);
            let reader = Reader { policy: policies.newest()?, region, code, keys: &ids, now };
            let parameters = request.parameters.as_ref();
            admit(&reader, &Ask { evidence, query: &request.query, parameters, headers })?
        };
        let key = keys.into_iter().find(|(id, _)| *id == admitted.key).map(|(_, key)| key).ok_or(WorkerError::Died)?;
        self.note(&admitted).await?;
        Ok((admitted, key))
    }

    /// An intent is answered once. Its key dies with this process, so nothing needs to be remembered beyond.
    async fn note(&self, admitted: &Admitted) -> Result<(), WorkerError> {
        let mut used = self.used.lock().await;
        used.retain(|_, expires| *expires > admitted.now);
        if used.len() >= USED_MAX {
            return Err(WorkerError::Busy);
        }
        match used.insert(admitted.intent, admitted.expires) {
            None => Ok(()),
            Some(_) => Err(Refused::Used(admitted.intent).into()),
        }
    }
}

/// Objects whose keys are at hand.
struct Open {
    table: &'static Table,
    class: DataClass,
    objects: Vec<Located>,
    store: Arc<SealedStore>,
    evidence: String,
}

fn check_schema(expected: Option<Digest>, found: Digest) -> Result<(), WorkerError> {
    match expected.filter(|expected| *expected != found) {
        Some(expected) => Err(WorkerError::Schema { found, expected }),
        None => Ok(()),
    }
}

/// The schema of what comes out of a query that has no values: what a request that stands is bound to.
///
/// # Errors
/// [`WorkerError`], also if there is no such class.
pub fn schema(class: &DataClass, text: String) -> Result<Digest, WorkerError> {
    let table = table(class.as_str())?;
    if Rewrite::of(&text).is_some() {
        return Ok(rewrite::planned(table, Vec::new()).schema());
    }
    let (threads, memory) = (Threads::start().map_err(WorkerError::Threads)?, Memory(64 << 20));
    let (sender, receiver) = std::sync::mpsc::channel();
    let query = Query { text, parameters: api::Parameters::new(), table };
    threads.spawn(async move { sender.send(query.plan(Vec::new(), memory).await) });
    Ok(receiver.recv().map_err(|_| WorkerError::Died)??.schema())
}

fn table(class: &str) -> Result<&'static Table, WorkerError> {
    Table::of(class).ok_or_else(|| WorkerError::Request(format!("there is no table for class `{class}`")))
}

/// The identity of the host's enrolment, if it is this host's, here, with this program.
fn enrolled(host: &Host, policy: &verify::TrustedPolicy) -> Result<StatementId, WorkerError> {
    let refuse = |why: &str| WorkerError::Enrolment(why.to_owned());
    let evidence = Evidence::open(policy, &host.enrolment).map_err(|error| refuse(&error.to_string()))?;
    let enrolment = evidence.one::<WorkerEnrolment>(Role::Recorder).map_err(|error| refuse(&error.to_string()))?;
    let (says, subject) = (&enrolment.statement().predicate, &enrolment.statement().subject);
    if says.key != *host.key.verifier() {
        return Err(refuse("is another host's"));
    }
    if says.region != host.region {
        return Err(refuse("is for another region"));
    }
    if subject.iter().map(Subject::sha256).collect::<Vec<_>>() != [host.code] {
        return Err(refuse("names another program than this one"));
    }
    Ok(enrolment.id())
}
