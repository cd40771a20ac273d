//! The worker: its host's key, its own keys for a day, and one answer for each intent.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use api::{Plan, PlanRequest, RESULT_FRAME_BYTES_MAX, ResultFormat, Rewrite, RunRequest, result_end, result_frame};
use attest::{Bundle, DataClass, Envelope, RegionId, Statement, StatementId, Subject, WorkerEnrolment, WorkerKey};
use futures::{FutureExt as _, StreamExt as _};
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
use crate::engine::{EngineError, Memory, Query, Running, Threads, stopped};
use crate::grants::{GrantFault, Grants, locate, sent_heads, vault_heads};
use crate::output::{Output, OutputError, TextMax};
use crate::policies::{Policies, PolicyError};
use crate::rewrite::{self, Rewrites};
use crate::store::SealedStore;
use crate::table::Table;

/// A key's life, and when the next one takes over: whoever was told of a key has half a day to use it.
const KEY_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
const KEY_TURN: Duration = Duration::from_secs(12 * 60 * 60);

/// Queries at once: each has its own memory.
pub(crate) const RUNS: usize = 2;

/// Intents of one day that are remembered: one a second.
const USED_MAX: usize = 86_400;

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
        let objects = locate(heads, self.catalog.objects(&class, &countries).await?)?;
        let (intent, given) = (admitted.intent, request.grants);
        let opening = self.threads.spawn(async move {
            let opened = Grants { intent, key: &key, given: &given }.open(&objects);
            opened.map(|opened| (opened, objects.into_iter().map(|(located, _)| located).collect()))
        });
        let (opened, located) = opening.await.map_err(|_| WorkerError::Died)??;
        let store = Arc::new(SealedStore::new(Arc::clone(self.catalog.vault()), opened));
        if is_rewriting {
            let evidence = request.evidence;
            return self.rewrite(&admitted, Open { table, class, objects: located, store, evidence }, permit).await;
        }
        let query = Query { text: request.query, parameters: admitted.parameters, table };
        let beginning = self.threads.spawn(query.run(located, store, self.memory));
        let running = beginning.await.map_err(|_| WorkerError::Died)??;
        check_schema(admitted.schema, running.planned.schema())?;
        let text = TextMax(table.text_bytes_max);
        let output = Output::new(request.format, &running.rows.schema(), admitted.budget, text);
        let output = output.map_err(|error| WorkerError::Request(error.to_string()))?;
        let (sender, frames) = mpsc::channel(WAITING);
        let time = admitted.expires.since(admitted.now);
        tracing::info!(data.intent = %intent, "a query begins");
        self.threads.spawn(give(running, output, sender, time, permit));
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

/// Sends what comes out, for `time` at most; the last frame says how it ended.
async fn give(
    running: Running,
    mut output: Output,
    sender: mpsc::Sender<Vec<u8>>,
    time: Duration,
    permit: OwnedSemaphorePermit,
) {
    let unreadable = Arc::clone(&running.unreadable);
    let sent = AssertUnwindSafe(send(running, &mut output, &sender)).catch_unwind();
    let failed = match tokio::time::timeout(time, sent).await {
        Ok(Ok(Ok(()))) => None,
        Ok(Ok(Err(error))) => Some(error.to_string()),
        Ok(Err(_)) => Some("the worker found an error of its own".to_owned()),
        Err(_) => Some("the intent's time is over".to_owned()),
    };
    let mut end = output.end(failed);
    end.unreadable = unreadable.load(Ordering::Relaxed);
    tracing::info!(data.rows = end.rows, data.bytes = end.bytes, data.failed = end.failed, "a query ended");
    // Who has gone away learns nothing more.
    let _ = sender.send(result_end(&end)).await;
    drop(permit);
}

#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error("{0}")]
    Engine(&'static str),
    #[error("nobody takes the result")]
    Gone,
}

async fn send(mut running: Running, output: &mut Output, sender: &mpsc::Sender<Vec<u8>>) -> Result<(), SendError> {
    let schema = running.rows.schema();
    while let Some(batch) = running.rows.next().await {
        let batch = batch.map_err(|error| SendError::Engine(stopped(&error)))?;
        pass(output.rows(&batch)?, sender).await?;
    }
    pass(output.finish(&schema)?, sender).await
}

async fn pass(bytes: Vec<u8>, sender: &mpsc::Sender<Vec<u8>>) -> Result<(), SendError> {
    for piece in bytes.chunks(RESULT_FRAME_BYTES_MAX) {
        sender.send(result_frame(piece)).await.map_err(|_| SendError::Gone)?;
    }
    Ok(())
}
