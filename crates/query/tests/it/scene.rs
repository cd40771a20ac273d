//! A vault with sealed events, two custodians, a gateway, and a worker on an enrolled host.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use api::{
    GrantAnswer, GrantedShare, Made, Parameters, Plan, PlanRequest, ResultEnd, ResultFormat, ResultPiece, ResultReader,
    Rewrite, RunRequest,
};
use async_trait::async_trait;
use attest::{
    AccessApproval, AccessIntent, AccessMode, AccessRequest, Budget, Bundle, Commitment, Envelope, Erasure,
    ErasureRequest, Opening, Predicate, PrivateField, ReaderKind, RegionId, RegionStatus, Standing, Statement,
    StatementId, Subject, WorkerEnrolment, WorkerKey, Workers,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use custody::{Ask, Custodian, FileKeys, Ledger, Seen, current, decide, objects_root};
use policy::Role;
use query::{Frames, Host, Memory, Place, Ports, Vault, VaultError, Worker, WorkerError};
use seal::{BatchId, Destination, Header, PrivateKey};
use stdx::{Clock as _, Digest, ManualClock, SystemEntropy, UnixTime};
use storage::{FileObjects, LockBatch, ObjectStore, SqliteStore};
use tempfile::TempDir;
use testkit::{Custody, PURPOSE, REGION, SUPERVISOR_LOG, World};
use tlog::{KeyKind, SignerKey};
use vault::{Admission, Chain, Manifests, NotRenounced, Offer, Renounced, Replacement, RewritingError};

/// The vault's objects, without HTTP between.
#[derive(Clone)]
pub(crate) struct OnDisk(pub(crate) Arc<dyn ObjectStore>);

impl std::fmt::Debug for OnDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnDisk")
    }
}

#[async_trait]
impl Vault for OnDisk {
    async fn manifest(&self, region: &RegionId, number: u64) -> Result<Option<Bytes>, VaultError> {
        Ok(self.0.get(&format!("manifest/{region}/{number:016}").parse().unwrap()).await.unwrap())
    }

    async fn evidence(&self, region: &RegionId, evidence: &Digest) -> Result<Bytes, VaultError> {
        let failed = || VaultError::Failed { what: evidence.to_string(), why: "it is not there".to_owned() };
        self.0.get(&vault::evidence_key(region, evidence).unwrap()).await.unwrap().ok_or_else(failed)
    }

    async fn read(&self, place: &Place, range: Range<u64>) -> Result<Bytes, VaultError> {
        let key = format!("segment/{}/{}/{}", place.region, place.class, place.segment).parse().unwrap();
        let failed = || VaultError::Failed { what: place.segment.to_string(), why: "it is not there".to_owned() };
        let bytes = self.0.get(&key).await.unwrap().ok_or_else(failed)?;
        Ok(bytes.slice(range.start as usize..range.end as usize))
    }
}

/// What is asked, and how much of it.
#[derive(Clone)]
pub(crate) struct Question {
    pub(crate) class: String,
    pub(crate) countries: Vec<String>,
    pub(crate) text: String,
    pub(crate) parameters: Parameters,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) lease_s: u64,
    pub(crate) standing: Option<Standing>,
    pub(crate) format: ResultFormat,
}

impl Question {
    pub(crate) fn of(class: &str, text: &str) -> Self {
        Self {
            class: class.to_owned(),
            countries: vec!["DE".to_owned(), "JP".to_owned()],
            text: text.to_owned(),
            parameters: Parameters::new(),
            rows: 1000,
            bytes: 1 << 20,
            lease_s: 600,
            standing: None,
            format: ResultFormat::Csv,
        }
    }
}

pub(crate) struct Scene {
    pub(crate) custody: Custody,
    pub(crate) world: World,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) host: SignerKey,
    pub(crate) enrolment: Envelope,
    pub(crate) folder: TempDir,
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) worker: Arc<Worker>,
    ledgers: BTreeMap<&'static str, Ledger>,
}

pub(crate) const CODE: &[u8] = b"code";

impl Scene {
    pub(crate) async fn new() -> Self {
        let custody = Custody::new();
        let world = World::with_policy(|policy| custody.put_into(policy));
        Self::of(custody, world).await
    }

    /// Today: for programs, which know no other time.
    pub(crate) async fn of_today() -> Self {
        let (custody, now) = (Custody::new(), stdx::SystemClock::new().now());
        let world = World::with_policy(|policy| {
            custody.put_into(policy);
            let residency = policy.residency.as_mut().unwrap();
            let custodians = residency.regions.iter_mut().flat_map(|region| &mut region.custodians);
            for key in custodians.flat_map(|custodian| &mut custodian.keys) {
                (key.from, key.until) = (UnixTime::EPOCH, now.after(Duration::from_secs(7 * 86_400)));
            }
            residency.assignments.iter_mut().for_each(|it| it.from = UnixTime::EPOCH);
        });
        world.clock.set(now);
        Self::of(custody, world).await
    }

    async fn of(custody: Custody, mut world: World) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let host = SignerKey::generate("host-1.example/host".parse().unwrap(), KeyKind::Ed25519, &SystemEntropy);
        let host = host.unwrap();
        let enrolment = enrol(&mut world, &host, Digest::of(CODE));
        let objects: Arc<dyn ObjectStore> = Arc::new(FileObjects::create(&folder.path().join("store")).await.unwrap());
        let clock = Arc::new(ManualClock::new(world.clock.now()));
        std::fs::create_dir(folder.path().join("policies")).unwrap();
        stdx::durable::write(&folder.path().join("policies/1.envelope"), &world.genesis().to_bytes()).unwrap();
        let mut ledgers = BTreeMap::new();
        for organisation in ["supervisor", "member"] {
            let store = SqliteStore::create(&folder.path().join(format!("{organisation}.sqlite"))).await.unwrap();
            let locks: Arc<dyn LockBatch> = Arc::new(store);
            ledgers.insert(organisation, Ledger::new(locks, REGION.parse().unwrap()));
        }
        let bundle = world.bundle(&[(SUPERVISOR_LOG, &enrolment)]);
        let vault = Arc::new(OnDisk(Arc::clone(&objects)));
        let worker = worker(&host, bundle, folder.path(), &world, vault, &clock).unwrap();
        Self { custody, world, clock, host, enrolment, folder, objects, worker: Arc::new(worker), ledgers }
    }

    /// Another process on the same host.
    pub(crate) fn another_worker(&self) -> Worker {
        self.another_worker_with(Arc::new(OnDisk(Arc::clone(&self.objects))))
    }

    /// The same, which reads the ciphertext there.
    pub(crate) fn another_worker_with(&self, vault: Arc<dyn Vault>) -> Worker {
        let bundle = self.world.bundle(&[(SUPERVISOR_LOG, &self.enrolment)]);
        worker(&self.host, bundle, self.folder.path(), &self.world, vault, &self.clock).unwrap()
    }

    /// Everybody's time goes on.
    pub(crate) fn pass(&self, time: Duration) {
        self.clock.advance(time);
        self.world.clock.set(self.clock.now());
    }

    pub(crate) fn in_s(&self, seconds: u64) -> UnixTime {
        self.world.clock.now().after(Duration::from_secs(seconds))
    }

    /// A batch as an endpoint seals it.
    pub(crate) fn sealed(&self, class: &str, country: &str, lines: impl AsRef<[u8]>) -> Bytes {
        let (id, policy) = (self.world.policy().id(), self.world.policy().policy());
        let (residency, now) = (policy.residency.as_ref().unwrap(), self.world.clock.now());
        let destination = Destination::new(residency, id, country.parse().unwrap(), now).unwrap();
        destination.seal(&class.parse().unwrap(), lines.as_ref(), &SystemEntropy).unwrap().into()
    }

    /// Takes sealed batches in, as the vendor's intake does, and makes segments of them.
    pub(crate) async fn take(&self, batches: &[Bytes]) {
        let residency = self.world.policy().policy().residency.clone().unwrap();
        let policies = BTreeSet::from([self.world.policy().id()]);
        let wal = self.folder.path().join("wal");
        stdx::durable::create_folder(&wal).unwrap();
        let parts = || vault::Parts {
            wal: wal.clone(),
            objects: Arc::clone(&self.objects),
            admission: Admission::new(&residency, &[REGION.parse().unwrap()].into(), policies.clone()),
            retention_s: BTreeMap::new(),
            clock: self.clock.clone(),
            limits: vault::Limits::default(),
        };
        let (intake, writer) = vault::open(parts()).await.unwrap();
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let running = tokio::spawn(writer.run(stopped));
        for batch in batches {
            intake.take(batch.clone()).await.unwrap();
        }
        stop.send_replace(true);
        running.await.unwrap().unwrap();
        // What a process leaves behind becomes segments when the next one opens it.
        drop(vault::open(parts()).await.unwrap());
    }

    pub(crate) async fn manifests(&self) -> Manifests {
        Manifests::open(Arc::clone(&self.objects), REGION.parse().unwrap()).await.unwrap()
    }

    /// What a vendor asks, so that lines become columns.
    pub(crate) fn compaction(&self, class: &str) -> Question {
        let schema = query::schema(&class.parse().unwrap(), Rewrite::Compact.query().to_owned()).unwrap();
        let standing = Some(Standing { code: Digest::of(CODE), schema, uses: 100 });
        let question = Question::of(class, Rewrite::Compact.query());
        Question { rows: 0, bytes: 0, standing, format: ResultFormat::Sealed, ..question }
    }

    /// Has a worker write anew what there is; nothing, if there is nothing to do.
    pub(crate) async fn rewritten(&mut self, question: &Question) -> Option<(Bytes, ResultEnd)> {
        let plan = self.plan(question).await.unwrap();
        if plan.objects.is_empty() {
            return None;
        }
        let request = self.granted(question, &plan).await;
        let (segment, end) = collected(self.worker.run(request).await.unwrap()).await;
        assert_eq!((end.failed.as_ref(), end.bytes), (None, segment.len() as u64));
        Some((segment.into(), end))
    }

    /// Whether the vault takes it, with the evidence that the worker gives.
    pub(crate) fn check(&self, chain: &Chain, segment: &Bytes, made: &Made) -> Result<Replacement, RewritingError> {
        let residency = self.world.policy().policy().residency.clone().unwrap();
        let policies = BTreeSet::from([self.world.policy().id()]);
        let offer = Offer {
            policy: self.world.policy(),
            now: self.clock.now(),
            statement: &Envelope::parse(made.statement.as_bytes()).unwrap(),
            evidence: &Bundle::parse(made.evidence.as_bytes()).unwrap(),
        };
        chain.check(&offer.check()?, &Admission::new(&residency, &[REGION.parse().unwrap()].into(), policies), segment)
    }

    /// Compaction, as the vendor has it done, until nothing is left to do. Says how often something was.
    pub(crate) async fn compact(&mut self, class: &str) -> usize {
        let question = self.compaction(class);
        let mut count = 0;
        while let Some((segment, end)) = self.rewritten(&question).await {
            let mut manifests = self.manifests().await;
            let replacement = self.check(manifests.chain(), &segment, &end.made.unwrap()).unwrap();
            manifests.replace(&replacement).await.unwrap();
            count += 1;
        }
        count
    }

    /// The logged request to erase these.
    pub(crate) fn erasure_request(&mut self, mut objects: Vec<BatchId>) -> Envelope {
        objects.sort();
        let subject = vec![custody::erasure_subject(&objects)];
        let position = self.world.position(SUPERVISOR_LOG, "access/supervisor");
        let request = ErasureRequest { position, region: REGION.parse().unwrap(), objects, deadline: self.in_s(60) };
        self.record(subject, request, ("supervisor", Role::Recorder))
    }

    /// A custodian's logged word that it has.
    pub(crate) fn erasure(&mut self, request: StatementId) -> Envelope {
        let position = self.world.position(SUPERVISOR_LOG, "custody/supervisor");
        let region = REGION.parse().unwrap();
        let word = Erasure { position, request, region, rows: 0, horizon: self.in_s(60) };
        self.record(vec![Subject::new("objects", Digest::of(b""))], word, ("supervisor", Role::Custodian))
    }

    pub(crate) fn renounced(&self, evidence: &[&Envelope]) -> Result<Renounced, NotRenounced> {
        let entries: Vec<_> = evidence.iter().map(|envelope| (SUPERVISOR_LOG, *envelope)).collect();
        Renounced::check(self.world.policy(), &self.world.bundle(&entries).to_bytes())
    }

    /// Has the vault erase these, as a gateway does it after the custodians.
    pub(crate) async fn erase(&mut self, objects: Vec<BatchId>) -> vault::Erased {
        let request = self.erasure_request(objects);
        let word = self.erasure(request.id());
        let renounced = self.renounced(&[&request, &word]).unwrap();
        self.manifests().await.erase(&renounced).await.unwrap()
    }

    pub(crate) async fn plan(&self, question: &Question) -> Result<Plan, WorkerError> {
        let request = PlanRequest {
            query: question.text.clone(),
            parameters: question.parameters.clone(),
            class: question.class.parse().unwrap(),
            countries: question.countries.iter().map(|it| it.parse().unwrap()).collect(),
            objects: 8,
        };
        self.worker.plan(request).await
    }

    fn record<P: Predicate>(&mut self, subject: Vec<Subject>, predicate: P, signer: (&str, Role)) -> Envelope {
        record(&mut self.world, subject, predicate, signer)
    }

    fn request(&mut self, question: &Question) -> Envelope {
        let private = |label, value| Commitment::new(PrivateField { label, value }, &[7; 32]);
        let request = AccessRequest {
            position: self.world.position(SUPERVISOR_LOG, "data/vendor"),
            reader: private("reader", "an analyst"),
            kind: ReaderKind::Person,
            purpose: PURPOSE.parse().unwrap(),
            ticket: private("ticket", "a ticket"),
            region: REGION.parse().unwrap(),
            class: question.class.parse().unwrap(),
            countries: question.countries.iter().map(|it| it.parse().unwrap()).collect(),
            budget: Budget { objects: 8, rows: question.rows, bytes: question.bytes },
            until: self.in_s(3600),
            mode: AccessMode::Ordinary,
            standing: question.standing,
        };
        self.record(query_subject(&question.text), request, ("vendor", Role::Reader))
    }

    /// Everything that a gateway brings after a plan: the statements, logged and proven, and both custodians'
    /// shares, each after its own checks and its own note.
    pub(crate) async fn granted(&mut self, question: &Question, plan: &Plan) -> RunRequest {
        let certificate = self.worker.certificate().await.unwrap();
        self.granted_to(&certificate, question, plan).await
    }

    /// The same for another worker.
    pub(crate) async fn granted_to(
        &mut self,
        certificate: &api::Worker,
        question: &Question,
        plan: &Plan,
    ) -> RunRequest {
        self.granted_to_all(std::slice::from_ref(certificate), question, plan).await
    }

    /// The same for several, in this order, all on this host.
    pub(crate) async fn granted_to_all(
        &mut self,
        certificates: &[api::Worker],
        question: &Question,
        plan: &Plan,
    ) -> RunRequest {
        let workers: Vec<Envelope> =
            certificates.iter().map(|it| Envelope::parse(it.key.as_bytes()).unwrap()).collect();
        let keys = workers.iter().map(|it| Digest::of(key_of(it).as_bytes())).collect();
        let headers: Vec<Header> = plan.objects.iter().map(|object| header(&object.header)).collect();
        let request = self.request(question);
        let mut envelopes = vec![request.clone(), self.enrolment.clone()];
        if question.class == testkit::APPROVED_CLASS {
            let approval = AccessApproval {
                position: self.world.position(SUPERVISOR_LOG, "data/supervisor"),
                request: request.id(),
                comment: Commitment::new(PrivateField { label: "comment", value: "yes" }, &[7; 32]),
            };
            let subject = query_subject(&question.text);
            envelopes.push(self.record(subject, approval, ("supervisor", Role::Approver)));
        }
        envelopes.push(self.status());
        let parameters = (!question.parameters.is_empty()).then(|| {
            let value = serde_json::to_string(&question.parameters).unwrap();
            Opening::new(PrivateField { label: "parameters", value: &value }, &SystemEntropy).unwrap()
        });
        let intent = AccessIntent {
            position: self.world.position(SUPERVISOR_LOG, "access/supervisor"),
            policy: self.world.policy().id(),
            request: request.id(),
            region: REGION.parse().unwrap(),
            class: question.class.parse().unwrap(),
            countries: question.countries.iter().map(|it| it.parse().unwrap()).collect(),
            workers: Workers::new(keys).unwrap(),
            budget: Budget { objects: headers.len() as u64, rows: question.rows, bytes: question.bytes },
            expires: self.in_s(question.lease_s),
            reader: None,
            parameters: parameters.as_ref().map(Opening::commitment),
        };
        let subject = vec![Subject::new("objects", objects_root(&headers).unwrap())];
        let intent = self.record(subject, intent, ("supervisor", Role::Gateway));
        envelopes.push(intent.clone());
        let entries: Vec<_> = envelopes.iter().map(|envelope| (SUPERVISOR_LOG, envelope)).collect();
        let evidence = self.world.bundle(&entries);
        let mut grants = BTreeMap::new();
        for (organisation, key) in [("supervisor", &self.custody.supervisor_key), ("member", &self.custody.member_key)]
        {
            let answer = self.grant(organisation, key, &evidence, &workers, &headers).await;
            grants.insert(organisation.parse().unwrap(), answer);
        }
        RunRequest {
            evidence: String::from_utf8(evidence.to_bytes()).unwrap(),
            query: question.text.clone(),
            parameters,
            objects: plan.objects.clone(),
            grants,
            format: question.format,
            workers: Vec::new(),
        }
    }

    fn status(&mut self) -> Envelope {
        let status = RegionStatus {
            position: self.world.position(SUPERVISOR_LOG, &format!("region/{REGION}")),
            policy: self.world.policy().id(),
            region: REGION.parse().unwrap(),
            expires: self.in_s(3600),
            stopped: Vec::new(),
        };
        let subject = vec![Subject::new(REGION, Digest::of(REGION.as_bytes()))];
        self.record(subject, status, ("supervisor", Role::Status))
    }

    async fn grant(
        &self,
        organisation: &str,
        key: &PrivateKey,
        evidence: &Bundle,
        workers: &[Envelope],
        headers: &[Header],
    ) -> GrantAnswer {
        let ledger = &self.ledgers[organisation];
        let (region, organisation) = (REGION.parse().unwrap(), organisation.parse().unwrap());
        let (policy, seen) = (self.world.policy(), Seen::default());
        let custodian =
            Custodian { organisation: &organisation, region: &region, policy, clock: &self.world.clock, seen };
        let mut brought = evidence.entries().iter();
        let status = brought.find(|it| Statement::<RegionStatus>::decode(it.envelope.payload()).is_ok());
        let status = current(&custodian, &Bundle::new(vec![status.unwrap().clone()]).unwrap()).unwrap();
        let admitted = decide(&custodian, &status, &Ask { evidence, workers, headers }).unwrap();
        let keys = FileKeys::new(vec![PrivateKey::from_text(&key.to_text()).unwrap()]);
        let grant = ledger.note(admitted).await.unwrap().open(&keys, &|_| false, &SystemEntropy).unwrap();
        let share = |share: &custody::Granted| GrantedShare {
            object: share.object.to_string(),
            encapsulated: STANDARD.encode(&share.wrapped.encapsulated),
            sealed: STANDARD.encode(&share.wrapped.sealed),
        };
        let closed = grant.closed.iter().map(ToString::to_string).collect();
        GrantAnswer { granted: grant.granted.iter().map(share).collect(), closed }
    }

    /// The whole path.
    pub(crate) async fn ask(&mut self, question: &Question) -> (String, ResultEnd) {
        let plan = self.plan(question).await.unwrap();
        let request = self.granted(question, &plan).await;
        let frames = self.worker.run(request).await.unwrap();
        let (bytes, end) = collected(frames).await;
        (String::from_utf8(bytes).unwrap(), end)
    }

    /// A result that is whole.
    pub(crate) async fn answer(&mut self, class: &str, text: &str) -> String {
        let (answer, end) = self.ask(&Question::of(class, text)).await;
        assert_eq!(end.failed, None);
        assert_eq!((end.bytes, end.sha256), (answer.len() as u64, Digest::of(answer.as_bytes())));
        answer
    }
}

/// The key that a host has certified, as text.
pub(crate) fn key_of(worker: &Envelope) -> String {
    Statement::<WorkerKey>::decode(worker.payload()).unwrap().predicate.key
}

pub(crate) fn header(encoded: &str) -> Header {
    let header = STANDARD.decode(encoded).unwrap();
    let length = (header.len() as u32).to_be_bytes();
    Header::parse(&[&length[..], &header].concat()).unwrap().0
}

/// All frames of a result.
pub(crate) async fn collected(mut frames: Frames) -> (Vec<u8>, ResultEnd) {
    let mut stream = Vec::new();
    while let Some(frame) = frames.recv().await {
        stream.extend(frame);
    }
    read(&stream)
}

pub(crate) fn read(stream: &[u8]) -> (Vec<u8>, ResultEnd) {
    let (mut reader, mut bytes) = (ResultReader::new(stream), Vec::new());
    loop {
        match reader.piece().unwrap() {
            ResultPiece::Bytes(piece) => bytes.extend(piece),
            ResultPiece::End(end) => return (bytes, end),
        }
    }
}

pub(crate) fn query_subject(text: &str) -> Vec<Subject> {
    vec![Subject::new("query", Digest::of(text.as_bytes()))]
}

pub(crate) fn enrol(world: &mut World, host: &SignerKey, code: Digest) -> Envelope {
    let enrolment = WorkerEnrolment {
        position: world.position(SUPERVISOR_LOG, "access/supervisor"),
        host: "host-1".parse().unwrap(),
        key: host.verifier().clone(),
        region: REGION.parse().unwrap(),
        until: world.clock.now().after(Duration::from_secs(86_400)),
    };
    record(world, vec![Subject::new("code", code)], enrolment, ("supervisor", Role::Recorder))
}

pub(crate) fn record<P: Predicate>(
    world: &mut World,
    subject: Vec<Subject>,
    predicate: P,
    (who, role): (&str, Role),
) -> Envelope {
    let statement = Statement { subject, predicate };
    let key = if who == "vendor" { world.vendor.key(role) } else { world.supervisor.key(role) };
    let envelope = Envelope::sign(statement.encode().unwrap(), &[key]).unwrap();
    world.append(statement.predicate.position().unwrap(), &envelope);
    envelope
}

fn worker(
    host: &SignerKey,
    enrolment: Bundle,
    folder: &std::path::Path,
    world: &World,
    vault: Arc<dyn Vault>,
    clock: &Arc<ManualClock>,
) -> Result<Worker, WorkerError> {
    let key = host.to_secret_text().parse().unwrap();
    let host = Host { key, enrolment, region: REGION.parse().unwrap(), code: Digest::of(CODE) };
    let ports = Ports { clock: clock.clone(), entropy: Arc::new(SystemEntropy), vault };
    let genesis: StatementId = world.genesis().id();
    Worker::new(host, &folder.join("policies"), &genesis, Memory(64 << 20), ports)
}

/// Events as endpoints have them.
pub(crate) fn detection(rule: &str, size: u64) -> String {
    let sha256 = Digest::of(rule.as_bytes());
    format!(
        "{{\"id\":\"{size:032x}\",\"hour\":\"2026-01-01T10:00:00Z\",\"body\":{{\"detection\":{{\"rule\":\"{rule}\",\
         \"sha256\":\"{sha256}\",\"size\":{size}}}}}}}\n"
    )
}

pub(crate) fn statistic(of: &str, files: u64, found: u64) -> String {
    format!(
        "{{\"id\":\"{files:032x}\",\"hour\":\"2026-01-01T10:00:00Z\",\"body\":{{\"statistic\":{{\"of\":\"{of}\",\
         \"tally\":{{\"files\":{files},\"found\":{found}}}}}}}}}\n"
    )
}
