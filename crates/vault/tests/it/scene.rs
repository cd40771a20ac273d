//! An intake on this machine's disk, and endpoints that seal for its region.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use attest::StatementId;
use bytes::Bytes;
use policy::Residency;
use seal::{BatchId, Destination, Sealed};
use stdx::{Clock as _, ManualClock, SystemEntropy, UnixTime};
use storage::{FileObjects, ObjectStore};
use tempfile::TempDir;
use testkit::{Custody, REGION};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use vault::{Admission, Intake, Limits, Manifests, Parts, WriterError};

/// Making keys takes longer than all the rest.
pub(crate) static CUSTODY: LazyLock<Custody> = LazyLock::new(Custody::new);

pub(crate) fn policy_id() -> StatementId {
    StatementId::of(b"a policy")
}

pub(crate) const NOW: u64 = 1_767_225_600;

pub(crate) fn sealed_by(residency: &Residency, policy: StatementId, country: &str, text: &str) -> Bytes {
    let at = UnixTime::from_seconds(NOW);
    let destination = Destination::new(residency, policy, country.parse().unwrap(), at).unwrap();
    destination.seal(&"statistics".parse().unwrap(), text.as_bytes(), &SystemEntropy).unwrap().into()
}

pub(crate) fn sealed(text: &str) -> Bytes {
    sealed_by(&CUSTODY.residency(), policy_id(), "DE", text)
}

pub(crate) struct Scene {
    pub(crate) folder: TempDir,
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) limits: Limits,
}

/// An intake that runs.
pub(crate) struct Running {
    pub(crate) intake: Intake,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) task: JoinHandle<Result<(), WriterError>>,
}

impl Running {
    /// As a power cut does it.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    pub(crate) async fn end(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap().unwrap();
    }
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let objects = FileObjects::create(&folder.path().join("store")).await.unwrap();
        let clock = Arc::new(ManualClock::new(UnixTime::from_seconds(NOW)));
        Self { folder, objects: Arc::new(objects), clock, limits: Limits::default() }
    }

    pub(crate) fn wal(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        stdx::durable::create_folder(&path).unwrap();
        path
    }

    pub(crate) fn parts(&self, wal: &str, objects: Arc<dyn ObjectStore>) -> Parts {
        let residency = CUSTODY.residency();
        let retention_s = residency.classes.iter().map(|it| (it.id.clone(), it.retention_s));
        Parts {
            wal: self.wal(wal),
            objects,
            admission: Admission::new(&residency, &[REGION.parse().unwrap()].into(), BTreeSet::from([policy_id()])),
            retention_s: retention_s.collect::<BTreeMap<_, _>>(),
            clock: self.clock.clone(),
            limits: self.limits,
        }
    }

    pub(crate) async fn run(&self, wal: &str) -> Running {
        self.run_on(wal, Arc::clone(&self.objects)).await.unwrap()
    }

    pub(crate) async fn run_on(&self, wal: &str, objects: Arc<dyn ObjectStore>) -> Result<Running, WriterError> {
        let (intake, writer) = vault::open(self.parts(wal, objects)).await?;
        let (stop, stopped) = watch::channel(false);
        Ok(Running { intake, stop, task: tokio::spawn(writer.run(stopped)) })
    }

    pub(crate) async fn manifests(&self) -> Manifests {
        Manifests::open(Arc::clone(&self.objects), REGION.parse().unwrap()).await.unwrap()
    }

    /// Everything that the manifests name, read from the store and opened by both custodians: no name
    /// stands twice.
    pub(crate) async fn kept(&self) -> BTreeMap<String, BatchId> {
        let mut found = BTreeMap::new();
        let mut names = BTreeSet::new();
        for segment in self.manifests().await.chain().segments() {
            let key = format!("segment/{REGION}/{}/{}", segment.class, segment.segment).parse().unwrap();
            let bytes = self.objects.get(&key).await.unwrap().unwrap();
            assert_eq!(stdx::Digest::of(&bytes), segment.segment);
            for kept in &segment.objects {
                assert!(names.insert(kept.id), "{} stands twice", kept.id);
                let object = &bytes[kept.at as usize..][..kept.bytes as usize];
                assert_eq!(stdx::Digest::of(object), kept.object);
                let opened = Sealed::read(object, &CUSTODY.open(object)).unwrap();
                found.insert(String::from_utf8(opened).unwrap(), kept.id);
            }
        }
        assert_eq!(found.len(), names.len(), "each text was sent under one name");
        found
    }

    /// What is kept once an intake has been opened again and closed.
    pub(crate) async fn kept_after_restart(&self, wal: &str) -> BTreeMap<String, BatchId> {
        self.run(wal).await.end().await;
        self.kept().await
    }

    pub(crate) fn later(&self, days: u64) {
        let now = self.clock.now().seconds();
        self.clock.set(UnixTime::from_seconds(now + days * 86_400));
    }
}
