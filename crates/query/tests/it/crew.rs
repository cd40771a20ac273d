//! Several workers of one intent, each behind its own HTTP.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use api::{Plan, ResultEnd, RunRequest, RunWorker};
use async_trait::async_trait;
use attest::{Envelope, RegionId};
use bytes::Bytes;
use query::{Frames, Place, Vault, VaultError, Worker, WorkerError, router};
use stdx::Digest;

use crate::scene::{OnDisk, Question, Scene, collected, key_of};

pub(crate) struct Crew {
    pub(crate) workers: Vec<Arc<Worker>>,
    pub(crate) urls: Vec<String>,
    vaults: Vec<Arc<Watched>>,
}

/// The vault, and which bytes of which segments somebody has read there.
#[derive(Debug)]
struct Watched {
    vault: OnDisk,
    reads: Mutex<Vec<(Digest, Range<u64>)>>,
}

#[async_trait]
impl Vault for Watched {
    async fn manifest(&self, region: &RegionId, number: u64) -> Result<Option<Bytes>, VaultError> {
        self.vault.manifest(region, number).await
    }

    async fn evidence(&self, region: &RegionId, evidence: &Digest) -> Result<Bytes, VaultError> {
        self.vault.evidence(region, evidence).await
    }

    async fn read(&self, place: &Place, range: Range<u64>) -> Result<Bytes, VaultError> {
        self.reads.lock().unwrap().push((place.segment, range.clone()));
        self.vault.read(place, range).await
    }
}

/// What all of them are brought.
pub(crate) struct Brought {
    pub(crate) request: RunRequest,
    /// What the others say; they hold their parts until this is dropped.
    pub(crate) holding: Vec<Frames>,
}

impl Crew {
    pub(crate) async fn of(scene: &Scene, count: usize) -> Self {
        let watched = |_| Arc::new(Watched { vault: OnDisk(Arc::clone(&scene.objects)), reads: Mutex::default() });
        let vaults: Vec<Arc<Watched>> = (0..count).map(watched).collect();
        let workers = vaults.iter().map(|vault| Arc::new(scene.another_worker_with(Arc::clone(vault) as _)));
        let workers: Vec<Arc<Worker>> = workers.collect();
        let mut urls = Vec::new();
        for worker in &workers {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            urls.push(format!("http://{}", listener.local_addr().unwrap()));
            let router = router(Arc::clone(worker));
            tokio::spawn(async move { axum::serve(listener, router).await });
        }
        Self { workers, urls, vaults }
    }

    /// Which of the plan's objects the worker at `place` has read anything of.
    pub(crate) fn read_by(&self, place: usize, plan: &Plan) -> Vec<usize> {
        let reads = self.vaults[place].reads.lock().unwrap();
        let is_read = |at: &usize| {
            let object = &plan.objects[*at];
            let within = |read: &Range<u64>| read.start < object.at + object.bytes && object.at < read.end;
            reads.iter().any(|(segment, read)| *segment == object.segment && within(read))
        };
        (0..plan.objects.len()).filter(is_read).collect()
    }

    /// The statements for all of them, and where they are.
    pub(crate) async fn granted(&self, scene: &mut Scene, question: &Question, plan: &Plan) -> RunRequest {
        let mut certificates = Vec::new();
        for worker in &self.workers {
            certificates.push(worker.certificate().await.unwrap());
        }
        let mut request = scene.granted_to_all(&certificates, question, plan).await;
        request.workers = self.brought(&certificates);
        request
    }

    /// Who is where.
    pub(crate) fn brought(&self, certificates: &[api::Worker]) -> Vec<RunWorker> {
        let at = |(certificate, url): (&api::Worker, &String)| RunWorker {
            url: url.parse().unwrap(),
            key: key_of(&Envelope::parse(certificate.key.as_bytes()).unwrap()),
        };
        certificates.iter().zip(&self.urls).map(at).collect()
    }

    /// All but the first hold their parts.
    pub(crate) async fn held(&self, request: RunRequest) -> Brought {
        let mut holding = Vec::new();
        for worker in &self.workers[1..] {
            holding.push(worker.run(request.clone()).await.unwrap());
        }
        Brought { request, holding }
    }

    pub(crate) async fn lead(&self, brought: &Brought) -> Result<Frames, WorkerError> {
        self.workers[0].run(brought.request.clone()).await
    }

    /// The whole path, as a gateway goes it.
    pub(crate) async fn ask(&self, scene: &mut Scene, question: &Question) -> (String, ResultEnd) {
        let plan = scene.plan(question).await.unwrap();
        let request = self.granted(scene, question, &plan).await;
        let brought = self.held(request).await;
        let (bytes, end) = collected(self.lead(&brought).await.unwrap()).await;
        (String::from_utf8(bytes).unwrap(), end)
    }
}
